/** The probes against peers that answer, refuse, keep silent, answer late, twice, wrongly, or are not who they say. */
import { strict as assert } from "node:assert";
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { describe, type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { becomes, freePort, needs, Running, within } from "../../shared/testing.ts";
import { LiveTable } from "./live.ts";
import { measure, Stream, streamsOf } from "./measurement.ts";
import { clockResolutionMs, Mirror } from "./own-delay.ts";
import type { Prober, Result } from "./probing.ts";
import { echoProbe } from "./protocol.ts";
import { tcpProber } from "./tcp-prober.ts";
import { UdpProber } from "./udp-prober.ts";

const ADDRESS = "127.0.0.1";
const SHORT_MS = 50;
/** Longer than anything takes, also on a busy machine. */
const LONG_MS = 30_000;
/** To nobody: the system refuses it by itself, and nothing is sent. */
const BROADCAST = "255.255.255.255";

const probe = (prober: Prober, sequence = 0) =>
  within(new Promise<Result>((done) => prober.send(sequence, done)), "the fate of a probe");

/** A peer whose datagrams wait until a test has looked at them. */
class Peer {
  readonly socket: Socket;
  readonly #arrived: { datagram: Buffer; from: RemoteInfo }[] = [];
  #wake = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("message", (datagram, from) => {
      this.#arrived.push({ datagram, from });
      this.#wake();
    });
  }

  static async open(t: TestContext): Promise<Peer> {
    const socket = createSocket("udp4").bind(0, ADDRESS);
    await once(socket, "listening");
    t.after(() => socket.close());
    return new Peer(socket);
  }

  get port(): number {
    return this.socket.address().port;
  }

  async next(): Promise<{ datagram: Buffer; from: RemoteInfo }> {
    const arrival = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    if (this.#arrived.length === 0) await within(arrival, "a probe");
    return this.#arrived.shift() as { datagram: Buffer; from: RemoteInfo };
  }

  send(datagram: Buffer, { port, address }: RemoteInfo): Promise<void> {
    return new Promise((resolve) => this.socket.send(datagram, port, address, () => resolve()));
  }
}

async function udp(t: TestContext, port: number, timeoutMs: number, address = ADDRESS): Promise<UdpProber> {
  const prober = await UdpProber.open({ address, port, timeoutMs }, echoProbe);
  t.after(() => prober.close());
  return prober;
}

