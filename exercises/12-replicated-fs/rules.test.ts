/** Paths, words, the tree, frames: what is pure. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { decode, encode } from "../../shared/pdu.ts";
import { decodeEntry, type Entry, encodeEntry, entryOf } from "./entries.ts";
import { checkPath } from "./paths.ts";
import { Frame, frame, type Item, MoveBody, NOTHING, PutBody } from "./protocol.ts";
import { directoryItem, Tree } from "./tree.ts";
import { matches, quote, resolvePath, wordsOf } from "./words.ts";

const SEED = { seed: 12, numRuns: 300 };
const file = (content: string): Item => ({
  ...directoryItem(0o644, 5n),
  kind: "file",
  sizeBytes: BigInt(content.length),
  digest: Buffer.from(content.padEnd(32)),
});
const put = (path: string, item: Item, timeUs = 7n): Entry =>
  entryOf(1, {
    action: item.kind === "directory" ? "mkdir" : "add",
    path,
    timeUs,
    body: encode(PutBody, { item, content: NOTHING }),
  });
const folder = (path: string) => put(path, directoryItem(0o755, 5n));
const move = (from: string, to: string) =>
  entryOf(1, { action: "move", path: from, timeUs: 9n, body: encode(MoveBody, { to }) });
const treeWith = (...entries: Entry[]) => {
  const tree = new Tree();
  for (const entry of entries) tree.apply(entry);
  return tree;
};
const pathsOf = (tree: Tree) => [...tree.walk("")].map(([path]) => path);

test("a frame on the wire: the assignment's four fields", () => {
  const bytes = frame(2, "delete", "a/ñ", Buffer.from("xy"));
  assert.equal(bytes.toString("hex"), "00000002000000040000000461 2fc3b10000000278 79".replaceAll(" ", ""));
  assert.deepEqual(decode(Frame, bytes), {
    idNode: 2,
    action: "delete",
    path: "a/ñ",
    data: Buffer.from("xy"),
  });
});

test("an entry is kept as it travels", () => {
  const entry = put("a b/c\nd", file("hola"));
  assert.deepEqual(decodeEntry(decode(Frame, encodeEntry(entry))), entry);
});

test("frames cut short or altered: they decode or are refused, nothing else", () => {
  const bytes = encodeEntry(put("a/b", file("hola")));
  for (let at = 0; at < bytes.length; at++) {
    const altered = Buffer.from(bytes);
    altered[at] = (altered[at] ?? 0) ^ 0x55;
    for (const tried of [bytes.subarray(0, at), altered])
      try {
        decodeEntry(decode(Frame, tried));
      } catch (error) {
        assert.match((error as Error).name, /^(PduError|Failure)$/);
      }
  }
});

test("paths that lead out of the directory, or are not plain, are none", () => {
  for (const path of ["..", "a/..", "../a", "/a", "a//b", "a/", ".", "a/./b", "a\0b", "x".repeat(256)])
    assert.throws(() => checkPath(path), { name: "Failure" }, path);
  for (const path of ["", "a", "a/b", "..a", "a..", " ", "a\nb", "ñ", "-r"])
    assert.equal(checkPath(path), path);
  const entry = { ...put("a", file("x")), path: "../a" };
  assert.throws(() => decodeEntry(decode(Frame, encodeEntry(entry))), /not a path within/);
  assert.throws(() => decodeEntry(decode(Frame, encodeEntry(move("a", "../b")))), /not a path within/);
});

test("whatever is typed stays within the directory", () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (base, path) => {
      const at = resolvePath(resolvePath("", base), path);
      if (at.split("/").every((part) => part.length < 64) && !at.includes("\0")) checkPath(at);
    }),
    SEED,
  );
  assert.equal(resolvePath("a/b", "../../../c"), "c");
  assert.equal(resolvePath("a", "/x/./y//z"), "x/y/z");
});

test("words: quotes, backslashes, and that quoting is undone by reading", () => {
  assert.deepEqual(
    wordsOf(`cp 'a b'  "c\\"d" e\\ f g'h'i`).map(({ text }) => text),
    ["cp", "a b", 'c"d', "e f", "ghi"],
  );
  assert.throws(() => wordsOf("cat 'a"), /not closed/);
  fc.assert(
    fc.property(fc.array(fc.string({ minLength: 1, unit: "grapheme" })), (texts) => {
      assert.deepEqual(
        wordsOf(texts.map(quote).join(" ")).map(({ text }) => text),
        texts,
      );
    }),
    SEED,
  );
});

test("globs as in a shell", () => {
  const cases: [string, string, boolean][] = [
    ["*.txt", "a.txt", true],
    ["*.txt", ".a.txt", false],
    [".*", ".a", true],
    ["?", "ñ", true],
    ["?", "ab", false],
    ["[a-c]x", "bx", true],
    ["[!a-c]x", "bx", false],
    ["[^a-c]x", "zx", true],
    ["a\\*", "a*", true],
    ["a\\*", "ab", false],
    ["a+(b)", "a+(b)", true],
    ["[z-a]", "b", false],
    ["*", "a\nb", true],
  ];
  for (const [pattern, name, is] of cases) assert.equal(matches(pattern, name), is, `${pattern} ${name}`);
  assert.equal(wordsOf("'*'")[0]?.pattern, "\\*", "what is quoted is no glob");
});

test("the tree: put, move with all below, delete; the directory's time is the entry's", () => {
  const tree = treeWith(
    folder("a"),
    put("a/f", file("1")),
    folder("a/b"),
    put("a/b/g", file("2")),
    move("a", "z"),
  );
  assert.deepEqual(pathsOf(tree), ["", "z", "z/b", "z/b/g", "z/f"]);
  assert.equal(tree.get("")?.mtimeUs, 9n);
  tree.apply(entryOf(1, { action: "delete", path: "z/b", timeUs: 11n, body: NOTHING }));
  assert.deepEqual(pathsOf(tree), ["", "z", "z/f"]);
  assert.equal(tree.get("z")?.mtimeUs, 11n);
});

test("the tree: what does not fit changes nothing", () => {
  const tree = treeWith(folder("a"), put("a/f", file("1")));
  const before = pathsOf(tree);
  for (const entry of [
    put("x/y", file("2")),
    put("a/f/y", file("2")),
    move("a", "a/b"),
    move("", "b"),
    move("q", "b"),
    move("a", "x/y"),
  ])
    tree.apply(entry);
  assert.deepEqual(pathsOf(tree), before);
});

test("the tree: a request is remembered, the last thousand of them", () => {
  const tree = new Tree();
  for (let i = 0; i < 1200; i++) {
    const request = Buffer.alloc(8);
    request.writeUInt32BE(i + 1);
    tree.apply(entryOf(1, { action: "begin", path: "", timeUs: 0n, body: NOTHING, request }));
  }
  assert.equal(tree.requests.size, 1000);
  assert.ok(tree.requests.has("000004b000000000"));
  assert.ok(!tree.requests.has("0000000100000000"));
});
