import { strict as assert } from "node:assert";
import { createSocket, type RemoteInfo, Socket } from "node:dgram";
import dns from "node:dns/promises";
import { getEventListeners } from "node:events";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { networkInterfaces, tmpdir } from "node:os";
import { join, relative } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { TimeoutError } from "./connection.ts";
import { explain, Failure } from "./errors.ts";
import { decode, struct, u32 } from "./pdu.ts";
import { start, within } from "./testing.ts";
import {
  type BindOptions,
  bind,
  enlargeBuffers,
  MAX_DATAGRAM_BYTES,
  type RequestOptions,
  request,
  type UdpServer,
} from "./udp.ts";

const LOOPBACK = "127.0.0.1";
const hasIpv6 = Object.values(networkInterfaces()).some((addresses) =>
  addresses?.some(({ address }) => address === "::1"),
);
const ipv6 = hasIpv6 ? {} : { skip: "no ::1 on this machine" };

/** A server that lives as long as its test, and remembers what came. */
class Serving implements AsyncDisposable {
  readonly logged: string[] = [];
  readonly came: { datagram: Buffer; from: RemoteInfo }[] = [];
  readonly stop = new AbortController();
  server!: UdpServer;
  static async start(
    onDatagram: (datagram: Buffer, from: RemoteInfo, server: UdpServer) => void,
    options: Partial<BindOptions> = {},
  ): Promise<Serving> {
    const serving = new Serving();
    const { signal } = serving.stop;
    const log = (line: string) => void serving.logged.push(line);
    serving.server = await bind(
      { host: LOOPBACK, port: 0, signal, log, ...options },
      (datagram, from, server) => {
        serving.came.push({ datagram, from });
        onDatagram(datagram, from, server);
      },
    );
    return serving;
  }
  ask<T = string>(options: Partial<RequestOptions<T>> = {}): Promise<T> {
    return request({
      host: LOOPBACK,
      port: this.server.port,
      request: Buffer.from("hello"),
      accept: (datagram) => datagram.toString() as T,
      timeoutMs: 5000,
      ...options,
    });
  }
  async until(holds: () => boolean, what: string): Promise<void> {
    const wait = async () => {
      while (!holds()) await sleep(2);
    };
    await within(wait(), what);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.stop.abort();
    await within(this.server.closed, "the end of the server");
  }
}
const echo = (datagram: Buffer, from: RemoteInfo, server: UdpServer) => server.send(datagram, from);

async function failure(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => assert.fail("it did not fail"),
    (error: unknown) => error,
  );
  assert.ok(error instanceof Failure, String(error));
  return explain(error);
}

test("a server says where it listens, answers, and stops", async () => {
  const serving = await Serving.start(echo);
  assert.equal(serving.server.url, `udp://127.0.0.1:${serving.server.port}`);
  assert.equal(await serving.ask(), "hello");
  assert.equal(serving.came[0]?.from.address, LOOPBACK);
  serving.stop.abort();
  await within(serving.server.closed, "the end of the server");
  serving.server.send(Buffer.from("too late"), { address: LOOPBACK, port: 9 });
  assert.match(await failure(serving.ask()), /connection refused/);
  assert.deepEqual(serving.logged, []);
});

test("a datagram of any size comes back whole, up to the largest", async () => {
  await using serving = await Serving.start(echo);
  for (const size of [0, 1, 1472, 1473, 9000, MAX_DATAGRAM_BYTES]) {
    const sent = Buffer.alloc(size, "datagram");
    assert.deepEqual(await serving.ask({ request: sent, accept: (datagram) => datagram }), sent);
  }
  assert.equal(
    await failure(serving.ask({ request: Buffer.alloc(MAX_DATAGRAM_BYTES + 1) })),
    `cannot get an answer from udp://127.0.0.1:${serving.server.port}: too large for one datagram (EMSGSIZE)`,
  );
});

