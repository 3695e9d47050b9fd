/**
 * Who is there, and what they have: a pure state machine. Announcements, answers and the time go in, what is to be done
 * comes out. It trusts that who calls it has checked the signatures.
 */
import { explain } from "../../shared/errors.ts";
import { type OwnIndex, RemoteIndex, type Update } from "./document-index.ts";
import { printable } from "./safe-path.ts";

/** Between a node's announcements; six ports on two networks then cost 0.9 kB/s. */
const ANNOUNCE_MS = 2500;
/** A node that nobody has heard for so long is asked to announce itself, at each tick, */
const SOLICIT_MS = 3000;
const SOLICIT_AGAIN_MS = 250;
/** and is gone when nobody has heard it for so long. */
export const LOST_MS = 4500;
/** Between announcements of changes. */
const CHANGE_MS = 200;
/** A clock that leaps so far stood still, and with it this node: the others did not fall silent, */
const ASLEEP_MS = 1500;
/** but have so long to answer. */
const WAKE_MS = 2500;
const MAX_BACKOFF_MS = 2000;
export const MAX_NODES = 256;
const MAX_ADDRESSES = 4;
/** Nodes that have left are remembered, as an announcement may be slower than the farewell. */
const MAX_GONE = 1000;

/** An announcement whose signature is right. */
export interface News {
  id: string;
  name: string;
  leaves: boolean;
  wantsReply: boolean;
  sequence: bigint;
  port: number;
  version: number;
  digest: Buffer;
}

export interface Place {
  address: string;
  port: number;
}

export type Action =
  /** Without `to` to everybody; `reply`: whoever gets it shall announce itself at once. */
  | { do: "announce"; reply: boolean; to?: Place }
  | { do: "fetch"; id: string; at: Place; since: number }
  | { do: "note"; line: string };

interface Member {
  readonly id: string;
  name: string;
  readonly port: number;
  /** Where it was heard; the one that worked last comes first. */
  addresses: string[];
  sequence: bigint;
  /** As announced. */
  version: number;
  digest: Buffer;
  heardMs: number;
  solicitedMs: number;
  /** What it is known to have; undefined until it has answered for the first time. */
  index: RemoteIndex | undefined;
  isFetching: boolean;
  failures: number;
  retryMs: number;
  /** What it told last cannot be right: no more increments upon it. */
  wantsWhole: boolean;
}

export class Membership {
  readonly #id: string;
  readonly #own: OwnIndex;
  readonly #members = new Map<string, Member>();
  readonly #gone = new Set<string>();
  readonly #noted = new Set<string>();
  #announcedMs = Number.NEGATIVE_INFINITY;
  #announcedVersion = 0;
  #tickedMs: number | undefined;

  constructor(id: string, own: OwnIndex) {
    this.#id = id;
    this.#own = own;
  }

