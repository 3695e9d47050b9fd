/**
 * The lab's daytime protocol: one PDU of 64 bytes for request and reply alike, and the rules that need no socket
 * and no clock. Beside it on the same port: RFC 867's line, and RFC 5905's packet for the time server's side.
 */
import type { Dissector } from "../../shared/describe.ts";
import {
  bits,
  constant,
  decode,
  encode,
  enumOf,
  fixedText,
  i8,
  i16,
  i64,
  PduError,
  struct,
  u8,
  u32,
  u64,
  type ValueOf,
} from "../../shared/pdu.ts";
import { whyUnanswered } from "../../shared/small-services.ts";

export const DAYTIME_PORT = 10_200;
export const NTP_PORT = 123;

const MAGIC = 0x4e4c4454;
const VERSION = 1;
export const LOCALE_BYTES = 8;

export const Daytime = struct("Daytime", {
  magic: [constant(u32, MAGIC), '"NLDT" in ASCII'],
  version: [constant(u8, VERSION), "of this protocol"],
  kind: [enumOf(u8, { request: 1, reply: 2 }), "a server answers requests only"],
  status: [enumOf(u8, { ok: 0, "unknown-zone": 1, "bad-request": 2 }), "how the request fared"],
  synchronisation: [
    enumOf(u8, { none: 0, synchronised: 1, holdover: 2 }),
    "the server's clock: the machine's own; in step with NTP; was in step, and runs on alone",
  ],
  stratum: [u8, "the time server's stratum and one more; 0 where there was never one"],
  flags: [bits({ dst: 1, reserved: 7 }), "dst: the zone's clocks are ahead of its standard time"],
  utcOffsetMinutes: [i16, "local time less UTC, in minutes, DST included; positive is east"],
  id: [u32, "chosen by the client, repeated in the reply"],
  utcMs: [i64, "milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted"],
  zone: [fixedText(32), "a name of the tz database; empty in a request: the server's zone"],
  locale: [fixedText(LOCALE_BYTES), "the server's language and region (BCP 47)"],
});
export type Daytime = ValueOf<typeof Daytime>;

const NOTHING_YET = {
  status: "ok",
  synchronisation: "none",
  stratum: 0,
  flags: { dst: false },
  utcOffsetMinutes: 0,
  utcMs: 0n,
  locale: "",
} as const;

/** A request; what only a reply has is zero. Throws `PduError` where the zone is longer than any name. */
export function requestFor(id: number, zone: string): Buffer {
  return encode(Daytime, { ...NOTHING_YET, kind: "request", id, zone });
}

/** What a datagram is to a server. */
export type Arrival =
  | { kind: "request"; id: number; zone: string }
  | { kind: "bad request"; id: number; problem: string }
  | { kind: "daytime request" }
  | { kind: "dropped"; reason: string };

/**
 * A datagram of the PDU's length with its magic is ours, any other a request by RFC 867. What may itself be an
 * answer is dropped, so that no two servers can be set to answering each other by one forged datagram.
 */
export function classify(datagram: Buffer, sourcePort: number): Arrival {
  const unanswered = whyUnanswered(sourcePort);
  if (unanswered !== undefined) return { kind: "dropped", reason: unanswered };
  const isOurs = datagram.length === Daytime.minSize && datagram.readUInt32BE(0) === MAGIC;
  if (!isOurs) {
    return isDaytimeLine(datagram)
      ? { kind: "dropped", reason: "is itself a daytime line" }
      : { kind: "daytime request" };
  }
  // The kind decides before anything else is checked: not even a broken reply is answered.
  if (datagram[KIND_OFFSET] === REPLY_CODE) return { kind: "dropped", reason: "is itself a reply" };
  try {
    const { id, zone } = decode(Daytime, datagram);
    return { kind: "request", id, zone };
  } catch (error) {
    if (!(error instanceof PduError)) throw error;
    return { kind: "bad request", id: datagram.readUInt32BE(ID_OFFSET), problem: error.message };
  }
}
const KIND_OFFSET = 5;
const REPLY_CODE = 2;
const ID_OFFSET = 12;

/** No line of ours is longer, and none that is taken for one. */
export const MAX_LINE_BYTES = 128;

/** A printable line with a time in it, as daytime servers send (RFC 867 gives no syntax, only examples). */
export function isDaytimeLine(datagram: Buffer): boolean {
  if (datagram.length > MAX_LINE_BYTES) return false;
  return /^[\x20-\x7e]*\d\d:\d\d:\d\d[\x20-\x7e]*\r\n$/.test(datagram.toString("latin1"));
}

export type Reply = Omit<Daytime, "kind" | "flags" | "utcMs"> & { dst: boolean; utcMs: number };

