import { strict as assert } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { diagram, table } from "./describe.ts";
import * as p from "./pdu.ts";

const lines = (text: string) => text.replace(/^\n/, "").replace(/\n *$/, "");

const Frame = p.struct("PAL", {
  source: [p.u32, "node that put the frame on the ring"],
  flags: [p.bits({ turn: 1, ack: 1, finish: 1, reserved: 5 }), "T, A, F"],
  data: [p.text(p.u32), "length-prefixed"],
  checksum: [p.u16, "over what is before"],
});

test("a field that is not aligned goes on in the next row; what varies in size has a row of its own", () => {
  assert.equal(
    diagram(Frame.shape),
    lines(`
 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|                            source                             |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|T|A|F|reserved |                  data length                  |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|               |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
~                      data (length bytes)                      ~
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|           checksum            |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
`),
  );
  assert.equal(
    table(Frame.shape),
    lines(`
| offset | size | field | type | meaning |
|---|---|---|---|---|
| 0 | 4 | source | u32 | node that put the frame on the ring |
| 4 | 1 | flags | bits | T, A, F |
|  | bit 0 | flags.turn | flag |  |
|  | bit 1 | flags.ack | flag |  |
|  | bit 2 | flags.finish | flag |  |
|  | bits 3–7 | flags.reserved | u5 | 0 when sent, ignored when received |
| 5 | 4 | data length | u32 | bytes of data |
| 9 | length bytes | data | UTF-8 | length-prefixed |
| … | 2 | checksum | u16 | over what is before |
`),
  );
});

const Fixed = p.struct("Fixed", {
  magic: [p.constant(p.u16, 0xab), "tells it from others"],
  label: [p.constant(p.fixedText(2), "NL"), ""],
  kind: [p.enumOf(p.u8, { request: 0, reply: 7 }), "a | b"],
  time: [p.u64, "milliseconds"],
  point: [p.struct("Point", { x: [p.i16, "across"], zone: [p.fixedText(24), "where"] }), "in it"],
  level: [p.constant(p.i8, -1), ""],
});

test("a field of several rows has no line across; a long one is not drawn to scale", () => {
  assert.equal(
    diagram(Fixed.shape),
    lines(`
 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|             magic             |             label             |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|     kind      |                                               |
+-+-+-+-+-+-+-+-+                                               +
|                             time                              |
+               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|               |            point.x            |               |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+               +
/                     point.zone (24 bytes)                     /
+                                               +-+-+-+-+-+-+-+-+
|                                               |     level     |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
`),
  );
  assert.equal(
    table(Fixed.shape),
    lines(`
| offset | size | field | type | meaning |
|---|---|---|---|---|
| 0 | 2 | magic | u16 | tells it from others; always 0x00AB |
| 2 | 2 | label | UTF-8, NUL-padded | always "NL" |
| 4 | 1 | kind | u8 | a \\| b; 0 = request, 7 = reply |
| 5 | 8 | time | u64 | milliseconds |
| 13 | 2 | point.x | i16 | across |
| 15 | 24 | point.zone | UTF-8, NUL-padded | where |
| 39 | 1 | level | i8 | always -1 |
`),
  );
});

test("two rows of one field have their name between them, narrow cells what fits", () => {
  const Narrow = p.struct("Narrow", {
    id: [p.u64, ""],
    bits: [p.bits({ leap: 2, version: 3, mode: 3 }), ""],
    hash: [p.fixedBytes(16), ""],
  });
  assert.equal(
    diagram(Narrow.shape).split("\n").slice(2).join("\n"),
    lines(`
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|                                                               |
+                              id                               +
|                                                               |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|lea|versi|mode |                                               |
+-+-+-+-+-+-+-+-+                                               +
|                                                               |
+                                                               +
|                             hash                              |
+                                                               +
|                                                               |
+               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|               |
+-+-+-+-+-+-+-+-+
`),
  );
});

