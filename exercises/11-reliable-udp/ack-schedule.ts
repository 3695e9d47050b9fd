/** When to acknowledge: not each packet by itself, and never late (RFC 9000 §13.2). */
import { ReceivedPackets } from "./acknowledgements.ts";
import { MAX_ACK_DELAY_MS } from "./rtt.ts";

/** Packets that may wait for one acknowledgement. */
const ACK_EVERY = 8;

export class AckSchedule {
  readonly packets = new ReceivedPackets();
  /** When an acknowledgement is due; Infinity: nothing waits for one. */
  dueMs = Infinity;
  #waiting = 0;
  #latestMs = 0;

  /** Notes a packet; false where it came before. One that asks for it is acknowledged, soon or at once. */
  note(sequence: number, isAckEliciting: boolean, nowMs: number): boolean {
    const isNext = sequence === this.packets.latest + 1;
    if (sequence > this.packets.latest) this.#latestMs = nowMs;
    const isNew = this.packets.note(sequence);
    if (!isAckEliciting) return isNew;
    this.#waiting++;
    // A gap is news; a packet that comes again says that its acknowledgement was lost.
    const isUrgent = !isNew || !isNext || this.#waiting >= ACK_EVERY;
    this.dueMs = Math.min(this.dueMs, isUrgent ? nowMs : nowMs + MAX_ACK_DELAY_MS);
    return isNew;
  }

  /** The acknowledgement leaves now: how long the latest packet has waited for it. */
  onSend(nowMs: number): number {
    this.dueMs = Infinity;
    this.#waiting = 0;
    return Math.max(0, nowMs - this.#latestMs);
  }

  hurry(nowMs: number): void {
    this.dueMs = nowMs;
  }
}
