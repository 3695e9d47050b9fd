/** The PDUs, the index, paths, the listing and the folder: what needs no network. */
import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { mkdtemp, rename, rm, symlink, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { decode, encode, PduError } from "../../shared/pdu.ts";
import { serve } from "../../shared/tcp.ts";
import { within } from "../../shared/testing.ts";
import { type Document, OwnIndex, RemoteIndex } from "./document-index.ts";
import { answer, fetchContent } from "./exchange.ts";
import { Folder, type FoundFile } from "./folder.ts";
import { Gate } from "./gate.ts";
import { isSignedBy, newIdentity } from "./identity.ts";
import { contains, labels, listingLines, listingOf, matches, rowCalled } from "./listing.ts";
import { LONG_MS, put } from "./local-segment.ts";
import {
  ANNOUNCEMENT_BYTES,
  Announcement,
  changeOf,
  dissectors,
  documentMessage,
  indexProof,
  LAST_PORT,
  Message,
  PORT,
  readAnnouncement,
  signedAnnouncement,
  signedPart,
} from "./protocol.ts";
import { plainName, printable, whyUnsafe } from "./safe-path.ts";
import { broadcastAddresses } from "./segment.ts";

const SEED = 15;
const forAll = <T>(arbitrary: fc.Arbitrary<T>, holds: (value: T) => void) =>
  fc.assert(fc.property(arbitrary, holds), { seed: SEED });
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
const documentOf = (path: string, content = path): Document => ({
  ...{ path, size: content.length, modifiedMs: 1000, sha256: sha256(content) },
});
const bytes = (size: number) =>
  fc.uint8Array({ minLength: size, maxLength: size }).map((array) => Buffer.from(array));

const GOLDEN = {
  ...{ kind: "announce" as const, flags: { reply: true }, node: Buffer.alloc(32, 0xaa), sequence: 7n },
  ...{ port: 8001, version: 3, digest: Buffer.alloc(16, 0xbb), name: "ana" },
};

test("an announcement, byte by byte", () => {
  const hex = [
    ...["4e4c4449", "01", "80", "aa".repeat(32), "0000000000000007", "1f41", "00000003"],
    ...["bb".repeat(16), `616e61${"00".repeat(21)}`, "cc".repeat(64)],
  ].join("");
  const datagram = signedAnnouncement(GOLDEN, () => Buffer.alloc(64, 0xcc));
  assert.equal(datagram.toString("hex"), hex);
  assert.equal(ANNOUNCEMENT_BYTES, 156);
  assert.deepEqual(readAnnouncement(datagram, 8001), { ...GOLDEN, signature: Buffer.alloc(64, 0xcc) });
  assert.throws(() => readAnnouncement(datagram, 8002), /port 8001 came from port 8002/);
  for (let size = 0; size < datagram.length; size++)
    assert.throws(() => readAnnouncement(datagram.subarray(0, size), 8001), /are no announcement/);
});

test("a message of each type, byte by byte", () => {
  const nonce = Buffer.alloc(16, 1);
  const all: [Message, string][] = [
    [{ type: "indexRequest", nonce, since: 9 }, `01${"01".repeat(16)}00000009`],
    [
      documentMessage({ ...documentOf("a/b"), size: 258 }),
      `030003612f620000000000000102${"00".repeat(6)}03e8${sha256("a/b")}`,
    ],
    [{ type: "removed", path: "ñ" }, "040002c3b1"],
    [
      { type: "contentRequest", sha256: Buffer.alloc(32, 2), offset: 1n },
      `05${"02".repeat(32)}0000000000000001`,
    ],
    [{ type: "content", size: 2n }, "060000000000000002"],
    [{ type: "chunk", data: Buffer.from("xy") }, "07000000027879"],
    [{ type: "refusal", reason: "no" }, "08026e6f"],
  ];
  for (const [message, hex] of all) {
    assert.equal(encode(Message, message).toString("hex"), hex);
    assert.deepEqual(decode(Message, Buffer.from(hex, "hex")), message);
    for (let size = 0; size < hex.length / 2; size++)
      assert.throws(() => decode(Message, Buffer.from(hex, "hex").subarray(0, size)), PduError);
  }
});

test("any announcement survives the way; any bytes are one, or a PduError", () => {
  const name = fc
    .string({ unit: "grapheme", maxLength: 6 })
    .filter((text) => !text.includes("\0") && Buffer.byteLength(text) <= 24);
  const parts = fc.tuple(
    bytes(32),
    bytes(16),
    bytes(64),
    fc.bigInt(0n, 2n ** 64n - 1n),
    fc.nat(65_535),
    name,
  );
  forAll(parts, ([node, digest, signature, sequence, port, name]) => {
    const announcement: Announcement = { ...GOLDEN, node, digest, signature, sequence, port, name };
    assert.deepEqual(decode(Announcement, encode(Announcement, announcement)), announcement);
  });
  forAll(fc.uint8Array({ maxLength: 200 }), (array) => {
    try {
      decode(Message, Buffer.from(array));
    } catch (error) {
      assert.ok(error instanceof PduError);
    }
  });
});

test("a signature fits its key and its bytes only; an index proof its nonce, node, version and digest", () => {
  const [ana, bob] = [newIdentity(), newIdentity()];
  const datagram = signedAnnouncement({ ...GOLDEN, node: ana.key }, ana.sign);
  const { signature } = readAnnouncement(datagram, 8001);
  assert.ok(isSignedBy(ana.key, signedPart(datagram), signature));
  assert.ok(!isSignedBy(bob.key, signedPart(datagram), signature));
  for (let at = 0; at < signedPart(datagram).length; at++) {
    const altered = Buffer.from(signedPart(datagram));
    altered[at] = (altered[at] ?? 0) ^ 1;
    assert.ok(!isSignedBy(ana.key, altered, signature), `byte ${at}`);
  }
  const proofs = [
    indexProof(Buffer.alloc(16), ana.key, 1, Buffer.alloc(16)),
    indexProof(Buffer.alloc(16, 1), ana.key, 1, Buffer.alloc(16)),
    indexProof(Buffer.alloc(16), bob.key, 1, Buffer.alloc(16)),
    indexProof(Buffer.alloc(16), ana.key, 2, Buffer.alloc(16)),
    indexProof(Buffer.alloc(16), ana.key, 1, Buffer.alloc(16, 1)),
    signedPart(datagram),
  ];
  assert.equal(new Set(proofs.map((proof) => proof.toString("hex"))).size, proofs.length);
});

test("the gate: the segment's ports only, not the node's own, and so many signatures a second", (t) => {
  let nowMs = 0;
  t.mock.method(performance, "now", () => nowMs);
  const [own, other] = [newIdentity(), newIdentity()];
  const gate = new Gate(own.key, { first: PORT, last: LAST_PORT });
  const said = (port: number, { key, sign } = other, sequence = 7n) =>
    signedAnnouncement({ ...GOLDEN, node: key, port, sequence }, sign);
  for (const port of [PORT, LAST_PORT]) assert.equal(gate.admit(said(port), port)?.port, port);
  for (const port of [PORT - 1, LAST_PORT + 1])
    assert.throws(() => gate.admit(said(port), port), /which is none of 8000-8005$/);
  assert.equal(gate.admit(said(PORT, own), PORT), undefined);
  const { digest, ...news } = gate.admit(said(PORT), PORT) ?? {};
  const expected = { id: other.key.toString("hex"), name: "ana", leaves: false, wantsReply: true };
  assert.deepEqual(news, { ...expected, sequence: 7n, port: PORT, version: 3 });
  const leave = signedAnnouncement({ ...GOLDEN, node: other.key, port: PORT, kind: "leave" }, other.sign);
  assert.equal(gate.admit(leave, PORT)?.leaves, true);
  const reused = said(PORT);
  for (let i = 0; i < 1100; i++) assert.ok(gate.admit(reused, PORT), "the same one is not looked at again");
  reused.writeUInt32BE(4, 48);
  assert.throws(() => gate.admit(reused, PORT), /whose signature is wrong$/);
  for (let i = 0; i < 1000; i++) {
    reused.writeUInt32BE(5 + i, 48);
    try {
      assert.equal(gate.admit(reused, PORT), undefined);
    } catch (error) {
      assert.match(String(error), /whose signature is wrong$/);
    }
  }
  assert.equal(gate.admit(said(PORT, other, 8n), PORT), undefined, "there is no time for more");
  nowMs = 1000;
  assert.equal(gate.admit(said(PORT, other, 8n), PORT)?.sequence, 8n);
  assert.equal(digest?.equals(GOLDEN.digest), true);
});

test("contents come from below the folder only, and only as the index has them", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "netlab-15-"));
  const [folder, stop] = [join(directory, "shared"), new AbortController()];
  t.after(() => {
    stop.abort();
    return rm(directory, { recursive: true });
  });
  await put(folder, "honest", "x");
  await put(directory, "secret", "x");
  await put(directory, "shared-not/secret", "x");
  await symlink(join(directory, "secret"), join(folder, "file"));
  await symlink(join(directory, "shared-not"), join(folder, "beside"));
  const index = new OwnIndex();
  const options = { host: "127.0.0.1", port: 0, signal: stop.signal, log: () => {} };
  const server = await serve(options, (connection) =>
    answer(connection, { identity: newIdentity(), index, folder }),
  );
  const place = { address: "127.0.0.1", port: server.port };
  const contentOf = async (path: string, size: number) => {
    const document = { ...documentOf(path), size };
    index.set(document);
    const pieces: Buffer[] = [];
    for await (const piece of fetchContent(place, document, 0, stop.signal)) pieces.push(Buffer.from(piece));
    return Buffer.concat(pieces).toString();
  };
  assert.equal(await contentOf("honest", 1), "x");
  for (const path of ["file", "beside/secret"])
    await assert.rejects(contentOf(path, 1), /refused: the document is gone/);
  await assert.rejects(contentOf("honest", 2), /refused: the document has changed/);
});

