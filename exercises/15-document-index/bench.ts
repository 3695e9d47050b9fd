/** How soon nodes know each other, what an idle network costs, and six nodes of 10,000 documents each. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { flag } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { type Contender, compare, median, ROUNDS, standingsTable } from "../../shared/measure.ts";
import { namespacesMissing } from "../../shared/namespaces.ts";
import { program } from "../../shared/program.ts";
import { cpuTimeMs, isInstalled, runTool } from "../../shared/running.ts";
import { type LocalNode, LocalSegment } from "./local-segment.ts";
import { Simulation } from "./simulator.ts";
import { Switch } from "./switch.ts";

const DOCUMENTS = 10_000;
const NODES = 6;
const IDLE_MS = 20_000;
const POLL_MS = 10;

const say = (line: string) => void process.stdout.write(`${line}\n`);
const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;

/** Until each node knows of so many documents. */
async function allKnow(nodes: readonly LocalNode[], documents: number): Promise<void> {
  const count = async (node: LocalNode) =>
    (await node.nodes()).reduce((sum, { documents }) => sum + documents, 0);
  await Promise.all(
    nodes.map((node) =>
      node.until(
        () => count(node),
        (sum) => sum === documents,
        "all documents",
      ),
    ),
  );
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  while (!(await isSo())) await delay(POLL_MS);
}

/** From when a newcomer listens until it and all others know each other, in milliseconds. */
async function discovery(rounds: number): Promise<number[]> {
  await using segment = await LocalSegment.open();
  const nodes = await Promise.all(["a", "b", "c", "d", "e"].map((name) => segment.start(name)));
  await Promise.all(nodes.map((node) => node.seesNodes(nodes.length)));
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const newcomer = await segment.start("newcomer");
    const beginMs = performance.now();
    const sees = (node: LocalNode) => until(async () => (await node.nodes()).length === nodes.length + 1);
    await Promise.all([...nodes, newcomer].map(sees));
    times.push(performance.now() - beginMs);
    await newcomer.running.stop();
    await Promise.all(nodes.map((node) => node.seesNodes(nodes.length)));
  }
  return times;
}

/** Bytes a second that a host with one node sends, on all its networks; three hosts that have nothing to say. */
async function idleCost(): Promise<number> {
  await using net = await Switch.open(3);
  await using segment = await LocalSegment.open(8000);
  const nodes = await Promise.all(
    [0, 1, 2].map((host) =>
      segment.start(`h${host}`, { wrapper: net.wrapper(host), args: ["--host", "0.0.0.0"] }),
    ),
  );
  await Promise.all(nodes.map((node) => node.seesNodes(3)));
  const before = await net.sentBytes(0);
  await delay(IDLE_MS);
  return ((await net.sentBytes(0)) - before) / (IDLE_MS / 1000);
}

async function makeDocuments(folder: string, seed: number, count = DOCUMENTS): Promise<void> {
  for (let i = 0; i < count; i++) {
    if (i % 1000 === 0) await mkdir(join(folder, `${i / 1000}`), { recursive: true });
    await writeFile(
      join(folder, `${Math.floor(i / 1000)}`, `document-${i}.txt`),
      `${seed} ${i} ${"x".repeat(i % 2000)}\n`,
    );
  }
}

/** From the start of six programs until each has the index of all: 60,000 documents. */
async function sixNodes(folders: readonly string[]): Promise<{ wallMs: number; cpuMs: number }> {
  await using segment = await LocalSegment.open();
  const beginMs = performance.now();
  const nodes = await Promise.all(folders.map((folder, i) => segment.start(`n${i}`, { folder })));
  await allKnow(nodes, folders.length * DOCUMENTS);
  const cpuMs = nodes.reduce((sum, { running }) => sum + cpuTimeMs(running.child.pid), 0);
  return { wallMs: performance.now() - beginMs, cpuMs };
}

/** From a program's start until another one, which has no documents, knows all of its. */
async function oneIndex(folder: string, documents = DOCUMENTS): Promise<number> {
  await using segment = await LocalSegment.open();
  const other = await segment.start("other");
  const beginMs = performance.now();
  await segment.start("one", { folder });
  await allKnow([other], documents);
  return performance.now() - beginMs;
}

