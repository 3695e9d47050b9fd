/** Nodes as processes on one machine: who is there, who has what, and documents fetched. */
import { strict as assert } from "node:assert";
import { createHash, randomBytes } from "node:crypto";
import { createSocket, type RemoteInfo } from "node:dgram";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { rename, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { run, within } from "../../shared/testing.ts";
import { FakePeer } from "./fake-peer.ts";
import { LONG_MS, type LocalNode, LocalSegment, NODE, put } from "./local-segment.ts";
import { readAnnouncement } from "./protocol.ts";

const sha256 = (content: string | Buffer) => createHash("sha256").update(content).digest("hex");
/** Elsewhere 127.0.0.1 is the only address of its network. */
const onLinux = { skip: process.platform !== "linux" };
const LARGE = randomBytes(3_000_000);

let segment: LocalSegment;
let [ana, bob, eva] = [] as unknown as [LocalNode, LocalNode, LocalNode];

before(async () => {
  segment = await LocalSegment.open();
  [ana, bob, eva] = await Promise.all([
    segment.start("ana", { documents: { "notes.txt": "one", "only-ana.txt": "a", "below/deep/x.txt": "x" } }),
    segment.start("bob", { documents: { "notes.txt": "two", "copy.txt": "a" } }),
    segment.start("eva", { documents: { "large.bin": LARGE, "empty.txt": "" } }),
  ]);
});
after(() => segment[Symbol.asyncDispose]());

const lists = (node: LocalNode, line: string, isThere = true) =>
  node.until(
    () => node.listing(),
    (listing) => listing.includes(line) === isThere,
    `${line} ${isThere ? "to come" : "to go"}`,
  );

test("three nodes that know nothing of each other list the union of their folders", async () => {
  const expected = [
    `below/deep/x.txt ${sha256("x")} ana`,
    `copy.txt ${sha256("a")} bob`,
    `empty.txt ${sha256("")} eva`,
    `large.bin ${sha256(LARGE)} eva`,
    `notes.txt ${sha256("one")} ana`,
    `notes.txt ${sha256("two")} bob`,
    `only-ana.txt ${sha256("a")} ana`,
  ].toSorted();
  for (const node of [ana, bob, eva]) {
    await node.seesNodes(3);
    const isUnion = (listing: string[]) => listing.join() === expected.join();
    await node.until(() => node.listing(), isUnion, "the union");
  }
});

test("copies are shown as the same content, and one name of two contents as different", async () => {
  // A machine so busy that a node does not run for 5 s takes it for dead, and soon for alive again.
  const whole = await ana.until(ana.list, (rows) => rows.length === 7, "seven rows");
  const rows = new Map(whole.map((row) => [row.path, row]));
  assert.deepEqual(rows.get("copy.txt")?.sameAs, ["only-ana.txt"]);
  assert.deepEqual(rows.get("only-ana.txt")?.sameAs, ["copy.txt"]);
  assert.equal(rows.get("notes.txt")?.differs, true);
  assert.equal(rows.get("large.bin")?.differs, false);
});

test("documents that come, change, move and go are so on every node", async () => {
  await put(bob.folder, "new/folder/y.txt", "first");
  await lists(ana, `new/folder/y.txt ${sha256("first")} bob`);
  await put(bob.folder, "new/folder/y.txt", "second");
  await lists(eva, `new/folder/y.txt ${sha256("second")} bob`);
  await lists(ana, `new/folder/y.txt ${sha256("first")} bob`, false);
  await rename(join(bob.folder, "new"), join(bob.folder, "moved"));
  await lists(ana, `moved/folder/y.txt ${sha256("second")} bob`);
  await lists(ana, `new/folder/y.txt ${sha256("second")} bob`, false);
  await rm(join(bob.folder, "moved"), { recursive: true });
  await lists(eva, `moved/folder/y.txt ${sha256("second")} bob`, false);
});

test("list takes a pattern, find a part of the path in any case", async () => {
  const paths = async (command: string) => {
    await ana.seesNodes(3);
    return ((await ana.ask(command)) as { path: string }[]).map(({ path }) => path);
  };
  assert.deepEqual(await paths("list *.bin"), ["large.bin"]);
  assert.deepEqual(await paths("list ????.txt"), ["copy.txt"]);
  assert.deepEqual(await paths("list n(o|p)*"), []);
  assert.deepEqual(await paths("find DEEP"), ["below/deep/x.txt"]);
  assert.deepEqual(await paths("find ["), []);
});

test("get: fetched, verified, in the current folder, by path, name or hash; never over what is there", async () => {
  const get = async (what: string) => {
    await ana.seesNodes(3);
    return ana.ask(`get ${what}`);
  };
  const othersPart = `.${sha256(LARGE).slice(0, 16)}.nldi-part`;
  await put(ana.cwd, othersPart, "another program writes this");
  assert.deepEqual(await get("large.bin"), {
    ...{ name: "large.bin", size: LARGE.length, sha256: sha256(LARGE), from: ["eva"] },
  });
  assert.ok(readFileSync(join(ana.cwd, "large.bin")).equals(LARGE));
  assert.deepEqual(((await get("large.bin")) as { from: string[] }).from, [], "it is there already");
  await get("x.txt");
  assert.equal(readFileSync(join(ana.cwd, "x.txt"), "utf8"), "x");
  await get(sha256("").slice(0, 10));
  assert.equal(readFileSync(join(ana.cwd, "empty.txt"), "utf8"), "");
  await get("notes.txt --from bob");
  assert.equal(readFileSync(join(ana.cwd, "notes.txt"), "utf8"), "two");
  assert.deepEqual(readdirSync(ana.cwd).toSorted(), [
    othersPart,
    "empty.txt",
    "large.bin",
    "notes.txt",
    "x.txt",
  ]);
});

test("what cannot be got, or done, is said in a line", async () => {
  const refusals: [string, RegExp][] = [
    [
      "get notes.txt",
      /^error: "notes.txt" is 2 different documents; name one by its content, or --from a node: /m,
    ],
    ["get nothing", /^error: there is no document "nothing"; see list$/m],
    ["get x.txt --from nobody", /^error: there is no node "nobody"; see nodes$/m],
    ["get", /^error: get needs a document$/m],
    ["get x.txt --from eva", /^error: there is no document "x.txt"; see list$/m],
    ["frobnicate", /^error: there is no command "frobnicate"; see help$/m],
  ];
  for (const [command, line] of refusals) {
    eva.running.child.stdin?.write(`${command}\n`);
    await eva.running.output(line, "stderr", LONG_MS);
  }
  await put(eva.cwd, "copy.txt", "mine");
  eva.running.child.stdin?.write("get copy.txt\n");
  await eva.running.output(/^error: cannot write copy.txt: something else is there/m, "stderr", LONG_MS);
  assert.equal(readFileSync(join(eva.cwd, "copy.txt"), "utf8"), "mine");
  await rm(eva.cwd, { recursive: true });
  eva.running.child.stdin?.write("get x.txt\n");
  await eva.running.output(/^error: cannot write \.[\w-]+\.nldi-part: no such file/m, "stderr", LONG_MS);
});

/** Two peers of a content that nobody else has; the first joins first, and so is asked first. */
async function twoPeers(firstContent: Buffer) {
  const content = randomBytes(200_000);
  const document = { path: "big.bin", size: content.length, modifiedMs: 1, sha256: sha256(content) };
  const folder = await segment.folder({ "big.bin": firstContent.length === 0 ? content : firstContent });
  const first = await FakePeer.open(segment.first + 3, [document], folder);
  first.answers = { name: "first" };
  await first.send(first.announcement({ name: "first" }), bob.running.port);
  await bob.knows("big.bin");
  const other = { ...document, path: "under/another.name" };
  const second = await FakePeer.open(
    segment.first + 4,
    [other],
    await segment.folder({ [other.path]: content }),
  );
  second.answers = { name: "second" };
  await second.send(second.announcement({ name: "second" }), bob.running.port);
  await bob.knows(other.path);
  const end = async () => {
    for (const peer of [first, second]) {
      peer.answers = undefined;
      await peer.send(peer.announcement({ kind: "leave" }), bob.running.port);
      await peer[Symbol.asyncDispose]();
    }
    await bob.seesNodes(3);
    await rm(join(bob.cwd, "big.bin"), { force: true });
  };
  return { content, first, end };
}

test("get goes on at another node when one dies in mid-transfer, under whatever name that has it", async () => {
  const { content, first, end } = await twoPeers(Buffer.alloc(0));
  first.session = async (connection, honest) => {
    await connection.more(10_000);
    if (connection.peek(1)[0] !== 5) return honest();
    const head = Buffer.from([6, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0xff, 0xff]);
    head.writeBigUInt64BE(BigInt(content.length), 1);
    await connection.write(Buffer.concat([head, content.subarray(0, 0xffff)]));
  };
  const got = (await bob.ask("get big.bin")) as { from: string[] };
  assert.deepEqual(got.from, ["first", "second"]);
  assert.ok(readFileSync(join(bob.cwd, "big.bin")).equals(content));
  await bob.running.output(/^first: .*\(65535 of 200000 bytes are here\)$/m, "stderr", LONG_MS);
  await end();
});

test("a node that lies about a content is found out, and an honest one asked", async () => {
  const { content, end } = await twoPeers(randomBytes(200_000));
  const got = (await bob.ask("get big.bin")) as { from: string[] };
  assert.ok(readFileSync(join(bob.cwd, "big.bin")).equals(content));
  assert.deepEqual(got.from, ["second"]);
  await bob.running.output(
    /^first gave a content that is not the announced one: thrown away$/m,
    "stderr",
    LONG_MS,
  );
  assert.deepEqual(
    readdirSync(bob.cwd).filter((name) => name.endsWith("part")),
    [],
  );
  await end();
});

test("names with commands for terminals are shown harmless; symbolic links are no documents", async () => {
  await put(eva.folder, "evil\u001b[2J\nname\u202e.txt", "evil");
  await symlink("/etc/passwd", join(eva.folder, "link.txt"));
  await symlink("/etc", join(eva.folder, "etc"));
  await lists(bob, `evil\u001b[2J\nname\u202e.txt ${sha256("evil")} eva`);
  const args = [...segment.args, "--once"];
  const { code, stdout } = await run(NODE, [...args, "list evil*"]);
  assert.equal(code, 0);
  assert.match(stdout, /^evil\\u\{1b\}\[2J\\nname\\u\{202e\}\.txt {2}/m);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
  assert.doesNotMatch(stdout, /\u001b|\u202e/);
  assert.ok(!(await bob.listing()).some((line) => /^(link\.txt|etc)/.test(line)));
  await bob.ask("get evil\\u{1b}[2J\\nname\\u{202e}.txt");
  assert.equal(readFileSync(join(bob.cwd, "evil_[2J_name_.txt"), "utf8"), "evil");
});

describe("programs that come and go meanwhile", { concurrency: true }, () => {
  test("--once list: joins, prints the stable listing, and leaves", async () => {
    const { code, stdout, stderr } = await run(NODE, [...segment.args, "--once", "find o", "--json"]);
    assert.equal(code, 0);
    assert.equal(stderr, "");
    const rows = JSON.parse(stdout) as { path: string; nodes: { name: string }[] }[];
    assert.deepEqual(
      rows
        .flatMap(({ path, nodes }) => (/\//.test(path) ? [] : [`${path} ${nodes.map(({ name }) => name)}`]))
        .toSorted(),
      ["copy.txt bob", "notes.txt ana", "notes.txt bob", "only-ana.txt ana"],
    );
  });

  test("usage: a port that is not allowed or taken, a folder that is not there", async () => {
    const outcomes = [
      ["--port", 8006],
      [...segment.args, "--port", ana.running.port],
      [...segment.args, "--folder", "/nonexistent"],
    ].map(async (args) => {
      const { code, stderr } = await run(NODE, args);
      return `${code} ${stderr.trim()}`;
    });
    const [refused = "", taken = "", missing = ""] = await Promise.all(outcomes);
    assert.equal(refused, "2 error: --port 8006 is none of --ports 8000-8005");
    assert.match(
      taken,
      /^1 error: cannot listen on 0\.0\.0\.0:\d+: address already in use \(EADDRINUSE\); choose/,
    );
    assert.match(missing, /^1 error: cannot read the folder \/nonexistent: no such file/);
  });

  test("who leaves is gone, and who comes back after kill -9 takes its own place", async () => {
    const dan = await segment.start("dan", { documents: { "dan.txt": "d" } });
    await lists(ana, `dan.txt ${sha256("d")} dan`);
    assert.equal(await dan.running.stop(), 0);
    await ana.running.output(/^- dan \([0-9a-f]{8}\) left$/m, "stderr", LONG_MS);
    await lists(ana, `dan.txt ${sha256("d")} dan`, false);

    const again = await segment.start("dan", { folder: dan.folder });
    await lists(bob, `dan.txt ${sha256("d")} dan`);
    again.running.kill("SIGKILL");
    await within(again.running.exited, "the death of dan");
    const third = await segment.start("dan", { documents: { "new.txt": "n" } });
    await lists(bob, `new.txt ${sha256("n")} dan`);
    await lists(bob, `dan.txt ${sha256("d")} dan`, false);
    await bob.running.output(
      /^- dan \([0-9a-f]{8}\) (is gone, and another one has its place|fell silent)$/m,
      "stderr",
      LONG_MS,
    );
    assert.equal(await third.running.stop(), 0);
  });

  test("--broadcast: announces there, and nowhere else", onLinux, async () => {
    await using other = await LocalSegment.open();
    const receivers = ["127.9.9.9", "127.8.8.8", "127.255.255.255"].map((address) => {
      const socket = createSocket("udp4").bind({ address, port: other.first + 5 });
      return { socket, first: once(socket, "message"), isTold: false };
    });
    try {
      for (const receiver of receivers) receiver.socket.on("message", () => (receiver.isTold = true));
      const args = ["--broadcast", "127.9.9.9", "--broadcast", "127.8.8.8"];
      const fay = await other.start("fay", { args });
      for (const { first } of receivers.slice(0, 2)) {
        const [datagram, from] = (await within(first, "an announcement", LONG_MS)) as [Buffer, RemoteInfo];
        assert.equal(readAnnouncement(datagram, from.port).name, "fay");
      }
      assert.equal(await fay.running.stop(), 0);
      assert.deepEqual(
        receivers.map(({ isTold }) => isTold),
        [true, true, false],
      );
    } finally {
      for (const { socket } of receivers) socket.close();
    }
  });
});

test("quit ends a node", async () => {
  eva.running.child.stdin?.write("help\nquit\n");
  const { code } = await within(eva.running.exited, "the end of eva");
  assert.equal(code, 0);
  assert.match(eva.running.stdout, /^get DOCUMENT \[--from NODE\]$/m);
  await ana.seesNodes(2);
  assert.ok(!existsSync(join(eva.cwd, ".part")));
});
