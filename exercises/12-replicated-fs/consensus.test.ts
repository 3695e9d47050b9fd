/** Election and commit: thousands of schedules in the simulator, and that it notices what is wrong. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { Consensus, type Message } from "./consensus.ts";
import { type Entry, Simulation, type World } from "./simulation.ts";

const SCHEDULES = 150;

/** Worlds differ by their seed: sizes, losses, delays, changes of members. */
function worldOf(seed: number): World {
  return {
    nodes: seed % 4 === 0 ? 5 : seed % 7 === 0 ? 2 : 3,
    steps: 200,
    loss: seed % 3 === 0 ? 0.1 : 0.01,
    maxDelayMs: seed % 5 === 0 ? 400 : 30,
    trouble: 0.05,
    changesMembers: seed % 2 === 0 && seed % 7 !== 0,
  };
}

test(`${SCHEDULES} schedules from seed 1: one master a term, one history, nothing acknowledged is lost`, () => {
  let written = 0;
  for (let seed = 1; seed <= SCHEDULES; seed++) {
    try {
      written += new Simulation(seed, worldOf(seed)).run();
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
  assert.ok(written > 10 * SCHEDULES, `${written} writes`);
});

/** The same with something wrong: some schedule must fail. */
function mustBeNoticed(what: Partial<World>): void {
  const world: World = { nodes: 3, steps: 300, loss: 0.05, maxDelayMs: 60, trouble: 0.05, ...what };
  for (let seed = 1; seed <= 100; seed++) {
    try {
      new Simulation(seed, world).run();
    } catch {
      return;
    }
  }
  assert.fail("a hundred schedules did not notice");
}
test("noticed: disks that forget", () => mustBeNoticed({ isForgetful: true }));
test("noticed: nodes that vote twice in a term", () =>
  mustBeNoticed({
    breakIt: (core) => {
      core.votedFor = 0;
    },
  }));
test("noticed: a master that commits what only it has", () =>
  mustBeNoticed({
    breakIt: (core) => {
      if (core.role === "master") core.commit = core.lastIndex;
    },
  }));

const durable = (term: number, terms: readonly number[]) => ({
  term,
  votedFor: 0,
  base: { index: 0, term: 0, members: [1, 2, 3] },
  log: terms.map((term, id) => ({ term, id })),
});
const nodeOf = (term: number, terms: readonly number[], id = 1) =>
  new Consensus<Entry>(id, durable(term, terms), 0, () => 0.5);
const candidate = (from: number, term: number, lastIndex: number, lastTerm: number): Message<Entry> => ({
  kind: "candidate",
  from,
  term,
  lastIndex,
  lastTerm,
  isTrial: false,
});
function answerTo(node: Consensus<Entry>, message: Message<Entry>, nowMs = 0): Message<Entry> | undefined {
  node.takeOutput(); // what it had to say before
  node.receive(message, nowMs);
  return node.takeOutput()[0]?.message;
}
const isGranted = (message: Message<Entry> | undefined) => message?.kind === "vote" && message.granted;

test("a vote goes only to who is as far: by the last entry's term, then by its index", () => {
  assert.ok(isGranted(answerTo(nodeOf(3, [1, 2]), candidate(2, 4, 2, 2))));
  assert.ok(isGranted(answerTo(nodeOf(3, [1, 2]), candidate(2, 4, 1, 3))));
  assert.ok(!isGranted(answerTo(nodeOf(3, [1, 2]), candidate(2, 4, 1, 2))));
  assert.ok(!isGranted(answerTo(nodeOf(3, [1, 2]), candidate(2, 4, 9, 1))));
});

test("one vote a term, the same again to the same", () => {
  const node = nodeOf(3, [1]);
  assert.ok(isGranted(answerTo(node, candidate(2, 4, 1, 1))));
  assert.ok(isGranted(answerTo(node, candidate(2, 4, 1, 1))));
  assert.ok(!isGranted(answerTo(node, candidate(3, 4, 1, 1))));
});

test("a trial is for a new term, and binds nobody", () => {
  const node = nodeOf(3, [1]);
  const trial = (from: number, term: number) => ({ ...candidate(from, term, 1, 1), isTrial: true });
  assert.ok(!isGranted(answerTo(node, trial(2, 3))));
  assert.ok(isGranted(answerTo(node, trial(2, 4))));
  assert.equal(node.term, 3);
  assert.ok(isGranted(answerTo(node, candidate(3, 3, 1, 1))), "the vote is still free");
  assert.ok(isGranted(answerTo(node, trial(2, 4))));
  assert.ok(!isGranted(answerTo(node, candidate(2, 3, 1, 1))), "and still the other's");
});

test("who has given its vote waits for what comes of it", () => {
  const node = nodeOf(3, [1]);
  assert.ok(!isGranted(answerTo(node, candidate(3, 4, 0, 0), 1000)));
  assert.ok(isGranted(answerTo(node, candidate(2, 4, 1, 1), 2400)));
  node.tick(2600);
  assert.equal(node.role, "replica");
  node.tick(3900);
  assert.equal(node.role, "candidate");
});

const vote = (from: number, term: number, isTrial = false): Message<Entry> => ({
  ...{ kind: "vote", from, term, granted: true, isTrial },
});
const MEMBERS = [1, 2, 3, 4, 5];
/** Node 1 of five stands for election, its trial won; or node `id` of other ones. */
function standing(members = MEMBERS): Consensus<Entry> {
  const node = new Consensus<Entry>(
    1,
    { ...durable(0, []), base: { index: 0, term: 0, members } },
    0,
    () => 0.5,
  );
  node.tick(3000);
  for (const from of [2, 3]) node.receive(vote(from, 1, true), 3000);
  return node;
}

test("votes count that are of this election, of members, and not of its trial", () => {
  const node = standing();
  assert.deepEqual([node.role, node.term], ["candidate", 1], "those of the trial elect nobody");
  node.receive(vote(2, 1), 3000);
  node.receive(vote(2, 1), 3000);
  node.receive(vote(9, 1), 3000);
  node.receive(vote(4, 1, true), 3000);
  assert.equal(node.role, "candidate");
  node.tick(5000); // nobody has won: the next one
  for (const from of [2, 3]) node.receive(vote(from, 2, true), 5000);
  assert.deepEqual([node.role, node.term], ["candidate", 2]);
  for (const from of [3, 4, 5]) node.receive(vote(from, 1), 5000);
  assert.equal(node.role, "candidate", "late votes of the last election");
  for (const from of [4, 5]) node.receive(vote(from, 2), 5000);
  assert.equal(node.role, "master");
});

test("who is no member stands for no election", () => {
  const node = standing([2, 3]);
  assert.deepEqual([node.role, node.takeOutput()], ["replica", []]);
});

test("a replica takes entries only behind one that is the master's, and commits no further than they agree", () => {
  const append = (prevTerm: number, commit: number): Message<Entry> => ({
    ...{ kind: "append", from: 2, term: 4, prevIndex: 2, prevTerm, entries: [], commit },
  });
  const node = nodeOf(3, [1, 2, 2]);
  assert.deepEqual(answerTo(node, append(3, 3)), {
    ...{ kind: "acknowledge", from: 1, term: 4, accepted: false, match: 1 },
  });
  assert.equal(node.commit, 0);
  answerTo(node, append(2, 3));
  assert.equal(node.commit, 2, "its third entry may be another than the master's");
});

test("who hears a master does not answer a candidate", () => {
  const node = nodeOf(3, [1]);
  node.receive({ kind: "append", from: 2, term: 3, prevIndex: 1, prevTerm: 1, entries: [], commit: 0 }, 0);
  node.takeOutput();
  assert.equal(answerTo(node, candidate(3, 9, 5, 5), 500), undefined);
  assert.equal(node.term, 3);
  assert.ok(isGranted(answerTo(node, candidate(3, 9, 5, 5), 1500)));
});

test("entries of a master that was deposed are cut off and handed out, and those of an older term refused", () => {
  const node = nodeOf(3, [1, 2, 2]);
  const entries = [{ term: 3, id: 9 }];
  const answer = answerTo(node, {
    kind: "append",
    from: 2,
    term: 3,
    prevIndex: 1,
    prevTerm: 1,
    entries,
    commit: 0,
  });
  assert.deepEqual(answer, { kind: "acknowledge", accepted: true, match: 2, from: 1, term: 3 });
  assert.deepEqual(
    node.takeCut().map(({ id }) => id),
    [1, 2],
  );
  const old = answerTo(node, {
    kind: "append",
    from: 3,
    term: 2,
    prevIndex: 1,
    prevTerm: 1,
    entries,
    commit: 9,
  });
  assert.deepEqual(old, { kind: "acknowledge", accepted: false, match: 0, from: 1, term: 3 });
  assert.equal(node.commit, 0);
});

/** Node 1, elected by node 2 in term 1. */
function master(): Consensus<Entry> {
  const node = nodeOf(0, []);
  node.tick(3000);
  node.receive({ kind: "vote", from: 2, term: 1, granted: true, isTrial: true }, 3000);
  node.receive({ kind: "vote", from: 2, term: 1, granted: true, isTrial: false }, 3000);
  assert.equal(node.role, "master");
  node.takeOutput();
  return node;
}

test("an entry is committed when a majority has it on disk, the master's own disk included", () => {
  const node = master();
  node.propose((term) => ({ term, id: 1 }), 3000);
  assert.equal(node.commit, 0);
  node.receive({ kind: "acknowledge", from: 2, term: 1, accepted: true, match: 1 }, 3000);
  assert.equal(node.commit, 0, "its own disk has not said so");
  node.saved(1, 1);
  assert.equal(node.commit, 1);
  assert.equal(node.holders(1), 1);
});

/** The node's clock goes on as that of a program does that gets its turns. */
function pass(node: Consensus<Entry>, fromMs: number, toMs: number): void {
  for (let nowMs = fromMs; nowMs <= toMs; nowMs += 100) node.tick(nowMs);
}

test("an acknowledgement of another term counts for nothing", () => {
  const node = nodeOf(1, []);
  node.tick(3000);
  node.receive(vote(2, 2, true), 3000);
  node.receive(vote(2, 2), 3000);
  node.propose((term) => ({ term, id: 1 }), 3000);
  node.takeOutput();
  node.saved(1, 2);
  node.receive({ kind: "acknowledge", from: 2, term: 1, accepted: true, match: 1 }, 3000);
  assert.equal(node.commit, 0);
});

test("a master that is taken out goes when that is committed", () => {
  const node = master();
  node.propose((term) => ({ term, id: 1, members: [2, 3] }), 3000);
  node.saved(1, 1);
  node.takeOutput();
  const acknowledge = (from: number) =>
    node.receive({ kind: "acknowledge", from, term: 1, accepted: true, match: 1 }, 3050);
  acknowledge(2);
  node.tick(3100);
  assert.equal(node.role, "master", "its successors need it until then");
  acknowledge(3);
  node.tick(3150);
  assert.deepEqual([node.role, node.commit], ["replica", 1]);
});

test("a master that hears of no majority is none any more", () => {
  const node = master();
  pass(node, 3000, 4900);
  assert.equal(node.role, "master");
  pass(node, 5000, 5000);
  assert.equal(node.role, "replica");
  assert.equal(
    node.propose((term) => ({ term, id: 1 }), 5100),
    undefined,
  );
});

test("a master that stood still itself gives the others time to be heard, once", () => {
  const node = master();
  node.tick(3100);
  node.tick(5050);
  assert.equal(node.role, "master");
  pass(node, 5100, 7000);
  assert.equal(node.role, "master");
  pass(node, 7100, 7100);
  assert.equal(node.role, "replica");
});

test("a master that stood still so long that the others have another one asks for no more time", () => {
  const node = master();
  node.tick(3100);
  node.tick(5100);
  assert.equal(node.role, "replica");
});

test("who copies the whole tells its master all the while that it is there, and what it has", () => {
  const copying = nodeOf(0, [], 3);
  assert.deepEqual(answerTo(copying, { kind: "copy", from: 1, term: 1 }), {
    ...{ kind: "acknowledge", from: 3, term: 1, accepted: true, match: 0 },
  });
  const node = master();
  for (let nowMs = 3000; nowMs < 9000; nowMs += 100) {
    node.tick(nowMs);
    node.receive({ kind: "acknowledge", from: 3, term: 1, accepted: true, match: 0 }, nowMs);
  }
  assert.equal(node.role, "master");
});

test("the log is needed by who answers and lacks it, not by who is silent", () => {
  const node = master();
  node.propose((term) => ({ term, id: 1 }), 3000);
  node.propose((term) => ({ term, id: 2 }), 3000);
  node.saved(2, 1);
  node.tick(3000);
  const acknowledge = (from: number, match: number, nowMs: number) =>
    node.receive({ kind: "acknowledge", from, term: 1, accepted: true, match }, nowMs);
  acknowledge(2, 2, 3000);
  acknowledge(3, 1, 3000);
  assert.deepEqual([node.commit, node.spare], [2, 1]);
  for (let nowMs = 3000; nowMs <= 5000; nowMs += 100) {
    node.tick(nowMs);
    acknowledge(2, 2, nowMs);
  }
  assert.equal(node.spare, 2);
});

test("members change one at a time, and not before an entry of this term is committed", () => {
  const node = master();
  assert.equal(node.mayChangeMembers, false);
  node.propose((term) => ({ term, id: 1 }), 3000);
  node.saved(1, 1);
  node.receive({ kind: "acknowledge", from: 2, term: 1, accepted: true, match: 1 }, 3000);
  assert.equal(node.mayChangeMembers, true);
  node.propose((term) => ({ term, id: 2, members: [1, 2, 3, 4] }), 3000);
  assert.equal(node.mayChangeMembers, false);
  assert.equal(node.majority, 3);
});

test("a master that steps down has voted in its term: for itself", () => {
  const node = master();
  pass(node, 3000, 5000);
  assert.deepEqual([node.role, node.term], ["replica", 1]);
  assert.ok(!isGranted(answerTo(node, candidate(3, 1, 9, 9), 9000)));
});

test("an entry of an older term is committed only together with one of the master's own", () => {
  const node = nodeOf(1, [1]);
  node.tick(3000);
  node.receive({ kind: "vote", from: 2, term: 2, granted: true, isTrial: true }, 3000);
  node.receive({ kind: "vote", from: 2, term: 2, granted: true, isTrial: false }, 3000);
  assert.equal(node.role, "master");
  node.receive({ kind: "acknowledge", from: 2, term: 2, accepted: true, match: 1 }, 3000);
  assert.equal(node.commit, 0, "another could still be elected and cut it off");
  node.propose((term) => ({ term, id: 1 }), 3000);
  node.saved(2, 2);
  node.receive({ kind: "acknowledge", from: 2, term: 2, accepted: true, match: 2 }, 3000);
  assert.equal(node.commit, 2);
});

test("the disk tells late of an entry that has been replaced: that says nothing of what stands there now", () => {
  const node = master();
  for (const id of [1, 2]) node.propose((term) => ({ term, id }), 3000);
  node.saved(2, 1);
  const entries = [{ term: 2, id: 3 }];
  node.receive({ kind: "append", from: 2, term: 2, prevIndex: 0, prevTerm: 0, entries, commit: 0 }, 3000);
  node.saved(1, 2);
  node.tick(9000);
  for (const isTrial of [true, false])
    node.receive({ kind: "vote", from: 2, term: 3, granted: true, isTrial }, 9000);
  assert.equal(node.role, "master");
  node.propose((term) => ({ term, id: 4 }), 9000);
  node.saved(2, 1);
  node.receive({ kind: "acknowledge", from: 2, term: 3, accepted: true, match: 2 }, 9000);
  assert.equal(node.commit, 0);
  node.saved(2, 3);
  assert.equal(node.commit, 2);
});

/** Elected by node 2, at 9000 ms. */
function elect(node: Consensus<Entry>): void {
  node.tick(9000);
  const { term } = node;
  for (const isTrial of [true, false])
    node.receive({ kind: "vote", from: 2, term: term + 1, granted: true, isTrial }, 9000);
  assert.equal(node.role, "master");
}
const append = (from: number, term: number, prevIndex: number, prevTerm: number, commit = 0) =>
  ({ kind: "append", from, term, prevIndex, prevTerm, entries: [], commit }) as const;
const idsOf = (entries: readonly Entry[]) => entries.map(({ id }) => id);

test("a copied tree: what the log has beyond what was agreed with its master is handed out, the rest is in the copy", () => {
  const cases: [string, number[], (node: Consensus<Entry>) => void][] = [
    ["nothing agreed", [0, 1, 2], () => {}],
    ["agreed by a heartbeat", [2], (node) => node.receive(append(2, 3, 2, 2), 0)],
    [
      "agreed with one who is master no more",
      [0, 1, 2],
      (node) => {
        node.receive(append(2, 3, 2, 2), 0);
        node.receive({ kind: "acknowledge", from: 3, term: 4, accepted: false, match: 0 }, 0);
      },
    ],
    [
      "agreed before it stood for election itself",
      [0, 1, 2],
      (node) => {
        node.receive(append(2, 3, 2, 2), 0);
        node.tick(9000);
      },
    ],
    ["committed", [1, 2], (node) => node.receive(append(2, 3, 1, 1, 1), 0)],
  ];
  for (const [what, cut, meet] of cases) {
    const node = nodeOf(3, [1, 2, 2]);
    meet(node);
    if (what === "committed") node.receive(append(3, 4, 0, 0), 0);
    node.install({ index: 5, term: 5, members: [1, 2, 3, 4] });
    assert.deepEqual(idsOf(node.takeCut()), cut, what);
    assert.deepEqual([node.commit, node.lastIndex, node.lastTerm], [5, 5, 5], what);
    assert.deepEqual(node.members, [1, 2, 3, 4], what);
  }
});

test("a copied tree that the log goes on behind: the entries behind it stay", () => {
  const node = nodeOf(3, [1, 2, 2]);
  node.install({ index: 2, term: 2, members: [1, 2, 3] });
  assert.deepEqual([idsOf(node.log), idsOf(node.takeCut()), node.lastIndex], [[2], [], 3]);
  node.install({ index: 1, term: 1, members: [9] });
  assert.deepEqual([node.base.index, node.members], [2, [1, 2, 3]], "an older one is of no use");
});

test("a copied tree that ends before the log: what comes behind it is not on disk yet", () => {
  const node = nodeOf(3, [1, 1, 1, 1]);
  node.install({ index: 2, term: 3, members: [1, 2, 3] });
  elect(node);
  node.propose((term) => ({ term, id: 9 }), 9000);
  node.receive({ kind: "acknowledge", from: 2, term: 4, accepted: true, match: 3 }, 9000);
  assert.equal(node.commit, 2);
  node.saved(3, 4);
  assert.equal(node.commit, 3);
});

test("what is committed is neither replaced nor, before it is that, forgotten", () => {
  const node = nodeOf(3, [1, 2, 2]);
  node.receive(append(2, 3, 2, 2, 2), 0);
  const other = { ...append(2, 3, 1, 1), entries: [{ term: 3, id: 9 }] };
  assert.throws(() => node.receive(other, 0), /entry 2 is committed/);
  node.compact(3);
  assert.equal(node.base.index, 0);
  node.compact(2);
  assert.deepEqual([node.base.index, node.base.term, idsOf(node.log)], [2, 2, [2]]);
});

/** What a master says to a node now. */
const said = (node: Consensus<Entry>, to: number) =>
  node
    .takeOutput()
    .filter((out) => out.to === to)
    .map(({ message }) => message);

test("proposals between two sendings go in one append, and no more than four appends are unanswered", () => {
  const node = master();
  const propose = (count: number) => {
    for (let i = 0; i < count; i++) node.propose((term) => ({ term, id: i }), 3000);
  };
  propose(3);
  const [first] = said(node, 2);
  assert.ok(first?.kind === "append" && first.entries.length === 3);
  for (let i = 0; i < 3; i++) {
    propose(1);
    assert.equal(said(node, 2).length, 1);
  }
  propose(1);
  assert.equal(said(node, 2).length, 0);
  node.receive({ kind: "acknowledge", from: 2, term: 1, accepted: true, match: 3 }, 3000);
  const [next] = said(node, 2);
  assert.ok(next?.kind === "append" && next.prevIndex === 6 && next.entries.length === 1);
  node.tick(3601);
  const [again] = said(node, 2);
  assert.ok(again?.kind === "append" && again.prevIndex === 3, "what was not answered is sent again");
  assert.equal(again.entries.length, 4);
  node.receive({ kind: "acknowledge", from: 2, term: 1, accepted: false, match: 0 }, 3601);
  const [late] = said(node, 2);
  assert.ok(late?.kind === "append" && late.prevIndex === 3, "a refusal that comes late undoes nothing");
});

test("that an entry is committed is told at once, also to who acknowledges it late", () => {
  const node = master();
  node.propose((term) => ({ term, id: 1 }), 3000);
  node.takeOutput();
  node.saved(1, 1);
  const acknowledge = (from: number) =>
    node.receive({ kind: "acknowledge", from, term: 1, accepted: true, match: 1 }, 3000);
  acknowledge(2);
  const [told] = said(node, 2);
  assert.ok(told?.kind === "append" && told.commit === 1 && told.prevIndex === 1);
  acknowledge(3);
  const [late] = said(node, 3);
  assert.ok(late?.kind === "append" && late.commit === 1 && late.prevIndex === 1);
  assert.deepEqual([said(node, 2), said(node, 3)], [[], []], "and not twice");
});

test("who lacks what is in no log any more is told to copy the whole", () => {
  const node = master();
  for (const id of [1, 2]) node.propose((term) => ({ term, id }), 3000);
  node.saved(2, 1);
  node.receive({ kind: "acknowledge", from: 2, term: 1, accepted: true, match: 2 }, 3000);
  node.compact(2);
  node.takeOutput();
  node.receive({ kind: "acknowledge", from: 3, term: 1, accepted: false, match: 0 }, 3000);
  node.tick(3200);
  assert.deepEqual(
    said(node, 3).map(({ kind }) => kind),
    ["copy"],
  );
});

test("four appends are unanswered at most: an answer makes room for as many as it says, a refusal for all", () => {
  const node = master();
  const sent = () => said(node, 2).length;
  let entries = 0;
  const propose = () => {
    node.propose((term) => ({ term, id: ++entries }), 3000);
    return sent();
  };
  const answer = (accepted: boolean, match: number) =>
    node.receive({ kind: "acknowledge", from: 2, term: 1, accepted, match }, 3000);
  assert.deepEqual([propose(), propose(), propose(), propose(), propose()], [1, 1, 1, 1, 0]);
  answer(true, 1);
  assert.equal(sent(), 1, "for one");
  assert.equal(propose(), 0);
  answer(true, 5);
  assert.deepEqual([sent(), propose(), propose(), propose(), propose()], [1, 1, 1, 1, 0], "for all");
  answer(false, 3);
  const [again] = said(node, 2);
  assert.ok(again?.kind === "append" && again.prevIndex === 5 && again.entries.length === entries - 5);
});

test("what was just sent is not sent again; a heartbeat meanwhile stands behind what the node has", () => {
  const node = master();
  const propose = (nowMs: number) => node.propose((term) => ({ term, id: 1 }), nowMs);
  propose(3000);
  node.takeOutput();
  node.receive({ kind: "acknowledge", from: 2, term: 1, accepted: true, match: 1 }, 3000);
  for (let nowMs = 3100; nowMs < 3900; nowMs += 100) node.tick(nowMs);
  node.takeOutput();
  propose(3900);
  assert.equal(said(node, 2).length, 1);
  node.tick(4000);
  const [beat] = said(node, 2);
  assert.ok(beat?.kind === "append" && beat.prevIndex === 1 && beat.entries.length === 0);
});

test("a refusal leads back, whatever it says", () => {
  const node = nodeOf(0, [0, 0, 0]);
  node.tick(3000);
  for (const isTrial of [true, false]) node.receive(vote(2, 1, isTrial), 3000);
  assert.ok(said(node, 2).some((message) => message.kind === "append" && message.prevIndex === 3));
  node.receive({ kind: "acknowledge", from: 2, term: 1, accepted: false, match: 9 }, 3000);
  const [lower] = said(node, 2);
  assert.ok(lower?.kind === "append" && lower.prevIndex === 2);
});

test("a node that is silent is not told to copy the whole for that, one that lacks the last entry of the base is", () => {
  const base = { index: 2, term: 0, members: [1, 2, 3] };
  const node = new Consensus<Entry>(1, { ...durable(0, [0]), base }, 0, () => 0.5);
  node.tick(3000);
  for (const isTrial of [true, false]) node.receive(vote(2, 1, isTrial), 3000);
  node.propose((term) => ({ term, id: 1 }), 3000);
  node.takeOutput();
  const kinds = (nowMs: number) => {
    node.tick(nowMs);
    return said(node, 3).map(({ kind }) => kind);
  };
  assert.deepEqual([...kinds(3600), ...kinds(4200)], ["append", "append"]);
  node.receive({ kind: "acknowledge", from: 3, term: 1, accepted: false, match: 1 }, 4200);
  assert.deepEqual(kinds(4400), ["copy"]);
});

test("a new member hears of its master at once", () => {
  const node = master();
  node.propose((term) => ({ term, id: 1, members: [1, 2, 3, 4] }), 3000);
  assert.deepEqual(
    said(node, 4).map(({ kind }) => kind),
    ["append"],
  );
});
