import { strict as assert } from "node:assert";
import { test } from "node:test";
import { randomOf } from "./random.ts";

test("the same numbers for the same seed, others for another, spread evenly over [0, 1)", () => {
  const draw = (seed: number) => Array.from({ length: 10_000 }, randomOf(seed));
  assert.deepEqual(draw(42), draw(42));
  assert.notDeepEqual(draw(42).slice(0, 3), draw(43).slice(0, 3));
  const tenths: number[] = Array(10).fill(0);
  for (const x of draw(42)) tenths[Math.floor(10 * x)] = (tenths[Math.floor(10 * x)] ?? 0) + 1;
  assert.equal(tenths.length, 10);
  for (const count of tenths) assert.ok(Math.abs(count - 1000) < 150, `${tenths}`);
});