test("a document message that no honest node sends is a lie", () => {
  const fine = documentOf("a/b.txt");
  assert.deepEqual(changeOf(documentMessage(fine)), fine);
  assert.deepEqual(changeOf({ type: "removed", path: "x" }), { path: "x" });
  const asDocument = { ...documentMessage(fine), type: "document" as const } as Message & {
    type: "document";
  };
  const lies: Message[] = [
    { ...asDocument, path: "../a" },
    { type: "removed", path: "/a" },
    { ...asDocument, size: 2n ** 60n },
    { ...asDocument, modifiedMs: 2n ** 63n },
    { type: "refusal", reason: "" },
  ];
  for (const lie of lies) assert.throws(() => changeOf(lie), { name: "LieError" });
  const commands: Message = { type: "removed", path: "../\u009b2J\u202e" };
  assert.throws(() => changeOf(commands), {
    message: /^names a document "\.\.\/\\u\{9b\}2J\\u\{202e\}", which/,
  });
});

const steps = fc.array(
  fc.record({
    path: fc.constantFrom("a", "b", "c", "d/e"),
    content: fc.option(fc.nat(3), { freq: 3 }),
    sync: fc.boolean(),
  }),
  { maxLength: 60 },
);

test("whoever follows by increments, from whatever version, has what the node has", () => {
  forAll(steps, (changes) => {
    const own = new OwnIndex();
    const [often, seldom] = [new RemoteIndex(), new RemoteIndex()];
    const sorted = (documents: Iterable<Document>) =>
      Array.from(documents, ({ path, sha256 }) => `${path} ${sha256}`).toSorted();
    for (const { path, content, sync } of changes) {
      if (content === null) own.remove(path);
      else own.set(documentOf(path, `${content}`));
      if (!sync) continue;
      often.apply(own.since(often.version));
      assert.deepEqual(sorted(often.documents), sorted(own.documents));
    }
    seldom.apply(own.since(seldom.version));
    assert.deepEqual(sorted(seldom.documents), sorted(own.documents));
    assert.ok(seldom.digest.equals(own.digest));
    assert.equal(seldom.size, own.size);
  });
});

