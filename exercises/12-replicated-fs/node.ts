/** A node: the rules of `consensus.ts` with a disk, a clock and a network. Whether it is master, they decide. */
import { randomBytes } from "node:crypto";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { formatAddress } from "../../shared/connection.ts";
import { Failure, isFailure } from "../../shared/errors.ts";
import { Applier, hexOf, stagedAs } from "./apply.ts";
import { Consensus, type Message, type Outgoing } from "./consensus.ts";
import { Contents } from "./contents.ts";
import { Disk } from "./disk.ts";
import type { Base } from "./log.ts";
import { type Address, encodeMessage } from "./messages.ts";
import { Peers } from "./peers.ts";
import {
  type Change,
  type Entry,
  encodeMembers,
  entryOf,
  isPut,
  type Member,
  NO_REQUEST,
  NOTHING,
  putOf,
} from "./protocol.ts";
import type { Store } from "./store.ts";
import type { Tree } from "./tree.ts";

const TICK_MS = 25;
/** The log is shortened when it is longer than this. */
const MAX_LOG_ENTRIES = 2000;
const MAX_LOG_BYTES = 32 * 1024 * 1024;
const WRITE_LIMIT_MS = 8000;

export interface NodeOptions {
  dir: string;
  state: string;
  secret: Buffer;
  /** Other nodes, beside the master, that must have a write on disk before it is acknowledged. */
  minReplicas: number;
  isSynchronous: boolean;
  /** Silence of the master after which another is elected, in milliseconds. */
  electionMs: number;
  /** Where the others reach this node. */
  own: () => Address;
  signal: AbortSignal;
  log: (line: string) => void;
  debug: (line: string) => void;
}

/** Not now: this node is not the master, or has no majority. The client asks again, elsewhere. */
export class Unavailable extends Failure {
  override name = "Unavailable";
}

interface Waiter {
  entry: Entry;
  index: number;
  resolve: () => void;
  reject: (error: unknown) => void;
}

export class ReplicaNode {
  readonly options: NodeOptions;
  readonly store: Store;
  readonly disk: Disk;
  readonly applier: Applier;
  readonly core: Consensus<Entry>;
  readonly contents: Contents;
  /** The tree with all that is in the log, committed or not: what a new change is checked against. Of a master only. */
  tip: Tree | undefined;
  appliedIndex: number;
  /** Ends the program: the disk does not do what it must. */
  readonly failed: Promise<never>;
  /** Called in the disk's queue when this node has become master and has applied all before its term. */
  onMaster: () => Promise<void> = async () => {};
  onReplica: () => void = () => {};
  readonly #peers: Peers;
  /** Changes that were seen in this very directory, since this node has been master. */
  #ours = new WeakSet<Entry>();
  #fail: (error: unknown) => void = () => {};
  #waiters: Waiter[] = [];
  #queue: Promise<unknown> = Promise.resolve();
  #isFlushing = false;
  #isApplying = false;
  #isMending = false;
  /** Where masters and candidates said that they are. */
  readonly #told = new Map<number, Address>();
  #newBase: { base: Base; tree: Tree } | undefined;
  #role: Consensus<Entry>["role"] = "replica";
  #knownMaster = 0;
  /** The directory may hold what is not the file system's: it is looked through when there is a master. */
  #isStray = true;

