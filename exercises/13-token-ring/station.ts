/**
 * A station of the ring: what it does with what happens to it. No sockets and no clock: events go in with the
 * time, actions come out, so that whole rings also run in a simulation (README §5 to §9; which turn is valid is decided in
 * `election.ts`, what becomes of single messages in `messages.ts`).
 */
import { type Claim, createElection } from "./election.ts";
import { createMailbox, type MessageAction } from "./messages.ts";
import { type Line, type Meaning, type Message, ringFrom, type Turn } from "./protocol.ts";

/** No message under a turn, nor a turn, has passed for so long: the turn is lost. */
export const LOSS_TIMEOUT_MS = 2500;
/** The end command is repeated after this. */
const FINISH_INTERVAL_MS = 1000;

export interface StationOptions {
  id: number;
  /** The ids in the order of the ring, this one's included. */
  members: readonly number[];
  /** The station that comes next when it is there. */
  first: number;
  /** The messages to send. */
  lines: readonly Line[];
  /** Messages that it may send each time it has the turn. */
  holdLimit: number;
  /** How long it keeps the turn in a round without a message, so that an idle ring does not spin. */
  idleHoldMs: number;
  /** Station 0 ends the ring after so many rounds without a message. */
  finishAfterIdle?: number | undefined;
}

export type Event =
  | { type: "frame"; meaning: Meaning }
  /** Frames go to this station from now on; undefined while there is none. */
  | { type: "successor"; id: number | undefined }
  /** A neighbour knows of this generation; above 0, the ring is running. */
  | { type: "heard"; generation: number }
  /** The user wants an end: with its next turn station 0 ends the ring, any other leaves it; the second time at once. */
  | { type: "stop" }
  | { type: "tick" };
export type Action =
  | { type: "send"; meaning: Meaning }
  | MessageAction
  | { type: "note"; text: string }
  /** Predecessors are to be told that it goes; what they have sent comes still, and when that is all, a stop. */
  | { type: "leave" }
  | { type: "end" };

export interface Station {
  handle(event: Event, nowMs: number): Action[];
  /** When it wants a tick, whatever happens until then. */
  wakeAtMs(): number;
  /** The latest turn that it has had; of generation 0 until then. */
  readonly turn: Turn;
  /** The latest generation that there is, as far as is known here; what its probes say. */
  readonly known: number;
  /** Has the ring been complete once? Only then may dead stations be by-passed. */
  readonly joined: boolean;
  readonly hasTurn: boolean;
}

