/** The PDU byte by byte, the algorithm over simulated paths, and the clock that never runs backwards. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { decode, encode, PduError } from "../../shared/pdu.ts";
import { needs, runTool } from "../../shared/testing.ts";
import { best, boundOf, DRIFT_TOLERANCE, type Sample, sampleOf } from "./cristian.ts";
import {
  correct,
  type Discipline,
  driftOf,
  MAX_DRIFT,
  MAX_SLEW,
  read,
  startClock,
  update,
} from "./discipline.ts";
import {
  ClockTime,
  classify,
  isTime868,
  readReply,
  requestFor,
  stampRequest,
  time868,
  toMs,
  toNs,
} from "./protocol.ts";
import { asText, offsetOf } from "./report.ts";
import { planFor, STEP_MS } from "./set-clock.ts";
import { calibrate } from "./system-clock.ts";

const SEED = 1989;
const span = (max: number) => fc.double({ min: 0, max, noNaN: true });
const within = (max: number) => fc.double({ min: -max, max, noNaN: true });
const PORT = 50_000;

const REPLY: ClockTime = {
  kind: "reply",
  flags: {},
  id: 0x0123456789abcdefn,
  clientTransmit: 1_000_000_000n,
  serverReceive: 1_795_271_053_000_000_001n,
  serverTransmit: 1_795_271_053_000_050_000n,
  serverError: 2000n,
};
const REPLY_HEX =
  "4e4c4354 01 02 0000 0123456789abcdef 000000003b9aca00 18ea1582cd9b4201 18ea1582cd9c0550 00000000000007d0";
const bytesOf = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

describe("the PDU", () => {
  test("is laid out as the README says", () => {
    const hex = encode(ClockTime, REPLY).toString("hex");
    assert.equal(hex.length, 96);
    assert.equal(hex, bytesOf(REPLY_HEX).toString("hex"));
    assert.deepEqual(decode(ClockTime, bytesOf(REPLY_HEX)), REPLY);
  });

  test("makes a round trip, cut short or too long is an error, and no change does worse than that", () => {
    const i64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
    const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    const any = fc.record(
      {
        kind: fc.constantFrom("request" as const, "reply" as const),
        flags: fc.constant({}),
        id: u64,
        clientTransmit: i64,
        serverReceive: i64,
        serverTransmit: i64,
        serverError: u64,
      },
      { noNullPrototype: true },
    );
    fc.assert(
      fc.property(any, (pdu) => assert.deepEqual(decode(ClockTime, encode(ClockTime, pdu)), pdu)),
      { seed: SEED },
    );
    const bytes = bytesOf(REPLY_HEX);
    for (let length = 0; length < 48; length++)
      assert.throws(() => decode(ClockTime, bytes.subarray(0, length)), PduError);
    assert.throws(() => decode(ClockTime, Buffer.concat([bytes, Buffer.alloc(1)])), PduError);
    for (let bit = 0; bit < 48 * 8; bit++) {
      const changed = Buffer.from(bytes);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      try {
        decode(ClockTime, changed);
      } catch (error) {
        assert.ok(error instanceof PduError, `${error}`);
      }
    }
  });

  test("a request is stamped last, and only the reply to it is taken", () => {
    const request = requestFor(7n);
    stampRequest(request, 99n);
    const { kind, id, clientTransmit } = decode(ClockTime, request);
    assert.deepEqual([kind, id, clientTransmit], ["request", 7n, 99n]);
    const reply = encode(ClockTime, REPLY);
    assert.deepEqual(readReply(reply, REPLY.id, REPLY.clientTransmit), {
      t2Ms: toMs(REPLY.serverReceive),
      t3Ms: toMs(REPLY.serverTransmit),
      serverErrorMs: 0.002,
    });
    assert.throws(
      () => readReply(reply, REPLY.id + 1n, REPLY.clientTransmit),
      /id at byte 8: is not that of/,
    );
    assert.throws(() => readReply(reply, REPLY.id, 5n), /clientTransmit at byte 16: is not that of/);
    assert.throws(() => readReply(request, 7n, 99n), /kind at byte 5: is a request/);
    const backwards = encode(ClockTime, { ...REPLY, serverTransmit: REPLY.serverReceive - 1n });
    assert.throws(() => readReply(backwards, REPLY.id, REPLY.clientTransmit), /is before serverReceive/);
  });

  test("milliseconds and nanoseconds", () => {
    assert.equal(toNs(1.5), 1_500_000n);
    assert.equal(toMs(1_500_000n), 1.5);
    const todayMs = 1_795_271_053_000.25;
    assert.ok(Math.abs(toMs(toNs(todayMs)) - todayMs) < 0.0005);
  });
});

describe("what a datagram is to a server", () => {
  const reasonOf = (datagram: Buffer, port = PORT) => {
    const arrival = classify(datagram, port);
    return arrival.kind === "dropped" ? arrival.reason : arrival.kind;
  };
  test("a request, a plain one, or nothing that is answered", () => {
    assert.deepEqual(classify(requestFor(7n), PORT), { kind: "request", id: 7n, clientTransmit: 0n });
    for (const plain of [Buffer.alloc(0), Buffer.alloc(4), Buffer.alloc(48), Buffer.alloc(65_507, 1)])
      assert.equal(reasonOf(plain), "plain request");
    assert.equal(reasonOf(requestFor(7n).subarray(0, 47)), "plain request");
    assert.equal(reasonOf(encode(ClockTime, REPLY)), "is itself a reply");
    assert.equal(reasonOf(time868(Date.now())), "is itself a time");
    for (const [at, byte] of [
      [4, 2],
      [5, 0],
      [5, 3],
    ] as const) {
      const broken = requestFor(7n);
      broken[at] = byte;
      assert.match(reasonOf(broken), /^is malformed/);
    }
    assert.match(reasonOf(requestFor(7n), 0), /comes from port 0/);
    for (const port of [7, 19, 37])
      assert.match(reasonOf(Buffer.alloc(0), port), new RegExp(`port ${port},`));
  });

  test("no answer to anything is answered in its turn", () => {
    fc.assert(
      fc.property(fc.integer({ min: 946_684_800, max: 2_085_978_495 }), (seconds) => {
        assert.equal(reasonOf(time868(seconds * 1000 + 999)), "is itself a time");
      }),
      { seed: SEED },
    );
  });

  test("RFC 868's own examples, and the end of its era", () => {
    // "the time 2,208,988,800 corresponds to 00:00 1 Jan 1970 GMT, 2,398,291,200 to 1 Jan 1976, 2,524,521,600 to 1 Jan 1980"
    assert.equal(time868(0).readUInt32BE(), 2_208_988_800);
    assert.equal(time868(Date.UTC(1976, 0, 1)).readUInt32BE(), 2_398_291_200);
    assert.equal(time868(Date.UTC(1980, 0, 1) + 999).readUInt32BE(), 2_524_521_600);
    assert.equal(time868(Date.UTC(2036, 1, 7, 6, 28, 16)).readUInt32BE(), 0);
    assert.ok(isTime868(time868(Date.UTC(2000, 0, 1))) && !isTime868(time868(Date.UTC(2000, 0, 1) - 1)));
  });
});

/** An exchange as it would be on a path of these delays, by a server whose clock is so much ahead of the client's. */
const exchanged = (
  t1Ms: number,
  ahead: number,
  there: number,
  held: number,
  back: number,
  serverErrorMs = 0,
) => ({
  t1Ms,
  t2Ms: t1Ms + there + ahead,
  t3Ms: t1Ms + there + held + ahead,
  t4Ms: t1Ms + there + held + back,
  serverErrorMs,
});
/** What rounding does to times of this size. */
const EPSILON = 2e-3;

