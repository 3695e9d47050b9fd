/**
 * What stands between two HTTP/1.1 connections, in a proxy or a balancer: idle upstream connections that wait for
 * the next request, a message passed on in the framing of the other side, fields that are for one hop only, tunnels.
 */
import { type Connection, formatAddress, TimeoutError } from "./connection.ts";
import { Failure, isFailure } from "./errors.ts";
import type { Fields } from "./http.ts";
import { type Body, encodeChunk, encodeLastChunk, type Framing, readBody } from "./http-body.ts";
import { type ConnectOptions, connect } from "./tcp.ts";

/** RFC 9110 §9.2.2: to send these twice is to send them once, so what may have been lost may be sent again. */
const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]);
export const isIdempotent = (method: string) => IDEMPOTENT.has(method);

/** RFC 9110 §7.6.1. */
const HOP_BY_HOP = ["Connection", "Proxy-Connection", "Keep-Alive", "TE", "Transfer-Encoding", "Upgrade"];
/** Nobody makes us drop these by naming them in `Connection`: without them the message would be another one. */
const NEVER_DROPPED = ["host", "content-length"];
/**
 * What would change a message's meaning behind its end (RFC 9110 §6.5.1): its framing, way, sender and rights. Who merges trailers
 * with the head would take them for what we said there.
 */
const NO_TRAILER =
  /^(?:content-(?:length|type|encoding|range)|host|trailer|via|forwarded|x[-_](?:forwarded|real[-_]ip).*|(?:proxy-)?authorization|(?:set-)?cookie)$/i;

const allowedTrailers = (trailers: Fields) => {
  const names = [...trailers].map(([name]) => name);
  return endToEnd(trailers).replace(names.filter((name) => NO_TRAILER.test(name)));
};

/** The fields that go on to the next hop: without those about this connection, and those that it names. */
export function endToEnd(fields: Fields): Fields {
  const named = fields.tokens("Connection").filter((name) => !NEVER_DROPPED.includes(name));
  return fields.replace(named.length === 0 ? HOP_BY_HOP : HOP_BY_HOP.concat(named));
}

/**
 * The framing in which a response goes on to a client of HTTP/1.`minor`: HTTP/1.0 has no chunks, and an end that is told
 * by closing would cost anybody else the connection.
 */
export function onwardFraming(framing: Framing, minor: number): Framing {
  if (framing.kind !== "chunked" && framing.kind !== "close") return framing;
  return { kind: minor > 0 ? "chunked" : "close" };
}

/** The end-to-end fields, and the one that says how the body goes on. */
export function onwardFields(fields: Fields, framing: Framing): Fields {
  const kept = endToEnd(fields);
  return framing.kind === "chunked" ? kept.replace([], [["Transfer-Encoding", "chunked"]]) : kept;
}

/** The receiving side of a relay failed (`cause`); what the sending side does wrong is thrown as it is. */
export class ReceiverError extends Failure {
  override name = "ReceiverError";
}

async function deliver(to: Connection, bytes: Buffer): Promise<void> {
  try {
    await to.write(bytes);
  } catch (error) {
    if (!isFailure(error)) throw error;
    throw new ReceiverError(`cannot pass on to ${to.peer}`, { cause: error });
  }
}

/** Sends a head, then a body as it comes, each piece when the receiver has taken those before. Throws `ReceiverError`. */
async function sendMessage(to: Connection, head: Buffer, body: Body, framing: Framing): Promise<void> {
  let unsent = head;
  for await (const data of body) {
    const piece = framing.kind === "chunked" ? encodeChunk(data) : data;
    await deliver(to, unsent.length === 0 ? piece : Buffer.concat([unsent, piece]));
    unsent = Buffer.alloc(0);
  }
  const last = framing.kind === "chunked" ? encodeLastChunk(allowedTrailers(body.trailers)) : "";
  const rest = Buffer.concat([unsent, Buffer.from(last, "latin1")]);
  if (rest.length > 0) await deliver(to, rest);
}

/**
 * Passes a message on: `head`, then the body that stands in `framing` on `from`, as `onward` on `to`. What has arrived with
 * the head goes on with it, in one write; a body that is still to come does not hold the head up.
 */
export function relayMessage(
  from: Connection,
  framing: Framing,
  to: Connection,
  onward: Framing,
  head: Buffer,
): Promise<void> {
  if (framing.kind === "none") return deliver(to, head);
  if (framing.kind === "length" && from.unreadBytes >= framing.bytes)
    return deliver(to, Buffer.concat([head, from.take(framing.bytes)]));
  return relayBody(from, framing, to, onward, head);
}

async function relayBody(
  from: Connection,
  framing: Framing,
  to: Connection,
  onward: Framing,
  head: Buffer,
): Promise<void> {
  const isAlone = from.unreadBytes === 0;
  if (isAlone) await deliver(to, head);
  await sendMessage(to, isAlone ? Buffer.alloc(0) : head, readBody(from, framing), onward);
}

