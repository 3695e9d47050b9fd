/** One of the schedules of faults.ts, and a segment of two hosts where namespaces can be had. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import { needsNamespaces } from "../../shared/testing.ts";
import { runSchedule, scheduleOf } from "./faults.ts";
import { LocalSegment } from "./local-segment.ts";
import { Switch } from "./switch.ts";

/** A busy machine may take longer than the 6 s that are promised; those are measured by hand. */
const LIMIT_MS = 120_000;

/** Seed 244 has every kind of fault in it. */
const CHAOS_MS = 1500;

const onSwitch = needsNamespaces();

test("a schedule comes from its seed alone", () => {
  assert.deepEqual(scheduleOf(3), scheduleOf(3));
  assert.notDeepEqual(scheduleOf(3), scheduleOf(4));
});

describe("against processes", { concurrency: true }, () => {
  test("deaths, stops, cut cables and changes: every listing is the union of the live folders", async () => {
    await runSchedule(244, onSwitch.skip === undefined, LIMIT_MS, CHAOS_MS);
  });

  test(
    "across a switch: default ports and broadcast addresses, two nodes on one host, no network at all",
    onSwitch,
    async () => {
      await using net = await Switch.open(2);
      await using segment = await LocalSegment.open(8000);
      const on = (host: number, name: string, ...args: string[]) =>
        segment.start(name, {
          documents: { [`${name}.txt`]: name },
          wrapper: net.wrapper(host),
          args: ["--host", "0.0.0.0", ...args],
        });
      const broadcast = ["--broadcast", "10.15.0.255"];
      const [a, b, c] = await Promise.all([on(0, "a", "--verbose"), on(0, "b"), on(1, "c", ...broadcast)]);
      for (const node of [a, b, c]) {
        await node.seesNodes(3);
        for (const path of ["a.txt", "b.txt", "c.txt"]) await node.knows(path);
      }
      const far = (await c.nodes()).map(
        ({ name, address, port }) => `${name} ${address} ${port >= 8000 && port <= 8005}`,
      );
      assert.deepEqual(far.toSorted(), ["a 10.15.0.1 true", "b 10.15.0.1 true", "c  true"]);
      const got = (await c.ask("get a.txt")) as { from: string[] };
      assert.deepEqual(got.from, ["a"]);

      await net.plug(0, false); // both nodes of this host go on without a network
      await a.running.output(/^a network has gone: 10\.15\.0\.255$/m, "stderr", LIMIT_MS); // Linux may tell it a second later
      await a.put("meanwhile.txt", "m");
      await b.knows("meanwhile.txt");
      await net.plug(0, true);
      await a.running.output(/^a network has come: 10\.15\.0\.255$/m, "stderr", LIMIT_MS);
      await c.knows("meanwhile.txt");
      await c.seesNodes(3);
    },
  );
});
