/** A node: the rules of `consensus.ts` with a disk, a clock and a network. Whether it is master, they decide. */
import { Failure, isFailure } from "../../shared/errors.ts";
import { Applier } from "./apply.ts";
import { Consensus, type Message, type Outgoing } from "./consensus.ts";
import { Contents } from "./contents.ts";
import { Disk } from "./disk.ts";
import type { Entry } from "./entries.ts";
import type { Base } from "./log.ts";
import { Mastership } from "./mastership.ts";
import { Mending } from "./mending.ts";
import { type Address, encodeMessage } from "./messages.ts";
import { Peers } from "./peers.ts";
import type { Member } from "./protocol.ts";
import type { Store } from "./store.ts";
import type { Tree } from "./tree.ts";
import { turns } from "./turns.ts";

const TICK_MS = 25;
/** The log is shortened when it is longer than this. */
const MAX_LOG_ENTRIES = 2000;
const MAX_LOG_BYTES = 32 * 1024 * 1024;
/** And in any case when it is so many times longer. */
const MAX_WAITING = 4;

interface NodeOptions {
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

export class ReplicaNode {
  readonly options: NodeOptions;
  readonly store: Store;
  readonly disk: Disk;
  readonly applier: Applier;
  readonly core: Consensus<Entry>;
  readonly contents: Contents;
  readonly mastership: Mastership;
  readonly mending: Mending;
  appliedIndex: number;
  /** Ends the program: the disk does not do what it must. */
  readonly failed: Promise<never>;
  fail: (error: unknown) => void = () => {};
  /** What is to be written before the log is shortened. */
  #newBase: { base: Base; tree: Tree } | undefined;
  /** The tree up to where the log begins, written or not. */
  #baseTree: Tree;
  /** Called in the disk's queue when this node has become master and has applied all before its term. */
  onMaster: () => Promise<void> = async () => {};
  onReplica: () => void = () => {};
  readonly #peers: Peers;
  #queue: Promise<unknown> = Promise.resolve();
  #isFlushing = false;
  #isApplying = false;
  /** Where masters and candidates said that they are. */
  readonly #told = new Map<number, Address>();
  #role: Consensus<Entry>["role"] = "replica";
  #members: { ids: readonly number[]; tree: Tree; nodes: readonly Member[] } | undefined;
  #knownMaster = 0;

  constructor(options: NodeOptions, store: Store) {
    const { identity } = store;
    if (identity === undefined) throw new Error("the node has no identity");
    this.options = options;
    this.store = store;
    this.failed = new Promise((_, reject) => {
      this.fail = reject;
    });
    this.disk = new Disk(options.dir, store.stage);
    this.core = new Consensus(identity.id, store, performance.now(), Math.random, options.electionMs);
    this.core.commit = Math.min(Math.max(store.progress.commit, store.base.index), this.core.lastIndex);
    this.#baseTree = store.tree;
    this.applier = new Applier(this.disk, store.tree.copy(), store, options.log);
    this.appliedIndex = Math.min(Math.max(store.progress.applied, store.base.index), this.core.commit);
    for (let index = store.base.index + 1; index <= this.appliedIndex; index++)
      this.applier.tree.apply(this.entry(index));
    this.contents = new Contents(this);
    this.mastership = new Mastership(this);
    this.mending = new Mending(this);
    const cluster = Buffer.from(identity.cluster, "hex");
    this.#peers = new Peers({ ...options, id: identity.id, cluster });
  }

  get id(): number {
    return this.core.id;
  }
  get tree(): Tree {
    return this.applier.tree;
  }
  /** The nodes as of the latest entry that names them; looked up only where the rules know of other ones. */
  get members(): readonly Member[] {
    const { members: ids, log } = this.core;
    const { tree } = this.store;
    if (this.#members?.ids !== ids || this.#members.tree !== tree) {
      const nodes = log.findLast((entry) => entry.nodes !== undefined)?.nodes ?? tree.members;
      this.#members = { ids, tree, nodes };
    }
    return this.#members.nodes;
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

  /** Begins to take part. */
  async start(): Promise<void> {
    await this.mending.afterStart();
    const timer = setInterval(() => this.#step(() => this.core.tick(performance.now())), TICK_MS);
    this.options.signal.addEventListener("abort", () => clearInterval(timer));
    this.kick();
  }

  /** One after the other: whatever touches the directory. What is thrown there ends the node. */
  inQueue<T>(work: () => Promise<T> | T): Promise<T> {
    const done = this.#queue.then(work);
    this.#queue = done.catch((error) => this.fail(error));
    return done;
  }

  receive(message: Message<Entry>, address?: Address): void {
    if (address !== undefined && message.term >= this.core.term) this.#told.set(message.from, address);
    if (message.kind === "append" && message.term >= this.core.term) message = this.#withContents(message);
    this.#step(() => this.core.receive(message, performance.now()));
    if (message.kind === "copy" && message.from === this.core.master) void this.mending.copyAll();
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
      if (outcome === "gone") void this.mending.copyAll();
    }, this.fail);
    return { ...message, entries: entries.slice(0, lacking) };
  }

