import { strict as assert } from "node:assert";
import dns from "node:dns";
import { getEventListeners, once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectSocket, type Socket } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join, relative } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Connection } from "./connection.ts";
import { explain, Failure } from "./errors.ts";
import { bytes, struct, u32 } from "./pdu.ts";
import { connect, GRACE_MS, type ServeOptions, serve, type TcpServer } from "./tcp.ts";
import { PATIENCE_MS, Running, start, within } from "./testing.ts";

const LOOPBACK = "127.0.0.1";
const hasIpv6 = Object.values(networkInterfaces()).some((addresses) =>
  addresses?.some(({ address }) => address === "::1"),
);
const linux = process.platform === "linux" ? {} : { skip: "127.0.0.2 is Linux's" };
const ipv6 = hasIpv6 ? {} : { skip: "no ::1 on this machine" };

const folder = mkdtempSync(join(tmpdir(), "netlab-tcp-"));
after(() => rmSync(folder, { recursive: true }));

/** A program of a few lines around the library, in a process of its own. */
function script(name: string, body: string): string {
  const path = join(folder, name);
  const library = (module: string) => JSON.stringify(join(import.meta.dirname, module));
  writeFileSync(
    path,
    `import { serve } from ${library("tcp.ts")};\nimport { Failure } from ${library("errors.ts")};\n${body}`,
  );
  return relative(join(import.meta.dirname, ".."), path);
}

/** A server that lives as long as its test. */
class Serving implements AsyncDisposable {
  readonly logged: string[] = [];
  readonly stop = new AbortController();
  server!: TcpServer;
  static async start(
    session: (connection: Connection) => Promise<void>,
    options: Partial<ServeOptions> = {},
  ): Promise<Serving> {
    const serving = new Serving();
    serving.server = await serve(
      {
        host: LOOPBACK,
        port: 0,
        signal: serving.stop.signal,
        log: (line) => serving.logged.push(line),
        ...options,
      },
      session,
    );
    return serving;
  }
  connect(timeoutMs = PATIENCE_MS): Promise<Connection> {
    return connect({ host: LOOPBACK, port: this.server.port, timeoutMs });
  }
  /** Waits until so many lines are logged. */
  async log(lines: number): Promise<string[]> {
    const wait = async () => {
      while (this.logged.length < lines) await sleep(2);
    };
    await within(wait(), `${lines} lines in the log`);
    return this.logged;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.stop.abort();
    await within(this.server.closed, "the end of the server");
  }
}

async function echo(connection: Connection): Promise<void> {
  for (let chunk = await connection.read(); chunk !== undefined; chunk = await connection.read()) {
    await connection.write(chunk);
  }
}
async function echoesLine(connection: Connection, line: string): Promise<void> {
  await connection.write(`${line}\n`);
  assert.equal(await connection.readLine(1000), line);
}

/** The failure's one line. */
async function failure(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => assert.fail("it did not fail"),
    (error: unknown) => error,
  );
  assert.ok(error instanceof Failure, String(error));
  assert.ok(!explain(error).includes("\n"));
  return explain(error);
}

test("a server says where it listens, serves, and stops", async () => {
  const serving = await Serving.start(echo);
  assert.equal(serving.server.url, `tcp://127.0.0.1:${serving.server.port}`);
  const client = await serving.connect();
  assert.equal(client.peer, `127.0.0.1:${serving.server.port}`);
  await echoesLine(client, "hello");
  await client.close();
  serving.stop.abort();
  await within(serving.server.closed, "the end of the server");
  assert.match(await failure(serving.connect()), /connection refused/);
  assert.deepEqual(serving.logged, []);
});

