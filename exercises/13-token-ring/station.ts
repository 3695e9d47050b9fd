/**
 * A station of the ring: what it does with what happens to it. No sockets and no clock: events go in with the
 * time, actions come out, so that whole rings also run in a simulation (README, "States").
 */
import { compareTurns, type Line, type Meaning, type Message, ringFrom, type Turn } from "./protocol.ts";

/** No message under a turn, nor a turn, has passed for so long: the turn is lost. */
export const LOSS_TIMEOUT_MS = 2500;
/** A claim is repeated after this. */
export const CLAIM_INTERVAL_MS = 250;
/** A message that has not come back is sent again after this, */
export const RETURN_TIMEOUT_MS = 1000;
/** and given up after so many times. */
export const MAX_ATTEMPTS = 5;

export interface StationOptions {
  id: number;
  /** The ids in the order of the ring, this one's included. */
  members: readonly number[];
  /** The station that comes next when it is there. */
  first: number;
  session: number;
  /** The messages to send. */
  lines: readonly Line[];
  /** Messages that it may send each time it has the turn. */
  holdLimit: number;
  /** How long it keeps the turn in a round without a message, so that an idle ring does not spin. */
  idleHoldMs: number;
  /** Station 0 ends the ring after so many rounds without a message. */
  finishAfterIdle?: number | undefined;
}

export type Outcome = "delivered" | "undelivered" | "unconfirmed" | "unsent";
export type Event =
  | { type: "frame"; meaning: Meaning }
  /** Frames go to this station from now on; undefined while there is none. */
  | { type: "successor"; id: number | undefined }
  /** A neighbour said that the ring is running. */
  | { type: "joined" }
  /** The user wants an end: station 0 ends the ring, any other leaves it. */
  | { type: "stop" }
  | { type: "tick" };
export type Action =
  | { type: "send"; meaning: Meaning }
  | { type: "received"; idSource: number; text: string }
  | { type: "reported"; line: Line; outcome: Outcome }
  | { type: "note"; text: string }
  | { type: "end" };

type Claim = Meaning & { kind: "claim" };

export interface Station {
  handle(event: Event, nowMs: number): Action[];
  /** When it wants a tick, whatever happens until then. */
  wakeAtMs(): number;
  /** The latest turn that it has had; of generation 0 until then. */
  readonly turn: Turn;
  /** Has the ring been complete once? Only then may dead stations be by-passed. */
  readonly joined: boolean;
  readonly hasTurn: boolean;
}

