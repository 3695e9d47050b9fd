/**
 * A response's body on its way in, and everybody who reads it: one comes from the origin, many go out, each at its own pace.
 * What the slowest has not read yet is in the file in which it is being stored, or, without one, holds up the origin.
 */
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { Fields } from "../../shared/http.ts";
import type { Body } from "../../shared/http-body.ts";
import type { ObjectWriter } from "./object-file.ts";

/** Kept in memory for those who read what has just come. */
export const WINDOW_BYTES = 256 * 1024;

interface TransferOptions {
  /** Where it is stored. */
  writer?: ObjectWriter | undefined;
  /** A body that turns out to be longer is not stored. */
  maxStoredBytes?: number;
  /** Told of bytes that the file has taken. */
  onStored?: (bytes: number) => void;
  /** Told when it is whole and stored; of a small one with its content. */
  onWhole?: (content: Buffer | undefined) => void;
  /** Told when it turns out that it cannot be stored, at the latest before `fill` throws. */
  onAbandoned?: () => void;
  log: (line: string) => void;
}

export class Transfer {
  #window: Buffer[] = [];
  #windowStart = 0;
  #end = 0;
  #state: "open" | "complete" | "failed" = "open";
  #failure: unknown;
  readonly #readers = new Set<Reader>();
  #waiting: (() => void)[] = [];
  readonly #options: TransferOptions;
  readonly #writer: ObjectWriter | undefined;
  #isStoring: boolean;
  #isClosed = false;
  trailers = new Fields();

  constructor(options: TransferOptions) {
    this.#options = options;
    this.#writer = options.writer;
    this.#isStoring = options.writer !== undefined;
  }

  /** All of it, if it was small enough to be still in memory when it was complete. */
  get #content(): Buffer | undefined {
    return this.#windowStart === 0 ? Buffer.concat(this.#window) : undefined;
  }

  /** Reads the body to its end. When it cannot be had whole, all readers are told, and the error is thrown. */
  async fill(body: Body): Promise<void> {
    try {
      for await (const chunk of body) {
        this.#append(chunk);
        while (!this.#hasRoom()) await this.#changed();
        if (this.#readers.size === 0 && !this.#isStoring)
          throw new Failure("nobody wants the rest of the body");
      }
      this.trailers = body.trailers;
      this.#state = "complete";
      if (this.#isStoring) this.#options.onWhole?.(this.#content);
    } catch (error) {
      this.#state = "failed";
      this.#failure = error;
      this.#stopStoring();
      throw error;
    } finally {
      this.#wake();
      this.#closeIfUnused();
    }
  }

  #append(chunk: Buffer): void {
    if (
      this.#isStoring &&
      this.#end + chunk.length > (this.#options.maxStoredBytes ?? Number.POSITIVE_INFINITY)
    )
      this.#stopStoring();
    try {
      if (this.#isStoring) this.#writer?.append(chunk);
      if (this.#isStoring) this.#options.onStored?.(chunk.length);
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#options.log(`cannot store: ${explain(error)}`);
      this.#stopStoring();
    }
    this.#window.push(chunk);
    this.#end += chunk.length;
    this.#wake();
  }

  #stopStoring(): void {
    if (!this.#isStoring) return;
    this.#isStoring = false;
    this.#options.onAbandoned?.();
  }

  /** Makes the window as small as it should be: what is on the disk, or read by all, may go from it. */
  #hasRoom(): boolean {
    const storedBytes = this.#writer?.bodyBytes ?? 0;
    let slowest = Number.POSITIVE_INFINITY;
    for (const { offset } of this.#readers) slowest = Math.min(slowest, offset);
    while (this.#end - this.#windowStart > WINDOW_BYTES) {
      const end = this.#windowStart + (this.#window[0]?.length ?? 0);
      if (end > storedBytes && end > slowest) return false;
      this.#window.shift();
      this.#windowStart = end;
    }
    return true;
  }

  attach(): Reader {
    const reader = new Reader(this, (gone) => this.#detach(gone));
    this.#readers.add(reader);
    return reader;
  }

  async read(reader: Reader): Promise<Buffer | undefined> {
    for (;;) {
      const bytes = this.#available(reader.offset);
      if (bytes !== undefined) {
        reader.offset += bytes.length;
        this.#wake();
        return bytes;
      }
      if (this.#state === "complete") return undefined;
      if (this.#state === "failed") throw new Failure("the body was cut off", { cause: this.#failure });
      await this.#changed();
    }
  }

  /** Would a read not have to wait? */
  isReady({ offset }: Reader): boolean {
    return this.#state !== "open" || offset < this.#end;
  }

  #available(offset: number): Buffer | undefined {
    if (offset < this.#windowStart) return this.#writer?.read(offset);
    let start = this.#windowStart;
    for (const chunk of this.#window) {
      if (offset < start + chunk.length) return offset === start ? chunk : chunk.subarray(offset - start);
      start += chunk.length;
    }
    return undefined;
  }

  #detach(reader: Reader): void {
    this.#readers.delete(reader);
    this.#wake();
    this.#closeIfUnused();
  }

  #closeIfUnused(): void {
    if (this.#isClosed || this.#state === "open" || this.#readers.size > 0) return;
    this.#isClosed = true;
    this.#writer?.close();
  }

  #changed(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

export class Reader {
  offset = 0;
  readonly #transfer: Transfer;
  readonly #onDetach: (reader: Reader) => void;
  constructor(transfer: Transfer, onDetach: (reader: Reader) => void) {
    this.#transfer = transfer;
    this.#onDetach = onDetach;
  }

  get isReady(): boolean {
    return this.#transfer.isReady(this);
  }

  /** The next bytes; `undefined` when all have been read. Throws `Failure` if the rest will not come. */
  read(): Promise<Buffer | undefined> {
    return this.#transfer.read(this);
  }

  /** Nothing more will be read. */
  detach(): void {
    this.#onDetach(this);
  }
}
