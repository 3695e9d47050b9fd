/** How fast the path delivers, from what was acknowledged between a packet's sending and its acknowledgement (draft-cheng-iccrg-delivery-rate-estimation). */

/** What a packet takes along when it is sent. */
export interface RateSnapshot {
  /** Bytes delivered so far, and when that became known. */
  delivered: number;
  deliveredMs: number;
  /** When the first packet of this sample was sent. */
  firstSentMs: number;
  /** The sender had nothing to send: the sample may be lower than the path's rate. */
  isAppLimited: boolean;
}

export interface RateSample {
  bytesPerMs: number;
  isAppLimited: boolean;
  /** Bytes that had been delivered when the acknowledged packet was sent: tells rounds apart. */
  priorDelivered: number;
}

export class DeliveryRate {
  /** Bytes acknowledged in all. */
  delivered = 0;
  #deliveredMs = 0;
  #firstSentMs = 0;
  /** While `delivered` is below, samples are limited by the sender. */
  #appLimitedUntil = 0;

  /** To be called for each packet before it is sent. */
  onSend(nowMs: number, isIdle: boolean): RateSnapshot {
    if (isIdle) {
      this.#firstSentMs = nowMs;
      this.#deliveredMs = nowMs;
    }
    return {
      delivered: this.delivered,
      deliveredMs: this.#deliveredMs,
      firstSentMs: this.#firstSentMs,
      isAppLimited: this.delivered < this.#appLimitedUntil,
    };
  }

  /** The sender has sent all that it has, though it might send more. */
  onAppLimited(inFlightBytes: number): void {
    this.#appLimitedUntil = this.delivered + inFlightBytes;
  }

  /** Packets were acknowledged; `latest` is the one sent last. */
  onAck(nowMs: number, bytes: number, latest: { sentMs: number; rate: RateSnapshot }): RateSample {
    const { rate, sentMs } = latest;
    this.delivered += bytes;
    this.#deliveredMs = nowMs;
    this.#firstSentMs = Math.max(this.#firstSentMs, sentMs);
    // The longer of the two, lest acknowledgements that come in a bunch look like a fast path.
    const intervalMs = Math.max(sentMs - rate.firstSentMs, nowMs - rate.deliveredMs, 0.001);
    return {
      bytesPerMs: (this.delivered - rate.delivered) / intervalMs,
      isAppLimited: rate.isAppLimited,
      priorDelivered: rate.delivered,
    };
  }
}
