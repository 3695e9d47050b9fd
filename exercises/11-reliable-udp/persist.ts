/** A receiver that takes nothing is asked whether it does now: the word that it does may have been lost (RFC 9293 §3.8.6.1). */

const FIRST_MS = 200;
const MOST_MS = 2000;

export class Persist {
  /** When the next question is due; Infinity: none is. */
  dueMs = Infinity;
  #waitMs = FIRST_MS;

  /** Is the receiver to be asked now? `isBlocked`: only its limit keeps us from sending, and nothing is under way. */
  isDue(isBlocked: boolean, nowMs: number): boolean {
    if (!isBlocked) this.dueMs = Infinity;
    else if (this.dueMs === Infinity) this.dueMs = nowMs + this.#waitMs;
    else if (nowMs >= this.dueMs) {
      this.#waitMs = Math.min(2 * this.#waitMs, MOST_MS);
      this.dueMs = Infinity;
      return true;
    }
    return false;
  }

  /** It takes something again. */
  reset(): void {
    this.#waitMs = FIRST_MS;
  }
}