describe("Cristian's algorithm", () => {
  test("the true offset is inside of the bound, whatever the path; the error is half the difference of its ways", () => {
    const least = fc.double({ min: 0.01, max: 50, noNaN: true });
    fc.assert(
      fc.property(
        ...[span(1e9), within(2e12), least, span(200), span(200), span(500), span(5)],
        (t1Ms, ahead, leastMs, more, more2, held, serverOff) => {
          const [there, back] = [leastMs + more, leastMs + more2];
          const exchange = exchanged(t1Ms, ahead + serverOff, there, held, back, serverOff);
          const sample = sampleOf(exchange);
          assert.ok(sample !== undefined);
          assert.equal(sample.atMs, exchange.t4Ms);
          assert.ok(Math.abs(sample.roundTripMs - (there + back)) < EPSILON);
          assert.ok(Math.abs(sample.offsetMs - (ahead + serverOff) - (there - back) / 2) < EPSILON);
          const bound = boundOf(sample, leastMs);
          assert.ok(Math.abs(sample.offsetMs - ahead) <= bound + EPSILON, `not within ${bound}`);
          assert.ok(
            Math.abs(bound - (more + more2) / 2 - serverOff) < EPSILON,
            "and it is no wider than it need be",
          );
        },
      ),
      { seed: SEED, numRuns: 2000 },
    );
  });

  test("5 ms there and 35 back is 15 ms of error, inside a bound of 20", () => {
    const sample = sampleOf(exchanged(1000, 0, 5, 1, 35));
    assert.ok(sample);
    assert.equal(sample.offsetMs, -15);
    assert.equal(boundOf(sample), 20);
    assert.equal(boundOf(sample, 5), 15);
  });

  test("a sample grows old: its bound widens as two clocks may drift apart", () => {
    const sample: Sample = { atMs: 1000, roundTripMs: 2, offsetMs: 0, serverErrorMs: 0.5 };
    assert.equal(boundOf(sample, 0, 1000), 1.5);
    assert.equal(boundOf(sample, 0, 101_000), 1.5 + 100_000 * DRIFT_TOLERANCE);
    assert.equal(boundOf(sample, 0, 0), 1.5);
  });

  test("times that contradict each other give no sample", () => {
    const right = exchanged(0, 0, 1, 1, 1);
    assert.ok(sampleOf(right));
    assert.equal(sampleOf({ ...right, t3Ms: right.t2Ms - 0.1 }), undefined, "sent before it was received");
    assert.equal(sampleOf({ ...right, t3Ms: right.t2Ms + 3.1 }), undefined, "held longer than it took");
    assert.equal(sampleOf({ ...right, t2Ms: Number.NaN }), undefined);
  });

  test("of several samples the one of least round trip is chosen, the first of equals", () => {
    const sample = fc.record({
      atMs: span(1e6),
      roundTripMs: fc.nat(20),
      offsetMs: within(10),
      serverErrorMs: span(1),
    });
    fc.assert(
      fc.property(fc.array(sample, { minLength: 1 }), (samples) => {
        const least = Math.min(...samples.map(({ roundTripMs }) => roundTripMs));
        assert.equal(
          best(samples),
          samples.find(({ roundTripMs }) => roundTripMs === least),
        );
      }),
      { seed: SEED },
    );
    assert.equal(best([]), undefined);
  });
});

