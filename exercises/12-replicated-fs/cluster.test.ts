/** Three nodes, a client, other programs in the directory, and peers that mean no good. */
import { strict as assert } from "node:assert";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Connection } from "../../shared/connection.ts";
import { decode, encode } from "../../shared/pdu.ts";
import { connect } from "../../shared/tcp.ts";
import { run, splitAt, start, tcpRelay } from "../../shared/testing.ts";
import { entryOf } from "./entries.ts";
import { dial, nextFrame, refuseOpenHost } from "./link.ts";
import { HERE, LocalCluster } from "./local-cluster.ts";
import { encodeMessage } from "./messages.ts";
import {
  Command,
  EntryData,
  Fetch,
  Frame,
  frame,
  MAX_FRAME_BYTES,
  NO_REQUEST,
  NOTHING,
  PutBody,
  Result,
} from "./protocol.ts";
import { Remote } from "./remote.ts";
import { Shell } from "./shell.ts";
import { directoryItem } from "./tree.ts";

let cluster: LocalCluster;
let outside: string;
before(async () => {
  outside = mkdtempSync(join(tmpdir(), "netlab-outside-"));
  // Node 1 stays master, however long the machine lets it wait: what happens in its directory is the subject here.
  cluster = await LocalCluster.start(2, { args: ["--election-ms", "30000"] });
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
  rmSync(outside, { recursive: true });
});
const dirOf = (id: number) => cluster.node(id).dir;

/** What the terminal prints for these lines. */
async function typed(...lines: string[]): Promise<string> {
  await using remote = cluster.remote();
  let printed = "";
  const shell = new Shell(remote, async (data) => {
    printed += data;
  });
  for (const line of lines) await shell.run(line);
  return printed;
}

test("what another program does in the master's directory: every kind of thing, its permissions and its times", async () => {
  const dir = dirOf(1);
  mkdirSync(join(dir, "disk/a/b/empty"), { recursive: true });
  writeFileSync(join(dir, "disk/empty file"), "");
  writeFileSync(join(dir, "disk/a/ñandú ☃"), "utf-8");
  writeFileSync(join(dir, "disk/a/two\nlines"), "newline");
  writeFileSync(join(dir, "disk/large"), Buffer.alloc(1_500_000, "large"));
  writeFileSync(join(dir, "disk/run"), "#!/bin/sh\n", { mode: 0o750 });
  writeFileSync(join(dir, "disk/old"), "old");
  utimesSync(join(dir, "disk/old"), 1, 1_000_000_000.25);
  symlinkSync("../nowhere", join(dir, "disk/dangling"));
  symlinkSync("/etc/passwd", join(dir, "disk/absolute"));
  chmodSync(join(dir, "disk/a/b"), 0o700);
  await cluster.same();
  const old = lstatSync(join(dirOf(2), "disk/old"), { bigint: true });
  assert.ok(old.isFile());
  assert.equal(old.mtimeNs / 1000n, 1_000_000_000_250_000n); // microseconds are what travels
  assert.equal(lstatSync(join(dirOf(3), "disk/run")).mode & 0o777, 0o750);
  assert.ok(lstatSync(join(dirOf(3), "disk/absolute")).isSymbolicLink());
  assert.deepEqual(readdirSync(join(dirOf(2), "disk/a/b/empty")), []);
});

test("a rename on the master's disk moves: the replicas keep the very files", async () => {
  const inodeOf = (id: number, path: string) => lstatSync(join(dirOf(id), path)).ino;
  const before = [2, 3].map((id) => inodeOf(id, "disk/large"));
  renameSync(join(dirOf(1), "disk"), join(dirOf(1), "moved"));
  await cluster.same();
  assert.deepEqual(
    [2, 3].map((id) => inodeOf(id, "moved/large")),
    before,
  );
  renameSync(join(dirOf(1), "moved/large"), join(dirOf(1), "moved/a/larger"));
  await cluster.same();
  assert.deepEqual(
    [2, 3].map((id) => inodeOf(id, "moved/a/larger")),
    before,
  );
});

