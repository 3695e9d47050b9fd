/**
 * The rules of `consensus.ts` in a world of their own: nodes whose disks lose what was not synchronised, a network that
 * delays, loses and repeats, cuts, crashes, and a client that writes. All of it from a seed.
 */

import { strict as assert } from "node:assert";
import { randomOf } from "../../shared/random.ts";
import { Consensus, type Durable, type Message, type Outgoing } from "./consensus.ts";
import type { Base, LogEntry } from "./log.ts";
import { type NetworkProfile, SimulatedNetwork } from "./simulated-network.ts";

export interface Entry extends LogEntry {
  id: number;
}
type Parcel =
  | Message<Entry>
  | { kind: "ask"; from: number }
  | { kind: "whole"; base: Base; applied: number[] };

interface Disk extends Durable<Entry> {
  /** What the base stands for. */
  applied: number[];
}

class Node {
  core: Consensus<Entry>;
  disk: Disk;
  isUp = true;
  life = 0;
  isSaving = false;
  /** All that was applied since the beginning, by the entries' ids. */
  applied: number[] = [];
  appliedIndex = 0;

  constructor(id: number, members: readonly number[], random: () => number) {
    const base = { index: 0, term: 0, members };
    this.disk = { term: 0, votedFor: 0, base, log: [], applied: [] };
    this.core = new Consensus(id, this.disk, 0, random);
  }
}

/** How the world is, per schedule. */
export interface World extends NetworkProfile {
  nodes: number;
  steps: number;
  /** Of a crash, a cut or a heal, per step. */
  trouble: number;
  /** A new member comes, and members leave. */
  changesMembers?: boolean;
  /** To see that the checks can fail: called before each message is delivered. */
  breakIt?: (core: Consensus<Entry>) => void;
  /** A disk that forgets: what was said to be saved is not. */
  isForgetful?: boolean;
}

export class Simulation {
  readonly random: () => number;
  readonly world: World;
  readonly #network: SimulatedNetwork<Parcel>;
  readonly #nodes = new Map<number, Node>();
  readonly #masters = new Map<number, number>();
  readonly #written: number[] = [];
  /** The one history, as the first who applied each entry saw it. */
  readonly #history: number[] = [];
  #nextEntry = 1;

  constructor(seed: number, world: World) {
    this.world = world;
    this.random = randomOf(seed);
    this.#network = new SimulatedNetwork(this.random, world, (to, parcel) => this.#arrive(to, parcel));
    const ids = Array.from({ length: world.nodes }, (_, i) => i + 1);
    for (const id of ids) this.#nodes.set(id, new Node(id, ids, this.random));
    if (world.changesMembers) this.#nodes.set(world.nodes + 1, new Node(world.nodes + 1, [], this.random));
  }

  /** Runs the schedule, mends everything, and checks; returns how many writes were acknowledged. */
  run(): number {
    for (let step = 0; step < this.world.steps; step++) {
      this.#step(this.#network.nowMs + this.random() * 40);
      if (this.random() < this.world.trouble) this.#trouble();
      if (this.random() < 0.3) this.#write();
      if (this.random() < 0.02) this.#compact();
      if (this.world.changesMembers && this.random() < 0.02) this.#changeMembers();
    }
    this.#network.heal();
    for (const [id, node] of this.#nodes) if (!node.isUp) this.#restart(id);
    const endMs = this.#network.nowMs + 30_000;
    const count = this.#written.length;
    while (this.#network.nowMs < endMs) {
      this.#step(this.#network.nowMs + 20);
      if (this.#written.length === count && this.random() < 0.2) this.#write();
    }
    this.#checkEnd(count);
    return this.#written.length;
  }

  #step(untilMs: number): void {
    for (const [id, node] of this.#nodes)
      if (node.isUp) this.#work(id, () => node.core.tick(this.#network.nowMs));
    this.#network.runUntil(untilMs);
  }

  /** Something happens at a node; what came of it is saved, and then sent. */
  #work(id: number, what: () => void): void {
    const node = this.#node(id);
    what();
    node.core.takeCut();
    if (node.core.role === "master") {
      const { term } = node.core;
      assert.equal(this.#masters.get(term) ?? id, id, `two masters in term ${term}`);
      this.#masters.set(term, id);
    }
    this.#apply(node);
    this.#save(id);
  }

  #save(id: number): void {
    const node = this.#node(id);
    if (node.isSaving) return;
    node.isSaving = true;
    const { core, life } = node;
    const output = core.takeOutput();
    const [early, late] = [output.filter(isEarly), output.filter((out) => !isEarly(out))];
    for (const { to, message } of early) this.#network.send(id, to, message);
    const { term, votedFor, base, lastIndex, lastTerm } = core;
    const isSame =
      term === node.disk.term &&
      votedFor === node.disk.votedFor &&
      base === node.disk.base &&
      core.log.length === node.disk.log.length &&
      core.log.at(-1) === node.disk.log.at(-1);
    const disk = { term, votedFor, base, log: [...core.log], applied: node.applied.slice(0, base.index) };
    const finish = () => {
      if (node.life !== life) return; // it crashed before: nothing of this is on disk
      if (!this.world.isForgetful) node.disk = disk;
      node.isSaving = false;
      for (const { to, message } of late) this.#network.send(id, to, message);
      this.#work(id, () => core.saved(lastIndex, lastTerm));
    };
    if (isSame && late.length === 0 && early.length === 0) node.isSaving = false;
    else this.#network.later(isSame ? 0 : 30, finish);
  }

  #arrive(to: number, parcel: Parcel): void {
    const node = this.#nodes.get(to);
    if (!node?.isUp) return;
    this.world.breakIt?.(node.core);
    this.#work(to, () => this.#deliver(node, parcel));
  }