/**
 * Carries bytes both ways until both sides have finished; each may finish on its own. Where one breaks, nothing has
 * passed either way for `idleMs` (0 is for ever), or one takes nothing for its `timeoutMs`, both are cut and the error is thrown.
 */
export async function tunnel(a: Connection, b: Connection, idleMs = 0): Promise<void> {
  const line = { a, b, idleMs, lastMs: performance.now() };
  try {
    await Promise.all([pump(line, a, b), pump(line, b, a)]);
  } catch (error) {
    a.destroy();
    b.destroy();
    throw error;
  }
}

async function pump(
  line: { idleMs: number; lastMs: number },
  from: Connection,
  to: Connection,
): Promise<void> {
  for (;;) {
    if (from.unreadBytes === 0 && !(await moreOrIdle(line, from))) return to.end();
    line.lastMs = performance.now();
    await deliver(to, from.take(from.unreadBytes));
  }
}

/** One side may be silent for as long as the other speaks. */
async function moreOrIdle(line: { idleMs: number; lastMs: number }, from: Connection): Promise<boolean> {
  for (;;) {
    const leftMs = line.idleMs === 0 ? 0 : Math.max(1, line.lastMs + line.idleMs - performance.now());
    try {
      return await from.more(leftMs);
    } catch (error) {
      const isIdle = performance.now() >= line.lastMs + line.idleMs;
      if (!(error instanceof TimeoutError) || isIdle) throw error;
    }
  }
}

interface PoolOptions {
  /** Idle connections to one address; of more, the oldest go. */
  idleLimit?: number;
  /** For how long one may be idle. */
  idleMs?: number;
}

type Address = Pick<ConnectOptions, "host" | "port">;
interface Idle {
  connection: Connection;
  isWaiting: boolean;
}

/**
 * Connections to upstream servers that wait for their next request. The one that was used last is used first, so that no
 * more of them stay in use than are needed. One that the peer closes, or that says something unasked, is dropped at once.
 */
export class UpstreamPool implements Disposable {
  readonly #idle = new Map<string, Idle[]>();
  readonly #idleLimit: number;
  readonly #idleMs: number;
  #isDisposed = false;

  constructor({ idleLimit = 64, idleMs = 30_000 }: PoolOptions = {}) {
    this.#idleLimit = idleLimit;
    this.#idleMs = idleMs;
  }

  /** An idle connection. The peer may be about to close it, so what fails on it may be tried again on a fresh one. */
  reuse({ host, port }: Address): Connection | undefined {
    const idle = this.#idle.get(formatAddress(host, port))?.pop();
    if (idle === undefined) return undefined;
    idle.isWaiting = false;
    return idle.connection;
  }

  /** An idle connection or else a new one. Throws `Failure` where none can be made. */
  async acquire(options: ConnectOptions): Promise<{ connection: Connection; reused: boolean }> {
    const connection = this.reuse(options);
    if (connection === undefined) return { connection: await connect(options), reused: false };
    connection.timeoutMs = options.timeoutMs ?? connection.timeoutMs;
    return { connection, reused: true };
  }

  /** Takes a connection back on which a message has come to its end. */
  release({ host, port }: Address, connection: Connection): void {
    if (this.#isDisposed || connection.closed || connection.unreadBytes > 0 || connection.unsentBytes > 0)
      return connection.destroy();
    const address = formatAddress(host, port);
    const all = this.#idle.get(address) ?? [];
    if (all.length === 0) this.#idle.set(address, all);
    const idle = { connection, isWaiting: true };
    all.push(idle);
    connection.more(this.#idleMs).then(
      () => dropIdle(all, idle),
      () => dropIdle(all, idle),
    );
    if (all.length > this.#idleLimit) closeAll(all.splice(0, 1));
  }
  /** How many wait for this address. */
  idleCount({ host, port }: Address): number {
    return this.#idle.get(formatAddress(host, port))?.length ?? 0;
  }

  /** Closes those that wait for this address: it is not used any more. */
  drop({ host, port }: Address): void {
    closeAll(this.#idle.get(formatAddress(host, port))?.splice(0) ?? []);
  }

  /** Closes those that wait, and from now on those that come back. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    for (const all of this.#idle.values()) closeAll(all.splice(0));
  }
}

/** Something has happened on it, or nothing for too long. */
function dropIdle(all: Idle[], idle: Idle): void {
  if (idle.isWaiting) closeAll(all.splice(all.indexOf(idle), 1)); // else it is in use, and what woke us is the answer
}

function closeAll(removed: readonly Idle[]): void {
  for (const idle of removed) {
    idle.isWaiting = false;
    idle.connection.destroy();
  }
}