export function createStation(options: StationOptions, startMs: number): Station {
  const { id, members, first, holdLimit, idleHoldMs, finishAfterIdle = Number.POSITIVE_INFINITY } = options;
  const order = ringFrom(id, first, members);

  let actions: Action[] = [];
  let successor: number | undefined;
  let joined = false;
  let ended = false;
  let stopping = false;
  /** Does it only pass on what still comes? */
  let leaving = false;
  let hold: { sinceMs: number; sent: number } | undefined;
  let finishSentMs: number | undefined;
  let lastSeenMs = startMs;
  /** Was that more than the probe by which it joined? The turn that such a one tells of may be lost. */
  let hasSeen = false;
  /** Has no message passed since it last gave the turn away? */
  let quiet = false;
  let idleRounds = 0;

  const election = createElection(id, members);
  const send = (meaning: Meaning) => actions.push({ type: "send", meaning });
  const note = (text: string) => actions.push({ type: "note", text });
  const mailbox = createMailbox({
    ...options,
    transmit(message) {
      const { number, idDestination, attempt } = message;
      note(`sent message ${number} to ${idDestination}${attempt > 1 ? ` again, attempt ${attempt}` : ""}`);
      send({ kind: "message", ...message });
    },
    act: (action) => actions.push(action),
  });
  const wraps = (next: number) => members.indexOf(next) <= members.indexOf(id);
  /** Nobody would take a message of `source` off the ring: it is no station, or stands between this one and its successor. */
  const isGone = (source: number) =>
    !members.includes(source) ||
    (successor !== undefined && order.indexOf(source) < order.indexOf(successor));

  function onTurn(turn: Turn, nowMs: number): void {
    const { generation, issuer, round } = turn;
    const wholeRound = generation === election.latest.generation;
    if (!election.accept(turn)) {
      return void note(`removed a second turn, generation=${generation} issuer=${issuer} round=${round}`);
    }
    // A message under a turn that was lost: it may have arrived, so it is not for a later turn to send it again.
    mailbox.giveUp();
    idleRounds = wholeRound && quiet && mailbox.isEmpty ? idleRounds + 1 : 0;
    joined = true;
    hasSeen = true;
    hold = { sinceMs: nowMs, sent: 0 };
    note(`turn generation=${generation} issuer=${issuer} round=${round}`);
  }

  /** A claim that comes back makes its station the issuer of a new turn. */
  function onClaim(claim: Claim, nowMs: number): void {
    const turnLives = hold !== undefined || (hasSeen && nowMs - lastSeenMs < LOSS_TIMEOUT_MS);
    const verdict = election.judge(claim, turnLives);
    if (verdict === "removed") return;
    if (verdict === "passed on") {
      note(`passed on a claim of ${claim.idSource}, generation ${claim.generation}`);
      return void send(claim);
    }
    note(`made the turn, generation ${verdict.generation}`);
    onTurn(verdict, nowMs);
  }

  const claimDueMs = () => election.claimDueMs(joined ? lastSeenMs + LOSS_TIMEOUT_MS : undefined);

  function claimIfLost(nowMs: number): void {
    if (hold || successor === undefined || nowMs < claimDueMs()) return;
    const claim = election.claim(nowMs);
    note(`claimed the turn, generation ${claim.generation}`);
    send(claim);
  }

  function onMessage(message: Message, nowMs: number): void {
    const { idSource, idDestination, generation, number } = message;
    if (election.isLate(message)) return void note(`removed a late message from ${idSource}`);
    if (isGone(idSource)) return void note(`removed a message whose source, ${idSource}, is gone`);
    onHeard(generation, nowMs);
    sawMessage(nowMs);
    const takes = idDestination === id && election.wasThere(message);
    if (takes) mailbox.take(message);
    const seen = takes ? { ...message, acknowledged: true } : message;
    if (idSource === id) return mailbox.onReturn(seen);
    note(
      `passed on message ${number} from ${idSource} to ${idDestination}${seen.acknowledged ? ", taken" : ""}`,
    );
    send({ kind: "message", ...seen });
  }

  function sawMessage(nowMs: number): void {
    lastSeenMs = nowMs;
    hasSeen = joined;
    quiet = false;
  }

  function onFinish(idSource: number): void {
    if (idSource !== 0)
      return void note(`removed an end command of station ${idSource}: it is for station 0 to give`);
    if (id === 0) ended = finishSentMs !== undefined;
    else {
      send({ kind: "finish", idSource, idDestination: idSource });
      ended = true;
    }
  }

  /** While it has the turn: sends what it may, each message after the last one's return; then passes the turn. */
  function useTurn(nowMs: number): void {
    if (!hold || successor === undefined || finishSentMs !== undefined) return;
    if (mailbox.dueAtMs !== undefined && nowMs >= mailbox.dueAtMs) sendAgain(nowMs);
    if (mailbox.dueAtMs !== undefined) return;
    if (hold.sent < holdLimit && !stopping && mailbox.sendNext(election.latest, nowMs)) {
      hold.sent++;
      return sawMessage(nowMs);
    }
    if (id === 0 && (stopping || idleRounds >= finishAfterIdle)) return finish(nowMs);
    if (quiet && !stopping && nowMs < hold.sinceMs + idleHoldMs) return;
    const { latest } = election;
    const round = latest.round + (wraps(successor) ? 1 : 0);
    send({ kind: "turn", idSource: id, idDestination: successor, ...latest, round });
    hold = undefined;
    lastSeenMs = nowMs;
    quiet = true;
    if (stopping) leave();
  }

  function leave(): void {
    if (leaving) return;
    leaving = true;
    mailbox.close();
    actions.push({ type: "leave" });
  }

  function sendAgain(nowMs: number): void {
    mailbox.sendAgain(nowMs);
    sawMessage(nowMs);
  }

  function finish(nowMs: number): void {
    finishSentMs = nowMs;
    send({ kind: "finish", idSource: id, idDestination: id });
  }

  function onFrame(meaning: Meaning, nowMs: number): void {
    switch (meaning.kind) {
      case "turn":
        return onTurn(meaning, nowMs);
      case "claim":
        return onClaim(meaning, nowMs);
      case "message":
        return onMessage(meaning, nowMs);
      case "finish":
        return onFinish(meaning.idSource);
      case "probe":
        return; // the links' own business
    }
  }

  function onSuccessor(next: number | undefined, nowMs: number): void {
    successor = next;
    if (next === undefined) return;
    note(`successor ${next}`);
    // What was under way may have been lost with the old successor.
    if (finishSentMs !== undefined) finish(nowMs);
    else if (hold && mailbox.dueAtMs !== undefined) sendAgain(nowMs);
  }

  function onHeard(generation: number, nowMs: number): void {
    if (generation <= election.known) return;
    election.hear(generation);
    if (hold) {
      note(`gave up its turn: there is one of generation ${generation}`);
      hold = undefined;
      mailbox.giveUp();
    }
    hasSeen = joined;
    joined = true;
    lastSeenMs = nowMs;
  }

  function onStop(nowMs: number): void {
    // Station 0 cannot wait for the turn any longer, and nobody else can end the ring.
    if (stopping && id === 0 && joined && successor !== undefined) {
      note("ended the ring, without waiting for the turn any longer");
      finish(nowMs);
    }
    ended = stopping || !joined;
    stopping = true;
  }

  function handle(event: Event, nowMs: number): Action[] {
    actions = [];
    if (ended) return actions;
    if (event.type === "frame") onFrame(event.meaning, nowMs);
    else if (event.type === "successor") onSuccessor(event.id, nowMs);
    else if (event.type === "stop") onStop(nowMs);
    else if (event.type === "heard") onHeard(event.generation, nowMs);
    if (!ended) {
      useTurn(nowMs);
      claimIfLost(nowMs);
      if (finishSentMs !== undefined && nowMs >= finishSentMs + FINISH_INTERVAL_MS) finish(nowMs);
    }
    if (ended) {
      mailbox.close();
      actions.push({ type: "end" });
    }
    return actions;
  }

  return {
    handle,
    wakeAtMs() {
      if (ended || successor === undefined) return Number.POSITIVE_INFINITY;
      if (finishSentMs !== undefined) return finishSentMs + FINISH_INTERVAL_MS;
      if (!hold) return claimDueMs();
      return mailbox.dueAtMs ?? hold.sinceMs + idleHoldMs;
    },
    get turn() {
      return election.latest;
    },
    get known() {
      return election.known;
    },
    get joined() {
      return joined;
    },
    get hasTurn() {
      return hold !== undefined;
    },
  };
}