  constructor(options: NodeOptions, store: Store) {
    const { identity } = store;
    if (identity === undefined) throw new Error("the node has no identity");
    this.options = options;
    this.store = store;
    this.failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.disk = new Disk(options.dir, store.stage);
    this.core = new Consensus(identity.id, store, performance.now(), Math.random, options.electionMs);
    this.core.commit = Math.min(Math.max(store.progress.commit, store.base.index), this.core.lastIndex);
    this.applier = new Applier(this.disk, store.tree.copy(), store, options.log);
    this.appliedIndex = Math.min(Math.max(store.progress.applied, store.base.index), this.core.commit);
    for (let index = store.base.index + 1; index <= this.appliedIndex; index++)
      this.applier.tree.apply(this.#entry(index));
    this.contents = new Contents(this);
    const cluster = Buffer.from(identity.cluster, "hex");
    this.#peers = new Peers({ ...options, id: identity.id, cluster });
  }

  get id(): number {
    return this.core.id;
  }
  get tree(): Tree {
    return this.applier.tree;
  }
  /** The nodes as of the latest entry that names them. */
  get members(): readonly Member[] {
    return this.core.log.findLast((entry) => entry.nodes !== undefined)?.nodes ?? this.store.tree.members;
  }
  /** Where a node is: as the log says, or, before it does, as it said itself, or where this one was registered. */
  addressOf(id: number): Omit<Member, "uid"> | undefined {
    const member = this.members.find((one) => one.id === id);
    if (member !== undefined) return member;
    const told = this.#told.get(id);
    const { contact } = this.store.identity ?? {};
    return told !== undefined ? { id, ...told } : contact?.id === id ? contact : undefined;
  }
  get isMaster(): boolean {
    return this.core.role === "master";
  }
  /** Where the master is, as far as this node knows. */
  get master(): Omit<Member, "uid"> | undefined {
    return this.addressOf(this.core.master);
  }

  /** Repairs what a crash left half done, and begins to take part. */
  async start(): Promise<void> {
    const { progress, base, isAfterReboot } = this.store;
    if (progress.applied < base.index || isAfterReboot) {
      const touched = new Set(this.core.log.map(({ path }) => path));
      const isSuspect = (path: string) => isAfterReboot && touched.has(path);
      await this.applier.mend(this.tree, (path, item) => this.contents.here(path, item), isSuspect);
    }
    this.store.noteProgress(this.appliedIndex, this.core.commit);
    this.#sweepStage();
    const timer = setInterval(() => this.#step(() => this.core.tick(performance.now())), TICK_MS);
    this.options.signal.addEventListener("abort", () => clearInterval(timer));
    this.kick();
  }

  /** One after the other: whatever touches the directory. What is thrown there ends the node. */
  inQueue<T>(work: () => Promise<T> | T): Promise<T> {
    const done = this.#queue.then(work);
    this.#queue = done.catch((error) => this.#fail(error));
    return done;
  }

  receive(message: Message<Entry>, address?: Address): void {
    if (address !== undefined && message.term >= this.core.term) this.#told.set(message.from, address);
    if (message.kind === "append" && message.term >= this.core.term) message = this.#withContents(message);
    this.#step(() => this.core.receive(message, performance.now()));
    if (message.kind === "copy" && message.from === this.core.master) void this.#copyAll();
  }

  /** Entries from the first on whose content is not here are taken later, when it has been fetched. */
  #withContents(message: Extract<Message<Entry>, { kind: "append" }>): Message<Entry> {
    const { entries, prevIndex } = message;
    const lacking = entries.findIndex(
      (entry, i) =>
        prevIndex + 1 + i > this.core.commit &&
        this.core.termAt(prevIndex + 1 + i) !== entry.term &&
        !this.contents.has(entry),
    );
    if (lacking < 0) return message;
    const entry = entries[lacking] as Entry;
    void this.contents.fetchFor(entry, message.from).then((outcome) => {
      if (outcome === "here") this.receive(message);
      // The master has since applied what replaced it: its whole tree is newer than the entry.
      if (outcome === "gone") void this.#copyAll();
    }, this.#fail);
    return { ...message, entries: entries.slice(0, lacking) };
  }

  #step(what: () => void): void {
    what();
    this.kick();
  }

  /** Brings disk, network and directory up to the core's state. */
  kick(): void {
    const cut = this.core.takeCut();
    if (cut.length > 0) this.#reportCut(cut);
    if (this.core.role !== this.#role || this.core.master !== this.#knownMaster) this.#onRole();
    void this.#flush().catch(this.#fail);
    void this.#apply().catch(this.#fail);
  }

  async #flush(): Promise<void> {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    try {
      while (true) {
        const output = this.core.takeOutput();
        const { term, votedFor, base, log, lastIndex, lastTerm } = this.core;
        const isSaved =
          term === this.store.term &&
          votedFor === this.store.votedFor &&
          base === this.store.base &&
          log.length === this.store.log.length &&
          log.at(-1) === this.store.log.at(-1);
        if (output.length === 0 && isSaved) return;
        for (const out of output.filter(isEarly)) this.#send(out);
        if (!isSaved) await this.#save();
        for (const out of output) if (!isEarly(out)) this.#send(out);
        this.core.saved(lastIndex, lastTerm);
        this.kick();
      }
    } finally {
      this.#isFlushing = false;
    }
  }