describe("a datagram probe", () => {
  test("is received when its reply comes", async (t) => {
    const peer = await Peer.open(t);
    const prober = await udp(t, peer.port, LONG_MS);
    const fate = probe(prober, 7);
    const { datagram, from } = await peer.next();
    assert.equal(datagram.readUInt32BE(4), 7, "its sequence number");
    await sleep(20);
    await peer.send(datagram, from);
    const { outcome, rttMs, sentAtMs } = await fate;
    assert.equal(outcome, "received");
    assert.ok(rttMs >= 19 && rttMs < performance.now() - sentAtMs, `${rttMs}`);
  });

  test("whose reply comes late is lost, and its reply is not the next one's", async (t) => {
    const peer = await Peer.open(t);
    const prober = await udp(t, peer.port, SHORT_MS);
    assert.deepEqual([(await probe(prober)).outcome, (await peer.next()).from.port > 0], ["lost", true]);
    const first = probe(prober);
    const late = await peer.next();
    assert.equal((await first).rttMs, Number.POSITIVE_INFINITY);
    const patient = await udp(t, peer.port, LONG_MS);
    // The same socket with a probe under way: the late reply must leave it alone.
    const second = probe(prober);
    await peer.next();
    await peer.send(late.datagram, late.from);
    await becomes(() => prober.strays.late === 1, "the late reply");
    assert.equal((await second).outcome, "lost");
    assert.deepEqual(prober.strays, { late: 1, repeated: 0, unknown: 0 });
    assert.deepEqual(patient.strays, { late: 0, repeated: 0, unknown: 0 });
  });

  test("keeps its reply apart from others under way, in whatever order they come", async (t) => {
    const peer = await Peer.open(t);
    const prober = await udp(t, peer.port, LONG_MS);
    const fates = [0, 1, 2].map((sequence) => probe(prober, sequence));
    const arrived = [await peer.next(), await peer.next(), await peer.next()];
    for (const { datagram, from } of arrived.toReversed()) await peer.send(datagram, from);
    const results = await Promise.all(fates);
    assert.deepEqual(
      results.map(({ outcome }) => outcome),
      ["received", "received", "received"],
    );
    assert.equal(new Set(arrived.map(({ datagram }) => datagram.toString("hex", 8))).size, 3, "three ids");
  });

  test("is answered once: repeated replies and nonsense are counted apart", async (t) => {
    const peer = await Peer.open(t);
    const prober = await udp(t, peer.port, LONG_MS);
    const fate = probe(prober);
    const { datagram, from } = await peer.next();
    const otherId = Buffer.from(datagram);
    otherId[15] = ~(otherId[15] ?? 0);
    for (const nonsense of [Buffer.alloc(0), Buffer.alloc(16), otherId, datagram.subarray(1)])
      await peer.send(nonsense, from);
    await becomes(() => prober.strays.unknown === 4, "the nonsense");
    for (let i = 0; i < 3; i++) await peer.send(datagram, from);
    assert.equal((await fate).outcome, "received");
    await becomes(() => prober.strays.repeated === 2, "the repeated replies");
  });

  test("takes nothing from a stranger, even with the right id", async (t) => {
    const [peer, stranger] = [await Peer.open(t), await Peer.open(t)];
    const prober = await udp(t, peer.port, LONG_MS);
    let isOver = false;
    const fate = probe(prober).finally(() => {
      isOver = true;
    });
    const { datagram, from } = await peer.next();
    await stranger.send(datagram, from);
    await peer.send(Buffer.from("behind the stranger's"), from);
    await becomes(() => prober.strays.unknown > 0, "the peer's datagram");
    assert.deepEqual([isOver, prober.strays.unknown], [false, 1]);
    await peer.send(datagram, from);
    assert.equal((await fate).outcome, "received");
  });

  test("to a port where nobody listens is refused, each one of several", async (t) => {
    const prober = await udp(t, await freePort(), LONG_MS);
    for (let i = 0; i < 5; i++) assert.equal((await probe(prober)).outcome, "refused");
    const many = await Promise.all(Array.from({ length: 5 }, (_, i) => probe(prober, i)));
    assert.deepEqual(
      many.map(({ outcome, error }) => `${outcome} ${error?.code}`),
      new Array(5).fill("refused ECONNREFUSED"),
    );
  });

  test("that cannot leave is unsent", async (t) => {
    const prober = await udp(t, 9, LONG_MS, BROADCAST);
    const { outcome, rttMs } = await probe(prober);
    assert.deepEqual([outcome, rttMs], ["unsent", Number.POSITIVE_INFINITY]);
  });

  test("of a closed prober has no fate", async (t) => {
    const peer = await Peer.open(t);
    const prober = await UdpProber.open({ address: ADDRESS, port: peer.port, timeoutMs: 1 }, echoProbe);
    prober.send(0, () => assert.fail("it was given up"));
    prober.close();
    await sleep(20);
  });
});

/** Accepts nothing, and has room for one: the system drops every SYN but the first (or the first two). */
const DEAF = `
import socket, sys
s = socket.socket()
s.bind(("127.0.0.1", 0))
s.listen(0)
fill = [socket.socket() for _ in range(4)]
for one in fill:
    one.setblocking(False)
    one.connect_ex(s.getsockname())
print("listening on tcp://127.0.0.1:%d" % s.getsockname()[1], flush=True)
sys.stdin.read()
`;

