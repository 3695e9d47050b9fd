/** The sender's side: which packets are under way, which of them were acknowledged, and which are lost (RFC 9002 §6). */
import { eachAcknowledged } from "./acknowledgements.ts";
import type { RateSnapshot } from "./delivery-rate.ts";
import type { Acknowledgement, Message } from "./protocol.ts";
import type { RttEstimator } from "./rtt.ts";

/** A packet is lost when one sent so many later was acknowledged (RFC 9002 §6.1.1). */
const PACKET_THRESHOLD = 3;

export interface SentPacket {
  sequence: number;
  sentMs: number;
  sizeBytes: number;
  /** What it carried: a piece of the file, or a message. */
  content: { offset: number; length: number } | Message;
  /** What the delivery rate is reckoned from. */
  rate: RateSnapshot;
}

export class SentPackets {
  inFlightBytes = 0;
  inFlight = 0;
  largestAcked = 0;
  /** When the oldest is lost if it has not been acknowledged by then. */
  lossAtMs = Infinity;
  /** By sequence modulo its size, which is a power of two and grows with what is under way. */
  #ring: (SentPacket | undefined)[] = new Array(64);
  /** Nothing below is under way. */
  #lowest = 1;
  #next = 1;

  add(packet: SentPacket): void {
    if (this.inFlight === 0) this.#lowest = packet.sequence;
    while (packet.sequence - this.#lowest >= this.#ring.length) this.#grow();
    this.#ring[packet.sequence & (this.#ring.length - 1)] = packet;
    this.#next = packet.sequence + 1;
    this.inFlight++;
    this.inFlightBytes += packet.sizeBytes;
  }

  #grow(): void {
    const larger: (SentPacket | undefined)[] = new Array(this.#ring.length * 2);
    for (const packet of this.#ring) if (packet) larger[packet.sequence & (larger.length - 1)] = packet;
    this.#ring = larger;
  }

  #at(sequence: number): SentPacket | undefined {
    return sequence >= this.#lowest && sequence < this.#next
      ? this.#ring[sequence & (this.#ring.length - 1)]
      : undefined;
  }

  /** Takes it out of flight. */
  remove({ sequence, sizeBytes }: SentPacket): void {
    this.#ring[sequence & (this.#ring.length - 1)] = undefined;
    this.inFlight--;
    this.inFlightBytes -= sizeBytes;
    while (this.#lowest < this.#next && this.#at(this.#lowest) === undefined) this.#lowest++;
  }

  /** The oldest under way. */
  get oldest(): SentPacket | undefined {
    return this.inFlight === 0 ? undefined : this.#at(this.#lowest);
  }

  /** Those that this acknowledges for the first time, the latest first. */
  acknowledge(acks: Acknowledgement, earlier: Buffer | undefined): SentPacket[] {
    const found: SentPacket[] = [];
    eachAcknowledged(acks, earlier, this.#lowest, (sequence) => {
      const packet = this.#at(sequence);
      if (packet) found.push(packet);
    });
    for (const packet of found) this.remove(packet);
    if (found[0] !== undefined) this.largestAcked = Math.max(this.largestAcked, found[0].sequence);
    return found;
  }

  /** Those that are lost by now; sets `lossAtMs`. */
  detectLost(nowMs: number, rtt: RttEstimator): SentPacket[] {
    const lost: SentPacket[] = [];
    this.lossAtMs = Infinity;
    for (let sequence = this.#lowest; sequence < this.largestAcked; sequence++) {
      const packet = this.#at(sequence);
      if (packet === undefined) continue;
      const lostAtMs = packet.sentMs + rtt.lossDelayMs;
      if (this.largestAcked - sequence < PACKET_THRESHOLD && lostAtMs > nowMs) {
        this.lossAtMs = lostAtMs;
        break;
      }
      lost.push(packet);
    }
    for (const packet of lost) this.remove(packet);
    return lost;
  }
}
