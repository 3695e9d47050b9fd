/** A few schedules of faults on real processes; `faults.ts` runs as many as one wants. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { runSchedule } from "./faults.ts";

for (const seed of [2, 9]) {
  test(`seed ${seed}: kills, stops, cuts and restarts lose nothing that was acknowledged`, async () => {
    const { acknowledged, faults } = await runSchedule(seed, 1500);
    assert.ok(faults.length > 0, "there were faults");
    assert.ok(acknowledged > 0, "something was written");
  });
}
