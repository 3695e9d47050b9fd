/**
 * The article's "simple binary congestion avoidance": in good mode 30 packets a second, in bad mode 10. A round trip over
 * 250 ms is bad. How long it must be good before it counts as good again doubles when good did not last 10 s, and
 * halves for every 10 s of good.
 */
import type { AckEvent, Congestion } from "./congestion.ts";

const GOOD_PER_SECOND = 30;
const BAD_PER_SECOND = 10;
const BAD_RTT_MS = 250;
const PERIOD_MS = 10_000;
const INITIAL_PENALTY_MS = 4000;
const MIN_PENALTY_MS = 1000;
const MAX_PENALTY_MS = 60_000;

export class Gaffer implements Congestion {
  mode: "good" | "bad" = "bad";
  penaltyMs = INITIAL_PENALTY_MS;
  #goodSinceMs: number | undefined;
  #modeSinceMs = 0;
  #rewardedMs = 0;
  packetBytes: number;

  constructor(packetBytes: number) {
    this.packetBytes = packetBytes;
  }

  get bytesPerMs(): number {
    return (this.packetBytes * (this.mode === "good" ? GOOD_PER_SECOND : BAD_PER_SECOND)) / 1000;
  }
  /** A second's worth: the rate is what limits. */
  get windowBytes(): number {
    return GOOD_PER_SECOND * this.packetBytes;
  }

  onAck({ nowMs, rtt }: AckEvent): void {
    if (rtt.smoothedMs > BAD_RTT_MS) this.#becomeBad(nowMs);
    else this.#onGood(nowMs);
  }

  #becomeBad(nowMs: number): void {
    this.#goodSinceMs = undefined;
    if (this.mode === "bad") return;
    if (nowMs - this.#modeSinceMs < PERIOD_MS) this.penaltyMs = Math.min(this.penaltyMs * 2, MAX_PENALTY_MS);
    this.mode = "bad";
    this.#modeSinceMs = nowMs;
  }

  #onGood(nowMs: number): void {
    this.#goodSinceMs ??= nowMs;
    if (this.mode === "bad") {
      if (nowMs - this.#goodSinceMs < this.penaltyMs) return;
      this.mode = "good";
      this.#modeSinceMs = nowMs;
      this.#rewardedMs = nowMs;
    } else if (nowMs - this.#rewardedMs >= PERIOD_MS) {
      this.#rewardedMs = nowMs;
      this.penaltyMs = Math.max(this.penaltyMs / 2, MIN_PENALTY_MS);
    }
  }

  /** The article looks at round trips only. */
  onLoss(): void {}

  onTimeout(nowMs: number): void {
    this.#becomeBad(nowMs);
  }
}
