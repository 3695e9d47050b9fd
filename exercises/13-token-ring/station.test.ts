/** Whole rings in a simulation: stations that die, stall and come back, over links that delay, break and heal. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { randomOf } from "../../shared/random.ts";
import type { Outcome } from "./messages.ts";
import { frameOf, type Line, type Meaning, ringFrom, understand } from "./protocol.ts";
import { type Action, createStation, type Event, type Station } from "./station.ts";

interface Node {
  id: number;
  station: Station;
  /** Counts its starts: frames and replies meant for an earlier life are void. */
  life: number;
  up: boolean;
  ended: boolean;
  leaving: boolean;
  /** Has it passed its last turn on? Then nobody chooses it as successor any more. */
  left: boolean;
  lines: Line[];
  /** While it is stopped: what has arrived, to be read when it goes on. */
  backlog: Event[] | undefined;
}
interface Report {
  from: number;
  line: Line;
  outcome: Outcome;
}

/** How long after a change the links notice it. */
const NOTICE_MS = 1000;

class Simulation {
  now = 0;
  readonly nodes = new Map<number, Node>();
  readonly received: { at: number; idSource: number; text: string }[] = [];
  readonly reports: Report[] = [];
  readonly notes: string[] = [];
  wasParted = false;
  readonly #random: () => number;
  readonly #members: number[];
  readonly #holdLimit: number;
  /** The next event comes last; of those at the same time, the one that was put in first. */
  readonly #queue: { atMs: number; do: () => void }[] = [];
  /** Each link is FIFO: nothing arrives before what was sent earlier. */
  #lastArrival = new Map<string, number>();
  readonly #cut = new Set<string>();
  finishAfterIdle: number | undefined = 3;
  hopMs = 2;

  constructor(members: number[], seed: number, holdLimit = 3) {
    this.#members = members;
    this.#random = randomOf(seed);
    this.#holdLimit = holdLimit;
  }