test("an increment holds what changed and no more, even what came and went", () => {
  const own = new OwnIndex();
  for (const path of ["a", "b", "c"]) own.set(documentOf(path));
  const { version } = own;
  assert.equal(own.set(documentOf("a")), false, "the same again is no change");
  assert.equal(own.remove("nothing"), false);
  assert.equal(own.version, version);
  own.set(documentOf("b", "new"));
  own.set(documentOf("x"));
  own.remove("x");
  own.remove("c");
  const { whole, changes } = own.since(version);
  assert.equal(whole, false);
  assert.deepEqual(changes.map((change) => change.path).toSorted(), ["b", "c", "x"]);
  assert.deepEqual(own.since(0).changes.length, 2);
  assert.equal(own.since(own.version + 1).whole, true, "from a version that never was");
  assert.equal(own.withContent(sha256("new"))?.path, "b");
});

test("removals beyond 10,000 are forgotten: who has not seen them gets everything", () => {
  const own = new OwnIndex();
  own.set(documentOf("stays"));
  const early = own.version;
  for (let i = 0; i < 10_001; i++) {
    own.set(documentOf(`d${i}`));
    own.remove(`d${i}`);
  }
  assert.equal(own.since(early).whole, true);
  assert.equal(own.since(own.version - 5).whole, false);
});