export function createStation(options: StationOptions, startMs: number): Station {
  const { id, members, first, session, holdLimit, idleHoldMs, finishAfterIdle } = options;
  const outbox = [...options.lines];
  const smallest = Math.min(...members);
  const order = ringFrom(id, first, members);
  /** The last message taken from each source. */
  const latestFrom = new Map<number, Pick<Message, "session" | "number">>();

  let actions: Action[] = [];
  let successor: number | undefined;
  let joined = false;
  let ended = false;
  let stopping = false;
  /** The latest turn accepted. */
  let latest: Turn = { generation: 0, issuer: 0, round: 0 };
  /** Turns of an earlier generation are refused, since a claim has passed that will replace them. */
  let promised = 0;
  let hold: { sinceMs: number; sent: number } | undefined;
  let outstanding: { message: Message; sentAtMs: number } | undefined;
  let lastNumber = 0;
  let finishSentMs: number | undefined;
  let lastSeenMs = startMs;
  let lastClaimMs = Number.NEGATIVE_INFINITY;
  let attempts = 0;
  let passedClaim: Claim | undefined;
  /** Has no message passed since it last gave the turn away? */
  let quiet = false;
  let idleRounds = 0;

  const send = (meaning: Meaning) => actions.push({ type: "send", meaning });
  const note = (text: string) => actions.push({ type: "note", text });
  const wraps = (next: number) => members.indexOf(next) <= members.indexOf(id);
  /** Would `other` stand between this station and its successor? */
  const isBypassed = (other: number) =>
    successor !== undefined && order.includes(other) && order.indexOf(other) < order.indexOf(successor);

  function onTurn(turn: Turn, nowMs: number): void {
    if (turn.generation < promised || compareTurns(turn, latest) <= 0) {
      return void note(`removed a second turn, generation ${turn.generation} round ${turn.round}`);
    }
    // A message under a turn that was lost: it may have arrived, so it is not for a later turn to send it again.
    if (outstanding) report("unconfirmed");
    const wholeRound = turn.generation === latest.generation;
    idleRounds = wholeRound && quiet && outbox.length === 0 ? idleRounds + 1 : 0;
    latest = turn;
    promised = turn.generation;
    joined = true;
    lastSeenMs = nowMs;
    hold = { sinceMs: nowMs, sent: 0 };
    note(`turn generation=${turn.generation} issuer=${turn.issuer} round=${turn.round}`);
  }

  /**
   * A claim that comes back makes its station the issuer of a new turn. Claims of larger ids, old ones, and one
   * that comes by again, because its station cannot be reached any more, are dropped.
   */
  function onClaim(claim: Claim, nowMs: number): void {
    const { idSource: claimant, generation, attempt } = claim;
    if (generation <= latest.generation || generation < promised) return;
    if (hold || (joined && nowMs - lastSeenMs < LOSS_TIMEOUT_MS)) return; // the turn is not lost
    promised = generation;
    if (claimant === id) {
      note(`regenerated the turn, generation ${generation}`);
      onTurn({ generation, issuer: id, round: 1 }, nowMs);
    } else if (claimant < id && (passedClaim?.idSource !== claimant || passedClaim.attempt !== attempt)) {
      passedClaim = claim;
      send(claim);
    }
  }

  function claimIfLost(nowMs: number): void {
    if (hold || successor === undefined || nowMs < claimDueMs()) return;
    lastClaimMs = nowMs;
    const generation = Math.max(promised, latest.generation + 1);
    note(`claimed the turn, generation ${generation}`);
    send({ kind: "claim", idSource: id, idDestination: id, generation, attempt: ++attempts });
  }

  /** At first the smallest id alone makes the turn, and only when its claim has found the ring complete. */
  function claimDueMs(): number {
    if (joined) return Math.max(lastSeenMs + LOSS_TIMEOUT_MS, lastClaimMs + CLAIM_INTERVAL_MS);
    return id === smallest ? lastClaimMs + CLAIM_INTERVAL_MS : Number.POSITIVE_INFINITY;
  }

  function onMessage(message: Message, nowMs: number): void {
    if (message.generation < promised)
      return void note(`removed a message of an old turn from ${message.idSource}`);
    if (message.idSource !== id && isBypassed(message.idSource)) {
      return void note(`removed a message whose source, ${message.idSource}, is gone`);
    }
    lastSeenMs = nowMs;
    quiet = false;
    const taken = message.idDestination === id && take(message);
    const seen = taken ? { ...message, acknowledged: true } : message;
    if (message.idSource === id) onReturn(seen);
    else send({ kind: "message", ...seen });
  }

  /** Delivers a message once, however often it comes, and says whether it was delivered. */
  function take({ idSource, session, number, attempt, text }: Message): boolean {
    const last = latestFrom.get(idSource);
    if (last?.session === session && number <= last.number) return true;
    // It may have been delivered to this station's earlier life, which died before it could say so.
    if (attempt > 1 && latest.generation === 0) return false;
    latestFrom.set(idSource, { session, number });
    actions.push({ type: "received", idSource, text });
    return true;
  }

  function onReturn(message: Message): void {
    const own = outstanding?.message;
    if (own?.number !== message.number || message.session !== session) return; // a second copy, already reported
    if (message.acknowledged) report("delivered");
    else report(own.attempt > 1 && members.includes(message.idDestination) ? "unconfirmed" : "undelivered");
  }

  function report(outcome: Outcome): void {
    if (outstanding) actions.push({ type: "reported", line: outstanding.message, outcome });
    outstanding = undefined;
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
    if (outstanding) return repeat(nowMs);
    const line = hold.sent < holdLimit && !stopping ? outbox.shift() : undefined;
    if (line) {
      hold.sent++;
      const { generation } = latest;
      const numbered = { generation, session, number: ++lastNumber, attempt: 0 };
      outstanding = { message: { ...line, ...numbered, idSource: id, acknowledged: false }, sentAtMs: nowMs };
      return transmit(nowMs);
    }
    if (id === 0 && (stopping || idleRounds >= (finishAfterIdle ?? Number.POSITIVE_INFINITY)))
      return finish(nowMs);
    if (quiet && !stopping && nowMs < hold.sinceMs + idleHoldMs) return;
    const round = latest.round + (wraps(successor) ? 1 : 0);
    send({ kind: "turn", idSource: id, idDestination: successor, ...latest, round });
    hold = undefined;
    quiet = true;
    ended = stopping;
  }

  function repeat(nowMs: number): void {
    if (!outstanding || nowMs < outstanding.sentAtMs + RETURN_TIMEOUT_MS) return;
    if (outstanding.message.attempt < MAX_ATTEMPTS) return transmit(nowMs);
    report("unconfirmed");
    useTurn(nowMs);
  }

  function transmit(nowMs: number): void {
    if (!outstanding) return;
    const message = { ...outstanding.message, attempt: outstanding.message.attempt + 1 };
    outstanding = { message, sentAtMs: nowMs };
    lastSeenMs = nowMs;
    quiet = false;
    send({ kind: "message", ...message });
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
    else if (hold && outstanding) transmit(nowMs);
  }

  function handle(event: Event, nowMs: number): Action[] {
    actions = [];
    if (ended) return actions;
    if (event.type === "frame") onFrame(event.meaning, nowMs);
    else if (event.type === "successor") onSuccessor(event.id, nowMs);
    else if (event.type === "stop") {
      stopping = true;
      ended = id !== 0 && !hold;
    } else if (event.type === "joined" && !joined) {
      joined = true;
      lastSeenMs = nowMs;
    }
    if (!ended) {
      useTurn(nowMs);
      claimIfLost(nowMs);
      if (finishSentMs !== undefined && nowMs >= finishSentMs + RETURN_TIMEOUT_MS) finish(nowMs);
    }
    if (ended) {
      if (outstanding) report("unconfirmed");
      for (const line of outbox.splice(0)) actions.push({ type: "reported", line, outcome: "unsent" });
      actions.push({ type: "end" });
    }
    return actions;
  }

  return {
    handle,
    wakeAtMs() {
      if (successor === undefined) return Number.POSITIVE_INFINITY;
      if (finishSentMs !== undefined) return finishSentMs + RETURN_TIMEOUT_MS;
      if (!hold) return claimDueMs();
      return outstanding ? outstanding.sentAtMs + RETURN_TIMEOUT_MS : hold.sinceMs + idleHoldMs;
    },
    get turn() {
      return latest;
    },
    get joined() {
      return joined;
    },
    get hasTurn() {
      return hold !== undefined;
    },
  };
}
