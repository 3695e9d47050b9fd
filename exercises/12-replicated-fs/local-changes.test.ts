/** What other programs do in the directory, and which entries come of it: one node, in this process. */
import { strict as assert } from "node:assert";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { within } from "../../shared/running.ts";
import { moveOf, putOf } from "./entries.ts";
import { LocalChanges } from "./local-changes.ts";
import { ReplicaNode } from "./node.ts";
import { NOTHING } from "./protocol.ts";
import { Store } from "./store.ts";
import { Tree } from "./tree.ts";

let folder: string;
let node: ReplicaNode;
let changes: LocalChanges;
const said: string[] = [];
const over = new AbortController();

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "netlab-changes-"));
  mkdirSync(join(folder, "dir/before"), { recursive: true });
  writeFileSync(join(folder, "dir/before/file"), "was there");
  const store = new Store(join(folder, "state"), false);
  const member = { id: 1, uid: Buffer.alloc(16), host: "127.0.0.1", port: 1 };
  await store.saveBase({ index: 0, term: 0, members: [1] }, new Tree([], [], [member]));
  await store.saveIdentity({ cluster: "00".repeat(16), uid: "00".repeat(16), id: 1 });
  node = new ReplicaNode(
    {
      dir: join(folder, "dir"),
      state: join(folder, "state"),
      secret: NOTHING,
      minReplicas: 0,
      isSynchronous: false,
      electionMs: 1000,
      own: () => member,
      signal: over.signal,
      log: (line) => said.push(line),
      debug: () => {},
    },
    store,
  );
  changes = new LocalChanges(node);
  node.onMaster = () => changes.start();
  await node.start();
  await until("the file that was there", () => node.tree.get("before/file") !== undefined);
});
after(async () => {
  changes.stop();
  const isIdle = () =>
    node.appliedIndex === node.core.lastIndex && node.store.log.length === node.core.log.length;
  await until("all to be applied and saved", isIdle);
  over.abort();
  await node.inQueue(() => {});
  await node.store[Symbol.asyncDispose]();
  node.disk.close();
  rmSync(folder, { recursive: true });
});

const at = (path: string) => join(folder, "dir", path);
function until(what: string, isTrue: () => boolean): Promise<void> {
  return within(
    (async () => {
      while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 10));
    })(),
    what,
    120_000,
  );
}

const has = (path: string) => node.tree.get(path) !== undefined;

/** The entries that come of what is done, up to when the tree shows it; without those of the directories' times. */
async function entriesOf(what: () => void, isDone: () => boolean): Promise<string[]> {
  const first = node.core.lastIndex;
  what();
  await until(what.toString(), isDone);
  return node.core.log
    .slice(first - node.core.base.index)
    .filter(({ action, path }) => action !== "metadata" || node.tree.get(path)?.kind !== "directory")
    .map((entry) =>
      [entry.action, entry.path, ...(entry.action === "move" ? [moveOf(entry)] : [])].join(" "),
    );
}

test("what was there before the node was master is in the tree, parents first", () => {
  const entries = node.core.log.map(({ action, path }) => `${action} ${path}`);
  assert.deepEqual(entries.slice(0, 4), ["begin ", "metadata ", "mkdir before", "add before/file"]);
});

test("a file, a changed one, one with other permissions, one with another time", async () => {
  assert.deepEqual(
    await entriesOf(
      () => writeFileSync(at("f"), "one"),
      () => has("f"),
    ),
    ["add f"],
  );
  const size = () => Number(node.tree.get("f")?.sizeBytes);
  assert.deepEqual(
    await entriesOf(
      () => writeFileSync(at("f"), "longer"),
      () => size() === 6,
    ),
    ["modify f"],
  );
  const last = node.core.log.findLast(({ path, action }) => path === "f" && action === "modify");
  assert.equal(last && putOf(last).content.toString(), "longer");
  const mode = () => node.tree.get("f")?.mode;
  assert.deepEqual(
    await entriesOf(
      () => chmodSync(at("f"), 0o600),
      () => mode() === 0o600,
    ),
    ["metadata f"],
  );
  const time = () => node.tree.get("f")?.mtimeUs;
  const touched = await entriesOf(
    () => utimesSync(at("f"), 7, 7.5),
    () => time() === 7_500_000n,
  );
  assert.deepEqual(touched, ["modify f"], "by its time it may be another content");
});

test("a file of 64 KiB is in the entry, a larger one apart", async () => {
  const sizes = [65_536, 65_537];
  for (const size of sizes)
    await entriesOf(
      () => writeFileSync(at(`s${size}`), Buffer.alloc(size, "x")),
      () => has(`s${size}`),
    );
  const puts = sizes.map((size) => putOf(node.core.log.findLast(({ path }) => path === `s${size}`) as never));
  assert.deepEqual(
    puts.map(({ content, item }) => [content.length, item.blob.length, item.sizeBytes]),
    [
      [65_536, 0, 65_536n],
      [0, 16, 65_537n],
    ],
  );
});