test("where it cannot listen, one line says why and what to do", async () => {
  await using taken = await Serving.start(echo);
  const { port } = taken.server;
  assert.equal(
    await failure(Serving.start(echo, { port })),
    `cannot listen on 127.0.0.1:${port}: address already in use (EADDRINUSE); choose another with --port`,
  );
  assert.equal(
    await failure(Serving.start(echo, { host: "192.0.2.1" })), // TEST-NET-1, RFC 5737
    "cannot listen on 192.0.2.1:0: not an address of this machine (EADDRNOTAVAIL); choose another with --host",
  );
  assert.match(
    await failure(Serving.start(echo, { host: "nobody.invalid" })),
    /^cannot listen on nobody\.invalid:0: .*(ENOTFOUND|EAI_AGAIN)/,
  );
  assert.match(
    await failure(Serving.start(echo, { host: "2001:db8::1" })),
    /^cannot listen on \[2001:db8::1\]:0: /,
  );
});

test("where it cannot connect, one line says why and what to do", async () => {
  const closed = await Serving.start(echo);
  closed.stop.abort();
  await closed.server.closed;
  const { port } = closed.server;
  for (const host of [LOOPBACK, "localhost"]) {
    assert.equal(
      await failure(connect({ host, port })),
      `cannot connect to ${host}:${port}: connection refused (ECONNREFUSED); is a server running there?`,
    );
  }
  assert.match(
    await failure(connect({ host: "nobody.invalid", port })),
    /^cannot connect to nobody\.invalid:\d+: .*(ENOTFOUND|EAI_AGAIN)/,
  );
});

/** Nobody answers here: the process is stopped and its queue of connections is full. */
async function blackHole(): Promise<AsyncDisposable & { port: number; wake: () => void }> {
  const code = `require("net").createServer().listen({ port: 0, host: "127.0.0.1", backlog: 1 }, function () {
    console.log("listening on tcp://127.0.0.1:" + this.address().port); })`;
  const stopped = new Running(process.execPath, ["-e", code], {});
  await stopped.output(/listening/);
  const { port } = stopped;
  stopped.kill("SIGSTOP");
  const fillers = Array.from({ length: 8 }, () =>
    connectSocket({ host: LOOPBACK, port }).on("error", () => {}),
  );
  await once(fillers[0] as Socket, "connect");
  return {
    port,
    wake: () => stopped.kill("SIGCONT"),
    async [Symbol.asyncDispose]() {
      for (const filler of fillers) filler.destroy();
      await stopped[Symbol.asyncDispose]();
    },
  };
}

test("a server that does not answer: a time-out or a signal ends the waiting, and nothing is left", async () => {
  await using hole = await blackHole();
  const { port } = hole;
  const to = { host: LOOPBACK, port };
  const name = `cannot connect to 127.0.0.1:${port}`;
  assert.equal(await failure(connect({ ...to, timeoutMs: 50 })), `${name}: no answer within 50 ms`);
  const stop = new AbortController();
  const connecting = failure(connect({ ...to, timeoutMs: 0, signal: stop.signal }));
  setTimeout(() => stop.abort(), 20);
  assert.equal(await within(connecting, "the abort"), `${name}: stopped`);
  assert.equal(getEventListeners(stop.signal, "abort").length, 0);
  const timers = process.getActiveResourcesInfo().filter((resource) => resource === "Timeout");
  assert.deepEqual(timers, []);
});

test(
  "each address of a name has its time: a far one is waited for, a dead one not until the end",
  linux,
  async (t) => {
    await using far = await blackHole();
    const found = [LOOPBACK, "127.0.0.2"].map((address) => ({ address, family: 4 }));
    const real = dns.lookup as (name: string, ...rest: unknown[]) => void;
    t.mock.method(dns, "lookup", (name: string, ...rest: unknown[]) => {
      if (name !== "far.example") return real(name, ...rest);
      (rest.at(-1) as (error: null, addresses: unknown[]) => void)(null, found);
    });
    const to = { host: "far.example", port: far.port };
    {
      await using _second = await Serving.start(echo, { host: "127.0.0.2", port: far.port });
      await using client = await connect({ ...to, timeoutMs: 3000 });
      assert.equal(client.peer, `127.0.0.2:${far.port}`);
    }
    const connecting = connect(to); // nobody is at the second one now
    await sleep(700); // longer than Node waits by itself
    far.wake();
    await using client = await connecting;
    assert.equal(client.peer, `127.0.0.1:${far.port}`);
  },
);

