/** The frame and what it means: golden bytes, round trips, damage; the files of messages. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { Failure } from "../../shared/errors.ts";
import { decode, encode, PduError } from "../../shared/pdu.ts";
import {
  compareTurns,
  Frame,
  frameOf,
  MAX_FRAME_BYTES,
  MAX_ID,
  MAX_TEXT_BYTES,
  type Meaning,
  parseMessages,
  ringFrom,
  understand,
} from "./protocol.ts";

const SEED = 13;

const message = {
  kind: "message",
  idSource: 1,
  idDestination: 2,
  acknowledged: false,
  generation: 3,
  issuer: 0,
  round: 5,
  number: 7,
  attempt: 1,
  text: "hé",
} as const;
/** A frame of each kind, written by hand from the README. */
const GOLDEN: [name: string, hex: string, meaning: Meaning][] = [
  ["message", "00000001 00000002 00 0000000d 33 20 30 20 35 20 37 20 31 20 68 c3a9", message],
  [
    "message, taken",
    "00000001 00000002 40 0000000d 33 20 30 20 35 20 37 20 31 20 68 c3a9",
    { ...message, acknowledged: true },
  ],
  [
    "turn",
    "00000000 00000001 80 00000006 32 20 30 20 3137",
    { kind: "turn", idSource: 0, idDestination: 1, generation: 2, issuer: 0, round: 17 },
  ],
  [
    "claim",
    "00000003 00000003 a0 00000003 34 20 39",
    { kind: "claim", idSource: 3, idDestination: 3, generation: 4, attempt: 9 },
  ],
  ["finish", "00000000 00000000 20 00000000", { kind: "finish", idSource: 0, idDestination: 0 }],
  [
    "probe",
    "ffffffff 00000000 60 00000001 30",
    { kind: "probe", idSource: MAX_ID, idDestination: 0, generation: 0 },
  ],
];
const bytesOf = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");
const read = (bytes: Buffer) => understand(decode(Frame, bytes));

for (const [name, hex, meaning] of GOLDEN) {
  test(`${name}: its bytes`, () => {
    assert.equal(encode(Frame, frameOf(meaning)).toString("hex"), bytesOf(hex).toString("hex"));
    assert.deepEqual(read(bytesOf(hex)), meaning);
  });

  test(`${name}: cut at any offset it is a PduError, and no end is found in it`, () => {
    const bytes = bytesOf(hex);
    for (let size = 0; size < bytes.length; size++) {
      assert.throws(() => read(bytes.subarray(0, size)), PduError);
      assert.ok(Frame.endOf(bytes.subarray(0, size), 0) > size);
    }
    assert.equal(Frame.endOf(bytes, 0), bytes.length);
  });

  test(`${name}: with any byte changed it is read, or a PduError`, () => {
    const bytes = bytesOf(hex);
    for (let at = 0; at < bytes.length; at++) {
      for (let change = 1; change < 256; change++) {
        const damaged = Buffer.from(bytes);
        damaged[at] = (bytes[at] ?? 0) ^ change;
        try {
          read(damaged);
        } catch (error) {
          assert.ok(error instanceof PduError, `byte ${at} ^ ${change}: ${error}`);
        }
      }
    }
  });
}

test(`every meaning survives the wire (seed ${SEED})`, () => {
  const id = fc.integer({ min: 0, max: MAX_ID });
  const number = fc.maxSafeNat();
  const ids = { idSource: id, idDestination: id };
  const text = fc.string({ unit: fc.constantFrom(..."a 0\n\r\0\u001bñ€😀"), maxLength: 50 });
  const meaning: fc.Arbitrary<Meaning> = fc.oneof(
    fc.record({
      kind: fc.constant("message" as const),
      ...ids,
      acknowledged: fc.boolean(),
      generation: number,
      issuer: number,
      round: number,
      number,
      attempt: number,
      text,
    }),
    fc.record({
      kind: fc.constant("turn" as const),
      ...ids,
      generation: number,
      issuer: number,
      round: number,
    }),
    fc.record({ kind: fc.constant("claim" as const), ...ids, generation: number, attempt: number }),
    fc.record({ kind: fc.constant("probe" as const), ...ids, generation: number }),
    fc.record({ kind: fc.constant("finish" as const), ...ids }),
  );
  fc.assert(
    fc.property(meaning, (value) => {
      const bytes = encode(Frame, frameOf(value));
      assert.deepEqual(read(bytes), { ...value });
      assert.equal(Frame.endOf(bytes, 0), bytes.length);
    }),
    { seed: SEED, numRuns: 500 },
  );
});

test("reserved bits are ignored, and sent as 0", () => {
  const frame = bytesOf("00000000 00000000 3f 00000000");
  assert.deepEqual(read(frame), { kind: "finish", idSource: 0, idDestination: 0 });
  assert.equal(encode(Frame, frameOf(read(frame)))[8], 0x20);
});

test("flags that together mean nothing are refused", () => {
  for (const flags of [0xc0, 0xe0]) {
    const frame = bytesOf("00000000 00000001 80 00000005 31 20 31 20 31");
    frame[8] = flags;
    assert.throws(() => read(frame), { name: "PduError", path: "PAL.flags" });
  }
});

