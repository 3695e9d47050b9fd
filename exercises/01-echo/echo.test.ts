import { strict as assert } from "node:assert";
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { peakMebibytes } from "../../shared/measure.ts";
import { SMALL_SERVICES } from "../../shared/small-services.ts";
import {
  needs,
  PATIENCE_MS,
  Running,
  resetAfter,
  run,
  runTool,
  splitAt,
  stallAfter,
  start,
  tcpRelay,
  within,
} from "../../shared/testing.ts";
import { inFlight } from "./in-flight.ts";
import { difference, whyRefused } from "./protocol.ts";
import { summary } from "./round-trips.ts";

const FOLDER = "exercises/01-echo";
const MEBIBYTE = 2 ** 20;
const SEED = 862; // of every property below
/** For each test: what waits in vain fails. */
const LIMIT = { timeout: 60_000 };
const onLinux = process.platform === "linux" ? {} : { skip: "looks into /proc, or binds 127.0.0.2" };
const asRoot = process.getuid?.() === 0 ? onLinux : { skip: "only root may bind ports below 1024, or forge" };
const hasIpv6 = Object.values(networkInterfaces())
  .flat()
  .some((address) => address?.address === "::1");
const overIpv6 = hasIpv6 ? {} : { skip: "this machine has no ::1" };

/** Bytes that differ wherever a block of them might be moved to: the length is prime. */
const PATTERN = Buffer.from(Array.from({ length: 65_521 }, (_, i) => (i * 167 + (i >> 8) * 31) & 255));
const THREE_PATTERNS = Buffer.alloc(3 * PATTERN.length, PATTERN);
const patternOf = (size: number) => Buffer.alloc(size, PATTERN);

/** Equal, without a dump of both where they are not. */
const same = (sent: Buffer, returned: Buffer | undefined) =>
  assert.equal(difference(sent, returned ?? Buffer.alloc(0)), undefined);

const peakMemoryBytes = ({ child }: Running) => peakMebibytes(child.pid) * MEBIBYTE;

const toClose = new Set<() => void>();
afterEach(() => {
  for (const close of toClose) close();
  toClose.clear();
});

async function tcpSocket(port: number, host = "127.0.0.1"): Promise<Socket> {
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
  toClose.add(() => socket.destroy());
  await within(once(socket, "connect"), "a connection");
  return socket;
}

/** Sends the bytes and FIN, and returns all that comes until the peer's FIN. */
async function exchange(port: number, bytes: Buffer, host = "127.0.0.1"): Promise<Buffer> {
  const socket = await tcpSocket(port, host);
  socket.end(bytes);
  return Buffer.concat(await within(socket.toArray(), "everything back"));
}

/** One message there and back on a connection that stays open. */
async function roundTrip(socket: Socket, message: string): Promise<void> {
  socket.write(message);
  let returned = "";
  while (returned.length < message.length) {
    const [chunk] = (await within(once(socket, "data"), `the echo of ${message}`)) as [Buffer];
    returned += chunk.toString();
  }
  assert.equal(returned, message);
}

async function udpSocket(address = "127.0.0.1", port = 0): Promise<UdpSocket> {
  const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
  toClose.add(() => socket.close());
  socket.bind({ address, port });
  await once(socket, "listening");
  return socket;
}

/** Asks from a socket bound to no peer, and says where the answer came from. */
async function ask(socket: UdpSocket, bytes: Buffer, port: number, host = "127.0.0.1") {
  socket.send(bytes, port, host);
  const [datagram, from] = (await within(once(socket, "message"), `${bytes.length} bytes back`)) as [
    Buffer,
    RemoteInfo,
  ];
  return { datagram, from };
}

