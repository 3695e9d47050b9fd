/** What nodes tell each other over TCP: the index and its changes, and contents. Both ends. */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { open, realpath } from "node:fs/promises";
import { join, sep } from "node:path";
import type { Connection } from "../../shared/connection.ts";
import { explain, Failure, TooLongError } from "../../shared/errors.ts";
import { encode, PduError } from "../../shared/pdu.ts";
import { connect } from "../../shared/tcp.ts";
import {
  type Change,
  type Document,
  isDocument,
  MAX_REMOVALS,
  type OwnIndex,
  type Update,
} from "./document-index.ts";
import { type Identity, isSignedBy } from "./identity.ts";
import type { Place } from "./membership.ts";
import {
  changeOf,
  documentMessage,
  indexProof,
  LieError,
  MAX_CHUNK_BYTES,
  MAX_DOCUMENTS,
  MAX_MESSAGE_BYTES,
  Message,
} from "./protocol.ts";
import { printable } from "./safe-path.ts";

const CONNECT_MS = 1500;
/** Between two pieces of an answer. */
const ANSWER_MS = 3000;
/** For a whole index. */
const INDEX_MS = 20_000;
/** Requests are short. */
const MAX_REQUEST_BYTES = 64;
/** Messages that are sent in one piece. */
const BATCH = 500;

const isLie = (error: unknown) =>
  error instanceof LieError || error instanceof PduError || error instanceof TooLongError;

export interface Served {
  identity: Identity;
  index: OwnIndex;
  /** The folder of the documents; undefined: there are none. */
  folder: string | undefined;
}

/** Answers a peer's requests, one after the other. */
export async function answer(connection: Connection, served: Served): Promise<void> {
  while (true) {
    const request = await connection.readPdu(Message, MAX_REQUEST_BYTES);
    if (request === undefined) return;
    if (request.type === "indexRequest") await sendIndex(connection, served, request);
    else if (request.type === "contentRequest") await sendContent(connection, served, request);
    else throw new Failure(`sent ${request.type}, which is no request`);
  }
}

type Request<T extends Message["type"]> = Message & { type: T };

async function sendIndex(
  connection: Connection,
  { identity, index }: Served,
  { nonce, since }: Request<"indexRequest">,
): Promise<void> {
  const { version, digest, whole, changes } = index.since(since);
  const signature = identity.sign(indexProof(nonce, identity.key, version, digest));
  const head = { version, digest, flags: { whole }, count: changes.length, signature };
  await connection.write(encode(Message, { type: "index", ...head }));
  for (let at = 0; at < changes.length; at += BATCH) {
    await connection.write(Buffer.concat(changes.slice(at, at + BATCH).map(encoded)));
  }
}

/** A document goes to every other node: it is encoded once. */
const encodings = new WeakMap<Document, Buffer>();
function encoded(change: Change): Buffer {
  if (!isDocument(change)) return encode(Message, { type: "removed", path: change.path });
  const known = encodings.get(change);
  if (known !== undefined) return known;
  const bytes = encode(Message, documentMessage(change));
  encodings.set(change, bytes);
  return bytes;
}

/** Refuses what the index does not have, or what is no longer as the index says. */
async function sendContent(
  connection: Connection,
  { index, folder }: Served,
  { sha256, offset }: Request<"contentRequest">,
): Promise<void> {
  const document = index.withContent(sha256.toString("hex"));
  const refuse = (reason: string) => connection.write(encode(Message, { type: "refusal", reason }));
  if (folder === undefined || document === undefined) return refuse("there is no such content");
  const handle = await openInside(folder, document.path).catch(() => undefined);
  if (handle === undefined) return refuse("the document is gone");
  try {
    const { size } = await handle.stat();
    if (size !== document.size || offset > BigInt(size)) return await refuse("the document has changed");
    await connection.write(encode(Message, { type: "content", size: BigInt(size) }));
    const buffer = Buffer.allocUnsafe(MAX_CHUNK_BYTES);
    for (let at = Number(offset); at < size; ) {
      const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, size - at), at);
      if (bytesRead === 0) throw new Failure(`${document.path} became shorter while it was sent`);
      at += bytesRead;
      await connection.write(encode(Message, { type: "chunk", data: buffer.subarray(0, bytesRead) }));
    }
  } finally {
    await handle.close();
  }
}

