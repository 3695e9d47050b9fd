/** How long a packet and its acknowledgement take (RFC 6298, as RFC 9002 §5 has it). Times in milliseconds. */

/** Before anything is known (RFC 9002 §6.2.2). */
const INITIAL_MS = 333;
/** Timers are not finer than this. */
const GRANULARITY_MS = 1;
/** For how long an acknowledgement is held back at most. */
export const MAX_ACK_DELAY_MS = 2;
/** What a loaded receiver may take on top of that until it gets to its timer. */
const SLACK_MS = 8;

export class RttEstimator {
  latestMs = 0;
  minMs = Infinity;
  smoothedMs = INITIAL_MS;
  variationMs = INITIAL_MS / 2;

  get isKnown(): boolean {
    return this.minMs !== Infinity;
  }

  /** A sample, and how long the receiver says that it waited before it acknowledged. */
  update(sampleMs: number, ackDelayMs: number): void {
    const isFirst = !this.isKnown;
    this.minMs = Math.min(this.minMs, sampleMs);
    // The delay is the peer's word: never let it take the sample below what the path needs.
    this.latestMs = Math.max(sampleMs - ackDelayMs, Math.min(this.minMs, sampleMs));
    if (isFirst) {
      this.smoothedMs = this.latestMs;
      this.variationMs = this.latestMs / 2;
      return;
    }
    this.variationMs = 0.75 * this.variationMs + 0.25 * Math.abs(this.smoothedMs - this.latestMs);
    this.smoothedMs = 0.875 * this.smoothedMs + 0.125 * this.latestMs;
  }

  /** Silence of this length, and something is sent to make the peer speak (RFC 9002 §6.2.1). */
  get probeTimeoutMs(): number {
    return this.smoothedMs + Math.max(4 * this.variationMs, GRANULARITY_MS) + MAX_ACK_DELAY_MS + SLACK_MS;
  }

  /** A packet this much older than one that was acknowledged is lost (RFC 9002 §6.1.2). */
  get lossDelayMs(): number {
    return Math.max(1.125 * Math.max(this.smoothedMs, this.latestMs), GRANULARITY_MS);
  }
}