  #step(what: () => void): void {
    what();
    this.kick();
  }

  /** Brings disk, network and directory up to the core's state. */
  kick(): void {
    const cut = this.core.takeCut();
    if (cut.length > 0) this.mending.reportCut(cut);
    if (this.core.role !== this.#role || this.core.master !== this.#knownMaster) this.#onRole();
    void this.#flush().catch(this.fail);
    void this.#apply().catch(this.fail);
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
      this.mending.isStray = true;
      this.onReplica();
      this.mastership.end();
    }
    if (role === "master" && was !== "master") void this.mastership.begin().catch(this.fail);
    if (role === "replica" && master !== 0) {
      this.options.log(`node ${master} is master (term ${term})`);
      if (this.mending.isStray) void this.mending.mendStray().catch(this.fail);
    }
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition() && !this.options.signal.aborted)
      await new Promise((resolve) => setTimeout(resolve, 10));
  }

  async #apply(): Promise<void> {
    if (this.#isApplying || this.appliedIndex >= this.core.commit) return;
    this.#isApplying = true;
    await this.inQueue(async () => {
      this.#isApplying = false;
      const turn = turns();
      this.store.noteProgress(this.appliedIndex, this.core.commit);
      while (this.appliedIndex < this.core.commit) {
        await turn();
        const entry = this.core.entry(this.appliedIndex + 1);
        if (entry === undefined) return; // copied as a whole meanwhile
        await this.#carryOut(entry);
        this.appliedIndex++;
        this.store.noteProgress(this.appliedIndex, this.core.commit);
      }
      this.mastership.settle();
      if (this.applier.isDamaged && !this.isMaster) void this.mending.mendStray().catch(this.fail);
      await this.#compact();
    });
    this.kick();
  }

  async #carryOut(entry: Entry): Promise<void> {
    try {
      await this.applier.apply(entry, this.mastership.isOurs(entry));
    } catch (error) {
      if (!isFailure(error)) throw error;
      const what = `${entry.action} ${JSON.stringify(entry.path)}`;
      throw new Failure(`cannot carry out ${what} in ${this.options.dir}`, { cause: error });
    }
  }

  /** Of a log that is long: the directory, as far as it has it, goes to disk; then the log may forget it. */
  async #compact(): Promise<void> {
    const { log, base, spare } = this.core;
    const sizeBytes = log.reduce((sum, entry) => sum + entry.sizeBytes, 0);
    const length = Math.max(log.length / MAX_LOG_ENTRIES, sizeBytes / MAX_LOG_BYTES);
    // A node that is behind would have to copy the whole: the log waits for it, for a while.
    const to = length < MAX_WAITING ? Math.min(spare, this.appliedIndex) : this.appliedIndex;
    if (length <= 1 || to - base.index < log.length / 2) return;
    const turn = turns();
    const tree = this.#baseTree.copy();
    const touched = new Set<string>();
    for (let index = base.index + 1; index <= to; index++) {
      tree.apply(this.entry(index));
      touched.add(this.entry(index).path);
    }
    for (const path of this.options.isSynchronous ? touched : []) {
      this.disk.sync(path);
      await turn();
    }
    this.core.compact(to);
    this.rebase(this.core.base, tree);
  }

  /** The log begins behind `base` now, and `tree` is what there is up to there: it is written before the log is shortened. */
  rebase(base: Base, tree: Tree): void {
    this.#newBase = { base, tree };
    this.#baseTree = tree;
  }

  entry(index: number): Entry {
    const entry = this.core.entry(index);
    if (entry === undefined) throw new Error(`entry ${index} is not in the log`);
    return entry;
  }
}

const isEarly = ({ message: { kind } }: Outgoing<Entry>) => kind === "append" || kind === "copy";
const pick = ({ term, votedFor, base }: Consensus<Entry>) => ({ term, votedFor, base });
