/** Each idea by itself: acknowledgements, loss, round trips, pacing, congestion, streams. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { AckSchedule } from "./ack-schedule.ts";
import { eachAcknowledged, ReceivedPackets } from "./acknowledgements.ts";
import { Bbr } from "./bbr.ts";
import type { AckEvent } from "./congestion.ts";
import { DeliveryRate } from "./delivery-rate.ts";
import { Flight } from "./flight.ts";
import { Gaffer } from "./gaffer.ts";
import { SentPackets } from "./loss.ts";
import { MtuSearch } from "./mtu.ts";
import { NewReno } from "./newreno.ts";
import { Pacer } from "./pacing.ts";
import { DATA_OVERHEAD, MIN_MTU } from "./protocol.ts";
import { RttEstimator } from "./rtt.ts";
import { InStream } from "./stream-in.ts";
import { OutStream } from "./stream-out.ts";
import { Once } from "./unordered.ts";

const SEED = 11;
const RATE = { delivered: 0, deliveredMs: 0, firstSentMs: 0, isAppLimited: false };
const sentAt = (sequence: number, sentMs: number, sizeBytes = 1200) => ({
  sequence,
  sentMs,
  sizeBytes,
  content: { offset: 0, length: 1 },
  rate: RATE,
});

describe("acknowledgements", () => {
  test("the header's bits are the 32 packets before the latest, the nearest on the right", () => {
    const received = new ReceivedPackets();
    assert.deepEqual(received.header, { ack: 0, ackBitfield: 0 });
    for (const sequence of [1, 2, 4, 36]) received.note(sequence);
    assert.deepEqual(received.header, { ack: 36, ackBitfield: 2 ** 31 });
    received.note(35);
    assert.deepEqual(received.header, { ack: 36, ackBitfield: 2 ** 31 + 1 });
    assert.equal(received.earlier.toString("hex"), "60"); // 3 is missing, 2 and 1 are there
  });

  test("a packet is new once", () => {
    const received = new ReceivedPackets();
    assert.deepEqual(
      [5, 5, 3, 3, 5000, 5000, 3, 0].map((sequence) => received.note(sequence)),
      [true, false, true, false, true, false, false, false],
    );
  });

  test("whatever arrives in any order, exactly that is acknowledged", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 250 }), { minLength: 1, maxLength: 250 }),
        (sequences) => {
          const received = new ReceivedPackets();
          for (const sequence of sequences) received.note(sequence);
          const found: number[] = [];
          eachAcknowledged(received.header, received.earlier, 1, (sequence) => found.push(sequence));
          assert.deepEqual(
            found,
            [...new Set(sequences)].toSorted((a, b) => b - a),
          );
        },
      ),
      { seed: SEED, numRuns: 300 },
    );
  });

  test("at once for a gap, a repetition and the eighth packet; within 2 ms for others; never for one that does not ask", () => {
    const acks = new AckSchedule();
    assert.equal(acks.note(1, false, 0), true);
    assert.equal(acks.dueMs, Infinity);
    acks.note(2, true, 10);
    assert.equal(acks.dueMs, 12);
    assert.equal(acks.onSend(11), 1);
    acks.note(4, true, 20);
    assert.equal(acks.dueMs, 20);
    acks.onSend(20);
    assert.equal(acks.note(4, true, 30), false);
    assert.equal(acks.dueMs, 30);
    acks.onSend(30);
    for (let sequence = 5; sequence < 12; sequence++) acks.note(sequence, true, 40);
    assert.equal(acks.dueMs, 42);
    acks.note(12, true, 41);
    assert.equal(acks.dueMs, 41);
  });
});

describe("loss (RFC 9002 §6.1)", () => {
  const rtt = new RttEstimator();
  rtt.update(100, 0);

  test("three later ones acknowledged, or 9/8 round trips older than one", () => {
    const sent = new SentPackets();
    for (let sequence = 1; sequence <= 5; sequence++) sent.add(sentAt(sequence, sequence));
    assert.deepEqual(
      sent.acknowledge({ ack: 4, ackBitfield: 0 }, undefined).map(({ sequence }) => sequence),
      [4],
    );
    assert.deepEqual(
      sent.detectLost(50, rtt).map(({ sequence }) => sequence),
      [1],
    );
    assert.equal(sent.lossAtMs, 2 + 112.5);
    assert.deepEqual(sent.detectLost(114.4, rtt), []);
    assert.deepEqual(
      sent.detectLost(114.6, rtt).map(({ sequence }) => sequence),
      [2],
    );
    assert.deepEqual(
      sent.detectLost(1e6, rtt).map(({ sequence }) => sequence),
      [3],
    );
    assert.deepEqual(
      [sent.inFlight, sent.inFlightBytes, sent.oldest?.sequence, sent.lossAtMs],
      [1, 1200, 5, Infinity],
    );
  });

  test("an acknowledgement counts once, also of a packet that was never sent", () => {
    const sent = new SentPackets();
    sent.add(sentAt(1, 0));
    assert.equal(sent.acknowledge({ ack: 900, ackBitfield: 0xffffffff }, undefined).length, 0);
    assert.equal(sent.acknowledge({ ack: 1, ackBitfield: 0 }, undefined).length, 1);
    assert.equal(sent.acknowledge({ ack: 1, ackBitfield: 0 }, undefined).length, 0);
    assert.equal(sent.inFlightBytes, 0);
  });

  test("thousands under way, with holes: none is forgotten", () => {
    const sent = new SentPackets();
    for (let sequence = 10; sequence < 10_000; sequence += 3) sent.add(sentAt(sequence, sequence));
    const found = sent.detectLost(0, rtt).length;
    assert.equal(found, 0);
    assert.equal(sent.acknowledge({ ack: 9997, ackBitfield: 0 }, undefined).length, 1);
    assert.equal(sent.detectLost(1e9, rtt).length, 3329);
    assert.equal(sent.inFlight, 0);
  });
});

describe("round trips (RFC 6298 §2)", () => {
  test("the first sample, the next, and the acknowledgement's delay", () => {
    const rtt = new RttEstimator();
    assert.equal(rtt.isKnown, false);
    rtt.update(100, 0);
    assert.deepEqual([rtt.smoothedMs, rtt.variationMs, rtt.minMs], [100, 50, 100]);
    rtt.update(200, 20);
    assert.deepEqual([rtt.smoothedMs, rtt.variationMs], [110, 57.5]);
    assert.equal(rtt.latestMs, 180);
    rtt.update(101, 90); // a delay that cannot be
    assert.equal(rtt.latestMs, 100);
    assert.ok(rtt.probeTimeoutMs > rtt.smoothedMs + 4 * rtt.variationMs, `${rtt.probeTimeoutMs}`);
  });
});

describe("pacing", () => {
  test("after a burst, packets leave at the rate", () => {
    const pacer = new Pacer();
    let atMs = 0;
    for (let sent = 0; sent < 1000; sent++) {
      atMs = pacer.readyAtMs(atMs, 120, 1200);
      assert.equal(pacer.readyAtMs(atMs, 120, 1200), atMs);
      pacer.onSent(1200);
    }
    assert.ok(Math.abs(atMs - 9900) < 20, `${atMs} ms for 990 packets at one in 10 ms`);
  });

  test("a sender that was woken late makes up for it, but not one that had nothing to send", () => {
    const burstAt = (pacer: Pacer, nowMs: number) => {
      let sent = 0;
      for (; pacer.readyAtMs(nowMs, 120, 1200) <= nowMs; sent++) pacer.onSent(1200);
      return sent;
    };
    const pacer = new Pacer();
    assert.equal(burstAt(pacer, 0), 10);
    // It was due at 10: 40 ms late, at a packet in 10 ms.
    assert.equal(burstAt(pacer, 50), 5);
    assert.equal(burstAt(pacer, 5050), 11); // 100 ms late at most, and what may go at once in any case
    const idle = new Pacer();
    for (let i = 0; i < 10; i++) idle.onSent(1200);
    assert.equal(burstAt(idle, 5000), 10);
  });
});

describe("congestion control", () => {
  const rtt = new RttEstimator();
  rtt.update(100, 0);
  const ack = (event: Partial<AckEvent>): AckEvent => ({
    ...{ nowMs: 0, rtt, bytes: 1200, sentMs: 0, priorInFlightBytes: 1e9, inFlightBytes: 1e9, delivered: 0 },
    ...{ rate: { bytesPerMs: 1, isAppLimited: false, priorDelivered: 0 } },
    ...event,
  });
  const lossAt = (nowMs: number, sentMs: number) => ({ nowMs, bytes: 1200, sentMs, inFlightBytes: 0 });

  test("newreno doubles in a round trip, halves once in one, then grows by a packet", () => {
    const reno = new NewReno(1200);
    assert.deepEqual([reno.windowBytes, reno.mode], [12_000, "slow start"]);
    for (let i = 0; i < 10; i++) reno.onAck(ack({}));
    assert.equal(reno.windowBytes, 24_000);
    reno.onLoss(lossAt(10, 5));
    reno.onLoss(lossAt(11, 6));
    assert.deepEqual([reno.windowBytes, reno.mode], [12_000, "avoidance"]);
    reno.onAck(ack({ sentMs: 9 })); // sent before the loss was known
    assert.equal(reno.windowBytes, 12_000);
    for (let i = 0; i < 10; i++) reno.onAck(ack({ sentMs: 20 }));
    assert.ok(Math.abs(reno.windowBytes - 13_200) < 60, `${reno.windowBytes}`);
    reno.onAck(ack({ sentMs: 20, priorInFlightBytes: 1200 })); // the window was not used
    assert.ok(reno.windowBytes < 13_260, `${reno.windowBytes}`);
    reno.onTimeout();
    assert.equal(reno.windowBytes, 2400);
  });

  test("gaffer is good after 4 s of round trips under 250 ms, and its penalty doubles and halves", () => {
    const gaffer = new Gaffer(1000);
    const slow = new RttEstimator();
    slow.update(400, 0);
    const state = (nowMs: number, of = rtt) => {
      gaffer.onAck(ack({ nowMs, rtt: of }));
      return [gaffer.mode, gaffer.bytesPerMs, gaffer.penaltyMs];
    };
    assert.deepEqual(state(0), ["bad", 10, 4000]);
    assert.deepEqual(state(3999), ["bad", 10, 4000]);
    assert.deepEqual(state(4000), ["good", 30, 4000]);
    assert.deepEqual(state(13_999, slow), ["bad", 10, 8000]);
    assert.deepEqual(state(14_000), ["bad", 10, 8000]);
    assert.deepEqual(state(22_000), ["good", 30, 8000]);
    assert.deepEqual(state(32_000), ["good", 30, 4000]);
    assert.deepEqual(state(42_001, slow), ["bad", 10, 4000]);
    gaffer.onLoss();
    assert.equal(gaffer.mode, "bad");
  });

  test("bbr finds rate and round trip, and holds their product; loss without a queue does not move it", () => {
    const bbr = new Bbr(1200);
    assert.equal(bbr.mode, "startup");
    let delivered = 0;
    for (let round = 0; round < 30; round++) {
      delivered += 100_000;
      const rate = { bytesPerMs: 1000, isAppLimited: false, priorDelivered: delivered - 100_000 };
      bbr.onAck(
        ack({ nowMs: round * 100, delivered, rate, inFlightBytes: 50_000, priorInFlightBytes: 130_000 }),
      );
    }
    assert.equal(bbr.mode, "cruise");
    assert.equal(bbr.windowBytes, 2 * 1000 * 100 + 3600);
    bbr.onLoss(lossAt(3000, 2900));
    assert.equal(bbr.windowBytes, 203_600);
    bbr.onTimeout();
    assert.equal(bbr.windowBytes, 4800);
  });

  /** A round each 101 ms, of as many acknowledgements as there are round-trip times. */
  function rounds(bbr: Bbr, nowMs: number) {
    let delivered = 0;
    return (
      count: number,
      rttsMs: number | number[],
      bytesPerMs: number,
      inFlightBytes: number,
      isAppLimited = false,
    ) => {
      for (let i = 0; i < count; i++) {
        nowMs += 101;
        delivered += 1000;
        let priorDelivered = delivered - 1000;
        for (const rttMs of [rttsMs].flat()) {
          const rtt = new RttEstimator();
          rtt.update(rttMs, 0);
          const rate = { bytesPerMs, isAppLimited, priorDelivered };
          bbr.onAck(ack({ nowMs, rtt, delivered, rate, inFlightBytes, priorInFlightBytes: inFlightBytes }));
          priorDelivered = 0;
        }
      }
    };
  }

  test("bbr looks for a shorter round trip after 10 s without one, and afterwards goes on as before", () => {
    const bbr = new Bbr(1200);
    const run = rounds(bbr, 1e6); // whatever the clock shows at first
    run(10, 100, 1000, 50_000);
    assert.equal(bbr.mode, "cruise");
    run(80, 110, 1000, 100_000);
    assert.deepEqual([bbr.mode, bbr.minRttMs], ["cruise", 100]);
    run(25, 110, 1000, 100_000);
    assert.deepEqual([bbr.mode, bbr.minRttMs, bbr.windowBytes], ["probe RTT", 110, 4800]);
    run(20, 110, 500, 100_000); // until what is under way has arrived
    run(2, 105, 10, 4800);
    assert.equal(bbr.mode, "probe RTT");
    run(1, 105, 10, 4800);
    assert.deepEqual([bbr.mode, bbr.minRttMs], ["cruise", 105]);
    run(5, 105, 10, 4800); // sent before
    assert.ok(bbr.windowBytes > 2 * 1000 * 105, `${bbr.windowBytes}: what the path delivers was forgotten`);
  });

  test("bbr lets as much more be under way as comes in one bunch, for ten rounds, and not more than the path delivers in 100 ms", () => {
    const bbr = new Bbr(1200);
    const run = rounds(bbr, 0);
    run(10, 100, 1000, 50_000);
    const bunch = (bytes: number) =>
      bbr.onAck(
        ack({ nowMs: 1012, bytes, rate: { bytesPerMs: 1000, isAppLimited: false, priorDelivered: 0 } }),
      );
    bunch(30_000);
    bunch(10_000); // as early
    assert.equal(bbr.windowBytes, 240_000);
    bunch(70_000);
    assert.equal(bbr.windowBytes, 300_000);
    run(9, 100, 1000, 50_000);
    assert.equal(bbr.windowBytes, 300_000);
    run(2, 100, 1000, 50_000);
    assert.equal(bbr.windowBytes, 203_600);
  });

  const loss = (bytes: number) => ({ nowMs: 0, bytes, sentMs: 0, inFlightBytes: 50_000 });

  test("bbr that takes a loss for a full queue's makes room at once, and takes it back slowly", () => {
    const bbr = new Bbr(1200);
    const run = rounds(bbr, 0);
    run(10, 100, 1000, 50_000);
    run(2, 149, 1000, 50_000);
    bbr.onLoss(loss(1200));
    assert.equal(bbr.windowBytes, 203_600, "no queue to speak of");
    run(2, 151, 1000, 50_000);
    bbr.onLoss(loss(1000));
    assert.equal(bbr.windowBytes, 203_600, "2 % may be chance");
    bbr.onLoss(loss(1));
    bbr.onLoss(loss(1200)); // once a round
    assert.ok(Math.abs(bbr.windowBytes - 0.7 * 203_600) < 1, `${bbr.windowBytes}`);
    run(1, 151, 1000, 50_000); // the round of the loss
    assert.ok(Math.abs(bbr.windowBytes - 0.7 * 203_600) < 1, `${bbr.windowBytes}`);
    run(1, 151, 1000, 50_000);
    assert.ok(Math.abs(bbr.windowBytes - 0.7 * 203_600 * 1.08) < 1, `${bbr.windowBytes}`);
    bbr.onLoss(loss(1200));
    assert.equal(bbr.windowBytes, 125_000, "a quarter more than the pipe is left");
    run(30, 100, 1000, 50_000);
    assert.equal(bbr.windowBytes, 203_600);
  });

  test("bbr takes round trips that are long now and then for a busy machine's, and a loss then for chance", () => {
    const bbr = new Bbr(1200);
    const run = rounds(bbr, 0);
    run(10, 100, 1000, 50_000);
    for (let round = 0; round < 20; round++) {
      run(1, [400, 102, 400], 1000, 50_000);
      bbr.onLoss(loss(1200));
    }
    assert.equal(bbr.windowBytes, 203_600);
  });

  test("bbr leaves startup when a queue loses a fifth of what arrives, but not for a loss", () => {
    for (const [rttMs, lostBytes, mode] of [
      [200, 201, "cruise"],
      [200, 199, "startup"],
      [140, 500, "startup"],
    ] as const) {
      const bbr = new Bbr(1200);
      const run = rounds(bbr, 0);
      run(1, 100, 10, 50_000);
      run(2, rttMs, 1000, 50_000); // a hundred times faster: no reason to stop
      bbr.onLoss(loss(lostBytes)); // of 1000 in a round
      run(1, rttMs, 2000, 50_000);
      assert.equal(bbr.mode, mode, `${lostBytes} bytes, ${rttMs} ms`);
    }
  });

  test("bbr at first does not believe the rate of one small packet: it sends as fast as a first window in a round trip would need", () => {
    const bbr = new Bbr(1200);
    const run = rounds(bbr, 0);
    run(1, 100, 0.7, 0);
    assert.equal(bbr.bytesPerMs, (2.885 * 12_000) / 100);
    run(6, 100, 0.7, 0); // no more in three rounds: then it is believed
    assert.equal(bbr.mode, "cruise");
    assert.ok(bbr.bytesPerMs <= 1.25 * 0.7, `${bbr.bytesPerMs}`);
  });

  test("bbr that has nothing to send learns nothing: not that the path is full, nor that it is slow", () => {
    const bbr = new Bbr(1200);
    const run = rounds(bbr, 0);
    run(1, 100, 1000, 50_000);
    run(101, 110, 10, 9000, true);
    assert.equal(bbr.mode, "probe RTT"); // the clock of the shortest round trip goes on
    run(10, 110, 10, 9000);
    run(3, 110, 10, 1200);
    assert.equal(bbr.mode, "startup");
    assert.ok(bbr.windowBytes > 2 * 1000 * 100, `${bbr.windowBytes}`);
  });

  test("the delivery rate is the slower of sending and acknowledging", () => {
    const rate = new DeliveryRate();
    const first = { sentMs: 0, rate: rate.onSend(0, true) };
    const second = { sentMs: 10, rate: rate.onSend(10, false) };
    rate.onAck(100, 1000, first);
    const sample = rate.onAck(101, 1000, second); // acknowledgements in a bunch
    assert.ok(Math.abs(sample.bytesPerMs - 2000 / 101) < 1e-9, `${sample.bytesPerMs}`);
    rate.onAppLimited(500);
    assert.equal(rate.onSend(200, true).isAppLimited, true);
  });
});

