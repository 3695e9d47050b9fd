/** An HTTP/1.1 server for files (RFC 9110, RFC 9112) on plain sockets. */
import cluster from "node:cluster";
import type { Writable } from "node:stream";
import { integer, optional, seconds, setting, text } from "../../shared/config.ts";
import { type Connection, TimeoutError } from "../../shared/connection.ts";
import { explain } from "../../shared/errors.ts";
import { HttpError, persists, type RequestHead, requestReader } from "../../shared/http.ts";
import { type Framing, readBody, requestFraming } from "../../shared/http-body.ts";
import { logLine, openLog } from "../../shared/http-serving.ts";
import { type Context, listenAt, program, projectFile } from "../../shared/program.ts";
import { serve } from "../../shared/tcp.ts";
import { Files } from "./files.ts";
import { checkMethod, HTTP_PORT, parseTarget, type Target } from "./protocol.ts";
import { bodyBytes, errorResponse, headOf, plainResponse, type Response, respond, send } from "./respond.ts";
import { runWorkers } from "./workers.ts";

/** A request has no business here with a body, so it is read and dropped; more than this is refused. */
const MAX_BODY_BYTES = 1024 * 1024;
/** For each chunk of a file that is sent, 256 KiB: the slowest client takes 0.9 kB/s. */
const SEND_TIMEOUT_MS = 300_000;

interface Site {
  files: Files;
  accessLog: Writable | undefined;
  headerTimeoutMs: number;
  keepAliveTimeoutMs: number;
  context: Context;
}

/** What can be said of a request by its head alone: done once for a head that comes again and again. */
interface Request {
  head: RequestHead;
  keepAlive: boolean;
  framing: Framing;
  target: Target | HttpError;
  /** A GET for all of a file, with nothing that would make the answer a special one. */
  isPlain: boolean;
}

const SPECIAL = ["Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Expect"];

function understand(head: RequestHead): Request {
  const keepAlive = persists(head);
  const framing = requestFraming(head);
  const target = targetOf(head);
  const special = SPECIAL.some((name) => head.fields.get(name) !== undefined);
  const isPlain = head.method === "GET" && head.minor > 0 && keepAlive && framing.kind === "none" && !special;
  return { head, keepAlive, framing, target, isPlain };
}

function targetOf({ method, target }: RequestHead): Target | HttpError {
  try {
    checkMethod(method);
    return parseTarget(target);
  } catch (error) {
    if (error instanceof HttpError) return error; // the request is whole: its body is read before the answer
    throw error;
  }
}

/** One client: its requests one after the other, each answered before the next is read, so the order holds. */
async function session(connection: Connection, site: Site): Promise<void> {
  connection.timeoutMs = site.headerTimeoutMs;
  const reader = requestReader(connection, { headMs: site.headerTimeoutMs });
  let request: Request | undefined;
  let head: RequestHead | undefined;
  let isIdle = true;
  try {
    while (true) {
      isIdle = true;
      head = undefined;
      if (connection.unreadBytes === 0 && !(await connection.more())) return;
      isIdle = false;
      head = reader.again() ?? (await reader.next());
      if (head === undefined) return;
      if (request?.head !== head) request = understand(head);
      if (request.isPlain && !site.context.signal.aborted && (await answerPlainly(connection, site, request)))
        continue;
      if (!(await answer(connection, site, request))) return;
      connection.timeoutMs = site.keepAliveTimeoutMs;
    }
  } catch (error) {
    if (isIdle && error instanceof TimeoutError) return;
    await refuse(connection, site, head, error);
  }
}

/** The fast path: one `stat` and one write. False where it is not to be gone. */
async function answerPlainly(
  connection: Connection,
  site: Site,
  { head, target }: Request,
): Promise<boolean> {
  if (target instanceof HttpError) return false;
  const file = site.files.find(target);
  const bytes = typeof file === "object" ? plainResponse(file) : undefined;
  if (typeof file !== "object" || bytes === undefined) return false;
  connection.timeoutMs = SEND_TIMEOUT_MS;
  await connection.write(bytes);
  connection.timeoutMs = site.keepAliveTimeoutMs;
  logAccess(connection, site, head, 200, file.sizeBytes);
  return true;
}

/** Says whether the connection goes on. */
async function answer(connection: Connection, site: Site, request: Request): Promise<boolean> {
  const { head, target, framing } = request;
  const expectation = head.minor > 0 ? head.fields.get("Expect")?.toLowerCase() : undefined;
  const refused = target instanceof HttpError ? target.status : undefined;
  if (expectation !== undefined && expectation !== "100-continue")
    throw new HttpError(417, `Expect: ${expectation}`);
  const waits = expectation !== undefined && framing.kind !== "none" && connection.unreadBytes === 0;
  if (waits && refused === undefined) await connection.write("HTTP/1.1 100 Continue\r\n\r\n");
  // Refused at once, a body that was only offered may come or not: what follows could not be told from it.
  const unclear = waits && refused !== undefined;
  if (!unclear) await dropBody(connection, framing, site.headerTimeoutMs);
  const response =
    target instanceof HttpError
      ? errorResponse(target.status, site.files)
      : respond(site.files, head, target);
  const goesOn = request.keepAlive && !unclear && response.status !== 400 && !site.context.signal.aborted;
  await deliver(connection, site, head, response, goesOn);
  return goesOn;
}

