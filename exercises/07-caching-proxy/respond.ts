/** What the client gets: a stored response, whole, in part or as a 304; one that is on its way; or a page of our own. */
import { closeSync, readSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Connection } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { encodeResponse, Fields, type RequestHead } from "../../shared/http.ts";
import { encodeChunk, encodeLastChunk } from "../../shared/http-body.ts";
import { currentDate, REASONS, statusPage } from "../../shared/http-serving.ts";
import type { Entry } from "./entry.ts";
import { type CacheStatus, formatCacheStatus } from "./protocol.ts";
import { endToEnd, isKnownToClient, type Range, wantedRange } from "./selection.ts";
import type { Store } from "./store.ts";
import type { Reader, Transfer } from "./transfer.ts";

/** What would change a message's meaning behind its end (RFC 9110 §6.5.1). */
const NO_TRAILERS =
  "Content-Length Content-Encoding Content-Type Content-Range Cache-Control Set-Cookie Vary Via".split(" ");

/** A request, and the client who waits for its answer. */
export interface Exchange {
  connection: Connection;
  head: RequestHead;
  /** Does the connection go on after the answer? May become false on the way. */
  keepAlive: boolean;
  /** This proxy in `Via`. */
  pseudonym: string;
  /** Of the answer, once its head is sent: for the log, and for whoever would else send another one. */
  sent: { status: number; bodyBytes: number } | undefined;
}

type Line = readonly [name: string, value: string];
/** Of what a 200 would say, a 304 repeats what a cache needs (RFC 9110 §15.4.5). */
const IN_304 = [
  "cache-control",
  "content-location",
  "date",
  "etag",
  "expires",
  "last-modified",
  "vary",
  "via",
];

/** The head as it goes to this client. */
function encodeHead(
  exchange: Exchange,
  { status, reason, fields }: { status: number; reason: string; fields: Fields },
  lines: readonly Line[],
): Buffer {
  const option = exchange.keepAlive ? (exchange.head.minor === 0 ? "keep-alive" : undefined) : "close";
  const via: Line = ["Via", [...fields.all("Via"), `1.1 ${exchange.pseudonym}`].join(", ")];
  // RFC 9110 §8.6: there is no content, and whoever waited for some would take the next message for it.
  const untrue = status === 204 ? "Content-Length" : "";
  const all = fields.replace(
    ["Via", untrue, ...lines.map(([name]) => (name === "Cache-Status" ? "" : name))],
    [via, ...lines],
  );
  const withOption = option === undefined ? all : all.replace([], [["Connection", option]]);
  return Buffer.from(encodeResponse({ status, reason, fields: withOption }), "latin1");
}

export const cacheStatusLine = (status: CacheStatus): Line => ["Cache-Status", formatCacheStatus(status)];

/** Content that small goes out in one write with its head. */
const ONE_WRITE_BYTES = 64 * 1024;

/** Sends what is stored, as the request's conditions and range will have it. False if it is damaged or gone: nothing was sent. */
export async function sendStored(
  exchange: Exchange,
  store: Store,
  entry: Entry,
  cacheStatus: CacheStatus,
): Promise<boolean> {
  const { head } = exchange;
  const nowMs = Date.now();
  const ttl = Math.trunc((entry.policy.freshUntilMs - nowMs) / 1000);
  const lines: Line[] = [["Age", String(entry.policy.ageS(nowMs))], cacheStatusLine({ ...cacheStatus, ttl })];
  if (entry.status === 200 && isKnownToClient(head.fields, entry.fields, entry.responseTimeMs)) {
    const fields = new Fields([...entry.fields].filter(([name]) => IN_304.includes(name.toLowerCase())));
    await sendHead(
      exchange,
      encodeHead(exchange, { status: 304, reason: "Not Modified", fields }, lines),
      304,
    );
    return true;
  }
  if (entry.transfer !== undefined) {
    await sendArriving(exchange, entry, entry.transfer.attach(), entry.transfer, lines);
    return true;
  }
  if (entry.file === undefined) return false; // it was still coming when it was found, and has broken off since
  return sendWhole(exchange, store, entry, lines);
}

async function sendHead(exchange: Exchange, bytes: Buffer, status: number): Promise<void> {
  exchange.sent = { status, bodyBytes: 0 };
  await exchange.connection.write(bytes);
}

async function sendWhole(exchange: Exchange, store: Store, entry: Entry, lines: Line[]): Promise<boolean> {
  const { head } = exchange;
  const sizeBytes = entry.file?.bodyBytes ?? 0;
  const range =
    head.method === "GET" && entry.status === 200
      ? wantedRange(head.fields, entry.fields, sizeBytes)
      : undefined;
  if (range === "none") {
    await sendPage(exchange, 416, "The range lies beyond the end.", [
      ...lines,
      ["Content-Range", `bytes */${sizeBytes}`],
    ]);
    return true;
  }
  const part = range ?? { start: 0, end: sizeBytes };
  if (entry.status !== 204) lines.push(["Content-Length", String(part.end - part.start)]);
  if (range !== undefined)
    lines.push(["Content-Range", `bytes ${range.start}-${range.end - 1}/${sizeBytes}`]);
  const status = range === undefined ? entry.status : 206;
  const reason = range === undefined ? entry.reason : "Partial Content";
  const bytes = encodeHead(exchange, { status, reason, fields: entry.fields }, lines);
  if (head.method === "HEAD") {
    await sendHead(exchange, bytes, status);
    return true;
  }
  if (sizeBytes <= ONE_WRITE_BYTES || entry.content !== undefined) {
    const content = store.contentOf(entry);
    if (content === undefined) return false;
    exchange.sent = { status, bodyBytes: part.end - part.start };
    await exchange.connection.write(Buffer.concat([bytes, content.subarray(part.start, part.end)]));
    return true;
  }
  const fd = store.open(entry);
  if (fd === undefined) return false;
  exchange.sent = { status, bodyBytes: part.end - part.start };
  const offset = entry.file?.bodyOffset ?? 0;
  try {
    await sendPart(exchange.connection, bytes, fd, { start: offset + part.start, end: offset + part.end });
  } finally {
    closeSync(fd);
  }
  return true;
}