describe("rules", LIMIT, () => {
  test("only the small services, the server's own port and port 0 are refused", () => {
    const refused = Array.from({ length: 65_536 }, (_, port) => port).filter((port) =>
      whyRefused(port, 10_100),
    );
    assert.deepEqual(refused, [0, 7, 9, 11, 13, 17, 19, 37, 10_100]);
    assert.match(whyRefused(19, 10_100) ?? "", /RFC 864/);
  });

  test("a difference is found and named, wherever it is", () => {
    const change = fc.record({
      bytes: fc.uint8Array({ minLength: 1, maxLength: 300 }),
      at: fc.nat(),
      flip: fc.integer({ min: 1, max: 255 }),
    });
    fc.assert(
      fc.property(change, ({ bytes, at, flip }) => {
        const sent = Buffer.from(bytes);
        const altered = Buffer.from(bytes);
        const index = at % sent.length;
        altered[index] = (sent[index] ?? 0) ^ flip;
        assert.equal(difference(sent, Buffer.from(sent)), undefined);
        assert.match(difference(sent, altered, 1000) ?? "", new RegExp(`^byte ${1000 + index} was sent as `));
        assert.match(difference(sent, sent.subarray(0, index)) ?? "", / bytes came back/);
        assert.match(difference(sent, Buffer.concat([sent, altered])) ?? "", / bytes came back/);
      }),
      { seed: SEED },
    );
  });

  test("bytes in flight: every split of a stream checks out, an altered byte does not", () => {
    const schedule = fc.record({
      capacity: fc.integer({ min: 1, max: 50 }),
      steps: fc.array(fc.integer({ min: -20, max: 20 }), { maxLength: 200 }),
    });
    fc.assert(
      fc.property(schedule, ({ capacity, steps }) => {
        const flight = inFlight(capacity);
        let sent = 0;
        let returned = 0;
        for (const step of steps) {
          if (step > 0) {
            const size = Math.min(step, flight.roomBytes);
            flight.sent(PATTERN.subarray(sent, sent + size));
            sent += size;
          } else {
            const size = Math.min(-step, flight.sizeBytes);
            flight.returned(PATTERN.subarray(returned, returned + size));
            returned += size;
          }
          assert.equal(flight.sizeBytes, sent - returned);
        }
        assert.throws(
          () => flight.returned(PATTERN.subarray(returned, sent + 1)),
          new RegExp(`${sent + 1} bytes came back, ${sent} were sent`),
        );
        if (sent === returned) return flight.finished();
        assert.throws(() => flight.finished(), new RegExp(`after ${returned} of ${sent} bytes`));
        const altered = Buffer.from([255 - (PATTERN[returned] ?? 0)]);
        assert.throws(() => flight.returned(altered), new RegExp(`byte ${returned} was sent as`));
      }),
      { seed: SEED },
    );
    assert.throws(() => inFlight(1).sent(Buffer.alloc(2)), RangeError);
  });

  test("the summary of round trips", () => {
    assert.equal(summary(3, []), "0 of 3 came back");
    assert.equal(summary(4, [3, 1, 2]), "3 of 4 came back: min 1.000 ms, median 2.000 ms, max 3.000 ms");
  });
});

