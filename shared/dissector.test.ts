/** The generated dissectors in the real tshark: what our codec wrote and refuses, Wireshark reads and marks. */
import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import fc from "fast-check";
import { type Dissector, lua } from "./dissector.ts";
import * as p from "./pdu.ts";
import { needs, runTool } from "./testing.ts";

const Message = p.union("Message", "kind", p.u16, {
  ping: [0, {}, "nothing more"],
  file: [
    1,
    { path: [p.text(p.u8), "where"], data: [p.bytes(p.u32), "content"], mode: [p.u16, "rights"] },
    "",
  ],
  note: [0x1234, { words: [p.text(p.u16), "a note"] }, ""],
});
const Everything = p.struct("All", {
  magic: [p.constant(p.u32, 0xfeed_beef), ""],
  version: [p.constant(p.i8, -2), "signed"],
  label: [p.constant(p.fixedText(3), "né"), "a text that is always the same"],
  status: [p.enumOf(p.u8, { ok: 0, notFound: 4, "not/allowed": 255 }), "how it went"],
  flags: [p.bits({ urgent: 1, level: 3, reserved: 5, last: 1, rest: 6 }), "bit fields"],
  utcTime: [p.i64, "signed 64 bits"],
  counter: [p.u64, "unsigned 64 bits"],
  offset: [p.i16, "signed 16 bits"],
  zone: [p.fixedText(7), 'with a "quote", a \\ and a\nline end'],
  nested: [p.struct("Inner", { count: [p.u8, ""], id: [p.fixedBytes(3), ""] }), "a struct in it"],
  message: [Message, "one of several"],
});
type Everything = p.ValueOf<typeof Everything>;
const Fixed = p.struct("Fixed", {
  magic: [p.constant(p.u16, 0xabcd), ""],
  kind: [p.enumOf(p.u8, { a: 1 }), ""],
});
const Tail = p.struct("Tail", { sequence: [p.u32, ""], data: [p.restText, "to the end"] });

const Signed = p.struct("Signed", { note: [p.text(p.i16), "a length that can be negative"] });

/** An order in an envelope, and items in the order: the envelope's kind tells what both hold. */
const Item = p.struct("Item", { size: [p.u8, ""], name: [p.text(p.u8), ""] });
const Note = p.struct("Note", { words: [p.restText, ""] });
const Order = p.struct("PlacedOrder", {
  id: [p.u16, ""],
  items: [p.containing(p.restBytes, "kind", { order: Item, offer: Note }), "by the envelope's kind"],
});
const Empty = p.struct("Empty", {});
const Envelope = p.struct("Envelope", {
  kind: [p.enumOf(p.u8, { order: 1, offer: 2, items: 3, sealed: 4, empty: 5 }), ""],
  data: [
    p.containing(p.bytes(p.u8), "kind", {
      order: Order,
      offer: Order,
      items: Item,
      empty: Empty,
    }),
    "by the kind",
  ],
  seals: [p.containing(p.bytes(p.u8), Item), "one after the other"],
});

/** An acknowledgement, and eight bits about the numbers before it. */
const Ack = p.struct("Ack", { latest: [p.u32, ""], earlier: [p.u8, ""] });
const ACK_SHAPE = {
  ...Ack.shape,
  fields: [
    { name: "latest", doc: "", shape: p.u32.shape },
    {
      name: "earlier",
      doc: "",
      shape: {
        kind: "bits" as const,
        bits: 8,
        fields: Array.from({ length: 8 }, (_, i) => ({ name: `minus_${8 - i}`, width: 1 })),
        before: "latest",
      },
    },
  ],
};