/** As large as stays in the processor's cache between reading and writing; the pieces are used again and again. */
const PIECE_BYTES = 256 * 1024;
const MAX_SPARE = 64;
const spare: Buffer[] = [];

async function sendPart(
  connection: Connection,
  head: Buffer,
  fd: number,
  { start, end }: Range,
): Promise<void> {
  const piece = spare.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES);
  let used = head.copy(piece);
  for (let at = start; at < end; ) {
    const got = readSync(fd, piece, used, Math.min(piece.length - used, end - at), at);
    if (got === 0) throw new Failure("a stored object shrank while it was sent");
    at += got;
    await connection.write(piece.subarray(0, used + got)); // returns when it has gone: the piece may be filled again
    used = 0;
  }
  if (connection.unsentBytes === 0 && spare.length < MAX_SPARE) spare.push(piece);
}

/** Sends a response whose body is still on its way, each piece as it comes. Detaches the reader. */
export async function sendArriving(
  exchange: Exchange,
  { status, reason, fields }: { status: number; reason: string; fields: Fields },
  reader: Reader,
  transfer: Transfer,
  lines: readonly Line[],
): Promise<void> {
  const { connection, head } = exchange;
  try {
    const isBodiless = head.method === "HEAD" || status === 204 || status === 304;
    const isChunked = !isBodiless && fields.get("Content-Length") === undefined && head.minor > 0;
    const endsByClosing = !isBodiless && fields.get("Content-Length") === undefined && head.minor === 0;
    if (endsByClosing) exchange.keepAlive = false;
    const coding: Line[] = isChunked ? [["Transfer-Encoding", "chunked"]] : [];
    let unsent = encodeHead(exchange, { status, reason, fields }, [...lines, ...coding]);
    exchange.sent = { status, bodyBytes: 0 };
    if (isBodiless) return await connection.write(unsent);
    if (!reader.isReady) await nextTurn(); // what has come with the head goes out with it, in one write
    for (;;) {
      if (unsent.length > 0 && !reader.isReady) {
        await connection.write(unsent);
        unsent = Buffer.alloc(0);
      }
      const chunk = await reader.read();
      if (chunk === undefined) break;
      const piece = isChunked ? encodeChunk(chunk) : chunk;
      await connection.write(unsent.length > 0 ? Buffer.concat([unsent, piece]) : piece);
      unsent = Buffer.alloc(0);
      exchange.sent.bodyBytes += chunk.length;
    }
    if (isChunked) {
      const trailers = endToEnd(transfer.trailers).replace(NO_TRAILERS);
      unsent = Buffer.concat([unsent, Buffer.from(encodeLastChunk(trailers), "latin1")]);
    }
    if (unsent.length > 0) await connection.write(unsent);
  } finally {
    reader.detach();
  }
}

/** A page of our own that explains a status; `advice` is HTML. */
export async function sendPage(
  exchange: Exchange,
  status: number,
  advice: string,
  lines: readonly Line[] = [],
): Promise<void> {
  const html = statusPage(status, advice);
  await sendOwn(exchange, status, html, [["Content-Type", "text/html; charset=utf-8"], ...lines]);
}

export async function sendOwn(
  exchange: Exchange,
  status: number,
  body: Buffer,
  lines: readonly Line[],
): Promise<void> {
  const own: Line[] = [["Date", currentDate()], ["Content-Length", String(body.length)], ...lines];
  const bytes = encodeHead(exchange, { status, reason: REASONS[status] ?? "", fields: new Fields() }, own);
  const withBody = exchange.head.method !== "HEAD";
  exchange.sent = { status, bodyBytes: withBody ? body.length : 0 };
  await exchange.connection.write(withBody ? Buffer.concat([bytes, body]) : bytes);
}

/**
 * The fast path: the whole response to a plain GET, ready for one write, for as long as its Age stays the same. It is
 * made when the second one in a second asks.
 */
export function prepare(exchange: Exchange, entry: Entry, nowMs: number): Buffer | undefined {
  const { content, policy } = entry;
  if (content === undefined || content.length > ONE_WRITE_BYTES || entry.status === 204) return undefined;
  const ageS = policy.ageS(nowMs);
  const fromMs = nowMs - ((nowMs - entry.responseTimeMs) % 1000);
  const ttl = Math.trunc((policy.freshUntilMs - nowMs) / 1000);
  const head = encodeHead(exchange, entry, [
    ["Age", String(ageS)],
    cacheStatusLine({ hit: true, ttl }),
    ["Content-Length", String(content.length)],
  ]);
  const bytes = Buffer.concat([head, content]);
  entry.prepared = { bytes, fromMs, untilMs: Math.min(fromMs + 1000, policy.freshUntilMs) };
  return bytes;
}
