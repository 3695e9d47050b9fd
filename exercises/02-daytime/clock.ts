/**
 * A clock kept in step with time servers. It is an offset on the monotonic clock, so nothing on this machine is
 * set, and nobody who sets the machine's clock moves it.
 */
import { lookup } from "node:dns/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { NtpTimeSync } from "ntp-time-sync";
import { formatAddress } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { onSchedule } from "../../shared/schedule.ts";
import { bind, request } from "../../shared/udp.ts";
import { type Daytime, NtpPacket } from "./protocol.ts";

export interface TimeServer {
  host: string;
  port: number;
}

/** One exchange with a time server. */
export interface Sample {
  server: string;
  stratum: number;
  /** UTC less the monotonic clock. */
  offsetMs: number;
  /** On the way there and back; half of it bounds the error of the offset. */
  delayMs: number;
}

/**
 * RFC 5905 §8: the client sent at T1 and received at T4 by its clock, the server received at T2 and sent at T3
 * by its own. Exact where both ways take equally long, whatever the signs and sizes.
 */
export function offsetAndDelay(t1: number, t2: number, t3: number, t4: number) {
  return { offsetMs: (t2 - t1 + (t3 - t4)) / 2, delayMs: t4 - t1 - (t3 - t2) };
}

/** For one exchange; what takes longer could not be measured well anyway. */
const EXCHANGE_MS = 1000;
/** ntp-time-sync cuts the server's times to whole milliseconds: on average it takes half of one away. */
const CUT_MS = 0.5;

/** Asks a time server once. Throws `Failure`, also for a reply that is not to be trusted. */
export async function ask({ host, port }: TimeServer): Promise<Sample> {
  const server = formatAddress(host, port);
  // Before the measurement begins, as the time that a name takes to resolve is no delay of the network.
  const { address } = await lookup(host).catch((error: unknown) => {
    throw new Failure(`cannot resolve ${host}`, { cause: error });
  });
  const { packet, t1, t4 } = await exchange(address, port);
  const [t2, t3] = [utcMsOf(packet.receiveTimestamp), utcMsOf(packet.transmitTimestamp)];
  const { offsetMs, delayMs } = offsetAndDelay(t1, t2 + CUT_MS, t3 + CUT_MS, t4);
  const { stratum = 0 } = packet;
  const refusal = refusalOf(packet, t2, t3, delayMs);
  if (refusal !== undefined) throw new Failure(`${server} is refused: ${refusal}`);
  return { server, stratum, offsetMs, delayMs: Math.max(0, delayMs) };
}

type Packet = Awaited<ReturnType<NtpTimeSync["getNetworkTime"]>>;

const ERA_MS = 2 ** 32 * 1000;
const ERA_0_MS = Date.UTC(1900, 0);

/**
 * An NTP time in milliseconds since 1970, NaN where there is none. ntp-time-sync takes all for times of era 0, which ends
 * on 7 February 2036; what is in the lower half of an era is meant in the next one (RFC 4330 §3).
 */
function utcMsOf(timestamp: Date | undefined): number {
  const ms = Number(timestamp);
  if (ms === ERA_0_MS) return Number.NaN;
  return ms < ERA_0_MS + ERA_MS / 2 ? ms + ERA_MS : ms;
}

/**
 * ntp-time-sync makes the query and understands the reply. Its socket, however, speaks IPv4 only, takes the first
 * datagram from anyone, does not tell what was sent, and stamps with the machine's clock. So it is given a relay of
 * ours on loopback, which asks from a connected socket, lets only the reply to this very query pass, and takes
 * T1 and T4 on the monotonic clock.
 */
async function exchange(host: string, port: number): Promise<{ packet: Packet; t1: number; t4: number }> {
  const over = new AbortController();
  let [t1, t4, strangers] = [Number.NaN, Number.NaN, 0];
  const accept = (query: Buffer, reply: Buffer) => {
    t4 = performance.now();
    if (isReplyTo(query, reply)) return reply.subarray(0, NtpPacket.minSize); // what follows, it does not look at
    strangers++;
    return undefined;
  };
  try {
    const packet = await new Promise<Packet>((resolve, reject) => {
      bind({ host: "127.0.0.1", port: 0, signal: over.signal, log: () => {} }, (query, from, relay) => {
        t1 = performance.now();
        request({
          host,
          port,
          request: query,
          accept: (reply) => accept(query, reply),
          timeoutMs: EXCHANGE_MS,
        })
          .then((reply) => relay.send(reply, from))
          .catch(reject);
      })
        .then((relay) => {
          const library = new NtpTimeSync({ servers: [], replyTimeout: 2 * EXCHANGE_MS });
          return library.getNetworkTime("127.0.0.1", relay.port);
        })
        .catch((error: unknown) => {
          if (isFailure(error)) throw error;
          throw new Failure("ntp-time-sync got nothing", { cause: error }); // it says so by a plain Error
        })
        .then(resolve, reject);
    });
    return { packet, t1, t4 };
  } catch (error) {
    if (strangers === 0) throw error;
    throw new Failure(`${strangers} replies that do not match the query`, { cause: error });
  } finally {
    over.abort();
  }
}

