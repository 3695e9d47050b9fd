/** A caching HTTP proxy (RFC 9110, 9111, 9112) on plain sockets. */
import { randomBytes } from "node:crypto";
import { lstatSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  flag,
  integer,
  optional,
  type Parse,
  peerPort,
  seconds,
  setting,
  text,
} from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { openLog } from "../../shared/http-serving.ts";
import { configFile, listenAt, program } from "../../shared/program.ts";
import { serve } from "../../shared/tcp.ts";
import { Cache } from "./cache.ts";
import { Origins } from "./origin.ts";
import { PROXY_PORT } from "./protocol.ts";
import { type ProxyState, session } from "./session.ts";
import { Store } from "./store.ts";

const UNITS: Readonly<Record<string, number>> = { "": 1, b: 1, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30 };

/** `256MiB`, `64 KiB`, `1000`. */
const byteSize: Parse<number> = (value) => {
  const [, digits, unit = ""] = /^(\d+)\s*([A-Za-z]*)$/.exec(value) ?? [];
  const factor = UNITS[unit.toLowerCase()];
  if (digits !== undefined && factor !== undefined) return Number(digits) * factor;
  throw new Failure("is no size in bytes, like 64KiB, 256MiB or 1GiB");
};

const portList: Parse<readonly number[]> = (value) => value.split(",").map((one) => peerPort(one.trim()));

await program({
  summary: "A caching HTTP proxy.",
  example: "--cache-size 1GiB --access-log access.log",
  section: "proxy",
  settings: {
    ...listenAt(PROXY_PORT),
    config: configFile("config/caching-proxy.ini"),
    cacheDir: optional(
      text,
      "folder of the stored objects (default: one in the system's temporary directory)",
    ),
    cacheSize: setting(byteSize, "what the objects may take of the disk", 256 * 2 ** 20),
    maxObject: setting(byteSize, "a larger object is not stored", 64 * 2 ** 20),
    memory: setting(byteSize, "what small objects may take of the memory", 64 * 2 ** 20),
    accessLog: optional(text, "file to add a line to for each request (Combined Log Format)"),
    connectPorts: setting(portList, "ports to which CONNECT may lead, with commas between them", [443]),
    denyPrivate: flag(
      "refuse targets on this machine and on private networks (always, if --host is not loopback)",
    ),
    allowPrivate: flag("refuse none, although --host is not loopback"),
    forwardedFor: flag("tell origins the client's address (X-Forwarded-For)"),
    upstreamTimeout: setting(
      seconds,
      "seconds for a connection to an origin, its head, and each part of its body",
      30,
    ),
    headerTimeout: setting(seconds, "seconds that a request's head may take to arrive", 10),
    keepAliveTimeout: setting(
      seconds,
      "seconds that a client's connection may be idle between two requests",
      65,
    ),
    tunnelTimeout: setting(seconds, "seconds that nothing may pass through a tunnel", 600),
    maxConnections: setting(integer(1), "clients at once", 10_000),
  },
  async run(settings, context) {
    const { host, port, maxConnections } = settings;
    const { signal, log, debug } = context;
    const folder = settings.cacheDir ?? defaultFolder(port);
    const pseudonym = `netlab-${randomBytes(6).toString("hex")}`;
    const denyPrivate = settings.denyPrivate || (!isLoopback(host) && !settings.allowPrivate);
    const store = new Store({ folder, maxBytes: settings.cacheSize, maxMemoryBytes: settings.memory, log });
    using origins = new Origins({ timeoutMs: settings.upstreamTimeout * 1000, denyPrivate, pseudonym });
    const { forwardedFor } = settings;
    const maxObjectBytes = Math.min(settings.maxObject, settings.cacheSize);
    const cache = new Cache({ store, origins, maxObjectBytes, forwardedFor, log, debug });
    const proxy: ProxyState = {
      store,
      cache,
      origins,
      connectPorts: settings.connectPorts,
      accessLog: settings.accessLog === undefined ? undefined : await openLog(settings.accessLog, log),
      pseudonym,
      headerTimeoutMs: settings.headerTimeout * 1000,
      keepAliveTimeoutMs: settings.keepAliveTimeout * 1000,
      tunnelIdleMs: settings.tunnelTimeout * 1000,
      context,
    };
    debug(`${store.objects} objects in ${folder}`);
    const server = await serve({ host, port, signal, log, maxConnections }, (connection) =>
      session(connection, proxy),
    );
    context.ready(server.url);
    await server.closed;
    const { accessLog } = proxy;
    if (accessLog !== undefined) await new Promise<void>((resolve) => accessLog.end(resolve));
    store.close();
    if (port === 0 && settings.cacheDir === undefined) rmSync(folder, { recursive: true, force: true });
  },
});

/** Kept from run to run, for the port that it belongs to. Throws `Failure`. */
function defaultFolder(port: number): string {
  if (port === 0) return mkdtempSync(join(tmpdir(), "netlab-cache-"));
  const folder = join(tmpdir(), `netlab-cache-${process.getuid?.() ?? "user"}-${port}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  // Anybody may make a folder of that name there first, and put into it what is then served.
  const { uid, mode } = lstatSync(folder);
  const isOurs = process.getuid === undefined || (uid === process.getuid() && (mode & 0o022) === 0);
  if (!isOurs || !lstatSync(folder).isDirectory())
    throw new Failure(
      `cannot use ${folder} for the cache: others can write to it; choose one with --cache-dir`,
    );
  return folder;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\./.test(host);
}