test("changes and removals on the master's disk", async () => {
  const dir = dirOf(1);
  writeFileSync(join(dir, "moved/old"), "new");
  chmodSync(join(dir, "moved/run"), 0o600);
  rmSync(join(dir, "moved/a"), { recursive: true });
  rmSync(join(dir, "moved/dangling"));
  mkdirSync(join(dir, "moved/dangling"));
  await cluster.same();
  assert.equal(readFileSync(join(dirOf(2), "moved/old"), "utf8"), "new");
  assert.ok(!existsSync(join(dirOf(3), "moved/a")));
  assert.ok(lstatSync(join(dirOf(3), "moved/dangling")).isDirectory());
});

test("the terminal: directories, globs, quoting, copies and moves", async () => {
  writeFileSync(join(outside, "local.txt"), "of this machine\n");
  await typed(
    "mkdir -p t/x/y 't/a b'",
    "cd t",
    `put ${outside}/local.txt one.txt`,
    "cp one.txt two.txt",
    "cp *.txt 'a b'",
    "mv two.txt x/y/three",
    "touch $'new\\nline'",
  );
  assert.equal(await typed("cd t", "ls"), "a b\n$'new\\nline'\none.txt\nx\n");
  assert.equal(await typed("cd '/t/a b'", "pwd", "cat *.txt"), `/t/a b\n${"of this machine\n".repeat(2)}`);
  assert.equal(
    await typed("cd t", "find . -name 't*'", "find -type d"),
    "/t\n/t/a b/two.txt\n/t/x/y/three\n/t\n/t/a b\n/t/x\n/t/x/y\n",
  );
  assert.equal(
    await typed("tree t"),
    "/t\n├── a b\n│   ├── one.txt\n│   └── two.txt\n├── $'new\\nline'\n├── one.txt\n└── x\n    └── y\n        └── three\n3 directories, 5 files\n",
  );
  assert.match(
    await typed("ls -l t/one.txt"),
    /^-rw-r--r-- {10}16 \d{4}-\d\d-\d\d \d\d:\d\d:\d\d t\/one\.txt\n$/,
  );
  await typed(
    "cp -r t copy",
    "rm -r t/x",
    "rm t/*.txt",
    `get copy/x/y/three ${outside}/back`,
    `get -r copy ${outside}`,
  );
  assert.equal(await typed("ls t"), "a b\n$'new\\nline'\n");
  assert.equal(readFileSync(join(outside, "back"), "utf8"), "of this machine\n");
  assert.equal(readFileSync(join(outside, "copy/a b/two.txt"), "utf8"), "of this machine\n");
  await cluster.same();
});

test("the terminal: what cannot be, is said", async () => {
  const fails = async (line: string, why: RegExp) => assert.rejects(typed("cd copy", line), why, line);
  await fails("cat nothing", /"nothing"|"copy\/nothing": no such file/);
  await fails("rm x", /is a directory; rm -r removes it/);
  await fails("rmdir x", /is not empty/);
  await fails("rmdir one.txt", /is not a directory/);
  await fails("mkdir x", /exists/);
  await fails("mkdir q/r", /no such directory/);
  await fails("cp x y", /is a directory; cp -r copies it/);
  await fails("cp -r x x/y/z", /within itself/);
  await fails("mv x x/y", /within itself/);
  await fails("cd one.txt", /is not a directory/);
  await fails("cat *.none", /nothing is called so/);
  await fails("ls -q", /-q is not known/);
  await fails("frobnicate", /no such command/);
  await fails("cat 'a", /is not closed/);
});

test("the terminal: tab completion", async () => {
  await using remote = cluster.remote();
  const shell = new Shell(remote, async () => {});
  assert.deepEqual(await shell.complete("mk"), [["mkdir "], "mk"]);
  assert.deepEqual(await shell.complete("ls copy/o"), [["copy/one.txt "], "copy/o"]);
  assert.deepEqual(await shell.complete("ls copy/a"), [["'copy/a b'/"], "copy/a"]);
  const here = join(outside, "b");
  assert.deepEqual(await shell.complete(`put -r ${here}`), [[`${here}ack `], here]);
  assert.deepEqual(await shell.complete(`put ${here}ack copy/o`), [["copy/one.txt "], "copy/o"]);
  assert.deepEqual(await shell.complete("put copy/o"), [[], "copy/o"]);
  assert.deepEqual(await shell.complete(`get copy/one.txt ${here}`), [[`${here}ack `], here]);
  assert.deepEqual(await shell.complete(`get ${here}`), [[], here]);
});