describe("what is under way", () => {
  const piece = { offset: 0, length: 1 };
  const probe = { kind: "probe", padding: Buffer.alloc(1375) } as const;
  const upTo = (ack: number) => [{ ack, ackBitfield: 0 }, undefined, 0] as const;
  const fresh = () => new Flight(new NewReno(1200), { onAcked: () => {}, onLost: () => {} });

  test("silence makes two probes due, and an acknowledgement none", () => {
    const flight = fresh();
    flight.onSend(0, 1, 1200, piece);
    flight.onTime(flight.wakeAtMs - 1);
    assert.equal(flight.probesDue, 0);
    flight.onTime(flight.wakeAtMs);
    assert.equal(flight.probesDue, 2);
    flight.onAcks(2000, ...upTo(1));
    assert.equal(flight.probesDue, 0);
  });

  test("only the latest packet that came measures a round trip: word of an older one may have been lost", () => {
    const flight = fresh();
    flight.onSend(0, 1, 1200, piece);
    flight.onAcks(500, { ack: 2, ackBitfield: 1 }, undefined, 0);
    assert.deepEqual([flight.sent.inFlight, flight.rtt.isKnown], [0, false]);
  });

  test("after three timeouts in a row congestion control begins anew, not before", () => {
    const flight = fresh();
    flight.onSend(0, 1, 1200, piece);
    const windows = [1, 2, 3].map(() => {
      flight.onTime(flight.wakeAtMs);
      return flight.congestion.windowBytes;
    });
    assert.deepEqual(windows, [12_000, 12_000, 2400]);
  });

  test("a lost probe of size says that the size is too large, and nothing of congestion", () => {
    const flight = fresh();
    flight.mtu.begin(1400);
    flight.mtu.onProbe();
    flight.onSend(0, 1, 1400, probe);
    for (let sequence = 2; sequence <= 4; sequence++) flight.onSend(0, sequence, 1200, piece);
    flight.onAcks(100, ...upTo(4));
    assert.deepEqual([flight.sent.inFlight, flight.lostPackets, flight.mtu.wanted], [2, 0, 1280]);
    assert.equal(flight.congestion.windowBytes, 12_000);
  });

  test("congestion control learns how large packets are: when a probe arrives, and when two timeouts say that none of that size does", () => {
    const flight = fresh();
    flight.mtu.begin(1280);
    flight.onSend(0, 1, 1280, { ...probe, padding: Buffer.alloc(1255) });
    flight.onAcks(100, ...upTo(1));
    assert.equal(flight.congestion.packetBytes, 1280);
    flight.onSend(200, 2, 1280, piece);
    for (const bytes of [1280, 1200]) {
      flight.onTime(flight.wakeAtMs);
      assert.equal(flight.congestion.packetBytes, bytes);
    }
  });
});