test("a signal given beforehand stops it, one given afterwards leaves the connection alone", async () => {
  await using serving = await Serving.start(echo);
  const { port } = serving.server;
  assert.match(await failure(connect({ host: LOOPBACK, port, signal: AbortSignal.abort() })), /: stopped$/);
  const stop = new AbortController();
  await using client = await connect({ host: LOOPBACK, port, signal: stop.signal });
  assert.equal(getEventListeners(stop.signal, "abort").length, 0);
  stop.abort();
  await echoesLine(client, "still here");
});

test("the time for setting up is later that for every wait", async () => {
  await using serving = await Serving.start(echo);
  await using client = await serving.connect(50);
  await assert.rejects(client.read(), { name: "TimeoutError", message: "the peer sent nothing for 50 ms" });
});

test("a bad peer costs its own connection and one line, and nobody else notices", async () => {
  const Blob = struct("Blob", { data: [bytes(u32, 1000), "at most 1,000 bytes"] });
  await using serving = await Serving.start(
    async (connection) => {
      while ((await connection.readPdu(Blob, 10_000)) !== undefined) await connection.write("ok\n");
    },
    { timeoutMs: 500 },
  );
  const good = await serving.connect();
  const alive = setInterval(() => void good.write(Buffer.alloc(4)), 20);
  try {
    for (const [attack, complaint] of [
      [
        (socket) => void socket.write(Buffer.alloc(4, 0xff)),
        "Blob.data at byte 0: is 4294967295 bytes, at most 1000",
      ],
      [
        (socket) => void socket.end(Buffer.alloc(3)),
        "the peer finished in the middle of a PDU, after 3 bytes",
      ],
      [(socket) => void socket.write(Buffer.alloc(3)), "the peer sent nothing for 500 ms"],
      [
        // Only when the server has read all: libuv makes an end of a reset that comes together with bytes.
        (socket) => void socket.once("data", () => socket.resetAndDestroy()).write(Buffer.alloc(7)),
        "the peer reset the connection (ECONNRESET)",
      ],
    ] as [(socket: Socket) => void, string][]) {
      const lines = serving.logged.length;
      const socket = connectSocket({ host: LOOPBACK, port: serving.server.port });
      socket.on("error", () => {});
      await once(socket, "connect");
      const { localPort } = socket;
      const closed = once(socket, "close");
      attack(socket);
      await serving.log(lines + 1);
      socket.resume();
      await within(closed, "the server's cut");
      assert.ok(
        serving.logged[lines]?.startsWith(`127.0.0.1:${localPort}: ${complaint}`),
        serving.logged[lines],
      );
      assert.equal(serving.logged.length, lines + 1);
      assert.equal(await good.readLine(10), "ok");
    }
  } finally {
    clearInterval(alive);
    await good.close();
  }
});

test("a session's own Failure is such a line, too", async () => {
  await using serving = await Serving.start(async () => {
    throw new Failure("cannot open the file", { cause: new Failure("it is a directory") });
  });
  await using client = await serving.connect();
  assert.equal(await client.read(), undefined);
  assert.match(
    (await serving.log(1))[0] ?? "",
    /^127\.0\.0\.1:\d+: cannot open the file: it is a directory$/,
  );
});

test("a bug in a session ends the program, loudly", async () => {
  const buggy = script(
    "buggy.mts",
    `const { url } = await serve({ host: "127.0.0.1", port: 0, signal: new AbortController().signal, log: console.error },
      async (connection) => { if (await connection.readLine(100) === "bug") (undefined as any).x; });
    console.log("listening on " + url);`,
  );
  await using running = await start(buggy);
  const socket = connectSocket({ host: LOOPBACK, port: running.port }, () => socket.write("bug\n"));
  socket.on("error", () => {});
  assert.equal((await within(running.exited, "the crash")).code, 1);
  assert.match(running.stderr, /TypeError: Cannot read properties of undefined[\s\S]*at .*buggy\.mts/);
});