describe("the stream server", LIMIT, () => {
  let server: Running;
  before(async () => {
    server = await start(`${FOLDER}/tcp-server.ts`, ["--port", 0]);
  });
  after(() => server[Symbol.asyncDispose]());

  test("half-close: nc -N gets all of it and an end", needs("nc"), async () => {
    const { code, stdout } = await runTool("nc", ["-N", "127.0.0.1", String(server.port)], "x");
    assert.deepEqual({ code, stdout }, { code: 0, stdout: "x" });
  });

  test("any bytes, in any segments", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 100_000, size: "max" }), async (bytes) => {
        same(Buffer.from(bytes), await exchange(server.port, Buffer.from(bytes)));
      }),
      { seed: SEED, numRuns: 30 },
    );
    await using relay = await tcpRelay(server.port, splitAt(1));
    same(patternOf(2000), await exchange(relay.port, patternOf(2000)));
  });

  test("a bad peer costs one log line: resets in mid-message, half-open and idle ones", async () => {
    const idle = await tcpSocket(server.port);
    for (let i = 0; i < 20; i++) {
      const socket = await tcpSocket(server.port);
      socket.write(patternOf(100_000));
      await within(once(socket, "data"), "an echo");
      const { localPort } = socket;
      socket.resetAndDestroy();
      await server.output(
        new RegExp(`^127.0.0.1:${localPort}: the peer reset the connection`, "m"),
        "stderr",
      );
    }
    assert.equal(server.stderr.trim().split("\n").length, 20);
    await roundTrip(idle, "still here");
  });

  test("500 clients at once", async () => {
    const messages = Array.from({ length: 500 }, (_, i) => Buffer.from(`${i} `.repeat(1000)));
    const returned = await Promise.all(messages.map((message) => exchange(server.port, message)));
    for (const [i, message] of messages.entries()) same(message, returned[i]);
  });

  test("1,000 idle connections and a busy one", async () => {
    const idle: Socket[] = [];
    // All at once are more than wait for accept(): the system would have some try again after a second.
    while (idle.length < 1000)
      idle.push(...(await Promise.all(Array.from({ length: 250 }, () => tcpSocket(server.port)))));
    const busy = await tcpSocket(server.port);
    for (let i = 0; i < 1000; i++) await roundTrip(busy, `busy ${i}`);
    await Promise.all(idle.map((socket, i) => roundTrip(socket, `idle ${i}`)));
  });

  test("256 MiB through a client that reads: right, and in flat memory", onLinux, async () => {
    const before = peakMemoryBytes(server);
    const socket = await tcpSocket(server.port);
    const sending = (async () => {
      for (let sent = 0; sent < 256 * MEBIBYTE; sent += PATTERN.length) {
        if (!socket.write(PATTERN)) await once(socket, "drain");
      }
      socket.end();
    })();
    let size = 0;
    for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      const start = size % PATTERN.length;
      assert.ok(
        chunk.equals(THREE_PATTERNS.subarray(start, start + chunk.length)),
        `wrong after ${size} bytes`,
      );
      size += chunk.length;
    }
    await sending;
    assert.ok(size >= 256 * MEBIBYTE && size % PATTERN.length === 0);
    const grownBytes = peakMemoryBytes(server) - before;
    assert.ok(grownBytes < 100 * MEBIBYTE, `grew by ${grownBytes} bytes`);
  });

  test("a client that never reads stalls itself, and gets everything when it reads", onLinux, async () => {
    const before = peakMemoryBytes(server);
    const stalled = (await tcpSocket(server.port)).pause();
    const other = await tcpSocket(server.port);
    let writtenBytes = 0;
    let takenBytes = -1;
    // It has stalled when nothing more was taken while another client made 500 round trips.
    while (stalled.bytesWritten - stalled.writableLength > takenBytes) {
      takenBytes = stalled.bytesWritten - stalled.writableLength;
      for (let i = 0; i < 500; i++) {
        while (writtenBytes < 1024 * MEBIBYTE && !stalled.writableNeedDrain) {
          stalled.write(PATTERN);
          writtenBytes += PATTERN.length;
        }
        await roundTrip(other, `other ${i}`);
      }
    }
    assert.ok(writtenBytes < 100 * MEBIBYTE, `the server took ${takenBytes} bytes`);
    const grownBytes = peakMemoryBytes(server) - before;
    assert.ok(grownBytes < 30 * MEBIBYTE, `grew by ${grownBytes} bytes`);
    stalled.end();
    const returned = Buffer.concat(await within(stalled.toArray(), "the rest"));
    same(patternOf(writtenBytes), returned);
  });

  test("slow readers get the tail of what they sent, long after their FIN", needs("python3"), async () => {
    const { stdout, stderr } = await runTool("python3", ["-c", SLOW_READERS, String(server.port)]);
    assert.equal(stdout, "100 of 100 got everything\n", stderr);
  });

  test("bound to ::, it answers IPv4 and IPv6", overIpv6, async () => {
    await using both = await start(`${FOLDER}/tcp-server.ts`, ["--port", 0, "--host", "::"]);
    assert.match(both.stdout, /^listening on tcp:\/\/\[::\]:\d+\n$/);
    for (const host of ["127.0.0.1", "::1"]) {
      assert.equal((await exchange(both.port, Buffer.from(host), host)).toString(), host);
    }
  });

  test("it stops on SIGTERM, with a client connected, and its port can be had again", async () => {
    await using first = await start(`${FOLDER}/tcp-server.ts`, ["--port", 0]);
    const client = await tcpSocket(first.port);
    const taken = await run(`${FOLDER}/tcp-server.ts`, ["--port", first.port]);
    assert.equal(taken.code, 1);
    assert.match(
      taken.stderr,
      /^error: cannot listen on 127.0.0.1:\d+: address already in use \(EADDRINUSE\)/,
    );
    client.write("last words");
    const rest = client.toArray();
    assert.equal(await first.stop(), 0);
    client.destroy();
    assert.match(Buffer.concat(await rest.catch(() => [])).toString(), /^(last words)?$/);
  });
});

/**
 * Clients that read nothing until 1.5 s after their FIN, which is longer than a server lingers for a peer that is
 * done. Each has sent one message more than the one before, and small segments make for small buffers: with one
 * of them, the system has taken all but the last message from the server, and that one lies in the server.
 */
const SLOW_READERS = `
import socket, sys, time
address = ("127.0.0.1", int(sys.argv[1]))
message = bytes(range(250)) * 16

def client():
    one = socket.socket()
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    one.connect(address)
    return one

clients, other, whole = [client() for _ in range(100)], client(), 0
for turn in range(100):
    for one in clients[turn:]:
        one.sendall(message)
    clients[turn].shutdown(socket.SHUT_WR)
    for _ in range(3):  # until the server has seen to all of them
        other.sendall(b"?")
        other.recv(1)
time.sleep(1.5)
for turn, one in enumerate(clients):
    got = b""
    while data := one.recv(65536):
        got += data
    whole += got == message * (turn + 1)
print(whole, "of 100 got everything")
`;

