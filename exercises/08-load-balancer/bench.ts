/**
 * Our balancer beside others under the same load: wrk with 64 connections that stay open, two nginx as nodes, one process
 * each. Before each run the file is fetched and compared, after it wrk's count of errors must be none. Then the algorithms
 * beside each other where one of three nodes is slow.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { integer, setting } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { freePort } from "../../shared/free-port.ts";
import { type Load, nginxConfig, sha1, untilItAnswers, wrk } from "../../shared/http-load.ts";
import { type Contender, compare, median, ROUNDS, standingsTable } from "../../shared/measure.ts";
import { program, projectFile } from "../../shared/program.ts";
import { cpuTimeMs, isInstalled, pinned, Running, runTool, start } from "../../shared/running.ts";
import { ALGORITHMS } from "./algorithms.ts";

const CLIENTS = 64;
const FILES: readonly [name: string, sizeBytes: number][] = [
  ["1 KiB", 1024],
  ["1 MiB", 1024 * 1024],
];
/** A node works on as many requests at once as it has cores, the others wait: here on one. */
const SERVICE_MS = [2, 2, 20];
const SLOW_CLIENTS = 12;

interface Peer {
  name: string;
  running: Running;
  port: number;
}

/** http-proxy as its README has it, with connections that stay open, round robin. */
const HTTP_PROXY = `
const { createProxyServer } = require(process.argv[1]);
const { Agent, createServer } = require("node:http");
const proxy = createProxyServer({ agent: new Agent({ keepAlive: true }) });
const targets = process.argv.slice(3).map((port) => "http://127.0.0.1:" + port);
let turn = 0;
createServer((request, response) => proxy.web(request, response, { target: targets[turn++ % targets.length] }))
  .listen(Number(process.argv[2]), "127.0.0.1");
`;
/** A node that works for so many milliseconds on a request, one after the other. */
const WORKER = `
const { createServer } = require("node:http");
const serviceMs = Number(process.argv[1]);
let free = Promise.resolve();
createServer((request, response) => {
  if (request.headers["user-agent"] === "netlab-balancer") return response.end();
  free = free.then(() => new Promise((done) => setTimeout(done, serviceMs))).then(() => response.end("x"));
}).listen(Number(process.argv[2]), "127.0.0.1");
`;

const haproxyConfig = (port: number, nodes: readonly number[]) => `
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:${port}
  default_backend nodes
backend nodes
  balance roundrobin
${nodes.map((node, i) => `  server node${i} 127.0.0.1:${node} check inter 2s`).join("\n")}
`;

/** Starts peers and nodes, and ends all that it has started. */
class Stage implements AsyncDisposable {
  readonly #started: Running[] = [];
  readonly folder = mkdtempSync(join(tmpdir(), "netlab-balancer-bench-"));

  async tool(name: string, core: number, command: (port: number) => readonly string[]): Promise<Peer> {
    const port = await freePort();
    const [file = "", ...args] = [...pinned(core), ...command(port)];
    const peer = { name, running: new Running(file, args, {}), port };
    this.#started.push(peer.running);
    await untilItAnswers(name, peer.running, `http://127.0.0.1:${port}/`);
    return peer;
  }

  nginx(name: string, core: number, server: string, http = ""): Promise<Peer> {
    return this.tool(name, core, (port) => {
      const path = join(this.folder, `nginx-${port}.conf`);
      writeFileSync(path, nginxConfig(this.folder, port, server, `access_log off; ${http}`));
      return ["nginx", "-c", path];
    });
  }

  async ours(name: string, nodes: readonly number[], args: readonly (string | number)[] = []): Promise<Peer> {
    const backends = nodes.flatMap((port) => ["--backend", `127.0.0.1:${port}`]);
    const running = await start(
      "exercises/08-load-balancer/balancer.ts",
      ["--port", 0, ...backends, ...args],
      {
        wrapper: pinned(1),
      },
    );
    this.#started.push(running);
    return { name, running, port: running.port };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const running of this.#started) {
      running.kill("SIGTERM"); // nginx's worker goes with its master
      await running.exited;
    }
    rmSync(this.folder, { recursive: true });
  }
}

async function startPeers(
  stage: Stage,
  nodes: readonly number[],
  log: (line: string) => void,
): Promise<Peer[]> {
  const peers: Peer[] = [];
  if (!isInstalled("haproxy")) log("missing: haproxy");
  else {
    const haproxy = await stage.tool("HAProxy", 1, (port) => {
      const path = join(stage.folder, "haproxy.cfg");
      writeFileSync(path, haproxyConfig(port, nodes));
      return ["haproxy", "-db", "-q", "-f", path];
    });
    peers.push(haproxy);
  }
  peers.push(await stage.ours("ours", nodes));
  const upstream = `upstream nodes { ${nodes.map((port) => `server 127.0.0.1:${port};`).join(" ")} keepalive 64; }`;
  const location = `location / { proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection ""; }`;
  peers.push(await stage.nginx("nginx", 1, location, upstream));
  const httpProxy = projectFile("node_modules/http-proxy");
  if (!existsSync(httpProxy)) log("missing: npm http-proxy (npm install --no-save http-proxy)");
  else {
    const script = ["node", "-e", HTTP_PROXY, httpProxy];
    peers.push(
      await stage.tool("npm http-proxy", 1, (port) => [...script, String(port), ...nodes.map(String)]),
    );
  }
  return peers;
}

