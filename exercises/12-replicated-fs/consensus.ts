/**
 * Who is master, and what is committed: the election and the log of Raft (Ongaro & Ousterhout, 2014; pre-vote and changes
 * of one member at a time from Ongaro's thesis, §9.6 and §4.2). No sockets, no disk, no clock: messages and the time go
 * in, messages come out.
 *
 * Durability is the caller's: what `takeOutput` gives may be sent only when `term`, `votedFor`, `base` and `log` as they
 * were at that moment are on disk (a master's appends may go before); then it calls `saved(lastIndex, lastTerm)`.
 */
import { type Append, type Copy, Followers } from "./followers.ts";
import { type Base, Log, type LogEntry } from "./log.ts";

const HEARTBEAT_MS = 100;
/** A node that has heard no master for so long, to twice as long, stands for election. */
export const ELECTION_MS = 1000;

export type Message<E> = { readonly from: number; readonly term: number } & (
  | { kind: "candidate"; lastIndex: number; lastTerm: number; isTrial: boolean }
  | { kind: "vote"; granted: boolean; isTrial: boolean }
  | Append<E>
  /** `match`: up to here the logs agree; when refused, up to where they may. */
  | { kind: "acknowledge"; accepted: boolean; match: number }
  | Copy
);
export type Outgoing<E> = { to: number; message: Message<E> };

export interface Durable<E> {
  term: number;
  votedFor: number;
  base: Base;
  log: readonly E[];
}