const ALL = 20_000;
const FIXED = 20_010;
const TAIL = 20_020;
const SIGNED = 20_050;
const ENVELOPE = 20_040;
const ACK = 20_030;
const OTHERS = {
  echo: 20_061,
  daytime: 20_062,
  irc: 20_064,
  ntp: 20_065,
  time: 20_066,
  http: 20_067,
};
const dissectors: Dissector[] = [
  { name: "lab_all", title: "Everything", pdu: Everything.shape, tcp: [ALL], udp: [`${ALL}-${ALL + 5}`] },
  { name: "lab_fixed", title: "Fixed", pdu: Fixed.shape, tcp: [FIXED], udp: [FIXED], otherwise: "daytime" },
  {
    name: "lab_tail",
    title: "Tail",
    pdu: Tail.shape,
    udp: [TAIL],
    info: "no. {sequence} says {data}, {nothing}",
  },
  { name: "lab_ack", title: "Ack", pdu: ACK_SHAPE, udp: [ACK], info: "{latest} missing {missing}" },
  { name: "lab_signed", title: "Signed", pdu: Signed.shape, tcp: [SIGNED], udp: [SIGNED] },
  {
    name: "lab_env",
    title: "Envelope",
    pdu: Envelope.shape,
    tcp: [ENVELOPE],
    udp: [ENVELOPE],
    info: {
      by: ["missing", "kind"],
      texts: { order: "{kind} {id} of [{data}]", offer: "{kind} of [{data}]", items: "{kind}: [{data}]" },
    },
  },
  ...Object.entries(OTHERS).map(([as, port]) => ({ as, tcp: [port], udp: [port] })),
];

const value: fc.Arbitrary<Everything> = fc.record({
  status: fc.constantFrom("ok", "notFound", "not/allowed"),
  flags: fc.record({ urgent: fc.boolean(), level: fc.nat(7), last: fc.boolean(), rest: fc.nat(63) }),
  utcTime: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
  counter: fc.bigInt(0n, 2n ** 64n - 1n),
  offset: fc.integer({ min: -32768, max: 32767 }),
  zone: fc.constantFrom("", "Zürich", "A/B C", "1234567"),
  nested: fc.record({
    count: fc.nat(255),
    id: fc.uint8Array({ minLength: 3, maxLength: 3 }).map((b) => Buffer.from(b)),
  }),
  message: fc.oneof(
    fc.record({ kind: fc.constant("ping" as const) }),
    fc.record({
      kind: fc.constant("file" as const),
      path: fc.string({ unit: fc.constantFrom(..."aÿ€😀/ \n"), maxLength: 20 }),
      data: fc.uint8Array({ maxLength: 40 }).map((b) => Buffer.from(b)),
      mode: fc.nat(65535),
    }),
    fc.record({
      kind: fc.constant("note" as const),
      words: fc.string({ unit: "grapheme-ascii", maxLength: 60 }),
    }),
  ),
});
const SEED = 2024;
const samples = fc.sample(value, { seed: SEED, numRuns: 60 });

/** The capture: each test adds its packets while the file is loaded, then all look at what one tshark made of them. */
const packets: Buffer[] = [];
let lastClientPort = 30_000;

function addPacket(protocol: 6 | 17, header: Buffer, payload: Buffer): number {
  const ip = Buffer.from("4500000000004000400000007f0000017f000001", "hex");
  ip.writeUInt16BE(ip.length + header.length + payload.length, 2);
  ip[9] = protocol;
  return packets.push(Buffer.concat([ip, header, payload]));
}

/** A datagram; the number of its frame. */
function udp(port: number, payload: Buffer): number {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(29_999, 0);
  header.writeUInt16BE(port, 2);
  header.writeUInt16BE(header.length + payload.length, 4);
  return addPacket(17, header, payload);
}

/** A connection of its own that carries these segments; the numbers of their frames. */
function tcp(port: number, ...segments: Buffer[]): number[] {
  const header = Buffer.from("00000000000000000000000150180fff00000000", "hex");
  header.writeUInt16BE(lastClientPort++, 0);
  header.writeUInt16BE(port, 2);
  let sequence = 1;
  return segments.map((segment) => {
    header.writeUInt32BE(sequence, 4);
    sequence += segment.length;
    return addPacket(6, header, segment);
  });
}

function pcapFile(): Buffer {
  const header = Buffer.from("d4c3b2a1020004000000000000000000ffff000065000000", "hex"); // raw IP
  const records = packets.flatMap((packet, i) => {
    const record = Buffer.alloc(16);
    record.writeUInt32LE(1_700_000_000 + i, 0);
    record.writeUInt32LE(packet.length, 8);
    record.writeUInt32LE(packet.length, 12);
    return [record, packet];
  });
  return Buffer.concat([header, ...records]);
}

