/** NewReno as RFC 9002 §7 and appendix B have it: a loss is a full queue, so the window is halved. */
import type { AckEvent, Congestion, LossEvent } from "./congestion.ts";
import type { RttEstimator } from "./rtt.ts";

const INITIAL_PACKETS = 10;
const MINIMUM_PACKETS = 2;
const LOSS_REDUCTION = 0.5;
/** A little faster than the window alone would, so that pacing never is what limits. */
const PACING_GAIN = 1.25;
const SLOW_START_PACING_GAIN = 2;

export class NewReno implements Congestion {
  windowBytes: number;
  #slowStartThreshold = Infinity;
  #recoveryStartMs = -Infinity;
  #rtt: RttEstimator | undefined;
  packetBytes: number;

  constructor(packetBytes: number) {
    this.packetBytes = packetBytes;
    this.windowBytes = INITIAL_PACKETS * packetBytes;
  }

  get #isSlowStart(): boolean {
    return this.windowBytes < this.#slowStartThreshold;
  }
  get mode(): string {
    return this.#isSlowStart ? "slow start" : "avoidance";
  }
  get bytesPerMs(): number {
    if (this.#rtt === undefined) return Infinity;
    const gain = this.#isSlowStart ? SLOW_START_PACING_GAIN : PACING_GAIN;
    return (gain * this.windowBytes) / Math.max(this.#rtt.smoothedMs, 0.01);
  }

  onAck({ rtt, bytes, sentMs, priorInFlightBytes }: AckEvent): void {
    this.#rtt = rtt;
    const wasUsed = priorInFlightBytes * 2 >= this.windowBytes; // else it says nothing about a larger one
    if (sentMs <= this.#recoveryStartMs || !wasUsed) return;
    if (this.#isSlowStart) this.windowBytes += bytes;
    else this.windowBytes += (this.packetBytes * bytes) / this.windowBytes;
  }

  onLoss({ nowMs, sentMs }: LossEvent): void {
    if (sentMs <= this.#recoveryStartMs) return; // once per round trip
    this.#recoveryStartMs = nowMs;
    this.#slowStartThreshold = Math.max(
      this.windowBytes * LOSS_REDUCTION,
      MINIMUM_PACKETS * this.packetBytes,
    );
    this.windowBytes = this.#slowStartThreshold;
  }

  onTimeout(): void {
    this.#recoveryStartMs = -Infinity;
    this.windowBytes = MINIMUM_PACKETS * this.packetBytes;
  }
}
