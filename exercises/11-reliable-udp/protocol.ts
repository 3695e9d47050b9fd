/** RUDP: packets, the messages in them, and the rules that need neither socket nor clock. */
import { createHmac } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Dissector } from "../../shared/describe.ts";
import {
  bytes,
  decode,
  encode,
  enumOf,
  fixedBytes,
  PduError,
  restBytes,
  type Shape,
  type StructShape,
  struct,
  text,
  u8,
  u16,
  u32,
  u64,
  union,
  type ValueOf,
} from "../../shared/pdu.ts";

export const PORT = 11_100;

/** Every path is taken to carry UDP payloads of this size (as RFC 9000 §14 does); larger ones are probed. */
export const BASE_MTU = 1200;
/** Smaller packets are mostly header: who wants them gets these. */
export const MIN_MTU = 128;
/** Beyond this UDP over IPv4 cannot go. */
export const MAX_MTU = 65_507;
export const TOKEN_BYTES = 8;
export const HASH_BYTES = 32;
export const MAX_NAME_BYTES = 1024;
/** Sequence of a packet that belongs to no connection: it is never acknowledged. */
export const NO_SEQUENCE = 0;
export const MAX_SEQUENCE = 2 ** 32 - 1;

const ERROR_CODES = {
  refused: 1,
  "not found": 2,
  failed: 3,
  changed: 4,
  "not the same": 5,
  stopped: 6,
  "broken rules": 7,
} as const;
export type ErrorCode = keyof typeof ERROR_CODES;

const size = [u64, "of the file, in bytes"] as const;
const sha256 = [fixedBytes(HASH_BYTES), "of the whole file; zeros where it is not known"] as const;

export const Message = union("Message", "kind", u8, {
  open: [
    1,
    {
      request: [enumOf(u8, { get: 1, put: 2, list: 3, events: 4 }), "what the client wants"],
      token: [fixedBytes(TOKEN_BYTES), "in every packet to the client from now on"],
      mtu: [u16, "largest UDP payload that the client takes"],
      window: [u32, "what the client takes before it says more, in bytes"],
      offset: [u64, "get: where to begin; else 0"],
      size,
      sha256,
      cookie: [bytes(u8, 32), "of the challenge; empty at first"],
      name: [text(u16, MAX_NAME_BYTES), "of the file; empty for list and events"],
    },
    "a client wants a connection",
  ],
  challenge: [2, { cookie: [bytes(u8, 32), "to be sent back from that address"] }, "is anybody there?"],
  echo: [3, { cookie: [bytes(u8, 32), "of the challenge"] }, "the answer, from an address that changed"],
  preparing: [4, { done: [u64, "bytes that have been hashed"] }, "the server reads the file to hash it"],
  accept: [
    5,
    {
      token: [fixedBytes(TOKEN_BYTES), "in every packet to the server from now on"],
      mtu: [u16, "largest UDP payload that the server takes"],
      window: [u32, "what the server takes before it says more, in bytes"],
      size,
      sha256,
    },
    "the transfer can begin",
  ],
  data: [
    6,
    { offset: [u64, "of the first byte, in the file"], bytes: [restBytes, "of the file"] },
    "a piece of the file",
  ],
  window: [
    7,
    {
      received: [u64, "everything before this offset has arrived"],
      limit: [u64, "nothing from this offset on may be sent"],
      delayUs: [u32, "from the arrival of packet ack to this answer, in microseconds"],
      earlier: [restBytes, "more of ackBitfield: bit 7 of byte 0 is packet ack - 33, and so on downwards"],
    },
    "acknowledgement and flow control; is not acknowledged itself",
  ],
  probe: [8, { padding: [restBytes, "zeros"] }, "wants nothing but an acknowledgement"],
  done: [9, {}, "the receiver has it all, and it is right"],
  error: [
    10,
    {
      code: [enumOf(u8, ERROR_CODES), "what kind of failure"],
      reason: [text(u16, 512), "for people"],
    },
    "the end of the connection",
  ],
  event: [
    11,
    {
      number: [u32, "counts them, from 0"],
      sentUs: [u64, "when the sender made it, by its own clock, in microseconds"],
      body: [restBytes, "of any content"],
    },
    "a message of its own: delivered once, at once, in no order",
  ],
});
export type Message = ValueOf<typeof Message>;
export type Open = Extract<Message, { kind: "open" }>;
export type Accept = Extract<Message, { kind: "accept" }>;
export type Event = Extract<Message, { kind: "event" }>;

export const Packet = struct("Packet", {
  sequence: [u32, "counts the sender's packets from 1, and is never used again; 0: of no connection"],
  ack: [u32, "the latest sequence that came from the other side; 0: none yet"],
  ackBitfield: [u32, "the 32 before it: bit n from the right is packet ack - 1 - n"],
  token: [fixedBytes(TOKEN_BYTES), "the receiver's, of its open or accept; zeros in an open"],
  checksum: [u32, "CRC-32 (ISO 3309) of the packet with zeros in this place"],
  message: [Message, "data"],
});
export type Packet = ValueOf<typeof Packet>;

export const NO_TOKEN = Buffer.alloc(TOKEN_BYTES);
const TOKEN_AT = 12;
const CHECKSUM_AT = 20;
const KIND_AT = 24;
/** Header, kind and offset: what a data packet has besides the file's bytes. */
export const DATA_OVERHEAD = 33;
const DATA_KIND = 6;

