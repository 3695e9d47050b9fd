/** When probes are sent: a Poisson process and a periodic one, shown to be what they are by their properties. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { type Draw, periodic, poisson, timesUntil } from "./sampling.ts";
import { mean } from "./statistics.ts";

const SEED = 2330;
const MEAN_MS = 200;

/** Numerical Recipes' congruential generator: the same numbers for the same seed. */
function seeded(seed: number): Draw {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const pauses = (count: number, seed = SEED) => {
  const all = poisson(MEAN_MS, seeded(seed));
  return Array.from({ length: count }, () => all.next().value as number);
};

describe(`a Poisson process (seed ${SEED})`, () => {
  const sample = pauses(20_000);

  test("has pauses whose mean and deviation are both the interval", () => {
    const average = mean(sample);
    const deviation = Math.sqrt(mean(sample.map((value) => (value - average) ** 2)));
    assert.ok(Math.abs(average / MEAN_MS - 1) < 0.03, `mean ${average}`);
    assert.ok(Math.abs(deviation / MEAN_MS - 1) < 0.03, `deviation ${deviation}`);
  });

  test("has exponentially distributed pauses (Kolmogorov and Smirnov, at 0.1 %)", () => {
    const sorted = sample.toSorted((a, b) => a - b);
    const distances = sorted.map((value, i) => {
      const expected = 1 - Math.exp(-value / MEAN_MS);
      return Math.max((i + 1) / sorted.length - expected, expected - i / sorted.length);
    });
    const furthest = distances.reduce((a, b) => Math.max(a, b), 0);
    assert.ok(furthest < 1.95 / Math.sqrt(sample.length), `${furthest}`);
    // The same check tells a periodic process, and pauses that are merely even.
    const even = sorted.map((_, i) => (2 * MEAN_MS * i) / sorted.length);
    const evenDistance = Math.max(
      ...even.map((v, i) => Math.abs((i + 1) / even.length - 1 + Math.exp(-v / MEAN_MS))),
    );
    assert.ok(evenDistance > 1.95 / Math.sqrt(sample.length));
  });

  test("has no memory: having waited says nothing about how much longer", () => {
    for (const waitedMs of [50, MEAN_MS, 2 * MEAN_MS]) {
      const rest = sample.filter((value) => value > waitedMs).map((value) => value - waitedMs);
      assert.ok(Math.abs(mean(rest) / MEAN_MS - 1) < 0.08, `after ${waitedMs} ms: ${mean(rest)}`);
    }
  });

  test("sends as many in one second as in the next, with as much variance (index of dispersion 1)", () => {
    const counts = new Array<number>(3000).fill(0);
    for (const timeMs of timesUntil(3_000_000, poisson(MEAN_MS, seeded(SEED))))
      counts[Math.floor(timeMs / 1000)] = (counts[Math.floor(timeMs / 1000)] ?? 0) + 1;
    const average = mean(counts);
    const variance = mean(counts.map((count) => (count - average) ** 2));
    assert.ok(Math.abs(average - 5) < 0.15, `${average}`);
    assert.ok(Math.abs(variance / average - 1) < 0.1, `${variance / average}`);
  });

  test("never waits a negative or an infinite time, whatever is drawn", () => {
    for (const draw of [0, 2 ** -53, 0.5, 1 - 2 ** -53]) {
      const pause = poisson(MEAN_MS, () => draw).next().value as number;
      assert.ok(pause >= 0 && Number.isFinite(pause), `${draw}: ${pause}`);
    }
  });
});

describe("a periodic process", () => {
  test("has one probe in each interval, at the same place in it", () => {
    const inputs = fc.tuple(fc.integer({ min: 1, max: 500 }), fc.integer({ min: 1, max: 100 }), fc.nat(999));
    fc.assert(
      fc.property(inputs, ([meanMs, count, place]) => {
        const times = [
          ...timesUntil(
            meanMs * count,
            periodic(meanMs, () => place / 1000),
          ),
        ];
        assert.equal(times.length, count);
        for (const [i, time] of times.entries())
          assert.ok(Math.abs(time - (i + place / 1000) * meanMs) < 1e-6 * meanMs * count);
      }),
      { seed: SEED },
    );
  });

  test("begins at another place for each host, so that they are not asked at once", () => {
    const draw = seeded(SEED);
    const firsts = Array.from({ length: 100 }, () => periodic(MEAN_MS, draw).next().value as number);
    assert.equal(new Set(firsts).size, 100);
    assert.ok(Math.min(...firsts) < MEAN_MS / 10 && Math.max(...firsts) > (MEAN_MS * 9) / 10);
  });
});

test("times rise, and end before the end", () => {
  const inputs = fc.tuple(fc.array(fc.integer({ min: 0, max: 100 }), { maxLength: 50 }), fc.nat(2000));
  fc.assert(
    fc.property(inputs, ([pauses, endMs]) => {
      const times = [...timesUntil(endMs, pauses)];
      const sums = pauses.map((_, i) => pauses.slice(0, i + 1).reduce((a, b) => a + b, 0));
      assert.deepEqual(
        times,
        sums.filter((sum) => sum < endMs),
      );
    }),
    { seed: SEED },
  );
});
