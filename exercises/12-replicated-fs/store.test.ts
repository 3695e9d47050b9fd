/** What a node must not forget: the state's files, as they are written, torn, and read again. */
import { strict as assert } from "node:assert";
import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { type Entry, entryOf } from "./entries.ts";
import { type Member, NOTHING } from "./protocol.ts";
import { Store } from "./store.ts";
import { directoryItem, Tree } from "./tree.ts";

let folder: string;
const stores: Store[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "netlab-store-"));
});
afterEach(async () => {
  for (const store of stores.splice(0)) await store[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const nobody = { index: 0, term: 0, members: [] };
const entry = (term: number, path: string): Entry =>
  entryOf(term, { action: "delete", path, timeUs: 5n, body: NOTHING });
function again(isSynchronous = false): Store {
  const store = new Store(folder, isSynchronous);
  stores.push(store);
  return store;
}
const pathsOf = ({ log }: { log: readonly Entry[] }) => log.map(({ path }) => path).join("");
const abc = [entry(1, "a"), entry(1, "b"), entry(2, "c")];

/** A state whose log holds these, written one after the other. */
async function stateWith(entries: readonly Entry[], isSynchronous = false): Promise<Store> {
  const store = again(isSynchronous);
  for (let count = 1; count <= entries.length; count++)
    await store.save({ term: 2, votedFor: 3, base: nobody, log: entries.slice(0, count) });
  return store;
}

test("vote, identity and log are there again", async () => {
  const store = await stateWith(abc, true);
  await store.saveIdentity({ cluster: "c", uid: "u", id: 7 });
  const { term, votedFor, log, identity, base } = again();
  assert.deepEqual([term, votedFor, base], [2, 3, nobody]);
  assert.deepEqual(log, abc);
  assert.equal(identity?.id, 7);
});

test("a vote alone is kept, also in the same term", async () => {
  const store = await stateWith(abc);
  await store.save({ term: 2, votedFor: 1, base: nobody, log: abc });
  assert.equal(again().votedFor, 1);
  await store.save({ term: 4, votedFor: 1, base: nobody, log: abc });
  assert.equal(again().term, 4);
});

test("an entry that another stands in place of is gone, also where the log is as long, or longer", async () => {
  const store = await stateWith(abc);
  for (const log of [
    [...abc.slice(0, 2), entry(3, "x")],
    [...abc.slice(0, 1), entry(4, "y"), entry(4, "z"), entry(4, "!")],
    abc.slice(0, 1),
  ]) {
    await store.save({ term: 4, votedFor: 0, base: nobody, log });
    assert.deepEqual(again().log, log);
  }
});

test("a log that is torn, or altered, is read up to there, and goes on from there", async () => {
  await stateWith(abc);
  const path = join(folder, "log");
  const whole = readFileSync(path);
  const record = (whole.length - 4) / 3;
  for (let length = 0; length < whole.length; length++) {
    truncateSync(path, length);
    assert.equal(again().log.length, Math.max(0, Math.floor((length - 4) / record)), `${length} octets`);
    writeFileSync(path, whole);
  }
  const altered = Buffer.from(whole);
  altered[4 + record + 8 + 20] = (altered[4 + record + 8 + 20] ?? 0) ^ 1;
  writeFileSync(path, altered);
  const torn = again();
  assert.equal(pathsOf(torn), "a");
  await torn.save({ term: 2, votedFor: 3, base: nobody, log: [...torn.log, entry(5, "d")] });
  assert.equal(pathsOf(again()), "ad", "what was torn is not left between");
  appendFileSync(path, "rest");
  assert.equal(pathsOf(again()), "ad");
});

const member: Member = { id: 4, uid: Buffer.alloc(16, 4), host: "h", port: 1 };
const treeWith = (path: string) =>
  new Tree([[path, directoryItem(0o755, 3n)]], ["0011223344556677"], [member], 9);

test("a base: the tree, members, requests and the highest id; the log is shortened with the next save", async () => {
  const store = await stateWith(abc);
  await store.saveBase({ index: 2, term: 1, members: [4] }, treeWith("kept"));
  const crashed = again(); // between the two: the log still begins before the base
  assert.equal(pathsOf(crashed), "c");
  await store.save({ term: 2, votedFor: 3, base: { index: 2, term: 1, members: [4] }, log: abc.slice(2) });
  const { tree, base, log } = again();
  assert.deepEqual(base, { index: 2, term: 1, members: [4] });
  assert.deepEqual(log, abc.slice(2));
  assert.deepEqual([...tree.items.keys()], ["", "kept"]);
  assert.deepEqual([tree.highestId, [...tree.requests], tree.members], [9, ["0011223344556677"], [member]]);
  assert.ok(readFileSync(join(folder, "log")).length < 200, "the log's file holds one entry");
});

test("a base that was copied from elsewhere: a log that does not agree with it is not its continuation", async () => {
  const store = await stateWith(abc);
  await store.saveBase({ index: 2, term: 2, members: [4] }, treeWith("copied"));
  assert.equal(pathsOf(again()), "", "entry 2 was of term 1 here");
  await store.saveBase({ index: 9, term: 2, members: [4] }, treeWith("copied"));
  assert.equal(pathsOf(again()), "", "the log ends before it");
});

test("entries are added to the log's file, which is written anew only where it must be", async () => {
  const store = again();
  const inode = () => statSync(join(folder, "log")).ino;
  const save = (index: number, log: readonly Entry[]) =>
    store.save({ term: 2, votedFor: 3, base: { index, term: 2, members: [] }, log });
  await save(0, []);
  await store.saveBase({ index: 5, term: 2, members: [4] }, treeWith("copied"));
  await save(5, abc.slice(0, 1));
  const first = inode();
  await save(5, abc.slice(0, 2));
  await save(5, abc);
  assert.equal(inode(), first);
  assert.equal(pathsOf(again()), "abc");
});

test("progress is a hint: kept, and where it is torn, begun anew at the base", async () => {
  const store = await stateWith(abc);
  store.noteProgress(1_000_000, 1_000_000);
  store.noteMastered(2);
  store.noteProgress(1, 2);
  const { progress, isAfterReboot } = again();
  assert.deepEqual([progress.applied, progress.commit, progress.mastered, isAfterReboot], [1, 2, 2, false]);
  const path = join(folder, "progress");
  writeFileSync(path, readFileSync(path, "utf8").replace(/"boot":"[^"]*"/, '"boot":"another"'));
  assert.equal(again().isAfterReboot, true);
  writeFileSync(path, "{");
  assert.equal(again().progress.applied, 0);
  writeFileSync(join(folder, "vote"), "{");
  assert.throws(() => again(), /^Failure: cannot read the state in .*vote/);
});
