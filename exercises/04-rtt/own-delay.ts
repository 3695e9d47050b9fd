/**
 * What this program adds to a round trip, so that it can say by how much it errs: probes to itself on loopback, where
 * there is no distance. It never makes a time shorter, as its clock is read before the system is told to send and
 * after the system has told of the answer.
 */
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { median } from "../../shared/measure.ts";
import type { Prober, Result, Transport } from "./probing.ts";
import { echoProbe } from "./protocol.ts";
import { tcpProber } from "./tcp-prober.ts";
import { UdpProber } from "./udp-prober.ts";

/** The first ones are slower: the code is not yet compiled. That, too, is better over before anything is measured. */
const [WARM_UP, TRIES] = [10, 15];
/** Between two tries, for whoever has just done the same is quicker than who has slept. */
const PAUSE_MS = 10;
const HERE = { address: "127.0.0.1", timeoutMs: 1000 };

/** A thread that echoes, so that this one sleeps until the answer comes, as it does when a host is far away. */
const ECHO_THREAD = `
const { parentPort } = require("node:worker_threads");
const socket = require("node:dgram").createSocket("udp4");
socket.on("message", (datagram, from) => socket.send(datagram, from.port, from.address));
socket.bind(0, "${HERE.address}", () => parentPort.postMessage(socket.address().port));
`;

/**
 * At most, on a machine that is as busy as it is now, in milliseconds; not a number where there is no loopback. Over UDP
 * the echo's own work is in it; over TCP the kernel answers at once, so what it takes to be woken is taken from UDP.
 */
export async function ownDelays(
  transports: readonly Transport[],
): Promise<Partial<Record<Transport, number>>> {
  const udp = await overUdp();
  const tcp = transports.includes("tcp") ? udp + (await overTcp()) : Number.NaN;
  return Object.fromEntries(transports.map((transport) => [transport, transport === "tcp" ? tcp : udp]));
}

async function medianOf(prober: Prober): Promise<number> {
  const timesMs: number[] = [];
  for (let i = 0; i < WARM_UP + TRIES; i++) {
    const { rttMs, outcome } = await new Promise<Result>((done) => prober.send(i, done));
    if (outcome !== "received") return Number.NaN;
    if (i < WARM_UP) continue;
    timesMs.push(rttMs);
    await sleep(PAUSE_MS);
  }
  return median(timesMs);
}

async function overTcp(): Promise<number> {
  const server = createServer((socket) => socket.on("error", () => {}).resume());
  server.listen(0, HERE.address);
  await once(server, "listening");
  const prober = tcpProber({ ...HERE, port: (server.address() as AddressInfo).port });
  try {
    return await medianOf(prober);
  } finally {
    prober.close();
    server.close();
  }
}

async function overUdp(): Promise<number> {
  const thread = new Worker(ECHO_THREAD, { eval: true, execArgv: [] });
  try {
    const [port] = (await once(thread, "message")) as [number];
    const prober = await UdpProber.open({ ...HERE, port }, echoProbe);
    const timeMs = await medianOf(prober);
    prober.close();
    return timeMs;
  } finally {
    await thread.terminate();
  }
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
