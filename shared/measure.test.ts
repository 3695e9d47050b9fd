import { strict as assert } from "node:assert";
import { test } from "node:test";
import { compare, median, standingsTable } from "./measure.ts";

test("the median of an odd and of an even number, whatever their order, which is left as it is", () => {
  const values = [10, 9, 100];
  assert.equal(median(values), 10);
  assert.deepEqual(values, [10, 9, 100]);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([7]), 7);
  assert.ok(Number.isNaN(median([])));
});

test("contenders run in turn, the first round does not count, ratios are taken pair by pair", async () => {
  const order: string[] = [];
  const contender = (name: string, figures: readonly number[]) => {
    const left = [...figures];
    return {
      name,
      run: async () => {
        order.push(name);
        return left.shift() ?? assert.fail("one round too many");
      },
    };
  };
  // The machine is three times slower in the second round and ten times in the third: the ratio holds.
  const standings = await compare(
    [
      contender("first", [1_000_000, 300, 100, 30]),
      contender("second", [1, 150, 50, 15]),
      contender("third", [0, 600, 300, 60]),
    ],
    3,
  );
  assert.equal(order.join(" "), Array(4).fill("first second third").join(" "));
  assert.deepEqual(standings, [
    { name: "first", median: 100, ratio: 1 },
    { name: "second", median: 50, ratio: 0.5 },
    { name: "third", median: 300, ratio: 2 },
  ]);
  assert.equal(
    standingsTable("echo", "MB/s", [
      { name: "ours", median: 12_345.678, ratio: 1 },
      ...standings.slice(1, 2),
    ]),
    [
      "| echo | MB/s, median | ratio to the first |",
      "|---|---|---|",
      "| ours | 12,350 | 1.00 |",
      "| second | 50 | 0.50 |",
    ].join("\n"),
  );
});

test("a contender that fails fails the comparison", async () => {
  const broken = { name: "broken", run: () => Promise.reject(new Error("the work was not done")) };
  await assert.rejects(compare([broken], 1), /the work was not done/);
});
