/**
 * Schedules of faults, each from a seed: nodes are killed (-9), stopped and let go on, restarted, links between them are cut
 * and healed, while a client writes and another program writes into the master's directory. In the end all is mended,
 * and must hold: every acknowledged write is there, or what was written over it later; all trees are the same; no
 * term had two masters.
 *
 *     npx tsx exercises/12-replicated-fs/faults.ts --seed 1 --schedules 200
 */
import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { integer, setting } from "../../shared/config.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { program } from "../../shared/program.ts";
import { randomOf } from "../../shared/random.ts";
import { LocalCluster, type LocalNode } from "./local-cluster.ts";
import type { Remote } from "./remote.ts";

interface Outcome {
  acknowledged: number;
  unknown: number;
  masters: number;
  faults: string[];
}

/** What was written to a path, in order, and the last of it that was acknowledged; `undefined` is its removal. */
interface History {
  attempts: (string | undefined)[];
  acknowledged: number;
}

const FILES = 12;

class Schedule {
  readonly #random: () => number;
  readonly #cluster: LocalCluster;
  readonly #histories = new Map<string, History>();
  readonly faults: string[] = [];
  readonly #stopped = new Set<LocalNode>();
  acknowledged = 0;
  unknown = 0;
  #isOver = false;
  #hasFailed = false;

  constructor(seed: number, cluster: LocalCluster) {
    this.#random = randomOf(seed);
    this.#cluster = cluster;
  }

