/**
 * One connection, at either end, as a pure state machine: packets and the time go in, packets come out. It has no socket
 * and no clock: who runs it calls `receive` for what arrives, and then `next` until nothing more is to be sent; so again
 * at `wakeAtMs`, and when `onActive` says that the application did something.
 */
import { Failure, TimeoutError } from "../../shared/errors.ts";
import { AckSchedule } from "./ack-schedule.ts";
import { CONGESTION, type CongestionName } from "./congestion.ts";
import { type Content, Flight } from "./flight.ts";
import {
  type Accept,
  type Arrived,
  BASE_MTU,
  DATA_OVERHEAD,
  type ErrorCode,
  type Event,
  type Incoming,
  MAX_SEQUENCE,
  type Message,
  NO_TOKEN,
  numberOf,
  type Open,
  seal,
  sealData,
} from "./protocol.ts";
import { InStream } from "./stream-in.ts";
import { OutStream } from "./stream-out.ts";
import { Once } from "./unordered.ts";

export interface ConnectionOptions {
  congestion: CongestionName;
  /** Largest UDP payload to be tried. */
  mtu: number;
  /** What may wait for a reader here. */
  windowBytes: number;
  /** Without progress for so long, it is given up. */
  timeoutMs: number;
}
export const DEFAULTS: ConnectionOptions = {
  congestion: "bbr",
  mtu: BASE_MTU,
  windowBytes: 8 * 2 ** 20,
  timeoutMs: 30_000,
};

/** What an application is told, from within `receive` and `next`. */
interface Handlers {
  onAccepted?(accept: Accept): void;
  /** There are bytes to be taken, or all have come. */
  onReadable?(): void;
  /** There is room for more bytes. */
  onWritable?(): void;
  onEvent?(event: Event): void;
  /** Called once; without an error, everything has arrived and both sides know. */
  onEnd?(error?: Failure): void;
}

const MIN_SEND_BUFFER_BYTES = 512 * 1024;
const MAX_SEND_BUFFER_BYTES = 16 * 2 ** 20;
const FIRST_PERSIST_MS = 200;
const MAX_PERSIST_MS = 2000;
/** Probe timeouts after which `done` is not said again: the other side has gone, and the file is in place. */
const FAREWELLS = 5;
/** How long, and how often, who still sends on a connection that has ended is answered. */
const LINGER_MS = 3000;
const MAX_ECHOES = 8;
/** Kinds of message that ask for no acknowledgement. */
const UNACKNOWLEDGED: ReadonlySet<string> = new Set<Message["kind"]>(["window", "challenge", "error"]);

export class Connection {
  readonly open: Open;
  readonly flight: Flight;
  handlers: Handlers = {};
  onActive: () => void = () => {};
  state: "opening" | "open" | "finishing" | "ended" = "opening";
  input: InStream | undefined;
  output: OutStream | undefined;
  sentPackets = 0;
  repeatedPackets = 0;
  /** When it may be forgotten. */
  forgetAtMs = Infinity;
  readonly #options: ConnectionOptions;
  readonly #isClient: boolean;
  #peerToken: Buffer;
  #sequence = 0;
  /** Messages to be sent, and sent again until they are acknowledged. */
  #messages: Message[] = [];
  readonly #acks = new AckSchedule();
  readonly #events = new Once();
  #advertised = 0;
  #progressMs: number;
  #nowMs: number;
  #persistMs = FIRST_PERSIST_MS;
  #persistAtMs = Infinity;
  /** What is said to who still sends after the end; undefined is an acknowledgement. */
  #lastWord: Message | undefined;
  #echoesLeft = MAX_ECHOES;

