/** How long a file takes to two replicas, beside lsyncd and rsync; what fsync and a majority cost; how long until a new master. */
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { integer, setting } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { type Contender, compare, median, ROUNDS, standingsTable } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { isInstalled, Running, runTool } from "../../shared/running.ts";
import { LocalCluster } from "./local-cluster.ts";

const PATIENCE_MS = 120_000;
/** Node 1 stays master, however busy the machine: its directory is written to. */
const STEADY = ["--election-ms", "30000"];

/** A directory, and where all that is written to it must appear. */
interface Pair {
  from: string;
  to: readonly string[];
}
let round = 0;

/** Milliseconds until `done`, looked at each turn of the event loop or every millisecond. */
async function timed(done: () => boolean, what = ""): Promise<number> {
  const startMs = performance.now();
  while (!done()) {
    if (performance.now() - startMs > PATIENCE_MS) throw new Failure(`it does not arrive (${what})`);
    await delay(1);
  }
  return performance.now() - startMs;
}
const sizeOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.size ?? -1;

async function oneFile({ from, to }: Pair): Promise<number> {
  const name = `one-${round++}`;
  const content = Buffer.alloc(4096, name);
  writeFileSync(join(from, name), content);
  const ms = await timed(() => to.every((dir) => sizeOf(join(dir, name)) === content.length));
  for (const dir of to)
    if (!readFileSync(join(dir, name)).equals(content)) throw new Failure(`${name} differs`);
  return ms;
}

async function manyFiles({ from, to }: Pair, count: number): Promise<number> {
  const name = `many-${round++}`;
  mkdirSync(join(from, name));
  const startMs = performance.now();
  for (let i = 0; i < count; i++) writeFileSync(join(from, name, `${i}`), Buffer.alloc(4096, `${i} `));
  const isWhole = (dir: string) => {
    const there = join(dir, name);
    return sizeOf(there) >= 0 && readdirSync(there).filter((file) => !file.startsWith(".")).length === count;
  };
  await timed(() => to.every(isWhole), `${name} from ${from}`);
  const ms = performance.now() - startMs;
  await delay(200);
  for (const dir of to)
    for (let i = 0; i < count; i++)
      if (sizeOf(join(dir, name, `${i}`)) !== 4096) throw new Failure(`${name}/${i} is not whole`);
  return ms;
}

async function oneLarge({ from, to }: Pair, mebibytes: number): Promise<number> {
  const name = `large-${round++}`;
  const block = Buffer.alloc(1024 * 1024);
  for (let i = 0; i < block.length; i++) block[i] = (i * 2654435761) >>> 13;
  const whole = join(from, "..", name);
  writeFileSync(whole, Buffer.concat(Array.from({ length: 64 }, () => block)));
  const { code } = await runTool("sh", [
    "-c",
    `for i in $(seq ${mebibytes / 64}); do cat ${whole}; done > ${join(from, name)}`,
  ]);
  if (code !== 0) throw new Failure("cannot write the large file");
  const ms = await timed(() => to.every((dir) => sizeOf(join(dir, name)) === mebibytes * 1024 * 1024));
  const digest = (path: string) =>
    createHash("sha256")
      .update(readFileSync(path).subarray(0, 64 * 1024 * 1024))
      .digest("hex");
  if (mebibytes <= 1024)
    for (const dir of to)
      if (digest(join(dir, name)) !== digest(join(from, name))) throw new Failure("it differs");
  for (const path of [whole, join(from, name)]) rmSync(path);
  await timed(() => to.every((dir) => sizeOf(join(dir, name)) < 0));
  return ms;
}