test("an update that does not make its digest changes nothing", () => {
  const own = new OwnIndex();
  own.set(documentOf("a"));
  const remote = new RemoteIndex();
  remote.apply(own.since(0));
  own.set(documentOf("b"));
  const update = own.since(1);
  for (const changes of [[], [documentOf("c")], [...update.changes, documentOf("c")], [{ path: "a" }]]) {
    assert.throws(() => remote.apply({ ...update, changes }), /is not what its digest says/);
    assert.deepEqual(Array.from(remote.documents), [documentOf("a")]);
  }
  assert.throws(() => remote.apply({ ...update, changes: [documentOf("b"), documentOf("b")] }), /twice/);
  remote.apply(update);
  assert.equal(remote.size, 2);
});

test("paths: below the folder or refused, and no control reaches a terminal or a file's name", () => {
  for (const path of ["a", "a/b", "...", "a..b/c", "ñ", "a b", "-rf", "~", "ab:c"])
    assert.equal(whyUnsafe(path), undefined, path);
  for (const path of [
    "",
    "..",
    "../a",
    "a/..",
    "a/../b",
    "/a",
    "a//b",
    "a/",
    "./a",
    ".",
    "a\\b",
    "C:x",
    "a\0b",
  ])
    assert.notEqual(whyUnsafe(path), undefined, path);
  forAll(fc.string({ unit: "binary" }), (path) => {
    assert.doesNotMatch(printable(path), /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/u);
    assert.doesNotMatch(plainName(path), /[\p{Cc}/]/u);
    if (whyUnsafe(path) === undefined) assert.notEqual(plainName(path), "");
  });
  const commands = "\0\t\n\r\u001b\u007f\u0085\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069";
  for (const command of commands) {
    assert.match(printable(`a${command}b`), /^a\\(?:[nrt]|u\{[0-9a-f]{2,4}\})b$/);
    assert.equal(plainName(`a${command}b`), "a_b");
  }
  assert.equal(printable("\u001b[2J\n\u202ex"), "\\u{1b}[2J\\n\\u{202e}x");
  assert.equal(plainName("a/b\nc"), "b_c");
});

const holders = () => [
  { id: "1".repeat(64), name: "ana", documents: [documentOf("x", "one"), documentOf("copy", "one")] },
  { id: "2".repeat(64), name: "bob", documents: [documentOf("x", "two"), documentOf("d/y", "one")] },
  { id: "3".repeat(64), name: "bob", documents: [documentOf("x", "two")] },
];

test("the listing: by path and content, copies and differences marked, nodes of one name told apart", () => {
  const rows = listingOf(holders());
  const told = rows.map(
    ({ path, differs, sameAs, holders }) => `${path} ${differs} ${sameAs} ${holders.length}`,
  );
  assert.deepEqual(told.slice(0, 2), ["copy false d/y,x 1", "d/y false copy,x 1"]);
  assert.deepEqual(told.slice(2).toSorted(), ["x true  2", "x true copy,d/y 1"]);
  const lines = listingLines(rows);
  assert.match(lines[0] ?? "", /^DOCUMENT +CONTENT +SIZE +MODIFIED \(UTC\) +NODES$/);
  assert.match(lines.join("\n"), /^x +≠ [0-9a-f]{8} +3 B +1970-01-01 00:00 +bob~2222, bob~3333$/m);
  assert.match(lines.join("\n"), /^copy .* = d\/y and 1 more$/m);
  assert.equal(labels(holders()).get("1".repeat(64)), "ana");
});

test("ten thousand documents of one content are listed in a moment, and so is a pattern of many stars", () => {
  const count = 10_000;
  const documents = Array.from({ length: count }, (_, i) => documentOf(`empty/${i}`, ""));
  const beginMs = process.cpuUsage().user / 1000;
  const [first] = listingOf([{ id: "1", name: "ana", documents }]);
  assert.deepEqual([first?.copies, first?.sameAs.length, first?.sameAs[0]], [count - 1, 10, "empty/1"]);
  const isLike = matches(`${"*a".repeat(30)}b`);
  assert.equal(isLike("a".repeat(1024)), false);
  assert.equal(isLike(`${"a".repeat(1000)}b`), true);
  const tookMs = process.cpuUsage().user / 1000 - beginMs;
  assert.ok(tookMs < 5000, `${tookMs} ms of CPU`);
});