describe("a disciplined clock", () => {
  test("goes on from where it is and is right when the slewing ends", () => {
    fc.assert(
      fc.property(within(1e5), within(1e-3), (behindMs, drift) => {
        const clock = correct(startClock(0, 5000), 100, behindMs, drift);
        assert.equal(read(clock, 100), 5100);
        const durationMs = clock.slewEndMs - 100;
        assert.ok(durationMs >= 500 && Math.abs(clock.slew) <= MAX_SLEW + 1e-12);
        const endMs = clock.slewEndMs;
        const right = 5100 + durationMs * (1 + drift) + behindMs;
        assert.ok(Math.abs(read(clock, endMs) - right) < 1e-3);
        assert.ok(Math.abs(read(clock, endMs + 1000) - (right + 1000 * (1 + drift))) < 1e-3, "and stays so");
      }),
      { seed: SEED },
    );
  });

  test("never runs backwards, whatever is found and whenever it is read", () => {
    const step = fc.record({
      readAfterMs: fc.array(span(2000), { maxLength: 5 }),
      offsetMs: fc.oneof(within(1e6), within(1), fc.constant(0)),
      boundMs: span(100),
      gapMs: span(60_000),
    });
    fc.assert(
      fc.property(fc.array(step, { minLength: 2, maxLength: 30 }), (steps) => {
        let discipline: Discipline | undefined;
        let [nowMs, shown] = [0, Number.NEGATIVE_INFINITY];
        const look = (atMs: number) => {
          if (discipline === undefined) return;
          const time = read(discipline.clock, atMs);
          assert.ok(time >= shown, `${time} after ${shown}`);
          shown = time;
        };
        for (const { readAfterMs, offsetMs, boundMs, gapMs } of steps) {
          for (const afterMs of readAfterMs.toSorted((a, b) => a - b)) look(nowMs + Math.min(afterMs, gapMs));
          nowMs += gapMs;
          look(nowMs);
          const point = { atMs: nowMs, offsetMs: 1.8e12 + offsetMs, boundMs };
          discipline = update(discipline, point, nowMs).discipline;
          if (shown === Number.NEGATIVE_INFINITY)
            assert.equal(read(discipline.clock, nowMs), nowMs + point.offsetMs);
          look(nowMs);
        }
      }),
      { seed: SEED, numRuns: 500 },
    );
  });

  test("the drift of a straight line is found, and of one within bounds it is within its bound", () => {
    const points = fc.array(
      fc.record({ gapMs: fc.double({ min: 1, max: 1e5, noNaN: true }), error: within(1), boundMs: span(5) }),
      {
        minLength: 3,
        maxLength: 30,
      },
    );
    fc.assert(
      fc.property(points, within(1e-3), within(1e12), (given, rate, startMs) => {
        let atMs = 0;
        const all = given.map(({ gapMs, error, boundMs }) => {
          atMs += gapMs;
          return { atMs, offsetMs: startMs + rate * atMs + error * boundMs, boundMs };
        });
        const drift = driftOf(all);
        assert.ok(drift !== undefined);
        // Times of 1e12 ms are held to 1e-4.
        const rounding = (1e-3 * all.length) / (atMs - (all[0]?.atMs ?? 0)) + 1e-9;
        assert.ok(Math.abs(drift.rate - rate) <= drift.bound + rounding, `${drift.rate} for ${rate}`);
        const exact = driftOf(all.map((point) => ({ ...point, offsetMs: rate * point.atMs })));
        assert.ok(Math.abs((exact?.rate ?? 0) - rate) < 1e-9);
      }),
      { seed: SEED },
    );
    assert.equal(driftOf([]), undefined);
    const two = [1, 2].map((atMs) => ({ atMs, offsetMs: atMs, boundMs: 0 }));
    assert.equal(driftOf(two), undefined);
    assert.equal(driftOf(Array(5).fill({ atMs: 1, offsetMs: 1, boundMs: 1 })), undefined, "all at once");
  });

  test("follows a drift that is sure, not one that may be none, and no more than any quartz has", () => {
    const after = (rate: number, boundMs: number) => {
      let discipline: Discipline | undefined;
      let last: ReturnType<typeof update> | undefined;
      for (let i = 0; i < 10; i++) {
        last = update(discipline, { atMs: i * 1000, offsetMs: 1e12 + rate * i * 1000, boundMs });
        discipline = last.discipline;
      }
      return last as ReturnType<typeof update>;
    };
    const sure = after(100e-6, 0.01);
    assert.ok(Math.abs(sure.discipline.clock.rate - 1 - 100e-6) < 1e-6);
    assert.ok(Math.abs(sure.behindMs) < 0.01, `still ${sure.behindMs} ms behind`);
    assert.equal(after(100e-6, 10).discipline.clock.rate, 1);
    assert.equal(after(0.5, 0.01).discipline.clock.rate, 1 + MAX_DRIFT);
    assert.equal(after(-0.5, 0.01).discipline.clock.rate, 1 - MAX_DRIFT);
  });

  test("forgets what is old", () => {
    let discipline: Discipline | undefined;
    for (let i = 0; i < 50; i++)
      discipline = update(discipline, { atMs: i, offsetMs: 0, boundMs: 1 }).discipline;
    assert.equal(discipline?.points.length, 20);
    assert.equal(discipline?.points[0]?.atMs, 30);
  });
});