  at(delayMs: number, action: () => void): void {
    const atMs = this.now + delayMs;
    let low = 0;
    for (let high = this.#queue.length; low < high; ) {
      const middle = (low + high) >> 1;
      if ((this.#queue[middle]?.atMs ?? 0) > atMs) low = middle + 1;
      else high = middle;
    }
    this.#queue.splice(low, 0, { atMs, do: action });
  }

  start(id: number, lines: Line[] = []): void {
    const old = this.nodes.get(id);
    const members = this.#members;
    const order = ringFrom(id, members[(members.indexOf(id) + 1) % members.length] ?? id, members);
    const station = createStation(
      {
        id,
        members,
        first: order[0] ?? id,
        lines,
        holdLimit: this.#holdLimit,
        idleHoldMs: 5,
        finishAfterIdle: id === 0 ? this.finishAfterIdle : undefined,
      },
      this.now,
    );
    this.nodes.set(id, {
      id,
      station,
      life: (old?.life ?? 0) + 1,
      up: true,
      ended: false,
      leaving: false,
      left: false,
      lines,
      backlog: undefined,
    });
    this.rewire();
  }

  /** SIGSTOP, and SIGCONT later: others find it silent, and it finds everything at once that came in between. */
  stop(id: number, forMs: number): void {
    const node = this.nodes.get(id);
    if (!node?.up || node.backlog) return;
    node.backlog = [];
    this.wasParted = true;
    this.rewire();
    this.at(forMs, () => {
      const backlog = node.backlog ?? [];
      node.backlog = undefined;
      const timersFirst = this.#random() < 0.5;
      for (const event of timersFirst ? [{ type: "tick" } as const, ...backlog] : backlog)
        this.#handle(node, event);
      this.#handle(node, { type: "tick" });
      this.rewire();
    });
  }

  kill(id: number): void {
    const node = this.nodes.get(id);
    if (node) node.up = false;
    this.rewire();
  }

  /** SIGTERM: it passes its next turn on and goes. */
  leave(id: number): void {
    const node = this.nodes.get(id);
    if (!node) return;
    node.leaving = true;
    this.#handle(node, { type: "stop" });
  }

  /** A break between two stations: their links fail, in both directions. */
  cut(a: number, b: number, forMs: number): void {
    const name = [a, b].toSorted().join("-");
    this.#cut.add(name);
    this.wasParted = true;
    this.rewire();
    this.at(forMs, () => {
      this.#cut.delete(name);
      this.rewire();
    });
  }

  #linked(a: number, b: number): boolean {
    return (
      this.nodes.get(b)?.up === true &&
      !this.nodes.get(b)?.backlog &&
      !this.nodes.get(b)?.ended &&
      !this.#cut.has([a, b].toSorted().join("-"))
    );
  }

  #wired = new Map<number, number | undefined>();
  /** Every station notices, after a while, who its nearest reachable successor is. */
  rewire(): void {
    for (const node of this.nodes.values()) {
      this.at(this.#random() * NOTICE_MS, () => {
        if (!node.up || node.backlog || this.nodes.get(node.id) !== node) return;
        const members = this.#members;
        const order = ringFrom(
          node.id,
          members[(members.indexOf(node.id) + 1) % members.length] ?? node.id,
          members,
        );
        for (const { id, station } of this.nodes.values()) {
          if (this.#linked(node.id, id)) this.#handle(node, { type: "heard", generation: station.known });
        }
        const reachable = (node.station.joined ? order : order.slice(0, 1)).find(
          (id) => this.#linked(node.id, id) && !this.nodes.get(id)?.left,
        );
        const key =
          reachable === undefined ? undefined : reachable * 1000 + (this.nodes.get(reachable)?.life ?? 0);
        if (this.#wired.get(node.id * 1000 + node.life) === key) return;
        this.#wired.set(node.id * 1000 + node.life, key);
        this.#handle(node, { type: "successor", id: reachable });
        if (!node.station.joined) this.rewire();
      });
    }
  }

  #handle(node: Node, event: Event): void {
    if (!node.up || node.ended) return;
    if (node.backlog) {
      if (event.type === "frame") node.backlog.push(event);
      return;
    }
    const had = node.station.hasTurn;
    for (const action of node.station.handle(event, this.now)) this.#act(node, action);
    if (!had && node.station.hasTurn) this.#checkSingleTurn(node);
    const { life } = node;
    const wake = node.station.wakeAtMs();
    if (!node.ended && wake < Number.POSITIVE_INFINITY) {
      this.at(Math.max(0.01, wake - this.now), () => {
        if (this.nodes.get(node.id)?.life === life && node.station.wakeAtMs() <= this.now)
          this.#handle(node, { type: "tick" });
      });
    }
  }

  /**
   * One turn is never at two stations. Where links were cut, parts of a ring may have made turns of their own, and a
   * station that was stopped goes on with the turn that it had; where neither was, there is no second turn of any kind.
   */
  #checkSingleTurn(node: Node): void {
    for (const other of this.nodes.values()) {
      if (other === node || !other.up || other.ended || !other.station.hasTurn) continue;
      const [a, b] = [node.station.turn, other.station.turn];
      const same = a.generation === b.generation && a.issuer === b.issuer;
      assert.ok(!same && this.wasParted, `stations ${other.id} and ${node.id} both have a turn`);
    }
  }

  #act(node: Node, action: Action): void {
    if (action.type === "received")
      this.received.push({ at: node.id, idSource: action.idSource, text: action.text });
    else if (action.type === "reported")
      this.reports.push({ from: node.id, line: action.line, outcome: action.outcome });
    else if (action.type === "note") this.notes.push(`${Math.round(this.now)} ${node.id}: ${action.text}`);
    else if (action.type === "leave") {
      node.left = true;
      this.rewire();
      // By then all predecessors have noticed, and what they had sent has arrived.
      this.at(NOTICE_MS + this.hopMs + 1, () => this.#handle(node, { type: "stop" }));
    } else if (action.type === "end") {
      node.ended = true;
      this.rewire();
    } else this.#deliver(node, action.meaning);
  }