test("data that do not follow the grammar are refused", () => {
  const dataOf: Record<string, readonly [flags: number, ...data: string[]]> = {
    message: [
      0x00,
      "",
      "1",
      "1 1 1 1",
      "1 1 1 1 1",
      "01 1 1 1 1 x",
      "1 1 1 1 -1 x",
      "1  1 1 1 1 x",
      " 1 1 1 1 1 x",
      "a 1 1 1 1 x",
    ],
    turn: [
      0x80,
      "",
      "1 1",
      "1 1 1 ",
      "1 1 1 1",
      "1 1 1\n",
      "1,1,1",
      "1 1 0x1",
      "1 1 1.0",
      "+1 1 1",
      "1 1 1e3",
      "１ 1 1",
    ],
    claim: [0xa0, "", "1", "1 1 1", "1 01", "1 9007199254740992", "1 12345678901234567"],
    probe: [0x60, "", "1 ", "00", "-0", "one"],
    finish: [0x20, " ", "0", "now"],
  };
  for (const [kind, [flags, ...data]] of Object.entries(dataOf)) {
    for (const text of data) {
      const content = Buffer.from(text);
      const header = bytesOf(`00000000 00000000 ${flags.toString(16).padStart(2, "0")} 00000000`);
      header.writeUInt32BE(content.length, 9);
      assert.throws(
        () => read(Buffer.concat([header, content])),
        { name: "PduError", path: "PAL.data" },
        `${kind} ${JSON.stringify(text)}`,
      );
    }
  }
});

test("data that are not UTF-8 are refused", () => {
  assert.throws(
    () => read(bytesOf("00000000 00000000 00 0000000b 31 20 31 20 31 20 31 20 31 20 ff")),
    PduError,
  );
});

test("the largest number and the longest text fit, in no more than the largest frame", () => {
  const largest = Number.MAX_SAFE_INTEGER;
  const numbers = { generation: largest, issuer: largest, round: largest, number: largest, attempt: largest };
  const value: Meaning = { ...message, ...numbers, text: "x".repeat(MAX_TEXT_BYTES) };
  const bytes = encode(Frame, frameOf(value));
  assert.equal(bytes.length, MAX_FRAME_BYTES);
  assert.equal(MAX_FRAME_BYTES, 1_048_674);
  assert.deepEqual(read(bytes), value);
});

test("a text may be empty, and hold spaces, numbers and line ends", () => {
  for (const text of ["", " ", "1 2 3", "a\r\nb\n", "\u2028", "\0"]) {
    const value: Meaning = { ...message, text };
    assert.deepEqual(read(encode(Frame, frameOf(value))), value);
  }
});

test("of two turns the later generation is valid, then the smaller issuer, then the later round", () => {
  const ascending = [
    [1, 5, 9],
    [1, 4, 1],
    [1, 4, 2],
    [1, 0, 1],
    [2, 9, 1],
  ].map(([generation = 0, issuer = 0, round = 0]) => ({ generation, issuer, round }));
  for (const [i, a] of ascending.entries())
    for (const [j, b] of ascending.entries()) assert.equal(Math.sign(compareTurns(a, b)), Math.sign(i - j));
});

test("the ring from a station: in the list's order from its first successor on, itself last", () => {
  assert.deepEqual(ringFrom(1, 2, [0, 1, 2, 3]), [2, 3, 0, 1]);
  assert.deepEqual(ringFrom(3, 0, [0, 1, 2, 3]), [0, 1, 2, 3]);
  assert.deepEqual(ringFrom(0, 2, [0, 1, 2, 3]), [2, 3, 1, 0]);
  assert.deepEqual(ringFrom(7, 7, [9, 7, 8]), [8, 9, 7]);
  assert.deepEqual(ringFrom(5, 5, [5]), [5]);
});

test("a file of messages: a destination and a text a line; comments and empty lines say nothing", () => {
  const file = `# a comment\r\n1 hello\r\n\n  \n  2  two spaces\n 3\n# 4 no\n${MAX_ID} last # not a comment\n0 \tñ\r\u2028ñ`;
  assert.deepEqual(parseMessages(file), [
    { idDestination: 1, text: "hello" },
    { idDestination: 2, text: " two spaces" },
    { idDestination: 3, text: "" },
    { idDestination: MAX_ID, text: "last # not a comment" },
    { idDestination: 0, text: "\tñ\r\u2028ñ" },
  ]);
  assert.deepEqual(parseMessages(""), []);
});

test("a line that is no message is refused with its number", () => {
  for (const line of ["hello", "-1 x", `${MAX_ID + 1} x`, "1:x", "1.5 x", "0x1 x", "1\tx"]) {
    assert.throws(
      () => parseMessages(`0 a\n# b\n${line}\n0 c`),
      (error: Error) => error instanceof Failure && error.message.startsWith("line 3: must be a destination"),
      line,
    );
  }
});

test("a text of 1 MiB is taken, counted in bytes, and a longer one refused", () => {
  const longest = "é".repeat(MAX_TEXT_BYTES / 2);
  assert.equal(parseMessages(`1 ${longest}`)[0]?.text, longest);
  assert.throws(() => parseMessages(`0 a\n1 ${longest}x`), {
    message: "line 2: the text is longer than 1048576 bytes",
  });
});
