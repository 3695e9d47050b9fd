/**
 * A station's messages (README §7): its own, which are sent one at a time and reported to the user when they are
 * back, and those for it, each of which is delivered once however often it comes.
 */
import { compareTurns, type Line, type Message, type Turn } from "./protocol.ts";

/** A message that has not come back is sent again after this, */
const RETURN_TIMEOUT_MS = 1000;
/** and given up after so many times. */
const MAX_ATTEMPTS = 5;

export type Outcome = "delivered" | "undelivered" | "unconfirmed" | "unsent";
export type MessageAction =
  | { type: "received"; idSource: number; text: string }
  | { type: "reported"; line: Line; outcome: Outcome };

interface MailboxOptions {
  id: number;
  members: readonly number[];
  /** The messages to send. */
  lines: readonly Line[];
  /** Puts a message of this station on the ring. */
  transmit: (message: Message) => void;
  act: (action: MessageAction) => void;
}

interface Mailbox {
  /** Delivers a message that is for this station, unless it has been. */
  take(message: Message): void;
  /** Sends the next message; false when there is none. */
  sendNext(turn: Turn, nowMs: number): boolean;
  /** Sends the one that is out again, or gives it up when that has been done often enough. */
  sendAgain(nowMs: number): void;
  /** A message of this source came back. */
  onReturn(message: Message): void;
  /** The one that is out may have been delivered and may not. */
  giveUp(): void;
  /** Reports everything that has not been reported. */
  close(): void;
  /** When the one that is out should have been back; undefined while none is. */
  readonly dueAtMs: number | undefined;
  readonly isEmpty: boolean;
}

export function createMailbox({ id, members, lines, transmit, act }: MailboxOptions): Mailbox {
  const outbox = lines.values();
  let next = outbox.next();
  let lastNumber = 0;
  let out: { message: Message; sentAtMs: number } | undefined;
  /** The last message taken from each source. */
  const latestFrom = new Map<number, Message>();

  function send(message: Message, nowMs: number): void {
    out = { message, sentAtMs: nowMs };
    transmit(message);
  }

  function report(outcome: Outcome): void {
    if (out) act({ type: "reported", line: out.message, outcome });
    out = undefined;
  }

  return {
    take(message) {
      const { idSource, number, text } = message;
      const last = latestFrom.get(idSource);
      if (last && compareTurns(last, message) === 0 && number <= last.number) return;
      latestFrom.set(idSource, { ...message, text: "" });
      act({ type: "received", idSource, text });
    },
    sendNext(turn, nowMs) {
      if (next.done) return false;
      const numbered = { ...turn, number: ++lastNumber, attempt: 1 };
      send({ idSource: id, ...next.value, acknowledged: false, ...numbered }, nowMs);
      next = outbox.next();
      return true;
    },
    sendAgain(nowMs) {
      if (!out) return;
      const { message } = out;
      if (message.attempt >= MAX_ATTEMPTS) return report("unconfirmed");
      send({ ...message, attempt: message.attempt + 1 }, nowMs);
    },
    onReturn(message) {
      const own = out?.message;
      if (own?.number !== message.number || compareTurns(own, message) !== 0) return; // a late copy
      if (message.acknowledged) report("delivered");
      else report(own.attempt > 1 && members.includes(message.idDestination) ? "unconfirmed" : "undelivered");
    },
    giveUp: () => report("unconfirmed"),
    close() {
      report("unconfirmed");
      for (; !next.done; next = outbox.next()) act({ type: "reported", line: next.value, outcome: "unsent" });
    },
    get dueAtMs() {
      return out && out.sentAtMs + RETURN_TIMEOUT_MS;
    },
    get isEmpty() {
      return next.done === true;
    },
  };
}