test("the client as a program: --command, its exit code, lines on stdin", async () => {
  const flags = [...cluster.nodesFlags(), "--patience", "60"];
  const good = await run(`${HERE}/client.ts`, [...flags, "--command", "cd copy", "--command", "cat one.txt"]);
  assert.deepEqual([good.code, good.stdout], [0, "of this machine\n"]);
  const bad = await run(`${HERE}/client.ts`, flags, { stdin: "cat nothing\npwd\n" });
  assert.deepEqual([bad.code, bad.stdout], [1, ""]);
  assert.match(bad.stderr, /^error: "nothing": no such file or directory\n$/);
});

test("a write that is repeated is carried out once", async () => {
  const { connection } = await dial({
    host: "127.0.0.1",
    port: cluster.node(1).port,
    secret: NOTHING,
    id: 0,
  });
  const request = Buffer.from("deadbeef00000001", "hex");
  const command = encode(Command, { operation: "move", recursive: 0, mode: 0, request, to: "copy/1.txt" });
  for (let i = 0; i < 2; i++) {
    await connection.write(frame(0, "remote", "copy/one.txt", command));
    assert.equal(decode(Result, (await nextFrame(connection)).data).outcome, "done");
  }
  const other = encode(Command, {
    operation: "move",
    recursive: 0,
    mode: 0,
    request: Buffer.alloc(8, 7),
    to: "copy/1.txt",
  });
  await connection.write(frame(0, "remote", "copy/one.txt", other));
  assert.match(decode(Result, (await nextFrame(connection)).data).text, /no such file/);
  await connection.close();
});

test("a replica that was killed, and missed much, has it all again", async () => {
  const replica = cluster.node(3);
  await cluster.kill(replica);
  await typed("mkdir late", "cp -r copy late/copy", "rm -r copy");
  writeFileSync(join(dirOf(1), "late/large"), Buffer.alloc(700_000, "late"));
  await cluster.same(cluster.nodes.slice(0, 2));
  await cluster.launch(replica);
  await cluster.same();
});

test("no path leads out of the directory: named, or through a link, from a client or from a peer", async () => {
  const dir = dirOf(1);
  symlinkSync(outside, join(dir, "way-out"));
  await cluster.same();
  await using remote = cluster.remote();
  const write = (path: string) => remote.write(path, async function* () {});
  for (const path of ["way-out/x", "a/../../x"]) await assert.rejects(write(path), path);
  await assert.rejects(remote.read("way-out/local.txt", () => {}));
  assert.ok(!existsSync(join(outside, "x")));
  for (const path of ["../x", "/etc/passwd", "way-out/local.txt"]) {
    const { connection } = await dial({
      host: "127.0.0.1",
      port: cluster.node(1).port,
      secret: NOTHING,
      id: 2,
    });
    await connection.write(
      frame(2, "fetch", path, encode(Fetch, { blob: NOTHING, digest: Buffer.alloc(32) })),
    );
    assert.equal(decode(Result, (await nextFrame(connection)).data).outcome, "failed", path);
    await connection.close();
  }
});

test("a directory that somebody replaces by a link, on a replica: what is written there stays inside", async () => {
  await typed("mkdir trap");
  await cluster.same();
  rmSync(join(dirOf(2), "trap"), { recursive: true });
  symlinkSync(outside, join(dirOf(2), "trap"));
  await typed("touch trap/file");
  await cluster.same();
  assert.ok(!existsSync(join(outside, "file")));
});

