import { strict as assert } from "node:assert";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect as connectSocket, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  cpuTimeMs,
  type Fault,
  freePort,
  needs,
  Running,
  resetAfter,
  run,
  runTool,
  splitAt,
  stallAfter,
  start,
  tcpRelay,
  transcript,
  within,
  writeSplit,
} from "./testing.ts";

const LOOPBACK = "127.0.0.1";
const folder = mkdtempSync(join(tmpdir(), "netlab-testing-"));
after(() => rmSync(folder, { recursive: true }));

function script(name: string, body: string): string {
  writeFileSync(join(folder, name), body);
  return relative(join(import.meta.dirname, ".."), join(folder, name));
}

/** A plain TCP server for as long as the test lasts; what `serve` does with a socket is its own affair. */
async function serving(serve: (socket: Socket) => void): Promise<AsyncDisposable & { port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket.on("error", () => {}));
    serve(socket);
  });
  await once(server.listen(0, LOOPBACK), "listening");
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
const echo = (socket: Socket) => void socket.pipe(socket);

async function connected(port: number): Promise<Socket> {
  const socket = connectSocket({ port, host: LOOPBACK, allowHalfOpen: true, noDelay: true });
  await once(socket, "connect");
  return socket.on("error", () => {});
}
async function all(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  // Plain `for await` destroys the socket at its end, and with it the answer that is still to be written.
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
/** Reads byte by byte: libuv makes an end of a reset that it meets behind a buffer half filled. */
async function untilReset(port: number, say: string): Promise<number> {
  let received = 0;
  const callback = () => ++received > 0;
  const socket = connectSocket({ port, host: LOOPBACK, onread: { buffer: Buffer.alloc(1), callback } });
  await once(socket, "connect");
  const ended = once(socket, "end");
  socket.write(say);
  await assert.rejects(within(ended, "a reset"), { code: "ECONNRESET" });
  return received;
}

const STREAM = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7) % 256));

test("split writing: all bytes in order, in many pieces, with a reader that is slow", async () => {
  const chunks: Buffer[] = [];
  await using server = await serving((socket) => socket.on("data", (chunk: Buffer) => chunks.push(chunk)));
  const socket = await connected(server.port);
  await writeSplit(socket, STREAM.subarray(0, 300));
  await writeSplit(socket, STREAM.subarray(300), 7);
  socket.end();
  await once(socket, "finish");
  const arrived = async () => {
    while (Buffer.concat(chunks).length < STREAM.length) await sleep(2);
  };
  await within(arrived(), "all bytes");
  assert.deepEqual(Buffer.concat(chunks), STREAM);
  assert.ok(chunks.length > 50, `${chunks.length} chunks`);
  socket.destroy();
});

test("split writing ends with an error, not never, when the other side is gone", async () => {
  await using server = await serving(() => {}); // reads nothing
  const waiting = await connected(server.port);
  const writing = writeSplit(waiting, Buffer.alloc(64 * 1024 * 1024), 1024 * 1024);
  writing.catch(() => {});
  while (!waiting.writableNeedDrain) await sleep(2);
  waiting.destroy();
  await assert.rejects(within(writing, "the writer"), { code: /^(ERR_STREAM_DESTROYED|ECANCELED)$/ });
  const again = writeSplit(waiting, Buffer.alloc(10));
  await assert.rejects(within(again, "the writer"), { code: "ERR_STREAM_DESTROYED" });
});

test("a transcript: a whole conversation passes, and every kind of wrong line is caught", async () => {
  const lines: Record<string, string> = { hello: "hi\r\n", two: "one\r\ntwo\r\n", bare: "lf\n" };
  await using server = await serving((socket) => {
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      for (let at = text.indexOf("\r\n"); at >= 0; at = text.indexOf("\r\n")) {
        socket.write(lines[text.slice(0, at)] ?? "what?\r\n");
        text = text.slice(at + 2);
      }
    });
    socket.on("end", () => socket.end());
  });
  const { port } = server;
  await transcript(port, [
    "> hello",
    "< hi",
    "> two",
    "< one",
    "< two",
    "> nonsense",
    "< what?",
    "> (end)",
    "< (end)",
  ]);
  await transcript(port, []);
  for (const wrong of [
    ["> hello", "< hello"],
    ["> hello", "< hi "],
    ["> hello", "< "],
    ["> two", "< two", "< one"],
    ["> two", "> (end)", "< one", "< (end)"],
    ["> hello", "> (end)", "< hi", "< more", "< (end)"],
    ["> (end)", "< hi"],
  ]) {
    await assert.rejects(transcript(port, wrong), { name: "AssertionError" }, wrong.join(", "));
  }
});