/** A shell's way to the same list, without the network. */
async function checksums(folder: string): Promise<number> {
  const beginMs = performance.now();
  const { stdout } = await runTool("sh", ["-c", `find "${folder}" -type f -print0 | xargs -0 sha256sum`]);
  if (stdout.split("\n").length !== DOCUMENTS + 1) throw new Failure("sha256sum did not read all");
  return performance.now() - beginMs;
}

/** What rsync does to see that two folders have the same contents. */
async function rsyncChecksums(folder: string): Promise<number> {
  const beginMs = performance.now();
  const { code, stdout } = await runTool("rsync", ["-rnc", "--stats", `${folder}/`, `${folder}/`]);
  if (code !== 0 || !/Number of files: 10,0\d\d/.test(stdout)) throw new Failure("rsync did not read all");
  return performance.now() - beginMs;
}

/** All start at once, in the simulator: a datagram takes up to 20 ms, and is counted once for each who hears it. */
function simulated(nodes: number): string {
  const simulation = new Simulation(1);
  for (let i = 0; i < nodes; i++) simulation.start(`n${i}`);
  while (simulation.nodes.some(({ membership }) => membership.members.length < nodes - 1))
    simulation.run(simulation.nowMs + 5);
  const knownMs = simulation.nowMs;
  const beginning = simulation.datagrams / nodes;
  simulation.run(10_000);
  const before = simulation.datagrams;
  simulation.run(20_000);
  const idle = (simulation.datagrams - before) / nodes / 10;
  return `| ${nodes} | ${knownMs} ms | ${beginning.toFixed(0)} | ${idle.toFixed(1)} |`;
}

async function growth(directory: string): Promise<void> {
  say(
    "| nodes that start at once | all know all after | announcements each has heard by then | and hears a second, idle |",
  );
  say("|---|---|---|---|");
  for (const nodes of [6, 12, 25, 50]) say(simulated(nodes));
  say("\n| documents | a node's start until another one knows all |\n|---|---|");
  for (const documents of [1000, 10_000, 100_000]) {
    const folder = join(directory, `${documents}`);
    await makeDocuments(folder, 0, documents);
    say(`| ${documents.toLocaleString("en")} | ${seconds(await oneIndex(folder, documents))} |`);
  }
}

await program({
  summary: "Measures discovery, an idle network, and indexes of 10,000 documents.",
  example: "",
  settings: { rounds: ROUNDS, grow: flag("measures what grows with nodes and documents, and nothing else") },
  async run({ rounds, grow }, { log }) {
    const directory = await mkdtemp(join(tmpdir(), "netlab-15-bench-"));
    try {
      if (grow) return await growth(directory);
      const times = await discovery(rounds);
      say(
        `discovery, a sixth node: median ${Math.round(median(times))} ms, at most ${Math.round(Math.max(...times))} ms`,
      );
      const missing = namespacesMissing();
      if (missing === undefined) {
        const bytes = await idleCost();
        say(
          `idle, each of three hosts: ${Math.round(bytes)} bytes a second on loopback and network together\n`,
        );
      } else log(`the idle network is not measured: ${missing}`);
      const folders = Array.from({ length: NODES }, (_, i) => join(directory, `${i}`));
      for (const [i, folder] of folders.entries()) await makeDocuments(folder, i);
      const [first = ""] = folders;
      const contenders: Contender[] = [
        { name: "sha256sum of them all", run: () => checksums(first) },
        { name: "a node: start, hash, tell another one", run: () => oneIndex(first) },
      ];
      if (isInstalled("rsync")) contenders.push({ name: "rsync -rnc", run: () => rsyncChecksums(first) });
      else log("missing: rsync");
      say(`${standingsTable("10,000 documents", "ms", await compare(contenders, rounds))}\n`);
      for (let round = 0; round < 3; round++) {
        const { wallMs, cpuMs } = await sixNodes(folders);
        say(
          `6 nodes × 10,000 documents: everybody has 60,000 after ${seconds(wallMs)}, ${seconds(cpuMs)} of CPU`,
        );
      }
    } finally {
      await rm(directory, { recursive: true });
    }
  },
});
