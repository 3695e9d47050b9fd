/** Server and client as a user starts them, over real sockets: files, refusals, bad paths, forgers, full disks. */
import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { type LinkProfile, udpLink } from "../../shared/link.ts";
import { needsNamespaces, type Result, type Running, run, start, within } from "../../shared/testing.ts";
import { NO_HASH, type Request } from "./endpoint.ts";
import { TargetFile } from "./files.ts";
import { DEFAULTS } from "./options.ts";
import { BASE_MTU, type Message, NO_TOKEN, seal, unseal } from "./protocol.ts";
import { connectRudp } from "./socket.ts";
import { ended } from "./transfer.ts";

const HERE = "exercises/11-reliable-udp";
const folders: string[] = [];
const newFolder = () => {
  const folder = mkdtempSync(join(tmpdir(), "netlab-rudp-"));
  folders.push(folder);
  return folder;
};
const FILE = randomBytes(300_000);
const options = (port: number, more = {}) => ({
  ...{ host: "127.0.0.1", port, signal: new AbortController().signal },
  connection: { ...DEFAULTS, ...more },
});

/** Gets in this process, which costs no start of a program. */
async function fetchHere(port: number, request: Request, more = {}): Promise<Buffer> {
  const { connection, close } = await connectRudp(request, options(port, more));
  const pieces: Buffer[] = [];
  connection.handlers.onReadable = () => {
    pieces.push(...connection.take());
    if (connection.input?.isComplete) connection.finish();
  };
  await within(ended(connection).finally(close), `the end of ${request.request} ${request.name}`, 60_000);
  return Buffer.concat(pieces);
}

async function putHere(port: number, name: string, bytes: Buffer, sha256?: Buffer): Promise<void> {
  const hash: Buffer = sha256 ?? createHash("sha256").update(bytes).digest();
  const { connection, close } = await connectRudp(
    { request: "put", name, size: bytes.length, sha256: hash },
    options(port),
  );
  connection.handlers.onAccepted = () => connection.write(bytes);
  await within(ended(connection).finally(close), `the end of put ${name}`, 60_000);
}