  async #save(): Promise<void> {
    const saved = { ...pick(this.core), log: [...this.core.log] };
    const base = this.#newBase;
    this.#newBase = undefined;
    if (base !== undefined) await this.store.saveBase(base.base, base.tree);
    await this.store.save(saved);
  }

  #send({ to, message }: Outgoing<Entry>): void {
    const member = this.addressOf(to);
    if (member !== undefined && !this.options.signal.aborted)
      this.#peers.send(member, encodeMessage(message, this.options.own()));
  }

  #onRole(): void {
    const { role, master, term } = this.core;
    const was = this.#role;
    [this.#role, this.#knownMaster] = [role, master];
    if (was === "master" && role !== "master") {
      this.options.log(`not master any more (term ${term})`);
      this.tip = undefined;
      this.#ours = new WeakSet(); // the directory is about to be mended: what they say must be carried out in it
      this.#isStray = true;
      this.onReplica();
      for (const { reject } of this.#waiters.splice(0))
        reject(new Unavailable("the master has changed; whether the write survives is not known"));
    }
    if (role === "master" && was !== "master") void this.#begin().catch(this.#fail);
    if (role === "replica" && master !== 0) {
      this.options.log(`node ${master} is master (term ${term})`);
      if (this.#isStray) void this.#mendStray().catch(this.#fail);
    }
  }

  async #begin(): Promise<void> {
    const { term } = this.core;
    // Written here while another was master, it is set aside; while nobody else was, it is the file system's.
    const isHeir = this.members.length === 1 || this.core.lastTerm === this.store.progress.mastered;
    this.options.log(`master (term ${term})`);
    const index = this.core.propose(
      (term) => entryOf(term, { action: "begin", path: "", timeUs: nowUs(), body: NOTHING }),
      performance.now(),
    );
    this.kick();
    await this.#until(() => this.appliedIndex >= (index ?? 0) || !this.isMaster || this.core.term !== term);
    if (!this.isMaster || this.core.term !== term) return;
    await this.inQueue(async () => {
      if (!this.isMaster || this.core.term !== term) return;
      if (!isHeir) await this.#mendTree();
      if (!this.isMaster || this.core.term !== term) return;
      this.store.noteMastered(term);
      this.tip = this.tree.copy();
      for (let index = this.appliedIndex + 1; index <= this.core.lastIndex; index++)
        this.tip.apply(this.#entry(index));
      this.#isStray = false;
      await this.onMaster();
    });
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition() && !this.options.signal.aborted)
      await new Promise((resolve) => setTimeout(resolve, 10));
  }

  async #apply(): Promise<void> {
    if (this.#isApplying || this.appliedIndex >= this.core.commit) return;
    this.#isApplying = true;
    await this.inQueue(() => {
      this.#isApplying = false;
      this.store.noteProgress(this.appliedIndex, this.core.commit);
      while (this.appliedIndex < this.core.commit) {
        const entry = this.core.entry(this.appliedIndex + 1);
        if (entry === undefined) return; // copied as a whole meanwhile
        this.applier.apply(entry, this.#ours.has(entry));
        this.appliedIndex++;
        this.store.noteProgress(this.appliedIndex, this.core.commit);
      }
      this.#settle();
      if (this.applier.isDamaged && !this.isMaster) void this.#mendStray().catch(this.#fail);
      const size = this.core.log.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      if (this.core.log.length > MAX_LOG_ENTRIES || size > MAX_LOG_BYTES) this.#compact();
    });
    this.kick();
  }

  /** The directory, as far as the log has it, goes to disk; then the log may forget it. */
  #compact(): void {
    const touched = this.core.log.slice(0, this.appliedIndex - this.core.base.index).map(({ path }) => path);
    if (this.options.isSynchronous) for (const path of new Set(touched)) this.disk.sync(path);
    this.core.compact(this.appliedIndex);
    this.#newBase = { base: this.core.base, tree: this.tree.copy() };
  }

  #entry(index: number): Entry {
    const entry = this.core.entry(index);
    if (entry === undefined) throw new Error(`entry ${index} is not in the log`);
    return entry;
  }

  /**
   * A master's write: resolves when it is applied here and enough others have it on disk. Throws `Unavailable` where
   * the outcome is not known, or nothing was done.
   */
  async write(change: Change, isOurs = false): Promise<void> {
    const { request = NO_REQUEST } = change;
    if (!request.equals(NO_REQUEST)) {
      const known = hexOf(request);
      if (this.tree.requests.has(known)) return;
      const same = this.#waiters.find(({ entry }) => entry.request.equals(request));
      if (same !== undefined) return this.#wait(same.entry, same.index);
    }
    this.refuseUnlessWritable();
    let entry: Entry | undefined;
    const index = this.core.propose((term) => {
      entry = entryOf(term, change);
      return entry;
    }, performance.now());
    if (index === undefined || entry === undefined) throw new Unavailable("this node is not the master");
    if (isOurs) this.#ours.add(entry);
    this.tip?.apply(entry);
    const done = this.#wait(entry, index);
    this.kick();
    return done;
  }

  refuseUnlessWritable(): void {
    const { core } = this;
    if (core.role !== "master" || this.tip === undefined) {
      const others = core.members.length;
      throw new Unavailable(
        others === 0
          ? "this node has nothing from a master yet"
          : core.master === 0
            ? `no master: ${core.majority} of the ${others} nodes must be up and reach one another; reading goes on`
            : "this node is not the master",
      );
    }
  }

  #wait(entry: Entry, index: number): Promise<void> {
    return new Promise((resolve, reject) => {
      // Until it is committed a master waits: it has a majority, which may need time for a large file.
      const timer = setInterval(() => {
        if (index > this.core.commit) return;
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        waiter.reject(
          new Unavailable(`it is not on ${this.options.minReplicas} replicas, but on a majority`),
        );
      }, WRITE_LIMIT_MS);
      const waiter: Waiter = {
        entry,
        index,
        resolve: () => {
          clearInterval(timer);
          resolve();
        },
        reject: (error) => {
          clearInterval(timer);
          reject(error);
        },
      };
      this.#waiters.push(waiter);
    });
  }

  /** Tells those whose write is where it must be. Called when something was applied, or a node has told what it has. */
  #settle(): void {
    const isDone = ({ index }: Waiter) =>
      index <= this.appliedIndex &&
      this.core.holders(index) >= Math.min(this.options.minReplicas, this.members.length - 1);
    const done = this.#waiters.filter(isDone);
    if (done.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => !done.includes(waiter));
    for (const { resolve } of done) resolve();
  }
  settle(): void {
    if (this.isMaster) this.#settle();
  }

  /** Resolves when all that this master has in its log is committed. */
  confirm(): Promise<void> {
    return this.write({ action: "begin", path: "", timeUs: nowUs(), body: NOTHING });
  }

  /** Of a master: the id of the node with this state, which becomes a member, or gets this address. Does not wait for it. */
  register(uid: Buffer, host: string, port: number, wantedId: number): number {
    this.refuseUnlessWritable();
    const known = this.members.find((member) => member.uid.equals(uid));
    if (known?.host === host && known.port === port) return known.id;
    const id = known?.id ?? (wantedId || Math.max(this.tip?.highestId ?? 0, this.tree.highestId) + 1);
    if (known === undefined && this.members.some((member) => member.id === id))
      throw new Failure(`another node has id ${id}; remove the state of this one and start it anew`);
    if (!this.core.mayChangeMembers) throw new Unavailable("another change of members is under way");
    // Who comes to another's address without its state is somebody new: the one that was there has forgotten its votes.
    const replaced = this.members.find(
      (member) => member !== known && member.host === host && member.port === port,
    );
    if (replaced !== undefined) {
      void this.changeMembers(this.members.filter((member) => member !== replaced)).catch(() => {});
      throw new Unavailable(`node ${replaced.id} had this address; it is taken out first`);
    }
    const others = this.members.filter((member) => member !== known);
    this.changeMembers([...others, { id, uid: Buffer.from(uid), host, port }]).catch(() => {}); // it asks again
    this.options.log(`node ${id} at ${formatAddress(host, port)} is a member`);
    return id;
  }

  async changeMembers(members: readonly Member[]): Promise<void> {
    this.refuseUnlessWritable();
    if (!this.core.mayChangeMembers) throw new Unavailable("another change of members is under way");
    await this.write({ action: "members", path: "", timeUs: nowUs(), body: encodeMembers(members) });
  }

  /** Entries that were never acknowledged: their contents are kept, beside the directory. */
  #reportCut(entries: readonly Entry[]): void {
    for (const entry of entries) {
      if (entry.action === "begin") continue;
      const kept = isPut(entry) ? this.contents.keep(entry) : undefined;
      const what = `${entry.action} ${JSON.stringify(entry.path)} of term ${entry.term}`;
      this.options.log(`set aside a write that was never acknowledged: ${what}${kept ? `: ${kept}` : ""}`);
    }
  }

  /** After a start, and after having been master: what is in the directory and not in the tree is set aside. */
  async #mendStray(): Promise<void> {
    if (this.#isMending) return;
    this.#isMending = true;
    await this.inQueue(async () => {
      this.#isMending = false;
      if (this.core.role !== "replica" || this.core.master === 0) return;
      this.#isStray = (await this.#mendTree()).length > 0;
    });
    if (
      this.#isStray &&
      this.core.role === "replica" &&
      this.core.master !== 0 &&
      !this.options.signal.aborted
    )
      setTimeout(() => void this.#mendStray().catch(this.#fail), 500).unref();
  }

  async #mendTree(): Promise<string[]> {
    this.applier.isDamaged = false;
    const missing = await this.applier.mend(this.tree, (path, item) => this.contents.find(path, item));
    for (const path of missing)
      this.options.log(`the content of ${JSON.stringify(path)} could not be had yet`);
    return missing;
  }

  #isCopying = false;
  /** What this node lacks is in no log: manifest and digests tell what differs, and only that is fetched. */
  async #copyAll(): Promise<void> {
    if (this.#isCopying) return;
    this.#isCopying = true;
    try {
      await this.inQueue(async () => {
        const copied = await this.contents.copyTree();
        if (copied === undefined || copied.base.index <= this.core.commit) return;
        const { base, tree } = copied;
        this.store.noteProgress(0, base.index); // until it is mended, the directory is neither the old nor the new one
        this.#newBase = { base, tree: tree.copy() };
        this.core.install(base);
        this.kick();
        await this.#until(() => this.store.base.index >= base.index);
        await this.applier.mend(tree, (path, item) => this.contents.find(path, item));
        this.appliedIndex = base.index;
        this.#isStray = false;
        this.store.noteProgress(base.index, this.core.commit);
        this.options.log(
          `copied the whole tree: ${tree.items.size - 1} paths, ${copied.fetched} contents fetched`,
        );
      });
    } catch (error) {
      if (!isFailure(error)) throw error;
    } finally {
      this.#isCopying = false;
      this.kick();
    }
  }

  /** Contents that no entry needs any more. */
  #sweepStage(): void {
    const needed = new Set(this.core.log.filter(isPut).map((entry) => stagedAs(putOf(entry).item)));
    for (const name of readdirSync(this.store.stage))
      if (!needed.has(name)) rmSync(join(this.store.stage, name), { force: true });
  }
}

export const nowUs = (): bigint => BigInt(Date.now()) * 1000n;
export const newRequest = (): Buffer => randomBytes(NO_REQUEST.length);
const isEarly = ({ message: { kind } }: Outgoing<Entry>) => kind === "append" || kind === "copy";
const pick = ({ term, votedFor, base }: Consensus<Entry>) => ({ term, votedFor, base });