test("datagrams are handled in the order in which they came", async (t) => {
  await using serving = await Serving.start(() => {});
  const socket = createSocket("udp4");
  t.after(() => socket.close());
  for (let i = 0; i < 100; i++) socket.send(Buffer.of(i), serving.server.port, LOOPBACK);
  await serving.until(() => serving.came.length === 100, "100 datagrams");
  assert.deepEqual(
    serving.came.map(({ datagram }) => datagram[0]),
    Array.from({ length: 100 }, (_, i) => i),
  );
});

test("where it cannot listen, one line says why and what to do, and no descriptor is lost", async () => {
  await using taken = await Serving.start(echo);
  const { port } = taken.server;
  const descriptors = () => readdirSync("/proc/self/fd").length;
  const countable = process.platform === "linux";
  const before = countable ? descriptors() : 0;
  for (let i = 0; i < 20; i++) {
    assert.equal(
      await failure(Serving.start(echo, { port })),
      `cannot listen on 127.0.0.1:${port}: address already in use (EADDRINUSE); choose another with --port`,
    );
  }
  assert.equal(
    await failure(Serving.start(echo, { host: "192.0.2.1" })),
    "cannot listen on 192.0.2.1:0: not an address of this machine (EADDRNOTAVAIL); choose another with --host",
  );
  assert.match(
    await failure(Serving.start(echo, { host: "nobody.invalid" })),
    /^cannot listen on nobody\.invalid:0: .*(ENOTFOUND|EAI_AGAIN)/,
  );
  if (countable)
    assert.ok(descriptors() < before + 10, `${descriptors() - before} descriptors more than before`);
});

test("each of a server's sockets has buffers of the size that is asked for, or the system's", async (t) => {
  const received = t.mock.method(Socket.prototype, "setRecvBufferSize");
  const sent = t.mock.method(Socket.prototype, "setSendBufferSize");
  await using plain = await Serving.start(() => {});
  assert.equal(received.mock.callCount() + sent.mock.callCount(), 0, plain.server.url);
  for (const host of [LOOPBACK, "0.0.0.0"]) {
    await using serving = await Serving.start(() => {}, { host, bufferBytes: 60_000 });
    const sockets = received.mock.calls.map(({ this: socket }) => socket as Socket);
    assert.equal(sockets.length > 1, host === "0.0.0.0", serving.server.url);
    assert.deepEqual(
      sent.mock.calls.map(({ this: socket }) => socket),
      sockets,
    );
    for (const socket of sockets) {
      // Linux counts its own bookkeeping in and gives twice as much.
      assert.ok(socket.getRecvBufferSize() >= 60_000 && socket.getRecvBufferSize() <= 120_000, "receiving");
      assert.ok(socket.getSendBufferSize() >= 60_000 && socket.getSendBufferSize() <= 120_000, "sending");
    }
    received.mock.resetCalls();
    sent.mock.resetCalls();
  }
});

test("a system that refuses larger buffers is no failure, and the other buffer is still asked for; nonsense is a bug", async (t) => {
  const unbound = createSocket("udp4"); // has no descriptor yet: the system refuses
  assert.throws(() => unbound.setRecvBufferSize(60_000), { code: "ERR_SOCKET_BUFFER_SIZE" });
  const sent = t.mock.method(unbound, "setSendBufferSize");
  enlargeBuffers(unbound, 60_000);
  assert.equal(sent.mock.callCount(), 1);
  assert.throws(() => enlargeBuffers(unbound, -1), { code: "ERR_SOCKET_BAD_BUFFER_SIZE" });
  unbound.close();
});

