/**
 * When to ask a side from which nothing is heard, though more is to come: a receiver that takes nothing, whether it does now
 * (RFC 9293 §3.8.6.1), and who sends neither data nor done, whether it is there. Its last word may have been lost.
 */

const MOST_MS = 2000;

export class Persist {
  /** When the next question is due; Infinity: none is. */
  dueMs = Infinity;
  readonly #firstMs: number;
  #waitMs: number;

  constructor(firstMs: number) {
    this.#firstMs = firstMs;
    this.#waitMs = firstMs;
  }

  /** Is the other side to be asked now? `isWaiting`: it is its turn to say something, and nothing of ours is under way. */
  isDue(isWaiting: boolean, nowMs: number): boolean {
    if (!isWaiting) this.dueMs = Infinity;
    else if (this.dueMs === Infinity) this.dueMs = nowMs + this.#waitMs;
    else if (nowMs >= this.dueMs) {
      this.#waitMs = Math.min(2 * this.#waitMs, MOST_MS);
      this.dueMs = Infinity;
      return true;
    }
    return false;
  }

  /** It has said something. */
  reset(): void {
    this.#waitMs = this.#firstMs;
    this.dueMs = Infinity;
  }
}