test("a pattern means what a regular expression would", () => {
  const text = fc.string({ unit: fc.constantFrom("a", "b", ".", "\n", "💾"), maxLength: 8 });
  const pattern = fc.string({ unit: fc.constantFrom("a", "b", ".", "*", "?"), maxLength: 6 });
  forAll(fc.tuple(pattern, text), ([pattern, text]) => {
    const source = pattern.replaceAll(".", "\\.").replaceAll("*", ".*").replaceAll("?", ".");
    const expression = new RegExp(`^${source}$`, "su");
    const expected = expression.test(text) || expression.test(printable(text));
    assert.equal(matches(pattern)(text), expected, `${pattern} ${JSON.stringify(text)}`);
  });
});

test("a document is called by path, name, or content; two contents must be told apart", () => {
  const rows = listingOf(holders());
  assert.equal(rowCalled("copy", rows).sha256, sha256("one"));
  assert.equal(rowCalled("y", rows).path, "d/y");
  assert.equal(rowCalled(sha256("two").slice(0, 8), rows).sha256, sha256("two"));
  assert.throws(() => rowCalled("x", rows), /"x" is 2 different documents; .*--from a node: .* at ana/);
  assert.throws(() => rowCalled("z", rows), /there is no document "z"; see list/);
  for (const [pattern, path, isMatch] of [
    ["*", "a/b", true],
    ["a?c", "abc", true],
    ["a?c", "ac", false],
    ["a.c", "abc", false],
    ["[a]*", "[a]b", true],
    ["a*", "ba", false],
  ] as const)
    assert.equal(matches(pattern)(path), isMatch, pattern);
  assert.ok(contains("ÁB")("xáb") && !contains("c")("ab"));
});

test("broadcast addresses: the host part all ones, and always this machine's own", () => {
  const info = (address: string, netmask: string, family: "IPv4" | "IPv6" = "IPv4") => ({
    address,
    netmask,
    family,
  });
  const interfaces = {
    lo: [info("127.0.0.1", "255.0.0.0"), info("::1", "ffff::", "IPv6")],
    eth0: [info("192.0.2.130", "255.255.255.128"), info("10.1.2.3", "255.255.0.0")],
    tun0: [info("10.9.9.9", "255.255.255.255")],
    tun1: [info("10.9.8.8", "255.255.255.254")],
    gone: undefined,
  };
  assert.deepEqual(broadcastAddresses(interfaces), ["127.255.255.255", "192.0.2.255", "10.1.255.255"]);
  assert.deepEqual(broadcastAddresses({}), ["127.255.255.255"]);
});

test("the dissectors cover the assignment's ports, UDP and TCP", () => {
  assert.deepEqual(
    dissectors.map(({ tcp, udp }) => [tcp, udp]),
    [
      [undefined, [`${PORT}-${LAST_PORT}`]],
      [[`${PORT}-${LAST_PORT}`], undefined],
    ],
  );
});

test("files beyond the limit are not told, and that is said once", async () => {
  const folder = await mkdtemp(join(tmpdir(), "netlab-folder-"));
  const stop = new AbortController();
  try {
    for (const name of ["a", "b", "c", "d"]) await put(folder, name, name);
    const told: string[] = [];
    const lines: string[] = [];
    const onFile = ({ path }: FoundFile) => void told.push(path);
    const log = (line: string) => void lines.push(line);
    const quiet = { onGone: () => {}, onChanges: () => {} };
    await Folder.open({ folder, maxFiles: 2, signal: stop.signal, log, onFile, ...quiet });
    assert.equal(told.length, 2);
    assert.deepEqual(lines, ["only 2 documents are shared, not the others"]);
  } finally {
    stop.abort();
    await rm(folder, { recursive: true });
  }
});

