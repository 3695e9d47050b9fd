/**
 * One connection, at either end, as a pure state machine: packets and the time go in, packets come out. It has no socket
 * and no clock: who runs it calls `receive` for what arrives, and then `next` until nothing more is to be sent; so again
 * at `wakeAtMs`, and when `onActive` says that the application did something.
 */
import { Failure, TimeoutError } from "../../shared/errors.ts";
import { printable } from "../../shared/printable.ts";
import { Afterlife } from "./afterlife.ts";
import { CONGESTION } from "./congestion.ts";
import { type Content, Flight } from "./flight.ts";
import type { ConnectionOptions, Handlers } from "./options.ts";
import {
  type Accept,
  type Arrived,
  BASE_MTU,
  DATA_OVERHEAD,
  type ErrorCode,
  type Incoming,
  type Message,
  NO_TOKEN,
  numberOf,
  type Open,
  type Parts,
} from "./protocol.ts";
import { Sending, wantsAck } from "./sending.ts";
import { InStream } from "./stream-in.ts";
import { OutStream } from "./stream-out.ts";
import { Once } from "./unordered.ts";

const MIN_SEND_BUFFER_BYTES = 512 * 1024;
const MAX_SEND_BUFFER_BYTES = 16 * 2 ** 20;
/** Probe timeouts after which `done` is not said again: the other side has gone, and the file is in place. */
const FAREWELLS = 5;
/** What a client waits for that has sent an open. */
const ANSWERS: ReadonlySet<string> = new Set<Message["kind"]>(["challenge", "preparing", "accept", "error"]);

export class Connection {
  readonly open: Open;
  readonly flight: Flight;
  handlers: Handlers = {};
  onActive: () => void = () => {};
  state: "opening" | "open" | "finishing" | "ended" = "opening";
  readonly #options: ConnectionOptions;
  readonly #isClient: boolean;
  readonly #sending: Sending;
  readonly #events = new Once();
  #progressMs: number;
  #nowMs: number;
  #afterlife: Afterlife | undefined;

  /** The client's has no `peerToken` yet; the server's has that of the `open` that came. */
  constructor(open: Open, options: ConnectionOptions, nowMs: number, peerToken?: Buffer) {
    this.open = open;
    this.#options = options;
    this.#isClient = peerToken === undefined;
    this.#progressMs = nowMs;
    this.#nowMs = nowMs;
    this.flight = new Flight(CONGESTION[options.congestion](BASE_MTU), {
      onAcked: (content) => this.#onAcked(content),
      onLost: (content) => this.#sending.onLost(content),
    });
    this.#sending = new Sending(this.flight, peerToken ?? NO_TOKEN);
    if (this.#isClient) this.#sending.say(open);
    else this.flight.mtu.begin(Math.min(options.mtu, open.mtu));
  }

  /** The file that comes in, and the one that goes out. */
  get input(): InStream | undefined {
    return this.#sending.input;
  }
  get output(): OutStream | undefined {
    return this.#sending.output;
  }
  get sentPackets(): number {
    return this.#sending.sentPackets;
  }
  get repeatedPackets(): number {
    return this.#sending.repeatedPackets;
  }

  // What an application does.

  /**
   * The server takes the request; `token` is its own. Of a file of `size`, get and list send it from `open.offset` on.
   * Throws `Failure` where the connection has ended meanwhile.
   */
  accept(token: Buffer, size: number, sha256: Buffer): void {
    if (this.state === "ended") throw new Failure("the client has gone");
    const { mtu, windowBytes } = this.#options;
    this.#say({ kind: "accept", token, mtu, window: windowBytes, size: BigInt(size), sha256 });
    this.#begin(size, this.open.window);
  }

  /** Says that the answer takes time. */
  prepare(done: number): void {
    this.#sending.drop("preparing");
    this.#say({ kind: "preparing", done: BigInt(done) });
    this.#progressMs = this.#nowMs;
  }

  get room(): number {
    if (this.output === undefined || this.state !== "open") return 0;
    const most = Math.min(4 * this.flight.congestion.windowBytes, MAX_SEND_BUFFER_BYTES);
    return Math.max(MIN_SEND_BUFFER_BYTES, most) - this.output.bufferedBytes;
  }
  /** What of a file goes into a packet. */
  get pieceBytes(): number {
    return this.flight.mtu.currentBytes - DATA_OVERHEAD;
  }
  write(bytes: Buffer): void {
    this.output?.write(bytes);
    this.onActive();
  }

  take(): Buffer[] {
    const bytes = this.input?.take() ?? [];
    if (this.#sending.onTaken(this.#nowMs)) this.onActive();
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
    this.#end({ kind: "error", code, reason: reason.slice(0, 120).toWellFormed() }, cause);
  }

  /** The system says that the other side is not there. */
  lose(error: Failure): void {
    if (this.state !== "ended") this.#end(undefined, error);
  }

  #say(message: Message): void {
    this.#sending.say(message);
    this.onActive();
  }

  #end(lastWord: Message | undefined, error?: Failure): void {
    const hasAll = this.state === "finishing"; // then it is no failure that the other side did not hear of it
    this.state = "ended";
    this.#sending.end(lastWord);
    this.#afterlife = new Afterlife(lastWord, this.#nowMs);
    this.onActive();
    this.handlers.onEnd?.(hasAll ? undefined : error);
  }