test("a master of a term that is over writes nothing", async () => {
  const { connection } = await dial({
    host: "127.0.0.1",
    port: cluster.node(2).port,
    secret: NOTHING,
    id: 3,
  });
  const body = encode(PutBody, { item: directoryItem(0o755, 0n), content: NOTHING });
  const entry = entryOf(0, { action: "mkdir", path: "of-a-fenced-master", timeUs: 0n, body });
  const append = {
    kind: "append",
    from: 3,
    term: 0,
    prevIndex: 0,
    prevTerm: 0,
    entries: [entry],
    commit: 1,
  } as const;
  await connection.write(encodeMessage(append, { host: "127.0.0.1", port: 1 }));
  await connection.write(frame(3, "manifest")); // an answer to this shows that what came before was read
  assert.equal((await nextFrame(connection)).action, "state");
  connection.destroy();
  await cluster.same();
  assert.ok(!existsSync(join(dirOf(2), "of-a-fenced-master")));
});

test("garbage, half a frame, somebody else's number, a frame too long: their connection ends, the node goes on", async () => {
  const { port } = cluster.node(1);
  for (const bytes of [
    Buffer.alloc(300, 0xff),
    Buffer.from("GET / HTTP/1.1\r\n\r\n"),
    frame(0, "result").subarray(0, 7),
  ]) {
    await using connection = await connect({ host: "127.0.0.1", port, timeoutMs: 30_000 });
    await connection.write(bytes);
    connection.end();
    while ((await connection.read().catch(() => undefined)) !== undefined);
  }
  const impostor = encodeMessage({ kind: "copy", from: 1, term: 99 }, { host: "127.0.0.1", port: 1 });
  const tooLong = Buffer.concat([Buffer.alloc(3), Buffer.from("0200000001ffffffff00000000", "hex")]);
  const strange = frame(
    2,
    "add",
    "x",
    encode(EntryData, { term: 1, timeUs: 0n, request: NO_REQUEST, body: NOTHING }),
  );
  for (const bytes of [impostor, tooLong]) {
    const { connection } = await dial({ host: "127.0.0.1", port, secret: NOTHING, id: 2 });
    connection.timeoutMs = 30_000;
    await connection.write(bytes);
    const end = await connection.readPdu(Frame, MAX_FRAME_BYTES).catch((error: Error) => error.name);
    assert.ok(end === undefined || end === "Failure", `it ends: ${JSON.stringify(end)}`);
    connection.destroy();
  }
  const { connection } = await dial({ host: "127.0.0.1", port, secret: NOTHING, id: 2 });
  await connection.write(strange);
  assert.equal(decode(Result, (await nextFrame(connection)).data).outcome, "failed");
  connection.destroy();
  assert.equal(await typed("cd late", "pwd"), "/late\n");
});

test("a byte at a time", async () => {
  await using relay = await tcpRelay(cluster.node(1).port, splitAt(1));
  const nodes = [{ host: "127.0.0.1", port: relay.port }];
  const { signal } = new AbortController();
  await using remote = new Remote({ nodes, secret: NOTHING, patienceMs: 60_000, signal, debug: () => {} });
  await remote.write("bytes", async function* () {
    yield Buffer.from("one after the other");
  });
  let content = "";
  await remote.read("bytes", (data) => {
    content += data;
  });
  assert.equal(content, "one after the other");
});

test("chunks that come after their write has failed answer nothing: the next answer is the next command's", async () => {
  const { connection } = await dial({
    host: "127.0.0.1",
    port: cluster.node(1).port,
    secret: NOTHING,
    id: 0,
  });
  const of = (operation: "write" | "df") =>
    encode(Command, { operation, recursive: 0, mode: 0, request: Buffer.alloc(8, 5), to: "" });
  const chunk = frame(0, "chunk", "", Buffer.from("late"));
  const broken = [frame(0, "remote", "broken", of("write")), frame(0, "digest"), chunk, frame(0, "chunk")];
  await connection.write(Buffer.concat([...broken, frame(0, "remote", "", of("df"))]));
  const answers = [
    decode(Result, (await nextFrame(connection)).data),
    decode(Result, (await nextFrame(connection)).data),
  ];
  assert.deepEqual(
    answers.map(({ outcome }) => outcome),
    ["failed", "done"],
  );
  assert.match(answers[1]?.text ?? "", /^\d+\t\d+\t\d+$/);
  await connection.close();
});

