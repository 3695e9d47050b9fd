/**
 * A station's messages (README §7): its own, which are sent one at a time and reported to the user when they are
 * back, and those for it, each of which is delivered once however often it comes.
 */
import type { Line, Message } from "./protocol.ts";

/** A message that has not come back is sent again after this, */
export const RETURN_TIMEOUT_MS = 1000;
/** and given up after so many times. */
export const MAX_ATTEMPTS = 5;

export type Outcome = "delivered" | "undelivered" | "unconfirmed" | "unsent";
export type MessageAction =
  | { type: "received"; idSource: number; text: string }
  | { type: "reported"; line: Line; outcome: Outcome };

export interface MailboxOptions {
  id: number;
  members: readonly number[];
  /** Chosen at random at each start. */
  session: number;
  /** The messages to send. */
  lines: readonly Line[];
  /** Puts a message of this station on the ring. */
  transmit: (message: Message) => void;
  act: (action: MessageAction) => void;
}

export interface Mailbox {
  /** Takes a message that is for this station; false where it may have been delivered to an earlier life of it. */
  take(message: Message, hadTurn: boolean): boolean;
  /** Sends the next message; false when there is none. */
  sendNext(generation: number, nowMs: number): boolean;
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

export function createMailbox({ id, members, session, lines, transmit, act }: MailboxOptions): Mailbox {
  const outbox = lines.values();
  let next = outbox.next();
  let lastNumber = 0;
  let out: { message: Message; sentAtMs: number } | undefined;
  /** The last message taken from each source. */
  const latestFrom = new Map<number, Pick<Message, "session" | "number">>();

  function send(message: Message, nowMs: number): void {
    out = { message, sentAtMs: nowMs };
    transmit(message);
  }

  function report(outcome: Outcome): void {
    if (out) act({ type: "reported", line: out.message, outcome });
    out = undefined;
  }

  return {
    take({ idSource, session, number, attempt, text }, hadTurn) {
      const last = latestFrom.get(idSource);
      if (last?.session === session && number <= last.number) return true;
      if (attempt > 1 && !hadTurn) return false;
      latestFrom.set(idSource, { session, number });
      act({ type: "received", idSource, text });
      return true;
    },
    sendNext(generation, nowMs) {
      if (next.done) return false;
      const { idDestination, text } = next.value;
      const numbered = { generation, session, number: ++lastNumber, attempt: 1 };
      next = outbox.next();
      send({ idSource: id, idDestination, acknowledged: false, ...numbered, text }, nowMs);
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
      if (own?.number !== message.number || message.session !== session) return; // a second copy, already reported
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