  #deliver(from: Node, meaning: Meaning): void {
    const key = this.#wired.get(from.id * 1000 + from.life);
    const target = key === undefined ? undefined : this.nodes.get(Math.floor(key / 1000));
    if (!target || key === undefined) return; // written to a link that had just gone
    const life = key % 1000;
    const link = `${from.id}.${from.life}-${key}`;
    const atMs = Math.max(this.now + 0.1 + this.#random() * this.hopMs, this.#lastArrival.get(link) ?? 0);
    this.#lastArrival.set(link, atMs);
    const lostOnTheWay = !target.backlog && !this.#linked(from.id, target.id);
    if (lostOnTheWay) return;
    const generation = from.station.known;
    this.at(atMs - this.now, () => {
      if (target.life !== life || this.nodes.get(target.id) !== target) return;
      if (target.id !== from.id && !target.backlog && !this.#linked(from.id, target.id)) return;
      // There are probes between the frames.
      if (generation > target.station.known) this.#handle(target, { type: "heard", generation });
      // What crosses the wire is a frame, so that the codec's view of it is tested too.
      this.#handle(target, { type: "frame", meaning: understand(frameOf(meaning)) });
    });
  }

  run(untilMs: number, done: () => boolean = () => false): void {
    while (this.now < untilMs && !done()) {
      const event = this.#queue.pop();
      if (!event) return;
      this.now = Math.max(this.now, event.atMs);
      event.do();
    }
  }

  isRunning(id: number): boolean {
    const node = this.nodes.get(id);
    return node?.up === true && !node.ended && !node.leaving;
  }

  get allEnded(): boolean {
    return [...this.nodes.values()].every((node) => node.ended || !node.up);
  }
}

function linesFrom(id: number, members: readonly number[], count: number, random: () => number): Line[] {
  return Array.from({ length: count }, (_, i) => ({
    idDestination: members[Math.floor(random() * members.length)] ?? 0,
    text: `${id}:${i}`,
  }));
}

/** What must hold at the end, whatever happened: nothing twice, and what was reported delivered did arrive. */
function checkDeliveries(simulation: Simulation): void {
  const arrivals = new Map<string, number>();
  for (const { at, text } of simulation.received)
    arrivals.set(`${at} ${text}`, (arrivals.get(`${at} ${text}`) ?? 0) + 1);
  for (const [what, times] of arrivals) assert.equal(times, 1, `${what} was delivered ${times} times`);
  for (const { line, outcome } of simulation.reports) {
    const arrived = arrivals.has(`${line.idDestination} ${line.text}`);
    if (outcome === "delivered") assert.ok(arrived, `${line.text} was reported delivered and never arrived`);
    if (outcome === "unsent" || outcome === "undelivered")
      assert.ok(!arrived, `${line.text} was reported ${outcome} and arrived`);
  }
}

for (const size of [1, 2, 4, 64]) {
  test(`a ring of ${size}: every message arrives once, in its source's order, and the end command ends all`, () => {
    const random = randomOf(size);
    const members = Array.from({ length: size }, (_, i) => i);
    const simulation = new Simulation(members, size);
    const perStation = size === 64 ? 3 : 20;
    for (const id of members.toSorted(() => random() - 0.5)) {
      simulation.at(random() * 3000, () => simulation.start(id, linesFrom(id, members, perStation, random)));
    }
    simulation.run(120_000, () => simulation.nodes.size === size && simulation.allEnded);
    assert.equal(simulation.nodes.size, size);
    assert.ok(simulation.allEnded, "every station ended");
    checkDeliveries(simulation);
    assert.equal(simulation.received.length, size * perStation);
    assert.ok(simulation.reports.every(({ outcome }) => outcome === "delivered"));
    for (const id of members) {
      const numbers = simulation.reports
        .filter(({ from }) => from === id)
        .map(({ line }) => Number(line.text.split(":")[1]));
      assert.deepEqual(
        numbers,
        numbers.toSorted((a, b) => a - b),
      );
    }
  });
}

test("a message to an id that is not in the ring is reported undelivered", () => {
  const simulation = new Simulation([0, 1, 2], 1);
  for (const id of [0, 1, 2]) simulation.start(id, [{ idDestination: 9, text: `${id}:0` }]);
  simulation.run(60_000, () => simulation.allEnded);
  assert.deepEqual(
    simulation.reports.map(({ outcome }) => outcome),
    ["undelivered", "undelivered", "undelivered"],
  );
  assert.deepEqual(simulation.received, []);
});

test("no station with messages waits more than one round, however much another has to send", () => {
  const simulation = new Simulation([0, 1, 2, 3], 3, 2);
  const many = (id: number, count: number) =>
    Array.from({ length: count }, (_, i) => ({ idDestination: 3, text: `${id}:${i}` }));
  simulation.start(0, many(0, 100));
  simulation.start(1, many(1, 10));
  for (const id of [2, 3]) simulation.start(id);
  simulation.run(120_000, () => simulation.allEnded);
  const firstTwenty = simulation.reports.slice(0, 20).map(({ from }) => from);
  assert.deepEqual(
    firstTwenty,
    Array.from({ length: 20 }, (_, i) => (i % 4 < 2 ? 0 : 1)),
  );
});

test("a station that dies with the turn: within 5 s exactly one live station, the smallest, makes a new one", () => {
  for (let seed = 1; seed <= 50; seed++) {
    const simulation = new Simulation([0, 1, 2, 3], seed);
    simulation.finishAfterIdle = undefined;
    for (const id of [0, 1, 2, 3]) simulation.start(id);
    simulation.run(5000);
    const victim = 1 + (seed % 3);
    simulation.run(20_000, () => simulation.nodes.get(victim)?.station.hasTurn === true);
    simulation.kill(victim);
    const died = simulation.now;
    simulation.run(died + 5000, () =>
      [0, 1, 2, 3].some((id) => id !== victim && simulation.nodes.get(id)?.station.turn.generation === 2),
    );
    const made = simulation.notes.filter((note) => note.includes("made the turn"));
    assert.equal(made.length, 2, `seed ${seed}: ${made}`);
    assert.match(made[1] ?? "", / 0: /);
    simulation.run(simulation.now + 5000);
    assert.ok(
      [0, 1, 2, 3]
        .filter((id) => id !== victim)
        .every((id) => simulation.nodes.get(id)?.station.turn.generation === 2),
    );
    assert.equal(simulation.notes.filter((note) => note.includes("made the turn")).length, 2);
  }
});

test("a station that leaves takes neither the turn nor a message with it", () => {
  for (let seed = 1; seed <= 50; seed++) {
    const simulation = new Simulation([0, 1, 2, 3], seed);
    const leaver = 1 + (seed % 3);
    // Without messages the turn is what comes to it next, with them a message.
    const count = seed % 2 === 0 ? 0 : 500;
    simulation.finishAfterIdle = count === 0 ? 200 : 3;
    const lines = Array.from({ length: count }, (_, i) => (leaver + 1 + (i % 3)) % 4);
    for (const id of [0, 1, 2, 3]) {
      const own = lines.map((idDestination, i) => ({ idDestination, text: `${id}:${i}` }));
      simulation.start(id, id === leaver ? [] : own);
    }
    simulation.run(2500 + seed * 7);
    simulation.leave(leaver);
    simulation.run(60_000, () => simulation.allEnded);
    assert.ok(simulation.allEnded);
    assert.equal(simulation.notes.filter((note) => note.includes("made the turn")).length, 1, `seed ${seed}`);
    assert.ok(simulation.reports.every(({ outcome }) => outcome === "delivered"));
    assert.equal(simulation.received.length, 3 * count);
    checkDeliveries(simulation);
  }
});

const SCHEDULES = Number(process.env["NETLAB_SCHEDULES"] ?? 200);
test(`${SCHEDULES} seeded schedules of deaths, stops, leaves, returns and cut links: one turn, nothing twice, nothing lost that was reported`, () => {
  for (let seed = 1; seed <= SCHEDULES; seed++) {
    try {
      runSchedule(seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error });
    }
  }
});

