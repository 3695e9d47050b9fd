/** Unordered delivery: each message once and at once. What comes again, because an acknowledgement was lost or slow, is known by its number. */

/** How far ahead of the oldest missing number one may be, lest what is remembered grow without end. */
const MOST_AHEAD = 65_536;

export class Once {
  /** All numbers below have come. */
  #lowest = 0;
  readonly #ahead = new Set<number>();

  /** True the first time. A number too far ahead is never taken. */
  take(number: number): boolean {
    if (number < this.#lowest || number >= this.#lowest + MOST_AHEAD || this.#ahead.has(number)) return false;
    this.#ahead.add(number);
    while (this.#ahead.delete(this.#lowest)) this.#lowest++;
    return true;
  }
}
