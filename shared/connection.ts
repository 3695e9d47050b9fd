/**
 * A byte stream that is pulled, not pushed: session code reads top to bottom.
 *
 * Every read returns `undefined` when the peer finished on a boundary and throws `UnexpectedEndError` when it
 * finished in the middle; what is longer than its limit is a `TooLongError`; every wait ends after `timeoutMs`
 * with a `TimeoutError`. What has arrived and is not yet asked for is bounded: then TCP's own window closes.
 */
import type { Socket } from "node:net";
import { Failure } from "./errors.ts";
import { type Codec, decode } from "./pdu.ts";

export class UnexpectedEndError extends Failure {
  override name = "UnexpectedEndError";
}
export class TooLongError extends Failure {
  override name = "TooLongError";
}
export class TimeoutError extends Failure {
  override name = "TimeoutError";
}

/** Bytes that may lie here unread before the socket is paused. */
const HIGH_WATER_BYTES = 64 * 1024;
const LF = 0x0a;
const CR = 0x0d;

export class Connection implements AsyncDisposable {
  /** The other end, as `127.0.0.1:40312` or `[::1]:40312`. */
  readonly peer: string;
  /** How long any one wait may take, in milliseconds; 0 is for ever. May be changed between calls. */
  timeoutMs: number;
  readonly #socket: Socket;
  #chunks: Buffer[] = [];
  #bufferedBytes = 0;
  #ended = false;
  #failure: unknown;
  #wakeReader: (() => void) | undefined;
  #wakeWriter: (() => void) | undefined;

  /** Takes over the socket, which must have been made with `allowHalfOpen: true`. */
  constructor(socket: Socket, timeoutMs = 0) {
    this.#socket = socket;
    this.timeoutMs = timeoutMs;
    this.peer = formatAddress(socket.remoteAddress ?? "?", socket.remotePort ?? 0);
    socket.on("data", (chunk: Buffer) => this.#received(chunk));
    socket.on("end", () => this.stopReading());
    socket.on("drain", () => this.#wakeWriter?.());
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Failure("the connection is closed")));
  }

  get closed(): boolean {
    return this.#socket.destroyed;
  }

  /** The next bytes, as many as have arrived. */
  async read(): Promise<Buffer | undefined> {
    if (this.#chunks.length === 0 && !(await this.#more())) return undefined;
    return this.#take(this.#chunks[0]?.length ?? 0);
  }

  async readExactly(sizeBytes: number): Promise<Buffer | undefined> {
    while (this.#bufferedBytes < sizeBytes) {
      if (!(await this.#more())) return this.#endedEarly(`${sizeBytes} bytes`);
    }
    return this.#take(sizeBytes);
  }

  /** A line without its LF or CRLF; `limitBytes` counts both. */
  async readLine(limitBytes: number, encoding: BufferEncoding = "utf8"): Promise<string | undefined> {
    let searchedChunks = 0;
    let searchedBytes = 0;
    while (true) {
      for (const chunk of this.#chunks.slice(searchedChunks)) {
        const found = chunk.indexOf(LF);
        const size = searchedBytes + (found < 0 ? chunk.length : found + 1);
        if (size > limitBytes) throw new TooLongError(`a line is longer than ${limitBytes} bytes`);
        if (found >= 0) return withoutCrLf(this.#take(size)).toString(encoding);
        searchedBytes = size;
        searchedChunks++;
      }
      if (!(await this.#more())) return this.#endedEarly("a line");
    }
  }

  /** A PDU of at most `limitBytes`: no more than that is ever gathered for it. */
  async readPdu<T>(codec: Codec<T>, limitBytes: number): Promise<T | undefined> {
    let neededBytes = codec.minSize;
    while (true) {
      if (neededBytes > limitBytes) {
        throw new TooLongError(`a PDU of at least ${neededBytes} bytes came, the limit is ${limitBytes}`);
      }
      while (this.#bufferedBytes < neededBytes) {
        if (!(await this.#more())) return this.#endedEarly("a PDU");
      }
      const end = codec.endOf(this.#peek(neededBytes), 0);
      if (end <= neededBytes) return decode(codec, this.#take(end));
      neededBytes = end;
    }
  }

  /** Sends, and waits while the peer is not taking what was sent before. */
  async write(bytes: Buffer | string): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#socket.write(bytes)) return;
    while (this.#socket.writableNeedDrain) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#wait("the peer took nothing", (wake) => {
        this.#wakeWriter = wake;
      });
    }
  }

  /** Sends FIN: nothing more will be written, reading goes on. */
  end(): void {
    this.#socket.end();
  }

  /** The reader sees an end after what has already arrived: how a server that stops lets its sessions finish. */
  stopReading(): void {
    this.#ended = true;
    this.#wakeReader?.();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /**
   * Sends FIN and waits for the peer's, at most `lingerMs`. Closing with bytes unread would send a reset,
   * and that can destroy our last words on their way (RFC 9112 §9.6), so they are read and dropped.
   */
  async close(lingerMs = 1000): Promise<void> {
    if (this.#socket.destroyed) return;
    this.#socket.removeAllListeners("data").resume().end();
    const timer = setTimeout(() => this.#socket.destroy(), lingerMs);
    await new Promise<void>((resolve) => this.#socket.once("close", () => resolve()));
    clearTimeout(timer);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #received(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bufferedBytes += chunk.length;
    if (this.#bufferedBytes >= HIGH_WATER_BYTES) this.#socket.pause();
    this.#wakeReader?.();
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#wakeReader?.();
    this.#wakeWriter?.();
  }

  /** Waits until more bytes have arrived than now; false when none will come any more. */
  async #more(): Promise<boolean> {
    const before = this.#bufferedBytes;
    while (this.#bufferedBytes === before) {
      if (this.#ended) return false;
      if (this.#failure !== undefined) throw this.#failure;
      this.#socket.resume();
      await this.#wait("the peer sent nothing", (wake) => {
        this.#wakeReader = wake;
      });
    }
    return true;
  }

  async #wait(complaint: string, register: (wake: (() => void) | undefined) => void): Promise<void> {
    const { timeoutMs } = this;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve, reject) => {
      register(resolve);
      if (timeoutMs === 0) return;
      timer = setTimeout(() => reject(new TimeoutError(`${complaint} for ${timeoutMs} ms`)), timeoutMs);
    }).finally(() => {
      clearTimeout(timer);
      register(undefined);
    });
  }

  #endedEarly(what: string): undefined {
    if (this.#bufferedBytes === 0) return undefined;
    throw new UnexpectedEndError(
      `the peer finished in the middle of ${what}, after ${this.#bufferedBytes} bytes`,
    );
  }

  /** The first `size` buffered bytes in one piece, left where they are. */
  #peek(size: number): Buffer {
    const first = this.#chunks[0];
    if (first !== undefined && first.length >= size) return first.subarray(0, size);
    const whole = Buffer.concat(this.#chunks);
    this.#chunks = [whole];
    return whole.subarray(0, size);
  }

  #take(size: number): Buffer {
    if (size === 0) return Buffer.alloc(0);
    const taken = this.#peek(size);
    const left = this.#chunks[0]?.subarray(size);
    if (left === undefined || left.length === 0) this.#chunks.shift();
    else this.#chunks[0] = left;
    this.#bufferedBytes -= size;
    return taken;
  }
}

function withoutCrLf(line: Buffer): Buffer {
  return line.subarray(0, line.at(-2) === CR ? -2 : -1);
}

/** `127.0.0.1:80`, `[::1]:80`. */
export function formatAddress(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
