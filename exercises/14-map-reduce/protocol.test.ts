/** The messages: golden bytes, round trips, damage; and the master's rules of who gets which part. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { decode, encode, PduError } from "../../shared/pdu.ts";
import { Board } from "./board.ts";
import { MAX_DATA_BYTES, Message } from "./protocol.ts";

const SEED = 14;
const totals = { terms: 2, words: 5n, invalidBytes: 1n, longTerms: 0n };
const TOTALS = "00000002 0000000000000005 0000000000000001 0000000000000000";
/** One of each, written by hand from the README. */
const GOLDEN: [hex: string, message: Message][] = [
  [
    "01 4e4c4d52 01 00000000000000ff 0002 00000bb8 2c88 02 3a3a",
    { type: "job", job: 255n, parts: 2, silenceMs: 3000, reducerPort: 11_400, reducerHost: "::" },
  ],
  ["02 02", { type: "ready", role: "reducer" }],
  ["03 0001 0000000000000009", { type: "part", part: 1, sizeBytes: 9n }],
  ["04 00000003 61c3b1", { type: "chunk", data: Buffer.from("añ") }],
  ["05 0001 03 0002 6e6f", { type: "partDone", part: 1, outcome: "failed", reason: "no" }],
  ["06 4e4c4d52 01 00000000000000ff 0001", { type: "announce", job: 255n, part: 1 }],
  ["07", { type: "grant" }],
  ["08 02", { type: "refuse", reason: "received" }],
  ["09 00000004 61093 20a".replaceAll(" ", ""), { type: "result", lines: Buffer.from("a\t2\n") }],
  [`0a ${TOTALS}`, { type: "resultEnd", ...totals }],
  ["0b", { type: "received" }],
  ["0c 0001 03", { type: "partState", part: 1, state: "dropped" }],
  [`0d ${TOTALS}`, { type: "jobDone", ...totals }],
  ["0e 0000000000000007", { type: "alive", countedBytes: 7n }],
  ["0f 0002 6e6f", { type: "error", reason: "no" }],
];
const bytesOf = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

for (const [hex, message] of GOLDEN) {
  test(`${message.type}: its bytes, cut anywhere, and with any byte changed`, () => {
    const bytes = bytesOf(hex);
    assert.equal(encode(Message, message).toString("hex"), bytes.toString("hex"));
    assert.deepEqual(decode(Message, bytes), message);
    assert.equal(Message.endOf(bytes, 0), bytes.length);
    for (let size = 0; size < bytes.length; size++) {
      assert.throws(() => decode(Message, bytes.subarray(0, size)), PduError);
      assert.ok(Message.endOf(bytes.subarray(0, size), 0) > size);
    }
    for (let at = 0; at < bytes.length; at++)
      for (let change = 1; change < 256; change++) {
        const damaged = Buffer.from(bytes);
        damaged[at] = (bytes[at] ?? 0) ^ change;
        try {
          decode(Message, damaged);
        } catch (error) {
          assert.ok(error instanceof PduError, `byte ${at} ^ ${change}: ${error}`);
        }
      }
  });
}

test("all messages of the protocol are among the golden ones", () => {
  assert.ok(Message.shape.kind === "union");
  assert.deepEqual(
    GOLDEN.map(([, { type }]) => type),
    Message.shape.variants.map(({ name }) => name),
  );
});

test(`every part, chunk and result survives the wire (seed ${SEED})`, () => {
  const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
  const part = fc.integer({ min: 0, max: 65_535 });
  const data = fc.uint8Array({ maxLength: 300 }).map(Buffer.from);
  const message: fc.Arbitrary<Message> = fc.oneof(
    fc.record({ type: fc.constant("part" as const), part, sizeBytes: u64 }),
    fc.record({ type: fc.constant("chunk" as const), data }),
    fc.record({ type: fc.constant("result" as const), lines: data }),
    fc.record({
      type: fc.constant("partDone" as const),
      part,
      outcome: fc.constantFrom("delivered", "refused", "failed"),
      reason: fc.string({ unit: "grapheme" }),
    }),
  );
  fc.assert(
    fc.property(message, (message) =>
      assert.deepEqual(decode(Message, encode(Message, message)), { ...message }),
    ),
    { seed: SEED },
  );
});

test("a chunk over the limit is refused by its length, before its data", () => {
  const head = Buffer.alloc(5);
  head[0] = 4;
  head.writeUInt32BE(MAX_DATA_BYTES + 1, 1);
  assert.throws(() => Message.endOf(head, 0), PduError);
});

describe("who gets which part", () => {
  const names = (count: number) => Array.from({ length: count }, (_, i) => `m${i + 1}`);
  const take = (board: Board, count: number) => names(count).map((name) => board.take(name));

  test("each part goes to two mappers; who is more gets none", () => {
    assert.deepEqual(take(new Board(2, 2), 5), [0, 1, 0, 1, undefined]);
    assert.deepEqual(take(new Board(1, 2), 2), [0, 0]);
    assert.deepEqual(take(new Board(3, 1), 4), [0, 1, 2, undefined]);
  });

  test("a mapper never has the same part twice at once", () => {
    const board = new Board(1, 2);
    assert.equal(board.take("m1"), 0);
    assert.equal(board.take("m1"), undefined);
  });

  test("what is on its way to the reducer, or there, is given to nobody", () => {
    for (const state of ["granted", "received"] as const) {
      const board = new Board(1, 2);
      assert.equal(board.take("m1"), 0);
      board.set(0, state);
      assert.equal(board.take("m2"), undefined);
    }
  });

  test("the part of a lost mapper is given to another, and so is one whose result was lost", () => {
    const board = new Board(2, 2);
    take(board, 4);
    board.release("m1");
    assert.equal(board.take("m5"), 0);
    board.set(1, "granted");
    for (const name of ["m2", "m4"]) board.release(name);
    assert.equal(board.take("m4"), undefined);
    board.set(1, "open");
    assert.equal(board.take("m4"), 1);
  });

  test("what was received stays so, and when all is, the job is done", () => {
    const board = new Board(2, 2);
    assert.equal(board.isDone, false);
    board.set(0, "received");
    board.set(0, "open");
    assert.equal(board.take("m1"), 1);
    board.set(7, "received"); // of a reducer that cannot count
    assert.equal(board.isDone, false);
    board.set(1, "received");
    assert.equal(board.isDone, true);
  });
});
