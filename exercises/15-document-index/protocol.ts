/**
 * NLDI, the netlab document index: what travels, and the rules that need no socket, clock or disk. The README is the
 * specification. Nodes find each other by one datagram (`Announcement`); index and documents travel over TCP (`Message`).
 */
import type { Dissector } from "../../shared/describe.ts";
import { Failure } from "../../shared/errors.ts";
import {
  bits,
  bytes,
  constant,
  decode,
  encode,
  enumOf,
  fixedBytes,
  fixedText,
  struct,
  text,
  u8,
  u16,
  u32,
  u64,
  union,
  type ValueOf,
} from "../../shared/pdu.ts";
import type { Change, Document } from "./document-index.ts";
import { printable, whyUnsafe } from "./safe-path.ts";

/** The assignment's ports: a node has one of them, for UDP and TCP alike. */
export const PORT = 8000;
export const LAST_PORT = 8005;
export const MAX_NAME_BYTES = 24;
const MAX_PATH_BYTES = 1024;
/** What a node offers at most; an index that is larger is refused. */
export const MAX_DOCUMENTS = 100_000;
export const MAX_CHUNK_BYTES = 65_536;
/** The largest `Message`: a chunk with its type and length. */
export const MAX_MESSAGE_BYTES = MAX_CHUNK_BYTES + 5;
const KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;
const DIGEST_BYTES = 16;

export const Announcement = struct("NLDI", {
  magic: [constant(u32, 0x4e4c_4449), '"NLDI"'],
  kind: [enumOf(u8, { announce: 1, leave: 2 }), "whether the node is there or leaves"],
  flags: [bits({ reply: 1, reserved: 7 }), "R: whoever gets this announces itself to the sender at once"],
  node: [fixedBytes(KEY_BYTES), "the node's id, which is its Ed25519 public key (RFC 8032)"],
  sequence: [u64, "grows with each announcement of the node"],
  port: [u16, "the node's port, for UDP and TCP alike"],
  version: [u32, "of its index: the number of changes that made it"],
  digest: [fixedBytes(DIGEST_BYTES), "of its index, see 5"],
  name: [fixedText(MAX_NAME_BYTES), "what people call the node"],
  signature: [fixedBytes(SIGNATURE_BYTES), "Ed25519, of all the bytes before it"],
});
export type Announcement = ValueOf<typeof Announcement>;
export const ANNOUNCEMENT_BYTES = Announcement.minSize;

export const Message = union("NLDX", "type", u8, {
  indexRequest: [
    1,
    {
      nonce: [fixedBytes(16), "random; the answer's signature covers it"],
      since: [u32, "the version that the asker has; 0: none"],
    },
    "asks for the index, or for what has changed in it",
  ],
  index: [
    2,
    {
      version: [u32, "the version that the asker will have"],
      digest: [fixedBytes(DIGEST_BYTES), "of that version"],
      flags: [bits({ whole: 1, reserved: 7 }), "W: forget what you had"],
      count: [u32, "documents and removals that follow"],
      signature: [fixedBytes(SIGNATURE_BYTES), 'Ed25519, of "NLDX", nonce, node, version and digest'],
    },
    "answers it; `count` messages of types 3 and 4 follow",
  ],
  document: [
    3,
    {
      path: [text(u16, MAX_PATH_BYTES), "in the node's folder, / between its parts"],
      size: [u64, "in bytes"],
      modifiedMs: [u64, "milliseconds since 1970-01-01 UTC"],
      sha256: [fixedBytes(32), "SHA-256 of its content (FIPS 180-4)"],
    },
    "a document that is new or has changed",
  ],
  removed: [4, { path: [text(u16, MAX_PATH_BYTES), "of a document that is gone"] }, "a removal"],
  contentRequest: [
    5,
    { sha256: [fixedBytes(32), "of the content wanted"], offset: [u64, "where to begin, in bytes"] },
    "asks for a content, under whatever name",
  ],
  content: [
    6,
    { size: [u64, "of the whole content"] },
    "answers it; chunks follow, from the offset to the end",
  ],
  chunk: [7, { data: [bytes(u32, MAX_CHUNK_BYTES), "the next bytes"] }, "a piece of a content"],
  refusal: [8, { reason: [text(u8), "for people"] }, "what was asked for is not to be had"],
});
export type Message = ValueOf<typeof Message>;

