/**
 * The lab's clock protocol: one PDU of 48 bytes for request and reply alike, and what a datagram is to a server. On
 * the same port, over UDP and TCP: RFC 868's four bytes.
 */
import type { Dissector } from "../../shared/describe.ts";
import {
  bits,
  constant,
  decode,
  encode,
  enumOf,
  i64,
  PduError,
  struct,
  u8,
  u32,
  u64,
  type ValueOf,
} from "../../shared/pdu.ts";
import { whyUnanswered } from "../../shared/small-services.ts";

export const CLOCK_PORT = 11_000;

const MAGIC = 0x4e4c4354;
const VERSION = 1;

export const ClockTime = struct("ClockTime", {
  magic: [constant(u32, MAGIC), '"NLCT" in ASCII'],
  version: [constant(u8, VERSION), "of this protocol"],
  kind: [enumOf(u8, { request: 1, reply: 2 }), "a server answers requests only"],
  flags: [bits({ reserved: 16 }), "none yet"],
  id: [u64, "chosen by the client at random, repeated in the reply"],
  clientTransmit: [
    i64,
    "T1: when the request left, in ns of the client's monotonic clock; repeated in the reply",
  ],
  serverReceive: [
    i64,
    "T2: when the request came, in ns since 1970-01-01T00:00:00Z, leap seconds not counted",
  ],
  serverTransmit: [i64, "T3: when the reply left, likewise"],
  serverError: [u64, "the server's own estimate of how far its clock may be from UTC, in ns"],
});
export type ClockTime = ValueOf<typeof ClockTime>;

const NANOSECONDS = 1e6;
/** Milliseconds as nanoseconds. A `number` holds today's time to a quarter of a microsecond. */
export const toNs = (ms: number): bigint => BigInt(Math.round(ms * NANOSECONDS));
export const toMs = (ns: bigint): number => Number(ns) / NANOSECONDS;

const TRANSMIT_OFFSET = 16;

/** A request in which only the time is still to be filled in, by `stampRequest`. */
export function requestFor(id: bigint): Buffer {
  return encode(ClockTime, {
    kind: "request",
    flags: {},
    id,
    clientTransmit: 0n,
    serverReceive: 0n,
    serverTransmit: 0n,
    serverError: 0n,
  });
}

/** T1 comes last into a request: what is done after it counts as time on the way. */
export function stampRequest(request: Buffer, clientTransmit: bigint): void {
  request.writeBigInt64BE(clientTransmit, TRANSMIT_OFFSET);
}

/** What a datagram is to a server. */
type Arrival =
  | { kind: "request"; id: bigint; clientTransmit: bigint }
  | { kind: "plain request" }
  | { kind: "dropped"; reason: string };

/**
 * A datagram of the PDU's length with its magic is ours, any other a request by RFC 868. What may itself be an
 * answer is dropped, so that no two servers can be set to answering each other by one forged datagram.
 */
export function classify(datagram: Buffer, sourcePort: number): Arrival {
  const unanswered = whyUnanswered(sourcePort);
  if (unanswered !== undefined) return { kind: "dropped", reason: unanswered };
  const isOurs = datagram.length === ClockTime.minSize && datagram.readUInt32BE(0) === MAGIC;
  if (!isOurs) {
    return isTime868(datagram) ? { kind: "dropped", reason: "is itself a time" } : { kind: "plain request" };
  }
  try {
    const { kind, id, clientTransmit } = decode(ClockTime, datagram);
    if (kind === "reply") return { kind: "dropped", reason: "is itself a reply" };
    return { kind: "request", id, clientTransmit };
  } catch (error) {
    if (!(error instanceof PduError)) throw error;
    return { kind: "dropped", reason: `is malformed (${error.message})` };
  }
}

const SECONDS_FROM_1900_TO_1970 = 2_208_988_800;
const SECONDS_FROM_1900_TO_2000 = 3_155_673_600;

/** Seconds since 1900 in 32 bits; they begin anew on 7 February 2036 (RFC 868). */
export function time868(utcMs: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE((Math.floor(utcMs / 1000) + SECONDS_FROM_1900_TO_1970) % 2 ** 32);
  return bytes;
}

/** RFC 868 asks with an empty datagram; four bytes that read as a time from 2000 on are another server's answer. */
export function isTime868(datagram: Buffer): boolean {
  return datagram.length === 4 && datagram.readUInt32BE(0) >= SECONDS_FROM_1900_TO_2000;
}

/** The times of a reply to this very request. Throws `PduError` for anything else. */
export function readReply(datagram: Buffer, id: bigint, clientTransmit: bigint) {
  const reply = decode(ClockTime, datagram);
  if (reply.kind !== "reply") throw new PduError("ClockTime.kind", 5, "is a request");
  if (reply.id !== id) throw new PduError("ClockTime.id", 8, "is not that of the request");
  if (reply.clientTransmit !== clientTransmit)
    throw new PduError("ClockTime.clientTransmit", TRANSMIT_OFFSET, "is not that of the request");
  if (reply.serverTransmit < reply.serverReceive)
    throw new PduError("ClockTime.serverTransmit", 32, "is before serverReceive");
  return {
    t2Ms: toMs(reply.serverReceive),
    t3Ms: toMs(reply.serverTransmit),
    serverErrorMs: toMs(reply.serverError),
  };
}

export const dissectors: readonly Dissector[] = [
  {
    name: "nlct",
    title: "Clock time (netlab)",
    pdu: ClockTime.shape,
    info: "{kind} {id}",
    otherwise: "time",
    udp: [CLOCK_PORT],
  },
  { as: "time", tcp: [CLOCK_PORT] },
];
