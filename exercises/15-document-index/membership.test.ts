/** Membership and index in a simulated segment: a few stories, then schedules by the thousand. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { randomOf } from "../../shared/random.ts";
import { OwnIndex, RemoteIndex } from "./document-index.ts";
import { LOST_MS, MAX_NODES, Membership, type News } from "./membership.ts";
import { type SimulatedNode, Simulation } from "./simulator.ts";

const SETTLE_MS = 6000;
const SCHEDULES = Number(process.env["NETLAB_SCHEDULES"] ?? 400);

const documentOf = (path: string, content = path) => ({
  ...{ path, size: content.length, modifiedMs: 1, sha256: Buffer.from(content).toString("hex") },
});
const union = (nodes: readonly SimulatedNode[]) =>
  nodes
    .flatMap(({ id, own }) => own.documents.map(({ path, sha256 }) => `${path} ${sha256} ${id}`))
    .toSorted();

function assertConverged(simulation: Simulation, why: string): void {
  const live = simulation.nodes.filter(({ isAlive }) => isAlive);
  const expected = union(live);
  for (const node of live)
    assert.deepEqual(node.listing, expected, `${why}, node ${node.id}\n${simulation.notes.join("\n")}`);
  const ids = live.map(({ id }) => id).toSorted();
  for (const { id, membership } of live)
    assert.deepEqual([...membership.members.map((member) => member.id), id].toSorted(), ids, why);
}

/** Nodes that know each other, each with a document. */
function settled(count: number, seed = 1): Simulation {
  const simulation = new Simulation(seed);
  for (let i = 0; i < count; i++) simulation.start(`n${i}`).own.set(documentOf(`d${i}`));
  simulation.run(SETTLE_MS);
  assertConverged(simulation, "at the start");
  return simulation;
}
const nodeOf = (simulation: Simulation, i: number) => simulation.nodes[i] as SimulatedNode;

test("a newcomer and the others know each other after a few round trips, not after an interval", () => {
  const simulation = settled(5);
  simulation.start("n5").own.set(documentOf("new"));
  simulation.run(SETTLE_MS + 300);
  assertConverged(simulation, "after 300 ms");
});

test("a change is everywhere at once, as an increment", () => {
  const simulation = settled(3);
  const node = nodeOf(simulation, 0);
  node.own.set(documentOf("another"));
  node.own.remove("d0");
  simulation.changed(node);
  simulation.run(SETTLE_MS + 100);
  assertConverged(simulation, "after 100 ms");
});

test("changes in a row are announced five times a second at most, and the last one is", () => {
  const own = new OwnIndex();
  const member = new Membership("me", own);
  member.start(0);
  let announced = 0;
  for (let nowMs = 0; nowMs < 1000; nowMs += 10) {
    own.set(documentOf("x", `${nowMs}`));
    announced += member.changed(nowMs).length;
  }
  assert.equal(announced, 4);
  assert.deepEqual(member.tick(1000), [{ do: "announce", reply: false }]);
  assert.deepEqual(member.tick(1250), [], "nothing new");
});