export class Consensus<E extends LogEntry> extends Log<E> implements Durable<E> {
  readonly id: number;
  term: number;
  /** 0 is nobody. */
  votedFor: number;
  role: "replica" | "candidate" | "master" = "replica";
  /** The master as far as is known; 0 is none. */
  master = 0;
  readonly followers = new Followers<E>(this, (to, body) => this.#send(to, body));
  readonly #random: () => number;
  readonly #electionAfterMs: number;
  readonly #votes = new Set<number>();
  #isTrial = false;
  #electionMs = 0;
  #heardMasterMs = Number.NEGATIVE_INFINITY;
  #heartbeatMs = 0;
  #nowMs: number;
  #tickedMs: number;
  /** Up to here the log is the master's. */
  #agreed = 0;
  #output: Outgoing<E>[] = [];

  constructor(
    id: number,
    durable: Durable<E>,
    nowMs: number,
    random: () => number,
    electionAfterMs = ELECTION_MS,
  ) {
    super(durable.base, durable.log);
    this.id = id;
    this.term = durable.term;
    this.votedFor = durable.votedFor;
    this.#random = random;
    this.#electionAfterMs = electionAfterMs;
    this.#nowMs = nowMs;
    this.#tickedMs = nowMs;
    this.#restartElection(nowMs);
    if (this.members.every((member) => member === id)) this.#electionMs = nowMs; // alone: there is nobody to wait for
  }

  get majority(): number {
    return Math.floor(this.members.length / 2) + 1;
  }

  /** Messages to be sent, once the state is saved. */
  takeOutput(): Outgoing<E>[] {
    if (this.role === "master") this.followers.appendToAll(this.#others(), this.#nowMs, false);
    return this.#output.splice(0);
  }

  /** Time has passed. */
  tick(nowMs: number): void {
    const stoodStillMs = nowMs - this.#tickedMs;
    this.#nowMs = nowMs;
    this.#tickedMs = nowMs;
    // It was this node that stood still: what the others said meanwhile is not read yet. After long they have another master.
    if (stoodStillMs > this.#electionAfterMs / 2 && stoodStillMs < this.#silenceMs)
      this.followers.excuse(nowMs);
    if (this.role === "master") {
      const heard = this.members.filter((id) => id === this.id || this.#hears(id));
      const isRemoved = !this.members.includes(this.id) && this.mayChangeMembers;
      if (heard.length < this.majority || isRemoved) return this.#stepDown(this.term, nowMs, 0);
      if (nowMs >= this.#heartbeatMs) this.#beat(nowMs);
      return;
    }
    if (nowMs >= this.#electionMs && this.members.includes(this.id)) this.#campaign(nowMs, true);
  }

  /** A master's new entry, made for its term; its index, or undefined where this is not the master. */
  propose(make: (term: number) => E, nowMs: number): number | undefined {
    if (this.role !== "master") return undefined;
    this.append(make(this.term));
    this.#nowMs = nowMs;
    return this.lastIndex;
  }

  /** One change of members at a time, and none before an entry of this term is committed (thesis, §4.1 and its erratum). */
  get mayChangeMembers(): boolean {
    const last = this.log.findLastIndex((entry) => entry.members !== undefined);
    const isSettled = last < 0 || this.base.index + last + 1 <= this.commit;
    return this.role === "master" && isSettled && this.termAt(this.commit) === this.term;
  }

  /** The log is on disk up to this entry, of this term: it may have been replaced since. */
  saved(index: number, term: number): void {
    if (this.termAt(index) === term) this.savedIndex = Math.max(this.savedIndex, index);
    if (this.role === "master") this.#advance();
  }

  /** Up to here no node that answers its master needs the log any more. */
  get spare(): number {
    const others = this.role === "master" ? this.#others().filter((id) => this.#hears(id)) : [];
    return Math.min(this.commit, ...others.map((id) => this.followers.get(id)?.match ?? 0));
  }

  /** How many other nodes are known to have this entry on disk. */
  holders(index: number): number {
    return this.#others().filter((id) => (this.followers.get(id)?.match ?? 0) >= index).length;
  }

  /** The whole was copied from the master, as of `base`. */
  install(base: Base): void {
    if (base.index <= this.commit) return;
    this.startFrom(base, Math.max(this.commit, this.#agreed));
    if (this.master > 0) this.#send(this.master, { kind: "acknowledge", accepted: true, match: base.index });
  }

  receive(message: Message<E>, nowMs: number): void {
    this.#nowMs = nowMs;
    if (message.kind === "candidate") return this.#onCandidate(message, nowMs);
    // A vote on trial names a term that nobody has begun.
    const isTrial = message.kind === "vote" && message.isTrial && message.granted;
    if (message.term > this.term && !isTrial)
      this.#stepDown(message.term, nowMs, message.kind === "append" ? message.from : 0);
    switch (message.kind) {
      case "vote":
        return this.#onVote(message, nowMs);
      case "append":
      case "copy":
        return this.#onMaster(message, nowMs);
      case "acknowledge":
        return this.#onAcknowledge(message, nowMs);
    }
  }

  #onCandidate(message: Extract<Message<E>, { kind: "candidate" }>, nowMs: number): void {
    const { from, isTrial, lastTerm, lastIndex } = message;
    const hasMaster = this.role === "master" || nowMs - this.#heardMasterMs < this.#electionAfterMs;
    // Who hears a master lets nobody disturb it; a candidate that is behind in terms only learns of the newer one.
    if (message.term > this.term && hasMaster) return;
    if (message.term > this.term && !isTrial) this.#stepDown(message.term, nowMs, 0);
    const isUpToDate =
      lastTerm > this.lastTerm || (lastTerm === this.lastTerm && lastIndex >= this.lastIndex);
    const isFree = isTrial
      ? message.term > this.term
      : message.term === this.term && (this.votedFor === 0 || this.votedFor === from);
    const granted = isUpToDate && isFree;
    if (granted && !isTrial) {
      this.votedFor = from;
      this.#restartElection(nowMs);
    }
    const term = granted ? message.term : this.term;
    this.#output.push({ to: from, message: { kind: "vote", from: this.id, term, granted, isTrial } });
  }

  #onVote(message: Extract<Message<E>, { kind: "vote" }>, nowMs: number): void {
    const term = this.#isTrial ? this.term + 1 : this.term;
    if (this.role !== "candidate" || !message.granted) return;
    if (message.isTrial !== this.#isTrial || message.term !== term) return;
    this.#votes.add(message.from);
    this.#count(nowMs);
  }

  #onMaster(message: Extract<Message<E>, { kind: "append" | "copy" }>, nowMs: number): void {
    const { from, term } = message;
    if (term < this.term) return this.#send(from, { kind: "acknowledge", accepted: false, match: 0 });
    if (this.role === "master") throw new Error(`two masters in term ${term}: ${from} and ${this.id}`);
    this.role = "replica";
    this.master = from;
    this.#heardMasterMs = nowMs;
    this.#restartElection(nowMs);
    if (message.kind === "copy")
      return this.#send(from, { kind: "acknowledge", accepted: true, match: this.commit }); // it may take long
    const skipped = Math.max(0, this.base.index - message.prevIndex); // those are committed here
    const prevIndex = message.prevIndex + skipped;
    const entries = message.entries.slice(skipped);
    if (skipped === 0 && this.termAt(prevIndex) !== message.prevTerm) {
      const match = Math.min(prevIndex - 1, this.lastIndex);
      return this.#send(from, { kind: "acknowledge", accepted: false, match });
    }
    if (skipped <= message.entries.length) this.take(prevIndex, entries);
    const match = Math.max(this.base.index, message.prevIndex + message.entries.length);
    this.#agreed = Math.max(this.#agreed, match);
    this.commit = Math.max(this.commit, Math.min(message.commit, match));
    this.#send(from, { kind: "acknowledge", accepted: true, match });
  }

  #onAcknowledge(message: Extract<Message<E>, { kind: "acknowledge" }>, nowMs: number): void {
    const follower = this.followers.get(message.from);
    if (this.role !== "master" || message.term !== this.term || follower === undefined) return;
    follower.heardMs = nowMs;
    if (!message.accepted) follower.onRefusal(message.match);
    else if (follower.onAcceptance(message.match)) this.#advance();
  }

  /** An entry of this term that a majority has on disk is committed, and with it all before it (Raft, §5.4.2). */
  #advance(): void {
    const matches = this.members.map((id) =>
      id === this.id ? this.savedIndex : (this.followers.get(id)?.match ?? 0),
    );
    const held = matches.toSorted((a, b) => b - a)[this.majority - 1] ?? 0;
    if (held > this.commit && this.termAt(held) === this.term) this.commit = held;
  }

  #campaign(nowMs: number, isTrial: boolean): void {
    this.#agreed = 0;
    this.role = "candidate";
    this.master = 0;
    this.#isTrial = isTrial;
    this.#votes.clear();
    this.#votes.add(this.id);
    this.#restartElection(nowMs);
    if (!isTrial) {
      this.term++;
      this.votedFor = this.id;
    }
    const term = isTrial ? this.term + 1 : this.term;
    const { id: from, lastIndex, lastTerm } = this;
    for (const to of this.#others())
      this.#output.push({ to, message: { kind: "candidate", from, term, lastIndex, lastTerm, isTrial } });
    this.#count(nowMs);
  }

  #count(nowMs: number): void {
    if (this.members.filter((id) => this.#votes.has(id)).length < this.majority) return;
    if (this.#isTrial) return this.#campaign(nowMs, false);
    this.role = "master";
    this.master = this.id;
    this.followers.clear();
    this.#beat(nowMs);
  }

  #stepDown(term: number, nowMs: number, master: number): void {
    if (term > this.term) this.votedFor = 0;
    this.term = term;
    this.role = "replica";
    this.master = master;
    this.#agreed = 0;
    this.followers.clear();
    this.#restartElection(nowMs);
  }

  #restartElection(nowMs: number): void {
    this.#electionMs = nowMs + this.#electionAfterMs * (1 + this.#random());
  }

  /** Of one that is new nothing can have been heard. */
  #hears(id: number): boolean {
    return this.#nowMs - (this.followers.get(id)?.heardMs ?? this.#nowMs) < this.#silenceMs;
  }

  /** A node that says nothing for so long is taken for dead. */
  get #silenceMs(): number {
    return 2 * this.#electionAfterMs;
  }

  #others(): number[] {
    return this.members.filter((id) => id !== this.id);
  }

  #beat(nowMs: number): void {
    this.#heartbeatMs = nowMs + HEARTBEAT_MS;
    this.followers.appendToAll(this.#others(), nowMs, true);
  }

  #send(to: number, body: { kind: string } & Record<string, unknown>): void {
    this.#output.push({ to, message: { ...body, from: this.id, term: this.term } as unknown as Message<E> });
  }
}