const Message = p.union("Message", "kind", p.u8, {
  open: [
    1,
    { token: [p.u32, "random"], path: [p.text(p.u16), "of the file"], at: [p.u8, "where"] },
    "begins",
  ],
  end: [2, {}, ""],
});
const Packet = p.struct("Packet", {
  sequence: [p.u16, "never used twice"],
  message: [Message, "what it says"],
});

const OPEN = `
 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|   kind = 1    |                     token                     |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|               |          path length          |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
~                      path (length bytes)                      ~
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|      at       |
+-+-+-+-+-+-+-+-+
`;
const END = `
 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+
|   kind = 2    |
+-+-+-+-+-+-+-+-+
`;

test("each variant of a union has a diagram and a table, behind that of what it is in", () => {
  assert.equal(
    diagram(Packet.shape),
    lines(`
 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|           sequence            |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
~                      message (see below)                      ~
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

message: open (kind = 1)
${OPEN}
message: end (kind = 2)
${END}`),
  );
  assert.equal(
    table(Packet.shape),
    lines(`
| offset | size | field | type | meaning |
|---|---|---|---|---|
| 0 | 2 | sequence | u16 | never used twice |
| 2 | see below | message | union | what it says; one of open, end |

**message: open (kind = 1)**: begins

| offset | size | field | type | meaning |
|---|---|---|---|---|
| 2 | 1 | kind | u8 | 1 = open |
| 3 | 4 | token | u32 | random |
| 7 | 2 | path length | u16 | bytes of path |
| 9 | length bytes | path | UTF-8 | of the file |
| … | 1 | at | u8 | where |

**message: end (kind = 2)**

| offset | size | field | type | meaning |
|---|---|---|---|---|
| 2 | 1 | kind | u8 | 2 = end |
`),
  );
});

test("a PDU that is nothing but a union has its variants only", () => {
  assert.equal(
    diagram(Message.shape),
    lines(`Message: open (kind = 1)\n${OPEN}\nMessage: end (kind = 2)\n${END}`),
  );
  assert.match(
    table(Message.shape),
    /^\*\*Message: open \(kind = 1\)\*\*: begins\n\n.*\n.*\n\| 0 \| 1 \| kind/,
  );
});

test("what takes the rest of a datagram, and a union behind what varies, have no fixed place", () => {
  const Tail = p.struct("Tail", {
    name: [p.text(p.u8), ""],
    message: [Message, ""],
    data: [p.restBytes, "content"],
  });
  assert.match(table(Tail.shape), /^\| … \| to the end \| data \| bytes \| content \|$/m);
  assert.match(table(Tail.shape), /^\| … \| 4 \| token/m);
  assert.match(diagram(Tail.shape), /^~ +data \(to the end\) +~$/m);
});

const field: fc.Arbitrary<p.Codec<never>> = fc.oneof(
  fc.constantFrom(p.u8, p.u16, p.u32, p.u64, p.i8, p.restText, p.text(p.u8), p.bytes(p.u32)),
  fc.integer({ min: 1, max: 70 }).map(p.fixedBytes),
  fc.constantFrom(
    p.bits({ a: 1, muchTooLong: 3, reserved: 4 }),
    p.bits({ all: 32 }),
    p.bits({ x: 15, y: 1 }),
  ),
) as fc.Arbitrary<p.Codec<never>>;

test("any PDU's diagram is made of whole rows within 72 columns, and each wide field is named in it", () => {
  const check = (codecs: p.Codec<never>[]) => {
    const fields = codecs.map((codec, i) => [`f${i}`, [codec, ""]] as const);
    const text = diagram(p.struct("Any", Object.fromEntries(fields)).shape);
    const [, , ...rows] = text.split("\n");
    for (const [i, row] of rows.entries()) {
      assert.ok(row.length <= 65, row);
      assert.match(row, i % 2 === 0 ? /^\+[-+ \w()]*\+$/ : /^[|~/].*[|~/]$/);
    }
    for (const [name, [{ shape }]] of fields) {
      if (shape.kind !== "bits") assert.match(text, new RegExp(`\\b${name}\\b`));
    }
  };
  fc.assert(fc.property(fc.array(field, { minLength: 1, maxLength: 12 }), check), { seed: 7 });
});