const [ORIGIN_OFFSET, TRANSMIT_OFFSET] = [24, 40];

/** A reply repeats the query's transmit time as its origin (RFC 5905 §8, TEST2). */
function isReplyTo(query: Buffer, reply: Buffer): boolean {
  if (reply.length < NtpPacket.minSize) return false;
  const sent = query.subarray(TRANSMIT_OFFSET, TRANSMIT_OFFSET + 8);
  return sent.equals(reply.subarray(ORIGIN_OFFSET, ORIGIN_OFFSET + 8));
}

/** Why a reply is not to be used, if so. */
function refusalOf(packet: Packet, receivedMs: number, sentMs: number, delayMs: number): string | undefined {
  const { leapIndicator, version = 0, mode, stratum = 0 } = packet;
  if (mode !== 4) return `mode ${mode} is not a server's`;
  if (version < 1 || version > 4) return `version ${version} is unknown`;
  if (leapIndicator === 3) return "it is not synchronised (leap 3)";
  if (stratum < 1 || stratum > 15) return `it is not synchronised (stratum ${stratum})`;
  // Each asks for what must hold, so that NaN (a forged packet that came before the relay's) is refused too.
  if (!(receivedMs > 0)) return "it gives no time";
  if (!(sentMs >= receivedMs)) return "it answered before it was asked";
  // Cut to whole milliseconds, the server's times may be 1 ms apart from the truth, but no more.
  if (!(delayMs >= -1)) return `a round trip of ${delayMs.toFixed(1)} ms cannot be`;
  return undefined;
}

/** What is known of the time: plain data; `nowMs` reads it. */
export interface Clock {
  synchronisation: Daytime["synchronisation"];
  /** The time server's and one more; 0 where there was never one. */
  stratum: number;
  /** UTC less the monotonic clock. Without it the machine's own clock is all there is. */
  offsetMs?: number;
}

/** UTC in milliseconds since 1970. */
export function nowMs({ offsetMs }: Clock): number {
  return offsetMs === undefined ? Date.now() : performance.now() + offsetMs;
}

/** After an attempt to synchronise: in step with the best sample, or without one no longer in step. */
export function next(clock: Clock, best: Sample | undefined): Clock {
  if (best) return { synchronisation: "synchronised", stratum: best.stratum + 1, offsetMs: best.offsetMs };
  return clock.synchronisation === "none" ? clock : { ...clock, synchronisation: "holdover" };
}

/** Exchanges with each server in one attempt, each begun a moment after the last. */
const SAMPLES = 4;
const PAUSE_MS = 50;

/** The sample of least delay, as it bounds the error; or what was wrong with each server. */
async function bestOf(servers: readonly TimeServer[]): Promise<{ best?: Sample; complaint: string }> {
  const complaints = new Set<string>();
  const tries = servers.flatMap((server) =>
    Array.from({ length: SAMPLES }, async (_, index) => {
      await sleep(index * PAUSE_MS);
      return await ask(server);
    }),
  );
  const samples: Sample[] = [];
  for (const result of await Promise.allSettled(tries)) {
    if (result.status === "fulfilled") samples.push(result.value);
    // One server's failure is no reason to do without the others.
    else if (isFailure(result.reason)) complaints.add(explain(result.reason));
    else throw result.reason;
  }
  const [best] = samples.sort((a, b) => a.delayMs - b.delayMs);
  return { complaint: [...complaints].join("; "), ...(best && { best }) };
}

interface Keeping {
  servers: readonly TimeServer[];
  /** When to synchronise again, in UTC. */
  cron: string;
  signal: AbortSignal;
  /** Gets one line for each change of state, `debug` one for each attempt that changes nothing. */
  log: (line: string) => void;
  debug: (line: string) => void;
}

/** Keeps a clock in step from now on. The function returned reads it as it stands and never waits. */
export function keepClock({ servers, cron, signal, log, debug }: Keeping): () => Clock {
  let clock: Clock = { synchronisation: "none", stratum: 0 };
  let said = "";
  let busy = false;

  const synchronise = async () => {
    if (busy) return;
    busy = true;
    const { best, complaint } = await bestOf(servers);
    busy = false;
    if (signal.aborted) return;
    clock = next(clock, best);
    const say = clock.synchronisation === said ? debug : log;
    said = clock.synchronisation;
    say(`${said}: ${best ? summary(best) : complaint}`);
  };

  if (servers.length === 0) {
    log("none: no time server is named, so this is the machine's own clock");
    return () => clock;
  }
  const attempt = () => void synchronise();
  onSchedule(cron, signal, attempt);
  attempt();
  return () => clock;
}

function summary({ server, stratum, offsetMs, delayMs }: Sample): string {
  const aheadMs = Date.now() - (performance.now() + offsetMs);
  const machine = `${Math.abs(aheadMs).toFixed(1)} ms ${aheadMs < 0 ? "behind" : "ahead"}`;
  return `${server}, stratum ${stratum}, round trip ${delayMs.toFixed(1)} ms; this machine's clock is ${machine}`;
}
