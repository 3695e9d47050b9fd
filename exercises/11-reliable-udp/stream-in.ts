/** Ordered delivery and flow control, the receiver's side: pieces come in any order, bytes leave in order, and no more than a window waits. */
import { Failure } from "../../shared/errors.ts";

/** Pieces that come too early may be this small on average, lest somebody fill the memory with single bytes. A packet of `MIN_MTU` has 95. */
const LEAST_PIECE_BYTES = 64;

interface Segment {
  offset: number;
  bytes: Buffer;
}

const endOf = ({ offset, bytes }: Segment) => offset + bytes.length;

export class InStream {
  /** Everything before this has arrived. */
  received: number;
  /** Everything before this was taken by the reader. */
  #taken: number;
  /** Bytes in order that nobody has taken. */
  #ready: Buffer[] = [];
  /** What came too early, by offset, without overlaps. */
  #early: Segment[] = [];
  /** What may wait here at most. */
  readonly windowBytes: number;
  readonly #size: number;

  constructor(offset: number, windowBytes: number, size: number) {
    this.#size = size;
    this.received = offset;
    this.#taken = offset;
    this.windowBytes = windowBytes;
  }

  /** Nothing from here on may be sent. It never goes back. */
  get limit(): number {
    return this.#taken + this.windowBytes;
  }
  get isComplete(): boolean {
    return this.received === this.#size;
  }
  /** May the other side send something that is not here yet? */
  get isExpecting(): boolean {
    return this.received < Math.min(this.#size, this.limit);
  }
  /** Bytes that wait, in order or not. */
  get bufferedBytes(): number {
    return this.#early.reduce((sum, { bytes }) => sum + bytes.length, this.received - this.#taken);
  }

  /** Takes a piece; true where it brought anything new. Throws `Failure` where it is beyond what was allowed. */
  insert(offset: number, bytes: Buffer): boolean {
    const end = offset + bytes.length;
    if (end > this.limit) throw new Failure(`byte ${end - 1} was sent, beyond the limit of ${this.limit}`);
    if (end > this.#size) throw new Failure(`byte ${end - 1} was sent of a file of ${this.#size}`);
    if (end <= this.received) return false;
    if (offset > this.received) return this.#keep({ offset, bytes });
    this.#append(bytes.subarray(this.received - offset));
    let used = 0;
    for (const early of this.#early) {
      if (early.offset > this.received) break;
      used++;
      const fresh = early.bytes.subarray(this.received - early.offset);
      if (fresh.length > 0) this.#append(fresh);
    }
    if (used > 0) this.#early.splice(0, used);
    return true;
  }

  #append(bytes: Buffer): void {
    this.#ready.push(bytes);
    this.received += bytes.length;
  }

  /** Puts a piece among the early ones. What others have already of it is cut off. */
  #keep({ offset, bytes }: Segment): boolean {
    const at = this.#placeOf(offset);
    const before = this.#early[at - 1];
    const start = Math.max(offset, before === undefined ? 0 : endOf(before));
    let covered = 0; // behind it, pieces that it holds whole; it ends where the next one begins
    for (const after of this.#early.slice(at, at + 64)) {
      if (endOf(after) > offset + bytes.length) break;
      covered++;
    }
    const end = Math.min(offset + bytes.length, this.#early[at + covered]?.offset ?? Infinity);
    if (start >= end) return false;
    if (this.#early.length > Math.max(64, this.windowBytes / LEAST_PIECE_BYTES))
      throw new Failure("too many small pieces");
    const isOneKnown = covered === 1 && this.#early[at]?.bytes.length === end - start;
    if (isOneKnown) return false;
    const fresh = bytes.subarray(start - offset, end - offset);
    // A small rest must not keep the memory of a large packet.
    const kept = fresh.length * 2 < bytes.length ? Buffer.from(fresh) : fresh;
    this.#early.splice(at, covered, { offset: start, bytes: kept });
    return true;
  }

  /** How many early pieces begin at this offset or before it: by halving, as there may be tens of thousands. */
  #placeOf(offset: number): number {
    let [low, high] = [0, this.#early.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#early[middle] as Segment).offset > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Takes what is there in order. */
  take(): Buffer[] {
    const ready = this.#ready;
    this.#ready = [];
    this.#taken = this.received;
    return ready;
  }
}
