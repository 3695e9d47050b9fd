/**
 * Schedules of faults against real processes: `kill -9`, SIGSTOP and SIGCONT, pulled cables, restarts, farewells, and
 * documents that come, change and go meanwhile. In the end every live node's listing must be the union of the live
 * folders. A schedule is made of its seed alone, and is run again by it:
 *
 *     npx tsx exercises/15-document-index/faults.ts --seed 17 --schedules 1
 */
import { createHash } from "node:crypto";
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { integer, setting } from "../../shared/config.ts";
import { explain, Failure } from "../../shared/errors.ts";
import { median } from "../../shared/measure.ts";
import { namespacesMissing } from "../../shared/namespaces.ts";
import { program } from "../../shared/program.ts";
import { randomOf } from "../../shared/random.ts";
import { type LocalNode, LocalSegment } from "./local-segment.ts";
import { Switch } from "./switch.ts";

const HOSTS = 4;
const ACTIONS = 16;
const CHAOS_MS = 5000;
const POLL_MS = 100;
/** Within which a segment without faults must agree. */
const CONVERGE_MS = 6000;

const KINDS = [
  "write",
  "write",
  "write",
  "remove",
  "kill",
  "leave",
  "start",
  "start",
  "stop",
  "go",
  "cut",
  "heal",
] as const;
interface Step {
  atMs: number;
  host: number;
  kind: (typeof KINDS)[number];
  path: string;
  content: string;
}

export function scheduleOf(seed: number, chaosMs = CHAOS_MS): Step[] {
  const random = randomOf(seed);
  const pick = (n: number) => Math.floor(random() * n);
  const steps = Array.from({ length: ACTIONS }, () => ({
    atMs: pick(chaosMs),
    host: pick(HOSTS),
    kind: KINDS[pick(KINDS.length)] ?? "write",
    path: `d${pick(4)}${pick(3) === 0 ? "/below" : ""}.txt`,
    content: `${pick(1000)}`.repeat(1 + pick(20_000)),
  }));
  return steps.sort((a, b) => a.atMs - b.atMs);
}

/** What stands in the folders, as a node would list it. */
async function unionOf(nodes: readonly LocalNode[]): Promise<string[]> {
  const lines = nodes.map(async ({ name, folder }) => {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile());
    return Promise.all(
      files.map(async ({ parentPath, name: file }) => {
        const path = join(parentPath, file);
        const sha256 = createHash("sha256")
          .update(await readFile(path))
          .digest("hex");
        return `${path.slice(folder.length + 1)} ${sha256} ${name}`;
      }),
    );
  });
  return (await Promise.all(lines)).flat().toSorted();
}

/** The hosts of a schedule, and what has become of their nodes. */
class Trial {
  readonly #segment: LocalSegment;
  readonly #switch: Switch | undefined;
  readonly #folders: string[] = [];
  readonly live = new Map<number, LocalNode>();
  readonly #stopped = new Set<number>();

  constructor(segment: LocalSegment, net: Switch | undefined) {
    this.#segment = segment;
    this.#switch = net;
  }