  #deliver(node: Node, parcel: Parcel): void {
    const { core } = node;
    if (parcel.kind === "ask") {
      const { appliedIndex: index } = node;
      const base = { index, term: core.termAt(index) ?? 0, members: membersAt(core, index) };
      return this.#network.send(core.id, parcel.from, { kind: "whole", base, applied: [...node.applied] });
    }
    if (parcel.kind === "whole") {
      if (parcel.base.index <= core.commit) return;
      core.install(parcel.base);
      node.applied = [...parcel.applied];
      node.appliedIndex = parcel.base.index;
      return;
    }
    core.receive(parcel, this.#network.nowMs);
    if (parcel.kind === "copy" && core.master === parcel.from)
      this.#network.send(core.id, parcel.from, { kind: "ask", from: core.id });
  }

  #apply(node: Node): void {
    while (node.appliedIndex < node.core.commit) {
      const entry = node.core.entry(++node.appliedIndex);
      assert.ok(entry, `node ${node.core.id} has not entry ${node.appliedIndex}, which is committed`);
      node.applied.push(entry.id);
      const at = node.appliedIndex - 1;
      if (this.#history.length === at) this.#history.push(entry.id);
      assert.equal(this.#history[at], entry.id, `two nodes applied different entries at ${at + 1}`);
    }
  }

  #write(): void {
    const masters = [...this.#nodes.values()].filter(({ isUp, core }) => isUp && core.role === "master");
    const node = masters[Math.floor(this.random() * masters.length)];
    if (node === undefined) return;
    const id = this.#nextEntry++;
    const { core, life } = node;
    let index: number | undefined;
    this.#work(core.id, () => {
      index = core.propose((term) => ({ term, id }), this.#network.nowMs);
    });
    const { term } = core;
    const look = () => {
      if (node.life !== life || core.role !== "master" || core.term !== term || index === undefined) return;
      if (core.commit >= index) this.#written.push(id);
      else this.#network.later(100, look);
    };
    look();
  }

  #compact(): void {
    const node = this.#pick();
    if (node.isUp && this.random() < 0.5)
      this.#work(node.core.id, () => node.core.compact(Math.floor(node.appliedIndex * this.random())));
  }

  #changeMembers(): void {
    const node = [...this.#nodes.values()].find(({ isUp, core }) => isUp && core.mayChangeMembers);
    if (node === undefined) return;
    const { members } = node.core;
    const changed = Math.floor(this.random() * (this.world.nodes + 1)) + 1;
    const wanted = members.includes(changed) ? members.filter((id) => id !== changed) : [...members, changed];
    if (wanted.length < 2 || changed === node.core.id) return;
    const id = this.#nextEntry++;
    this.#work(node.core.id, () =>
      node.core.propose((term) => ({ term, id, members: wanted }), this.#network.nowMs),
    );
  }

  #trouble(): void {
    const draw = this.random();
    const { core, isUp } = this.#pick();
    if (draw < 0.3 && isUp) return this.#crash(core.id);
    if (draw < 0.6 && !isUp) return this.#restart(core.id);
    if (draw < 0.8) return this.#network.heal();
    this.#network.cutOff(core.id, this.#nodes.keys());
  }

  #crash(id: number): void {
    const node = this.#node(id);
    node.isUp = false;
    node.isSaving = false;
    node.life++;
  }

  #restart(id: number): void {
    const node = this.#node(id);
    node.isUp = true;
    node.core = new Consensus(id, node.disk, this.#network.nowMs, this.random);
    node.applied = [...node.disk.applied];
    node.appliedIndex = node.disk.base.index;
  }

  #checkEnd(countBefore: number): void {
    const survivors = [...this.#nodes.values()];
    const master = survivors.find(({ core }) => core.role === "master");
    assert.ok(master, "in the end there is a master");
    assert.ok(this.#written.length > countBefore, "in the end a write succeeds");
    for (const id of this.#written)
      assert.ok(this.#history.includes(id), `write ${id} was acknowledged and is lost`);
    for (const { core, applied } of survivors.filter(({ core }) => master.core.members.includes(core.id)))
      assert.deepEqual(applied, this.#history, `node ${core.id} has caught up`);
  }

  #node(id: number): Node {
    const node = this.#nodes.get(id);
    assert.ok(node);
    return node;
  }
  #pick(): Node {
    return this.#node([...this.#nodes.keys()][Math.floor(this.random() * this.#nodes.size)] ?? 1);
  }
}

const isEarly = ({ message: { kind } }: Outgoing<Entry>) => kind === "append" || kind === "copy";

function membersAt(core: Consensus<Entry>, index: number): readonly number[] {
  const known = core.log.slice(0, index - core.base.index);
  return known.findLast((entry) => entry.members !== undefined)?.members ?? core.base.members;
}
