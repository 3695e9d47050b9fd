/** The sender's side of a stream: bytes are kept until the receiver has everything before them, and lost pieces go first. */

interface Chunk {
  offset: number;
  bytes: Buffer;
}
interface Piece {
  offset: number;
  bytes: Buffer;
  isRetransmission: boolean;
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
  #lost: { offset: number; length: number }[] = [];

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
    return this.#lost.length === 0 && this.#next < this.size && this.#next >= this.limit;
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
    if (lost !== undefined) {
      const piece = this.at(lost.offset, Math.min(lost.length, most));
      const length = piece?.bytes.length ?? lost.length;
      if (length === lost.length) this.#lost.shift();
      else this.#lost[0] = { offset: lost.offset + length, length: lost.length - length };
      return piece;
    }
    const piece = this.at(this.#next, Math.min(most, this.limit - this.#next));
    if (piece) this.#next += piece.bytes.length;
    return piece && { ...piece, isRetransmission: false };
  }

  /** A piece again. What has arrived of it in the meantime is left out only where all of it has. */
  at(offset: number, most: number): Piece | undefined {
    if (most <= 0 || offset >= this.#end) return undefined;
    const chunk = this.#chunks[this.#chunkAt(offset)];
    if (chunk === undefined || offset < chunk.offset) return undefined;
    const start = offset - chunk.offset;
    return { offset, bytes: chunk.bytes.subarray(start, start + most), isRetransmission: true };
  }

  /** The index of the chunk that holds this offset; -1 where it was dropped. */
  #chunkAt(offset: number): number {
    for (let i = this.#chunks.length - 1; i >= 0; i--) {
      if ((this.#chunks[i] as Chunk).offset <= offset) return i;
    }
    return -1;
  }
}
