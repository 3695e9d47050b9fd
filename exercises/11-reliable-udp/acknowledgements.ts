/** The receiver's side of acknowledging: which packets came, and how the header and a `window` say so. */
import type { Acknowledgement } from "./protocol.ts";

/** How far back a packet is remembered; what is older is taken for one that came already. */
const HISTORY = 1024;
const HEADER_BITS = 32;
/** Bytes of `earlier` in a window message: with an acknowledgement every few packets, each packet is in dozens of them. */
const EARLIER_BYTES = 28;

export class ReceivedPackets {
  /** 0: nothing has come. */
  latest = 0;
  readonly #has = new Uint8Array(HISTORY);

  /** Notes a packet; false where it has been here before, or so long ago that nobody knows. */
  note(sequence: number): boolean {
    if (sequence <= this.latest - HISTORY || sequence === 0) return false;
    if (sequence > this.latest) {
      const gap = sequence - this.latest;
      if (gap >= HISTORY) this.#has.fill(0);
      else
        for (let missing = this.latest + 1; missing < sequence; missing++) this.#has[missing % HISTORY] = 0;
      this.latest = sequence;
    } else if (this.has(sequence)) return false;
    this.#has[sequence % HISTORY] = 1;
    return true;
  }

  has(sequence: number): boolean {
    const isKnown = sequence > 0 && sequence <= this.latest && sequence > this.latest - HISTORY;
    return isKnown && this.#has[sequence % HISTORY] === 1;
  }

  /** For the header: the latest, and the 32 before it. */
  get header(): Acknowledgement {
    let ackBitfield = 0;
    for (let n = HEADER_BITS - 1; n >= 0; n--)
      ackBitfield = ackBitfield * 2 + (this.has(this.latest - 1 - n) ? 1 : 0);
    return { ack: this.latest, ackBitfield };
  }

  /** More of the same, for a `window`. */
  get earlier(): Buffer {
    const first = this.latest - 1 - HEADER_BITS;
    const size = Math.min(EARLIER_BYTES, Math.ceil(Math.max(0, first) / 8));
    const bytes = Buffer.alloc(size);
    for (let i = 0; i < size * 8; i++) {
      if (this.has(first - i)) bytes[i >> 3] = (bytes[i >> 3] ?? 0) | (0x80 >> (i & 7));
    }
    return bytes;
  }
}

/** Calls `onAck` for every packet that is acknowledged and not older than `lowest`, the latest first. */
export function eachAcknowledged(
  { ack, ackBitfield }: Acknowledgement,
  earlier: Buffer | undefined,
  lowest: number,
  onAck: (sequence: number) => void,
): void {
  if (ack >= lowest && ack > 0) onAck(ack);
  for (let n = 0; n < HEADER_BITS && ack - 1 - n >= lowest; n++) {
    if ((ackBitfield >>> n) & 1) onAck(ack - 1 - n);
  }
  const first = ack - 1 - HEADER_BITS;
  for (let i = 0; earlier !== undefined && i < earlier.length * 8 && first - i >= lowest; i++) {
    if (((earlier[i >> 3] ?? 0) >> (7 - (i & 7))) & 1) onAck(first - i);
  }
}
