/**
 * What the declaration of a PDU costs: a 12-byte header with 1,200 bytes behind it, encoded and decoded, beside
 * code written by hand and beside npm's `binary-parser`. That one only decodes: the hand-written encoder serves it.
 *
 *     npm run bench -- pdu
 */
import { strict as assert } from "node:assert";
// @ts-expect-error: the package does not say where the types of its ES module are
import { Parser } from "binary-parser";
import { Bench } from "tinybench";
import { median } from "./measure.ts";
import { bits, decode, encode, restBytes, struct, text, u16, u32, union, type ValueOf } from "./pdu.ts";

const Packet = struct("Packet", {
  sequence: [u32, "number of this packet"],
  ack: [u32, "the latest packet that has come"],
  ackBitfield: [u32, "which of the 32 before it have come"],
  payload: [restBytes, "what is carried"],
});
type Packet = ValueOf<typeof Packet>;

const HEADER_BYTES = 12;
const PAYLOAD_BYTES = 1200;
const ROUNDS = 7;
const CALLS = 100;

function encodeByHand({ sequence, ack, ackBitfield, payload }: Packet): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
  bytes.writeUInt32BE(sequence, 0);
  bytes.writeUInt32BE(ack, 4);
  bytes.writeUInt32BE(ackBitfield, 8);
  payload.copy(bytes, HEADER_BYTES);
  return bytes;
}

function decodeByHand(bytes: Buffer): Packet {
  return {
    sequence: bytes.readUInt32BE(0),
    ack: bytes.readUInt32BE(4),
    ackBitfield: bytes.readUInt32BE(8),
    payload: bytes.subarray(HEADER_BYTES),
  };
}

const parser = new Parser()
  .endianness("big")
  .uint32("sequence")
  .uint32("ack")
  .uint32("ackBitfield")
  .buffer("payload", { readUntil: "eof" });

interface Contender {
  name: string;
  encode: (packet: Packet) => Buffer;
  decode: (bytes: Buffer) => Packet;
}
const contenders: readonly Contender[] = [
  { name: "written by hand", encode: encodeByHand, decode: decodeByHand },
  {
    name: "shared/pdu.ts",
    encode: (packet) => encode(Packet, packet),
    decode: (bytes) => decode(Packet, bytes),
  },
  { name: "binary-parser", encode: encodeByHand, decode: (bytes) => parser.parse(bytes) },
];
const WORK = {
  encode: (contender: Contender) => () => contender.encode(packet),
  decode: (contender: Contender) => () => contender.decode(packetBytes),
  both: (contender: Contender) => () => contender.decode(contender.encode(packet)),
};

const packet: Packet = {
  sequence: 0xfffffffe,
  ack: 70_000,
  ackBitfield: 0xdeadbeef,
  payload: Buffer.alloc(PAYLOAD_BYTES, "payload"),
};
const packetBytes = encodeByHand(packet);

/** A program has several PDUs: without others about, the compiler would make of ours what it is not in real life. */
function useOtherPdus(): void {
  const Other = union("Other", "kind", u16, {
    a: [1, { flags: [bits({ x: 1, y: 7 }), ""], name: [text(u16), ""] }, ""],
    b: [2, { number: [u32, ""] }, ""],
  });
  for (let i = 0; i < 20_000; i++) {
    decode(Other, encode(Other, { kind: "a", flags: { x: true, y: i % 128 }, name: "name" }));
    decode(Other, encode(Other, { kind: "b", number: i }));
  }
}

/** Calls in a millisecond. One alone is too short for the clock. */
async function speed(call: () => unknown): Promise<number> {
  const bench = new Bench({ time: 150, warmupTime: 50 });
  bench.add("call", () => {
    for (let i = 0; i < CALLS; i++) call();
  });
  await bench.run();
  const result = bench.getTask("call")?.result;
  assert.ok(result?.state === "completed");
  return CALLS / result.latency.mean;
}

for (const contender of contenders) {
  assert.deepEqual({ ...contender.decode(contender.encode(packet)) }, packet, contender.name);
  assert.deepEqual(contender.encode(packet), packetBytes, contender.name);
}
useOtherPdus();

const kinds = Object.keys(WORK) as (keyof typeof WORK)[];
const speeds = contenders.map(() => ({
  encode: [] as number[],
  decode: [] as number[],
  both: [] as number[],
}));
for (let round = 0; round < ROUNDS; round++) {
  for (const kind of kinds) {
    for (const [i, contender] of contenders.entries()) {
      speeds[i]?.[kind].push(await speed(WORK[kind](contender)));
    }
  }
}

console.log(
  `| ${HEADER_BYTES} + ${PAYLOAD_BYTES} bytes, thousands a second (ratio) | encode | decode | both |`,
);
console.log("|---|---|---|---|");
for (const [i, { name }] of contenders.entries()) {
  const cells = kinds.map((kind) => {
    if (kind === "encode" && name === "binary-parser") return "–";
    const own = speeds[i]?.[kind] ?? [];
    const ratio = median(own.map((figure, round) => figure / (speeds[0]?.[kind][round] ?? Number.NaN)));
    return `${Math.round(median(own)).toLocaleString("en")} (${ratio.toFixed(2)})`;
  });
  console.log(`| ${[name, ...cells].join(" | ")} |`);
}
