/** Everything that decides when a packet may leave, and when it must leave again: round trips, losses, probe timeouts, congestion, pacing. */
import type { Congestion } from "./congestion.ts";
import { DeliveryRate } from "./delivery-rate.ts";
import { type SentPacket, SentPackets } from "./loss.ts";
import { MtuSearch } from "./mtu.ts";
import { Pacer } from "./pacing.ts";
import type { Acknowledgement } from "./protocol.ts";
import { RttEstimator } from "./rtt.ts";

/** A probe timeout doubles each time, but a path that comes back is found soon. */
const MAX_PROBE_TIMEOUT_MS = 2000;
const PROBES = 2;
/** So many probe timeouts in a row, and what was known of the path is no longer believed. */
const PERSISTENT = 3;

export type Content = SentPacket["content"];
interface FlightEvents {
  onAcked(content: Content): void;
  onLost(content: Content): void;
}

export class Flight {
  readonly rtt = new RttEstimator();
  readonly sent = new SentPackets();
  /** Packets to be sent whatever the window says, to make the peer speak. */
  probesDue = 0;
  /** Probe timeouts in a row. */
  timeouts = 0;
  lostPackets = 0;
  readonly congestion: Congestion;
  readonly mtu = new MtuSearch();
  readonly #rate = new DeliveryRate();
  readonly #pacer = new Pacer();
  readonly #events: FlightEvents;
  #latestMs = 0;

  constructor(congestion: Congestion, events: FlightEvents) {
    this.congestion = congestion;
    this.#events = events;
  }

  /** When a packet of this size may leave; Infinity while the window is full. */
  readyAtMs(nowMs: number, sizeBytes: number): number {
    const isFull = this.sent.inFlightBytes + sizeBytes > this.congestion.windowBytes;
    if (isFull && this.sent.inFlight > 0) return Infinity;
    return this.#pacer.readyAtMs(nowMs, this.congestion.bytesPerMs, sizeBytes);
  }

  onSend(nowMs: number, sequence: number, sizeBytes: number, content: Content): void {
    const rate = this.#rate.onSend(nowMs, this.sent.inFlight === 0);
    this.sent.add({ sequence, sentMs: nowMs, sizeBytes, content, rate });
    this.#pacer.onSent(sizeBytes);
    this.#latestMs = nowMs;
  }

  onAppLimited(): void {
    this.#rate.onAppLimited(this.sent.inFlightBytes);
  }

  /** Takes in what a packet acknowledges; `ackDelayMs` is how long its sender waited, where it says so. */
  onAcks(nowMs: number, acks: Acknowledgement, earlier: Buffer | undefined, ackDelayMs: number): void {
    const priorInFlightBytes = this.sent.inFlightBytes;
    const acked = this.sent.acknowledge(acks, earlier);
    const [latest] = acked;
    if (latest === undefined) return;
    if (latest.sequence === acks.ack) this.rtt.update(Math.max(0, nowMs - latest.sentMs), ackDelayMs);
    this.timeouts = 0;
    this.probesDue = 0;
    this.#latestMs = Math.max(this.#latestMs, nowMs);
    let bytes = 0;
    for (const packet of acked) bytes += packet.sizeBytes;
    const rate = this.#rate.onAck(nowMs, bytes, latest);
    for (const { content, sizeBytes } of acked) {
      if (isMtuProbe(content)) this.#onMtu(sizeBytes);
      this.#events.onAcked(content);
    }
    this.#lose(nowMs);
    if (this.rtt.isKnown) {
      this.congestion.onAck({
        ...{ nowMs, rtt: this.rtt, bytes, sentMs: latest.sentMs, rate, priorInFlightBytes },
        ...{ inFlightBytes: this.sent.inFlightBytes, delivered: this.#rate.delivered },
      });
    }
  }

  #onMtu(sizeBytes: number): void {
    this.mtu.onArrived(sizeBytes);
    this.congestion.packetBytes = this.mtu.currentBytes;
  }

  #lose(nowMs: number): void {
    const lost = this.sent.detectLost(nowMs, this.rtt);
    let bytes = 0;
    let sentMs = 0;
    for (const packet of lost) {
      if (isMtuProbe(packet.content)) {
        this.mtu.onLost(); // it was too large: no sign of congestion
        continue;
      }
      this.lostPackets++;
      bytes += packet.sizeBytes;
      sentMs = packet.sentMs;
      this.#events.onLost(packet.content);
    }
    if (bytes > 0) this.congestion.onLoss({ nowMs, bytes, sentMs, inFlightBytes: this.sent.inFlightBytes });
  }

  get #probeTimeoutMs(): number {
    const once = this.rtt.probeTimeoutMs;
    return Math.max(once, Math.min(once * 2 ** this.timeouts, MAX_PROBE_TIMEOUT_MS));
  }

  /** When `onTime` is to be called if nothing happens before. */
  get wakeAtMs(): number {
    if (this.sent.inFlight === 0) return Infinity;
    if (this.sent.lossAtMs !== Infinity) return this.sent.lossAtMs;
    return this.#latestMs + this.#probeTimeoutMs;
  }

  onTime(nowMs: number): void {
    if (nowMs < this.wakeAtMs) return;
    if (this.sent.lossAtMs !== Infinity) return this.#lose(nowMs);
    this.timeouts++;
    this.probesDue = PROBES;
    this.#latestMs = nowMs;
    if (this.timeouts === 2) {
      this.mtu.onBlackHole();
      this.congestion.packetBytes = this.mtu.currentBytes;
    }
    if (this.timeouts === PERSISTENT) this.congestion.onTimeout(nowMs);
  }
}

const isMtuProbe = (content: Content) =>
  "kind" in content && content.kind === "probe" && content.padding.length > 0;
