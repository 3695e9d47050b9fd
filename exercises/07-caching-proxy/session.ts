/** A client's connection: its requests in their order, and what is answered without the cache (CONNECT, our own page, refusals). */
import type { Writable } from "node:stream";
import { type Connection, TimeoutError } from "../../shared/connection.ts";
import { explain } from "../../shared/errors.ts";
import { Fields, HttpError, persists, type RequestHead, requestReader } from "../../shared/http.ts";
import { type Framing, requestFraming } from "../../shared/http-body.ts";
import { tunnel } from "../../shared/http-relay.ts";
import { logLine } from "../../shared/http-serving.ts";
import type { Context } from "../../shared/program.ts";
import type { Cache, ProxyExchange } from "./cache.ts";
import { ClientError, OriginError, type Origins } from "./origin.ts";
import { parseAuthority, parseTarget, type Target, wasHere } from "./protocol.ts";
import { cacheStatusLine, prepare, sendOwn, sendPage } from "./respond.ts";
import { answerItself, escapeHtml } from "./status-page.ts";
import type { Store } from "./store.ts";

/** For each piece of a response: the slowest client takes 4 kB/s. */
const SEND_TIMEOUT_MS = 60_000;

export interface ProxyState {
  store: Store;
  cache: Cache;
  origins: Origins;
  connectPorts: readonly number[];
  accessLog: Writable | undefined;
  pseudonym: string;
  headerTimeoutMs: number;
  keepAliveTimeoutMs: number;
  tunnelIdleMs: number;
  context: Context;
}

/** What can be said of a request by its head alone: done once for a head that comes again and again. */
interface Request {
  head: RequestHead;
  keepAlive: boolean;
  framing: Framing;
  /** Of somebody else: without one it is about the proxy itself. */
  target: Target | undefined;
  /** A GET with nothing that would make the answer a special one. */
  isPlain: boolean;
}

const SPECIAL =
  "Cache-Control Pragma Range If-Match If-None-Match If-Modified-Since If-Unmodified-Since Via".split(" ");

/** Throws `HttpError` 400 for a target that is neither a server's address nor a path of ours. */
function understand(head: RequestHead): Request {
  const { method, target, minor, fields } = head;
  const isOurs = target.startsWith("/") || target === "*";
  const keepAlive =
    persists(head) || (minor === 0 && fields.tokens("Proxy-Connection").includes("keep-alive"));
  const framing = requestFraming(head);
  const isSpecial = SPECIAL.some((name) => fields.get(name) !== undefined);
  const isPlain =
    method === "GET" && minor > 0 && keepAlive && framing.kind === "none" && !isSpecial && !isOurs;
  const isElsewhere = !isOurs && method !== "CONNECT";
  return { head, keepAlive, framing, target: isElsewhere ? parseTarget(method, target) : undefined, isPlain };
}

/** One client: its requests one after the other, each answered before the next is read, so the order holds. */
export async function session(connection: Connection, proxy: ProxyState): Promise<void> {
  connection.timeoutMs = proxy.headerTimeoutMs;
  const reader = requestReader(connection, { headMs: proxy.headerTimeoutMs });
  const exchange: ProxyExchange = newExchange(connection, proxy);
  let request: Request | undefined;
  let isIdle = true;
  try {
    while (true) {
      isIdle = true;
      exchange.sent = undefined;
      exchange.head = NO_HEAD; // what is refused before it is understood is not the request before it
      if (connection.unreadBytes === 0 && !(await connection.more())) return;
      isIdle = false;
      const head = reader.again() ?? (await reader.next());
      if (head === undefined) return;
      if (request?.head !== head) request = understand(head);
      if (request.isPlain && !proxy.context.signal.aborted) {
        const bytes = preparedFor(request, exchange, proxy);
        if (bytes !== undefined) {
          connection.timeoutMs = SEND_TIMEOUT_MS;
          await connection.write(bytes);
          connection.timeoutMs = proxy.keepAliveTimeoutMs;
          logAccess(exchange, proxy, head);
          continue;
        }
      }
      if (head.method === "CONNECT") return await answerConnect(exchange, proxy, head);
      if (!(await answer(exchange, proxy, request))) return;
      connection.timeoutMs = proxy.keepAliveTimeoutMs;
    }
  } catch (error) {
    if (isIdle && error instanceof TimeoutError) return;
    await refuse(exchange, proxy, error);
  }
}

const NO_HEAD: RequestHead = { method: "GET", target: "/", minor: 1, fields: new Fields() };
const NOWHERE: Target = { host: "", port: 0, path: "", authority: "", url: "" };

function newExchange(connection: Connection, { pseudonym }: ProxyState): ProxyExchange {
  const framing: Framing = { kind: "none" };
  return {
    connection,
    head: NO_HEAD,
    keepAlive: false,
    pseudonym,
    sent: undefined,
    target: NOWHERE,
    framing,
  };
}

