/** A log that is shortened again while what came before it is still being written: a replica in this process, its disk held up. */
import { strict as assert } from "node:assert";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { encode } from "../../shared/pdu.ts";
import { within } from "../../shared/running.ts";
import { type Entry, entryOf } from "./entries.ts";
import { ReplicaNode } from "./node.ts";
import { NOTHING, PutBody } from "./protocol.ts";
import { Store } from "./store.ts";
import { directoryItem, Tree } from "./tree.ts";

const BATCH = 2100;

test("what is written as the base is the tree up to where the log begins, however late it is written", async () => {
  const folder = mkdtempSync(join(tmpdir(), "netlab-compaction-"));
  mkdirSync(join(folder, "dir"));
  const over = new AbortController();
  const members = [1, 2, 3].map((id) => ({ id, uid: Buffer.alloc(16, id), host: "127.0.0.1", port: 1 }));
  const store = new Store(join(folder, "state"), false);
  await store.saveBase({ index: 0, term: 0, members: [1, 2, 3] }, new Tree([], [], members));
  await store.saveIdentity({ cluster: "00".repeat(16), uid: "01".repeat(16), id: 1 });
  const node = new ReplicaNode(
    {
      ...{ dir: join(folder, "dir"), state: join(folder, "state"), secret: NOTHING, minReplicas: 1 },
      ...{ isSynchronous: false, electionMs: 1000, own: () => ({ host: "127.0.0.1", port: 1 }) },
      ...{ signal: over.signal, log: () => {}, debug: () => {} },
    },
    store,
  );
  const until = (what: string, isTrue: () => boolean) =>
    within(
      (async () => {
        while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 10));
      })(),
      what,
      120_000,
    );
  const modes = [0o700, 0o755];
  const take = (from: number) => {
    const entries: Entry[] = Array.from({ length: BATCH }, (_, i) => {
      const item = directoryItem(modes[i % 2] as number, BigInt(from + i));
      const body = encode(PutBody, { item, content: NOTHING });
      return entryOf(1, { action: "mkdir", path: `d${from}-${i % 50}`, timeUs: BigInt(from + i), body });
    });
    const prevTerm = from === 0 ? 0 : 1;
    node.receive({
      kind: "append",
      from: 2,
      term: 1,
      prevIndex: from,
      prevTerm,
      entries,
      commit: from + BATCH,
    });
  };
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const saveBase = store.saveBase.bind(store);
  store.saveBase = async (...args) => held.then(() => saveBase(...args));
  let saving = 0;
  const save = store.save.bind(store);
  store.save = async (core) => {
    saving++;
    await save(core).finally(() => saving--);
  };
  take(0);
  await until("the first to be forgotten", () => node.core.base.index >= BATCH);
  take(BATCH);
  await until("the second to be forgotten", () => node.core.base.index >= 2 * BATCH);
  release();
  await until("all to be written", () => store.base.index === node.core.base.index && saving === 0);
  const timesOf = (tree: Tree) => [...tree.items].map(([path, { mtimeUs }]) => `${path} ${mtimeUs}`).sort();
  assert.deepEqual(timesOf(store.tree), timesOf(node.tree));
  assert.equal(store.base.index, 2 * BATCH);
  over.abort();
  await node.inQueue(() => {});
  await store[Symbol.asyncDispose]();
  node.disk.close();
  rmSync(folder, { recursive: true });
});