  /** The client's has no `peerToken` yet; the server's has that of the `open` that came. */
  constructor(open: Open, options: ConnectionOptions, nowMs: number, peerToken?: Buffer) {
    this.open = open;
    this.#options = options;
    this.#isClient = peerToken === undefined;
    this.#peerToken = peerToken ?? NO_TOKEN;
    this.#progressMs = nowMs;
    this.#nowMs = nowMs;
    this.flight = new Flight(CONGESTION[options.congestion](BASE_MTU), {
      onAcked: (content) => this.#onAcked(content),
      onLost: (content) => this.#onLost(content),
    });
    if (this.#isClient) this.#messages.push(open);
    else this.flight.mtu.begin(Math.min(options.mtu, open.mtu));
  }

  // What an application does.

  /** The server takes the request; `token` is its own. Of a file of `size`, get and list send it from `open.offset` on. */
  accept(token: Buffer, size: number, sha256: Buffer): void {
    const { mtu, windowBytes } = this.#options;
    this.#say({ kind: "accept", token, mtu, window: windowBytes, size: BigInt(size), sha256 });
    this.#begin(size, this.open.window);
  }

  /** Says that the answer takes time. */
  prepare(done: number): void {
    this.#messages = this.#messages.filter(({ kind }) => kind !== "preparing");
    this.#say({ kind: "preparing", done: BigInt(done) });
    this.#progressMs = this.#nowMs;
  }

  get room(): number {
    if (this.output === undefined || this.state !== "open") return 0;
    const most = Math.min(2 * this.flight.congestion.windowBytes, MAX_SEND_BUFFER_BYTES);
    return Math.max(MIN_SEND_BUFFER_BYTES, most) - this.output.bufferedBytes;
  }
  write(bytes: Buffer): void {
    this.output?.write(bytes);
    this.onActive();
  }

  take(): Buffer[] {
    const bytes = this.input?.take() ?? [];
    // The sender hears of the new limit before it has used up the old one.
    const isNews =
      this.input !== undefined && this.input.limit - this.#advertised >= this.#options.windowBytes / 4;
    if (isNews && !this.input?.isComplete) this.#acks.hurry(this.#nowMs);
    if (isNews) this.onActive();
    return bytes;
  }

  sendEvent(number: number, sentUs: bigint, body: Buffer): void {
    this.#say({ kind: "event", number, sentUs, body });
  }

  /** Everything has come and is right: says so, and ends when the other side knows. */
  finish(): void {
    if (this.state !== "open") return;
    this.state = "finishing";
    this.#say({ kind: "done" });
  }

  /** Ends it with a reason that the other side is told. */
  fail(code: ErrorCode, reason: string, cause: Failure = new Failure(reason)): void {
    if (this.state === "ended") return;
    this.#end({ kind: "error", code, reason: reason.slice(0, 120) }, cause);
  }

  /** The system says that the other side is not there: that is the end, unless there was nothing more to say. */
  lose(error: Failure): void {
    if (this.state === "ended") return;
    this.#end(undefined, this.state === "finishing" ? undefined : error);
  }

  #say(message: Message): void {
    this.#messages.push(message);
    this.onActive();
  }