test("this machine's clock is read between its ticks, and never outside of the millisecond that it shows", () => {
  for (let i = 0; i < 5; i++) {
    const { offsetMs, errorMs } = calibrate();
    assert.ok(errorMs > 0);
    for (let look = 0; look < 100; look++) {
      const before = Date.now();
      const finerMs = performance.now() + offsetMs;
      assert.ok(
        finerMs >= before - errorMs && finerMs <= Date.now() + 1 + errorMs,
        `${finerMs} at ${before}`,
      );
    }
  }
});

test("what is said of this machine's clock: its offset, and a bound that holds what reading it is worth too", () => {
  const sample: Sample = { atMs: 1000, roundTripMs: 2, offsetMs: 5_000_010.25, serverErrorMs: 0.5 };
  const { offsetMs, boundMs } = offsetOf(sample, { offsetMs: 5_000_000, errorMs: 0.125 }, 0.25, 1000);
  assert.deepEqual([offsetMs, boundMs], [10.25, 1 - 0.25 + 0.5 + 0.125]);
  const measurement = { samples: [sample, sample], best: sample, lost: 3, ignored: 4 };
  assert.equal(
    asText(measurement, { offsetMs: -0.0004, boundMs: 0.0106 }),
    "offset -0.000 ms ± 0.012 ms: this machine's clock is 0.000 ms ahead\n" +
      "round trip 2.000 ms, the least of 2 samples (3 lost, 4 ignored); the server is right to 0.500 ms",
  );
});