test("a transcript needs a server", async () => {
  const server = await serving(echo);
  await server[Symbol.asyncDispose]();
  await assert.rejects(transcript(server.port, ["> hello"]), /cannot connect/);
});

test("a relay that splits: the same bytes both ways, in pieces, and half-closing works", async () => {
  let pieces = 0;
  const counted: Fault = (chunk, offset, toServer) => {
    const split = splitAt(3)(chunk, offset, toServer);
    if (toServer) pieces += split.pieces.length;
    return split;
  };
  assert.deepEqual(splitAt(4)(Buffer.from("0123456789"), 0, true), {
    pieces: ["0123", "4567", "89"].map((piece) => Buffer.from(piece)),
  });
  await using server = await serving(async (socket) => {
    socket.end((await all(socket)).toReversed());
  });
  await using relay = await tcpRelay(server.port, counted);
  const client = await connected(relay.port);
  client.end(STREAM);
  assert.deepEqual(await within(all(client), "the answer"), Buffer.from(STREAM.toReversed()));
  assert.ok(pieces >= STREAM.length / 3);
});

test("a relay that stalls: so many bytes pass, then none, and the connection stays", async () => {
  await using server = await serving(echo);
  for (const bytes of [0, 1, 5, 10]) {
    await using relay = await tcpRelay(server.port, stallAfter(bytes));
    const client = await connected(relay.port);
    let received = 0;
    client.on("data", (chunk: Buffer) => {
      received += chunk.length;
    });
    const ended = Promise.race([once(client, "end"), once(client, "close")]).then(() => "ended");
    for (const piece of ["0123", "456789", "more", "and more"]) client.write(piece);
    const enough = async () => {
      while (received < bytes) await sleep(2);
    };
    await within(enough(), `${bytes} bytes`);
    assert.equal(await Promise.race([ended, sleep(50, "open")]), "open");
    assert.equal(received, bytes);
    client.destroy();
  }
});

test("a relay that resets: so many bytes pass, then both sides are reset", async () => {
  const resets: string[] = [];
  await using server = await serving((socket) => {
    socket.on("error", ({ code }: NodeJS.ErrnoException) => resets.push(code ?? ""));
    socket.write("0123456789"); // the answer of 10 bytes comes at once
    socket.resume();
  });
  for (const bytes of [1, 5, 10]) {
    await using relay = await tcpRelay(server.port, (chunk, offset, toServer) =>
      toServer ? { pieces: [chunk] } : resetAfter(bytes)(chunk, offset, toServer),
    );
    assert.equal(await untilReset(relay.port, "hello"), bytes);
  }
  const told = async () => {
    while (resets.length < 3) await sleep(2);
  };
  await within(told(), "three resets at the server");
});

test("a relay passes on a server's own reset, and that nobody listens", async () => {
  await using server = await serving((socket) => socket.once("data", () => socket.resetAndDestroy()));
  await using relay = await tcpRelay(server.port, splitAt(1));
  await untilReset(relay.port, "x");
  const gone = await serving(echo);
  await gone[Symbol.asyncDispose]();
  await using nowhere = await tcpRelay(gone.port, splitAt(1));
  const client = await connected(nowhere.port);
  await within(once(client.resume(), "close"), "the end").catch(() => {});
});

test("a relay does not take more than the other side takes", async () => {
  await using server = await serving((socket) => socket.pause());
  await using relay = await tcpRelay(server.port, splitAt(100_000));
  const client = await connected(relay.port);
  const chunk = Buffer.alloc(65_536);
  let sent = 0;
  while (sent < 2 ** 28) {
    sent += chunk.length;
    if (client.write(chunk)) continue;
    if ((await Promise.race([once(client, "drain"), sleep(150)])) === undefined) break;
  }
  assert.ok(sent < 2 ** 26, `${sent} bytes were taken`);
  client.destroy();
});

test("what is waited for in vain is said", async () => {
  await assert.rejects(within(new Promise(() => {}), "godot", 10), {
    message: "waited 10 ms in vain for godot",
  });
  assert.equal(await within(Promise.resolve(5), "five"), 5);
  await assert.rejects(within(Promise.reject(new Error("its own")), "it"), { message: "its own" });
  assert.deepEqual(
    process.getActiveResourcesInfo().filter((resource) => resource === "Timeout"),
    [],
  );
});