/** What tshark shows of a frame: the values of each field that it has. */
type Frame = Record<string, string[]>;
const FIELDS = [
  ...["_ws.col.Protocol", "_ws.col.Info", "_ws.malformed", "_ws.expert.message"],
  ...["lab_all.wrong", "lab_fixed.wrong", "lab_tail.wrong", "lab_signed.wrong", "lab_fixed.kind"],
  "lab_tail.data",
  ...["wrong", "data", "placed_order.id", "item.name", "note.words"].map((name) => `lab_env.${name}`),
];
const ALL_FIELDS = [
  ...["magic", "version", "label", "status", "flags", "flags.urgent", "flags.level", "flags.reserved"],
  ...["flags.last", "flags.rest", "utc_time", "counter", "offset", "zone", "nested.count", "nested.id"],
  ...["message.kind", "message.file.path.length", "message.file.path", "message.file.data.length"],
  ...["message.file.data", "message.file.mode", "message.note.words"],
];

/** tshark's own words for a field of no bytes and, in later versions, for bits. */
const SPELLINGS: Record<string, string> = { "<MISSING>": "", True: "1", False: "0" };

let dissection: Promise<Frame[]> | undefined;
/** What tshark makes of frame `number`. */
async function frame(number: number): Promise<Frame> {
  dissection ??= dissect();
  return (await dissection)[number - 1] ?? {};
}

const folder = mkdtempSync(join(tmpdir(), "netlab-"));
after(() => rmSync(folder, { recursive: true }));

async function dissect(): Promise<Frame[]> {
  writeFileSync(join(folder, "lab.lua"), lua(dissectors));
  writeFileSync(join(folder, "lab.pcap"), pcapFile());
  const fields = FIELDS.concat(ALL_FIELDS.map((name) => `lab_all.${name}`));
  const { code, stdout, stderr } = await runTool("tshark", [
    ...["-X", `lua_script:${join(folder, "lab.lua")}`, "-r", join(folder, "lab.pcap"), "-T", "json"],
    ...fields.flatMap((name) => ["-e", name]),
  ]);
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stderr, /lua/i);
  const frames = JSON.parse(stdout) as { _source: { layers: Frame } }[];
  return frames.map(({ _source: { layers } }) =>
    Object.fromEntries(
      Object.entries(layers).map(([name, values]) => [name, values.map((text) => SPELLINGS[text] ?? text)]),
    ),
  );
}

test("the declarations in the script read like those of the PDU", () => {
  const pdu = p.struct("X", {
    magic: [p.constant(p.u16, 0xabc), 'a "quote", \\ and \u0001'],
    kind: [p.constant(p.enumOf(p.u8, { a: 1, b: 2 }), "b"), ""],
    data: [p.bytes(p.u32), "content"],
  });
  const script = lua([
    { name: "x", title: "X", pdu: pdu.shape, tcp: ["1-2", 7], udp: [8] },
    { as: "echo", udp: [9] },
  ]);
  const expected = [
    "protocol {",
    '  name = "x",',
    '  title = "X",',
    '  tcp = { "1-2", 7 },',
    "  udp = { 8 },",
    '  pdu = group("X", "", {',
    '    integer("magic", "a \\"quote\\", \\\\ and \\001", "uint", 2, { always = 0xabc }),',
    '    integer("kind", "", "uint", 1, { always = 0x2 }),',
    '    bytes("data", "content", integer("data length", "bytes of data", "uint", 4)),',
    "  }),",
    "}",
    "",
    'attach(existing("echo"), { udp = { 9 } })',
    "",
  ];
  assert.ok(script.endsWith(expected.join("\n")), script.slice(-600));
});

const encoded = samples.map((sample) => p.encode(Everything, sample));
const aFile = encoded[
  samples.findIndex(({ message }) => message.kind === "file" && message.path !== "")
] as Buffer;
const aNote = encoded[samples.findIndex(({ message }) => message.kind === "note")] as Buffer;
const options = needs("tshark");

