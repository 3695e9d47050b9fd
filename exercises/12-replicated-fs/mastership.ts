/** What only a master does: it makes new entries and waits until they are where they must be; members are changed so too. */
import { formatAddress } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { hexOf } from "./apply.ts";
import { type Change, type Entry, encodeEntry, entryOf, isPut, moveOf } from "./entries.ts";
import type { ReplicaNode } from "./node.ts";
import { checkPath } from "./paths.ts";
import { encodeMembers, type Member, NO_REQUEST, NOTHING } from "./protocol.ts";
import type { Tree } from "./tree.ts";

const WRITE_LIMIT_MS = 8000;

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

export const nowUs = (): bigint => BigInt(Date.now()) * 1000n;
const beginning = (): Change => ({ action: "begin", path: "", timeUs: nowUs(), body: NOTHING });

export class Mastership {
  readonly #node: ReplicaNode;
  /** The tree with all that is in the log, committed or not: what a new change is checked against. */
  tip: Tree | undefined;
  /** Changes that were seen in this very directory, since this node has been master. */
  #ours = new WeakSet<Entry>();
  #waiters: Waiter[] = [];

  constructor(node: ReplicaNode) {
    this.#node = node;
  }

  isOurs(entry: Entry): boolean {
    return this.#ours.has(entry);
  }

  /** Elected: when all before its term is applied, and its directory is the tree's, others' writes are taken. */
  async begin(): Promise<void> {
    const node = this.#node;
    const { core, store } = node;
    const { term } = core;
    const isOver = () => !node.isMaster || core.term !== term;
    // Written here while another was master, it is set aside; while nobody else was, it is the file system's.
    const isHeir = node.members.length === 1 || core.lastTerm === store.progress.mastered;
    node.options.log(`master (term ${term})`);
    const index = core.propose((term) => entryOf(term, beginning()), performance.now());
    node.kick();
    await node.until(() => node.appliedIndex >= (index ?? 0) || isOver());
    if (isOver()) return;
    await node.inQueue(async () => {
      if (isOver()) return;
      if (!isHeir) await node.mending.mendTree();
      if (isOver()) return;
      store.noteMastered(term);
      this.tip = node.tree.copy();
      for (let index = node.appliedIndex + 1; index <= core.lastIndex; index++)
        this.tip.apply(node.entry(index));
      node.mending.isStray = false;
      await node.onMaster();
    });
  }

  /** Deposed. */
  end(): void {
    this.tip = undefined;
    this.#ours = new WeakSet(); // the directory is about to be mended: what they say must be carried out in it
    for (const { reject } of this.#waiters.splice(0))
      reject(new Unavailable("the master has changed; whether the write survives is not known"));
  }

  refuseUnlessWritable(): void {
    const { core } = this.#node;
    if (core.role === "master" && this.tip !== undefined) return;
    const others = core.members.length;
    throw new Unavailable(
      others === 0
        ? "this node has nothing from a master yet"
        : core.master === 0
          ? `no master: ${core.majority} of the ${others} nodes must be up and reach one another; reading goes on`
          : "this node is not the master",
    );
  }

  /**
   * Resolves when the change is applied here and enough others have it on disk. Throws `Unavailable` where the outcome
   * is not known, or nothing was done. `isOurs`: it was seen in this very directory.
   */
  async write(change: Change, isOurs = false): Promise<void> {
    const node = this.#node;
    const before = this.repeated(change.request);
    if (before !== undefined) return before;
    this.refuseUnlessWritable();
    this.#checkFits(change);
    let entry: Entry | undefined;
    const index = node.core.propose((term) => {
      entry = entryOf(term, change);
      return entry;
    }, performance.now());
    if (index === undefined || entry === undefined) throw new Unavailable("this node is not the master");
    if (isOurs) this.#ours.add(entry);
    this.tip?.apply(entry);
    const done = this.#wait(entry, index);
    node.kick();
    return done;
  }

  /** Of a request that came before, the same as `write`; undefined of one that is new. */
  repeated(request: Buffer = NO_REQUEST): Promise<void> | undefined {
    if (request.equals(NO_REQUEST)) return undefined;
    const same = this.#waiters.find(({ entry }) => entry.request.equals(request));
    if (same !== undefined) return this.#wait(same.entry, same.index);
    // It is carried out, but perhaps not on enough nodes yet: what comes behind it will not be sooner.
    return this.#node.tree.requests.has(hexOf(request)) ? this.confirm() : undefined;
  }

  /** What is in the log must be able to travel. Throws `Failure`, or `PduError`. */
  #checkFits(change: Change): void {
    encodeEntry(entryOf(0, { ...change, body: isPut(change) ? NOTHING : change.body }));
    if (change.action !== "move") return;
    const to = moveOf(change);
    for (const [below] of this.tip?.walk(change.path) ?? []) checkPath(to + below.slice(change.path.length));
  }

  /** Resolves when all that this master has in its log is committed. */
  confirm(): Promise<void> {
    return this.write(beginning());
  }

  #wait(entry: Entry, index: number): Promise<void> {
    const { core, options } = this.#node;
    return new Promise((resolve, reject) => {
      // Until it is committed a master waits: it has a majority, which may need time for a large file.
      const timer = setInterval(() => {
        if (index > core.commit) return;
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        waiter.reject(new Unavailable(`it is not on ${options.minReplicas} replicas, but on a majority`));
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
  settle(): void {
    const { appliedIndex, core, options, members } = this.#node;
    const others = Math.min(options.minReplicas, members.length - 1);
    const done: Waiter[] = [];
    const waiting: Waiter[] = [];
    for (const waiter of this.#waiters) {
      const isDone = waiter.index <= appliedIndex && core.holders(waiter.index) >= others;
      (isDone ? done : waiting).push(waiter);
    }
    this.#waiters = waiting;
    for (const { resolve } of done) resolve();
  }

  /** The id of the node with this state, which becomes a member, or gets this address. Does not wait for it. */
  register(uid: Buffer, host: string, port: number, wantedId: number): number {
    this.refuseUnlessWritable();
    const { members, tree, core, options } = this.#node;
    const known = members.find((member) => member.uid.equals(uid));
    if (known?.host === host && known.port === port) return known.id;
    const id = known?.id ?? (wantedId || Math.max(this.tip?.highestId ?? 0, tree.highestId) + 1);
    if (known === undefined && members.some((member) => member.id === id))
      throw new Failure(`another node has id ${id}; remove the state of this one and start it anew`);
    if (!core.mayChangeMembers) throw new Unavailable("another change of members is under way");
    // Who comes to another's address without its state is somebody new: the one that was there has forgotten its votes.
    const replaced = members.find(
      (member) => member !== known && member.host === host && member.port === port,
    );
    if (replaced !== undefined) {
      void this.changeMembers(members.filter((member) => member !== replaced)).catch(() => {});
      throw new Unavailable(`node ${replaced.id} had this address; it is taken out first`);
    }
    const others = members.filter((member) => member !== known);
    this.changeMembers([...others, { id, uid: Buffer.from(uid), host, port }]).catch(() => {}); // it asks again
    options.log(`node ${id} at ${formatAddress(host, port)} is a member`);
    return id;
  }

  async changeMembers(members: readonly Member[]): Promise<void> {
    this.refuseUnlessWritable();
    if (!this.#node.core.mayChangeMembers) throw new Unavailable("another change of members is under way");
    await this.write({ action: "members", path: "", timeUs: nowUs(), body: encodeMembers(members) });
  }
}
