/**
 * What a station knows of turns: which is valid, which messages are of one that is not, and how a lost one is
 * replaced by exactly one station (README §6 and §8).
 */
import { compareTurns, type Meaning, type Message, type Turn } from "./protocol.ts";

/** A claim is repeated after this. */
const CLAIM_INTERVAL_MS = 250;

export type Claim = Meaning & { kind: "claim" };

interface Election {
  /** The latest turn accepted; of generation 0 until then. */
  readonly latest: Turn;
  /** The latest generation that there is, as far as is known here. */
  readonly known: number;
  /** A later generation was heard of. */
  hear(generation: number): void;
  /** Accepts a turn, unless it is a second one. */
  accept(turn: Turn): boolean;
  /** Has the turn of this message been replaced, or been here since it was at the message's source? */
  isLate(message: Message): boolean;
  /** False where an earlier life of this station may have taken what is sent under that turn. */
  wasThere(turn: Turn): boolean;
  /** What becomes of a claim: it is removed, passed on, or it was ours and makes this turn. */
  judge(claim: Claim, turnLives: boolean): "removed" | "passed on" | Turn;
  claim(nowMs: number): Claim;
  /** When to claim, if the turn has not been seen alive since `lostAtMs`, undefined while the ring was never complete. */
  claimDueMs(lostAtMs: number | undefined): number;
}

export function createElection(id: number, members: readonly number[]): Election {
  const smallest = Math.min(...members);
  let latest: Turn = { generation: 0, issuer: 0, round: 0 };
  let known = 0;
  /** The generation of the last claim let by, which is to replace what is older. */
  let promised = 0;
  let passed: Claim | undefined;
  /** Did the promise ever make us remove a claim? Then our own have to say which generation it is that we wait for. */
  let refused = false;
  let attempts = 0;
  let claimedAtMs = Number.NEGATIVE_INFINITY;

  const isReplaced = (generation: number) => generation < promised || generation < known;

  return {
    get latest() {
      return latest;
    },
    get known() {
      return known;
    },
    hear(generation) {
      known = generation;
    },
    accept({ generation, issuer, round }) {
      const turn = { generation, issuer, round };
      if (isReplaced(generation) || compareTurns(turn, latest) <= 0) return false;
      latest = turn;
      known = generation;
      return true;
    },
    isLate(message) {
      if (isReplaced(message.generation)) return true;
      const order = compareTurns(message, latest);
      return order < 0 || (order === 0 && members.indexOf(message.idSource) < members.indexOf(id));
    },
    wasThere: ({ generation, issuer }) =>
      generation === latest.generation ? issuer === latest.issuer : generation === promised,
    judge(claim, turnLives) {
      const { idSource: claimant, generation, attempt } = claim;
      refused ||= generation < promised;
      if (isReplaced(generation) || generation === known || !members.includes(claimant) || turnLives) {
        return "removed";
      }
      promised = generation;
      if (claimant === id) return { generation, issuer: id, round: 1 };
      // The same claim a second time: its claimant cannot be reached, and it would run for ever.
      const runs = passed?.idSource === claimant && passed.attempt === attempt;
      if (claimant > id || runs) return "removed";
      passed = claim;
      return "passed on";
    },
    claim(nowMs) {
      claimedAtMs = nowMs;
      const generation = Math.max(promised, known + 1);
      return { kind: "claim", idSource: id, idDestination: id, generation, attempt: ++attempts };
    },
    claimDueMs(lostAtMs) {
      const nextMs = claimedAtMs + CLAIM_INTERVAL_MS;
      if (lostAtMs !== undefined) return Math.max(lostAtMs, nextMs);
      // At first the smallest id alone makes the turn, when its claim has found the ring complete.
      return id === smallest || refused ? nextMs : Number.POSITIVE_INFINITY;
    },
  };
}