  #end(lastWord: Message | undefined, error?: Failure): void {
    this.state = "ended";
    this.#lastWord = lastWord;
    this.#messages = lastWord === undefined ? [] : [lastWord];
    this.forgetAtMs = this.#nowMs + LINGER_MS;
    this.onActive();
    this.handlers.onEnd?.(error);
  }

  // What comes in.

  receive(arrived: Arrived, nowMs: number): void {
    this.#nowMs = nowMs;
    const { sequence, message } = arrived;
    if (this.state === "ended") return this.#answerAfterEnd(arrived);
    if (message.kind === "data" && this.input === undefined) return; // accept is still under way
    const isWindow = message.kind === "window";
    const delayMs = isWindow ? message.delayUs / 1000 : 0;
    const isNew = sequence === 0 || this.#acks.note(sequence, !UNACKNOWLEDGED.has(message.kind), nowMs);
    if (this.flight.onAcks(nowMs, arrived, isWindow ? message.earlier : undefined, delayMs))
      if (!this.#isStalled) this.#progressMs = nowMs;
    if (isNew) this.#onMessage(message);
  }

  /** Probes of a receiver that takes nothing are acknowledged, but that is no progress. */
  get #isStalled(): boolean {
    return this.output?.isBlocked ?? false;
  }

  #onMessage(message: Incoming): void {
    switch (message.kind) {
      case "data":
        return this.#onData(message.offset, message.bytes);
      case "window":
        return this.#onWindow(numberOf(message.received), numberOf(message.limit));
      case "challenge":
        return this.#onChallenge(message.cookie);
      case "preparing":
        this.#progressMs = this.#nowMs;
        return;
      case "accept":
        return this.#onAccept(message);
      case "event":
        this.#progressMs = this.#nowMs;
        if (this.#events.take(message.number)) this.handlers.onEvent?.(message);
        return;
      case "done":
        return this.#onDone();
      case "error":
        return this.#end(undefined, new Failure(message.reason));
      case "open": // again: the answer may be lost, and how long to wait for word of it is not known yet
        if (this.flight.sent.inFlight > 0) this.flight.probesDue = 1;
        return;
      case "echo":
      case "probe":
        return; // the endpoint's concern, or nothing but an acknowledgement is wanted
    }
  }

  #onData(offset: number, bytes: Buffer): void {
    try {
      if (!this.input?.insert(offset, bytes)) return;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return this.fail("broken rules", error.message);
    }
    this.#progressMs = this.#nowMs;
    this.handlers.onReadable?.();
  }

  #onWindow(received: number, limit: number): void {
    if (!this.output?.onWindow(received, limit)) return;
    this.#progressMs = this.#nowMs;
    this.#persistMs = FIRST_PERSIST_MS;
    this.handlers.onWritable?.();
  }

  /** At first the open is repeated with the cookie; later the address has changed, and the cookie is sent back from there. */
  #onChallenge(cookie: Buffer): void {
    if (!this.#isClient) return;
    this.#messages = this.#messages.filter(({ kind }) => kind !== "echo" && kind !== "open");
    if (this.state === "opening") {
      this.open.cookie = Buffer.from(cookie);
      this.#messages.push(this.open);
    } else this.#messages.push({ kind: "echo", cookie: Buffer.from(cookie) });
  }

  #onAccept(accept: Accept): void {
    if (!this.#isClient || this.state !== "opening") return;
    this.#peerToken = Buffer.from(accept.token);
    this.#messages = this.#messages.filter(({ kind }) => kind !== "open");
    this.#progressMs = this.#nowMs;
    this.flight.mtu.begin(Math.min(this.#options.mtu, accept.mtu));
    this.#begin(numberOf(accept.size), accept.window);
    this.handlers.onAccepted?.(accept);
    if (this.input?.isComplete) this.handlers.onReadable?.();
    if (this.output) this.handlers.onWritable?.();
  }

  /** Both know what is to come: who sends it, from where, and up to where. */
  #begin(size: number, peerWindow: number): void {
    const { request, offset } = this.open;
    this.state = "open";
    if (request === "events") return;
    const start = numberOf(offset);
    if (this.#isClient === (request === "put")) this.output = new OutStream(start, size, peerWindow);
    else this.input = new InStream(start, this.#options.windowBytes, size);
  }

  #onDone(): void {
    if (this.output !== undefined && !this.output.isWritten)
      return this.fail("broken rules", "the other side has it all, it says, but has not");
    this.#acks.hurry(this.#nowMs);
    this.#end(undefined);
  }

  #answerAfterEnd({ sequence, message }: Arrived): void {
    if (UNACKNOWLEDGED.has(message.kind) || this.#echoesLeft-- <= 0) return;
    if (this.#lastWord) this.#messages = [this.#lastWord];
    else this.#acks.note(sequence, true, this.#nowMs);
  }

  #onAcked(content: Content): void {
    if (this.state === "finishing" && "kind" in content && content.kind === "done") this.#end(undefined);
  }

  #onLost(content: Content): void {
    if (!("kind" in content)) this.output?.onLost(content.offset, content.length);
    else if (this.#isWanted(content)) this.#messages.push(content);
  }

  /** Is it still worth being sent again? */
  #isWanted({ kind }: Message): boolean {
    if (kind === "open") return this.state === "opening" && !this.#messages.includes(this.open);
    return kind !== "probe" && kind !== "preparing" && this.state !== "ended";
  }

  // What goes out.

  /** When `next` is to be called, if nothing happens before. */
  get wakeAtMs(): number {
    if (this.state === "ended") return this.forgetAtMs;
    const { mtu } = this.flight;
    const dataMs = this.output?.hasData ? this.flight.readyAtMs(this.#nowMs, mtu.currentBytes) : Infinity;
    const giveUpMs = this.#progressMs + this.#options.timeoutMs;
    return Math.min(this.flight.wakeAtMs, this.#acks.dueMs, this.#persistAtMs, dataMs, giveUpMs);
  }

  /** The next packet to be sent now, if there is one. */
  next(nowMs: number): Buffer | undefined {
    this.#nowMs = nowMs;
    if (this.state !== "ended") this.#onTime();
    const message = this.#messages.shift();
    if (message !== undefined) return this.#packet(message);
    if (this.state !== "ended") {
      const packet = this.#probe() ?? this.#data();
      if (packet) return packet;
    }
    return nowMs >= this.#acks.dueMs ? this.#acknowledgement() : undefined;
  }

  #onTime(): void {
    this.flight.onTime(this.#nowMs);
    if (this.state === "finishing" && this.flight.timeouts > FAREWELLS) return this.#end(undefined);
    if (this.#nowMs < this.#progressMs + this.#options.timeoutMs) return;
    const problem = `no progress for ${this.#options.timeoutMs / 1000} s`;
    this.fail("stopped", problem, new TimeoutError(problem));
  }

  /** What the other side must answer: after silence, to a receiver that takes nothing, or to find the path's MTU. */
  #probe(): Buffer | undefined {
    const { flight, output } = this;
    if (flight.probesDue > 0) {
      flight.probesDue--;
      return this.#again(flight.sent.oldest?.content);
    }
    if (!output?.isBlocked || flight.sent.inFlight > 0) this.#persistAtMs = Infinity;
    else if (this.#persistAtMs === Infinity) this.#persistAtMs = this.#nowMs + this.#persistMs;
    else if (this.#nowMs >= this.#persistAtMs) {
      this.#persistMs = Math.min(2 * this.#persistMs, MAX_PERSIST_MS);
      this.#persistAtMs = Infinity;
      return this.#packet({ kind: "probe", padding: Buffer.alloc(0) });
    }
    const size = flight.mtu.wanted;
    if (size === undefined || !flight.rtt.isKnown || !output?.hasData) return undefined;
    flight.mtu.onProbe();
    return this.#packet({ kind: "probe", padding: Buffer.alloc(size - PROBE_OVERHEAD) });
  }

  /** What is under way, in a new packet. */
  #again(content: Content | undefined): Buffer {
    const isMessage = content !== undefined && "kind" in content;
    if (isMessage && content.kind !== "probe") return this.#packet(content);
    const most = this.flight.mtu.currentBytes - DATA_OVERHEAD;
    const piece =
      content === undefined || isMessage
        ? undefined
        : this.output?.at(content.offset, Math.min(content.length, most));
    if (piece === undefined) return this.#packet({ kind: "probe", padding: Buffer.alloc(0) });
    this.repeatedPackets++;
    return this.#dataPacket(piece.offset, piece.bytes);
  }

  #data(): Buffer | undefined {
    const { flight, output } = this;
    if (output === undefined) return undefined;
    if (!output.hasData) {
      flight.onAppLimited();
      return undefined;
    }
    const size = flight.mtu.currentBytes;
    if (flight.readyAtMs(this.#nowMs, size) > this.#nowMs) return undefined;
    const piece = output.next(size - DATA_OVERHEAD);
    if (piece === undefined) return undefined;
    if (piece.isRetransmission) this.repeatedPackets++;
    return this.#dataPacket(piece.offset, piece.bytes);
  }

  #dataPacket(offset: number, bytes: Buffer): Buffer {
    const sequence = this.#nextSequence();
    const packet = sealData(sequence, this.#acks.packets.header, this.#peerToken, offset, bytes);
    this.flight.onSend(this.#nowMs, sequence, packet.length, { offset, length: bytes.length });
    return packet;
  }

  #packet(message: Message): Buffer {
    const sequence = this.#nextSequence();
    const token = message.kind === "open" ? NO_TOKEN : this.#peerToken;
    const packet = seal(sequence, this.#acks.packets.header, token, message);
    if (!UNACKNOWLEDGED.has(message.kind)) this.flight.onSend(this.#nowMs, sequence, packet.length, message);
    return packet;
  }

  #acknowledgement(): Buffer {
    const delayUs = Math.round(this.#acks.onSend(this.#nowMs) * 1000);
    this.#advertised = this.input?.limit ?? 0;
    return this.#packet({
      kind: "window",
      received: BigInt(this.input?.received ?? 0),
      limit: BigInt(this.#advertised),
      delayUs,
      earlier: this.#acks.packets.earlier,
    });
  }

  /** Sequences are not used again: a connection that has used all of them ends. */
  #nextSequence(): number {
    this.sentPackets++;
    this.#sequence++;
    if (this.#sequence === MAX_SEQUENCE) this.fail("failed", "all sequence numbers are used up");
    return Math.min(this.#sequence, MAX_SEQUENCE);
  }
}

/** A packet with an empty probe. */
const PROBE_OVERHEAD = 25;