describe("a stream probe", () => {
  const tcp = (t: TestContext, port: number, timeoutMs: number, address = ADDRESS): Prober => {
    const prober = tcpProber({ address, port, timeoutMs });
    t.after(() => prober.close());
    return prober;
  };

  test("is received when the handshake is done, and hangs up in order", async (t) => {
    let ended = 0;
    const server = createServer((socket) => socket.resume().on("end", () => ended++)).listen(0, ADDRESS);
    await once(server, "listening");
    t.after(() => server.close());
    const prober = tcp(t, (server.address() as AddressInfo).port, LONG_MS);
    for (let i = 0; i < 10; i++) {
      const before = performance.now();
      const { outcome, rttMs, sentAtMs } = await probe(prober);
      assert.equal(outcome, "received");
      assert.ok(rttMs > 0 && before <= sentAtMs && sentAtMs + rttMs <= performance.now());
    }
    await becomes(() => ended === 10, "every connection's end");
  });

  test("to a port where nobody listens is refused", async (t) => {
    const { outcome, error, rttMs } = await probe(tcp(t, await freePort(), LONG_MS));
    assert.deepEqual([outcome, error?.code, Number.isFinite(rttMs)], ["refused", "ECONNREFUSED", true]);
  });

  test("is timed from when the system is told to connect, not from when Node is", async (t) => {
    const prober = tcp(t, await freePort(), LONG_MS);
    const fate = probe(prober);
    const toldMs = performance.now();
    assert.ok((await fate).sentAtMs >= toldMs);
  });

  test("that cannot leave is unsent", async (t) => {
    assert.equal((await probe(tcp(t, 9, LONG_MS, BROADCAST))).outcome, "unsent");
  });

  test("that nobody answers is lost, and holds up nothing else", needs("python3"), async (t) => {
    await using deaf = new Running("python3", ["-c", DEAF], {});
    await deaf.output(/^listening on .*\n/m);
    assert.equal((await probe(tcp(t, deaf.port, SHORT_MS))).outcome, "lost");
    const peer = await Peer.open(t);
    peer.socket.on("message", (datagram, { port, address }) => peer.socket.send(datagram, port, address));
    // The deaf one's probes are under way for ever; the others' go there and back meanwhile.
    const never = tcp(t, deaf.port, LONG_MS);
    for (let i = 0; i < 20; i++) never.send(i, () => assert.fail("nobody could have answered"));
    const alive = await udp(t, peer.port, LONG_MS);
    for (let i = 0; i < 20; i++) assert.equal((await probe(alive, i)).outcome, "received");
  });
});

describe("a measurement", () => {
  const target = { name: "peer", address: ADDRESS, port: 9 };
  const times = (...atMs: number[]) => atMs.map((at) => performance.now() + at).values();

  test("sends on schedule whatever became of the probes before, and ends when all are over", async () => {
    const dones: (() => void)[] = [];
    const silent: Prober = {
      strays: { late: 0, repeated: 0, unknown: 0 },
      send: (_, done) => dones.push(() => done({ outcome: "lost", sentAtMs: 0, rttMs: Infinity })),
      close() {},
    };
    const stream = new Stream(target, "udp", silent, () => {});
    let isOver = false;
    const run = stream.run(times(0, 5, 10, 15), 1e9, new AbortController().signal).then(() => {
      isOver = true;
    });
    await becomes(() => dones.length === 4, "four probes");
    for (const done of dones.slice(1)) done();
    await sleep(5);
    assert.equal(isOver, false, "one is still under way");
    assert.equal(stream.results.length, 3);
    dones[0]?.();
    await within(run, "the end");
    assert.deepEqual([stream.sent, stream.counts.lost, stream.results.length], [4, 4, 4]);
  });

  test("leaves out what is much too late, rather than sending it in a burst", async () => {
    let sent = 0;
    const prober: Prober = {
      strays: { late: 0, repeated: 0, unknown: 0 },
      send: (_, done) => done({ outcome: "received", sentAtMs: sent++, rttMs: 1 }),
      close() {},
    };
    const stream = new Stream(target, "udp", prober, () => {});
    await stream.run(times(-5000, -4000, -1, -0.5), 1000, new AbortController().signal);
    assert.deepEqual([sent, stream.skipped], [2, 2]);
  });

  test("says each kind of error once, and stops at the signal", async () => {
    const lines: string[] = [];
    const plan = {
      ...{ targets: [{ ...target, port: await freePort() }], transports: ["tcp", "udp"] as const },
      ...{
        probe: echoProbe,
        seconds: 3600,
        intervalMs: 10,
        timeoutMs: LONG_MS,
        sampling: "poisson" as const,
      },
    };
    const streams = await streamsOf(plan, (line) => lines.push(line));
    const stop = new AbortController();
    const measured = measure(streams, plan, stop.signal);
    await becomes(() => streams.every(({ counts }) => counts.refused > 2), "refusals");
    stop.abort();
    await within(measured, "the end after the signal");
    assert.deepEqual(lines.toSorted(), [
      "peer tcp: refused: connection refused (ECONNREFUSED); is a server running there?",
      "peer udp: refused: connection refused (ECONNREFUSED); is a server running there?",
    ]);
    assert.ok(streams.every(({ hasAnswered, results }) => hasAnswered && results.length > 2));
  });
});