function runSchedule(seed: number): void {
  const random = randomOf(seed * 7919);
  const size = 2 + Math.floor(random() * 5);
  const members = Array.from({ length: size }, (_, i) => i);
  const simulation = new Simulation(members, seed);
  simulation.hopMs = 20;
  let batch = 0;
  const lines = (id: number) =>
    linesFrom(id, members, 80, random).map((line) => ({ ...line, text: `${line.text}/${batch++}` }));
  for (const id of members) simulation.start(id, lines(id));
  simulation.run(1500);
  for (let i = 0; i < 8; i++) {
    const id = Math.floor(random() * size);
    const other = Math.floor(random() * size);
    if (seed % 2 === 1 && id !== other && random() < 0.5) simulation.cut(id, other, random() * 4000);
    else if (seed % 3 === 1 && random() < 0.5) simulation.stop(id, random() * 6000);
    else if (id !== 0 && random() < 0.2) simulation.leave(id);
    else if (simulation.isRunning(id)) simulation.kill(id);
    else simulation.start(id, lines(id));
    simulation.run(simulation.now + random() * 4000);
  }
  simulation.run(simulation.now + 7000); // stops and cuts are over
  for (const id of members) if (!simulation.isRunning(id)) simulation.start(id, lines(id));
  simulation.run(simulation.now + 600_000, () => simulation.allEnded);
  const zero = simulation.nodes.get(0);
  assert.ok(zero?.ended, "station 0 came to its end");
  checkDeliveries(simulation);
}
