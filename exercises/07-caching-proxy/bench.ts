/**
 * Hits of our proxy beside those of others under the same load: wrk with 64 connections that stay open, one process each,
 * requests a second. Before each run the object is fetched through the peer and compared; during it, the origin must not be
 * asked by those that cache, and wrk must count no error.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { integer, setting } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { freePort } from "../../shared/free-port.ts";
import { nginxConfig, sha1, untilItAnswers, wrk } from "../../shared/http-load.ts";
import { type Contender, compare, ROUNDS, standingsTable } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { isInstalled, pinned, Running, runTool, start } from "../../shared/running.ts";

const CLIENTS = 64;
const OBJECTS: readonly [title: string, sizeBytes: number][] = [
  ["a hit of 1 KiB", 1024],
  ["a hit of 1 MiB, from the disk", 1024 * 1024],
];

interface Peer {
  name: string;
  running: Running;
  port: number;
  caches: boolean;
}

const originConfig = (folder: string, port: number) =>
  nginxConfig(folder, port, `root ${folder}/root; expires 1h;`, `access_log ${folder}/origin.log;`);
const proxyConfig = (folder: string, port: number, origin: number) =>
  nginxConfig(
    folder,
    port,
    `location / { proxy_pass http://127.0.0.1:${origin}; proxy_cache one; proxy_cache_valid 200 1h; }`,
    `access_log off; proxy_cache_path ${folder}/nginx-cache keys_zone=one:10m max_size=256m use_temp_path=off;`,
  );
const squidConfig = (folder: string, port: number) => `
http_port 127.0.0.1:${port}
http_access allow all
cache_dir ufs ${folder}/squid-cache 256 16 16
cache_mem 64 MB
maximum_object_size 64 MB
maximum_object_size_in_memory 256 KB
access_log none
cache_log ${folder}/squid.log
pid_filename none
shutdown_lifetime 0 seconds
coredump_dir ${folder}
pinger_enable off
`;
const tinyproxyConfig = (folder: string, port: number) => `
Port ${port}
Listen 127.0.0.1
Timeout 60
MaxClients 200
LogLevel Critical
LogFile "${folder}/tinyproxy.log"
`;

const fetchThrough = (port: number, url: string) =>
  runTool("curl", ["-s", "-f", "-x", `http://127.0.0.1:${port}`, url]);

/** Starts what says nothing when it is ready: asked for the page until it answers. */
async function startTool(
  name: string,
  command: readonly string[],
  port: number,
  url: string,
  caches = true,
): Promise<Peer> {
  const [file = "", ...args] = command;
  const running = new Running(file, args, {});
  await untilItAnswers(name, running, "-x", `http://127.0.0.1:${port}`, url);
  return { name, running, port, caches };
}

interface Setting {
  folder: string;
  pin: readonly string[];
  originPort: number;
  log: (line: string) => void;
}

/** Adds them to `peers` one by one, so that all that were started can be ended. */
async function startPeers(peers: Peer[], { folder, pin, originPort, log }: Setting): Promise<void> {
  const url = `http://127.0.0.1:${originPort}/index.html`;
  const configured = async (name: string, text: (port: number) => string) => {
    const port = await freePort();
    const config = join(folder, `${name}.conf`);
    writeFileSync(config, text(port));
    return { port, config };
  };
  const ours = await start(
    "exercises/07-caching-proxy/proxy.ts",
    ["--port", 0, "--cache-dir", join(folder, "ours")],
    { wrapper: pin },
  );
  peers.push({ name: "ours", running: ours, port: ours.port, caches: true });
  if (!isInstalled("squid")) log("missing: squid");
  else {
    const { port, config } = await configured("squid", (port) => squidConfig(folder, port));
    await runTool("squid", ["-N", "-z", "-f", config]);
    peers.unshift(await startTool("Squid", [...pin, "squid", "-N", "-f", config], port, url));
  }
  const { port, config } = await configured("nginx", (port) => proxyConfig(folder, port, originPort));
  peers.push(await startTool("nginx, proxy_cache", [...pin, "nginx", "-c", config], port, url));
  if (!isInstalled("tinyproxy")) log("missing: tinyproxy");
  else {
    const { port, config } = await configured("tinyproxy", (port) => tinyproxyConfig(folder, port));
    peers.push(
      await startTool(
        "tinyproxy, which does not cache",
        [...pin, "tinyproxy", "-d", "-c", config],
        port,
        url,
        false,
      ),
    );
  }
}