test("what cannot be sent costs a line, never the server", async () => {
  await using serving = await Serving.start(echo);
  const { server } = serving;
  server.send(Buffer.alloc(MAX_DATAGRAM_BYTES + 1), { address: LOOPBACK, port: 9 });
  await serving.until(() => serving.logged.length === 1, "a line in the log");
  assert.equal(
    serving.logged[0],
    "127.0.0.1:9: cannot send 65508 bytes: too large for one datagram (EMSGSIZE)",
  );
  // A source port may be 0 on the wire (RFC 768), and nothing can be sent there.
  server.send(Buffer.alloc(1), { address: LOOPBACK, port: 0 });
  await serving.until(() => serving.logged.length === 2, "a line in the log");
  assert.match(serving.logged[1] ?? "", /^127\.0\.0\.1:0: cannot send 1 bytes: /);
  // Nobody listens there: whether the system says so or not, the server goes on.
  const gone = await Serving.start(echo);
  gone.stop.abort();
  await gone.server.closed;
  for (let i = 0; i < 5; i++) server.send(Buffer.alloc(1), { address: LOOPBACK, port: gone.server.port });
  assert.equal(await serving.ask(), "hello");
});

test("the parts of a datagram arrive as one, and are counted together where it cannot be sent", async () => {
  await using serving = await Serving.start((_, from, server) =>
    server.send([Buffer.from("he"), Buffer.alloc(0), Buffer.from("llo")], from),
  );
  assert.equal(await serving.ask({ request: Buffer.from("?") }), "hello");
  serving.server.send([Buffer.alloc(60_000), Buffer.alloc(6000)], { address: LOOPBACK, port: 9 });
  await serving.until(() => serving.logged.length === 1, "a line in the log");
  assert.match(serving.logged[0] ?? "", /^127\.0\.0\.1:9: cannot send 66000 bytes: too large /);
});

test("a bad datagram costs one line, never the server", async (t) => {
  const Numbered = struct("Numbered", { number: [u32, ""] });
  await using serving = await Serving.start((datagram, from, server) => {
    server.send(Buffer.from(`${decode(Numbered, datagram).number}`), from);
  });
  const socket = createSocket("udp4");
  t.after(() => socket.close());
  await new Promise<void>((resolve) => socket.bind(0, LOOPBACK, resolve));
  for (const garbage of ["", "\0\0\0", "\0\0\0\0\0"]) socket.send(garbage, serving.server.port, LOOPBACK);
  await serving.until(() => serving.logged.length === 3, "three lines in the log");
  const { port } = socket.address();
  assert.deepEqual(serving.logged, [
    `127.0.0.1:${port}: Numbered.number at byte 0: needs 4 bytes, 0 left`,
    `127.0.0.1:${port}: Numbered.number at byte 0: needs 4 bytes, 3 left`,
    `127.0.0.1:${port}: Numbered at byte 4: 1 bytes left over`,
  ]);
  assert.equal(await serving.ask({ request: Buffer.of(0, 0, 1, 0) }), "256");
});

test("a bug in what is done with a datagram ends the program, loudly", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "netlab-udp-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "buggy.mts");
  writeFileSync(
    path,
    `import { bind, request } from ${JSON.stringify(join(import.meta.dirname, "udp.ts"))};
    const bug = () => { (undefined as any).x; };
    const asks = process.argv[2] === "asks";
    const to = { host: "127.0.0.1", port: 0, signal: new AbortController().signal, log: console.error };
    const { port, url } = await bind(to, (datagram, from, server) => asks ? server.send(datagram, from) : bug());
    console.log("listening on " + url);
    if (asks) await request({ host: "127.0.0.1", port, request: Buffer.alloc(1), timeoutMs: 10_000, accept: bug });`,
  );
  for (const who of ["asks", "answers"]) {
    await using running = await start(relative(join(import.meta.dirname, ".."), path), [who]);
    const socket = createSocket("udp4");
    socket.send("x", running.port, LOOPBACK, () => socket.close());
    assert.equal((await within(running.exited, "the crash")).code, 1);
    assert.doesNotMatch(running.stderr, /cannot get an answer/, "a bug is no failure");
    assert.match(running.stderr, /TypeError: Cannot read properties of undefined[\s\S]*buggy\.mts/);
  }
});

test("a request is tried again: the same bytes from the same port", async () => {
  await using serving = await Serving.start((datagram, from, server) => {
    if (serving.came.length === 3) server.send(datagram, from);
  });
  assert.equal(await serving.ask({ timeoutMs: 40, retries: 5 }), "hello");
  assert.equal(serving.came.length, 3);
  assert.equal(new Set(serving.came.map(({ from, datagram }) => `${from.port} ${datagram}`)).size, 1);
});