test("running out of descriptors does not end the server: it goes on when there are some again", async () => {
  const small = script(
    "small.mts",
    `const { url } = await serve({ host: "127.0.0.1", port: 0, signal: new AbortController().signal, log: console.error },
      async (connection) => { const line = await connection.readLine(100); await connection.write(line + "\\n"); });
    console.log("listening on " + url);`,
  );
  await using running = await start(small, [], { wrapper: ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"] });
  const open = () => connectSocket({ host: LOOPBACK, port: running.port }).on("error", () => {});
  const sockets = Array.from({ length: 100 }, open);
  await within(Promise.race(sockets.map((socket) => once(socket, "close"))), "a client that is turned away");
  for (const socket of sockets) socket.destroy();
  const served = async () => {
    for (;;) {
      await using client = await connect({ host: LOOPBACK, port: running.port });
      await client.write("still here\n").catch(() => {});
      if ((await client.readLine(100).catch(() => "")) === "still here") return;
    }
  };
  await within(served(), "a server that serves again");
});

test("clients beyond the limit are closed at once, with one line; who leaves makes room", async () => {
  await using serving = await Serving.start(echo, { maxConnections: 2 });
  const [first, second] = [await serving.connect(), await serving.connect()];
  await echoesLine(first, "one");
  await echoesLine(second, "two");
  await using third = await serving.connect();
  assert.equal(await third.read().catch(() => undefined), undefined);
  assert.match((await serving.log(1)).join("\n"), /^127\.0\.0\.1:\d+: refused, 2 clients are connected$/);
  await first.close();
  const again = async () => {
    for (;;) {
      await using client = await serving.connect();
      await client.write("x\n").catch(() => {});
      if ((await client.readLine(10).catch(() => undefined)) === "x") return;
    }
  };
  await within(again(), "room for one more");
  await echoesLine(second, "still");
  await second.close();
});

test("500 clients at once, and 200 that reset at once", async () => {
  let most = 0;
  let now = 0;
  await using serving = await Serving.start(async (connection) => {
    most = Math.max(most, ++now);
    await echo(connection);
    now--;
  });
  const clients = await Promise.all(Array.from({ length: 500 }, () => serving.connect()));
  const vandals = Array.from({ length: 200 }, () => {
    const socket = connectSocket({ host: LOOPBACK, port: serving.server.port }, () =>
      socket.resetAndDestroy(),
    );
    return once(socket, "close");
  });
  await Promise.all(clients.map((client, i) => echoesLine(client, `client ${i}`)));
  await Promise.all(vandals);
  assert.ok(most >= 500);
  await Promise.all(clients.map((client) => client.close()));
  await within(serving.log(0), "the log");
  for (const line of serving.logged) assert.match(line, /: the peer reset the connection \(ECONNRESET\)$/);
});

test("a client that never reads waits alone", async () => {
  await using serving = await Serving.start(echo);
  const greedy = connectSocket({ host: LOOPBACK, port: serving.server.port }).on("error", () => {});
  await once(greedy, "connect");
  greedy.pause();
  const chunk = Buffer.alloc(65_536);
  let sent = 0;
  while (sent < 2 ** 30) {
    sent += chunk.length;
    if (greedy.write(chunk)) continue;
    const drained = once(greedy, "drain");
    if ((await Promise.race([drained, sleep(100)])) === undefined) break; // the server takes no more
  }
  assert.ok(sent < 2 ** 26, `${sent} bytes were taken`);
  await using client = await serving.connect();
  await echoesLine(client, "hello");
  greedy.destroy();
});

test("a half-closed client gets its answer; a session's end is an orderly one", async () => {
  await using serving = await Serving.start(async (connection) => {
    let total = 0;
    for (let chunk = await connection.read(); chunk !== undefined; chunk = await connection.read()) {
      total += chunk.length;
    }
    await connection.write(`${total} bytes\n`);
  });
  await using client = await serving.connect();
  await client.write(Buffer.alloc(1_000_000));
  client.end();
  assert.equal(await client.readLine(100), "1000000 bytes");
  assert.equal(await client.read(), undefined);
});

test("a server told to stop: what waits sees an end at once, what works has the time to finish", async () => {
  const serving = await Serving.start(async (connection) => {
    const line = await connection.readLine(100);
    if (line === "work") {
      await connection.write("at work\n");
      await sleep(300);
    }
    await connection.write(`bye ${line}\n`);
  });
  const [waiting, working] = [await serving.connect(), await serving.connect()];
  await working.write("work\n");
  assert.equal(await working.readLine(100), "at work");
  serving.stop.abort();
  assert.equal(await waiting.readLine(100), "bye undefined");
  assert.match(await failure(serving.connect()), /refused/);
  assert.equal(await working.readLine(100), "bye work");
  assert.equal(await working.readLine(100), undefined);
  await Promise.all([waiting.close(), working.close()]);
  await within(serving.server.closed, "the end of the server");
  assert.deepEqual(serving.logged, []);
});

test("a client that goes on sending does not keep a server that was told to stop", async () => {
  const serving = await Serving.start(echo);
  const socket = connectSocket({ host: LOOPBACK, port: serving.server.port }).on("error", () => {});
  await once(socket, "connect");
  socket.resume();
  const chatter = setInterval(() => socket.write("chatter"), 1);
  const finished = once(socket, "end");
  await once(socket, "data");
  serving.stop.abort();
  await within(finished, "the server's FIN");
  clearInterval(chatter);
  socket.end();
  await within(serving.server.closed, "the end of the server");
  assert.deepEqual(serving.logged, [], "it was not cut off when the grace was over");
});

test("a session that does not finish is cut off when the grace is over; one that works without a client is waited for", async () => {
  const done: string[] = [];
  const serving = await Serving.start(async (connection) => {
    const line = await connection.readLine(100);
    await connection.write("at work\n");
    await sleep(400);
    done.push(line ?? "");
  });
  const worker = connectSocket({ host: LOOPBACK, port: serving.server.port }, () => worker.write("work\n"));
  worker.once("data", () => worker.resetAndDestroy()).on("error", () => {});
  await once(worker, "close");
  const started = performance.now();
  serving.stop.abort();
  await within(serving.server.closed, "the end of the server");
  assert.deepEqual(done, ["work"], "the work was finished though its client had gone");
  assert.ok(performance.now() - started < GRACE_MS, "nobody waited longer than for that");

  const stuck = await Serving.start(async () => new Promise(() => {}));
  const client = await stuck.connect();
  const before = performance.now();
  stuck.stop.abort();
  await within(stuck.server.closed, "the end of the server", GRACE_MS + 1000);
  assert.ok(performance.now() - before >= GRACE_MS - 100, "not before the grace is over");
  assert.equal(await client.read(), undefined);
  client.destroy();
});

test("a server told to stop before it began", async () => {
  const logged: string[] = [];
  const server = await serve(
    { host: LOOPBACK, port: 0, signal: AbortSignal.abort(), log: (line) => logged.push(line) },
    echo,
  );
  await within(server.closed, "the end of the server");
});

test("one abort listener for a server, whatever the number of its clients", async () => {
  await using serving = await Serving.start(echo);
  const clients = await Promise.all(Array.from({ length: 20 }, () => serving.connect()));
  await Promise.all(clients.map((client, i) => echoesLine(client, `${i}`)));
  assert.equal(getEventListeners(serving.stop.signal, "abort").length, 1);
  await Promise.all(clients.map((client) => client.close()));
});

test("localhost, and a name for the host", async () => {
  await using serving = await Serving.start(echo, { host: "localhost" });
  assert.match(serving.server.url, /^tcp:\/\/(127\.0\.0\.1|\[::1\]):\d+$/);
  await using client = await connect({ host: "localhost", port: serving.server.port });
  await echoesLine(client, "hello");
});

test("IPv6: addresses in brackets, in the URL and in the log", ipv6, async () => {
  await using serving = await Serving.start(
    async (connection) => {
      if ((await connection.readLine(100)) === "fail") throw new Failure("as told");
    },
    { host: "::1", maxConnections: 1 },
  );
  assert.match(serving.server.url, /^tcp:\/\/\[::1\]:\d+$/);
  await using client = await connect({ host: "::1", port: serving.server.port });
  assert.equal(client.peer, `[::1]:${serving.server.port}`);
  await using refused = await connect({ host: "::1", port: serving.server.port });
  await refused.read().catch(() => {});
  assert.match((await serving.log(1))[0] ?? "", /^\[::1\]:\d+: refused, 1 clients are connected$/);
  await client.write("fail\n");
  assert.match((await serving.log(2))[1] ?? "", /^\[::1\]:\d+: as told$/);
});

test("a server on :: answers both IPv6 and IPv4", ipv6, async () => {
  await using serving = await Serving.start(echo, { host: "::" });
  assert.match(serving.server.url, /^tcp:\/\/\[::\]:\d+$/);
  for (const host of ["::1", LOOPBACK, "localhost"]) {
    await using client = await connect({ host, port: serving.server.port });
    await echoesLine(client, host);
  }
});

test("one receive buffer: what was not yet taken is kept, what was read stays until the next read", async () => {
  const sent = Buffer.from(Array.from({ length: 50_000 }, (_, i) => (i * 31 + (i >> 8)) & 255));
  await using serving = await Serving.start(async (peer) => {
    for (let at = 0; at < sent.length; at += 7000) await peer.write(sent.subarray(at, at + 7000));
    await peer.write("a line\n".repeat(20));
    peer.end();
    while ((await peer.read()) !== undefined);
  });
  const { port } = serving.server;
  const receiveBuffer = Buffer.alloc(64);
  await using ours = await connect({ host: LOOPBACK, port, timeoutMs: PATIENCE_MS, receiveBuffer });
  assert.deepEqual(await ours.readExactly(1000), sent.subarray(0, 1000), "longer than the buffer");
  let lent = 0;
  for (let at = 1000; at < sent.length; ) {
    const chunk = (await ours.read(Math.min(50, sent.length - at))) ?? Buffer.alloc(0);
    if (chunk.buffer === receiveBuffer.buffer) lent += chunk.length;
    assert.deepEqual(chunk, sent.subarray(at, at + chunk.length));
    at += chunk.length;
  }
  assert.ok(lent > 48_900, "nothing is copied but the rest of what was read in one piece");
  for (let i = 0; i < 20; i++) assert.equal(await ours.readLine(100), "a line");
  assert.equal(await ours.read(), undefined, "the end is seen");
});

test("one receive buffer: a close does not wait for what nobody reads", async () => {
  await using serving = await Serving.start(async (peer) => {
    await peer.write(Buffer.alloc(300_000));
    peer.end();
    while ((await peer.read()) !== undefined);
  });
  const { port } = serving.server;
  const ours = await connect({ host: LOOPBACK, port, timeoutMs: 0, receiveBuffer: Buffer.alloc(1000) });
  await ours.read();
  await within(ours.close(PATIENCE_MS * 2), "the close");
});

test("a socket that is released has what was not yet taken", async () => {
  await using serving = await Serving.start(async (peer) => {
    await peer.write("for us\nfor another");
    assert.equal(await peer.readLine(100), "from another");
    await peer.write(", too");
  });
  const connection = await serving.connect();
  assert.equal(await connection.readLine(100), "for us");
  const socket = connection.release();
  const next = new Connection(socket, PATIENCE_MS);
  assert.equal((await next.readExactly(11))?.toString(), "for another");
  await next.write("from another\n");
  assert.equal((await next.readExactly(5))?.toString(), ", too");
  assert.equal(connection.unreadBytes, 0, "the first one gets nothing any more");
  await next.close();
});
