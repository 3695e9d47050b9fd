/** The other nodes as their master knows them: how far the log of each is, and what it is sent next. */
import type { Log, LogEntry } from "./log.ts";

/** What was sent and not answered is sent again after this. */
const RESEND_MS = 500;
/** So many appends with entries may be on their way to a node. */
const MAX_UNANSWERED = 4;

export type Append<E> = {
  kind: "append";
  prevIndex: number;
  prevTerm: number;
  entries: readonly E[];
  commit: number;
};
/** What the receiver lacks is in no log any more: it must copy the whole. */
export type Copy = { kind: "copy" };

class Follower {
  /** The next entry that it is sent. */
  next: number;
  /** It has all up to this entry on disk, as it said. */
  match = 0;
  /** It was told that all up to this entry is committed. */
  told = 0;
  heardMs: number;
  #sentMs: number;
  #unanswered = 0;

  constructor(next: number, nowMs: number) {
    this.next = next;
    this.heardMs = nowMs;
    this.#sentMs = nowMs;
  }

  /** It lacks the entry before: `match` is where to look. */
  onRefusal(match: number): void {
    this.next = Math.max(this.match + 1, Math.min(this.next - 1, match + 1));
    this.#unanswered = 0;
  }

  /** It has all up to `match`; false where that was known. */
  onAcceptance(match: number): boolean {
    if (match <= this.match) return false;
    this.match = match;
    this.next = Math.max(this.next, match + 1);
    this.#unanswered = this.next > match + 1 ? this.#unanswered - 1 : 0;
    return true;
  }

  get mayBeSentMore(): boolean {
    return this.#unanswered < MAX_UNANSWERED;
  }

  onSent(entries: number, nowMs: number): void {
    if (entries === 0) return;
    this.#sentMs = nowMs;
    this.#unanswered++;
    this.next += entries;
  }

  /** What it has not answered for long begins anew. */
  retryIfOverdue(nowMs: number): void {
    if (this.next === this.match + 1 || nowMs - this.#sentMs <= RESEND_MS || this.match === 0) return;
    this.next = this.match + 1;
    this.#unanswered = 0;
  }
}

export class Followers<E extends LogEntry> {
  readonly #log: Log<E>;
  readonly #send: (to: number, body: Append<E> | Copy) => void;
  readonly #all = new Map<number, Follower>();

  constructor(log: Log<E>, send: (to: number, body: Append<E> | Copy) => void) {
    this.#log = log;
    this.#send = send;
  }

  get(id: number): Follower | undefined {
    return this.#all.get(id);
  }
  clear(): void {
    this.#all.clear();
  }
  /** None has been silent up to now. */
  excuse(nowMs: number): void {
    for (const follower of this.#all.values()) follower.heardMs = nowMs;
  }

  /** To each what it does not know yet: entries, and what is committed. One that is new hears of its master in any case. */
  appendToAll(ids: readonly number[], nowMs: number, isHeartbeat: boolean): void {
    for (const id of ids) {
      let follower = this.#all.get(id);
      const isNew = follower === undefined;
      follower ??= new Follower(this.#log.lastIndex + 1, nowMs);
      this.#all.set(id, follower);
      follower.retryIfOverdue(nowMs);
      this.#appendTo(id, follower, nowMs, isHeartbeat || isNew);
    }
  }

  /** A heartbeat goes even when there is nothing new, and stands behind what the node has. */
  #appendTo(to: number, follower: Follower, nowMs: number, isHeartbeat: boolean): void {
    const log = this.#log;
    if (follower.next <= log.base.index) {
      if (isHeartbeat) this.#send(to, { kind: "copy" });
      return;
    }
    const entries = follower.mayBeSentMore ? log.batch(follower.next) : [];
    const isNews = Math.min(log.commit, follower.match) > follower.told;
    if (entries.length === 0 && !isHeartbeat && !isNews) return;
    const isBehind = entries.length === 0 && follower.match > log.base.index;
    const prevIndex = isBehind ? follower.match : follower.next - 1;
    const prevTerm = log.termAt(prevIndex) ?? 0;
    this.#send(to, { kind: "append", prevIndex, prevTerm, entries, commit: log.commit });
    follower.told = Math.max(follower.told, Math.min(log.commit, prevIndex + entries.length));
    follower.onSent(entries.length, nowMs);
  }
}