test("the answer to an earlier try is an answer", async () => {
  await using serving = await Serving.start((_, from, server) => {
    if (serving.came.length === 2) server.send(Buffer.from("to the first"), serving.came[0]?.from ?? from);
  });
  assert.equal(await serving.ask({ timeoutMs: 40, retries: 3 }), "to the first");
});

test("no answer: so many tries, then one line", async () => {
  await using serving = await Serving.start(() => {});
  const asking = serving.ask({ timeoutMs: 20, retries: 2 });
  asking.catch(() => {});
  const name = `udp://127.0.0.1:${serving.server.port}`;
  assert.equal(
    await failure(asking),
    `cannot get an answer from ${name}: nothing came within 20 ms (tries: 3)`,
  );
  await assert.rejects(asking, ({ cause }: Error) => cause instanceof TimeoutError);
  assert.equal(serving.came.length, 3);
  await assert.rejects(serving.ask({ timeoutMs: 20 }), Failure);
  assert.equal(serving.came.length, 4, "no retries unless asked for");
});

test("what is no answer is passed over, and an answer may be any value", async () => {
  await using serving = await Serving.start((_, from, server) => {
    for (const word of ["noise", "more noise", "answer"]) server.send(Buffer.from(word), from);
  });
  const seen: string[] = [];
  const accept = (value: unknown) => (datagram: Buffer) => {
    seen.push(datagram.toString());
    return datagram.toString() === "answer" ? value : undefined;
  };
  for (const value of ["ok", 0, "", false, null]) {
    assert.equal(await serving.ask({ accept: accept(value) }), value);
    assert.deepEqual(seen.splice(0), ["noise", "more noise", "answer"]);
  }
});

test("datagrams from anyone else never reach the one who asks", async (t) => {
  const stranger = createSocket("udp4");
  t.after(() => stranger.close());
  await new Promise<void>((resolve) => stranger.bind(0, LOOPBACK, resolve));
  await using serving = await Serving.start((_, from, server) => {
    // The stranger knows the port and is quicker than the server.
    stranger.send("forged", from.port, from.address, () =>
      setTimeout(() => echo(Buffer.from("true"), from, server), 20),
    );
  });
  const seen: string[] = [];
  const accept = (datagram: Buffer) => {
    seen.push(datagram.toString());
    return datagram.toString();
  };
  assert.equal(await serving.ask({ accept }), "true");
  assert.deepEqual(seen, ["true"]);
});

test("an answer that cannot be understood is a failure, not a crash", async () => {
  const Numbered = struct("Numbered", { number: [u32, ""] });
  await using serving = await Serving.start(echo);
  assert.equal(
    await failure(serving.ask({ accept: (datagram) => decode(Numbered, datagram) })),
    `cannot get an answer from udp://127.0.0.1:${serving.server.port}: Numbered at byte 4: 1 bytes left over`,
  );
});

test("a port where nobody listens is reported at once", async () => {
  const gone = await Serving.start(echo);
  gone.stop.abort();
  await gone.server.closed;
  const asking = gone.ask({ timeoutMs: 60_000, retries: 3 });
  assert.equal(
    await within(failure(asking), "the refusal", 5000),
    `cannot get an answer from udp://127.0.0.1:${gone.server.port}: connection refused (ECONNREFUSED); is a server running there?`,
  );
});

test("a name that nobody has", async () => {
  await using serving = await Serving.start(echo);
  assert.match(
    await failure(serving.ask({ host: "nobody.invalid" })),
    /^cannot resolve nobody\.invalid: .*(ENOTFOUND|EAI_AGAIN)/,
  );
});