test("a missing tool: skipped with a reason, or a failure where tools are required", () => {
  const { NETLAB_REQUIRE_TOOLS: before } = process.env;
  try {
    delete process.env["NETLAB_REQUIRE_TOOLS"];
    assert.deepEqual(needs("sh"), {});
    assert.deepEqual(needs("sh", "no-such-tool", "nor-this"), {
      skip: "not installed: no-such-tool, nor-this",
    });
    process.env["NETLAB_REQUIRE_TOOLS"] = "1";
    assert.deepEqual(needs("sh", "cat"), {});
    assert.throws(() => needs("sh", "no-such-tool"), { message: "not installed: no-such-tool" });
  } finally {
    if (before === undefined) delete process.env["NETLAB_REQUIRE_TOOLS"];
    else process.env["NETLAB_REQUIRE_TOOLS"] = before;
  }
});

test("a program: its ready lines, its output in bytes, its end", async () => {
  const server = script(
    "server.mjs",
    `console.error("commentary");
    console.log("listening on tcp://127.0.0.1:1234");
    setTimeout(() => console.log("listening on udp://[::1]:5678"), 50);
    process.on("SIGTERM", () => process.exit(7));
    setInterval(() => {}, 1000);`,
  );
  await using running = await start(server, ["--port", 0], { servers: 2 });
  assert.deepEqual(running.urls, ["tcp://127.0.0.1:1234", "udp://[::1]:5678"]);
  assert.equal(running.port, 1234);
  assert.equal((await running.output(/comm(\w+)/, "stderr"))[1], "entary");
  await assert.rejects(running.output(/never/, "stdout", 10), /waited 10 ms in vain for \/never\/ on stdout/);
  assert.equal(await running.stop(), 7);
  await assert.rejects(running.output(/never/), /it ended \(7\) without \/never\/ on stdout/);
});

test("a program that ends before it is ready: said at once, with what it said", async () => {
  const failing = script("failing.mjs", `console.error("error: no such thing"); process.exitCode = 3;`);
  await assert.rejects(start(failing), /it ended \(3\) without [\s\S]*error: no such thing/);
  await assert.rejects(within(new Running("/no/such/program", [], {}).exited, "its end"), /ENOENT/);
});

test("disposing ends a program, whatever it does against it", async () => {
  const stubborn = script(
    "stubborn.mjs",
    `process.on("SIGTERM", () => {}); setInterval(() => {}, 1000); console.log("listening on x://y:1");`,
  );
  let ended: Running["exited"];
  {
    await using running = await start(stubborn);
    running.kill("SIGTERM");
    ended = running.exited;
  }
  assert.deepEqual(await within(ended, "its end"), { code: null, signal: "SIGKILL" });
});

test("run to the end: arguments, input and output byte by byte, environment, folder, wrapper", async () => {
  const reverse = script(
    "reverse.mjs",
    `const chunks = []; for await (const chunk of process.stdin) chunks.push(chunk);
    process.stdout.write(Buffer.concat(chunks).reverse());
    process.stderr.write([...process.argv.slice(2), process.env.WORD, process.cwd()].join(" "));
    process.exitCode = 5;`,
  );
  const result = await run(reverse, ["a", 1, "-b c"], {
    stdin: STREAM,
    env: { WORD: "word" },
    cwd: tmpdir(),
    wrapper: ["nice", "-n", "0"],
  });
  assert.deepEqual(result.bytes, Buffer.from(STREAM.toReversed()));
  assert.deepEqual(
    { code: result.code, stderr: result.stderr },
    { code: 5, stderr: `a 1 -b c word ${tmpdir()}` },
  );
  const tool = await runTool("cat", [], "through a tool");
  assert.deepEqual({ code: tool.code, stdout: tool.stdout }, { code: 0, stdout: "through a tool" });
  assert.equal((await runTool("true", [], STREAM)).code, 0, "one that does not read its input");
});

test("what a process has cost, its children included", needs("sh"), async (t) => {
  if (process.platform !== "linux") return t.skip("reads /proc");
  await using parent = new Running("sh", ["-c", "sh -c 'while :; do :; done' & echo $!; wait"], {});
  const [child] = await parent.output(/\d+(?=\n)/);
  const beforeMs = cpuTimeMs(parent.child.pid);
  while (cpuTimeMs(parent.child.pid) < beforeMs + 50) await sleep(10);
  process.kill(Number(child), "SIGKILL");
  await within(parent.exited, "its end");
  assert.ok(Number.isNaN(cpuTimeMs(undefined)));
});

test("a port is given away once, however many ask, in whatever process", async () => {
  // Loaded anew, a module knows nothing of what the first one gave away, as in another process.
  const another = ["./free-port.ts", "another"].join("?");
  const { freePort: anothers } = (await import(another)) as typeof import("./free-port.ts");
  const askers = [freePort, anothers];
  const ports = await Promise.all(Array.from({ length: 300 }, (_, i) => askers[i % 2]?.()));
  assert.equal(new Set(ports).size, 300);
  assert.ok(ports.every((port = 0) => port >= 20_000 && port < 32_768));
});
