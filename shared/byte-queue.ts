/** Bytes that have arrived in chunks and are taken in pieces of any size; a piece within one chunk is not copied. */
const NOTHING = Buffer.alloc(0);
/** A chunk costs some hundred bytes, however few are in it: more than so many chunks that are smaller than this on average, */
const MANY_CHUNKS = 256;
/** are made one, lest a peer that sends single bytes take 100 times as much memory as it sent. */
const SMALL_BYTES = 1024;

export class ByteQueue {
  #chunks: Buffer[] = [];
  sizeBytes = 0;

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.sizeBytes += chunk.length;
    const count = this.#chunks.length;
    if (count > MANY_CHUNKS && this.sizeBytes < count * SMALL_BYTES) this.#join();
  }

  /** How many there are without a copy: those of the first chunk. */
  get firstBytes(): number {
    return this.#chunks[0]?.length ?? 0;
  }

  /** The first bytes, at most as many as there are, left where they are. */
  peek(sizeBytes: number): Buffer {
    const first = this.#chunks[0] ?? NOTHING;
    if (first.length === sizeBytes) return first;
    if (first.length > sizeBytes) return first.subarray(0, sizeBytes);
    return this.#join().subarray(0, sizeBytes);
  }

  #join(): Buffer {
    const whole = Buffer.concat(this.#chunks);
    this.#chunks = [whole];
    return whole;
  }

  /** Takes the first bytes; there must be as many. */
  take(sizeBytes: number): Buffer {
    const taken = this.peek(sizeBytes);
    const first = this.#chunks[0];
    if (first === undefined || first.length === sizeBytes) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(sizeBytes);
    this.sizeBytes -= sizeBytes;
    return taken;
  }

  /** Copies what is here: its memory is used for something else from now on. */
  keep(): void {
    this.#chunks = this.#chunks.map((chunk) => Buffer.from(chunk));
  }
}
