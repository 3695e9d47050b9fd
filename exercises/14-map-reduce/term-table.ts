/**
 * {term: count}, its terms kept as UTF-8 bytes one behind the other and found by a hash that the caller makes while it
 * reads them: no string is made for a term, and memory grows with the distinct terms only, by 30 to 60 bytes and its own
 * for each.
 */
import { Failure } from "../../shared/errors.ts";

/** FNV-1a (Fowler, Noll, Vo), 32 bits. */
export const HASH_START = 0x811c9dc5 | 0;
export const HASH_FACTOR = 0x01000193;
/** Counts are exact up to here. */
const MAX_COUNT = Number.MAX_SAFE_INTEGER;
const MAX_ARENA_BYTES = 2 ** 32 - 1;

export class TermTable {
  /** The terms; behind `used` a reader may write the next one, in the room that it reserved. */
  arena = new Uint8Array(1 << 16);
  used = 0;
  /** Distinct terms. */
  size = 0;
  /** The sum of all counts. */
  words = 0;
  /** Term i lies from starts[i] to starts[i + 1]. */
  starts = new Uint32Array(1 << 10);
  counts = new Float64Array(1 << 10);
  #hashes = new Int32Array(1 << 10);
  /** Term number + 1, or 0: open addressing, at most half full. */
  #slots = new Int32Array(1 << 11);

  /** Makes room for so many bytes behind `used`; `arena` may be another one afterwards. */
  reserve(sizeBytes: number): void {
    const needed = this.used + sizeBytes;
    if (needed <= this.arena.length) return;
    if (needed > MAX_ARENA_BYTES) throw new Failure("the distinct terms take more than 4 GiB");
    const larger = new Uint8Array(Math.min(MAX_ARENA_BYTES, Math.max(needed, this.arena.length * 2)));
    larger.set(this.arena.subarray(0, this.used));
    this.arena = larger;
  }

  /** Counts the term that was written behind `used`, of `length` bytes. */
  count(length: number, hash: number, times: number): void {
    const { arena, used, starts } = this;
    const slots = this.#slots;
    const hashes = this.#hashes;
    const mask = slots.length - 1;
    this.words += times;
    let slot = (hash ^ (hash >>> 15)) & mask;
    for (; ; slot = (slot + 1) & mask) {
      const term = (slots[slot] as number) - 1;
      if (term < 0) break;
      const start = starts[term] as number;
      if (hashes[term] !== hash || (starts[term + 1] as number) - start !== length) continue;
      let i = 0;
      while (i < length && arena[start + i] === arena[used + i]) i++;
      if (i < length) continue;
      (this.counts[term] as number) += times;
      return;
    }
    slots[slot] = ++this.size;
    this.used = used + length;
    this.#append(hash, times);
  }

  #append(hash: number, times: number): void {
    const term = this.size - 1;
    if (this.size + 1 >= this.starts.length) this.#grow();
    this.counts[term] = times;
    this.#hashes[term] = hash;
    this.starts[term + 1] = this.used;
    if (this.size * 2 > this.#slots.length) this.#rehash();
  }

  #grow(): void {
    const capacity = this.starts.length * 2;
    const [starts, counts, hashes] = [this.starts, this.counts, this.#hashes];
    this.starts = new Uint32Array(capacity);
    this.starts.set(starts);
    this.counts = new Float64Array(capacity);
    this.counts.set(counts);
    this.#hashes = new Int32Array(capacity);
    this.#hashes.set(hashes);
  }

  #rehash(): void {
    const slots = new Int32Array(this.#slots.length * 2);
    const mask = slots.length - 1;
    for (let term = 0; term < this.size; term++) {
      const hash = this.#hashes[term] as number;
      let slot = (hash ^ (hash >>> 15)) & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = term + 1;
    }
    this.#slots = slots;
  }

  /** Counts a term that lies in other bytes. */
  add(bytes: Uint8Array, start: number, end: number, times: number): void {
    this.reserve(end - start);
    const { arena, used } = this;
    let hash = HASH_START;
    for (let at = start; at < end; at++) {
      const byte = bytes[at] as number;
      arena[used + at - start] = byte;
      hash = Math.imul(hash ^ byte, HASH_FACTOR);
    }
    this.count(end - start, hash, times);
  }

  /** Counts the terms from `first` to before `last` of another table as well. */
  merge(other: TermTable, first = 0, last = other.size): void {
    for (let term = first; term < last; term++) {
      const [start, end] = [other.starts[term] as number, other.starts[term + 1] as number];
      this.add(other.arena, start, end, other.counts[term] as number);
    }
    this.checkWords();
  }

  /** Throws `Failure` where the counts may not be exact any more. */
  checkWords(): void {
    if (this.words > MAX_COUNT) throw new Failure("there are more words than can be counted exactly");
  }
}
