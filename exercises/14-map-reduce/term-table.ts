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
  /** Pairs of a term's number + 1, or 0, and its hash: open addressing, at most half full. */
  #slots = new Int32Array(1 << 12);

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
    const mask = slots.length - 2;
    this.words += times;
    let slot = (hash ^ (hash >>> 15)) & mask;
    for (; ; slot = (slot + 2) & mask) {
      const term = (slots[slot] as number) - 1;
      if (term < 0) break;
      if (slots[slot + 1] !== hash) continue;
      const start = starts[term] as number;
      if ((starts[term + 1] as number) - start !== length) continue;
      let i = 0;
      while (i < length && arena[start + i] === arena[used + i]) i++;
      if (i < length) continue;
      (this.counts[term] as number) += times;
      return;
    }
    slots[slot] = ++this.size;
    slots[slot + 1] = hash;
    this.used = used + length;
    this.#append(times);
  }

  #append(times: number): void {
    const term = this.size - 1;
    if (this.size + 1 >= this.starts.length) this.#grow();
    this.counts[term] = times;
    this.starts[term + 1] = this.used;
    if (this.size * 4 > this.#slots.length) this.#rehash();
  }

  #grow(): void {
    const capacity = this.starts.length * 2;
    const [starts, counts] = [this.starts, this.counts];
    this.starts = new Uint32Array(capacity);
    this.starts.set(starts);
    this.counts = new Float64Array(capacity);
    this.counts.set(counts);
  }

  #rehash(): void {
    const old = this.#slots;
    const slots = new Int32Array(old.length * 2);
    const mask = slots.length - 2;
    for (let at = 0; at < old.length; at += 2) {
      if (old[at] === 0) continue;
      const hash = old[at + 1] as number;
      let slot = (hash ^ (hash >>> 15)) & mask;
      while (slots[slot] !== 0) slot = (slot + 2) & mask;
      slots[slot] = old[at] as number;
      slots[slot + 1] = hash;
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
