/**
 * What one side of a connection sends, and when: its messages first, then what makes the other side speak, then data as
 * fast as congestion control and the receiver let them, and an acknowledgement where one is due and nothing else leaves.
 */
import { AckSchedule } from "./ack-schedule.ts";
import type { Content, Flight } from "./flight.ts";
import { Persist } from "./persist.ts";
import {
  DATA_OVERHEAD,
  MAX_SEQUENCE,
  type Message,
  NO_TOKEN,
  type Parts,
  seal,
  sealData,
} from "./protocol.ts";
import type { InStream } from "./stream-in.ts";
import type { OutStream } from "./stream-out.ts";

/** What the field takes: a process may have stood still for longer. */
const MAX_DELAY_US = 2 ** 32 - 1;
/** A packet with an empty probe. */
const PROBE_OVERHEAD = 25;
/** How long a receiver that takes nothing is left alone, and who sends nothing. */
const BLOCKED_MS = 200;
const SILENT_MS = 1000;
/** The last numbers are kept for what is said at the end. */
const LAST_WORDS = 10;
/** Kinds of message that ask for no acknowledgement. */
const UNACKNOWLEDGED: ReadonlySet<string> = new Set<Message["kind"]>([
  "window",
  "challenge",
  "preparing", // nobody could: the client has no token yet
  "error",
]);
export const wantsAck = ({ kind }: { kind: Message["kind"] }) => !UNACKNOWLEDGED.has(kind);

export class Sending {
  readonly acks = new AckSchedule();
  readonly flight: Flight;
  /** In each packet to the other side, once it has said which. */
  peerToken: Buffer;
  /** The file that goes out, and the one that comes in. */
  output: OutStream | undefined;
  input: InStream | undefined;
  /** Packets that left; the latest has this number. None is used twice. */
  sentPackets = 0;
  repeatedPackets = 0;
  /** The limit that the other side was told. */
  #advertised = 0;
  readonly #blocked = new Persist(BLOCKED_MS);
  readonly #silent = new Persist(SILENT_MS);
  /** To be sent, and sent again until they are acknowledged. */
  #messages: Message[] = [];
  #isOver = false;

  constructor(flight: Flight, peerToken: Buffer) {
    this.flight = flight;
    this.peerToken = peerToken;
  }

  /** Are all sequence numbers used up? */
  get isExhausted(): boolean {
    return this.sentPackets >= MAX_SEQUENCE - LAST_WORDS;
  }

  say(message: Message): void {
    this.#messages.push(message);
  }