const DAY_MINUTES = 24 * 60;
const MAX_DATE_MS = 8.64e15;

/** The reply to the request of this id. Throws `PduError` for anything else, and for what no clock can show. */
export function readReply(datagram: Buffer, id: number): Reply {
  const { kind, flags, ...reply } = decode(Daytime, datagram);
  const utcMs = Number(reply.utcMs);
  if (kind !== "reply") throw new PduError("Daytime.kind", KIND_OFFSET, "is a request");
  if (reply.id !== id) throw new PduError("Daytime.id", ID_OFFSET, `answers request ${reply.id}, not ${id}`);
  if (Math.abs(reply.utcOffsetMinutes) > DAY_MINUTES) {
    throw new PduError("Daytime.utcOffsetMinutes", 10, `${reply.utcOffsetMinutes} is more than a day`);
  }
  if (Math.abs(utcMs) > MAX_DATE_MS - DAY_MINUTES * 60_000) {
    throw new PduError("Daytime.utcMs", 16, `${utcMs} is beyond all calendars`);
  }
  // Of a zone that the server does not know, it says what it was asked for, whatever that was.
  if (reply.status === "ok" && !/^[\x21-\x7e]*$/.test(reply.zone))
    throw new PduError("Daytime.zone", 24, "is not printable ASCII");
  return { ...reply, dst: flags.dst, utcMs };
}

/** `-03:00` */
export function offsetText(minutes: number): string {
  const pad = (value: number) => String(value).padStart(2, "0");
  const size = Math.abs(minutes);
  return `${minutes < 0 ? "-" : "+"}${pad(Math.floor(size / 60))}:${pad(size % 60)}`;
}

/** What a time server is asked and answers (RFC 5905 §7.3). Times are seconds since 1900, 32 bits after the point. */
export const NtpPacket = struct("NtpPacket", {
  head: [
    bits({ leap: 2, version: 3, mode: 3 }),
    "leap 3: the clock is not synchronised; mode 3: client, 4: server",
  ],
  stratum: [u8, "1: has a reference clock; 0 and 16: not synchronised"],
  poll: [i8, "interval of polls, as a power of 2 in seconds"],
  precision: [i8, "of the clock, as a power of 2 in seconds"],
  rootDelay: [u32, "to the reference clock and back, in seconds, 16 bits after the point"],
  rootDispersion: [u32, "greatest error to the reference clock, likewise"],
  referenceId: [u32, "of the reference clock, or of the server that it follows"],
  reference: [u64, "when the clock was last set"],
  origin: [u64, "T1: the query's own transmit time, repeated in the reply"],
  receive: [u64, "T2: when the query came, by the server's clock"],
  transmit: [u64, "T3: when the reply left"],
});
export type NtpPacket = ValueOf<typeof NtpPacket>;

const SECONDS_FROM_1900_TO_1970 = 2_208_988_800;

/** Milliseconds since 1970 as an NTP timestamp (RFC 5905 §6); the era (136 years) is not in it. */
export function ntpTimestamp(utcMs: number): bigint {
  const fraction = BigInt(Math.round((utcMs / 1000 + SECONDS_FROM_1900_TO_1970) * 2 ** 20)) << 12n;
  return BigInt.asUintN(64, fraction);
}

/** The reply of a server that got the query at this time and answers at once; undefined where it is no query. */
export function ntpReply(query: Buffer, utcMs: number, stratum = 1): NtpPacket | undefined {
  if (query.length < NtpPacket.minSize) return undefined;
  const { head, poll, transmit } = decode(NtpPacket, query.subarray(0, NtpPacket.minSize));
  if (head.mode !== 3) return undefined;
  const now = ntpTimestamp(utcMs);
  return {
    head: { leap: 0, version: head.version, mode: 4 },
    stratum,
    poll,
    precision: -10,
    rootDelay: 0,
    rootDispersion: 0,
    referenceId: 0x4c4f434c, // "LOCL", an uncalibrated local clock
    reference: now,
    origin: transmit,
    receive: now,
    transmit: now,
  };
}

export const dissectors: readonly Dissector[] = [
  {
    name: "nldt",
    title: "Daytime (netlab)",
    pdu: Daytime.shape,
    info: {
      by: ["status", "kind"],
      texts: {
        "unknown-zone": "reply {id}: there is no zone {zone}",
        "bad-request": "reply {id}: that was no request",
        request: "request {id}: {zone}",
        reply: "reply {id}: {zone} is {utcOffsetMinutes} min from UTC; the server's clock: {synchronisation}",
      },
    },
    otherwise: "daytime",
    udp: [DAYTIME_PORT],
  },
  { as: "daytime", tcp: [DAYTIME_PORT] },
  { as: "ntp", udp: [DAYTIME_PORT + 1] },
];
