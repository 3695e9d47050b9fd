/**
 * Our server beside others under the same load: wrk with 64 connections that stay open, one server process, requests
 * a second, and on Linux the server's CPU time for a request. Before each run the file is fetched and compared,
 * after it wrk's count of errors must be none.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { integer, setting } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { freePort } from "../../shared/free-port.ts";
import { nginxConfig, sha1, untilItAnswers, wrk } from "../../shared/http-load.ts";
import { type Contender, compare, median, ROUNDS, standingsTable } from "../../shared/measure.ts";
import { program, projectFile } from "../../shared/program.ts";
import { cpuTimeMs, isInstalled, pinned, Running, runTool, start } from "../../shared/running.ts";

const CLIENTS = 64;
const FILES: readonly [name: string, sizeBytes: number][] = [
  ["1 KiB", 1024],
  ["1 MiB", 1024 * 1024],
];

interface Peer {
  name: string;
  running: Running;
  port: number;
  /** User and system, in µs for a request, of each run; empty where there is no /proc. */
  cpuUs: number[];
}

function cpuTable(title: string, peers: readonly Peer[]): string {
  const rows = peers.map(({ name, cpuUs }) => `| ${name} | ${median(cpuUs).toPrecision(3)} |`);
  return [`| ${title} | µs of CPU time for a request, median |`, "|---|---|", ...rows].join("\n");
}

/** The way that one writes a file server with Node's own HTTP: a `stat` on each request, a stream of the file. */
const NODE_HTTP = `
const { createReadStream, stat } = require("node:fs");
const { createServer } = require("node:http");
createServer((request, response) => {
  const path = process.argv[1] + request.url;
  stat(path, (error, stats) => {
    if (error) return response.writeHead(404).end();
    response.writeHead(200, { "Content-Length": stats.size, "Last-Modified": stats.mtime.toUTCString() });
    createReadStream(path).pipe(response);
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
`;
const PYTHON = `
import functools, http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
handler = functools.partial(Handler, directory=sys.argv[1])
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), handler).serve_forever()
`;

/** A program that says nothing when it is ready: asked until it answers. */
async function startTool(name: string, command: (port: number) => readonly string[]): Promise<Peer> {
  const port = await freePort();
  const [file = "", ...args] = command(port);
  const running = new Running(file, args, {});
  await untilItAnswers(name, running, `http://127.0.0.1:${port}/index.html`);
  return { name, running, port, cpuUs: [] };
}

/** Adds them to `peers` one by one, so that all that were started can be ended. */
async function startPeers(
  peers: Peer[],
  folder: string,
  pin: readonly string[],
  log: (line: string) => void,
): Promise<void> {
  const root = join(folder, "root");
  const nginx = async (name: string, cache: string) => {
    if (!isInstalled("nginx")) return log(`missing: ${name}`);
    const config = join(folder, `${name}.conf`);
    const peer = await startTool(name, (port) => {
      writeFileSync(config, nginxConfig(folder, port, `root ${folder}/root;`, `access_log off; ${cache}`));
      return [...pin, "nginx", "-c", config];
    });
    peers.push(peer);
  };
  await nginx("nginx", "");
  await nginx("nginx, open_file_cache", "open_file_cache max=1000; open_file_cache_valid 1s;");
  const ours = async (name: string, ...args: (string | number)[]) => {
    const running = await start(
      "exercises/06-http-server/server.ts",
      ["--port", 0, "--root", root, ...args],
      {
        wrapper: pin,
      },
    );
    peers.push({ name, running, port: running.port, cpuUs: [] });
  };
  await ours("ours");
  await ours("ours, --file-cache 1", "--file-cache", 1);
  peers.push(
    await startTool("node:http, stat and stream", (port) => [
      ...pin,
      process.execPath,
      "-e",
      NODE_HTTP,
      root,
      String(port),
    ]),
  );
  if (!isInstalled("python3")) log("missing: python3");
  else {
    peers.push(
      await startTool("Python http.server", (port) => [...pin, "python3", "-c", PYTHON, root, String(port)]),
    );
  }
  const httpServer = projectFile("node_modules/http-server/bin/http-server");
  if (!existsSync(httpServer)) log("missing: npm http-server");
  else {
    peers.push(
      await startTool("npm http-server", (port) => [
        ...pin,
        process.execPath,
        httpServer,
        root,
        "-s",
        "-p",
        String(port),
        "-a",
        "127.0.0.1",
      ]),
    );
  }
}

async function load(peer: Peer, file: string, content: Buffer, durationS: number): Promise<number> {
  const url = `http://127.0.0.1:${peer.port}/${file}`;
  const { bytes } = await runTool("curl", ["-s", url]);
  if (sha1(bytes) !== sha1(content)) throw new Failure(`${peer.name} does not serve the file as it is`);
  const cpuBeforeMs = cpuTimeMs(peer.running.child.pid);
  const { requests, perSecond, errors, broken } = await wrk(CLIENTS, durationS, url);
  const cpuUs = 1000 * (cpuTimeMs(peer.running.child.pid) - cpuBeforeMs);
  if (errors + broken > 0) throw new Failure(`${peer.name} failed: ${errors} errors, ${broken} connections`);
  if (cpuUs > 0) peer.cpuUs.push(cpuUs / requests);
  return perSecond;
}

await program({
  summary: "Measures the web server beside nginx, node:http and Python, with wrk.",
  example: "--rounds 5",
  settings: {
    rounds: ROUNDS,
    duration: setting(integer(1, 60), "seconds of each run", 1),
  },
  async run({ rounds, duration }, { log }) {
    for (const tool of ["wrk", "curl"])
      if (!isInstalled(tool)) throw new Failure(`cannot measure: ${tool} is missing`);
    // Under /tmp and readable by all: nginx's worker is another user.
    const folder = mkdtempSync(join(tmpdir(), "netlab-http-bench-"));
    const root = join(folder, "root");
    mkdirSync(root);
    await runTool("chmod", ["755", folder]);
    writeFileSync(join(root, "index.html"), "x");
    const peers: Peer[] = [];
    try {
      await startPeers(peers, folder, pinned(1), log);
      for (const [title, sizeBytes] of FILES) {
        log(`${title} …`);
        const file = `file-${sizeBytes}.bin`;
        writeFileSync(join(root, file), randomBytes(sizeBytes));
        const content = readFileSync(join(root, file));
        const contenders = peers.map(
          (peer): Contender => ({
            name: peer.name,
            run: () => load(peer, file, content, duration),
          }),
        );
        const standings = await compare(contenders, rounds);
        process.stdout.write(
          `${standingsTable(`${title}, ${CLIENTS} connections`, "requests/s", standings)}\n\n`,
        );
        if (peers.some(({ cpuUs }) => cpuUs.length > 0))
          process.stdout.write(`${cpuTable(`${title}, ${CLIENTS} connections`, peers)}\n\n`);
        for (const { cpuUs } of peers) cpuUs.splice(0);
      }
    } finally {
      for (const { running } of peers) {
        running.kill("SIGTERM"); // nginx's worker goes with its master
        await running.exited;
      }
      rmSync(folder, { recursive: true });
    }
  },
});