/** A body that dawdles has as long as a head. */
async function dropBody(connection: Connection, framing: Framing, limitMs: number): Promise<void> {
  if (framing.kind === "none") return;
  if (framing.kind === "length" && framing.bytes > MAX_BODY_BYTES)
    throw new HttpError(413, "the body is too large");
  connection.deadline = performance.now() + limitMs; // holds between the chunks and behind them, too
  let sizeBytes = 0;
  try {
    for await (const chunk of readBody(connection, framing)) {
      sizeBytes += chunk.length;
      if (sizeBytes > MAX_BODY_BYTES) throw new HttpError(413, "the body is too large");
      if (performance.now() > connection.deadline)
        throw new TimeoutError(`it took longer than ${limitMs} ms`);
    }
  } finally {
    connection.deadline = Number.POSITIVE_INFINITY;
  }
}

async function deliver(
  connection: Connection,
  site: Site,
  head: RequestHead | undefined,
  response: Response,
  goesOn: boolean,
): Promise<void> {
  const withBody = head?.method !== "HEAD";
  const option = goesOn ? (head?.minor === 0 ? "keep-alive" : undefined) : "close";
  connection.timeoutMs = SEND_TIMEOUT_MS;
  const bytesBefore = connection.sentBytes + connection.unsentBytes;
  try {
    await send(connection, response, { withBody, option });
  } catch (error) {
    const sent = connection.sentBytes - bytesBefore - headOf(response, option).length;
    if (!(error instanceof HttpError)) logAccess(connection, site, head, response.status, Math.max(0, sent));
    throw error;
  }
  logAccess(connection, site, head, response.status, withBody ? bodyBytes(response) : 0);
}

/** Answers what was no request, as far as it can be answered; the connection is closed after it. */
async function refuse(
  connection: Connection,
  site: Site,
  head: RequestHead | undefined,
  error: unknown,
): Promise<void> {
  const status = error instanceof TimeoutError ? 408 : error instanceof HttpError ? error.status : undefined;
  if (status === undefined) throw error;
  // Only 500 is trouble of ours.
  site.context[status === 500 ? "log" : "debug"](`${connection.peer}: ${explain(error)}`);
  await deliver(connection, site, head, errorResponse(status, site.files), false);
}

function logAccess(
  { peerHost }: Connection,
  { accessLog }: Site,
  head: RequestHead | undefined,
  status: number,
  sizeBytes: number,
): void {
  if (accessLog === undefined) return;
  accessLog.write(logLine(peerHost, Date.now(), head, status, sizeBytes));
}

await program({
  summary: "An HTTP/1.1 server for the files of a folder.",
  example: "--root ~/site --access-log access.log",
  settings: {
    ...listenAt(HTTP_PORT),
    root: setting(text, "folder whose files are served", projectFile("exercises/06-http-server/public")),
    index: setting(text, "file that stands for its folder", "index.html"),
    fileCache: setting(
      integer(0, 86_400),
      "seconds that a file is taken to be as it was, without asking the disk; 0: never",
      0,
    ),
    accessLog: optional(text, "file to add a line to for each request (Combined Log Format)"),
    keepAliveTimeout: setting(seconds, "seconds that a connection may be idle between two requests", 65),
    headerTimeout: setting(seconds, "seconds that a request's head may take to arrive, and its body", 10),
    maxConnections: setting(integer(1), "clients at once, for each worker", 10_000),
    workers: setting(integer(1, 256), "processes that serve", 1),
  },
  async run(settings, context) {
    const files = new Files(settings.root, settings.index, settings.fileCache * 1000);
    if (settings.workers > 1 && cluster.isPrimary) return runWorkers(settings.workers, context);
    const accessLog =
      settings.accessLog === undefined ? undefined : await openLog(settings.accessLog, context.log);
    const site: Site = {
      files,
      accessLog,
      headerTimeoutMs: settings.headerTimeout * 1000,
      keepAliveTimeoutMs: settings.keepAliveTimeout * 1000,
      context,
    };
    const { host, port, maxConnections } = settings;
    const { signal, log } = context;
    const server = await serve({ host, port, signal, log, maxConnections }, (connection) =>
      session(connection, site),
    );
    if (cluster.isPrimary) context.ready(server.url);
    else process.send?.(server.url);
    await server.closed;
    if (accessLog !== undefined) await new Promise<void>((resolve) => accessLog.end(resolve));
  },
});