/** What an announcement's signature covers. */
export const signedPart = (datagram: Buffer) => datagram.subarray(0, datagram.length - SIGNATURE_BYTES);

/** What an index answer's signature covers: without the nonce an old answer could be sent again. */
export function indexProof(nonce: Buffer, node: Buffer, version: number, digest: Buffer): Buffer {
  const versionBytes = Buffer.alloc(4);
  versionBytes.writeUInt32BE(version);
  return Buffer.concat([Buffer.from("NLDX"), nonce, node, versionBytes, digest]);
}

const UNSIGNED = Buffer.alloc(SIGNATURE_BYTES);
export function signedAnnouncement(
  announcement: Omit<Announcement, "signature">,
  sign: (bytes: Buffer) => Buffer,
): Buffer {
  const datagram = encode(Announcement, { ...announcement, signature: UNSIGNED });
  sign(signedPart(datagram)).copy(datagram, datagram.length - SIGNATURE_BYTES);
  return datagram;
}

/** Throws `Failure` where it is none, or not from where it says. Whether the signature is right is not looked at. */
export function readAnnouncement(datagram: Buffer, fromPort: number): Announcement {
  if (datagram.length !== ANNOUNCEMENT_BYTES)
    throw new Failure(`${datagram.length} bytes are no announcement, which has ${ANNOUNCEMENT_BYTES}`);
  const announcement = decode(Announcement, datagram);
  if (announcement.port !== fromPort)
    throw new Failure(`the announcement of port ${announcement.port} came from port ${fromPort}`);
  return announcement;
}

export const documentMessage = ({ path, size, modifiedMs, sha256 }: Document): Message => ({
  type: "document",
  path,
  size: BigInt(size),
  modifiedMs: BigInt(modifiedMs),
  sha256: Buffer.from(sha256, "hex"),
});

/** A peer says what cannot be true, or what is against the protocol. */
export class LieError extends Failure {
  override name = "LieError";
}

/** The change that a message tells. Throws `LieError` where it is none, or one that no honest node sends. */
export function changeOf(message: Message): Change {
  if (message.type !== "document" && message.type !== "removed")
    throw new LieError(`sent ${message.type} in the middle of an index`);
  const { path } = message;
  const problem = whyUnsafe(path);
  if (problem !== undefined)
    throw new LieError(`names a document ${printable(JSON.stringify(path))}, which ${problem}`);
  if (message.type === "removed") return { path };
  const [size, modifiedMs] = [Number(message.size), Number(message.modifiedMs)];
  if (!Number.isSafeInteger(size) || modifiedMs > MAX_TIME_MS)
    throw new LieError(`says of ${printable(JSON.stringify(path))} what cannot be`);
  return { path, size, modifiedMs, sha256: message.sha256.toString("hex") };
}
/** The last time that a `Date` can tell. */
const MAX_TIME_MS = 8.64e15;

const PORTS = `${PORT}-${LAST_PORT}` as const;
export const dissectors: readonly Dissector[] = [
  {
    name: "nldi",
    title: "netlab document index: discovery",
    pdu: Announcement.shape,
    info: {
      by: ["kind"],
      texts: {
        announce: "{name} is here: version {version}, announcement {sequence}, flags {flags}",
        leave: "{name} leaves",
      },
    },
    udp: [PORTS],
  },
  {
    name: "nldx",
    title: "netlab document index: exchange",
    pdu: Message.shape,
    info: {
      by: ["type"],
      texts: {
        indexRequest: "what has changed since version {since}?",
        index: "version {version}, changes that follow: {count}, flags {flags}",
        document: "document {path}, {size} bytes",
        removed: "removed {path}",
        contentRequest: "send a content, from byte {offset} on",
        content: "content of {size} bytes",
        chunk: "chunk: {data}",
        refusal: "refused: {reason}",
      },
    },
    tcp: [PORTS],
  },
];