/** lsyncd calls rsync for each target, as fast as it can be told to (delay 0). */
async function lsyncd(folder: string): Promise<{ pair: Pair; running: Running }> {
  const from = join(folder, "from");
  const to = [1, 2].map((i) => join(folder, `to${i}`));
  for (const dir of [from, ...to]) mkdirSync(dir, { recursive: true });
  const config = join(folder, "lsyncd.lua");
  const syncs = to.map(
    (target) =>
      `sync { default.rsync, source = "${from}", target = "${target}", delay = 0, rsync = { archive = true } }`,
  );
  writeFileSync(
    config,
    `settings { nodaemon = true, inotifyMode = "CloseWrite or Modify" }\n${syncs.join("\n")}\n`,
  );
  const running = new Running("lsyncd", [config], {});
  writeFileSync(join(from, "first"), "x");
  await timed(() => to.every((dir) => sizeOf(join(dir, "first")) === 1));
  return { pair: { from, to }, running };
}

const pairOf = ({ nodes }: LocalCluster): Pair => ({
  from: nodes[0]?.dir ?? "",
  to: nodes.slice(1).map(({ dir }) => dir),
});

async function failover(): Promise<number> {
  await using cluster = await LocalCluster.start(2);
  await using remote = cluster.remote({ patienceMs: 30_000 });
  await remote.do("touch", "before");
  const startMs = performance.now();
  await cluster.kill(cluster.node(1));
  await remote.do("touch", "after");
  return performance.now() - startMs;
}

async function acknowledged(cluster: LocalCluster): Promise<number> {
  await using remote = cluster.remote();
  await remote.do("touch", "warm");
  const times: number[] = [];
  for (let i = 0; i < 30; i++) {
    const startMs = performance.now();
    await remote.write(`a${i}`, async function* () {
      yield Buffer.alloc(4096, i);
    });
    times.push(performance.now() - startMs);
  }
  return median(times);
}

await program({
  summary:
    "Measures how long files take to two replicas, beside lsyncd and rsync, and how long it takes to a new master.",
  example: "--rounds 3 --large 256",
  settings: {
    rounds: ROUNDS,
    large: setting(integer(64, 65_536), "MiB of the large file, a multiple of 64", 1024),
  },
  async run({ rounds, large }, { log }) {
    const folder = mkdtempSync(join(tmpdir(), "netlab-lsyncd-"));
    await using quick = await LocalCluster.start(2, { args: ["--unsynced", ...STEADY] });
    await using safe = await LocalCluster.start(2, { args: STEADY });
    const hasPeer = isInstalled("lsyncd") && isInstalled("rsync");
    if (!hasPeer) log("missing: lsyncd and rsync, so there is nothing beside it");
    const peer = hasPeer ? await lsyncd(folder) : undefined;
    const jobs: [string, number, (pair: Pair) => Promise<number>][] = [
      ["one file of 4 KiB", rounds, oneFile],
      ["1,000 files of 4 KiB", rounds, (pair) => manyFiles(pair, 1000)],
      [`one file of ${large} MiB`, Math.min(rounds, 3), (pair) => oneLarge(pair, large)],
    ];
    try {
      for (const [title, times, job] of jobs) {
        const contenders: Contender[] = [{ name: "ours, --unsynced", run: () => job(pairOf(quick)) }];
        if (peer !== undefined) contenders.push({ name: "lsyncd + rsync", run: () => job(peer.pair) });
        contenders.push({ name: "ours, fsync", run: () => job(pairOf(safe)) });
        process.stdout.write(
          `${standingsTable(title, "ms to both replicas", await compare(contenders, times))}\n\n`,
        );
      }
      const writes: Contender[] = [
        { name: "--unsynced", run: () => acknowledged(quick) },
        { name: "fsync", run: () => acknowledged(safe) },
      ];
      process.stdout.write(
        `${standingsTable("a client's write of 4 KiB", "ms until acknowledged", await compare(writes, rounds))}\n\n`,
      );
      const times: number[] = [];
      for (let i = 0; i < rounds; i++) times.push(await failover());
      process.stdout.write(
        `kill -9 of the master until the next acknowledged write: ${times.map((ms) => `${(ms / 1000).toFixed(1)} s`).join(", ")}\n`,
      );
    } finally {
      await peer?.running[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    }
  },
});
