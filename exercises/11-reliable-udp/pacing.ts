/** Pacing: packets leave at a rate, not in bursts of a whole window (RFC 9002 §7.7). */

/** What may go at once after a pause: a timer is no finer than a millisecond, and late where the processor is busy. */
const BURST_MS = 10;
const BURST_PACKETS = 10;

export class Pacer {
  #creditBytes = BURST_PACKETS * 1200;
  #atMs = 0;

  #refill(nowMs: number, bytesPerMs: number, packetBytes: number): void {
    const most = Math.max(BURST_PACKETS * packetBytes, BURST_MS * bytesPerMs);
    this.#creditBytes = Math.min(most, this.#creditBytes + Math.max(0, nowMs - this.#atMs) * bytesPerMs);
    this.#atMs = nowMs;
  }

  /** When a packet may leave: now, or later. */
  readyAtMs(nowMs: number, bytesPerMs: number, packetBytes: number): number {
    if (bytesPerMs === Infinity) return nowMs;
    this.#refill(nowMs, bytesPerMs, packetBytes);
    if (this.#creditBytes > packetBytes - 1) return nowMs; // a byte for what rounding takes
    return nowMs + (packetBytes - this.#creditBytes) / bytesPerMs;
  }

  onSent(bytes: number): void {
    this.#creditBytes -= bytes;
  }
}
