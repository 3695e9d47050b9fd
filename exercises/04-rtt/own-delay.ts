/**
 * What this program adds to a round trip, so that it can say by how much it errs: probes to itself on loopback, where
 * there is no distance, before the measurement and at random times all through it, for what other probes and other
 * programs do delays these as well. It never makes a time shorter, as its clock is read before the system is told to
 * send and after the system has told of the answer.
 */
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { measure, type Plan, Stream } from "./measurement.ts";
import type { Prober, Result, Transport } from "./probing.ts";
import { type DatagramProbe, echoProbe } from "./protocol.ts";
import { percentile } from "./statistics.ts";
import { tcpProber } from "./tcp-prober.ts";
import { UdpProber } from "./udp-prober.ts";

/** The first ones are slower: the code is not yet compiled. That, too, is better over before anything is measured. */
const [WARM_UP, TRIES] = [10, 10];
/** Between two tries, for whoever has just done the same is quicker than who has slept. */
const PAUSE_MS = 10;
/** During the measurement: from one to the next on average, and how many at most. */
const [INTERVAL_MS, MAX_PROBES] = [50, 2000];
const HERE = { address: "127.0.0.1", timeoutMs: 10_000 };

/**
 * A thread that echoes, so that this one sleeps until the answer comes, as it does when a host is far away; and at a
 * random time, as far hosts do, which finds this one as busy as it is. The reply says how long it was held, in ns.
 */
const HELD_MS = 20;
const ECHO_THREAD = `
const { parentPort } = require("node:worker_threads");
const socket = require("node:dgram").createSocket("udp4");
socket.on("message", (datagram, from) => {
  const came = process.hrtime.bigint();
  setTimeout(() => {
    const held = Buffer.alloc(8);
    held.writeBigUInt64BE(process.hrtime.bigint() - came);
    socket.send([datagram, held], from.port, from.address);
  }, Math.random() * ${HELD_MS});
});
socket.bind(0, "${HERE.address}", () => parentPort.postMessage(socket.address().port));
`;

/** Round trips to that thread, without the time that it held them. */
async function held(port: number): Promise<Prober> {
  let heldMs = 0;
  const probe: DatagramProbe = {
    ...echoProbe,
    answered(reply) {
      if (reply.length < 8) return undefined;
      const end = reply.length - 8;
      heldMs = Number(reply.readBigUInt64BE(end)) / 1e6;
      return echoProbe.answered(reply.subarray(0, end));
    },
  };
  const prober = await UdpProber.open({ ...HERE, port }, probe);
  return {
    strays: prober.strays,
    // Who is answered is told so at once: what was held last is this one's.
    send: (sequence, done) =>
      prober.send(sequence, (result) => done({ ...result, rttMs: result.rttMs - heldMs })),
    close: () => prober.close(),
  };
}

/** By how much round trips are too long at most, about: the median's and the 95th percentile's, in milliseconds. */
interface OwnDelay {
  medianMs: number;
  p95Ms: number;
}
export type OwnDelays = Readonly<Partial<Record<Transport, OwnDelay>>>;

/** The round trips to itself. To be disposed of; `measure` may be called once. */
export class Mirror implements AsyncDisposable {
  readonly #transports: readonly Transport[];
  readonly #streams: readonly Stream[];
  /** Before the measurement, by stream. */
  readonly #beforeMs: readonly (readonly number[])[];
  readonly #close: () => Promise<void>;

  private constructor(
    transports: readonly Transport[],
    streams: readonly Stream[],
    beforeMs: readonly (readonly number[])[],
    close: () => Promise<void>,
  ) {
    this.#transports = transports;
    this.#streams = streams;
    this.#beforeMs = beforeMs;
    this.#close = close;
  }

  static async open(transports: readonly Transport[]): Promise<Mirror> {
    const server = createServer((socket) => socket.on("error", () => {}).resume());
    const thread = new Worker(ECHO_THREAD, { eval: true, execArgv: [] });
    server.listen(0, HERE.address);
    const [[udpPort]] = (await Promise.all([once(thread, "message"), once(server, "listening")])) as [
      [number],
      unknown,
    ];
    const tcpPort = (server.address() as AddressInfo).port;
    const probers: [Transport, number, Prober][] = [["udp", udpPort, await held(udpPort)]];
    if (transports.includes("tcp")) probers.push(["tcp", tcpPort, tcpProber({ ...HERE, port: tcpPort })]);
    const beforeMs: number[][] = [];
    for (const [, , prober] of probers) beforeMs.push(await roundTrips(prober));
    const streams = probers.map(
      ([transport, port, prober]) =>
        new Stream({ name: "itself", address: HERE.address, port }, transport, prober, () => {}),
    );
    return new Mirror(transports, streams, beforeMs, async () => {
      server.close();
      await thread.terminate();
    });
  }

  /** Beside a measurement by this plan, until its end. */
  measure(plan: Plan, signal: AbortSignal): Promise<void> {
    const intervalMs = Math.max(INTERVAL_MS, (plan.seconds * 1000) / MAX_PROBES);
    return measure(this.#streams, { ...plan, intervalMs, sampling: "poisson" }, signal);
  }

  /**
   * The larger one of before and during the measurement; infinite or not a number where there is no loopback. Over UDP the
   * echo's own work is in it; over TCP the kernel answers at once, so what it takes to be woken is taken from UDP.
   */
  get delays(): OwnDelays {
    const of = (transport: Transport, percent: number) => {
      const i = this.#streams.findIndex((stream) => stream.transport === transport);
      const during = (this.#streams[i]?.results ?? []).map(({ rttMs }) => rttMs);
      const before = percentile(this.#beforeMs[i] ?? [], percent);
      return during.length === 0 ? before : Math.max(before, percentile(during, percent));
    };
    const at = (transport: Transport, percent: number) =>
      of("udp", percent) + (transport === "tcp" ? of("tcp", percent) : 0);
    return Object.fromEntries(
      this.#transports.map((by) => [by, { medianMs: at(by, 50), p95Ms: at(by, 95) }]),
    );
  }

  [Symbol.asyncDispose](): Promise<void> {
    for (const stream of this.#streams) stream.close();
    return this.#close();
  }
}

async function roundTrips(prober: Prober): Promise<number[]> {
  const timesMs: number[] = [];
  for (let i = 0; i < WARM_UP + TRIES; i++) {
    const { rttMs, outcome } = await new Promise<Result>((done) => prober.send(i, done));
    if (outcome !== "received") return [Number.NaN];
    if (i < WARM_UP) continue;
    timesMs.push(rttMs);
    await sleep(PAUSE_MS);
  }
  return timesMs;
}

/** The least step that the clock was seen to make, in milliseconds. */
export function clockResolutionMs(): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 1000; i++) {
    const before = performance.now();
    let after = performance.now();
    while (after === before) after = performance.now();
    least = Math.min(least, after - before);
  }
  return least;
}