  async run(faultMs: number): Promise<void> {
    const writers = [this.#write(0), this.#write(1), this.#writeLocally()];
    for (const writer of writers)
      writer.catch(() => {
        this.#hasFailed = true; // it is waited for in the end
      });
    while (this.acknowledged === 0 && !this.#hasFailed) await delay(10); // there is something to lose
    const endMs = performance.now() + faultMs;
    while (performance.now() < endMs) {
      await delay(150 + this.#random() * 700);
      await this.#fault();
    }
    await this.#mend();
    this.#isOver = true;
    await Promise.all(writers);
    await using remote = this.#cluster.remote({ patienceMs: 60_000 });
    await remote.write("the-end", whole("the end")); // all that came before it is committed, or never will be
    await this.#cluster.same(this.#cluster.nodes, 60_000);
    this.#check();
  }

  #pick(): LocalNode {
    return this.#cluster.node(1 + Math.floor(this.#random() * this.#cluster.nodes.length));
  }

  async #fault(): Promise<void> {
    const node = this.#pick();
    const draw = this.#random();
    const note = (what: string) => this.faults.push(`${what} ${node.id}`);
    if (this.#stopped.has(node)) {
      note("continue");
      this.#stopped.delete(node);
      return void node.running?.kill("SIGCONT");
    }
    if (node.running === undefined) {
      note("restart");
      return this.#cluster.launch(node);
    }
    if (draw < 0.4) {
      note("kill");
      return this.#cluster.kill(node);
    }
    if (draw < 0.6) {
      note("stop");
      this.#stopped.add(node);
      return void node.running.kill("SIGSTOP");
    }
    if (draw < 0.85) {
      note("cut off");
      const others = this.#cluster.nodes.filter((other) => other !== node);
      node.gate?.cutFrom(others.map(({ id }) => id));
      if (this.#random() < 0.7) for (const other of others) other.gate?.cutFrom([node.id]);
      return;
    }
    note("heal");
    for (const { gate } of this.#cluster.nodes) gate?.cut.clear();
  }

  async #mend(): Promise<void> {
    for (const node of this.#cluster.nodes) {
      node.gate?.cut.clear();
      if (this.#stopped.has(node)) node.running?.kill("SIGCONT");
      if (node.running === undefined) await this.#cluster.launch(node);
    }
  }

  /** Each writer has paths of its own, so that what is written to a path has an order. */
  async #write(writer: number): Promise<void> {
    const random = randomOf(Math.floor(this.#random() * 2 ** 31));
    await using remote = this.#cluster.remote({ patienceMs: 2000 });
    for (let count = 0; !this.#isOver; count++) {
      const path = `w${writer}-${Math.floor(random() * FILES)}`;
      const history = this.#histories.get(path) ?? { attempts: [undefined], acknowledged: 0 };
      this.#histories.set(path, history);
      const isRemoval = random() < 0.15 && history.attempts.at(-1) !== undefined;
      // Some are too large for the log, and are fetched apart.
      const padding = random() < 0.2 ? "x".repeat(70_000 + Math.floor(random() * 200_000)) : "";
      const content = isRemoval ? undefined : `${writer} ${count} ${padding}`;
      const at = history.attempts.push(content) - 1;
      const outcome = await attempt(remote, path, content);
      if (outcome === "unknown") this.unknown++;
      if (outcome !== "done") continue;
      this.acknowledged++;
      history.acknowledged = at;
    }
  }

  /** Another program: what it does in the directory of whoever is master is no more than that, and must only not differ. */
  async #writeLocally(): Promise<void> {
    const random = randomOf(Math.floor(this.#random() * 2 ** 31));
    while (!this.#isOver) {
      await delay(100 + random() * 300);
      const master = [...this.#cluster.masters()].at(-1)?.[1] ?? 1;
      const name = `local-${Math.floor(random() * 5)}`;
      writeFileSync(join(this.#cluster.node(master).dir, name), randomBytes(Math.floor(random() * 100_000)));
    }
  }

  #check(): void {
    this.#cluster.masters();
    for (const [path, { attempts, acknowledged }] of this.#histories) {
      const content = contentOf(join(this.#cluster.node(1).dir, path));
      const found = attempts.lastIndexOf(content);
      assert.ok(
        found >= acknowledged,
        `${path}: attempt ${acknowledged} was acknowledged, there is ${found < 0 ? "what nobody wrote" : `attempt ${found}`}`,
      );
    }
  }
}

async function attempt(
  remote: Remote,
  path: string,
  content: string | undefined,
): Promise<"done" | "refused" | "unknown"> {
  try {
    if (content === undefined) await remote.do("remove", path);
    else await remote.write(path, whole(content));
    return "done";
  } catch (error) {
    if (!isFailure(error)) throw error;
    return (error as Error).name === "Refused" ? "refused" : "unknown";
  }
}
const whole = (text: string) =>
  async function* () {
    yield Buffer.from(text);
  };
function contentOf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** Runs one schedule; throws an error that says what does not hold. */
export async function runSchedule(seed: number, faultMs = 4000): Promise<Outcome> {
  await using cluster = await LocalCluster.start(2, { isGated: true });
  const schedule = new Schedule(seed, cluster);
  try {
    await schedule.run(faultMs);
  } catch (error) {
    const ends = cluster.nodes.map(
      ({ id, said }) => `--- node ${id}\n${said.map(({ stderr }) => stderr).join("--- again\n")}`,
    );
    throw new Failure(`seed ${seed}: ${explain(error)}\n${schedule.faults.join(", ")}\n${ends.join("\n")}`, {
      cause: error,
    });
  }
  const { acknowledged, unknown, faults } = schedule;
  return { acknowledged, unknown, masters: cluster.masters().size, faults };
}

if (process.argv[1]?.endsWith("faults.ts")) {
  await program({
    summary: "Runs schedules of faults on clusters of three and checks that nothing acknowledged is lost.",
    example: "--seed 1 --schedules 3",
    settings: {
      seed: setting(integer(0), "of the first schedule; the next ones follow", 1),
      schedules: setting(integer(1), "how many", 3),
    },
    async run({ seed, schedules }, { log, signal }) {
      let failed = 0;
      let written = 0;
      for (let at = seed; at < seed + schedules && !signal.aborted; at++) {
        try {
          const { acknowledged, unknown, masters, faults } = await runSchedule(at);
          written += acknowledged;
          process.stdout.write(
            `seed ${at}: ${acknowledged} writes acknowledged, ${unknown} unknown, ${masters} masters: ${faults.join(", ")}\n`,
          );
        } catch (error) {
          if (!(error instanceof Failure)) throw error;
          failed++;
          log(error.message);
        }
      }
      process.stdout.write(`${schedules} schedules, ${failed} failed, ${written} writes acknowledged\n`);
      if (failed > 0) throw new Failure(`${failed} schedules failed`);
    },
  });
}
