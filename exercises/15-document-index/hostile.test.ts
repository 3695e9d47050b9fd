/** A node among peers that lie, forge, replay, stall and flood: it refuses them, says so once, and goes on. */
import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect as connectSocket } from "node:net";
import { after, before, test } from "node:test";
import type { Connection } from "../../shared/connection.ts";
import { encode } from "../../shared/pdu.ts";
import { connect } from "../../shared/tcp.ts";
import { PATIENCE_MS, within, writeSplit } from "../../shared/testing.ts";
import { fetchContent, fetchIndex } from "./exchange.ts";
import { FakePeer } from "./fake-peer.ts";
import { LONG_MS, type LocalNode, LocalSegment } from "./local-segment.ts";
import { documentMessage, indexProof, Message } from "./protocol.ts";

let segment: LocalSegment;
let node: LocalNode;
before(async () => {
  segment = await LocalSegment.open();
  node = await segment.start("node", { documents: { "own.txt": "own" } });
});
after(() => segment[Symbol.asyncDispose]());

const signal = new AbortController().signal;
const places = () => ({ address: "127.0.0.1", port: node.running.port });
const stderrLines = (pattern: RegExp) => node.running.stderr.split("\n").filter((line) => pattern.test(line));
const said = (pattern: RegExp) => node.running.output(pattern, "stderr", LONG_MS);
const documentOf = (path: string) => ({ path, size: 1, modifiedMs: 1, sha256: "ab".repeat(32) });
const port = (i: number) => segment.first + i;

/** Once this one is known, everything that was sent before it has been dealt with. */
async function fence(): Promise<void> {
  await using peer = await FakePeer.open(port(5));
  const knock = async () => {
    await peer.send(peer.announcement({ name: "fence" }), node.running.port); // the queue may be full
    return node.nodes();
  };
  await node.until(knock, (nodes) => nodes.some(({ id }) => id === peer.id), "the fence");
  await peer.send(peer.announcement({ kind: "leave" }), node.running.port);
  await node.until(node.nodes, (nodes) => nodes.every(({ id }) => id !== peer.id), "the end of the fence");
}

test("an honest peer is a member, its documents are listed, and its farewell counts", async () => {
  await using peer = await FakePeer.open(port(1), [documentOf("honest.txt")]);
  await peer.send(peer.announcement(), node.running.port);
  await node.knows("honest.txt");
  await peer.send(peer.announcement({ kind: "leave" }), node.running.port);
  await node.seesNodes(1);
});

test("garbage, cut, altered and foreign datagrams: refused, each kind said once", async () => {
  await using peer = await FakePeer.open(port(1));
  const good = peer.announcement();
  for (let round = 0; round < 3; round++) {
    for (const size of [0, 1, 3, good.length - 1, good.length, good.length + 1, 1400])
      await peer.send(randomBytes(size), node.running.port);
    for (let at = 0; at < good.length; at++) {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] ?? 0) ^ (1 << round);
      await peer.send(bad, node.running.port);
    }
  }
  await fence();
  assert.equal((await node.nodes()).length, 1);
  assert.equal(stderrLines(/refused: an announcement whose signature is wrong/).length, 1);
  assert.equal(stderrLines(/refused: the announcement of port \d+ came from port/).length, 1);
  assert.ok(stderrLines(/refused: /).length <= 16, node.running.stderr);
});

const onLinux = { skip: process.platform !== "linux" }; // elsewhere 127.0.0.1 is all there is of its network
test("a kind of garbage is said once for each host that sends it", onLinux, async () => {
  const sockets = ["127.0.0.3", "127.0.0.4"].map((address) => createSocket("udp4").bind(port(2), address));
  for (const socket of sockets) {
    for (const size of [7, 8, 9]) socket.send(randomBytes(size), node.running.port, "127.0.0.1");
  }
  for (const host of ["127.0.0.3", "127.0.0.4"])
    await said(new RegExp(`^${host}:\\d+: refused: \\d bytes are no announcement`, "m"));
  await fence();
  assert.equal(stderrLines(/^127\.0\.0\.[34]:\d+: refused: /).length, 2);
  for (const socket of sockets) socket.close();
});