  // What comes in.

  receive(arrived: Arrived, nowMs: number): void {
    this.#nowMs = nowMs;
    const { sequence, message } = arrived;
    if (this.#afterlife) return this.#answerAfterEnd(arrived, this.#afterlife);
    // Before the accept: not even an acknowledgement counts, so that the open comes again where the accept was lost.
    if (this.#isClient && this.state === "opening" && !ANSWERS.has(message.kind)) return;
    const isWindow = message.kind === "window";
    const delayMs = isWindow ? message.delayUs / 1000 : 0;
    this.#sending.onArrival();
    const isNew = sequence === 0 || this.#sending.acks.note(sequence, wantsAck(message), nowMs);
    this.flight.onAcks(nowMs, arrived, isWindow ? message.earlier : undefined, delayMs);
    if (isNew) this.#onMessage(message);
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
        return this.#end(undefined, new Failure(printable(message.reason)));
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
    this.#sending.onRoom();
    this.handlers.onWritable?.();
  }

  /** At first the open is repeated with the cookie; later the address has changed, and the cookie is sent back from there. */
  #onChallenge(cookie: Buffer): void {
    if (!this.#isClient) return;
    this.#sending.drop("echo", "open");
    const kept = Buffer.from(cookie);
    if (this.state === "opening") this.open.cookie = kept;
    this.#sending.say(this.state === "opening" ? this.open : { kind: "echo", cookie: kept });
  }

  #onAccept(accept: Accept): void {
    if (!this.#isClient || this.state !== "opening") return;
    this.#sending.peerToken = Buffer.from(accept.token);
    this.#sending.drop("open");
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
    if (this.#isClient === (request === "put")) this.#sending.output = new OutStream(start, size, peerWindow);
    else this.#sending.input = new InStream(start, this.#options.windowBytes, size);
  }

  #onDone(): void {
    if (this.open.request !== "events" && !this.output?.isWritten)
      return this.fail("broken rules", "the other side has it all, it says, but has not");
    this.#sending.acks.hurry(this.#nowMs);
    this.#end(undefined);
  }

  #answerAfterEnd({ sequence, message }: Arrived, afterlife: Afterlife): void {
    if (!wantsAck(message) || !afterlife.answers()) return;
    if (afterlife.lastWord) return this.#sending.end(afterlife.lastWord);
    this.#sending.acks.note(sequence, true, this.#nowMs);
    this.#sending.acks.hurry(this.#nowMs); // no timer runs for it any more
  }

  #onAcked(content: Content): void {
    const kind = "kind" in content ? content.kind : "data";
    if (kind !== "probe") this.#progressMs = this.#nowMs; // who answers when asked, and says nothing else, gets no further
    if (kind === "done" && this.state === "finishing") this.#end(undefined);
  }

  // What goes out.

  /** When `next` is to be called, if nothing happens before. */
  get wakeAtMs(): number {
    if (this.#afterlife) return this.#afterlife.untilMs;
    return Math.min(this.#sending.wakeAtMs(this.#nowMs), this.#progressMs + this.#options.timeoutMs);
  }

  /** When it may be forgotten. */
  get forgetAtMs(): number {
    return this.#afterlife?.untilMs ?? Infinity;
  }

  /** The next packet to be sent now, if there is one. */
  next(nowMs: number): Parts | undefined {
    this.#nowMs = nowMs;
    if (this.state !== "ended") this.#onTime();
    return this.#sending.next(nowMs);
  }

  #onTime(): void {
    this.flight.onTime(this.#nowMs);
    if (this.state === "finishing" && this.flight.timeouts > FAREWELLS) return this.#end(undefined);
    if (this.#sending.isExhausted) return this.fail("failed", "all sequence numbers are used up");
    if (this.#nowMs < this.#progressMs + this.#options.timeoutMs) return;
    const problem = `no progress for ${this.#options.timeoutMs / 1000} s`;
    this.fail("stopped", problem, new TimeoutError(problem));
  }
}