/** A frame's fields, as tshark should show them. */
function expected({ status, flags, message, nested, ...plain }: Everything): Frame {
  const bit = (value: boolean) => (value ? "1" : "0");
  const code = { ok: 0, notFound: 4, "not/allowed": 255 }[status];
  const word = Number(flags.urgent) * 0x8000 + flags.level * 0x1000 + Number(flags.last) * 0x40 + flags.rest;
  const fields: Record<string, string> = {
    magic: "0xfeedbeef",
    version: "-2",
    label: "né",
    status: `${code}`,
    flags: `0x${word.toString(16).padStart(4, "0")}`,
    "flags.urgent": bit(flags.urgent),
    "flags.level": `${flags.level}`,
    "flags.reserved": "0",
    "flags.last": bit(flags.last),
    "flags.rest": `${flags.rest}`,
    utc_time: `${plain.utcTime}`,
    counter: `${plain.counter}`,
    offset: `${plain.offset}`,
    zone: plain.zone,
    "nested.count": `${nested.count}`,
    "nested.id": nested.id.toString("hex"),
    ...expectedMessage(message),
  };
  return Object.fromEntries(Object.entries(fields).map(([name, text]) => [`lab_all.${name}`, [text]]));
}

function expectedMessage(message: Everything["message"]): Record<string, string> {
  switch (message.kind) {
    case "ping":
      return { "message.kind": "0" };
    case "note":
      return { "message.kind": `${0x1234}`, "message.note.words": message.words };
    case "file":
      return {
        "message.kind": "1",
        "message.file.path.length": `${Buffer.byteLength(message.path)}`,
        "message.file.path": message.path,
        "message.file.data.length": `${message.data.length}`,
        "message.file.data": message.data.toString("hex"),
        "message.file.mode": `${message.mode}`,
      };
  }
}

const counters = async (numbers: readonly number[]) => {
  const frames = await Promise.all(numbers.map(frame));
  return frames.flatMap((layers) => layers["lab_all.counter"] ?? []);
};

{
  const numbers = encoded.map((bytes, i) => udp(ALL + (i % 6), bytes));
  test("every field of what the codec wrote is read, and nothing is marked", options, async () => {
    for (const [i, sample] of samples.entries()) {
      const { "_ws.col.Protocol": protocol, "_ws.col.Info": _, ...fields } = await frame(numbers[i] ?? 0);
      assert.deepEqual(protocol, ["LAB_ALL"]);
      assert.deepEqual(fields, expected(sample), `sample ${i} of seed ${SEED}`);
    }
  });
}
{
  const oneSegment = tcp(ALL, Buffer.concat(encoded));
  const cuts = Array.from({ length: 2 * aFile.length - 1 }, (_, i) => {
    const two = Buffer.concat([aFile, aFile]);
    return tcp(ALL, two.subarray(0, i + 1), two.subarray(i + 1));
  });
  const bytewise = [aFile, aNote].map((bytes) =>
    tcp(ALL, ...Array.from({ length: bytes.length }, (_, i) => bytes.subarray(i, i + 1))),
  );
  test("a stream's PDUs are found wherever it is cut", options, async () => {
    assert.deepEqual(
      await counters(oneSegment),
      samples.map(({ counter }) => `${counter}`),
    );
    const counter = (bytes: Buffer) => `${p.decode(Everything, bytes).counter}`;
    for (const numbers of cuts) {
      assert.deepEqual(await counters(numbers), [counter(aFile), counter(aFile)]);
      for (const number of numbers) assert.equal((await frame(number))["lab_all.wrong"], undefined);
    }
    for (const [i, bytes] of [aFile, aNote].entries()) {
      assert.deepEqual(await counters(bytewise[i] ?? []), [counter(bytes)]);
      assert.deepEqual(await counters(bytewise[i]?.slice(-1) ?? []), [counter(bytes)], "in its last segment");
    }
  });
}
{
  const damaged = [aFile, aNote].flatMap((bytes) => [
    ...Array.from(bytes, (_, at) => bytes.subarray(0, at)).slice(1),
    ...Array.from(bytes, (_, at) => [0x01, 0x80, 0xff].map((mask) => flipped(bytes, at, mask))).flat(),
    Buffer.concat([bytes, Buffer.of(0)]),
  ]);
  const numbers = damaged.map((bytes) => udp(ALL, bytes));
  for (const bytes of damaged) tcp(ALL, bytes);
  test("what the codec refuses is marked, and nothing else", options, async () => {
    let refused = 0;
    for (const [i, bytes] of damaged.entries()) {
      const isRefused = isWrong(bytes);
      refused += Number(isRefused);
      const isMarked = (await frame(numbers[i] ?? 0))["lab_all.wrong"] !== undefined;
      assert.equal(isMarked, isRefused, bytes.toString("hex"));
    }
    assert.ok(refused > 100 && refused < damaged.length - 100, `${refused} of ${damaged.length} are refused`);
  });
}