describe("the datagram server", LIMIT, () => {
  let server: Running;
  before(async () => {
    server = await start(`${FOLDER}/udp-server.ts`, ["--port", 0]);
  });
  after(() => server[Symbol.asyncDispose]());

  test("a datagram of any size comes back whole, from where it was sent to", async () => {
    const socket = await udpSocket();
    for (const size of [0, 1, 512, 1472, 1473, 9000, 65_506, 65_507, 0]) {
      const { datagram, from } = await ask(socket, patternOf(size), server.port);
      same(patternOf(size), datagram);
      assert.deepEqual([from.address, from.port], ["127.0.0.1", server.port]);
    }
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 65_507, size: "max" }), async (bytes) => {
        same(Buffer.from(bytes), (await ask(socket, Buffer.from(bytes), server.port)).datagram);
      }),
      { seed: SEED, numRuns: 50 },
    );
  });

  test("500 clients at once: each gets its own", async () => {
    const sockets = await Promise.all(Array.from({ length: 500 }, () => udpSocket()));
    // All at once is more than the server's receive buffer holds, and what does not fit is lost: so they repeat.
    const again = setInterval(send, 300);
    const waiting = new Set(sockets);
    function send() {
      for (const [i, socket] of sockets.entries()) {
        if (waiting.has(socket)) socket.send(`client ${i}`, server.port, "127.0.0.1");
      }
    }
    send();
    const answers = sockets.map(async (socket) => {
      const [datagram] = await within(once(socket, "message"), "an answer");
      waiting.delete(socket);
      return String(datagram);
    });
    const expected = sockets.map((_, i) => `client ${i}`);
    assert.deepEqual(await Promise.all(answers).finally(() => clearInterval(again)), expected);
  });

  test("bound to ::, it answers IPv4 and IPv6", overIpv6, async () => {
    await using both = await start(`${FOLDER}/udp-server.ts`, ["--port", 0, "--host", "::"]);
    assert.match(both.stdout, /^listening on udp:\/\/\[::\]:\d+\n$/);
    for (const host of ["127.0.0.1", "::1"]) {
      const socket = await udpSocket(host);
      const { datagram, from } = await ask(socket, patternOf(65_507), both.port, host);
      same(patternOf(65_507), datagram);
      assert.equal(from.address, host);
    }
  });

  test("it stops on SIGTERM; a taken port is said in one line", async () => {
    await using first = await start(`${FOLDER}/udp-server.ts`, ["--port", 0]);
    const taken = await run(`${FOLDER}/udp-server.ts`, ["--port", first.port]);
    assert.equal(taken.code, 1);
    assert.match(
      taken.stderr,
      /^error: cannot listen on 127.0.0.1:\d+: address already in use \(EADDRINUSE\)/,
    );
    assert.equal(await first.stop(), 0);
  });
});