/** What the header says of the other direction. */
export interface Acknowledgement {
  ack: number;
  ackBitfield: number;
}
/** Offsets are numbers here: 2^53 bytes are enough. */
export type Incoming = Exclude<Message, { kind: "data" }> | { kind: "data"; offset: number; bytes: Buffer };
export interface Arrived extends Acknowledgement {
  sequence: number;
  token: string;
  message: Incoming;
}

/** A packet's bytes in pieces, which the system puts together as it takes them: nothing of a file is copied for its header. */
export type Parts = Buffer[];

/** A token as the key of a map. */
export const keyOf = (token: Buffer) => token.toString("latin1", 0, TOKEN_BYTES);

/** A packet's bytes, checksum and all. */
export function seal(sequence: number, acks: Acknowledgement, token: Buffer, message: Message): Buffer {
  const packet = encode(Packet, { sequence, ...acks, token, checksum: 0, message });
  packet.writeUInt32BE(crc32(packet), CHECKSUM_AT);
  return packet;
}

/** The same for a piece of a file, by hand: the declared codec takes about four times as long, and copies the piece. */
export function sealData(
  sequence: number,
  { ack, ackBitfield }: Acknowledgement,
  token: Buffer,
  offset: number,
  piece: Buffer,
): Parts {
  const head = Buffer.allocUnsafe(DATA_OVERHEAD);
  head.writeUInt32BE(sequence, 0);
  head.writeUInt32BE(ack, 4);
  head.writeUInt32BE(ackBitfield, 8);
  head.set(token, TOKEN_AT);
  head.writeUInt32BE(0, CHECKSUM_AT);
  head[KIND_AT] = DATA_KIND;
  head.writeUInt32BE(Math.floor(offset / 2 ** 32), 25);
  head.writeUInt32BE(offset % 2 ** 32, 29);
  head.writeUInt32BE(crc32(piece, crc32(head)), CHECKSUM_AT);
  return [head, piece];
}

/** What a datagram says; undefined where its checksum does not fit: it was damaged, and counts as lost. Throws `PduError`. */
export function unseal(datagram: Buffer): Arrived | undefined {
  if (datagram.length <= KIND_AT) return undefined;
  const checksum = datagram.readUInt32BE(CHECKSUM_AT);
  datagram.writeUInt32BE(0, CHECKSUM_AT);
  if (crc32(datagram) !== checksum) return undefined;
  const token = datagram.toString("latin1", TOKEN_AT, TOKEN_AT + TOKEN_BYTES);
  if (datagram[KIND_AT] === DATA_KIND && datagram.length > DATA_OVERHEAD) {
    return {
      sequence: datagram.readUInt32BE(0),
      ack: datagram.readUInt32BE(4),
      ackBitfield: datagram.readUInt32BE(8),
      token,
      message: {
        kind: "data",
        offset: safe(datagram.readUInt32BE(25) * 2 ** 32 + datagram.readUInt32BE(29)),
        bytes: datagram.subarray(DATA_OVERHEAD),
      },
    };
  }
  const { message, ...header } = decode(Packet, datagram);
  if (message.kind === "data") throw new PduError("Message.data.bytes", DATA_OVERHEAD, "is empty");
  return { ...header, token, message };
}

function safe(offset: number): number {
  if (Number.isSafeInteger(offset + MAX_MTU)) return offset;
  throw new PduError("Message.data.offset", 25, "is beyond 2^53");
}

/** An offset or size of a message. Throws `PduError` for one beyond 2^53. */
export function numberOf(value: bigint): number {
  const number = Number(value);
  if (Number.isSafeInteger(number)) return number;
  throw new PduError("Message", KIND_AT, `${value} is beyond 2^53`);
}

/** How long a cookie is good for, at least; at most twice as long. */
const COOKIE_PERIOD_MS = 10_000;

/**
 * A cookie for who asks from this address, so that nothing need be remembered of those that have not shown to be
 * there (RFC 4987 §3.6, RFC 9000 §8.1). It is bound to the token too: one connection's is no good for another.
 */
export function cookieFor(secret: Buffer, address: string, token: Buffer, nowMs: number): Buffer {
  const period = Math.floor(nowMs / COOKIE_PERIOD_MS);
  return createHmac("sha256", secret)
    .update(`${period} ${address} ${token.toString("hex")}`)
    .digest()
    .subarray(0, 16);
}

export function isCookieFor(
  cookie: Buffer,
  secret: Buffer,
  address: string,
  token: Buffer,
  nowMs: number,
): boolean {
  return [nowMs, nowMs - COOKIE_PERIOD_MS].some((atMs) =>
    cookieFor(secret, address, token, atMs).equals(cookie),
  );
}

/** For Wireshark the bitfield is 32 flags, named after how far before `ack` the packet is. */
function withBits(shape: StructShape): Shape {
  const bits = Array.from({ length: 32 }, (_, i) => ({ name: `minus_${32 - i}`, width: 1 }));
  return {
    ...shape,
    fields: shape.fields.map((field) =>
      field.name === "ackBitfield"
        ? { ...field, shape: { kind: "bits", bits: 32, fields: bits, before: "ack" } }
        : field,
    ),
  };
}

export const dissectors: readonly Dissector[] = [
  {
    name: "nlru",
    title: "Reliable UDP (netlab)",
    pdu: withBits(Packet.shape),
    info: "{kind} in packet {sequence}, ack {ack}, missing {missing}",
    udp: [PORT],
  },
];
