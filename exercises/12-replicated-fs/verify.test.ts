/** A node that is asked what lies on its disk, and how the answers are compared: in this process. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { encode } from "../../shared/pdu.ts";
import { serve } from "../../shared/tcp.ts";
import { admit, NO_CLUSTER, nextFrame } from "./link.ts";
import { frame, Item, NOTHING, Result } from "./protocol.ts";
import { directoryItem } from "./tree.ts";
import { differences, itemsOf } from "./verify.ts";

const result = (outcome: Result["outcome"], text = "") =>
  frame(2, "result", "", encode(Result, { outcome, text }));
const folder = directoryItem(0o755, 1n);
const file: Item = { ...folder, kind: "file", digest: Buffer.alloc(32, 1) };

/** What is made of these frames as the answer. */
async function answered(...frames: Buffer[]): Promise<Map<string, Item>> {
  const over = new AbortController();
  const { signal } = over;
  const server = await serve({ host: "127.0.0.1", port: 0, signal, log: () => {} }, async (connection) => {
    await admit(connection, NOTHING, 2, NO_CLUSTER);
    assert.equal((await nextFrame(connection)).action, "digest");
    for (const bytes of frames) await connection.write(bytes);
    connection.end();
  });
  try {
    return await itemsOf({ host: "127.0.0.1", port: server.port }, NOTHING, 1, NO_CLUSTER, signal);
  } finally {
    over.abort();
    await server.closed;
  }
}
const listed = (path: string, item: Item) => frame(2, "manifest", path, encode(Item, item));

test("who reads a large file says now and then that it goes on: that is not the end", async () => {
  const items = await answered(
    listed("", folder),
    result("waiting"),
    result("waiting"),
    listed("large", file),
    result("done"),
  );
  assert.deepEqual([...items.keys()], ["", "large"]);
});

test("an answer that ends otherwise is none", async () => {
  await assert.rejects(
    answered(listed("", folder), result("failed", "the disk is gone")),
    /the disk is gone/,
  );
  await assert.rejects(answered(listed("", folder)), /has closed the connection/);
});

test("what differs, by path", () => {
  const own = new Map(Object.entries({ a: file, b: file, c: file, d: file, e: folder }));
  const other = new Map(
    Object.entries({
      b: { ...file, digest: Buffer.alloc(32, 2) },
      c: { ...file, mode: 0o600 },
      d: { ...file, mtimeUs: 2n },
      e: { ...folder, kind: "link" as const, target: "x" },
      f: file,
    }),
  );
  assert.deepEqual(differences(own, other), [
    'only here: "/a"',
    'content differs: "/b"',
    'permissions 755 here, 600 there: "/c"',
    'time of modification differs: "/d"',
    'directory here, link there: "/e"',
    'only there: "/f"',
  ]);
  assert.deepEqual(differences(own, own), []);
});
