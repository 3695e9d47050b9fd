/**
 * A byte stream that is pulled, not pushed: session code reads top to bottom.
 *
 * Every read returns `undefined` when the peer finished on a boundary and throws `UnexpectedEndError` when it
 * finished in the middle; what is longer than its limit is a `TooLongError`; every wait ends after `timeoutMs`
 * with a `TimeoutError`. What has arrived and is not yet asked for is bounded: then TCP's own window closes.
 */
import type { Socket } from "node:net";
import { ByteQueue } from "./byte-queue.ts";
import { Failure, TimeoutError, TooLongError, UnexpectedEndError } from "./errors.ts";
import { type Codec, decode } from "./pdu.ts";
import { Waiting } from "./waiting.ts";

export { TimeoutError, TooLongError, UnexpectedEndError };

/** Bytes that may lie here unread before the socket is paused. */
const HIGH_WATER_BYTES = 64 * 1024;
const CLOSED = "the connection is closed";
const LF = Buffer.from("\n");
const CR = 0x0d;
// Made once: these are where every request and response passes.
const DONE = Promise.resolve();
const NO_MORE = Promise.resolve(false);

export class Connection implements AsyncDisposable {
  /** The other end, as `127.0.0.1:40312` or `[::1]:40312`. */
  readonly peer: string;
  /** The address alone: `127.0.0.1`, `::1`. */
  readonly peerHost: string;
  /** The address of this end, at which the peer's host can reach this one. */
  readonly localHost: string;
  /** How long any one wait may take, in milliseconds; 0 is for ever. May be changed between calls. */
  timeoutMs: number;
  /** When every wait has ended, however busily the peer sends; by `performance.now()`. May be changed between calls. */
  deadline = Number.POSITIVE_INFINITY;
  readonly #socket: Socket;
  readonly #arrived = new ByteQueue();
  #ended = false;
  #failure: unknown;
  readonly #readers = new Waiting("the peer sent nothing");
  readonly #writers = new Waiting("the peer took nothing");
  /** What lies here is lent: it is in a buffer that is used again. */
  #isLent = false;
  #isClosing = false;

  /** Takes over the socket, which must have been made with `allowHalfOpen: true`. */
  constructor(socket: Socket, timeoutMs = 0) {
    this.#socket = socket;
    this.timeoutMs = timeoutMs;
    this.peerHost = socket.remoteAddress ?? "?";
    this.localHost = socket.localAddress ?? "?";
    this.peer = formatAddress(this.peerHost, socket.remotePort ?? 0);
    socket.on("data", (chunk: Buffer) => this.#received(chunk));
    socket.on("end", () => this.stopReading());
    for (const event of ["drain", "finish"]) socket.on(event, () => this.#writers.wake(true));
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Failure(CLOSED)));
  }

  get closed(): boolean {
    return this.#socket.destroyed;
  }

  /** What was written and the system has not yet taken: until then those buffers are not to be used again. */
  get unsentBytes(): number {
    return this.#socket.writableLength;
  }

  /** What was written and the system has taken. */
  get sentBytes(): number {
    return this.#socket.bytesWritten - this.#socket.writableLength;
  }

  /** What has arrived and was not yet taken. */
  get unreadBytes(): number {
    return this.#arrived.sizeBytes;
  }

