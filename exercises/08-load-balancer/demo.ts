/** The balancer over three servers of exercise 06, one of which is killed under load and comes back. */
import { setTimeout as delay } from "node:timers/promises";
import { port, setting } from "../../shared/config.ts";
import type { Connection } from "../../shared/connection.ts";
import { expect, say } from "../../shared/demo.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { type ResponseHead, readResponse } from "../../shared/http.ts";
import { readBody, responseFraming } from "../../shared/http-body.ts";
import { program } from "../../shared/program.ts";
import { type Running, start } from "../../shared/running.ts";
import { connect } from "../../shared/tcp.ts";
import { DEMO_NODE_PORTS } from "./protocol.ts";

const SERVER = "exercises/06-http-server/server.ts";
const BALANCER = "exercises/08-load-balancer/balancer.ts";
/** Clients, and their pause after each request. A recording is to be read, so with --port there are few. */
const CLIENTS = { many: 16, pauseMs: 1 };
const GENTLE = { many: 3, pauseMs: 100 };
const LOOK_AGAIN_MS = 10;
const INTERVAL_S = 1;
const PATIENCE_MS = 6000;
async function get(connection: Connection, target: string): Promise<ResponseHead & { body: string }> {
  await connection.write(`GET ${target} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
  const head = await readResponse(connection);
  if (head === undefined) throw new Failure("the connection was closed without an answer");
  const chunks: Buffer[] = [];
  for await (const chunk of readBody(connection, responseFraming(head, "GET"))) chunks.push(chunk);
  return { ...head, body: Buffer.concat(chunks).toString() };
}

interface NodeStatus {
  name: string;
  state: string;
  total: number;
  failures: number;
  latencyMs: { p50: number | null; p99: number | null };
}

async function statusOf(statusPort: number): Promise<NodeStatus[]> {
  await using connection = await connect({ host: "127.0.0.1", port: statusPort });
  return (JSON.parse((await get(connection, "/status.json")).body) as { nodes: NodeStatus[] }).nodes;
}

function show(nodes: readonly NodeStatus[]): void {
  say(
    `  ${"node".padEnd(8)}${"state".padEnd(7)}${"requests".padStart(9)}${"failed".padStart(8)}${"p50 ms".padStart(8)}${"p99 ms".padStart(8)}`,
  );
  for (const { name, state, total, failures, latencyMs } of nodes) {
    const times = [latencyMs.p50, latencyMs.p99].map((ms) => String(ms ?? "–").padStart(8)).join("");
    say(
      `  ${name.padEnd(8)}${state.padEnd(7)}${String(total).padStart(9)}${String(failures).padStart(8)}${times}`,
    );
  }
  say();
}

/** Waits until a node's status is as it should be; the milliseconds that it took. */
async function until(
  statusPort: number,
  what: string,
  holds: (nodes: NodeStatus[]) => boolean,
): Promise<number> {
  const begin = performance.now();
  while (!holds(await statusOf(statusPort))) {
    if (performance.now() - begin > PATIENCE_MS) throw new Failure(`waited in vain for ${what}`);
    await delay(LOOK_AGAIN_MS);
  }
  return performance.now() - begin;
}

/** Clients that ask one request after the other until they are told to stop. */
class Load {
  answers = 0;
  readonly failures: string[] = [];
  #isOver = false;
  readonly #all: Promise<unknown>;

  constructor(port: number, clients: number, pauseMs: number) {
    this.#all = Promise.all(Array.from({ length: clients }, () => this.#client(port, pauseMs)));
  }

  async #client(port: number, pauseMs: number): Promise<void> {
    try {
      await using connection = await connect({ host: "127.0.0.1", port });
      while (!this.#isOver) {
        const { status } = await get(connection, "/style.css");
        if (status !== 200) throw new Failure(`status ${status}`);
        this.answers++;
        await delay(pauseMs);
      }
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.failures.push(explain(error));
    }
  }

  async end(): Promise<void> {
    this.#isOver = true;
    await this.#all;
  }
}

/** Says what it does; the milliseconds until the node has requests again. */
async function killAndReturn(
  node: Running,
  nodePort: number,
  statusPort: number,
  load: Load,
): Promise<number> {
  await until(statusPort, "requests at node3", (nodes) => (nodes[2]?.total ?? 0) > 4);
  say("kill -9 of node3, while clients ask one request after the other:");
  node.kill("SIGKILL");
  const downMs = await until(statusPort, "node3 to be down", (nodes) => nodes[2]?.state === "down");
  say(
    `  ${downMs.toFixed(0)} ms later it counts as down; ${load.failures.length} of ${load.answers} requests have failed so far`,
  );
  show(await statusOf(statusPort));
  say("It is started again:");
  await using _ = await start(SERVER, ["--port", nodePort]);
  const before = (await statusOf(statusPort))[2]?.total ?? 0;
  const backMs = await until(statusPort, "node3 to be back", (nodes) => (nodes[2]?.total ?? 0) > before);
  say(
    `  ${backMs.toFixed(0)} ms after it listens it gets requests again (a check every ${INTERVAL_S * 1000} ms)`,
  );
  await load.end();
  show(await statusOf(statusPort));
  return backMs;
}

async function oneByOne(port: number, statusPort: number): Promise<void> {
  say("Six requests on one connection, by turns at three nodes:");
  await using connection = await connect({ host: "127.0.0.1", port });
  for (let i = 0; i < 6; i++) {
    const { status } = await get(connection, "/");
    expect(status === 200, `status ${status}`);
  }
  const nodes = await statusOf(statusPort);
  show(nodes);
  expect(
    nodes.every(({ total }) => total === 2),
    "two requests for each node",
  );
}

await program({
  summary:
    "Shows the load balancer over three nodes, one of which is killed and comes back, in one terminal.",
  example: "",
  settings: { port: setting(port, "port of the balancer (0 = any free ones for all)", 0) },
  async run({ port }) {
    const ports = port === 0 ? [0, 0, 0] : DEMO_NODE_PORTS;
    await using one = await start(SERVER, ["--port", ports[0] ?? 0]);
    await using two = await start(SERVER, ["--port", ports[1] ?? 0]);
    await using three = await start(SERVER, ["--port", ports[2] ?? 0]);
    const nodes = [one, two, three];
    const backends = nodes.flatMap((node) => ["--backend", `127.0.0.1:${node.port}`]);
    const options = ["--port", port, "--status-port", 0, "--health-interval", INTERVAL_S];
    await using balancer = await start(BALANCER, [...options, ...backends], { servers: 2 });
    const statusPort = Number(balancer.urls[1]?.split(":").at(-1));
    say(
      `The balancer listens on ${balancer.urls[0]}, its nodes on ${nodes.map(({ port }) => port).join(", ")}.`,
    );
    await oneByOne(balancer.port, statusPort);
    const { many, pauseMs } = port === 0 ? CLIENTS : GENTLE;
    const load = new Load(balancer.port, many, pauseMs);
    const backMs = await killAndReturn(three, three.port, statusPort, load);
    expect(load.failures.length === 0, `${load.failures.length} requests failed: ${load.failures[0]}`);
    expect(backMs < 2 * INTERVAL_S * 1000, `node3 is back after ${backMs} ms`);
    expect((await balancer.stop()) === 0, "the balancer's end");
    say(`result: kill -9 of a node, and its return | 0 of ${load.answers.toLocaleString("en")} failed`);
  },
});