  /** What a lost packet carried is sent again, where it is still worth it. */
  onLost(content: Content): void {
    if (!("kind" in content)) this.output?.onLost(content.offset, content.length);
    else if (this.#isWanted(content)) this.say(content);
  }

  #isWanted(message: Message): boolean {
    if (this.#isOver || message.kind === "probe") return false;
    return message.kind !== "open" || (this.peerToken === NO_TOKEN && !this.#messages.includes(message));
  }

  /** What waits of these kinds has no use any more. */
  drop(...kinds: Message["kind"][]): void {
    this.#messages = this.#messages.filter(({ kind }) => !kinds.includes(kind));
  }

  /** From now on nothing leaves but this, and acknowledgements. */
  end(lastWord: Message | undefined): void {
    this.#isOver = true;
    this.#messages = lastWord === undefined ? [] : [lastWord];
  }

  /** When `next` is to be called, if nothing happens before. */
  wakeAtMs(nowMs: number): number {
    const { flight } = this;
    const dataMs = this.output?.hasData ? flight.readyAtMs(nowMs, flight.mtu.currentBytes) : Infinity;
    return Math.min(flight.wakeAtMs, this.acks.dueMs, this.#blocked.dueMs, this.#silent.dueMs, dataMs);
  }

  /** The next packet to be sent now, if there is one. */
  next(nowMs: number): Parts | undefined {
    const message = this.#messages.shift();
    if (message !== undefined) return this.#packet(message, nowMs);
    const packet = this.#isOver ? undefined : (this.#probe(nowMs) ?? this.#data(nowMs));
    if (packet) return packet;
    return nowMs >= this.acks.dueMs ? this.#acknowledgement(nowMs) : undefined;
  }

  /** The reader has taken something: the other side hears of the new limit before it has used up the old one. True where that is now. */
  onTaken(nowMs: number): boolean {
    const { input } = this;
    if (input === undefined || input.limit - this.#advertised < input.windowBytes / 4) return false;
    if (!input.isComplete) this.acks.hurry(nowMs);
    return true;
  }

  /** The receiver's limit has moved: it takes something again. */
  onRoom(): void {
    this.#blocked.reset();
  }

  /** A packet has come. */
  onArrival(): void {
    this.#silent.reset();
  }

  /** What the other side must answer: after silence, where it takes or sends nothing, or to find the path's MTU. */
  #probe(nowMs: number): Parts | undefined {
    const { flight, output, input } = this;
    if (flight.probesDue > 0) {
      flight.probesDue--;
      return this.#again(flight.sent.oldest?.content, nowMs);
    }
    const isAlone = flight.sent.inFlight === 0;
    const isBlocked = isAlone && output?.isBlocked === true;
    const isSilent = isAlone && (input?.isExpecting === true || output?.isSent === true);
    if (this.#blocked.isDue(isBlocked, nowMs) || this.#silent.isDue(isSilent, nowMs))
      return this.#packet(EMPTY_PROBE, nowMs);
    const size = flight.mtu.wanted;
    if (size === undefined || !flight.rtt.isKnown || !output?.hasData) return undefined;
    flight.mtu.onProbe();
    return this.#packet({ kind: "probe", padding: Buffer.alloc(size - PROBE_OVERHEAD) }, nowMs);
  }

  /** What is under way, in a new packet. */
  #again(content: Content | undefined, nowMs: number): Parts {
    if (content === undefined) return this.#packet(EMPTY_PROBE, nowMs);
    if ("kind" in content) return this.#packet(content.kind === "probe" ? EMPTY_PROBE : content, nowMs);
    const most = this.flight.mtu.currentBytes - DATA_OVERHEAD;
    const bytes = this.output?.at(content.offset, Math.min(content.length, most));
    if (bytes === undefined) return this.#packet(EMPTY_PROBE, nowMs);
    this.repeatedPackets++;
    return this.#dataPacket(content.offset, bytes, nowMs);
  }

  #data(nowMs: number): Parts | undefined {
    const { flight, output } = this;
    if (output === undefined) return undefined;
    if (!output.hasData) {
      flight.onAppLimited();
      return undefined;
    }
    const size = flight.mtu.currentBytes;
    if (flight.readyAtMs(nowMs, size) > nowMs) return undefined;
    const piece = output.next(size - DATA_OVERHEAD);
    if (piece === undefined) return undefined;
    if (piece.isRetransmission) this.repeatedPackets++;
    return this.#dataPacket(piece.offset, piece.bytes, nowMs);
  }

  #dataPacket(offset: number, bytes: Buffer, nowMs: number): Parts {
    const sequence = ++this.sentPackets;
    const packet = sealData(sequence, this.acks.packets.header, this.peerToken, offset, bytes);
    this.flight.onSend(nowMs, sequence, DATA_OVERHEAD + bytes.length, { offset, length: bytes.length });
    return packet;
  }

  #packet(message: Message, nowMs: number): Parts {
    const sequence = ++this.sentPackets;
    const token = message.kind === "open" ? NO_TOKEN : this.peerToken;
    const packet = seal(sequence, this.acks.packets.header, token, message);
    if (wantsAck(message)) this.flight.onSend(nowMs, sequence, packet.length, message);
    return [packet];
  }

  #acknowledgement(nowMs: number): Parts {
    const delayUs = Math.min(Math.round(this.acks.onSend(nowMs) * 1000), MAX_DELAY_US);
    this.#advertised = this.input?.limit ?? 0;
    const received = BigInt(this.input?.received ?? 0);
    const limit = BigInt(this.#advertised);
    const { earlier } = this.acks.packets;
    return this.#packet({ kind: "window", received, limit, delayUs, earlier }, nowMs);
  }
}

const EMPTY_PROBE: Message = { kind: "probe", padding: Buffer.alloc(0) };
