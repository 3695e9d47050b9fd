/** A segment without sockets or clocks, for tests: nodes, links and faults by a seed, thousands of seconds in one. */
import { randomOf } from "../../shared/random.ts";
import { type Document, OwnIndex, type Update } from "./document-index.ts";
import { type Action, Membership } from "./membership.ts";

const TICK_MS = 250;
const FETCH_TIMEOUT_MS = 3000;
const PORT = 8000;

interface Event {
  atMs: number;
  order: number;
  run: () => void;
}

export class SimulatedNode {
  readonly id: string;
  readonly address: string;
  readonly own = new OwnIndex();
  readonly membership: Membership;
  sequence = 0n;
  isAlive = true;
  isStopped = false;
  /** What came while it was stopped. */
  backlog: (() => void)[] = [];
  constructor(id: string, address: string) {
    this.id = id;
    this.address = address;
    this.membership = new Membership(id, this.own);
  }

  /** `PATH SHA NODE`, for every document that it knows of. */
  get listing(): string[] {
    const lines = (id: string, documents: Iterable<Document>) =>
      Array.from(documents, ({ path, sha256 }) => `${path} ${sha256} ${id}`);
    const others = this.membership.members.flatMap(({ id, index }) => lines(id, index?.documents ?? []));
    return [...lines(this.id, this.own.documents), ...others].toSorted();
  }
}

export class Simulation {
  nowMs = 0;
  readonly nodes: SimulatedNode[] = [];
  readonly notes: string[] = [];
  /** What is lost of the datagrams, 0 to 1. */
  loss: number;
  readonly #random: () => number;
  readonly #events: Event[] = [];
  #order = 0;
  /** Addresses that are cut off from the others. */
  readonly cut = new Set<string>();
  datagrams = 0;

  constructor(seed: number, loss = 0) {
    this.#random = randomOf(seed);
    this.loss = loss;
  }

  at(atMs: number, run: () => void): void {
    this.#events.push({ atMs, order: this.#order++, run });
  }

  /** A new process, at the address of a former one maybe. */
  start(address: string): SimulatedNode {
    const node = new SimulatedNode(`${address}#${this.nodes.length}`, address);
    this.nodes.push(node);
    this.#perform(node, node.membership.start(this.nowMs));
    this.#ticking(node);
    return node;
  }

  #ticking(node: SimulatedNode): void {
    if (!node.isAlive) return;
    this.at(this.nowMs + TICK_MS, () => this.#ticking(node));
    if (!node.isStopped) this.#perform(node, node.membership.tick(this.nowMs));
  }

  kill(node: SimulatedNode): void {
    node.isAlive = false;
  }

  leave(node: SimulatedNode): void {
    this.#announce(node, { do: "announce", reply: false }, true);
    node.isAlive = false;
  }

  stop(node: SimulatedNode): void {
    node.isStopped = true;
  }

  go(node: SimulatedNode): void {
    node.isStopped = false;
    this.#perform(node, node.membership.tick(this.nowMs));
    for (const run of node.backlog.splice(0)) run();
  }

  changed(node: SimulatedNode): void {
    if (node.isAlive && !node.isStopped) this.#perform(node, node.membership.changed(this.nowMs));
  }

  run(untilMs: number): void {
    for (let next = this.#next(untilMs); next !== undefined; next = this.#next(untilMs)) {
      this.nowMs = next.atMs;
      next.run();
    }
    this.nowMs = untilMs;
  }

  #next(untilMs: number): Event | undefined {
    let first: Event | undefined;
    for (const event of this.#events) {
      const order = first === undefined ? -1 : event.atMs - first.atMs || event.order - first.order;
      if (order < 0) first = event;
    }
    if (first === undefined || first.atMs > untilMs) return undefined;
    this.#events.splice(this.#events.indexOf(first), 1);
    return first;
  }

  /** Does it when the node runs. */
  #deliver(node: SimulatedNode, run: () => void): void {
    if (!node.isAlive) return;
    if (node.isStopped) node.backlog.push(run);
    else run();
  }

  #connected = (a: SimulatedNode, b: SimulatedNode) =>
    a.address === b.address || !(this.cut.has(a.address) || this.cut.has(b.address));

  #perform(node: SimulatedNode, actions: readonly Action[]): void {
    for (const action of actions) {
      if (action.do === "announce") this.#announce(node, action);
      else if (action.do === "fetch") this.#fetch(node, action);
      else this.notes.push(`${this.nowMs} ${node.id}: ${action.line}`);
    }
  }

  #announce(from: SimulatedNode, { reply, to }: Action & { do: "announce" }, leaves = false): void {
    const { version } = from.own;
    const news = {
      ...{ id: from.id, name: from.address, leaves, wantsReply: reply, sequence: ++from.sequence },
      ...{ port: PORT, version, digest: Buffer.from(from.own.digest) },
    };
    for (const node of this.nodes) {
      if (node === from || (to !== undefined && node.address !== to.address)) continue;
      this.datagrams++;
      if (!this.#connected(from, node) || this.#random() < this.loss) continue;
      const hear = () => this.#perform(node, node.membership.heard(news, from.address, this.nowMs));
      this.at(this.nowMs + this.#random() * 20, () => this.#deliver(node, hear));
    }
  }

  #fetch(by: SimulatedNode, { id, at, since }: Action & { do: "fetch" }): void {
    let isOver = false;
    const end = (actions: () => Action[]) => () =>
      this.#deliver(by, () => {
        if (isOver) return;
        isOver = true;
        this.#perform(by, actions());
      });
    const fail = end(() => by.membership.fetchFailed(id, at, "no answer", false, this.nowMs));
    this.at(this.nowMs + FETCH_TIMEOUT_MS, fail);
    const target = this.nodes.find((node) => node.address === at.address && node.isAlive);
    if (target === undefined || !this.#connected(by, target)) return;
    const answer = () => {
      // It proves who it is: another node at that place does not do.
      if (target.id !== id) return void this.at(this.nowMs + 1, fail);
      const update: Update = target.own.since(since);
      const come = end(() => by.membership.fetched(id, at, update, this.nowMs));
      this.at(this.nowMs + this.#random() * 20, () => this.#connected(by, target) && come());
    };
    this.at(this.nowMs + this.#random() * 20, () => this.#deliver(target, answer));
  }
}
