/**
 * Seeded schedules of kills, stops and cut links, on the real programs: the count is exact, or there is none. More of them, or one
 * again: `NETLAB_SCHEDULES=200 NETLAB_SEED=1 node --import tsx --test exercises/14-map-reduce/faults.test.ts`.
 */
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { test } from "node:test";
import { FaultyCluster, NotCounted, scheduleOf, shown } from "./faults.ts";
import { LocalCluster } from "./local-cluster.ts";
import { countedIn } from "./oracle.ts";
import { sampleText } from "./sample-text.ts";

const FIRST_SEED = Number(process.env["NETLAB_SEED"] ?? 1);
const COUNT = Number(process.env["NETLAB_SCHEDULES"] ?? (process.env["NETLAB_SEED"] === undefined ? 3 : 1));
const SILENCE_MS = 2500;
/** A busy machine makes nodes silent that no fault has touched. With so much more patience it does not; a defect still shows. */
const PATIENT = 5;
const TEXT_BYTES = 10_000_000;
/** How long the job takes, about, with the master's start: the time in which faults come. */
const JOB_MS = 1000;

test(`${COUNT} seeded schedules from ${FIRST_SEED}: the exact count, or none and a reason`, async (t) => {
  const names = ["mapper1", "mapper2", "mapper3", "mapper4"];
  await using faulty = await FaultyCluster.of(await LocalCluster.of({ mappers: names.length }));
  const { cluster } = faulty;
  const text = cluster.file("text.txt");
  await writeFile(text, sampleText(TEXT_BYTES).bytes);
  const expected = Buffer.from(countedIn(readFileSync(text)));
  const outcomes: Record<string, number> = {};
  for (let seed = FIRST_SEED; seed < FIRST_SEED + COUNT; seed++) {
    const run = (silenceMs: number) => faulty.run(scheduleOf(seed, names, JOB_MS, silenceMs), text, expected);
    const schedule = scheduleOf(seed, names, JOB_MS, SILENCE_MS);
    const outcome = await run(SILENCE_MS).catch((error) => {
      if (!(error instanceof NotCounted)) throw error;
      t.diagnostic(`again, with more patience: ${error.message}`);
      return run(PATIENT * SILENCE_MS);
    });
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    t.diagnostic(`NETLAB_SEED=${seed}: ${outcome} (${shown(schedule)})`);
  }
  t.diagnostic(JSON.stringify(outcomes));
});