  async start(host: number): Promise<void> {
    const folder = this.#folders[host] ?? (await this.#segment.folder({ [`of-${host}.txt`]: `${host}` }));
    this.#folders[host] = folder;
    const wrapper = this.#switch && { wrapper: this.#switch.wrapper(host) };
    const args = this.#switch ? ["--host", "0.0.0.0"] : [];
    this.live.set(host, await this.#segment.start(`host-${host}`, { folder, args, ...wrapper }));
  }

  async step({ kind, host, path, content }: Step): Promise<void> {
    const node = this.live.get(host);
    if (kind === "cut" || kind === "heal") return this.#switch?.plug(host, kind === "heal");
    if (kind === "start") return node === undefined ? this.start(host) : undefined;
    if (node === undefined) return;
    if (kind === "write") return node.put(path, content).catch(() => {}); // its folder may be a document now
    if (kind === "remove") return rm(join(node.folder, path), { recursive: true, force: true });
    if (kind === "stop" || kind === "go") return this.#freeze(host, node, kind === "stop");
    if (this.#stopped.delete(host)) node.running.kill("SIGCONT");
    this.live.delete(host);
    node.running.kill(kind === "kill" ? "SIGKILL" : "SIGTERM");
    await node.running.exited;
  }

  #freeze(host: number, { running }: LocalNode, isStop: boolean): void {
    running.kill(isStop ? "SIGSTOP" : "SIGCONT");
    if (isStop) this.#stopped.add(host);
    else this.#stopped.delete(host);
  }

  /** Cables in, everybody goes on, and one more starts if nobody is left. */
  async heal(): Promise<void> {
    for (let host = 0; host < HOSTS; host++) await this.#switch?.plug(host, true);
    for (const host of [...this.#stopped]) this.#freeze(host, this.live.get(host) as LocalNode, false);
    if (this.live.size === 0) await this.start(0);
  }

  /** How long it takes until all agree, in milliseconds. */
  async converge(limitMs: number): Promise<number> {
    const nodes = [...this.live.values()];
    const expected = await unionOf(nodes);
    const beginMs = performance.now();
    const disagreeing = async (node: LocalNode) => {
      const [listing, seen] = await Promise.all([node.listing(), node.nodes()]);
      const agrees = seen.length === nodes.length && listing.join("\n") === expected.join("\n");
      return agrees ? [] : [`${node.name} lists\n${listing.join("\n")}\n${node.running.stderr}`];
    };
    while (true) {
      const wrong = (await Promise.all(nodes.map(disagreeing))).flat();
      const tookMs = performance.now() - beginMs;
      if (wrong.length === 0) return tookMs;
      if (tookMs > limitMs)
        throw new Failure(
          `no agreement after ${Math.round(tookMs)} ms on\n${expected.join("\n")}\n${wrong.join("\n")}`,
        );
      await delay(POLL_MS);
    }
  }
}

/** Runs one schedule; resolves to the time until all agreed, in milliseconds. Throws where they did not. */
export async function runSchedule(
  seed: number,
  hasSwitch: boolean,
  limitMs: number,
  chaosMs?: number,
): Promise<number> {
  await using net = hasSwitch ? await Switch.open(HOSTS) : undefined;
  // On a switch of its own nobody else is on the assignment's ports.
  await using segment = await LocalSegment.open(hasSwitch ? 8000 : undefined);
  const trial = new Trial(segment, net);
  await Promise.all(Array.from({ length: HOSTS }, (_, host) => trial.start(host)));
  const beginMs = performance.now();
  try {
    for (const step of scheduleOf(seed, chaosMs)) {
      await delay(Math.max(0, step.atMs - (performance.now() - beginMs)));
      await trial.step(step);
    }
    await trial.heal();
    return await trial.converge(limitMs);
  } catch (error) {
    throw new Failure(`seed ${seed}: the listings are not the union of the folders`, { cause: error });
  }
}

if (process.argv[1] === import.meta.filename) {
  await program({
    summary: "Runs schedules of faults against nodes as processes, and checks that all agree in the end.",
    example: "--seed 17 --schedules 1",
    settings: {
      seed: setting(integer(0), "seed of the first schedule; the others' follow it", 1),
      schedules: setting(integer(1), "how many", 10),
      parallel: setting(integer(1), "how many at a time", 2),
    },
    async run({ seed, schedules, parallel }, { log, signal }) {
      const missing = namespacesMissing();
      const hasSwitch = missing === undefined;
      log(
        hasSwitch
          ? "on hosts of their own, with cables to pull"
          : `on this machine, without cables: ${missing}`,
      );
      const seeds = Array.from({ length: schedules }, (_, i) => seed + i);
      const times: number[] = [];
      const failed: number[] = [];
      const work = async () => {
        for (let seed = seeds.shift(); seed !== undefined && !signal.aborted; seed = seeds.shift()) {
          await runSchedule(seed, hasSwitch, CONVERGE_MS).then(
            (ms) => times.push(ms),
            (error: unknown) => {
              failed.push(seed);
              log(explain(error));
            },
          );
          log(`${times.length} agreed, ${failed.length} did not`);
        }
      };
      await Promise.all(Array.from({ length: parallel }, work));
      const worst = Math.max(0, ...times);
      process.stdout.write(
        `schedules: ${times.length + failed.length}, agreed: ${times.length}; after a median of ${Math.round(median(times))} ms, ${Math.round(worst)} ms at most\n`,
      );
      if (failed.length > 0) throw new Failure(`these seeds failed: ${failed.join(" ")}`);
    },
  });
}