interface BalancerLoad extends Load {
  /** Of the balancer, for one request. */
  cpuUs: number;
}

async function load(peer: Peer, path: string, clients: number, durationS: number): Promise<BalancerLoad> {
  const { pid } = peer.running.child;
  const beforeMs = cpuTimeMs(pid);
  const load = await wrk(clients, durationS, `http://127.0.0.1:${peer.port}/${path}`);
  const { requests, errors, broken } = load;
  if (errors + broken > 0) throw new Failure(`${peer.name} failed: ${errors} errors, ${broken} connections`);
  return { ...load, cpuUs: ((cpuTimeMs(pid) - beforeMs) / requests) * 1000 };
}

async function files(rounds: number, duration: number, log: (line: string) => void): Promise<void> {
  await using stage = new Stage();
  const root = join(stage.folder, "root");
  mkdirSync(root);
  writeFileSync(join(root, "index.html"), "x");
  await runTool("chmod", ["755", stage.folder]); // nginx's worker is another user
  const nodes = [
    (await stage.nginx("node", 0, `root ${root};`)).port,
    (await stage.nginx("node", 0, `root ${root};`)).port,
  ];
  const peers = await startPeers(stage, nodes, log);
  for (const [title, sizeBytes] of FILES) {
    log(`${title} …`);
    const content = randomBytes(sizeBytes);
    writeFileSync(join(root, "file.bin"), content);
    const cpu = new Map<string, number[]>(peers.map(({ name }) => [name, []]));
    const contenders = peers.map(
      (peer): Contender => ({
        name: peer.name,
        run: async () => {
          const { bytes } = await runTool("curl", ["-s", `http://127.0.0.1:${peer.port}/file.bin`]);
          if (sha1(bytes) !== sha1(content))
            throw new Failure(`${peer.name} does not pass the file on as it is`);
          const { perSecond, cpuUs } = await load(peer, "file.bin", CLIENTS, duration);
          cpu.get(peer.name)?.push(cpuUs);
          return perSecond;
        },
      }),
    );
    const standings = await compare(contenders, rounds);
    process.stdout.write(
      `${standingsTable(`${title}, ${CLIENTS} connections`, "requests/s", standings)}\n\n`,
    );
    const times = [...cpu].map(([name, us]) => `${name} ${median(us).toFixed(1)}`);
    process.stdout.write(`µs of CPU time a request, medians: ${times.join(", ")}\n\n`);
  }
}

/** Two nodes that take 2 ms for a request, one that takes 20: who gets how much of it done, and how late is the last? */
async function slowNode(rounds: number, duration: number, log: (line: string) => void): Promise<void> {
  log("one of three nodes is slow …");
  await using stage = new Stage();
  const nodes: number[] = [];
  for (const serviceMs of SERVICE_MS) {
    const node = await stage.tool("worker", 0, (port) => [
      "node",
      "-e",
      WORKER,
      String(serviceMs),
      String(port),
    ]);
    nodes.push(node.port);
  }
  const late = new Map<string, number[]>();
  const contenders: Contender[] = [];
  for (const algorithm of ALGORITHMS.filter((name) => name !== "ip-hash")) {
    const peer = await stage.ours(algorithm, nodes, ["--algorithm", algorithm]);
    late.set(algorithm, []);
    const run = async () => {
      const { perSecond, p99Ms } = await load(peer, "", SLOW_CLIENTS, duration);
      late.get(algorithm)?.push(p99Ms);
      return perSecond;
    };
    contenders.push({ name: algorithm, run });
  }
  const standings = await compare(contenders, rounds);
  process.stdout.write(
    `${standingsTable(`nodes of ${SERVICE_MS.join(", ")} ms, ${SLOW_CLIENTS} connections`, "requests/s", standings)}\n\n`,
  );
  const times = [...late].map(([name, ms]) => `${name} ${median(ms).toFixed(0)}`);
  process.stdout.write(
    `milliseconds that 99 % of the requests did not exceed, medians: ${times.join(", ")}\n`,
  );
}

await program({
  summary:
    "Measures the load balancer beside HAProxy, nginx and http-proxy, and its algorithms beside each other.",
  example: "--rounds 5",
  settings: {
    rounds: ROUNDS,
    duration: setting(integer(1, 60), "seconds of each run", 1),
  },
  async run({ rounds, duration }, { log }) {
    for (const tool of ["wrk", "curl", "nginx"])
      if (!isInstalled(tool)) throw new Failure(`cannot measure: ${tool} is missing`);
    await files(rounds, duration, log);
    await slowNode(rounds, duration, log);
  },
});