describe("streams", () => {
  const FILE = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) & 255));

  test("pieces of any size in any order, again and again, come out as the file", () => {
    const pieces = fc.array(fc.tuple(fc.nat(4999), fc.integer({ min: 1, max: 900 })), { maxLength: 60 });
    fc.assert(
      fc.property(pieces, (some) => {
        const stream = new InStream(0, 100_000, FILE.length);
        const out: Buffer[] = [];
        const rest = Array.from({ length: 10 }, (_, i) => [i * 500, 500] as const);
        for (const [offset, length] of [...some, ...rest]) {
          const isNew = stream.insert(offset, FILE.subarray(offset, offset + length));
          if (isNew && offset % 3 === 0) out.push(...stream.take());
        }
        out.push(...stream.take());
        assert.ok(Buffer.concat(out).equals(FILE), "the file");
        assert.ok(stream.isComplete, "complete");
        assert.equal(stream.bufferedBytes, 0);
      }),
      { seed: SEED, numRuns: 500 },
    );
  });

  test("what is beyond the limit or the end is refused; the limit moves with the reader", () => {
    const stream = new InStream(100, 1000, 5000);
    assert.equal(stream.limit, 1100);
    assert.throws(() => stream.insert(101, Buffer.alloc(1000)), /beyond the limit of 1100/);
    assert.equal(stream.insert(100, Buffer.alloc(1000)), true);
    assert.equal(stream.insert(100, Buffer.alloc(1000)), false);
    assert.equal(stream.limit, 1100);
    stream.take();
    assert.equal(stream.limit, 2100);
    assert.throws(() => new InStream(0, 1e6, 10).insert(5, Buffer.alloc(6)), /of a file of 10/);
  });

  test("pieces from the end to the beginning: none is looked for among all the others", () => {
    const count = 20_000;
    const stream = new InStream(0, count * 128, count * 128);
    let looks = 0;
    for (let i = count - 1; i >= 0; i--) {
      const offset = i * 128;
      // A number that counts how often it is compared or reckoned with.
      const look = () => {
        looks++;
        return offset;
      };
      const counted = { valueOf: look } as unknown as number;
      stream.insert(counted, FILE.subarray(0, 128));
    }
    assert.ok(stream.isComplete, "complete");
    assert.ok(looks < count * 60, `${looks} looks at ${count} offsets`);
  });

  test("single bytes cannot fill the memory", () => {
    const stream = new InStream(0, 2 ** 20, 2 ** 20);
    assert.throws(() => {
      for (let offset = 1; offset < 2 ** 20; offset += 2) stream.insert(offset, Buffer.of(1));
    }, /too many small pieces/);
  });

  test("a window of the smallest packets may come before the piece that is missing", () => {
    const pieceBytes = MIN_MTU - DATA_OVERHEAD;
    const size = 700 * pieceBytes;
    const stream = new InStream(0, size, size);
    for (let offset = pieceBytes; offset < size; offset += pieceBytes)
      stream.insert(offset, Buffer.alloc(pieceBytes));
    stream.insert(0, Buffer.alloc(pieceBytes));
    assert.ok(stream.isComplete);
  });

  test("large pieces across hundreds of small ones do not wait twice, nor hold more memory than their bytes", () => {
    const stream = new InStream(0, 2 ** 20, 2 ** 20);
    for (let round = 0; round < 100; round++) {
      for (let i = 1; i <= 130; i++) stream.insert(130 * round + 2 * i, Buffer.of(1));
      stream.insert(130 * round + 1, Buffer.alloc(60_000));
    }
    assert.ok(stream.bufferedBytes < 80_000, `${stream.bufferedBytes} bytes`);
    stream.insert(0, Buffer.of(1));
    const memory = new Set(stream.take().map(({ buffer }) => buffer));
    const bytes = [...memory].reduce((sum, { byteLength }) => sum + byteLength, 0);
    assert.ok(bytes < 1_000_000, `${bytes} bytes of memory`);
  });

  test("the sender's side: lost pieces first, none beyond the limit, none that has arrived", () => {
    const stream = new OutStream(0, 10_000, 3000);
    stream.write(Buffer.alloc(2500, "a"));
    stream.write(Buffer.alloc(7500, "b"));
    const offsets = () =>
      [stream.next(1000)].map(
        (piece) => piece && [piece.offset, piece.bytes.length, piece.isRetransmission],
      )[0];
    assert.deepEqual(offsets(), [0, 1000, false]);
    assert.deepEqual(offsets(), [1000, 1000, false]);
    assert.deepEqual(offsets(), [2000, 500, false]); // ends with its chunk
    stream.onLost(1000, 1000);
    assert.deepEqual(offsets(), [1000, 1000, true]);
    assert.deepEqual(offsets(), [2500, 500, false]);
    assert.deepEqual([offsets(), stream.isBlocked, stream.hasData], [undefined, true, false]);
    stream.onLost(0, 1000);
    assert.equal(stream.onWindow(1000, 4000), true);
    assert.deepEqual(offsets(), [3000, 1000, false]);
    stream.onLost(1000, 1000);
    assert.deepEqual(
      [stream.next(300)?.offset, stream.next(300)?.offset, stream.next(999)?.bytes.length],
      [1000, 1300, 400],
    );
    assert.equal(stream.onWindow(500, 100), false);
    assert.equal(stream.bufferedBytes, 9000);
  });

  test("a piece that was taken for lost and has come is nothing that could be sent: the limit is what keeps it", () => {
    const stream = new OutStream(0, 10_000, 1000);
    stream.write(Buffer.alloc(10_000));
    stream.next(1000);
    stream.onLost(0, 1000);
    stream.onWindow(1000, 1000);
    assert.equal(stream.isBlocked, true);
  });

  test("an unordered message is taken once", () => {
    const once = new Once();
    assert.deepEqual(
      [1, 1, 0, 1, 0, 2, 2, 70_000].map((number) => once.take(number)),
      [true, false, true, false, false, true, false, false],
    );
  });

  test("the MTU: larger while probes arrive, left alone after three that do not", () => {
    const mtu = new MtuSearch();
    mtu.begin(4096);
    assert.deepEqual([mtu.currentBytes, mtu.wanted], [1200, 1280]);
    mtu.onProbe();
    assert.equal(mtu.wanted, undefined);
    mtu.onArrived(1280);
    for (let i = 0; i < 3; i++) {
      assert.equal(mtu.wanted, 1400);
      mtu.onProbe();
      mtu.onLost();
    }
    assert.deepEqual([mtu.currentBytes, mtu.wanted], [1280, undefined]);
    mtu.onBlackHole(); // may have been an outage: it looks again
    assert.deepEqual([mtu.currentBytes, mtu.wanted], [1200, 1280]);
    mtu.onArrived(1280);
    assert.deepEqual([mtu.currentBytes, mtu.wanted], [1280, 1400]);
    mtu.begin(600);
    assert.deepEqual([mtu.currentBytes, mtu.wanted], [600, undefined]);
  });
});