test("a folder that is not watched is looked through: what comes, changes and goes is found", async () => {
  const folder = await mkdtemp(join(tmpdir(), "netlab-folder-"));
  const stop = new AbortController();
  const told: string[] = [];
  const open = (onChanges: () => void) =>
    Folder.open({
      ...{ folder, watchAfterMs: 100_000_000, signal: stop.signal, log: () => {}, onChanges },
      onFile: ({ path, size }) => told.push(`${path} ${size}`),
      onGone: (path) => told.push(`${path} gone`),
    });
  try {
    for (const name of ["changes", "goes", "stays"]) await put(folder, name, name);
    const found = new Promise<void>((resolve) => {
      const hasAll = () => ["comes 5", "changes 3", "goes gone"].every((line) => told.includes(line));
      void open(() => hasAll() && resolve()).then(async () => {
        assert.deepEqual(told.splice(0).toSorted(), ["changes 7", "goes 4", "stays 5"]);
        await put(folder, "comes", "comes");
        await put(folder, "changes", "new");
        await rm(join(folder, "goes"));
      });
    });
    await within(found, "what has changed", LONG_MS);
    assert.ok(!told.includes("stays 5"), "it was told before");
  } finally {
    stop.abort();
    await rm(folder, { recursive: true });
  }
});

test("a folder: a file of a time to come is read once; one whose name is not UTF-8 is said and left out", async () => {
  const folder = await mkdtemp(join(tmpdir(), "netlab-folder-"));
  const stop = new AbortController();
  const lines: string[] = [];
  try {
    await put(folder, "tomorrow", "x");
    const later = new Date(Date.now() + 86_400_000);
    await utimes(join(folder, "tomorrow"), later, later);
    await writeFile(Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0x66, 0xff])]), "x").catch(
      () => {},
    );
    const told = new Set<string>();
    let found = () => {};
    const isFound = new Promise<void>((resolve) => {
      found = resolve;
    });
    const opened = await Folder.open({
      ...{ folder, watchAfterMs: LONG_MS, signal: stop.signal, log: (line) => lines.push(line) },
      ...{ onFile: ({ path }) => told.add(path), onGone: () => {} },
      onChanges: () => told.has("comes") && found(),
    });
    await put(folder, ".y.nldi-part", "y");
    await rename(join(folder, ".y.nldi-part"), join(folder, "comes"));
    await within(isFound, "all to be looked through again", LONG_MS);
    assert.ok(opened.filesRead <= 2, `${opened.filesRead} reads`);
    if (process.platform === "linux")
      assert.deepEqual(lines, ['"f\ufffd" is not shared: its name is not UTF-8']);
  } finally {
    stop.abort();
    await rm(folder, { recursive: true });
  }
});

test("a folder: hashed once, read again only where size or time differ, watched for what comes and goes", async () => {
  const folder = await mkdtemp(join(tmpdir(), "netlab-folder-"));
  const stop = new AbortController();
  const files = new Map<string, FoundFile>();
  const lines: string[] = [];
  let wake = () => {};
  const until = async (isSo: () => boolean) => {
    while (!isSo()) await within(new Promise<void>((resolve) => (wake = resolve)), "a change", LONG_MS);
  };
  try {
    await put(folder, "a/b.txt", "old");
    await put(folder, "large.bin", Buffer.alloc(300_000, 7));
    await put(folder, ".x.nldi-part", "half");
    await put(folder, "back\\slash", "x");
    await symlink("/etc/passwd", join(folder, "link"));
    const long = new Date(Date.now() - 10_000);
    await utimes(join(folder, "a/b.txt"), long, long);
    await utimes(join(folder, "large.bin"), long, long);
    const opened = await Folder.open({
      folder,
      watchAfterMs: 0,
      signal: stop.signal,
      log: (line) => lines.push(line),
      onFile: (file) => files.set(file.path, file),
      onGone: (path) => files.delete(path),
      onChanges: () => wake(),
    });
    assert.deepEqual([...files.keys()].toSorted(), ["a/b.txt", "large.bin"]);
    assert.equal(files.get("a/b.txt")?.sha256, sha256("old"));
    assert.equal(
      files.get("large.bin")?.sha256,
      createHash("sha256").update(Buffer.alloc(300_000, 7)).digest("hex"),
    );
    assert.equal(files.get("a/b.txt")?.modifiedMs, long.getTime());
    assert.deepEqual(lines, [
      '"back\\\\slash" is not shared: it has a backslash, which separates folders on some systems',
    ]);

    await put(folder, "new/c.txt", "c");
    await until(() => files.has("new/c.txt"));
    await truncate(join(folder, "a/b.txt"), 1);
    await until(() => files.get("a/b.txt")?.sha256 === sha256("o"));
    await rm(join(folder, "new"), { recursive: true });
    await until(() => !files.has("new/c.txt"));
    assert.ok(opened.filesRead <= 8, `${opened.filesRead} reads: the unchanged ones are not read again`);
    assert.equal(lines.length, 1, "said once");
  } finally {
    stop.abort();
    await rm(folder, { recursive: true });
  }
});
