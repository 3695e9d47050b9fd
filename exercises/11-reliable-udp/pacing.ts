/** Pacing: packets leave at a rate, not in bursts of a whole window (RFC 9002 §7.7). */

/** What may go at once after a pause: a timer is no finer than a millisecond, and late where the processor is busy. */
const BURST_MS = 10;
const BURST_PACKETS = 10;
/** What a process missed that got its turn too late is made up for, up to so much: else its lateness would pass for a slow path. */
const MAX_LATE_MS = 100;

export class Pacer {
  #creditBytes = BURST_PACKETS * 1200;
  #atMs = 0;
  /** When a packet that waits was to leave. */
  #dueMs = Infinity;

  #refill(nowMs: number, bytesPerMs: number, packetBytes: number): void {
    const lateMs = Math.min(Math.max(0, nowMs - this.#dueMs), MAX_LATE_MS);
    const most = Math.max(BURST_PACKETS * packetBytes, (BURST_MS + lateMs) * bytesPerMs);
    const gained = Math.max(0, nowMs - this.#atMs) * bytesPerMs;
    // Credit for lateness lasts until the process has nothing more to send: it is used packet by packet.
    if (gained > 0) this.#creditBytes = Math.min(most, this.#creditBytes + gained);
    this.#atMs = nowMs;
  }

  /** When a packet may leave: now, or later. */
  readyAtMs(nowMs: number, bytesPerMs: number, packetBytes: number): number {
    if (bytesPerMs === Infinity) return nowMs;
    this.#refill(nowMs, bytesPerMs, packetBytes);
    if (this.#creditBytes > packetBytes - 1) return nowMs; // a byte for what rounding takes
    this.#dueMs = nowMs + (packetBytes - this.#creditBytes) / bytesPerMs;
    return this.#dueMs;
  }

  onSent(bytes: number): void {
    this.#dueMs = Infinity;
    this.#creditBytes -= bytes;
  }
}
