/** The sender's side of a stream: bytes are kept until the receiver has everything before them, and lost pieces go first. */

interface Chunk {
  offset: number;
  bytes: Buffer;
}
interface Piece extends Chunk {
  isRetransmission: boolean;
}
interface Range {
  offset: number;
  length: number;
}

export class OutStream {
  /** Everything before this has arrived at the receiver. */
  received: number;
  /** Nothing from here on may be sent. */
  limit: number;
  readonly size: number;
  /** Where fresh bytes begin. */
  #next: number;
  /** Where the bytes end that the writer has given. */
  #end: number;
  #chunks: Chunk[] = [];
  #lost: Range[] = [];

  constructor(offset: number, size: number, windowBytes: number) {
    this.received = offset;
    this.#next = offset;
    this.#end = offset;
    this.size = size;
    this.limit = offset + windowBytes;
  }

  get bufferedBytes(): number {
    return this.#end - this.received;
  }
  get isWritten(): boolean {
    return this.#end === this.size;
  }
  /** Is it only the receiver's limit that keeps it from sending? */
  get isBlocked(): boolean {
    return this.#next < this.size && this.#next >= this.limit && !this.hasLost;
  }
  /** Is nothing left to be sent? */
  get isSent(): boolean {
    return this.#next === this.size && !this.hasLost;
  }
  get hasData(): boolean {
    return this.hasLost || (this.#next < this.#end && this.#next < this.limit);
  }
  get hasLost(): boolean {
    this.#dropArrived();
    return this.#lost.length > 0;
  }

  write(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#chunks.push({ offset: this.#end, bytes });
    this.#end += bytes.length;
  }

  /** The receiver has everything before `received` and takes nothing from `limit` on; true where either is news. */
  onWindow(received: number, limit: number): boolean {
    const isNews = received > this.received || limit > this.limit;
    this.limit = Math.max(this.limit, limit);
    this.received = Math.max(this.received, Math.min(received, this.#next));
    let done = 0;
    for (const { offset, bytes } of this.#chunks) {
      if (offset + bytes.length > this.received) break;
      done++;
    }
    if (done > 0) this.#chunks.splice(0, done);
    return isNews;
  }

  onLost(offset: number, length: number): void {
    if (offset + length > this.received) this.#lost.push({ offset, length });
  }

  #dropArrived(): void {
    while (this.#lost[0] !== undefined && this.#lost[0].offset + this.#lost[0].length <= this.received)
      this.#lost.shift();
  }

  /** The next piece of at most `most` bytes to be sent, lost ones first. It ends with its chunk, so that nothing is copied. */
  next(most: number): Piece | undefined {
    this.#dropArrived();
    const [lost] = this.#lost;
    if (lost !== undefined) return this.#nextLost(lost, most);
    const offset = this.#next;
    const bytes = this.at(offset, Math.min(most, this.limit - offset));
    if (bytes === undefined) return undefined;
    this.#next += bytes.length;
    return { offset, bytes, isRetransmission: false };
  }

  #nextLost({ offset, length }: Range, most: number): Piece | undefined {
    const bytes = this.at(offset, Math.min(length, most));
    const sent = bytes?.length ?? length;
    if (sent === length) this.#lost.shift();
    else this.#lost[0] = { offset: offset + sent, length: length - sent };
    return bytes && { offset, bytes, isRetransmission: true };
  }

  /** A piece from an offset on, again perhaps. What has arrived of it in the meantime is left out only where all of it has. */
  at(offset: number, most: number): Buffer | undefined {
    if (most <= 0 || offset >= this.#end) return undefined;
    const chunk = this.#chunks[this.#chunkAt(offset)];
    if (chunk === undefined) return undefined;
    const start = offset - chunk.offset;
    return chunk.bytes.subarray(start, start + most);
  }

  /** The index of the chunk that holds this offset; -1 where it was dropped. By halving: there may be hundreds. */
  #chunkAt(offset: number): number {
    let [low, high] = [0, this.#chunks.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#chunks[middle] as Chunk).offset > offset) high = middle;
      else low = middle + 1;
    }
    return low - 1;
  }
}