/** A path of the index may have become a symbolic link that leads elsewhere. */
async function openInside(folder: string, path: string) {
  const [root, file] = await Promise.all([realpath(folder), realpath(join(folder, path))]);
  if (!file.startsWith(root.endsWith(sep) ? root : root + sep)) throw new Failure("leads out of the folder");
  return open(file, constants.O_RDONLY | constants.O_NOFOLLOW);
}

/**
 * What the node with this key has, from `since` on. Throws `LieError` where it says what cannot be, and `Failure` or
 * the system's error where it cannot be reached.
 */
export async function fetchIndex(
  { address, port }: Place,
  key: Buffer,
  since: number,
  signal: AbortSignal,
): Promise<Update> {
  await using connection = await connect({ host: address, port, timeoutMs: CONNECT_MS, signal });
  connection.timeoutMs = ANSWER_MS;
  connection.deadline = performance.now() + INDEX_MS;
  try {
    const nonce = randomBytes(16);
    await connection.write(encode(Message, { type: "indexRequest", nonce, since }));
    const head = await nextMessage(connection);
    if (head.type !== "index") throw new LieError(`answered with ${head.type} instead of its index`);
    const { version, count, flags, signature } = head;
    const digest = Buffer.from(head.digest);
    if (!isSignedBy(key, indexProof(nonce, key, version, digest), signature))
      throw new LieError("cannot prove that it is who it says");
    if (count > MAX_DOCUMENTS + MAX_REMOVALS) throw new LieError(`says that ${count} documents follow`);
    const changes: Change[] = [];
    while (changes.length < count) changes.push(changeOf(await nextMessage(connection)));
    return { version, digest, whole: flags.whole, changes };
  } catch (error) {
    connection.destroy();
    throw error instanceof LieError || !isLie(error) ? error : new LieError(explain(error));
  }
}

/** The content from `offset` on, in pieces that are valid until the next one only. Throws as `fetchIndex`. */
export async function* fetchContent(
  { address, port }: Place,
  { sha256, size }: Pick<Document, "sha256" | "size">,
  offset: number,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void> {
  await using connection = await connect({ host: address, port, timeoutMs: CONNECT_MS, signal });
  connection.timeoutMs = ANSWER_MS;
  const destroy = () => connection.destroy();
  signal.addEventListener("abort", destroy, { once: true });
  try {
    const request = { sha256: Buffer.from(sha256, "hex"), offset: BigInt(offset) };
    await connection.write(encode(Message, { type: "contentRequest", ...request }));
    const head = await nextMessage(connection);
    if (head.type === "refusal") throw new Failure(`refused: ${printable(head.reason)}`);
    if (head.type !== "content") throw new LieError(`answered with ${head.type} instead of a content`);
    if (head.size !== BigInt(size)) throw new LieError(`says that the size is ${head.size}, not ${size}`);
    for (let at = offset; at < size; ) {
      const chunk = await nextMessage(connection);
      if (chunk.type !== "chunk") throw new LieError(`sent ${chunk.type} in the middle of a content`);
      at += chunk.data.length;
      if (chunk.data.length === 0 || at > size) throw new LieError("sent chunks that do not fit");
      yield chunk.data;
    }
  } finally {
    signal.removeEventListener("abort", destroy);
    connection.destroy();
  }
}

async function nextMessage(connection: Connection): Promise<Message> {
  const message = await connection.readPdu(Message, MAX_MESSAGE_BYTES);
  if (message === undefined) throw new Failure("the peer finished before its answer was whole");
  return message;
}