function flipped(bytes: Buffer, at: number, mask: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ mask;
  return copy;
}

function isWrong(bytes: Buffer): boolean {
  try {
    p.decode(Everything, bytes);
    return false;
  } catch (error) {
    if (error instanceof p.PduError) return true;
    throw error;
  }
}

{
  const changed = (at: number, hex: string) => {
    const copy = Buffer.from(aFile);
    copy.write(hex, at, "hex");
    return copy;
  };
  const MESSAGE = 40;
  const cases: [what: string, bytes: Buffer][] = [
    ["must be 0xFEEDBEEF", changed(0, "00")],
    ["must be -2", changed(4, "01")],
    ['must be "né"', changed(5, "41")],
    ["unknown code 9", changed(8, "09")],
    ["the padding is not all NUL", changed(29, "41004100000000")],
    ["not valid UTF-8", changed(29, "eda08000000000")],
    ["unknown code 2", changed(MESSAGE, "0002")],
    ["path needs 255 bytes", changed(MESSAGE + 2, "ff")],
    ["1 bytes left over", Buffer.concat([aFile, Buffer.of(0)])],
    ["mode needs 2 bytes, 1 left", aFile.subarray(0, -1)],
  ];
  const numbers = cases.map(([, bytes]) => udp(ALL, bytes));
  const negative = [
    udp(SIGNED, Buffer.from("fffe4141", "hex")),
    ...tcp(SIGNED, Buffer.from("fffe4141", "hex")),
  ];
  test("a mark says what is wrong", options, async () => {
    for (const [i, [what]] of cases.entries()) {
      const messages = (await frame(numbers[i] ?? 0))["_ws.expert.message"]?.join("\n") ?? "";
      assert.ok(messages.includes(what), `${what}: ${messages}`);
    }
    for (const number of negative) {
      assert.deepEqual((await frame(number))["_ws.expert.message"], [
        "note has a length that is not allowed",
      ]);
    }
  });
}
{
  const text = Buffer.from("GET / HTTP/1.1\r\n\r\n");
  const { data } = p.decode(Everything, aFile).message as { data: Buffer };
  const tooLong = Buffer.from(aFile).fill(
    0xff,
    aFile.length - 6 - data.length,
    aFile.length - 2 - data.length,
  );
  const connections = [text, flipped(aFile, 8, 0x40), tooLong].map((garbage) =>
    tcp(ALL, aNote, garbage, aNote),
  );
  test("garbage on a stream is marked at once, and costs no more than its segment", options, async () => {
    for (const [before = 0, garbage = 0, behind = 0] of connections) {
      assert.equal((await frame(before))["lab_all.wrong"], undefined);
      assert.notEqual((await frame(garbage))["lab_all.wrong"], undefined);
      assert.equal((await frame(behind))["lab_all.wrong"], undefined);
      assert.equal((await counters([behind])).length, 1);
    }
  });
}
{
  const ours = [udp(FIXED, Buffer.from("abcd01", "hex")), ...tcp(FIXED, Buffer.from("abcd01", "hex"))];
  const wrong = [udp(FIXED, Buffer.from("abcd02", "hex")), ...tcp(FIXED, Buffer.from("abcd02", "hex"))];
  const other = [
    ...[udp(FIXED, Buffer.from("12:00\r\n")), udp(FIXED, Buffer.from("abcd0100", "hex"))],
    udp(FIXED, Buffer.from("ab", "hex")),
    ...tcp(FIXED, Buffer.from("12:00\r\n")),
  ];
  test("what has not our magic or size goes to Wireshark's own dissector", options, async () => {
    for (const number of ours) assert.deepEqual((await frame(number))["lab_fixed.kind"], ["1"]);
    for (const number of ours) assert.equal((await frame(number))["lab_fixed.wrong"], undefined);
    for (const number of wrong) assert.notEqual((await frame(number))["lab_fixed.wrong"], undefined);
    const protocol = async (number: number) => (await frame(number))["_ws.col.Protocol"];
    for (const number of other) assert.deepEqual(await protocol(number), ["DAYTIME"]);
  });
}
{
  const request = Buffer.concat([Buffer.of(0x23), Buffer.alloc(47)]); // NTP's, and anything to the others
  const line = Buffer.from("GET / HTTP/1.0\r\n\r\n"); // HTTP's and IRC's
  const cases = Object.entries(OTHERS).map(([name, port]) => {
    const isStream = name === "http" || name === "irc";
    return { name, number: isStream ? (tcp(port, line)[0] ?? 0) : udp(port, request) };
  });
  test("Wireshark's own dissectors are found by their names", options, async () => {
    for (const { name, number } of cases) {
      assert.deepEqual((await frame(number))["_ws.col.Protocol"], [name.toUpperCase()]);
    }
  });
  test("a name that Wireshark does not know makes the script fail to load, loudly", options, async () => {
    writeFileSync(join(folder, "unknown.lua"), lua([{ as: "nonesuch", tcp: [1] }]));
    const { stderr } = await runTool("tshark", [
      "-X",
      `lua_script:${join(folder, "unknown.lua")}`,
      "-r",
      "/dev/null",
    ]);
    assert.match(stderr, /no dissector is called nonesuch/);
  });
}
{
  const number = udp(TAIL, p.encode(Tail, { sequence: 7, data: `${"ñ".repeat(25)}!` }));
  const empty = udp(TAIL, p.encode(Tail, { sequence: 8, data: "" }));
  const plain: Everything = {
    status: "ok",
    flags: { urgent: true, level: 5, last: false, rest: 9 },
    ...{ utcTime: -1n, counter: 2n ** 64n - 1n, offset: 2, zone: "Å" },
    nested: { count: 0, id: Buffer.alloc(3) },
    message: { kind: "file", path: "a\nb", data: Buffer.alloc(2), mode: 0o644 },
  };
  const without = { ...plain, flags: { urgent: false, level: 0, last: false, rest: 0 } };
  const [several = 0] = tcp(ALL, Buffer.concat([plain, without].map((value) => p.encode(Everything, value))));
  test("the Info column says what is in each PDU", options, async () => {
    const info = async (number: number) => (await frame(number))["_ws.col.Info"]?.[0]?.trimEnd();
    assert.equal(await info(number), `no. 7 says "${"ñ".repeat(19)}...", {nothing}`);
    assert.equal(await info(empty), 'no. 8 says "", {nothing}');
    assert.deepEqual((await frame(empty))["lab_tail.data"], [""]);
    const one =
      'All status=ok flags=urgent,level:5,rest:9 utcTime=-1 counter=18446744073709551615 offset=2 zone="Å" ' +
      'count=0 id=3 bytes kind=file path="a.b" data=2 bytes mode=420';
    assert.equal(await info(several), `${one}  ${one.replace("urgent,level:5,rest:9", "-")}`);
  });
}
{
  const ports = [ALL, FIXED, TAIL, SIGNED];
  const chunks = fc.sample(fc.uint8Array({ minLength: 1, maxLength: 80 }), { seed: SEED, numRuns: 200 });
  for (const [i, chunk] of chunks.entries()) {
    const port = ports[i % ports.length] ?? 0;
    udp(port, Buffer.from(chunk));
    tcp(port, Buffer.from(chunk), Buffer.from(chunk).reverse());
    tcp(ALL, Buffer.concat([aFile.subarray(0, i % aFile.length), chunk]), Buffer.from(chunk));
  }
  test("nothing makes the script fail", options, async () => {
    for (let number = 1; number <= packets.length; number++) {
      const messages = (await frame(number))["_ws.expert.message"] ?? [];
      assert.doesNotMatch(messages.join("\n"), /lua|exception/i);
    }
  });
}
{
  const item = (name: string) => p.encode(Item, { size: 7, name });
  const order = (items: Buffer) => p.encode(Order, { id: 9, items });
  const none: Buffer = Buffer.alloc(0);
  const envelope = (kind: "order" | "offer" | "items" | "sealed" | "empty", data: Buffer, seals = none) =>
    p.encode(Envelope, { kind, data, seals });
  const two = Buffer.concat([item("a"), item("b")]);
  const cases: [bytes: Buffer, fields: Frame, info: string][] = [
    [
      envelope("order", order(two), item("seal")),
      { "placed_order.id": ["9"], "item.name": ["a", "b", "seal"] },
      'order 9 of [id=9 size=7 name="a" size=7 name="b"]',
    ],
    [
      envelope("offer", order(Buffer.from("cheap"))),
      { "placed_order.id": ["9"], "note.words": ["cheap"] },
      'offer of [id=9 words="cheap"]',
    ],
    [envelope("items", two), { "item.name": ["a", "b"] }, 'items: [size=7 name="a" size=7 name="b"]'],
    [envelope("order", order(none)), { "placed_order.id": ["9"] }, "order 9 of [id=9]"],
    [envelope("sealed", two), {}, "Envelope kind=sealed data=6 bytes"],
    [envelope("items", none), {}, "items: []"],
    [envelope("empty", none), {}, "Envelope kind=empty"],
  ];
  const numbers = cases.map(([bytes]) => [udp(ENVELOPE, bytes), ...tcp(ENVELOPE, bytes)]);
  const damaged = [two.subarray(0, -1), Buffer.concat([two, Buffer.of(1)])].flatMap((items) => [
    envelope("items", items),
    envelope("order", order(items)),
    envelope("sealed", none, items),
  ]);
  damaged.push(envelope("empty", two)); // what has no fields takes none of it
  const wrong = damaged.map((bytes) => udp(ENVELOPE, bytes));
  const [garbage = 0, behind = 0] = tcp(ENVELOPE, damaged[0] ?? none, envelope("items", two));
  test("PDUs inside of a field are taken apart, by a code in front of them", options, async () => {
    for (const [i, [bytes, fields, info]] of cases.entries()) {
      for (const number of numbers[i] ?? []) {
        const shown = await frame(number);
        const inner = ["placed_order.id", "item.name", "note.words", "wrong"];
        const found = inner.flatMap((name) => {
          const values = shown[`lab_env.${name}`];
          return values === undefined ? [] : [[name, values]];
        });
        assert.deepEqual(Object.fromEntries(found), fields, bytes.toString("hex"));
        assert.equal(shown["_ws.col.Info"]?.[0]?.trimEnd(), info);
        assert.deepEqual(shown["lab_env.data"], [p.decode(Envelope, bytes).data.toString("hex")]);
      }
    }
    for (const number of [...wrong, garbage])
      assert.notEqual((await frame(number))["lab_env.wrong"], undefined, `frame ${number}`);
    assert.equal((await frame(behind))["lab_env.wrong"], undefined, "what follows it on the stream");
  });
  test("only bytes contain PDUs, and they stay bytes", () => {
    assert.throws(() => p.containing(p.text(p.u8) as never, Item), /text contains no PDU/);
    assert.deepEqual(p.decode(Envelope, envelope("items", two)).data, two);
  });
}
{
  const cases: [latest: number, earlier: number, info: string][] = [
    [41, 0b1111_1101, "41 missing 39"],
    [41, 0b0110_0010, "41 missing 33, 36-38, 40"],
    [41, 0xff, "41 missing none"],
    [3, 0b0000_0010, "3 missing 2"], // there is no 0
    [1, 0, "1 missing none"],
    [0, 0, "0 missing none"],
  ];
  const numbers = cases.map(([latest, earlier]) => udp(ACK, p.encode(Ack, { latest, earlier })));
  test("bits about the numbers before another field's tell which of them are missing", options, async () => {
    for (const [i, [, , info]] of cases.entries())
      assert.equal((await frame(numbers[i] ?? 0))["_ws.col.Info"]?.[0]?.trimEnd(), info);
  });
}