test("the system's clock is stepped where it is far off, else slewed", () => {
  const step = planFor(5000.5);
  assert.deepEqual([step.tool, step.says], ["date", "step the system's clock 5000.500 ms forward"]);
  assert.deepEqual(step.args(1_795_271_053_000), ["--utc", "--set=@1795271058.000500"]);
  assert.deepEqual(planFor(-3_600_000).args(1_795_271_053_000), ["--utc", "--set=@1795267453.000000"]);
  const slew = planFor(-1.5);
  assert.deepEqual(
    [slew.tool, slew.says],
    ["adjtimex", "slew the system's clock 1.500 ms back, which takes 3 s"],
  );
  assert.deepEqual(slew.args(0), ["--singleshot", "-1500"]);
  assert.equal(planFor(STEP_MS - 0.001).tool, "adjtimex");
  assert.equal(planFor(-STEP_MS).tool, "date");
});

test("GNU date understands by a step what is meant, to the microsecond", needs("date"), async (t) => {
  const args = planFor(5000.5).args(1_795_271_053_000);
  // --date says what --set would set.
  const { code, stdout } = await runTool("date", [
    ...args.map((arg) => arg.replace("set", "date")),
    "+%s.%N",
  ]);
  if (code !== 0) return t.skip("this date is not GNU's");
  assert.equal(stdout, "1795271058.000500000\n");
});