  /** Waits until more bytes have arrived than now, at most `limitMs`; false when none will come any more. */
  more(limitMs = this.timeoutMs): Promise<boolean> {
    if (this.#ended) return NO_MORE;
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#isLent) {
      this.#isLent = false;
      this.#arrived.keep();
    }
    if (this.#socket.isPaused()) this.#socket.resume();
    return this.#readers.wait(limitMs, this.deadline);
  }

  /** The first bytes of what has arrived, in one piece, left where they are: for parsers that look before they take. */
  peek(sizeBytes = this.#arrived.sizeBytes): Buffer {
    return this.#arrived.peek(sizeBytes);
  }

  /** Takes the first bytes of what has arrived; there must be as many. */
  take(sizeBytes: number): Buffer {
    return this.#arrived.take(sizeBytes);
  }

  /** The next bytes, as many as have arrived but at most `maxBytes`. */
  async read(maxBytes = Number.POSITIVE_INFINITY): Promise<Buffer | undefined> {
    if (this.#arrived.sizeBytes === 0 && !(await this.more())) return undefined;
    return this.take(Math.min(this.#arrived.firstBytes, maxBytes));
  }

  async readExactly(sizeBytes: number): Promise<Buffer | undefined> {
    while (this.#arrived.sizeBytes < sizeBytes) {
      if (!(await this.more())) return this.#endedEarly(`${sizeBytes} bytes`);
    }
    return this.take(sizeBytes);
  }

  /** Everything up to the delimiter, and with it; `limitBytes` counts both. `what` it is, for the complaint. */
  async readUntil(delimiter: Buffer, limitBytes: number, what: string): Promise<Buffer | undefined> {
    let searchedBytes = 0;
    while (true) {
      const bytes = this.peek();
      const found = bytes.indexOf(delimiter, Math.max(0, searchedBytes - delimiter.length + 1));
      searchedBytes = bytes.length;
      const size = found < 0 ? bytes.length : found + delimiter.length;
      if (size > limitBytes) throw new TooLongError(`${what} is longer than ${limitBytes} bytes`);
      if (found >= 0) return this.take(size);
      if (!(await this.more())) return this.#endedEarly(what);
    }
  }

  /** A line without its LF or CRLF; `limitBytes` counts both. */
  async readLine(limitBytes: number, encoding: BufferEncoding = "utf8"): Promise<string | undefined> {
    const line = await this.readUntil(LF, limitBytes, "a line");
    return line?.toString(encoding, 0, line.length - (line.at(-2) === CR ? 2 : 1));
  }

  /** A PDU of at most `limitBytes`: no more than that is ever gathered for it. */
  async readPdu<T>(codec: Codec<T>, limitBytes: number): Promise<T | undefined> {
    let neededBytes = codec.minSize;
    while (true) {
      if (neededBytes > limitBytes) {
        throw new TooLongError(`a PDU of at least ${neededBytes} bytes came, the limit is ${limitBytes}`);
      }
      while (this.#arrived.sizeBytes < neededBytes) {
        if (!(await this.more())) return this.#endedEarly("a PDU");
      }
      const end = codec.endOf(this.peek(neededBytes), 0);
      if (end <= neededBytes) return decode(codec, this.take(end));
      neededBytes = end;
    }
  }

  /**
   * Sends, and waits while the peer is not taking what was sent before. Several may write at once. The deadline is
   * for all of `bytes`, as nobody can see how many of them are gone: what is large is written in pieces.
   */
  write(bytes: Buffer | string): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#socket.writableEnded)
      return Promise.reject(new Failure("this side of the connection is closed"));
    return this.#socket.write(bytes) ? DONE : this.#drained();
  }

  async #drained(): Promise<void> {
    while (this.#socket.writableNeedDrain) await this.#writers.wait(this.timeoutMs, this.deadline);
    if (this.#socket.destroyed) throw this.#failure ?? new Failure(CLOSED);
  }

  /** Sends FIN: nothing more will be written, reading goes on. */
  end(): void {
    this.#socket.end();
  }

  /** The reader sees an end after what has already arrived: how a server that stops lets its sessions finish. */
  stopReading(): void {
    this.#ended = true;
    this.#readers.wake(false);
  }

  /** Gives the socket back, what was not yet taken in front: for another protocol that begins on it, such as TLS. */
  release(): Socket {
    this.#socket.removeAllListeners("data").pause();
    if (this.#arrived.sizeBytes > 0) this.#socket.unshift(this.take(this.#arrived.sizeBytes));
    return this.#socket;
  }

  /** Cuts the connection. Where bytes of ours are still unsent, the peer sees a reset, lest it take half for the whole. */
  destroy(): void {
    if (this.#socket.writableLength > 0) return this.reset();
    this.#socket.destroy();
    this.#fail(new Failure(CLOSED));
  }

  /** Cuts the connection with a reset, for where the peer would take an end for the end of what we had to say. */
  reset(): void {
    // Of TLS, only what it runs on could be reset.
    if ("encrypted" in this.#socket) this.#socket.destroy();
    else this.#socket.resetAndDestroy();
    this.#fail(new Failure(CLOSED));
  }

  /**
   * Sends FIN once the peer has taken all, waits for its FIN, at most `lingerMs`. Closing with bytes unread would
   * send a reset, and that can destroy our last words on their way (RFC 9112 §9.6), so they are read and dropped.
   */
  async close(lingerMs = 1000): Promise<void> {
    if (this.#socket.destroyed) return;
    this.#isClosing = true;
    const closed = new Promise<void>((resolve) => this.#socket.once("close", () => resolve()));
    let timer = this.timeoutMs > 0 ? setTimeout(() => this.destroy(), this.timeoutMs) : undefined;
    this.#socket
      .removeAllListeners("data")
      .resume()
      .end(() => {
        clearTimeout(timer);
        timer = setTimeout(() => this.destroy(), lingerMs);
      });
    await closed;
    clearTimeout(timer);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * Takes bytes that lie in a buffer which is used again: the socket rests until somebody asks for more than these,
   * and what was then not yet taken is copied.
   */
  lend(bytes: Buffer): void {
    if (this.#isClosing) return;
    this.#isLent = true;
    this.#socket.pause();
    this.#received(bytes);
  }

  #received(chunk: Buffer): void {
    if (this.#ended) return;
    this.#arrived.push(chunk);
    if (this.#arrived.sizeBytes >= HIGH_WATER_BYTES) this.#socket.pause();
    this.#readers.wake(true);
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#readers.fail(this.#failure);
    this.#writers.end(); // they look for themselves what has become of it
  }

  #endedEarly(what: string): undefined {
    if (this.#arrived.sizeBytes === 0) return undefined;
    throw new UnexpectedEndError(
      `the peer finished in the middle of ${what}, after ${this.#arrived.sizeBytes} bytes`,
    );
  }
}

/** `127.0.0.1:80`, `[::1]:80`. */
export function formatAddress(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
