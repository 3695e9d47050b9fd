/** When a write is acknowledged, by a node that is made up: it is master, and others have what the test says. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { encode } from "../../shared/pdu.ts";
import { asideName } from "./apply.ts";
import type { Change, Entry } from "./entries.ts";
import { Mastership } from "./mastership.ts";
import type { ReplicaNode } from "./node.ts";
import { type Item, MoveBody, NOTHING } from "./protocol.ts";
import { directoryItem, Tree } from "./tree.ts";

/** A master with two replicas that must both have a write. */
function master(tree = new Tree()) {
  const log: Entry[] = [];
  const world = { holders: 0, commit: 0 };
  const core = {
    role: "master",
    get commit() {
      return world.commit;
    },
    holders: (index: number) => (index <= world.commit ? world.holders : 0),
    propose: (make: (term: number) => Entry) => log.push(make(1)),
  };
  const node = {
    core,
    tree,
    options: { minReplicas: 2 },
    members: [1, 2, 3],
    appliedIndex: 0,
    kick: () => {},
  };
  const mastership = new Mastership(node as unknown as ReplicaNode);
  mastership.tip = tree.copy();
  const commit = (holders: number) => {
    world.commit = log.length;
    world.holders = holders;
    while (node.appliedIndex < log.length) tree.apply(log[node.appliedIndex++] as Entry);
    mastership.settle();
  };
  return { mastership, log, commit };
}
const removal = (path: string): Change => ({
  action: "delete",
  path,
  timeUs: 1n,
  body: NOTHING,
  request: Buffer.alloc(8, 7),
});
/** Whether it is settled when all that can happen without the world has happened. */
const isDone = (promise: Promise<unknown>) =>
  Promise.race([promise.then(() => true), new Promise((resolve) => setImmediate(() => resolve(false)))]);

test("a write that is repeated waits for as many replicas as the first time", async () => {
  const { mastership, log, commit } = master();
  const first = mastership.write(removal("a"));
  const same = mastership.write(removal("a"));
  assert.equal(log.length, 1, "under way, it is not begun anew");
  commit(1);
  const late = mastership.write(removal("a"));
  assert.deepEqual(await Promise.all([first, same, late].map(isDone)), [false, false, false]);
  commit(2);
  await Promise.all([first, same, late]);
  assert.equal(log.filter(({ action }) => action === "delete").length, 1);
});

test("what could not travel is refused before it is in the log", async () => {
  const name = "n".repeat(250);
  const names = Array.from({ length: 16 }, () => name);
  const folders = names.map((_, i): [string, Item] => [
    names.slice(0, i + 1).join("/"),
    directoryItem(0o755, 0n),
  ]);
  const { mastership, log } = master(new Tree(folders));
  const write = (change: Partial<Change>) => mastership.write({ ...removal("x"), ...change });
  await assert.rejects(write({ path: [...names, name].join("/") }), /at most 4096/);
  await assert.rejects(write({ timeUs: -1n }), /does not fit/);
  const to = `${name}/${name}`;
  await assert.rejects(
    write({ action: "move", path: name, body: encode(MoveBody, { to }) }),
    /more than 4096/,
  );
  assert.equal(log.length, 0);
});

test("a name beside the directory has at most 255 octets, whatever it was called", () => {
  for (const name of ["x", "x".repeat(255), "漢".repeat(85), `a${"漢".repeat(84)}`, "\u{1f600}".repeat(63)]) {
    const aside = asideName("term4294967295", `dir/${name}`);
    assert.ok(Buffer.byteLength(aside) <= 255 && !aside.includes("\ufffd") && !aside.includes("/"), aside);
  }
  assert.match(asideName("0", "dir/name"), /^\d{4}-[\dTZ.-]+-0-name$/);
});