test("an announcement in another's name, sent again, or in the name of who is gone does nothing", async () => {
  await using victim = await FakePeer.open(port(1), [documentOf("victim.txt")]);
  victim.answers = { name: "victim" };
  const first = victim.announcement({ name: "victim" });
  await victim.send(first, node.running.port);
  await node.knows("victim.txt");
  await victim.send(victim.announcement({ name: "victim" }), node.running.port);
  await fence();
  await victim.send(first, node.running.port);
  await said(/^victim \([0-9a-f]{8}\): an announcement that came late, or was replayed, does not count$/m);

  const forged = victim.announcement({ kind: "leave" });
  forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1;
  await victim.send(forged, node.running.port);
  await fence();
  assert.ok(
    (await node.list()).some(({ path }) => path === "victim.txt"),
    "it has not left",
  );

  victim.answers = undefined;
  const kept = victim.announcement({ name: "victim" });
  await victim.send(victim.announcement({ kind: "leave" }), node.running.port);
  await node.seesNodes(1);
  await victim.send(kept, node.running.port);
  await victim.send(victim.announcement(), node.running.port);
  await fence();
  assert.equal((await node.nodes()).length, 1, "nobody comes back from a farewell");
});

test("a recording of a node does not bring it to life: who answers must prove that it has the key", async () => {
  await using dead = await FakePeer.open(port(1), [documentOf("ghost.txt")]);
  await using impostor = await FakePeer.open(port(2), [documentOf("ghost.txt")]);
  // The announcement is genuine but for the port, which stands for a forged source address.
  const recorded = dead.announcement({ port: port(2), name: "ghost" });
  await impostor.send(recorded, node.running.port);
  await said(/^ghost \([0-9a-f]{8}\): refused: cannot prove that it is who it says$/m);
  assert.equal((await node.nodes()).length, 1);
});

/** What a peer may say about its index that is not so. */
const LIES: [string, RegExp, (connection: Connection, peer: FakePeer, nonce: Buffer) => Promise<void>][] = [
  [
    "a path out of the folder",
    /refused: names a document "\.\.\/\.\.\/evil", which leads out of the folder/,
    (connection, peer, nonce) => answerWith(connection, peer, nonce, [documentOf("../../evil")]),
  ],
  [
    "an absolute path",
    /refused: names a document "\/etc\/passwd", which is not below the folder/,
    (connection, peer, nonce) => answerWith(connection, peer, nonce, [documentOf("/etc/passwd")]),
  ],
  [
    "the same path twice",
    /refused: its index names "a" twice/,
    (connection, peer, nonce) => answerWith(connection, peer, nonce, [documentOf("a"), documentOf("a")]),
  ],
  [
    "another index than its digest",
    /refused: its index is not what its digest says/,
    (connection, peer, nonce) => answerWith(connection, peer, nonce, [documentOf("other")]),
  ],
  [
    "more documents than there may be",
    /refused: says that 4294967295 documents follow/,
    (connection, peer, nonce) => answerWith(connection, peer, nonce, [], 0xffff_ffff),
  ],
  [
    "a path longer than allowed",
    /refused: .*path at byte \d+: is 65535 bytes, at most 1024 are allowed/,
    async (connection, peer, nonce) => {
      await answerWith(connection, peer, nonce, [], 1);
      await connection.write(Buffer.concat([Buffer.from([3, 0xff, 0xff]), randomBytes(100)]));
    },
  ],
  [
    "a type that there is not",
    /refused: .*unknown code 99/,
    (connection) => connection.write(Buffer.alloc(10, 99)),
  ],
];

function answerWith(
  connection: Connection,
  { identity, index }: FakePeer,
  nonce: Buffer,
  documents: ReturnType<typeof documentOf>[],
  count = documents.length,
): Promise<void> {
  const { version, digest } = index;
  const signature = identity.sign(indexProof(nonce, identity.key, version, digest));
  const head: Message = { type: "index", version, digest, flags: { whole: true }, count, signature };
  return connection.write(
    Buffer.concat([head, ...documents.map(documentMessage)].map((m) => encode(Message, m))),
  );
}

test("a peer that lies about its index, or about lengths: refused, said once, and no member", async () => {
  for (const [what, complaint, lie] of LIES) {
    await using peer = await FakePeer.open(port(3), [documentOf("a")]);
    peer.session = async (connection) => {
      const request = await connection.readPdu(Message, 64);
      if (request?.type === "indexRequest") await lie(connection, peer, request.nonce);
      await connection.more(PATIENCE_MS).catch(() => {}); // until the node hangs up
    };
    await peer.send(peer.announcement(), node.running.port);
    await said(complaint);
    await peer.send(peer.announcement(), node.running.port);
    await fence();
    assert.equal(stderrLines(complaint).length, 1, what);
    assert.equal((await node.nodes()).length, 1, what);
  }
});

