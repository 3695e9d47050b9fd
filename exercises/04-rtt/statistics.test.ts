/** The statistics against their definitions, for any sample; and against examples from the RFCs. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { delayVariations, distribution, jitter, mean, percentile, summarise } from "./statistics.ts";

const SEED = 2681;
const LOST = Number.POSITIVE_INFINITY;
const check = <T>(values: fc.Arbitrary<T>, holds: (value: T) => void) =>
  fc.assert(fc.property(values, holds), { seed: SEED, numRuns: 300 });

const delay = fc.oneof(
  { weight: 5, arbitrary: fc.integer({ min: 0, max: 50_000 }).map((micro) => micro / 1000) },
  { weight: 1, arbitrary: fc.constant(LOST) },
);
const delays = fc.array(delay, { maxLength: 60 });
const someDelays = fc.array(delay, { minLength: 1, maxLength: 60 });

describe("percentiles", () => {
  test("RFC 2681's example: of 100, 110, undefined, 90 and 500, half are at or below 110", () => {
    const sample = [100, 110, LOST, 90, 500];
    assert.equal(percentile(sample, 50), 110);
    assert.equal(percentile(sample, 95), LOST);
    assert.equal(summarise([100, 110, LOST, 90]).medianMs, 105); // of an even number: between the two in the middle
    assert.equal(summarise([100, 110, LOST, LOST]).medianMs, LOST);
    assert.ok(Number.isNaN(percentile([], 50)));
    assert.equal(
      percentile([...Array(100).keys()], 7),
      6,
      "the seventh, though 100 × 0.07 is a hair above 7",
    );
  });

  test("are by definition the least value at or below which there are so many", () => {
    check(fc.tuple(someDelays, fc.integer({ min: 1, max: 100 })), ([sample, percent]) => {
      const value = percentile(sample, percent);
      const isEnough = (limit: number) =>
        sample.filter((other) => other <= limit).length * 100 >= sample.length * percent;
      assert.ok(sample.includes(value));
      assert.ok(isEnough(value));
      for (const other of sample) if (other < value) assert.ok(!isEnough(other));
    });
  });

  test("never fall when a probe is lost instead of received", () => {
    check(fc.tuple(someDelays, fc.nat(), fc.integer({ min: 1, max: 100 })), ([sample, at, percent]) => {
      const withLoss = sample.with(at % sample.length, LOST);
      assert.ok(percentile(withLoss, percent) >= percentile(sample, percent));
      assert.ok(summarise(withLoss).medianMs >= summarise(sample).medianMs);
    });
  });

  test("leave the sample as it is, and do not depend on its order", () => {
    check(fc.tuple(someDelays, fc.integer({ min: 1, max: 100 })), ([sample, percent]) => {
      const before = [...sample];
      assert.equal(percentile(sample, percent), percentile(sample.toReversed(), percent));
      assert.deepEqual(sample, before);
    });
  });
});

describe("the delay's variation (RFC 3393)", () => {
  test("is from each packet to the next, undefined next to a lost one", () => {
    assert.deepEqual(delayVariations([20, 25, 22, LOST, 30, 31]), [5, -3, 1]);
    assert.equal(jitter([20, 25, 22, LOST, 30, 31]), 3);
    assert.deepEqual(delayVariations([LOST, 1, LOST]), []);
    assert.ok(Number.isNaN(jitter([5])));
  });

  test("does not see a delay that all have, and turns its sign with the order", () => {
    const whole = fc.array(fc.oneof(fc.nat(1000), fc.constant(LOST)), { maxLength: 40 });
    check(fc.tuple(whole, fc.nat(1000)), ([sample, more]) => {
      const further = sample.map((value) => value + more);
      assert.deepEqual(delayVariations(further), delayVariations(sample));
      const back = delayVariations(sample.toReversed()).map((value) => 0 - value);
      assert.deepEqual(back.toReversed(), delayVariations(sample));
    });
  });

  test("adds up to last less first where nothing was lost", () => {
    check(fc.array(fc.nat(1000), { minLength: 1 }), (sample) => {
      const sum = delayVariations(sample).reduce((a, b) => a + b, 0);
      assert.equal(sum, (sample.at(-1) ?? 0) - (sample[0] ?? 0));
    });
  });
});

describe("a summary", () => {
  test("counts everything once, with the refused apart", () => {
    check(fc.tuple(delays, fc.nat(9)), ([sample, refused]) => {
      const summary = summarise(sample, refused);
      assert.equal(summary.received + summary.lost, sample.length);
      assert.equal(summary.lost, sample.filter((value) => value === LOST).length);
      assert.equal(summary.refused, refused);
    });
  });

  test("has its figures in their order", () => {
    check(someDelays, (sample) => {
      const { received, lost, minMs, medianMs, meanMs, p95Ms, maxMs, jitterMs } = summarise(sample);
      assert.ok(minMs <= medianMs || received === 0);
      assert.ok(medianMs <= p95Ms);
      if (received === 0) return assert.ok([minMs, meanMs, maxMs, jitterMs].every(Number.isNaN));
      const tiny = 1e-9 * maxMs;
      assert.ok(minMs <= meanMs + tiny && meanMs <= maxMs + tiny);
      assert.ok(sample.includes(minMs) && sample.includes(maxMs));
      assert.ok(Number.isNaN(jitterMs) || jitterMs <= maxMs - minMs + tiny);
      if (lost === 0) assert.ok(p95Ms <= maxMs);
    });
  });

  test("says of an example what one works out by hand", () => {
    assert.deepEqual(summarise([10, 20, 15, LOST, 11], 2), {
      ...{ received: 4, lost: 1, refused: 2, minMs: 10, meanMs: 14, maxMs: 20 },
      ...{ medianMs: 15, p95Ms: LOST, jitterMs: 7.5 },
    });
    assert.equal(mean([1, 2, 6]), 3);
  });

  test("of nothing is undefined", () => {
    const { received, lost, ...figures } = summarise([]);
    assert.deepEqual([received, lost], [0, 0]);
    assert.deepEqual(
      Object.values(figures).filter((figure) => !Number.isNaN(figure)),
      [0],
    );
  });
});

describe("the distribution", () => {
  test("of an example: a step for each value, and never 1 where one was lost", () => {
    assert.deepEqual(distribution([3, 1, LOST, 3]), [
      [1, 0.25],
      [3, 0.75],
    ]);
  });

  test("rises, and ends at the share of those received", () => {
    check(someDelays, (sample) => {
      const steps = distribution(sample);
      for (const [i, [delayMs, share]] of steps.entries()) {
        assert.ok(i === 0 || (delayMs > (steps[i - 1]?.[0] ?? 0) && share > (steps[i - 1]?.[1] ?? 1)));
        assert.equal(share, sample.filter((value) => value <= delayMs).length / sample.length);
      }
      assert.equal(steps.at(-1)?.[1] ?? 0, sample.filter(Number.isFinite).length / sample.length);
    });
  });
});
