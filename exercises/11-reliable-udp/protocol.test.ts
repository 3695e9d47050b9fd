/** Packets as they travel: golden bytes, round trips, truncation, damage; cookies. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { decode, encode, PduError } from "../../shared/pdu.ts";
import {
  cookieFor,
  DATA_OVERHEAD,
  isCookieFor,
  type Message,
  NO_TOKEN,
  numberOf,
  Packet,
  seal,
  sealData,
  unseal,
} from "./protocol.ts";

const SEED = 11;
const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ""), "hex");
const TOKEN = hex("0102030405060708");
const bytesOf = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((bytes) => Buffer.from(bytes));
const upTo = (maxLength: number) => fc.uint8Array({ maxLength }).map((bytes) => Buffer.from(bytes));
const u32s = fc.nat({ max: 2 ** 32 - 1 });
const u64s = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const texts = fc.string({ maxLength: 100, unit: "grapheme" });
const messages: fc.Arbitrary<Message> = fc.oneof(
  fc.record({
    ...{
      kind: fc.constant("open" as const),
      request: fc.constantFrom("get", "put", "list", "events"),
      token: bytesOf(8),
    },
    ...{
      mtu: fc.nat(65_535),
      window: u32s,
      offset: u64s,
      size: u64s,
      sha256: bytesOf(32),
      cookie: upTo(32),
      name: texts,
    },
  }) as fc.Arbitrary<Message>,
  fc.record({ kind: fc.constant("challenge" as const), cookie: upTo(32) }),
  fc.record({
    kind: fc.constant("accept" as const),
    token: bytesOf(8),
    mtu: fc.nat(65_535),
    window: u32s,
    size: u64s,
    sha256: bytesOf(32),
  }),
  fc.record({
    kind: fc.constant("window" as const),
    received: u64s,
    limit: u64s,
    delayUs: u32s,
    earlier: upTo(40),
  }),
  fc.record({ kind: fc.constant("probe" as const), padding: upTo(40) }),
  fc.record({ kind: fc.constant("error" as const), code: fc.constant("stopped" as const), reason: texts }),
  fc.record({ kind: fc.constant("event" as const), number: u32s, sentUs: u64s, body: upTo(40) }),
  fc.constant({ kind: "done" as const }),
);

describe("packets", () => {
  test("golden bytes", () => {
    const hi = Buffer.from("hi");
    const data = Buffer.concat(sealData(7, { ack: 5, ackBitfield: 0b1011 }, TOKEN, 2 ** 33 + 1, hi));
    assert.equal(
      data.toString("hex"),
      "00000007000000050000000b01020304050607083819c886060000000200000001" + "6869",
    );
    const done = seal(1, { ack: 0, ackBitfield: 0 }, TOKEN, { kind: "done" });
    assert.equal(done.toString("hex"), "0000000100000000000000000102030405060708" + "8393a3a1" + "09");
  });

  test("what is written by hand is what the declaration says", () => {
    fc.assert(
      fc.property(
        u32s,
        u32s,
        u32s,
        bytesOf(8),
        fc.nat({ max: 2 ** 52 }),
        upTo(60),
        (sequence, ack, ackBitfield, token, offset, piece) => {
          fc.pre(piece.length > 0);
          const acks = { ack, ackBitfield };
          const byHand = Buffer.concat(sealData(sequence, acks, token, offset, piece));
          assert.deepEqual(
            byHand,
            seal(sequence, acks, token, { kind: "data", offset: BigInt(offset), bytes: piece }),
          );
          assert.equal(byHand.length, DATA_OVERHEAD + piece.length);
          const back = unseal(byHand);
          assert.deepEqual(back, {
            sequence,
            ...acks,
            token: token.toString("latin1"),
            message: { kind: "data", offset, bytes: piece },
          });
        },
      ),
      { seed: SEED },
    );
  });

  test("every message comes back as it was", () => {
    fc.assert(
      fc.property(u32s, bytesOf(8), messages, (sequence, token, message) => {
        const arrived = unseal(seal(sequence, { ack: 3, ackBitfield: 1 }, token, message));
        assert.deepEqual(arrived?.message, { ...message });
        assert.equal(arrived?.sequence, sequence);
      }),
      { seed: SEED, numRuns: 300 },
    );
  });

  test("cut at every offset, and every bit flipped: lost, or refused; never something else", () => {
    fc.assert(
      fc.property(messages, (message) => {
        const packet = seal(9, { ack: 3, ackBitfield: 1 }, TOKEN, message);
        for (let size = 0; size < packet.length; size++)
          assert.equal(unseal(Buffer.from(packet.subarray(0, size))), undefined);
        for (let bit = 0; bit < packet.length * 8; bit++) {
          const damaged = Buffer.from(packet);
          damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (0x80 >> (bit & 7));
          assert.equal(unseal(damaged), undefined, `bit ${bit}`);
        }
      }),
      { seed: SEED, numRuns: 20 },
    );
  });

  test("with a right checksum, any content decodes or is a PduError", () => {
    fc.assert(
      fc.property(upTo(120), (bytes) => {
        const packet = Buffer.concat([Buffer.alloc(24), bytes]);
        packet.writeUInt32BE(crc32(packet), 20);
        try {
          unseal(packet);
        } catch (error) {
          assert.ok(error instanceof PduError, `${error}`);
        }
      }),
      { seed: SEED, numRuns: 2000 },
    );
  });

  test("an offset beyond 2^53 and a data packet without data are refused", () => {
    assert.throws(
      () =>
        unseal(
          seal(1, { ack: 0, ackBitfield: 0 }, TOKEN, {
            kind: "data",
            offset: 2n ** 60n,
            bytes: Buffer.of(1),
          }),
        ),
      PduError,
    );
    assert.throws(
      () => unseal(Buffer.concat(sealData(1, { ack: 0, ackBitfield: 0 }, TOKEN, 0, Buffer.alloc(0)))),
      PduError,
    );
    assert.throws(() => numberOf(2n ** 63n), PduError);
    assert.equal(numberOf(2n ** 53n - 1n), 2 ** 53 - 1);
  });

  test("the header stands where the assignment has it", () => {
    const { sequence, ack, ackBitfield } = decode(
      Packet,
      hex(`00000001 00000002 80000003 ${"00".repeat(12)} 09`),
    );
    assert.deepEqual([sequence, ack, ackBitfield], [1, 2, 0x80000003]);
    assert.equal(
      encode(Packet, { sequence, ack, ackBitfield, token: NO_TOKEN, checksum: 0, message: { kind: "done" } })
        .length,
      25,
    );
  });
});

describe("cookies", () => {
  const secret = Buffer.alloc(32, 1);
  test("good for address, token and a while; for nothing else", () => {
    const cookie = cookieFor(secret, "192.0.2.1:5", TOKEN, 100_000);
    for (const atMs of [100_000, 109_999, 110_000, 119_999])
      assert.ok(isCookieFor(cookie, secret, "192.0.2.1:5", TOKEN, atMs), `${atMs}`);
    for (const atMs of [89_999, 120_000])
      assert.ok(!isCookieFor(cookie, secret, "192.0.2.1:5", TOKEN, atMs), `${atMs}`);
    assert.ok(!isCookieFor(cookie, secret, "192.0.2.1:6", TOKEN, 100_000), "another port");
    assert.ok(!isCookieFor(cookie, secret, "192.0.2.1:5", NO_TOKEN, 100_000), "another token");
    assert.ok(!isCookieFor(cookie, Buffer.alloc(32, 2), "192.0.2.1:5", TOKEN, 100_000), "another secret");
    assert.ok(!isCookieFor(Buffer.alloc(0), secret, "192.0.2.1:5", TOKEN, 100_000), "none");
  });
});
