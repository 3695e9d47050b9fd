/**
 * What a datagram probe carries, so that its reply is known to be its own: a PDU of the lab's that an echo server
 * (RFC 862) sends back as it is, or a query that every DNS server answers (RFC 1035 §4.1). A stream probe carries
 * nothing: its TCP handshake is the round trip.
 */
import type { Dissector } from "../../shared/describe.ts";
import { Failure } from "../../shared/errors.ts";
import {
  bits,
  constant,
  decode,
  encode,
  PduError,
  restBytes,
  struct,
  u16,
  u32,
  u64,
  type ValueOf,
} from "../../shared/pdu.ts";

/** Where the demo has echo servers of exercise 01, and behind it a DNS server and two long ways to the echo server. */
export const PORT = 10_400;
const [DEMO_DNS, DEMO_FAR, DEMO_LOSSY] = [PORT + 1, PORT + 2, PORT + 3] as const;
/** What is measured unless a host comes with a port: exercise 01's echo servers; DNS by its assigned port. */
export const ECHO_PORT = 10_100;
export const DNS_PORT = 53;

export const Probe = struct("Probe", {
  magic: [constant(u32, 0x4e4c5254), '"NLRT" in ASCII'],
  sequence: [u32, "counts the probes to this host, from 0; for whoever watches"],
  id: [u64, "drawn at random for each probe: the reply that repeats it is this probe's"],
});
export type Probe = ValueOf<typeof Probe>;

/** RFC 1035 §4.1.1, and the question behind it. */
export const DnsMessage = struct("DnsMessage", {
  id: [u16, "drawn at random for each query, repeated in the response"],
  flags: [
    bits({
      response: 1,
      opcode: 4,
      authoritative: 1,
      truncated: 1,
      recursionDesired: 1,
      recursionAvailable: 1,
      reserved: 3,
      rcode: 4,
    }),
    "response: not a query; rcode: how the query fared, any is an answer",
  ],
  questions: [u16, "1: the name that is asked for"],
  answers: [u16, "records of the answer"],
  authorities: [u16, "records that say who would know"],
  additionals: [u16, "further records"],
  rest: [restBytes, "the question, and in a response the records"],
});
export type DnsMessage = ValueOf<typeof DnsMessage>;

export const dissectors: readonly Dissector[] = [
  {
    name: "nlrtt",
    title: "netlab RTT probe",
    pdu: Probe.shape,
    info: "probe {sequence}, id {id}",
    otherwise: "echo",
    udp: [PORT, DEMO_FAR, DEMO_LOSSY],
  },
  { as: "echo", tcp: [PORT] },
  { as: "dns", udp: [DEMO_DNS] },
];

/** A kind of datagram probe. Ids are bigints below 2 ** idBits. */
export interface DatagramProbe {
  readonly idBits: number;
  request(id: bigint, sequence: number): Buffer;
  /** The id that a datagram answers, or undefined where it is no answer to any probe of this kind. */
  answered(datagram: Buffer): bigint | undefined;
}

/** Undefined where the bytes are no such PDU. */
function decoded<T>(codec: Parameters<typeof decode<T>>[0], bytes: Buffer): T | undefined {
  try {
    return decode(codec, bytes);
  } catch (error) {
    if (error instanceof PduError) return undefined;
    throw error;
  }
}

export const echoProbe: DatagramProbe = {
  idBits: 64,
  request: (id, sequence) => encode(Probe, { sequence, id }),
  answered: (datagram) => decoded(Probe, datagram)?.id,
};

const [TYPE_A, TYPE_NS, CLASS_IN] = [1, 2, 1];

/** The question for a name, as RFC 1035 §3.1 writes it: labels with their lengths, the root's last. */
export function question(name: string): Buffer {
  const labels = name
    .replace(/\.$/, "")
    .split(".")
    .filter((label, _, all) => label !== "" || all.length > 1);
  const bytes = labels.map((label) => {
    const text = Buffer.from(label);
    if (!/^[\x21-\x7e]{1,63}$/.test(label)) throw new Failure("is not a domain name");
    return Buffer.concat([Buffer.from([text.length]), text]);
  });
  const whole = Buffer.concat([...bytes, Buffer.from([0])]);
  if (whole.length > 255) throw new Failure("is longer than a domain name can be (255 bytes)");
  const type = labels.length === 0 ? TYPE_NS : TYPE_A;
  return Buffer.concat([whole, Buffer.from([0, type, 0, CLASS_IN])]);
}

/** Asks for the addresses of a name, or, of the root, for its servers: those every resolver knows without asking anyone. */
export function dnsProbe(name: string): DatagramProbe {
  const rest = question(name);
  return {
    idBits: 16,
    request: (id) =>
      encode(DnsMessage, {
        ...{ id: Number(id), questions: 1, answers: 0, authorities: 0, additionals: 0, rest },
        flags: { ...NO_FLAGS, recursionDesired: true },
      }),
    answered: (datagram) => {
      const message = decoded(DnsMessage, datagram);
      if (message === undefined || !message.flags.response || !repeats(message, rest)) return undefined;
      return BigInt(message.id);
    },
  };
}

const NO_FLAGS = {
  response: false,
  opcode: 0,
  authoritative: false,
  truncated: false,
  recursionDesired: false,
  recursionAvailable: false,
  rcode: 0,
};

/** A response repeats the question; one that could not read it (FORMERR) may leave it out. Names may change case. */
function repeats({ questions, rest }: DnsMessage, asked: Buffer): boolean {
  if (questions === 0) return true;
  const text = (bytes: Buffer) => bytes.toString("latin1").toLowerCase();
  return text(rest.subarray(0, asked.length)) === text(asked);
}