/** The fast path: a lookup and one write. `undefined` where it is not to be gone. */
function preparedFor(
  { head, target }: Request,
  exchange: ProxyExchange,
  proxy: ProxyState,
): Buffer | undefined {
  const entry = target && proxy.store.find(target.url, head.fields);
  if (entry === undefined) return undefined;
  const nowMs = Date.now();
  const { prepared } = entry;
  let bytes = prepared?.bytes;
  if (prepared === undefined || nowMs < prepared.fromMs || nowMs >= prepared.untilMs) {
    if (nowMs >= entry.policy.freshUntilMs) return undefined;
    exchange.head = head;
    exchange.keepAlive = true;
    bytes = prepare(exchange, entry, nowMs);
    if (bytes === undefined) return undefined;
    proxy.store.touch(entry);
  }
  proxy.cache.counts.hits++;
  if (proxy.accessLog !== undefined)
    exchange.sent = { status: entry.status, bodyBytes: entry.content?.length ?? 0 };
  return bytes;
}

/** Says whether the connection goes on. */
async function answer(exchange: ProxyExchange, proxy: ProxyState, request: Request): Promise<boolean> {
  const { head, framing, target } = request;
  const { connection } = exchange;
  const keepAlive = request.keepAlive && !proxy.context.signal.aborted;
  Object.assign(exchange, { head, framing, keepAlive, target: target ?? NOWHERE });
  const expectation = head.minor > 0 ? head.fields.get("Expect")?.toLowerCase() : undefined;
  if (expectation !== undefined && expectation !== "100-continue")
    throw new HttpError(417, `Expect: ${expectation}`);
  checkLoop(head, proxy);
  connection.timeoutMs = SEND_TIMEOUT_MS;
  if (target === undefined) await answerItself(exchange, proxy.store, proxy.cache);
  else if (!(await answerHere(exchange))) await answerElse(exchange, proxy);
  logAccess(exchange, proxy, head);
  return exchange.keepAlive;
}

/** What an origin does is no fault of the client's: its connection goes on, unless a body is left on it. */
async function answerElse(exchange: ProxyExchange, proxy: ProxyState): Promise<void> {
  try {
    await proxy.cache.answer(exchange);
  } catch (error) {
    if (!(error instanceof OriginError) || exchange.sent !== undefined) throw error;
    exchange.keepAlive &&= exchange.framing.kind === "none";
    await sendProblem(exchange, proxy, error, error.status);
  }
}

function checkLoop({ fields }: RequestHead, { pseudonym }: ProxyState): void {
  if (wasHere(fields, pseudonym)) throw new OriginError(508, "the request has been at this proxy before");
}

/** A request may say how far it is to go (RFC 9110 §7.6.2). */
async function answerHere(exchange: ProxyExchange): Promise<boolean> {
  const { method, fields } = exchange.head;
  const left = fields.get("Max-Forwards");
  if ((method !== "OPTIONS" && method !== "TRACE") || left === undefined || !/^\d+$/.test(left)) return false;
  if (Number(left) > 0) {
    const fewer = fields.replace(["Max-Forwards"], [["Max-Forwards", String(Number(left) - 1)]]);
    exchange.head = { ...exchange.head, fields: fewer };
    return false;
  }
  if (exchange.framing.kind !== "none") exchange.keepAlive = false;
  await sendOwn(exchange, 200, Buffer.alloc(0), [cacheStatusLine({ fwd: "method", detail: "max-forwards" })]);
  return true;
}

/** A tunnel (RFC 9110 §9.3.6), to ports that are meant for it: any other would make us anybody's way to anything. */
async function answerConnect(exchange: ProxyExchange, proxy: ProxyState, head: RequestHead): Promise<void> {
  const { connection } = exchange;
  Object.assign(exchange, { head, keepAlive: false });
  checkLoop(head, proxy);
  const to = parseAuthority(head.target);
  if (!proxy.connectPorts.includes(to.port))
    throw new OriginError(403, `no tunnels to port ${to.port}, only to ${proxy.connectPorts.join(", ")}`);
  const upstream = await proxy.origins.connect(to);
  exchange.sent = { status: 200, bodyBytes: 0 };
  logAccess(exchange, proxy, head);
  const line = cacheStatusLine({ fwd: "method" }).join(": ");
  await connection.write(`HTTP/1.1 200 Connection established\r\n${line}\r\n\r\n`);
  try {
    await tunnel(connection, upstream, proxy.tunnelIdleMs);
  } finally {
    await upstream.close();
  }
}

/** Answers what went wrong as far as it can be answered; the connection is closed after it. */
async function refuse(exchange: ProxyExchange, proxy: ProxyState, error: unknown): Promise<void> {
  const cause = error instanceof ClientError ? error.cause : error;
  const isKnown = cause instanceof OriginError || cause instanceof HttpError;
  const status = cause instanceof TimeoutError ? 408 : isKnown ? cause.status : undefined;
  if (status === undefined || exchange.sent !== undefined) throw error;
  exchange.keepAlive = false;
  await sendProblem(exchange, proxy, cause, status);
  logAccess(exchange, proxy, exchange.head);
}

async function sendProblem(
  exchange: ProxyExchange,
  proxy: ProxyState,
  error: unknown,
  status: number,
): Promise<void> {
  proxy.context.debug(`${exchange.connection.peer}: ${explain(error)}`);
  const how = { fwd: "miss", detail: `refused-${status}` } as const;
  await sendPage(exchange, status, escapeHtml(explain(error)), [cacheStatusLine(how)]);
}

function logAccess({ connection, sent }: ProxyExchange, { accessLog }: ProxyState, head: RequestHead): void {
  if (accessLog === undefined || sent === undefined) return;
  accessLog.write(logLine(connection.peerHost, Date.now(), head, sent.status, sent.bodyBytes));
}