test("who waits long for a write is told that it goes on", async () => {
  const replicas = [cluster.node(2), cluster.node(3)];
  for (const { running } of replicas) running?.kill("SIGSTOP");
  const { connection } = await dial({
    host: "127.0.0.1",
    port: cluster.node(1).port,
    secret: NOTHING,
    id: 0,
  });
  const request = Buffer.alloc(8, 9);
  const command = encode(Command, { operation: "mkdir", recursive: 0, mode: 0, request, to: "" });
  const asked = frame(0, "remote", "slow", command);
  await connection.write(asked);
  const outcome = async (from: Connection) => decode(Result, (await nextFrame(from)).data).outcome;
  assert.equal(await outcome(connection), "waiting");
  const { connection: again } = await dial({
    host: "127.0.0.1",
    port: cluster.node(1).port,
    secret: NOTHING,
    id: 0,
  });
  await again.write(asked);
  assert.equal(
    await outcome(again),
    "waiting",
    "the same once more: it is not there already, it is under way",
  );
  for (const { running } of replicas) running?.kill("SIGCONT");
  for (const one of [connection, again]) {
    let last = await outcome(one);
    while (last === "waiting") last = await outcome(one);
    assert.equal(last, "done");
    await one.close();
  }
});

test("a node is forgotten, and is a member again when it comes back all the same", async () => {
  const replica = cluster.node(3);
  await cluster.kill(replica);
  await typed("forget 3", "mkdir without-3");
  const nodes = await typed("nodes");
  assert.match(nodes, /^2 .* replica /m);
  assert.doesNotMatch(nodes, /^3 /m);
  await assert.rejects(typed("forget 3"), /there is no node 3/);
  await assert.rejects(typed("forget 1"), /that is the master; stop it first/);
  await assert.rejects(typed("forget"), /something is missing: forget ID/);
  await cluster.launch(replica);
  await cluster.same();
  assert.match(await typed("nodes"), /^3 .* replica /m);
});

test("a second node on a directory is refused, whatever its state is called", async (t) => {
  if (process.platform !== "linux") return t.skip("elsewhere than on Linux nothing holds a directory");
  const link = join(outside, "the-same");
  symlinkSync(dirOf(2), link);
  const args = [
    "--dir",
    link,
    "--state",
    join(outside, "other-state"),
    "--port",
    0,
    "--master",
    "127.0.0.1:1",
  ];
  const { code, stderr } = await run(`${HERE}/replica.ts`, args);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^error: cannot use \S+: another node replicates it; give another --dir, or stop that$/m,
  );
});

test("a secret: who does not know it is refused; without one only loopback is served", async () => {
  const secret = join(outside, "secret");
  writeFileSync(secret, "0123456789abcdef\n");
  const dir = join(outside, "secret-dir");
  await using node = await start(`${HERE}/master.ts`, ["--dir", dir, "--port", 0, "--secret-file", secret]);
  const knock = async (known: string) => {
    const where = { host: "127.0.0.1", port: node.port, timeoutMs: 30_000 };
    const { connection } = await dial({ ...where, secret: Buffer.from(known), id: 0 });
    connection.destroy();
  };
  await knock("0123456789abcdef");
  await assert.rejects(knock("fedcba9876543210"), /the secret is not the same/);
  await assert.rejects(knock(""), /the secret is not the same/);
  const why = /^UsageError: cannot serve 0\.0\.0\.0 without a secret/;
  assert.throws(() => refuseOpenHost("0.0.0.0", NOTHING), why);
  refuseOpenHost("0.0.0.0", Buffer.alloc(16));
  refuseOpenHost("::1", NOTHING);
});

test("the replica's --help says where the master is looked for", async () => {
  const { stdout } = await run(`${HERE}/replica.ts`, ["--help"]);
  assert.match(stdout, /--master +HOST:PORT[^-]*127\.0\.0\.1:11200/);
});
