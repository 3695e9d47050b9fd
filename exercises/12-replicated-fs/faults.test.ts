/** A schedule of faults on real processes; `faults.ts` runs as many as one wants. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { runSchedule } from "./faults.ts";

test("seed 2: kills, stops, cuts and restarts lose nothing that was acknowledged", async () => {
  const { acknowledged, faults } = await runSchedule(2, 2000);
  assert.ok(faults.length > 0, "there were faults");
  assert.ok(acknowledged > 0, "something was written");
});