/** Requests a second. */
async function load(peer: Peer, url: string, { folder }: Setting, durationS: number): Promise<number> {
  const expected = readFileSync(join(folder, "root", new URL(url).pathname));
  for (let i = 0; i < 2; i++) {
    const { bytes } = await fetchThrough(peer.port, url);
    if (sha1(bytes) !== sha1(expected)) throw new Failure(`${peer.name} does not serve the object as it is`);
  }
  const asked = () => readFileSync(join(folder, "origin.log"), "utf8").split("\n").length;
  const before = asked();
  const script = join(folder, "absolute.lua");
  writeFileSync(script, `request = function() return wrk.format("GET", "${url}") end\n`);
  const where = `http://127.0.0.1:${peer.port}`;
  const { perSecond, errors, broken } = await wrk(CLIENTS, durationS, "-s", script, where);
  // tinyproxy closes after each answer, which wrk counts as an error.
  if (errors + (peer.caches ? broken : 0) > 0)
    throw new Failure(`${peer.name} failed: ${errors} errors, ${broken} connections`);
  if (peer.caches && asked() !== before)
    throw new Failure(`${peer.name} asked the origin: these are no hits`);
  return perSecond;
}

await program({
  summary: "Measures hits of the caching proxy beside Squid, nginx and tinyproxy, with wrk.",
  example: "--rounds 5",
  settings: {
    rounds: ROUNDS,
    duration: setting(integer(1, 60), "seconds of each run", 1),
  },
  async run({ rounds, duration }, { log }) {
    for (const tool of ["wrk", "curl", "nginx"])
      if (!isInstalled(tool)) throw new Failure(`cannot measure: ${tool} is missing`);
    // Under /tmp and open to all: the workers of nginx and Squid are other users.
    const folder = mkdtempSync(join(tmpdir(), "netlab-proxy-bench-"));
    mkdirSync(join(folder, "root"));
    await runTool("chmod", ["777", folder]);
    writeFileSync(join(folder, "root/index.html"), "x");
    for (const [, sizeBytes] of OBJECTS)
      writeFileSync(join(folder, `root/${sizeBytes}.bin`), randomBytes(sizeBytes));
    const peers: Peer[] = [];
    try {
      const originPort = await freePort();
      writeFileSync(join(folder, "origin.conf"), originConfig(folder, originPort));
      const command = ["nginx", "-c", join(folder, "origin.conf")];
      const origin = await startTool(
        "the origin",
        command,
        originPort,
        `http://127.0.0.1:${originPort}/index.html`,
      );
      peers.push(origin);
      const where: Setting = { folder, pin: pinned(1), originPort, log };
      const contestants: Peer[] = [];
      try {
        await startPeers(contestants, where);
      } finally {
        peers.push(...contestants);
      }
      for (const [title, sizeBytes] of OBJECTS) {
        log(`${title} …`);
        const url = `http://127.0.0.1:${originPort}/${sizeBytes}.bin`;
        const contenders = contestants.map(
          (peer): Contender => ({ name: peer.name, run: () => load(peer, url, where, duration) }),
        );
        const standings = await compare(contenders, rounds);
        process.stdout.write(
          `${standingsTable(`${title}, ${CLIENTS} connections`, "requests/s", standings)}\n\n`,
        );
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