test("requests split at every byte are answered; garbage costs its connection, and one line", async () => {
  const raw = connectSocket(node.running.port, "127.0.0.1");
  const [nonce, answers] = [randomBytes(16), [] as Buffer[]];
  raw.on("data", (chunk: Buffer) => answers.push(chunk));
  const ended = new Promise((resolve) => raw.on("end", resolve));
  await writeSplit(raw, encode(Message, { type: "indexRequest", nonce, since: 0 }));
  raw.end();
  await within(ended, "the end of the answer");
  assert.equal(Buffer.concat(answers)[0], 2);
  const bad = [
    Buffer.from("GET / HTTP/1.1\r\n\r\n"),
    randomBytes(2000),
    Buffer.from([7, 255, 255, 255, 255]),
    Buffer.from([8, 0]),
  ];
  for (const bytes of bad) {
    await using connection = await connect({ ...places(), host: "127.0.0.1", timeoutMs: PATIENCE_MS });
    await connection.write(bytes).catch(() => {});
    const end = await connection.readExactly(1_000_000).catch(() => undefined);
    assert.equal(end, undefined);
  }
  await node.running.output(/: sent refusal, which is no request$/m, "stderr");
  assert.equal(stderrLines(/unknown code 71/).length, 1);
});

test("its own answers: increments, removals, what it does not have, offsets beyond the end", async () => {
  const [self] = await node.nodes();
  const key = Buffer.from(self?.id ?? "", "hex");
  const whole = await fetchIndex(places(), key, 0, signal);
  assert.deepEqual([whole.whole, whole.changes.map(({ path }) => path)], [true, ["own.txt"]]);
  const nothing = await fetchIndex(places(), key, whole.version, signal);
  assert.deepEqual([nothing.whole, nothing.changes], [false, []]);
  const future = await fetchIndex(places(), key, 4_000_000_000, signal);
  assert.equal(future.whole, true);
  const [document] = await node.list();
  const bytesFrom = async (sha256: string, size: number, offset: number) => {
    const chunks: Buffer[] = [];
    for await (const chunk of fetchContent(places(), { sha256, size }, offset, signal))
      chunks.push(Buffer.from(chunk));
    return Buffer.concat(chunks).toString();
  };
  const sha256 = document?.sha256 ?? "";
  assert.equal(await bytesFrom(sha256, 3, 0), "own");
  assert.equal(await bytesFrom(sha256, 3, 2), "n");
  await assert.rejects(bytesFrom(sha256, 3, 4), /refused: the document has changed/);
  await assert.rejects(bytesFrom("00".repeat(32), 3, 0), /refused: there is no such content/);
  await assert.rejects(bytesFrom(sha256, 4, 0), /says that the size is 3, not 4/);
});

test("the words of a refusal are one line, without anything that a terminal would obey", async () => {
  await using peer = await FakePeer.open(port(1));
  const reason = "no\n- ana (3f5c01aa) left\u202e";
  peer.session = (connection) => connection.write(encode(Message, { type: "refusal", reason }));
  const content = fetchContent(
    { address: "127.0.0.1", port: port(1) },
    { sha256: "00".repeat(32), size: 1 },
    0,
    signal,
  );
  await assert.rejects(content.next(), { message: "refused: no\\n- ana (3f5c01aa) left\\u{202e}" });
});

test("peers that say nothing, never read, or are five hundred: the node answers all the same", async () => {
  const sockets = Array.from({ length: 300 }, () =>
    connectSocket(node.running.port, "127.0.0.1").on("error", () => {}),
  );
  for (const socket of sockets.slice(0, 20))
    socket.pause().write(encode(Message, { type: "indexRequest", nonce: randomBytes(16), since: 0 }));
  await using silent = await FakePeer.open(port(4), [documentOf("never.txt")]);
  silent.session = (connection) =>
    connection.more(PATIENCE_MS).then(
      () => {},
      () => {},
    );
  await silent.send(silent.announcement(), node.running.port);
  await using peer = await FakePeer.open(port(1), [documentOf("busy.txt")]);
  peer.answers = {};
  await peer.send(peer.announcement(), node.running.port);
  await node.knows("busy.txt");
  assert.ok((await node.list()).every(({ path }) => path !== "never.txt"));
  for (const socket of sockets) socket.destroy();
});
