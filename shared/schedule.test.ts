/** Schedules: what is one, that the work is done, and that a stopped one holds nothing up. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { cronExpression, onSchedule } from "./schedule.ts";
import { within } from "./testing.ts";

test("a schedule has five fields or six", () => {
  for (const good of ["*/5 * * * *", "* * * * * *", "0 30 4 1 jan mon"])
    assert.equal(cronExpression(good), good);
  for (const bad of ["", "every minute", "* * * *", "61 * * * *"])
    assert.throws(() => cronExpression(bad), { message: /^is not a schedule .* \*\/5 \* \* \* \* is$/ });
});

test("work is done when its time comes, until the signal", async () => {
  const stop = new AbortController();
  let times = 0;
  await within(
    new Promise<void>((resolve) => onSchedule("* * * * * *", stop.signal, () => times++ > 0 && resolve())),
    "the second time",
  );
  stop.abort();
  assert.equal(times, 2);
  onSchedule("* * * * * *", stop.signal, () => assert.fail("it was stopped before it began"));
});
