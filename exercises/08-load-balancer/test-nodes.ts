/** Nodes to stand behind the balancer, good and bad ones, and clients in front of it. For the tests. */
import { once } from "node:events";
import { createServer as createHttpServer, type IncomingMessage, type RequestListener } from "node:http";
import { type AddressInfo, createServer, type Socket } from "node:net";
import type { Connection } from "../../shared/connection.ts";
import { type ResponseHead, readResponse } from "../../shared/http.ts";
import { readBody, responseFraming } from "../../shared/http-body.ts";
import { connect } from "../../shared/tcp.ts";
import { PATIENCE_MS, type Running, start } from "../../shared/testing.ts";

export interface TestNode extends AsyncDisposable {
  readonly port: number;
  /** Connections that were accepted. */
  readonly connections: number;
}

/** A node on plain sockets that does with each connection as it is told. */
export async function rawNode(session: (socket: Socket) => void, port = 0): Promise<TestNode> {
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    connections++;
    sockets.add(socket);
    socket.on("error", () => {}).on("close", () => sockets.delete(socket));
    session(socket);
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.resetAndDestroy();
      if (server.listening) server.close();
    },
  };
}

/** A node that answers each request's head with these bytes; health checks get a plain 200 unless `sick`. */
export function scriptedNode(
  answer: (socket: Socket, head: string) => void,
  { sick = false, port = 0 } = {},
): Promise<TestNode> {
  return rawNode((socket) => {
    let received = "";
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1");
      for (let end = received.indexOf("\r\n\r\n"); end >= 0; end = received.indexOf("\r\n\r\n")) {
        const head = received.slice(0, end + 4);
        received = received.slice(end + 4);
        if (!sick && head.includes("netlab-balancer")) socket.end(OK("checked"));
        else answer(socket, head);
      }
    });
    socket.on("end", () => socket.end());
  }, port);
}
export const OK = (body: string) => `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

export async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export interface HttpNode extends TestNode {
  /** Requests that were answered, without checks. */
  requests: number;
}

/** A node made with Node's own HTTP. It says its name, or does what it is told. */
export async function httpNode(name: string, listener?: RequestListener, port = 0): Promise<HttpNode> {
  let connections = 0;
  const server = createHttpServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    if (request.headers["user-agent"] === "netlab-balancer") return void response.end("checked");
    node.requests++;
    if (listener !== undefined) return void listener(request, response);
    request.resume().on("end", () => response.setHeader("X-Node", name).end(name));
  });
  server.on("connection", () => connections++);
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const node: HttpNode = {
    port: (server.address() as AddressInfo).port,
    requests: 0,
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
  return node;
}

/** The balancer over these nodes; two ready lines, the second of its status page. */
export async function startBalancer(
  nodes: readonly { port: number }[],
  args: readonly (string | number)[] = [],
): Promise<Running & { statusPort: number }> {
  const backends = nodes.flatMap(({ port }) => ["--backend", `127.0.0.1:${port}`]);
  const running = await start(
    "exercises/08-load-balancer/balancer.ts",
    ["--port", 0, "--status-port", 0, ...backends, ...args],
    { servers: 2 },
  );
  return Object.assign(running, { statusPort: Number(/:(\d+)$/.exec(running.urls[1] ?? "")?.[1]) });
}

interface Answer extends ResponseHead {
  body: string;
  trailers: string;
}

export async function readAnswer(connection: Connection, method = "GET"): Promise<Answer | undefined> {
  const head = await readResponse(connection);
  if (head === undefined) return undefined;
  const body = readBody(connection, responseFraming(head, method));
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return { ...head, body: Buffer.concat(chunks).toString("latin1"), trailers: `${body.trailers}` };
}

export const clientOf = ({ port }: { port: number }) =>
  connect({ host: "127.0.0.1", port, timeoutMs: PATIENCE_MS });

/** All answers to these bytes, until the balancer closes; methods in their order, for HEAD. */
export async function answersTo(
  server: { port: number },
  bytes: string | Buffer,
  methods: string[] = [],
): Promise<Answer[]> {
  await using connection = await clientOf(server);
  await connection.write(Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes, "latin1"));
  connection.end();
  const answers: Answer[] = [];
  for (let i = 0; ; i++) {
    const answer = await readAnswer(connection, methods[i]);
    if (answer === undefined) return answers;
    answers.push(answer);
  }
}

/** One request, and its one answer. */
export async function ask(
  server: { port: number },
  target = "/",
  lines: readonly string[] = [],
  method = "GET",
): Promise<Answer> {
  const [answer] = await answersTo(
    server,
    `${[`${method} ${target} HTTP/1.1`, "Host: a", ...lines].join("\r\n")}\r\n\r\n`,
    [method],
  );
  if (answer === undefined) throw new Error(`no answer to ${method} ${target}`);
  return answer;
}

interface NodeStatus {
  name: string;
  address: string;
  weight: number;
  state: "up" | "down";
  active: number;
  total: number;
  failures: number;
  idleConnections: number;
  latencyMs: Record<"p50" | "p90" | "p99", number | null>;
}

export async function statusOf({ statusPort }: { statusPort: number }): Promise<NodeStatus[]> {
  const { body } = await ask({ port: statusPort }, "/status.json");
  return (JSON.parse(body) as { nodes: NodeStatus[] }).nodes;
}

/** Asks for the status until it is as it should be. */
export async function untilStatus(
  balancer: { statusPort: number },
  what: string,
  holds: (nodes: NodeStatus[]) => boolean,
): Promise<NodeStatus[]> {
  const until = performance.now() + PATIENCE_MS;
  for (;;) {
    const nodes = await statusOf(balancer);
    if (holds(nodes)) return nodes;
    if (performance.now() > until) throw new Error(`waited in vain for ${what}: ${JSON.stringify(nodes)}`);
  }
}