test("a directory, and what is put into it at once, however deep", async () => {
  const deep = await entriesOf(
    () => {
      mkdirSync(at("d/e/g"), { recursive: true });
      writeFileSync(at("d/e/g/h"), "deep");
      symlinkSync("nowhere", at("d/link"));
    },
    () => has("d/e/g/h") && has("d/link"),
  );
  assert.deepEqual(deep.sort(), ["add d/e/g/h", "add d/link", "mkdir d", "mkdir d/e", "mkdir d/e/g"]);
  assert.equal(node.tree.get("d/link")?.target, "nowhere");
});

test("many files in a directory that is new: each is put in once", async () => {
  const entries = await entriesOf(
    () => {
      mkdirSync(at("many"));
      for (let i = 0; i < 300; i++) writeFileSync(at(`many/${i}`), String(i));
    },
    () => node.tree.names("many").length === 300,
  );
  assert.equal(entries.filter((entry) => entry.startsWith("add many/")).length, 300);
  assert.equal(new Set(entries).size, entries.length);
});

test("a rename is a move, of a file and of a directory with all below", async () => {
  assert.deepEqual(
    await entriesOf(
      () => renameSync(at("f"), at("d/f")),
      () => has("d/f"),
    ),
    ["move f d/f"],
  );
  assert.deepEqual(
    await entriesOf(
      () => renameSync(at("d"), at("q")),
      () => has("q/e/g/h"),
    ),
    ["move d q"],
  );
  const again = await entriesOf(
    () => renameSync(at("q/e/g/h"), at("q/h")),
    () => has("q/h"),
  );
  assert.deepEqual(again, ["move q/e/g/h q/h"]);
});

test("a second name of a file is a file of its own", async () => {
  assert.deepEqual(
    await entriesOf(
      () => linkSync(at("q/h"), at("q/h2")),
      () => has("q/h2"),
    ),
    ["add q/h2"],
  );
  assert.ok(has("q/h"));
});

test("what is removed is deleted, with all below in one entry where the directory goes as a whole", async () => {
  assert.deepEqual(
    await entriesOf(
      () => rmSync(at("q/h2")),
      () => !has("q/h2"),
    ),
    ["delete q/h2"],
  );
  const whole = await entriesOf(
    () => renameSync(at("many"), join(folder, "out")),
    () => !has("many"),
  );
  assert.deepEqual(whole, ["delete many"]);
});

test("a file in place of a directory, and a directory in place of a file", async () => {
  const toFile = await entriesOf(
    () => {
      rmSync(at("q"), { recursive: true });
      writeFileSync(at("q"), "file");
    },
    () => node.tree.get("q")?.kind === "file",
  );
  assert.equal(toFile.at(-1), "modify q");
  await entriesOf(
    () => {
      rmSync(at("q"));
      mkdirSync(at("q"));
      writeFileSync(at("q/in"), "");
    },
    () => has("q/in"),
  );
  assert.equal(node.tree.get("q")?.kind, "directory");
});

test("times before 1970 count as of then, of a file and of the directory that an entry changes", async () => {
  mkdirSync(at("ancient"));
  writeFileSync(at("ancient/file"), "x");
  await until("the file", () => has("ancient/file"));
  const longAgo = new Date("1960-01-01");
  utimesSync(at("ancient"), longAgo, longAgo);
  utimesSync(at("ancient/file"), longAgo, longAgo);
  await until("both times", () =>
    ["", "/file"].every((name) => node.tree.get(`ancient${name}`)?.mtimeUs === 0n),
  );
  chmodSync(at("ancient/file"), 0o600);
  await until("the permissions", () => node.tree.get("ancient/file")?.mode === 0o600);
});

test("a path that is too long for the protocol is said once, and left out", async () => {
  const name = "n".repeat(250);
  const before = process.cwd();
  process.chdir(at(""));
  for (let i = 0; i < 17; i++) {
    mkdirSync(name);
    process.chdir(name);
  }
  process.chdir(before);
  await until("the complaint", () => said.some((line) => /not replicated: .* too long/.test(line)));
  writeFileSync(at("short"), "x");
  await until("the next one", () => has("short"));
  renameSync(at(Array(9).fill(name).join("/")), at("rest")); // no name is too long to be removed now
});

test("what is no file, no directory and no link, or has no UTF-8 name, is said once, and left out", async () => {
  const strange = Buffer.concat([Buffer.from(at("/")), Buffer.from([0xff, 0xfe])]);
  writeFileSync(strange, "x");
  await until("the complaint", () => said.some((line) => /not UTF-8/.test(line)));
  rmSync(strange);
  assert.equal(said.filter((line) => /not UTF-8/.test(line)).length, 1);
});