test("a signal ends the waiting, before and during; nothing is left behind", async () => {
  await using serving = await Serving.start(echo);
  const stop = new AbortController();
  assert.equal(await serving.ask({ signal: stop.signal }), "hello");
  assert.equal(getEventListeners(stop.signal, "abort").length, 0);
  await using silent = await Serving.start(() => stop.abort());
  assert.match(await failure(silent.ask({ signal: stop.signal, timeoutMs: 60_000 })), /: stopped$/);
  assert.match(await failure(silent.ask({ signal: stop.signal })), /: stopped$/);
  assert.equal(silent.came.length, 1, "nothing is sent by one who was told to stop before");
  assert.equal(getEventListeners(stop.signal, "abort").length, 0);
  const left = process.getActiveResourcesInfo().filter((resource) => resource === "Timeout");
  assert.deepEqual(left, []);
});

test("a server told to stop before it began", async () => {
  const server = await bind({ host: LOOPBACK, port: 0, signal: AbortSignal.abort(), log: assert.fail }, echo);
  await within(server.closed, "the end of the server");
});

test("a name for the host", async () => {
  await using serving = await Serving.start(echo, { host: "localhost" });
  assert.equal(await serving.ask({ host: "localhost" }), "hello");
});

test("IPv6: addresses in brackets", ipv6, async () => {
  await using serving = await Serving.start(echo, { host: "::1" });
  assert.match(serving.server.url, /^udp:\/\/\[::1\]:\d+$/);
  assert.equal(await serving.ask({ host: "::1" }), "hello");
  assert.match(
    await failure(serving.ask({ host: "::1", request: Buffer.alloc(70_000) })),
    /^cannot get an answer from udp:\/\/\[::1\]:\d+: too large for one datagram/,
  );
});

test("a server on :: answers both IPv6 and IPv4", ipv6, async () => {
  await using serving = await Serving.start(echo, { host: "::" });
  for (const host of ["::1", LOOPBACK]) assert.equal(await serving.ask({ host }), "hello");
});

const otherAddress = Object.values(networkInterfaces())
  .flatMap((infos) => infos ?? [])
  .find(({ family, internal }) => family === "IPv4" && !internal)?.address;
const twoAddresses = otherAddress === undefined ? { skip: "this machine has one address only" } : {};

for (const host of ["0.0.0.0", ...(hasIpv6 ? ["::"] : [])]) {
  test(`a server on ${host} answers from the address that was asked`, twoAddresses, async (t) => {
    await using serving = await Serving.start(echo, { host });
    const socket = createSocket("udp4");
    t.after(() => socket.close());
    socket.bind(0, LOOPBACK);
    const answer = new Promise<RemoteInfo>((resolve) => socket.once("message", (_, from) => resolve(from)));
    // Left to itself the system would answer a peer on the loopback from the loopback.
    socket.send("hello", serving.server.port, otherAddress);
    assert.equal((await within(answer, "an answer")).address, otherAddress);
  });

  test(`two servers on ${host} do not share a port`, async () => {
    await using first = await Serving.start(echo, { host });
    const { port } = first.server;
    assert.match(await failure(Serving.start(echo, { host, port })), /address already in use/);
    assert.match(await failure(Serving.start(echo, { port })), /address already in use/);
  });
}

test("a name with two addresses: where nobody is at the first, the second is asked", async (t) => {
  await using serving = await Serving.start(echo);
  const addresses = ["127.0.0.77", LOOPBACK].map((address) => ({ address, family: 4 }));
  t.mock.method(dns, "lookup", async () => addresses);
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
  assert.equal(await serving.ask({ host: "two.example" }), "hello");
  addresses.reverse();
  assert.equal(await serving.ask({ host: "two.example" }), "hello");
  await serving[Symbol.asyncDispose]();
  assert.match(await failure(serving.ask({ host: "two.example" })), /two\.example.*connection refused/);
});

test("200 requests at once each get their own answer", async () => {
  await using serving = await Serving.start(echo);
  const answers = await Promise.all(
    Array.from({ length: 200 }, (_, i) =>
      serving.ask({ request: Buffer.from(`${i}`), timeoutMs: 500, retries: 5 }),
    ),
  );
  assert.deepEqual(
    answers,
    Array.from({ length: 200 }, (_, i) => `${i}`),
  );
});
