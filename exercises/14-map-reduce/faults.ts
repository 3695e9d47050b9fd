/**
 * Seeded schedules of faults: a job runs, and at drawn times nodes are killed, stopped, started again and cut off. At its end
 * the output must be exact, or there must be none and a reason. The same seed draws the same schedule.
 */
import { strict as assert } from "node:assert";
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { randomOf } from "../../shared/random.ts";
import { type Fault as LinkFault, type Relay, tcpRelay, within } from "../../shared/testing.ts";
import type { LocalCluster } from "./local-cluster.ts";

/** One that no fault touches, so that a job with a reducer and a master can always be done. */
const SAFE = "mapper1";
const MAX_FAULTS = 4;
const LIMIT_MS = 120_000;
const KINDS = ["kill", "stop", "reset", "stall"] as const;

interface Fault {
  /** After the job's begin. */
  atMs: number;
  /** Until it is started, continued, or its link mended again. */
  forMs: number;
  kind: (typeof KINDS)[number];
  /** A mapper, the reducer, or the master. A link is the one in front of a node. */
  node: string;
}

interface Schedule {
  seed: number;
  silenceMs: number;
  faults: Fault[];
  /** Must the job be done in spite of them? Else it may also fail, with a reason and without an output. */
  mustSucceed: boolean;
}

/** A job of about `jobMs` meets its faults in that time. */
export function scheduleOf(
  seed: number,
  mappers: readonly string[],
  jobMs: number,
  silenceMs: number,
): Schedule {
  const random = randomOf(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const victims = mappers.filter((name) => name !== SAFE);
  const faults = Array.from({ length: 1 + below(MAX_FAULTS) }, (): Fault => {
    const fatal = random() < 0.15;
    const node = fatal ? (random() < 0.5 ? "reducer" : "master") : (victims[below(victims.length)] ?? SAFE);
    const kinds = node === "master" ? (["kill", "stop"] as const) : KINDS;
    const kind = kinds[below(kinds.length)] ?? "kill";
    return { atMs: below(jobMs), forMs: below(2 * silenceMs), kind, node };
  }).sort((a, b) => a.atMs - b.atMs);
  // A link to the reducer is everybody's way to it; a reset of it ends the master's job.
  const mustSucceed = faults.every(({ node }) => node !== "reducer" && node !== "master");
  return { seed, silenceMs, faults, mustSucceed };
}

export const shown = ({ faults }: Schedule) =>
  faults.map(({ atMs, forMs, kind, node }) => `${atMs} ms: ${kind} ${node} for ${forMs} ms`).join("; ");

/** No wrong count, but none where there must be one: also what comes of a machine so busy that a node without a fault is silent. */
export class NotCounted extends Error {}

/** A cluster behind links that can be cut, for one schedule after the other. */
export class FaultyCluster implements AsyncDisposable {
  readonly cluster: LocalCluster;
  readonly #relays: Relay[] = [];
  /** The links that are cut, and how: both ends are told, or nobody is. */
  readonly #cut = new Map<string, "reset" | "stall">();
  readonly #killed = new Set<string>();
  #runs = 0;

  private constructor(cluster: LocalCluster) {
    this.cluster = cluster;
  }

  static async of(cluster: LocalCluster): Promise<FaultyCluster> {
    const faulty = new FaultyCluster(cluster);
    const ports = new Map<string, number>();
    for (const [name, { port }] of cluster.addresses) {
      const relay = await tcpRelay(port, faulty.#linkTo(name));
      faulty.#relays.push(relay);
      ports.set(name, relay.port);
    }
    await cluster.configure(ports);
    return faulty;
  }

  #linkTo =
    (name: string): LinkFault =>
    (chunk) => {
      const outcome = this.#cut.get(name);
      return outcome === undefined ? { pieces: [chunk] } : { pieces: [], outcome };
    };

  /** Runs it, checks what must hold at its end, and leaves all nodes running. Returns what came of the job. */
  async run(schedule: Schedule, text: string, expected: Buffer): Promise<"counted" | "failed" | "killed"> {
    const out = this.cluster.file(`out-${this.#runs++}.txt`);
    const master = await this.cluster.master(text, out, ["--silence", schedule.silenceMs]);
    const ended = new AbortController();
    const faults = Promise.all(
      schedule.faults.map((fault) =>
        this.#inflict(fault, (signal) => void master.kill(signal), ended.signal),
      ),
    );
    faults.catch(() => {}); // it is waited for below
    const { code, signal } = await within(master.exited, `the master's end: ${master.stderr}`, LIMIT_MS);
    ended.abort();
    await faults;
    const story = `seed ${schedule.seed} (${shown(schedule)}): exit code ${code}, ${master.stderr}`;
    if (code === 0) {
      assert.ok(existsSync(out) && readFileSync(out).equals(expected), `the count is wrong: ${story}`);
      return "counted";
    }
    assert.ok(!existsSync(out), `there is an output of a job that failed: ${story}`);
    if (schedule.mustSucceed) throw new NotCounted(`the job failed though a mapper lived: ${story}`);
    if (signal === "SIGKILL") return "killed";
    assert.match(master.stderr, /^error: .+\n$/m, story);
    return "failed";
  }

  async #inflict(
    { atMs, forMs, kind, node }: Fault,
    toMaster: (signal: NodeJS.Signals) => void,
    ended: AbortSignal,
  ): Promise<void> {
    // When the job has ended, what is broken is mended at once, and nothing else is broken.
    const pause = (ms: number) => delay(ms, undefined, { signal: ended }).catch(() => {});
    await pause(atMs);
    if (ended.aborted) return;
    if (node === "master") {
      toMaster(kind === "kill" ? "SIGKILL" : "SIGSTOP");
      await pause(forMs);
      if (kind === "stop") toMaster("SIGCONT");
    } else if (kind === "kill") {
      if (this.#killed.has(node)) return; // another fault has it already, and starts it again
      this.#killed.add(node);
      this.cluster.node(node).kill("SIGKILL");
      await this.cluster.node(node).exited;
      await pause(forMs);
      await this.cluster.start(node);
      this.#killed.delete(node);
    } else if (kind === "stop") {
      const { child } = this.cluster.node(node);
      child.kill("SIGSTOP");
      await pause(forMs);
      child.kill("SIGCONT");
    } else {
      this.#cut.set(node, kind);
      await pause(forMs);
      this.#cut.delete(node);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const relay of this.#relays) await relay[Symbol.asyncDispose]();
    await this.cluster[Symbol.asyncDispose]();
  }
}