test("who leaves is gone at once, who is killed within 4.75 s and not before 2 s", () => {
  const simulation = settled(4);
  simulation.leave(nodeOf(simulation, 0));
  simulation.run(SETTLE_MS + 50);
  assertConverged(simulation, "after a farewell");
  simulation.kill(nodeOf(simulation, 1));
  simulation.run(SETTLE_MS + 2000);
  assert.equal(nodeOf(simulation, 2).membership.members.length, 2);
  simulation.run(SETTLE_MS + 50 + LOST_MS + 250);
  assertConverged(simulation, "after a death");
  assert.match(simulation.notes.join("\n"), /n2#2: - n1 \(n1#1\) fell silent/);
});

test("a restarted node takes the place of its former self at once", () => {
  const simulation = settled(3);
  simulation.kill(nodeOf(simulation, 1));
  simulation.start("n1").own.set(documentOf("after"));
  simulation.run(SETTLE_MS + 300);
  assertConverged(simulation, "300 ms after the restart");
  assert.match(simulation.notes.join("\n"), /another one has its place/);
});

test("a stopped node is gone for the others, and does not bury them when it goes on", () => {
  const simulation = settled(3);
  const node = nodeOf(simulation, 0);
  simulation.stop(node);
  simulation.run(SETTLE_MS + 20_000);
  assert.equal(nodeOf(simulation, 1).membership.members.length, 1);
  simulation.go(node);
  simulation.run(SETTLE_MS + 20_300);
  assertConverged(simulation, "after SIGCONT");
  assert.doesNotMatch(simulation.notes.join("\n"), /n0#0: - /);
});

test("without the wake-up rule it does: the check can fail", () => {
  const member = new Membership("me", new OwnIndex());
  const news = newsOf({});
  member.heard(news, "a", 0);
  member.fetched("other", { address: "a", port: 8000 }, new OwnIndex().since(0), 0);
  for (let nowMs = 0; nowMs <= LOST_MS; nowMs += 250) member.tick(nowMs);
  assert.equal(member.members.length, 0);
});

test("a lossy segment: with three of ten datagrams lost nobody is buried by mistake for long", () => {
  const simulation = settled(6);
  simulation.loss = 0.3;
  simulation.run(120_000);
  simulation.loss = 0;
  simulation.run(120_000 + SETTLE_MS);
  assertConverged(simulation, "after the loss");
  const buried = simulation.notes.filter((line) => line.includes("fell silent")).length;
  assert.ok(buried <= 3, `${buried} were taken for dead in two minutes`);
});

test("an idle segment of six nodes: 0.4 broadcasts a second and node, and no fetches", () => {
  const simulation = settled(6);
  const before = simulation.datagrams;
  simulation.run(SETTLE_MS + 100_000);
  const perNode = (simulation.datagrams - before) / 6 / 5 / 100;
  assert.ok(perNode > 0.35 && perNode < 0.41, `${perNode}`);
});

function newsOf(part: Partial<News>): News {
  return {
    ...{ id: "other", name: "other", leaves: false, wantsReply: false, sequence: 5n, port: 8000 },
    ...{ version: 0, digest: Buffer.alloc(16), ...part },
  };
}

const AT_A = { address: "a", port: 8000 };
const asked = (member: Membership, nowMs: number) =>
  member.tick(nowMs).filter((action) => action.do === "announce" && action.to !== undefined).length;
const versionsOf = ({ members }: Membership) => members.map(({ version }) => version);

test("late, replayed and forged news: refused, said once", () => {
  const own = new OwnIndex();
  const member = new Membership("me", own);
  const empty = new OwnIndex().since(0);
  const lines = (actions: ReturnType<typeof member.tick>) =>
    actions.flatMap((action) => (action.do === "note" ? [action.line] : []));
  assert.deepEqual(
    member.heard(newsOf({}), "a", 0).map((action) => action.do),
    ["announce", "fetch"],
  );
  assert.equal(member.members.length, 0, "a datagram alone makes no member");
  member.fetched("other", { address: "a", port: 8000 }, empty, 0);
  assert.equal(member.members.length, 1);
  assert.deepEqual(member.heard(newsOf({}), "b", 1), [], "the same one, on another network");
  assert.match(
    lines(member.heard(newsOf({ sequence: 4n, version: 9 }), "a", 2)).join(),
    /late, or was replayed/,
  );
  assert.deepEqual(member.heard(newsOf({ sequence: 4n, leaves: true }), "a", 2), [], "said once");
  assert.deepEqual(versionsOf(member), [0]);
  assert.deepEqual(lines(member.heard(newsOf({ sequence: 6n, leaves: true }), "a", 3)), [
    "- other (other) left",
  ]);
  assert.deepEqual(member.heard(newsOf({ sequence: 7n }), "a", 3), [], "nobody comes back from a farewell");
  assert.deepEqual(member.heard(newsOf({ id: "me" }), "a", 3), [], "its own");
});

test("who is silent is asked four times a second; after this node's sleep all have 2.5 s", () => {
  const member = new Membership("me", new OwnIndex());
  member.heard(newsOf({}), "a", 0);
  member.fetched("other", AT_A, new OwnIndex().since(0), 0);
  let times = 0;
  for (let nowMs = 0; nowMs < 4000; nowMs += 50) times += asked(member, nowMs);
  assert.equal(times, 4);
  for (let nowMs = 20_000; nowMs < 22_500; nowMs += 250) member.tick(nowMs);
  assert.equal(member.members.length, 1);
  member.tick(22_500);
  assert.equal(member.members.length, 0);
});

test("an announcement that is sent again is no sign of life", () => {
  const member = new Membership("me", new OwnIndex());
  member.heard(newsOf({}), "a", 0);
  member.fetched("other", { address: "a", port: 8000 }, new OwnIndex().since(0), 0);
  for (let nowMs = 1000; nowMs <= LOST_MS; nowMs += 500) {
    member.heard(newsOf({}), "a", nowMs);
    member.tick(nowMs);
  }
  assert.equal(member.members.length, 0);
});

test("an index that does not make its digest is asked for whole, then refused for a while, and said once", () => {
  const member = new Membership("me", new OwnIndex());
  const truth = new OwnIndex();
  truth.set(documentOf("x"));
  const at = { address: "a", port: 8000 };
  const { version, digest } = truth;
  member.heard(newsOf({ version, digest }), "a", 0);
  const lie = { ...truth.since(0), changes: [documentOf("y")] };
  const first = member.fetched("other", at, lie, 0);
  assert.deepEqual(
    first.map((action) => action.do),
    ["note"],
  );
  assert.equal(member.members.length, 0);
  assert.deepEqual(
    member.tick(LOST_MS - 300).filter(({ do: what }) => what === "fetch"),
    [],
  );
  assert.deepEqual(member.fetched("other", at, lie, 10), [], "said once");
  member.fetched("other", at, truth.since(0), 20);
  truth.set(documentOf("z"));
  member.heard(newsOf({ sequence: 8n, version: 2, digest: truth.digest }), "a", LOST_MS * 2);
  const wrong = { ...truth.since(1), changes: [] };
  const again = member.fetched("other", at, wrong, LOST_MS * 2);
  assert.deepEqual(again, [], "no complaint yet: an increment may not fit");
  const [fetch] = member.tick(LOST_MS * 2 + 200).filter(({ do: what }) => what === "fetch");
  assert.deepEqual(fetch, { do: "fetch", id: "other", at, since: 0 });
  assert.equal(member.members[0]?.index?.size, 1, "what was right before stays");
});

test("an answer is a sign of life; after a lie nothing is asked for a while; after a whole index increments go on", () => {
  const member = new Membership("me", new OwnIndex());
  const truth = new OwnIndex();
  truth.set(documentOf("x"));
  const fetches = (nowMs: number) => member.tick(nowMs).filter((action) => action.do === "fetch");
  const announce = (sequence: bigint, nowMs: number) =>
    member.heard(newsOf({ sequence, version: truth.version, digest: Buffer.from(truth.digest) }), "a", nowMs);
  announce(5n, 0);
  member.fetchFailed("other", AT_A, "lies", true, 0);
  assert.deepEqual(fetches(LOST_MS - 10), []);
  announce(6n, LOST_MS - 5);
  assert.equal(fetches(LOST_MS).length, 1);
  member.fetched("other", AT_A, truth.since(0), 2 * LOST_MS - 10);
  assert.equal(fetches(2 * LOST_MS).length, 0);
  assert.equal(member.members.length, 1, "it answered just now");
  truth.set(documentOf("y"));
  announce(7n, 2 * LOST_MS);
  member.fetched("other", AT_A, { ...truth.since(1), changes: [] }, 2 * LOST_MS); // does not make its digest
  assert.deepEqual(fetches(2 * LOST_MS + 200), [{ do: "fetch", id: "other", at: AT_A, since: 0 }]);
  member.fetched("other", AT_A, truth.since(0), 2 * LOST_MS + 200);
  truth.set(documentOf("z"));
  const [next] = announce(8n, 2 * LOST_MS + 300);
  assert.deepEqual(next, { do: "fetch", id: "other", at: AT_A, since: 2 });
});

test("news that came while an answer was on its way is asked for at once", () => {
  const member = new Membership("me", new OwnIndex());
  const truth = new OwnIndex();
  truth.set(documentOf("x"));
  const at = { address: "a", port: 8000 };
  member.heard(newsOf({ version: 1, digest: Buffer.from(truth.digest) }), "a", 0);
  const answer = truth.since(0);
  truth.set(documentOf("y"));
  assert.deepEqual(member.heard(newsOf({ sequence: 6n, version: 2, digest: truth.digest }), "a", 1), []);
  const actions = member.fetched("other", at, answer, 2);
  assert.deepEqual(actions.at(-1), { do: "fetch", id: "other", at, since: 1 });
  assert.equal(member.isComplete, false);
  member.fetched("other", at, truth.since(1), 3);
  assert.equal(member.isComplete, true);
});

test(`of made-up identities ${MAX_NODES} are kept, the newest, and none keeps a newcomer out`, () => {
  const member = new Membership("me", new OwnIndex());
  const empty = new OwnIndex().since(0);
  member.heard(newsOf({ id: "proven" }), "a", 0);
  member.fetched("proven", AT_A, empty, 0);
  for (let i = 0; i < 2 * MAX_NODES; i++) member.heard(newsOf({ id: `${i}` }), "b", 0);
  assert.equal(asked(member, 3000), MAX_NODES);
  member.fetched("0", { address: "b", port: 8000 }, empty, 0);
  assert.equal(member.members.length, 1, "it had made room for others");
  member.heard(newsOf({ id: "newcomer" }), "c", 0);
  member.fetched("newcomer", { address: "c", port: 8000 }, empty, 0);
  assert.deepEqual(
    member.members.map(({ id }) => id),
    ["proven", "newcomer"],
  );
});

test(`beyond ${MAX_NODES} members nobody is met, which is said once`, () => {
  const member = new Membership("me", new OwnIndex());
  for (let i = 0; i < MAX_NODES; i++) {
    member.heard(newsOf({ id: `${i}` }), `${i}`, 0);
    member.fetched(`${i}`, { address: `${i}`, port: 8000 }, new OwnIndex().since(0), 0);
  }
  const actions = ["x", "y"].flatMap((id) => member.heard(newsOf({ id }), id, 0));
  assert.deepEqual(actions, [{ do: "note", line: `more than ${MAX_NODES} nodes: no more` }]);
  assert.equal(member.members.length, MAX_NODES);
});

test("forged addresses that come first do not keep a node out, nor take the place of one that answers", () => {
  const member = new Membership("me", new OwnIndex());
  const forged = ["w", "x", "y", "z"];
  for (const address of [...forged, "v", "w"]) member.heard(newsOf({}), address, 0);
  member.heard(newsOf({ sequence: 6n }), "true", 1);
  member.fetchFailed("other", { address: "w", port: 8000 }, "no answer", false, 1);
  const [fetch] = member.tick(1000).filter((action) => action.do === "fetch");
  assert.deepEqual(fetch, { do: "fetch", id: "other", at: { address: "true", port: 8000 }, since: 0 });
  member.fetched("other", { address: "true", port: 8000 }, new OwnIndex().since(0), 1000);
  for (const address of ["s", "t", "u", "t"]) member.heard(newsOf({ sequence: 6n }), address, 1000);
  assert.equal(member.members[0]?.addresses.length, 4);
  for (const [i, address] of forged.entries())
    member.heard(newsOf({ sequence: BigInt(7 + i) }), address, 1001);
  assert.equal(member.members[0]?.addresses[0], "true");
  assert.equal(member.members[0]?.addresses.length, 4);
  member.heard(newsOf({ sequence: 5n }), "late", 1002);
  assert.ok(!member.members[0]?.addresses.includes("late"), "an announcement that came late tells nothing");
});

test("a failed fetch is tried at another address, and less and less often", () => {
  const member = new Membership("me", new OwnIndex());
  member.heard(newsOf({}), "a", 0);
  member.heard(newsOf({}), "b", 0);
  member.fetchFailed("other", AT_A, "x", false, 0);
  const fetches: number[] = [];
  for (let nowMs = 0; nowMs < 5000; nowMs += 50) {
    for (const action of member.tick(nowMs)) {
      if (action.do !== "fetch") continue;
      assert.equal(action.at.address, fetches.length % 2 === 0 ? "b" : "a");
      fetches.push(nowMs);
      member.fetchFailed("other", action.at, "x", false, nowMs);
    }
  }
  assert.deepEqual(fetches, [100, 300, 700, 1500, 3100]);
});

/** One schedule: faults at random times for 20 s, then the segment is whole and everybody goes on. */
function schedule(seed: number): Simulation {
  const random = randomOf(seed);
  const pick = (n: number) => Math.floor(random() * n);
  const simulation = new Simulation(seed, random() < 0.5 ? 0.2 : 0);
  const addresses = Array.from({ length: 2 + pick(5) }, (_, i) => `n${i}`);
  const current = new Map(addresses.map((address) => [address, simulation.start(address)]));
  const faults: ((node: SimulatedNode, address: string) => void)[] = [
    (node) => node.own.set(documentOf(`d${pick(5)}`, `${pick(1000)}`)),
    (node) => node.own.set(documentOf(`d${pick(5)}`, `${pick(1000)}`)),
    (node) => node.own.remove(`d${pick(5)}`),
    (node) => simulation.kill(node),
    (node) => node.isAlive && !node.isStopped && simulation.leave(node),
    (node, address) => !node.isAlive && current.set(address, simulation.start(address)),
    (node, address) => !node.isAlive && current.set(address, simulation.start(address)),
    (node) => simulation.stop(node),
    (node) => node.isStopped && simulation.go(node),
    (_, address) => simulation.cut.add(address),
    (_, address) => simulation.cut.delete(address),
  ];
  for (let i = 0; i < 40; i++) {
    const address = addresses[pick(addresses.length)] ?? "";
    const fault = faults[pick(faults.length)];
    simulation.at(random() * 20_000, () => {
      const node = current.get(address) as SimulatedNode;
      fault?.(node, address);
      simulation.changed(node);
    });
  }
  simulation.run(20_000);
  simulation.loss = 0;
  simulation.cut.clear();
  for (const node of simulation.nodes) if (node.isAlive && node.isStopped) simulation.go(node);
  simulation.run(20_000 + SETTLE_MS);
  return simulation;
}

test(`${SCHEDULES} schedules of deaths, stops, cuts and changes: 6 s later every listing is the union`, () => {
  for (let seed = 1; seed <= SCHEDULES; seed++) assertConverged(schedule(seed), `seed ${seed}`);
});

test("the same seed, the same story", () => {
  assert.deepEqual(schedule(7).notes, schedule(7).notes);
  assert.notDeepEqual(schedule(7).notes, schedule(8).notes);
});

test("nodes that apply no increments would be found out", () => {
  const apply = RemoteIndex.prototype.apply;
  RemoteIndex.prototype.apply = function (update) {
    if (update.whole) apply.call(this, update);
  };
  try {
    assert.throws(() => {
      for (let seed = 1; seed <= 20; seed++) assertConverged(schedule(seed), `seed ${seed}`);
    }, /seed \d+/);
  } finally {
    RemoteIndex.prototype.apply = apply;
  }
});