describe("the live table", () => {
  const stream = new Stream(
    { name: "peer:9", address: ADDRESS, port: 9 },
    "tcp",
    { strays: { late: 0, repeated: 0, unknown: 0 }, send() {}, close() {} },
    () => {},
  );
  const shown = async (terminal: boolean, writes: number) => {
    const written: string[] = [];
    const output = { isTTY: terminal, columns: 0, rows: 0, write: (text: string) => written.push(text) };
    {
      using live = new LiveTable([stream], 1, output as unknown as NodeJS.WriteStream);
      await becomes(() => written.length >= writes, "the table");
      live.note("a line", (line) => written.push(line));
    }
    return written;
  };

  test("is drawn over itself on a terminal, with room for lines above it", async () => {
    const written = await shown(true, 3);
    assert.match(written[0] ?? "", /^0 s\nhost +by .*\npeer:9 +tcp +0 +0 +0 +0 +- +- +-\n$/);
    assert.equal(written[1], "\u001b[3A\u001b[J");
    assert.match(written[2] ?? "", /^\d s\nhost/);
    const at = written.indexOf("a line");
    assert.deepEqual([written[at - 1], written.at(-1)], ["\u001b[3A\u001b[J", "a line"]);
  });

  test("is lines in a pipe, without any control character", async () => {
    const [line, note] = await shown(false, 1);
    assert.match(
      line ?? "",
      /^\d s: peer:9 tcp: 0 sent, 0 received, 0 lost, 0 refused; last -, min -, median - ms\n$/,
    );
    assert.equal(note, "a line");
  });
});

describe("what the program adds", () => {
  const plan = {
    ...{ targets: [], transports: ["tcp", "udp"] as const, probe: echoProbe },
    ...{ seconds: 1, intervalMs: 200, timeoutMs: 1000, sampling: "periodic" as const },
  };

  test("it knows, and its clock's step", async () => {
    await using mirror = await Mirror.open(["tcp", "udp"]);
    const { tcp = assert.fail(), udp = assert.fail() } = mirror.delays;
    for (const { medianMs, p95Ms } of [tcp, udp])
      assert.ok(0 < medianMs && medianMs <= p95Ms && p95Ms < 10_000, `${medianMs} ${p95Ms}`);
    assert.ok(tcp.medianMs > udp.medianMs, "to be woken, which only UDP shows, is in TCP's too");
    await using alone = await Mirror.open(["udp"]);
    assert.deepEqual(Object.keys(alone.delays), ["udp"]);
    const stepMs = clockResolutionMs();
    assert.ok(0 < stepMs && stepMs < 1, `${stepMs}`);
  });

  test("is what it adds while it measures: when it is kept busy, it says so", async () => {
    await using mirror = await Mirror.open(plan.transports);
    const busy = setInterval(() => {
      const untilMs = performance.now() + 30;
      while (performance.now() < untilMs);
    }, 1);
    await mirror.measure(plan, new AbortController().signal);
    clearInterval(busy);
    const { tcp, udp } = mirror.delays;
    // Whatever it waits for ends within 30 ms, at random: 15 on average.
    for (const own of [tcp, udp]) assert.ok(own && own.medianMs > 5 && own.p95Ms > 10, JSON.stringify(own));
  });
});