  /** Those that have answered: a datagram alone makes no member. */
  get members(): Member[] {
    return [...this.#members.values()].filter(({ index }) => index !== undefined);
  }

  /** Whether everything that was announced is known. */
  get isComplete(): boolean {
    return [...this.#members.values()].every(isCurrent);
  }

  /** The first announcement, also to a network that has come: everybody answers with one. */
  start(nowMs: number): Action[] {
    return [this.#announce(nowMs, true)];
  }

  heard(news: News, address: string, nowMs: number): Action[] {
    if (news.id === this.#id || this.#gone.has(news.id)) return [];
    const member = this.#members.get(news.id);
    if (news.leaves) return member === undefined ? [] : this.#left(member, news);
    if (member === undefined) return this.#met(news, address, nowMs);
    if (news.sequence < member.sequence) return this.#late(member);
    const isNew = news.sequence > member.sequence;
    member.addresses = addressesWith(member, address, isNew);
    if (!isNew) return []; // it came on two networks
    const { name, sequence, version, digest } = news;
    Object.assign(member, { name, sequence, version, digest, heardMs: nowMs });
    const reply: Action[] = news.wantsReply ? [this.#announceTo(member)] : [];
    return [...reply, ...this.#look(member, nowMs)];
  }

  #met(news: News, address: string, nowMs: number): Action[] {
    if (!this.#hasRoom()) return this.#once("full", `more than ${MAX_NODES} nodes: no more`);
    const { id, name, port, sequence, version, digest } = news;
    const member: Member = {
      ...{ id, name, port, sequence, version, digest },
      ...{ addresses: [address], heardMs: nowMs, solicitedMs: nowMs, index: undefined },
      ...{ isFetching: false, failures: 0, retryMs: nowMs, wantsWhole: false },
    };
    this.#members.set(id, member);
    return [this.#announceTo(member), ...this.#look(member, nowMs)];
  }

  /** Anybody can make up identities: one that has not answered makes room, the oldest first. */
  #hasRoom(): boolean {
    if (this.#members.size < MAX_NODES) return true;
    const candidate = [...this.#members.values()].find(({ index }) => index === undefined);
    return candidate !== undefined && this.#members.delete(candidate.id);
  }

  #left(member: Member, { sequence }: News): Action[] {
    if (sequence <= member.sequence) return this.#late(member);
    this.#gone.add(member.id);
    if (this.#gone.size > MAX_GONE) this.#gone.delete(this.#gone.values().next().value ?? "");
    return this.#remove(member, "left");
  }

  #late(member: Member): Action[] {
    return this.#once(
      `late ${member.id}`,
      `${labelOf(member)}: an announcement that came late, or was replayed, does not count`,
    );
  }

  #remove(member: Member, how: string): Action[] {
    this.#members.delete(member.id);
    return member.index === undefined ? [] : [note(`- ${labelOf(member)} ${how}`)];
  }

  /** Asks for what the member has and is not known yet. */
  #look(member: Member, nowMs: number): Action[] {
    if (member.isFetching || nowMs < member.retryMs || isCurrent(member)) return [];
    member.isFetching = true;
    const address = member.addresses[0] ?? "";
    const since = member.wantsWhole ? 0 : (member.index?.version ?? 0);
    return [{ do: "fetch", id: member.id, at: { address, port: member.port }, since }];
  }

  /** What the member itself has said, just now. */
  fetched(id: string, { address }: Place, update: Update, nowMs: number): Action[] {
    const member = this.#members.get(id);
    if (member === undefined) return [];
    const isNew = member.index === undefined;
    const index = member.index ?? new RemoteIndex();
    try {
      index.apply(update);
    } catch (error) {
      const wasWhole = update.whole;
      member.wantsWhole = true;
      return [
        ...(wasWhole ? this.#once(`lie ${id}`, `${labelOf(member)}: refused: ${explain(error)}`) : []),
        ...this.#failed(member, address, nowMs, wasWhole ? LOST_MS : 0),
      ];
    }
    const before = member.addresses.filter((other) => other !== address);
    const { version, digest } = update.version >= member.version ? update : member;
    Object.assign(member, { index, version, digest, addresses: [address, ...before] });
    Object.assign(member, { heardMs: nowMs, isFetching: false, failures: 0, wantsWhole: false });
    const arrival = isNew
      ? [note(`+ ${labelOf(member)} at ${address}:${member.port}, documents: ${index.size}`)]
      : [];
    return [...this.#clearPlace(member, address), ...arrival, ...this.#look(member, nowMs)];
  }

  /** A port of an address has one node: where a new one has answered, the old one is gone. */
  #clearPlace({ id, port }: Member, address: string): Action[] {
    const former = [...this.#members.values()].filter(
      (other) => other.id !== id && other.port === port && other.addresses[0] === address,
    );
    return former.flatMap((other) => this.#remove(other, "is gone, and another one has its place"));
  }

  fetchFailed(id: string, { address }: Place, why: string, isLie: boolean, nowMs: number): Action[] {
    const member = this.#members.get(id);
    if (member === undefined) return [];
    const complaint = isLie ? this.#once(`lie ${id}`, `${labelOf(member)}: refused: ${why}`) : [];
    return [...complaint, ...this.#failed(member, address, nowMs, isLie ? LOST_MS : 0)];
  }

  /** Another of its addresses is tried next time. */
  #failed(member: Member, address: string, nowMs: number, atLeastMs: number): Action[] {
    const others = member.addresses.filter((other) => other !== address);
    const backoffMs = Math.max(atLeastMs, Math.min(MAX_BACKOFF_MS, 100 * 2 ** member.failures));
    const failures = member.failures + 1;
    Object.assign(member, { isFetching: false, addresses: [...others, address], failures });
    member.retryMs = nowMs + backoffMs;
    return this.#look(member, nowMs);
  }

  /** To be called several times a second. */
  tick(nowMs: number): Action[] {
    const sleptMs = nowMs - (this.#tickedMs ?? nowMs);
    this.#tickedMs = nowMs;
    const woke = sleptMs > ASLEEP_MS;
    if (woke) for (const member of this.#members.values()) member.heardMs = nowMs - LOST_MS + WAKE_MS;
    const isDue = nowMs - this.#announcedMs >= ANNOUNCE_MS;
    const announced = woke || isDue ? [this.#announce(nowMs, woke)] : this.changed(nowMs);
    return [...announced, ...[...this.#members.values()].flatMap((member) => this.#watch(member, nowMs))];
  }

  #watch(member: Member, nowMs: number): Action[] {
    const silentMs = nowMs - member.heardMs;
    if (silentMs >= LOST_MS) return this.#remove(member, "fell silent");
    const isAsked = nowMs - member.solicitedMs < SOLICIT_AGAIN_MS;
    if (silentMs < SOLICIT_MS || isAsked) return this.#look(member, nowMs);
    member.solicitedMs = nowMs;
    return [this.#announceTo(member, true), ...this.#look(member, nowMs)];
  }

  /** Its own index may have changed: says so, but not too often. */
  changed(nowMs: number): Action[] {
    const isNews = this.#own.version !== this.#announcedVersion;
    return isNews && nowMs - this.#announcedMs >= CHANGE_MS ? [this.#announce(nowMs, false)] : [];
  }

  #announce(nowMs: number, reply: boolean): Action {
    this.#announcedMs = nowMs;
    this.#announcedVersion = this.#own.version;
    return { do: "announce", reply };
  }

  #announceTo({ addresses, port }: Member, reply = false): Action {
    return { do: "announce", reply, to: { address: addresses[0] ?? "", port } };
  }

  #once(what: string, line: string): Action[] {
    if (this.#noted.has(what) || this.#noted.size > MAX_GONE) return [];
    this.#noted.add(what);
    return [note(line)];
  }
}

/**
 * Who replays an announcement forges its address. So the one that brought the newest is tried before the others, but for
 * one that has answered; another that brings the same comes last, if there is room.
 */
function addressesWith({ addresses, index }: Member, address: string, isNewest: boolean): string[] {
  if (!isNewest)
    return addresses.includes(address) ? addresses : [...addresses, address].slice(0, MAX_ADDRESSES);
  const proven = index === undefined ? [] : addresses.slice(0, 1);
  return [...new Set([...proven, address, ...addresses])].slice(0, MAX_ADDRESSES);
}

const note = (line: string): Action => ({ do: "note", line });
const isCurrent = ({ index, version, digest }: Member) =>
  index !== undefined &&
  (index.version > version || (index.version === version && index.digest.equals(digest)));
/** `ana (3f5c01aa)`: names need not be unique, ids are. */
const labelOf = ({ name, id }: { name: string; id: string }) => `${printable(name)} (${id.slice(0, 8)})`;