describe("loop hygiene", LIMIT, () => {
  test("its own port, on any host: dropped, one line a source, 100 lines in all", onLinux, async () => {
    await using server = await start(`${FOLDER}/udp-server.ts`, ["--port", 0]);
    const client = await udpSocket();
    const twins: UdpSocket[] = [];
    for (let i = 0; i < 120; i++) twins.push(await udpSocket(`127.0.1.${i + 1}`, server.port));
    for (const twin of twins) {
      twin.on("message", () => assert.fail("its own port was answered"));
      for (let i = 0; i < 3; i++) twin.send("shout", server.port, "127.0.0.1");
      await ask(client, Buffer.from("next"), server.port); // so that no buffer overflows
    }
    await server.output(/\nno more of these lines from here on\n$/, "stderr");
    assert.match(server.stderr, /^127.0.1.1:\d+: dropped, its source port is this server's own\n127.0.1.2:/);
    assert.equal(server.stderr.trim().split("\n").length, 101);
  });

  test("the small services' ports: dropped, and named in the log", asRoot, async () => {
    await using server = await start(`${FOLDER}/udp-server.ts`, ["--port", 0]);
    const client = await udpSocket();
    for (const [port, service] of SMALL_SERVICES) {
      const small = await udpSocket("127.0.0.7", port);
      small.on("message", () => assert.fail(`${service} was answered`));
      small.send("shout", server.port, "127.0.0.1");
      await ask(client, Buffer.from("next"), server.port);
      const line = `127.0.0.7:${port}: dropped, it comes from port ${port}, ${service}`;
      await server.output(new RegExp(`^${line.replace(/[()]/g, "\\$&")}$`, "m"), "stderr");
    }
  });

  test("forged: from its twin, and from port 0", { ...asRoot, ...needs("python3") }, async (t) => {
    await using first = await start(`${FOLDER}/udp-server.ts`, ["--port", 0]);
    const { port } = first;
    await using second = await start(`${FOLDER}/udp-server.ts`, ["--port", port, "--host", "127.0.0.2"]);
    const forge = (from: number) =>
      runTool("python3", ["-c", FORGE, "127.0.0.2", String(from), "127.0.0.1", String(port)]);
    const { code, stderr } = await forge(port);
    if (code !== 0) return t.skip(`raw sockets are refused here: ${stderr.trim().split("\n").at(-1)}`);
    await first.output(/^127.0.0.2:\d+: dropped, its source port is this server's own$/m, "stderr");
    assert.equal((await forge(0)).code, 0);
    await first.output(/^127.0.0.2:0: dropped, it comes from port 0, nobody's/m, "stderr");
    const client = await udpSocket();
    for (const host of ["127.0.0.1", "127.0.0.2"]) await ask(client, Buffer.from("alive"), port, host);
    assert.equal(second.stderr, "");
  });
});

/** A stream server that does what an echo server must not. */
async function wrongServer(session: (socket: Socket) => void): Promise<AsyncDisposable & { port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket.on("error", () => {}));
    session(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await once(server.close(), "close");
    },
  };
}

/** Answers, when the client has finished, with what `change` makes of it. */
const answerWith = (change: (bytes: Buffer) => Buffer) => (socket: Socket) => {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("end", () => socket.end(change(Buffer.concat(chunks))));
};

const altered = (bytes: Buffer) => {
  const copy = Buffer.from(bytes);
  copy[3] = 0;
  return copy;
};

describe("the stream client", LIMIT, () => {
  let server: Running;
  before(async () => {
    server = await start(`${FOLDER}/tcp-server.ts`, ["--port", 0]);
  });
  after(() => server[Symbol.asyncDispose]());
  const client = (args: (string | number)[], stdin?: string | Buffer, port = server.port) =>
    run(`${FOLDER}/tcp-client.ts`, ["--port", port, ...args], stdin === undefined ? {} : { stdin });

  test("a text, nothing at all, and standard input come back on stdout", async () => {
    assert.deepEqual(await client(["--data", "héllo"]), {
      code: 0,
      stdout: "héllo",
      stderr: "",
      bytes: Buffer.from("héllo"),
    });
    assert.deepEqual((await client(["--data", ""])).code, 0);
    const { code, bytes, stderr } = await client([], patternOf(5_000_000));
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    same(patternOf(5_000_000), bytes);
  });

  test("64 MiB, streamed both ways in flat memory", onLinux, async () => {
    await using running = await start(`${FOLDER}/tcp-client.ts`, ["--port", server.port], { servers: 0 });
    const { stdin, stdout } = running.child;
    assert.ok(stdin && stdout);
    let size = 0;
    const everything = new Promise<void>((resolve) => {
      stdout.on("data", (chunk: Buffer) => {
        size += chunk.length;
        if (size >= 64 * MEBIBYTE) resolve();
      });
    });
    let sent = 0;
    for (; sent < 64 * MEBIBYTE; sent += PATTERN.length) {
      if (!stdin.write(PATTERN)) await once(stdin, "drain");
    }
    await within(everything, "64 MiB");
    const peakBytes = peakMemoryBytes(running);
    assert.ok(peakBytes < 200 * MEBIBYTE, `the client took ${peakBytes} bytes`);
    stdin.end();
    assert.equal((await within(running.exited, "its end")).code, 0);
    same(patternOf(sent), running.bytes);
  });

  test("--count: the time of each round trip and a summary, on stderr", async () => {
    const { code, stdout, stderr } = await client(["--data", "ab", "--count", 3, "--interval", 10]);
    assert.deepEqual({ code, stdout }, { code: 0, stdout: "ababab" });
    const time = "\\d+\\.\\d{3} ms";
    assert.match(
      stderr,
      new RegExp(
        `^1: ${time}\\n2: ${time}\\n3: ${time}\\n3 of 3 came back: min ${time}, median ${time}, max ${time}\\n$`,
      ),
    );
  });

  test("a wrong echo is caught, and said in one line", async () => {
    const wrong: [string, (socket: Socket) => void, RegExp, timeoutMs?: number][] = [
      ["alters a byte", answerWith(altered), /byte 3 was sent as 0x6c and came back as 0x00$/],
      [
        "drops the tail",
        answerWith((bytes) => bytes.subarray(0, -1)),
        /the server finished after 4 of 5 bytes$/,
      ],
      [
        "adds to it",
        answerWith((bytes) => Buffer.concat([bytes, bytes])),
        /10 bytes came back, 5 were sent$/,
      ],
      ["hangs up", (socket) => socket.end(), /the server finished after 0 of 5 bytes$/],
      [
        "resets",
        (socket) => socket.once("data", () => socket.resetAndDestroy()),
        /the peer reset the connection \(ECONNRESET\)$/,
      ],
      ["says nothing", (socket) => socket.resume(), /the peer sent nothing for 500 ms$/, 500],
      [
        "never finishes",
        (socket) => socket.on("data", (bytes) => socket.write(bytes)),
        /sent nothing for 500 ms$/,
        500,
      ],
    ];
    await Promise.all(
      wrong.map(async ([what, session, complaint, timeoutMs = PATIENCE_MS]) => {
        await using server = await wrongServer(session);
        const options = ["--data", "hello", "--timeout", timeoutMs];
        const { code, stderr } = await client(options, undefined, server.port);
        assert.equal(code, 1, what);
        assert.ok(stderr.startsWith(`error: no echo from tcp://127.0.0.1:${server.port}: `), stderr);
        assert.match(stderr.trim(), complaint, what);
      }),
    );
  });

  test("--count: a wrong echo is caught as well, and the summary still given", async () => {
    const wrong: [string, (socket: Socket) => void, RegExp][] = [
      [
        "alters the second",
        (socket) => {
          socket.once("data", (first) => {
            socket.write(first);
            socket.on("data", (second) => socket.write(altered(second)));
          });
        },
        /^1: .*\n1 of 2 came back: .*\nerror: no echo from .*: byte 3 was sent as 0x6c and came back as 0x00\n$/,
      ],
      [
        "finishes after the first",
        (socket) => socket.once("data", (first) => socket.end(first)),
        /^1: .*\n1 of 2 came back: .*\nerror: no echo from .*: the server finished before we did\n$/,
      ],
      [
        "adds to the end",
        (socket) => socket.on("data", (bytes) => socket.write(bytes)).on("end", () => socket.end("!")),
        /\n2 of 2 came back: .*\nerror: no echo from .*: more came back than was sent\n$/,
      ],
    ];
    await Promise.all(
      wrong.map(async ([what, session, complaint]) => {
        await using server = await wrongServer(session);
        const { code, stderr } = await client(["--data", "hello", "--count", 2], undefined, server.port);
        assert.equal(code, 1, what);
        assert.match(stderr, complaint, what);
      }),
    );
  });
});

describe("the stream client and time", { ...LIMIT, concurrency: true }, () => {
  let server: Running;
  before(async () => {
    server = await start(`${FOLDER}/tcp-server.ts`, ["--port", 0]);
  });
  after(() => server[Symbol.asyncDispose]());
  const startClient = (args: (string | number)[], port = server.port) =>
    start(`${FOLDER}/tcp-client.ts`, ["--port", port, ...args], { servers: 0 });

  test("a path that stalls or breaks in the middle is reported", async () => {
    const faults = [
      [stallAfter(100_000), /: the peer sent nothing for 500 ms\n$/, 500],
      [resetAfter(100_000), /: the peer (reset|has closed) the connection \(\w+\)\n$/, PATIENCE_MS],
    ] as const;
    for (const [fault, complaint, timeoutMs] of faults) {
      await using relay = await tcpRelay(server.port, fault);
      const options = ["--port", relay.port, "--timeout", timeoutMs];
      const { code, bytes, stderr } = await run(`${FOLDER}/tcp-client.ts`, options, {
        stdin: patternOf(1_000_000),
      });
      assert.equal(code, 1);
      assert.match(stderr, complaint);
      same(patternOf(bytes.length), bytes);
    }
  });

  test("a user who pauses for longer than the timeout is no failure", async () => {
    await using running = await startClient(["--timeout", 1000]);
    running.child.stdin?.write("one\n");
    await running.output(/one\n/);
    await sleep(1500);
    running.child.stdin?.end("two\n");
    assert.equal((await within(running.exited, "its end")).code, 0);
    assert.deepEqual([running.stdout, running.stderr], ["one\ntwo\n", ""]);
  });

  test("nor is one who does not read what comes back for as long", needs("python3"), async () => {
    await using narrow = new Running("python3", ["-c", NARROW], {});
    await narrow.output(/^listening on .*\n/m);
    await using running = await startClient(["--timeout", 1000], narrow.port);
    running.child.stdin?.end(patternOf(8_000_000));
    await running.output(/./);
    running.child.stdout?.pause();
    await sleep(1500);
    running.child.stdout?.resume();
    assert.equal((await within(running.exited, "its end")).code, 0, running.stderr);
    same(patternOf(8_000_000), running.bytes);
  });

  test("a server that leaves while the user thinks is noticed", async () => {
    await using server = await wrongServer((socket) => socket.once("data", (bytes) => socket.end(bytes)));
    await using running = await startClient([], server.port);
    running.child.stdin?.write("one\n");
    assert.equal((await within(running.exited, "its end")).code, 1);
    assert.match(running.stderr, /: the server finished before we did\n$/);
    assert.equal(running.stdout, "one\n");
  });

  test("Ctrl-C ends it, with the summary", async () => {
    await using typing = await startClient([]);
    await using repeating = await startClient(["--data", "a", "--count", 100_000, "--interval", 60_000]);
    typing.child.stdin?.write("one\n");
    await typing.output(/one\n/);
    await repeating.output(/^1: /m, "stderr");
    for (const running of [typing, repeating]) {
      running.kill("SIGINT");
      assert.equal((await within(running.exited, "its end")).code, 0);
    }
    assert.match(repeating.stderr, /\n1 of 1 came back: min .* ms\n$/);
  });

  test(
    "on a terminal it shows how far it is, unless the echo itself goes there",
    needs("script"),
    async () => {
      await using server = await start(`${FOLDER}/tcp-server.ts`, ["--port", 0]);
      const client = `${process.execPath} --import tsx ${FOLDER}/tcp-client.ts --port ${server.port} > /dev/null`;
      await using shown = new Running("script", ["-qec", client, "/dev/null"], {});
      shown.child.stdin?.write("hello\n");
      await shown.output(/\r0\.0 MiB are back/);
      shown.child.stdin?.write("\u0004"); // the terminal's end of input
      assert.equal((await within(shown.exited, "its end")).code, 0);
      assert.match(shown.stdout, /\r0\.0 MiB are back\r?\n$/);
    },
  );

  test("nobody there, and bad usage", async () => {
    const cases: [(string | number)[], number, RegExp][] = [
      [["--data", "x"], 1, /^error: cannot connect to 127.0.0.1:1: connection refused \(ECONNREFUSED\)/],
      [["--count", 2], 2, /^error: --count needs a --data that is not empty$/m],
      [["--data", "x", "--interval", 2], 2, /^error: --interval needs --count$/m],
      [["--count", 0, "--data", "x"], 2, /^error: --count "0" is not a whole number from 1 up$/m],
    ];
    for (const [args, code, complaint] of cases) {
      await using running = await startClient(args, 1);
      assert.equal((await within(running.exited, "its end")).code, code);
      assert.match(running.stderr, complaint);
    }
  });
});

/** An echo server with small buffers and segments: when the client does not read, it soon cannot write either. */
const NARROW = `
import socket
server = socket.socket()
for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
    server.setsockopt(socket.SOL_SOCKET, option, 4096)
server.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
server.bind(("127.0.0.1", 0))
server.listen()
print(f"listening on tcp://127.0.0.1:{server.getsockname()[1]}", flush=True)
client, _ = server.accept()
while data := client.recv(65536):
    client.sendall(data)
client.close()
`;

/** A datagram server whose `answer` gets what came so far; it keeps it all in `received`. */
async function oddServer(
  answer: (
    received: { datagram: Buffer; port: number }[],
    send: (bytes: Buffer, port: number) => void,
  ) => void,
) {
  const socket = await udpSocket();
  const received: { datagram: Buffer; port: number }[] = [];
  socket.on("message", (datagram, from) => {
    received.push({ datagram, port: from.port });
    answer(received, (bytes, port) => socket.send(bytes, port, "127.0.0.1"));
  });
  return { port: socket.address().port, received };
}

describe("the datagram client", LIMIT, () => {
  const client = (port: number, args: (string | number)[], stdin?: string | Buffer) =>
    run(`${FOLDER}/udp-client.ts`, ["--port", port, ...args], stdin === undefined ? {} : { stdin });
  const echo = () =>
    oddServer((received, send) => {
      const { datagram, port } = received.at(-1) ?? assert.fail();
      send(datagram, port);
    });

  test("a datagram a line", async () => {
    const { port, received } = await echo();
    const lines = [Buffer.from("a\n"), Buffer.from("\n"), Buffer.from(`${"x".repeat(65_506)}\n`)];
    const input = Buffer.concat([...lines, Buffer.from([0, 255, 10, 13])]);
    const { code, bytes, stderr } = await client(port, ["--timeout", PATIENCE_MS], input);
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    same(input, bytes);
    assert.deepEqual(
      received.map(({ datagram }) => datagram.length),
      [2, 1, 65_507, 3, 1],
    );
  });

  test("no byte at all, and --count with its times", async () => {
    const { port, received } = await echo();
    assert.equal((await client(port, ["--data", "", "--timeout", PATIENCE_MS])).code, 0);
    assert.deepEqual(
      received.map(({ datagram }) => datagram.length),
      [0],
    );
    const options = ["--data", "ab", "--count", 20, "--timeout", PATIENCE_MS];
    const { code, stdout, stderr } = await client(port, options);
    assert.deepEqual({ code, stdout }, { code: 0, stdout: "ab".repeat(20) });
    assert.match(stderr, /^1: \d+\.\d{3} ms\n(.*\n){19}20 of 20 came back: min .*, median .*, max .* ms\n$/);
  });

  test("what does not fit a datagram is said at once, and not sent", async () => {
    const { port, received } = await echo();
    const tooLong = "x".repeat(65_508);
    await using asArgument = await start(`${FOLDER}/udp-client.ts`, ["--port", port, "--data", tooLong], {
      servers: 0,
    });
    await using asLine = await start(`${FOLDER}/udp-client.ts`, ["--port", port], { servers: 0 });
    asLine.child.stdin?.write(tooLong); // and no end, of the line or of the input
    for (const running of [asArgument, asLine]) {
      assert.equal((await within(running.exited, "its end")).code, 1);
      assert.equal(running.stdout, "");
      assert.match(running.stderr, /: cannot send 65508 bytes: a datagram holds 65507\n$/);
    }
    assert.equal(received.length, 0);
  });

  test("a wrong echo, and none, are caught; a late one is not taken for a reply to this try", async () => {
    const stranger = await udpSocket();
    const wrong: [string, Parameters<typeof oddServer>[0], RegExp, timeoutMs?: number][] = [
      [
        "alters a byte",
        ([first], send) => first && send(altered(first.datagram), first.port),
        /: byte 3 was sent as 0x6c and came back as 0x00$/,
      ],
      [
        "cuts it off",
        ([first], send) => first && send(first.datagram.subarray(1), first.port),
        /: byte 0 was sent as 0x68 and came back as 0x65$/,
      ],
      ["says nothing", () => {}, /: 1 of 1 did not come back within 300 ms$/, 300],
      [
        "answers from another port",
        ([first]) => first && stranger.send(first.datagram, first.port, "127.0.0.1"),
        /: 1 of 1 did not come back within 300 ms$/,
        300,
      ],
      [
        "answers the first try when the second has come",
        ([first, second], send) => first && second && send(first.datagram, first.port),
        /: 1 of 1 did not come back within 300 ms$/,
        300,
      ],
    ];
    await Promise.all(
      wrong.map(async ([what, answer, complaint, timeoutMs = PATIENCE_MS]) => {
        const { port, received } = await oddServer(answer);
        const { code, stderr } = await client(port, [
          "--data",
          "hello",
          "--timeout",
          timeoutMs,
          "--retries",
          1,
        ]);
        assert.equal(code, 1, what);
        assert.ok(stderr.startsWith(`error: no echo from udp://127.0.0.1:${port}: `), stderr);
        assert.match(stderr.trim(), complaint, what);
        assert.equal(new Set(received.map(({ port }) => port)).size, received.length);
      }),
    );
  });

  test("lost datagrams are asked for again, and counted where that does not help", async () => {
    const third = await oddServer((received, send) => {
      const { datagram, port } = received.at(-1) ?? assert.fail();
      if (received.length % 3 === 0) send(datagram, port);
    });
    const patient = ["--data", "x", "--timeout", 1000, "--retries", 2];
    assert.deepEqual((await client(third.port, patient)).stdout, "x");
    const { code, stderr } = await client(third.port, ["--data", "x", "--timeout", 1000, "--count", 3]);
    assert.equal(code, 1);
    assert.match(stderr, /^1: nothing came back\n2: nothing came back\n3: .* ms\n1 of 3 came back: /);
    assert.match(stderr, /\nerror: no echo from udp:.*: 2 of 3 did not come back\n$/);
  });

  test("nobody listens: that is known at once, by ICMP", async () => {
    const free = await udpSocket();
    const { port } = free.address();
    free.close();
    toClose.clear();
    const { code, stderr } = await client(port, ["--data", "x", "--timeout", 60_000]);
    assert.equal(code, 1);
    assert.match(stderr, /^error: no echo from udp:\/\/127.0.0.1:\d+: connection refused \(ECONNREFUSED\)/);
  });

  test("the real client and server", async () => {
    await using server = await start(`${FOLDER}/udp-server.ts`, ["--port", 0]);
    const lines = Buffer.from(Array.from({ length: 300 }, (_, i) => `line ${i}\n`).join(""));
    const { code, bytes, stderr } = await client(server.port, ["--retries", 3], lines);
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    same(lines, bytes);
  });
});

/** Sends a datagram with a source of one's choice: what bind() refuses, a raw socket does not. */
const FORGE = `
import socket, struct, sys
source, source_port, host, port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
raw.bind((source, 0))
raw.sendto(struct.pack("!HHHH", source_port, port, 8 + 5, 0) + b"shout", (host, 0))
`;