describe("server and client", () => {
  const root = newFolder();
  let server: Running;
  before(async () => {
    writeFileSync(join(root, "file"), FILE);
    writeFileSync(join(root, "empty"), "");
    writeFileSync(join(root, ".hidden"), "secret");
    mkdirSync(join(root, "sub"));
    writeFileSync(join(root, "sub", "ñandú"), "in a folder");
    symlinkSync("/etc/passwd", join(root, "outside"));
    execFileSync("mkfifo", [join(root, "pipe")]);
    server = await start(`${HERE}/server.ts`, ["--port", 0, "--root", root, "--writable"]);
  });
  after(async () => {
    await server[Symbol.asyncDispose]();
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  });
  const client = (args: (string | number)[], cwd = newFolder()): Promise<Result> =>
    run(`${HERE}/client.ts`, [...args, "--port", server.port], { cwd });

  test("list, get, put, and what the client says of them", async () => {
    const cwd = newFolder();
    const [listed, got] = await Promise.all([client(["list"], cwd), client(["get", "file"], cwd)]);
    assert.match(listed.stdout, /^ +300000 {2}\d{4}-\d\d-\d\dT[\d:.]+Z {2}file$/m);
    assert.match(listed.stdout, / 11 {2}\S+ {2}sub\/ñandú$/m);
    assert.doesNotMatch(listed.stdout, /hidden|outside/);
    assert.equal(got.code, 0, got.stderr);
    assert.match(got.stdout, /^file: 300000 bytes, in [\d.]+ s \([\d.]+ [Mk]B\/s\), SHA-256 [0-9a-f]{64}\n$/);
    assert.deepEqual(readFileSync(join(cwd, "file")), FILE);
    assert.deepEqual(readdirSync(cwd), ["file"]);
    const put = await client(["put", "file", "--output", "sub/copy"], cwd);
    assert.equal(put.code, 0, put.stderr);
    assert.deepEqual(readFileSync(join(root, "sub", "copy")), FILE);
  });

  test("get --continue goes on where an earlier try ended; a part of another file is found out", async () => {
    const cwd = newFolder();
    writeFileSync(join(cwd, "file.part"), FILE.subarray(0, 200_000));
    writeFileSync(join(cwd, "other.part"), randomBytes(1000));
    const [right, wrong] = await Promise.all([
      client(["get", "file", "--continue"], cwd),
      client(["get", "file", "--continue", "--output", "other"], cwd),
    ]);
    assert.match(right.stdout, /300000 bytes, from byte 200000 on/);
    assert.deepEqual(readFileSync(join(cwd, "file")), FILE);
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /SHA-256 is not the one that was announced/);
    assert.deepEqual(readdirSync(cwd), ["file"]);
  });

  test("bad usage and bad servers: one line, exit codes 2 and 1", async () => {
    const [noName, badMtu, noServer] = await Promise.all([
      client(["get"]),
      client(["get", "file", "--mtu", 70_000]),
      run(`${HERE}/client.ts`, ["list", "--port", 9]),
    ]);
    assert.deepEqual([noName.code, badMtu.code, noServer.code], [2, 2, 1]);
    assert.match(noName.stderr, /^error: NAME is missing: get what\?\n$/);
    const noTarget = await client(["get", "file", "--output", ""]);
    assert.deepEqual([noTarget.code, noTarget.stderr], [2, "error: a file's name is missing\n"]);
    const otherWay = await client(["put", "file", "--continue"]);
    assert.deepEqual([otherWay.code, otherWay.stderr], [2, "error: --continue is for get only\n"]);
    assert.match(noServer.stderr, /^error: cannot list udp:\/\/127\.0\.0\.1:9: connection refused .*\n$/);
  });

  for (const name of [
    "nothing",
    "../etc/passwd",
    "/etc/passwd",
    "sub/../file",
    ".hidden",
    "outside",
    "sub",
    "pipe",
    "a\0b",
    "file.part",
    "",
  ]) {
    test(`get ${JSON.stringify(name)} is refused`, async () => {
      await assert.rejects(fetchHere(server.port, { request: "get", name }), { name: "Failure" });
    });
  }
  for (const name of ["../up", ".hidden", "outside", "nowhere/file", "sub"]) {
    test(`put ${JSON.stringify(name)} is refused`, async () => {
      await assert.rejects(putHere(server.port, name, FILE), { name: "Failure" });
      assert.equal(readFileSync("/etc/passwd").equals(FILE), false);
    });
  }

  test("a reason that is cut in the middle of a character ends the connection, not the server", async () => {
    const name = `${"a".repeat(107)}😀`;
    await assert.rejects(fetchHere(server.port, { request: "get", name }), /there is no a+/);
  });

  test("a name of several lines is one line in the server's log", async () => {
    const name = "x\n127.0.0.1:1: get all: 1 bytes in 0.1 s";
    await assert.rejects(fetchHere(server.port, { request: "get", name }), /^Failure: there is no x\?127/);
    await server.output(/get x\?127\.0\.0\.1:1: get all: 1 bytes in 0.1 s: there is no /, "stderr");
  });

  test("a name that is too long is said to be, in a line", async () => {
    const { code, stderr } = await client(["get", "n".repeat(1025)]);
    assert.equal(code, 2);
    assert.match(stderr, /^error: NAME is 1025 bytes, more than 1024\n$/);
  });

  test("get replaces neither a folder nor what is no file, and says so before anything is sent", async () => {
    const cwd = newFolder();
    mkdirSync(join(cwd, "folder"));
    execFileSync("mkfifo", [join(cwd, "pipe")]);
    const [folder, pipe, nowhere] = await Promise.all([
      client(["get", "file", "--output", "folder"], cwd),
      client(["get", "file", "--output", "pipe"], cwd),
      client(["get", "file", "--output", "nowhere/file"], cwd),
    ]);
    assert.match(folder.stderr, /^error: cannot get file .*: cannot write folder: it is a directory\n$/);
    assert.match(pipe.stderr, /^error: cannot get file .*: cannot write pipe: it is no regular file\n$/);
    assert.match(nowhere.stderr, /: cannot write nowhere\/file: no such file or directory \(ENOENT\)\n$/);
    assert.ok(lstatSync(join(cwd, "pipe")).isFIFO(), "a pipe");
    assert.deepEqual(readdirSync(cwd), ["folder", "pipe"]);
    const put = await client(["put", "pipe"], cwd);
    assert.match(put.stderr, /^error: cannot put pipe .*: cannot read pipe: it is no regular file\n$/);
  });

  test("two that write to one name: the later one gets it, and the earlier is told", async () => {
    const path = join(newFolder(), "file");
    const other = randomBytes(FILE.length);
    const hashOf = (bytes: Buffer) => createHash("sha256").update(bytes).digest();
    await using first = await TargetFile.create(path);
    await first.write(FILE.subarray(0, 100_000));
    await using second = await TargetFile.create(path);
    await second.write(other.subarray(0, 200_000));
    await first.write(FILE.subarray(100_000));
    await assert.rejects(first.place(hashOf(FILE)), /another program/);
    await second.write(other.subarray(200_000));
    await second.place(hashOf(other));
    assert.deepEqual(readFileSync(path), other);
  });

  test("two that go on with the same part: nothing comes twice", async () => {
    const path = join(newFolder(), "file");
    writeFileSync(`${path}.part`, FILE.subarray(0, 100_000));
    const sha256 = createHash("sha256").update(FILE).digest();
    await using first = await TargetFile.continue(path);
    await using second = await TargetFile.continue(path);
    await second.write(FILE.subarray(100_000, 200_000));
    await first.write(FILE.subarray(100_000));
    await first.place(sha256);
    await second.write(FILE.subarray(200_000));
    await assert.rejects(second.place(sha256), /another program/);
    assert.deepEqual(readFileSync(path), FILE);
  });

  test("a root is listed by whatever path it is given", async () => {
    for (const path of [`${root}/`, `${root}/.`, `${root}/sub/..`]) {
      await using other = await start(`${HERE}/server.ts`, ["--port", 0, "--root", path]);
      const names = (await fetchHere(other.port, { request: "list", name: "" })).toString();
      assert.match(names, / 11 {2}\S+ {2}sub\/ñandú$/m, path);
    }
  });

  test(
    "a folder that the server may not read is not listed, and costs nothing else",
    process.getuid?.() === 0 ? { skip: "root may read every folder" } : {},
    async () => {
      const own = newFolder();
      mkdirSync(join(own, "locked"), { mode: 0 });
      writeFileSync(join(own, "file"), FILE);
      await using other = await start(`${HERE}/server.ts`, ["--port", 0, "--root", own]);
      const names = (await fetchHere(other.port, { request: "list", name: "" })).toString();
      assert.match(names, /^ +300000 {2}\S+ {2}file\n$/);
      const inside = await run(`${HERE}/server.ts`, ["--root", join(own, "locked", "x")]);
      assert.match(inside.stderr, /^error: cannot read --root "\S+": permission denied \(EACCES\)\n$/);
    },
  );

  test("a put whose SHA-256 is another one leaves the old file", async () => {
    await putHere(server.port, "kept", Buffer.from("old"));
    await assert.rejects(putHere(server.port, "kept", Buffer.from("new"), randomBytes(32)), /SHA-256/);
    assert.equal(readFileSync(join(root, "kept"), "utf8"), "old");
    assert.deepEqual(
      readdirSync(root).filter((name) => name.endsWith(".part")),
      [],
    );
  });

  test("through a path that loses, doubles, reorders and damages, both ways, with larger packets too", async () => {
    const bad: LinkProfile = {
      delayMs: 3,
      jitterMs: 2,
      loss: 0.1,
      duplication: 0.05,
      reordering: 0.05,
      corruption: 0.05,
    };
    await using link = await udpLink({
      to: { host: "127.0.0.1", port: server.port },
      toServer: bad,
      toClient: bad,
      seed: 1,
    });
    const [small, large, slow] = await Promise.all([
      fetchHere(link.port, { request: "get", name: "file" }),
      fetchHere(link.port, { request: "get", name: "file" }, { mtu: 8000 }),
      fetchHere(link.port, { request: "get", name: "file" }, { congestion: "newreno", windowBytes: 40_000 }),
      putHere(link.port, "put-through", FILE),
    ]);
    for (const bytes of [small, large, slow]) assert.ok(bytes.equals(FILE), `${bytes.length} bytes`);
    assert.deepEqual(readFileSync(join(root, "put-through")), FILE);
  });

  test("a client that takes packets of 33 octets or of none, in which no data fit, gets those of 128", async () => {
    for (const mtu of [33, 0])
      assert.ok((await fetchHere(server.port, { request: "get", name: "file" }, { mtu })).equals(FILE));
  });

  test("50 clients at once, getting and putting", async () => {
    const all = await Promise.all(
      Array.from({ length: 50 }, async (_, i) => {
        if (i % 5 === 0) return void (await putHere(server.port, `many-${i}`, FILE.subarray(i)));
        return await fetchHere(server.port, { request: "get", name: "file" });
      }),
    );
    for (const [i, bytes] of all.entries()) {
      const got = bytes ?? readFileSync(join(root, `many-${i}`));
      assert.ok(got.equals(bytes === undefined ? FILE.subarray(i) : FILE), `client ${i}`);
    }
  });

  test("a name with two addresses: where nobody is at the first, the second is asked", async () => {
    const named = (...addresses: string[]) => {
      const found = JSON.stringify(addresses.map((address) => ({ address, family: 4 })));
      const code = `import dns from "node:dns/promises"; import { syncBuiltinESMExports } from "node:module";
        dns.lookup = async () => ${found}; syncBuiltinESMExports();`;
      const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(code)}` };
      return run(`${HERE}/client.ts`, ["list", "--host", "two.example", "--port", server.port], { env });
    };
    const [nobody, second, first] = await Promise.all([
      named("127.0.0.77", "127.0.0.78"),
      named("127.0.0.77", "127.0.0.1"),
      named("127.0.0.1", "127.0.0.77"),
    ]);
    assert.equal(nobody.code, 1);
    assert.match(nobody.stderr, /^error: cannot list udp:\/\/two\.example:\d+: connection refused .*\n$/);
    for (const { code, stdout } of [first, second])
      assert.deepEqual([code, / file\n/.test(stdout)], [0, true]);
  });

  test("a file that is changed while it is served: the client is told", async () => {
    writeFileSync(join(root, "changing"), Buffer.alloc(30_000_000));
    const { connection, close } = await connectRudp(
      { request: "get", name: "changing" },
      options(server.port, { windowBytes: 100_000 }),
    );
    let isChanged = false;
    connection.handlers.onReadable = () => {
      connection.take();
      if (!isChanged) appendFileSync(join(root, "changing"), "more");
      isChanged = true;
    };
    await assert.rejects(within(ended(connection).finally(close), "the end"), /changed while it was read/);
  });

  test("a file that is cut off while it is served: the client is told", async () => {
    writeFileSync(join(root, "shrinking"), Buffer.alloc(30_000_000));
    const { connection, close } = await connectRudp(
      { request: "get", name: "shrinking" },
      options(server.port, { windowBytes: 100_000 }),
    );
    connection.handlers.onReadable = () => {
      connection.take();
      truncateSync(join(root, "shrinking"), 1000);
    };
    await assert.rejects(within(ended(connection).finally(close), "the end"), /changed while it was read/);
  });

  describe("on the wire", () => {
    const open = (cookie: Buffer = Buffer.alloc(0), token: Buffer = randomBytes(8)): Message => ({
      ...{
        kind: "open",
        request: "get",
        token,
        mtu: BASE_MTU,
        window: 2 ** 20,
        offset: 0n,
        size: 0n,
        sha256: NO_HASH,
      },
      ...{ cookie, name: "file" },
    });
    async function peer(): Promise<{
      socket: Socket;
      send: (bytes: Buffer) => void;
      next: () => Promise<Buffer>;
      came: Buffer[];
    }> {
      const socket = createSocket("udp4").bind(0, "127.0.0.1");
      await once(socket, "listening");
      const came: Buffer[] = [];
      socket.on("message", (datagram) => came.push(datagram));
      return {
        socket,
        came,
        send: (bytes) => socket.send(bytes, server.port, "127.0.0.1"),
        next: async () => ((await within(once(socket, "message"), "a datagram")) as [Buffer])[0],
      };
    }

    test("who does not echo the cookie gets less than three times what it sent, ever", async () => {
      const { socket, send, next, came } = await peer();
      const bytes = seal(1, { ack: 0, ackBitfield: 0 }, NO_TOKEN, open());
      const first = next();
      for (let i = 0; i < 20; i++) send(bytes);
      assert.equal(unseal(Buffer.from(await first))?.message.kind, "challenge");
      // A whole transfer on another connection, after which everything that was to come has come.
      await fetchHere(server.port, { request: "get", name: "file" });
      for (const datagram of came) assert.equal(unseal(Buffer.from(datagram))?.message.kind, "challenge");
      const got = came.reduce((sum, { length }) => sum + length, 0);
      assert.ok(came.length <= 20 && got <= 20 * bytes.length, `${got} bytes for ${20 * bytes.length}`);
      socket.close();
    });

    test("another's cookie is no good: it is bound to address and token", async () => {
      const [one, other] = [await peer(), await peer()];
      const token = randomBytes(8);
      const wanted = one.next();
      one.send(seal(1, { ack: 0, ackBitfield: 0 }, NO_TOKEN, open(Buffer.alloc(0), token)));
      const challenge = unseal(await wanted)?.message;
      assert.ok(challenge?.kind === "challenge", "a challenge");
      for (const [from, foreign] of [
        [other, token],
        [one, randomBytes(8)],
      ] as const) {
        const answer = from.next();
        from.send(seal(2, { ack: 0, ackBitfield: 0 }, NO_TOKEN, open(challenge.cookie, foreign)));
        assert.equal(unseal(await answer)?.message.kind, "challenge");
      }
      const answer = one.next();
      one.send(seal(2, { ack: 0, ackBitfield: 0 }, NO_TOKEN, open(challenge.cookie, token)));
      assert.notEqual(unseal(await answer)?.message.kind, "challenge");
      // It is not acknowledged: leave no transfer behind.
      for (const { socket } of [one, other]) socket.close();
    });

    test("garbage, short packets, every bit of an open flipped, wrong tokens: no answer, and the server lives", async () => {
      const { socket, send, came } = await peer();
      const bytes = seal(1, { ack: 0, ackBitfield: 0 }, NO_TOKEN, open());
      for (let size = 0; size < bytes.length; size++) send(bytes.subarray(0, size));
      for (let bit = 0; bit < bytes.length * 8; bit++) {
        const damaged = Buffer.from(bytes);
        damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (0x80 >> (bit & 7));
        send(damaged);
        if (bit % 100 === 0) await nextTurn();
      }
      for (const size of [1, 25, 1200, 60_000]) send(randomBytes(size));
      for (const message of [{ kind: "done" }, { kind: "error", code: "stopped", reason: "x" }] as const)
        send(seal(5, { ack: 1, ackBitfield: 0 }, randomBytes(8), message));
      assert.ok((await fetchHere(server.port, { request: "get", name: "file" })).equals(FILE), "the file");
      assert.deepEqual(came, []);
      socket.close();
    });
  });

  test("a client that is killed in mid-transfer leaves no part behind after the time limit", async () => {
    const own = newFolder();
    const args = ["--port", 0, "--root", own, "--writable", "--timeout", 3000];
    await using impatient = await start(`${HERE}/server.ts`, args);
    const { connection, close } = await connectRudp(
      { request: "put", name: "never", size: 10_000_000, sha256: NO_HASH },
      options(impatient.port),
    );
    const accepted = new Promise<string[]>((resolve) => {
      connection.handlers.onAccepted = () => resolve(readdirSync(own));
    });
    assert.match(String(await within(accepted, "an accept")), /^\.[0-9a-f]{16}\.part$/);
    connection.write(FILE);
    connection.fail = () => {};
    close(); // and never another word
    await impatient.output(/put never: no progress for 3 s/, "stderr");
    assert.deepEqual(readdirSync(own), []);
  });

  test("a server that goes away before it answers is missed at the next packet, not after the time limit", async () => {
    const socket = createSocket("udp4").bind(0, "127.0.0.1");
    await once(socket, "listening");
    socket.once("message", () => socket.close());
    const { connection, close } = await connectRudp(
      { request: "list", name: "" },
      options(socket.address().port),
    );
    await assert.rejects(within(ended(connection).finally(close), "an end", 60_000), /connection refused/);
  });

  test(
    "a client whose disk is full says so, and leaves neither file nor part",
    existsSync("/dev/full") ? {} : { skip: "no /dev/full" },
    async () => {
      const cwd = newFolder();
      symlinkSync("/dev/full", join(cwd, "file.part"));
      const { code, stdout, stderr } = await client(["get", "file", "--continue"], cwd);
      assert.deepEqual({ code, stdout }, { code: 1, stdout: "" });
      assert.match(stderr, /^error: cannot get file from udp:\S+: the disk is full \(ENOSPC\).*\n$/);
      assert.deepEqual(readdirSync(cwd), []);
      await server.output(/get file: the disk is full \(ENOSPC\)/, "stderr");
    },
  );

  test(
    "a server whose disk is full tells the client, takes smaller files, and leaves no part",
    needsNamespaces(),
    async () => {
      const own = newFolder();
      const disk = `mount -t tmpfs -o size=200k tmpfs ${own} && cd ${own} && exec "$@"`;
      const wrapper = ["unshare", "--mount", "sh", "-c", disk, "sh"];
      await using small = await start(`${HERE}/server.ts`, ["--port", 0, "--root", own, "--writable"], {
        wrapper,
      });
      await assert.rejects(putHere(small.port, "large", FILE), /the disk is full \(ENOSPC\)/);
      await small.output(/put large: the disk is full \(ENOSPC\)/, "stderr");
      await putHere(small.port, "small", FILE.subarray(0, 150_000)); // there would be no room beside a part
      const names = (await fetchHere(small.port, { request: "list", name: "" })).toString();
      assert.match(names, /^ +150000 {2}\S+ {2}small\n$/);
    },
  );

  test("simulate.ts says what failed, and where a picture cannot be written", async () => {
    const simulate = (args: (string | number)[]) =>
      run(`${HERE}/simulate.ts`, [...args, "--bytes", 5000, "--quiet"]);
    const [deaf, nowhere, slow] = await Promise.all([
      simulate(["--loss", "100%"]),
      simulate(["--plot", "/nowhere/picture.svg"]),
      simulate(["--delay", 60_000]),
    ]);
    assert.match(deaf.stdout, /^NOT all 5000 bytes arrived in 30000\.0 ms; \d+ packets .*, 0 sent again\n$/);
    assert.deepEqual([deaf.code, deaf.stderr], [1, "error: the transfer failed: no progress for 30 s\n"]);
    assert.equal(nowhere.code, 1);
    assert.match(nowhere.stderr, /^error: cannot write \/nowhere\/picture\.svg: no such file .*\n$/);
    assert.deepEqual([slow.code, slow.stdout], [2, ""]);
  });

  test("SIGTERM in the middle of a put: no part is left", async () => {
    const own = newFolder();
    await using stopping = await start(`${HERE}/server.ts`, ["--port", 0, "--root", own, "--writable"]);
    const { connection, close } = await connectRudp(
      { request: "put", name: "never", size: 10_000_000, sha256: NO_HASH },
      options(stopping.port),
    );
    const end = ended(connection).finally(close);
    connection.handlers.onAccepted = () => stopping.kill("SIGTERM");
    await assert.rejects(within(end, "the end of the transfer"), /the server was stopped/);
    const { code } = await within(stopping.exited, "an end");
    assert.deepEqual([code, readdirSync(own)], [0, []]);
    assert.match(stopping.stderr, /put never: the server was stopped/);
  });

  test("SIGTERM: transfers are told, and it ends with 0", async () => {
    const own = newFolder();
    writeFileSync(join(own, "large"), Buffer.alloc(20_000_000));
    await using stopping = await start(`${HERE}/server.ts`, ["--port", 0, "--root", own]);
    await assert.rejects(putHere(stopping.port, "x", FILE), /takes no files; start it with --writable/);
    const { connection, close } = await connectRudp(
      { request: "get", name: "large" },
      options(stopping.port, { windowBytes: 400_000 }),
    );
    const end = ended(connection).finally(close);
    // What it says last lies behind more than is read in a turn, and then the system says that nobody is there.
    connection.handlers.onReadable = () => {
      if ((connection.input?.bufferedBytes ?? 0) < 200_000) return;
      connection.handlers.onReadable = () => {};
      stopping.kill("SIGTERM");
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
    };
    await assert.rejects(within(end, "the end of the transfer"), /the server was stopped/);
    assert.equal((await within(stopping.exited, "an end")).code, 0);
  });
});
