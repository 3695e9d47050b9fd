/** An HTTP/1.1 load balancer (RFC 9110, RFC 9112) on plain sockets. */
import { randomBytes } from "node:crypto";
import { host, integer, optional, port, type SettingsValue, seconds, setting } from "../../shared/config.ts";
import { type Connection, TimeoutError } from "../../shared/connection.ts";
import { explain, UsageError } from "../../shared/errors.ts";
import { HttpError, requestReader } from "../../shared/http.ts";
import { configFile, listenAt, program } from "../../shared/program.ts";
import { serve } from "../../shared/tcp.ts";
import { Cluster } from "./cluster.ts";
import { POLICY_OPTIONS, readConfiguration } from "./configuration.ts";
import { ClientError, type Request } from "./exchange.ts";
import { type Balancer, forward, prepare, refuse } from "./forward.ts";
import { BALANCER_PORT } from "./protocol.ts";
import { statusSession } from "./status-page.ts";

/** For a client to take what is sent to it: 64 KiB or so at a time. */
const SEND_TIMEOUT_MS = 60_000;
const STATUS_TIMEOUT_MS = 10_000;

interface Limits {
  headerTimeoutMs: number;
  keepAliveTimeoutMs: number;
}

/** One client: its requests one after the other, each answered before the next is read. */
async function session(client: Connection, balancer: Balancer, limits: Limits): Promise<void> {
  const reader = requestReader(client, { headMs: limits.headerTimeoutMs });
  let request: Request | undefined;
  let isIdle = true;
  client.timeoutMs = limits.headerTimeoutMs;
  try {
    for (let goesOn = true; goesOn; ) {
      isIdle = true;
      if (client.unreadBytes === 0 && !(await client.more())) return;
      isIdle = false;
      client.timeoutMs = limits.headerTimeoutMs;
      const head = reader.again() ?? (await reader.next());
      if (head === undefined) return;
      if (request?.head !== head) request = prepare(head, client, balancer.via);
      client.timeoutMs = SEND_TIMEOUT_MS;
      goesOn = await forward(client, request, balancer);
      client.timeoutMs = limits.keepAliveTimeoutMs;
    }
  } catch (error) {
    if (isIdle && error instanceof TimeoutError) return;
    await answerError(client, error, balancer);
  }
}

/** Answers what was no request, or no whole one, as far as it can be answered; the connection is closed after it. */
async function answerError(client: Connection, error: unknown, { debug }: Balancer): Promise<void> {
  const reason = error instanceof ClientError ? error.cause : error;
  const status =
    reason instanceof TimeoutError ? 408 : reason instanceof HttpError ? reason.status : undefined;
  if (status === undefined) throw error;
  debug(`${client.peer}: ${explain(error)}`);
  await refuse(client, undefined, status, false);
}

/** SIGHUP: the file is read again; where it is wrong the old configuration stays in force. */
function reloadOnHangup(
  cluster: Cluster,
  file: string,
  options: SettingsValue<typeof POLICY_OPTIONS>,
  log: (line: string) => void,
): void {
  process.on("SIGHUP", () => {
    try {
      cluster.configure(readConfiguration(file, options));
      log(`configuration read again: ${cluster.nodes.map(({ name }) => name).join(", ")}`);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      log(`error: ${explain(error)}; the old configuration stays in force`);
    }
  });
}

await program({
  summary: "An HTTP/1.1 load balancer.",
  example: "--backend 127.0.0.1:10601 --backend 127.0.0.1:10602 --algorithm least-connections",
  settings: {
    ...listenAt(BALANCER_PORT),
    config: configFile("config/load-balancer.ini"),
    ...POLICY_OPTIONS,
    statusPort: optional(port, "port of the status page (0 = any free one); else there is none"),
    statusHost: setting(host, "address of the status page, which tells where the nodes are", "127.0.0.1"),
    headerTimeout: setting(seconds, "seconds that a request's head may take to arrive", 10),
    keepAliveTimeout: setting(seconds, "seconds that a client may be idle between two requests", 65),
    maxConnections: setting(integer(1), "clients at once", 10_000),
  },
  async run(settings, { signal, log, debug, ready }) {
    const { host, port, config, statusPort, statusHost, headerTimeout, keepAliveTimeout, maxConnections } =
      settings;
    const cluster = new Cluster(readConfiguration(config, settings), { signal, log });
    using _ = cluster.pool;
    reloadOnHangup(cluster, config, settings, log);
    const balancer: Balancer = { cluster, via: `balancer-${randomBytes(4).toString("hex")}`, signal, debug };
    const limits = { headerTimeoutMs: headerTimeout * 1000, keepAliveTimeoutMs: keepAliveTimeout * 1000 };
    const server = await serve({ host, port, signal, log, maxConnections }, (client) =>
      session(client, balancer, limits),
    );
    ready(server.url);
    if (statusPort !== undefined) {
      const options = { host: statusHost, port: statusPort, signal, log, timeoutMs: STATUS_TIMEOUT_MS };
      const status = await serve(options, (client) => statusSession(client, cluster));
      ready(status.url);
    }
    await server.closed;
  },
});
