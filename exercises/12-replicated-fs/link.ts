/** Connections between nodes, and of clients to them: both ends prove to know the secret before anything else is said. */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import type { Connection } from "../../shared/connection.ts";
import { Failure, UsageError } from "../../shared/errors.ts";
import { decode, encode } from "../../shared/pdu.ts";
import { connect } from "../../shared/tcp.ts";
import {
  type Action,
  Challenge,
  Frame,
  frame,
  MAX_FRAME_BYTES,
  MAX_STRANGER_BYTES,
  NONCE_BYTES,
  NOTHING,
  Proof,
  Result,
} from "./protocol.ts";

/** Zeros: a client, or a node that belongs to no file system yet. */
export const NO_CLUSTER = Buffer.alloc(16);
const HANDSHAKE_MS = 5000;

const isLoopback = (address: string) => /^(127\.|::1$|::ffff:127\.|localhost$)/.test(address);

/** The secret of --secret-file; without one an empty one, and only loopback is served. */
export function secretOf(path: string | undefined): Buffer {
  if (path === undefined) return NOTHING;
  try {
    const secret = Buffer.from(readFileSync(path, "utf8").trim());
    if (secret.length >= 16) return secret;
  } catch (error) {
    throw new UsageError(`cannot read the secret ${path}`, { cause: error });
  }
  throw new UsageError(
    `${path}: a secret has at least 16 characters; \`openssl rand -hex 32 > ${path}\` makes one`,
  );
}

/** Throws `UsageError` where an address beyond this machine would be served without a secret. */
export function refuseOpenHost(host: string, secret: Buffer): void {
  if (secret.length > 0 || isLoopback(host)) return;
  const what = isIP(host) ? host : JSON.stringify(host);
  throw new UsageError(
    `cannot serve ${what} without a secret: whoever reaches it could write; give --secret-file`,
  );
}

/** Each end signs both nonces and which end it is: neither can be answered with its own words. */
function macOf(
  secret: Buffer,
  who: "server" | "client",
  challenge: Hello,
  theirs: Buffer,
  id: number,
): Buffer {
  const number = Buffer.alloc(4);
  number.writeUInt32BE(id);
  const hmac = createHmac("sha256", secret).update(`rfs ${who}`);
  return hmac.update(challenge.nonce).update(challenge.cluster).update(theirs).update(number).digest();
}
type Hello = { nonce: Buffer; cluster: Buffer };

async function read(connection: Connection, action: Action, limit = MAX_STRANGER_BYTES): Promise<Frame> {
  const got = await connection.readPdu(Frame, limit);
  if (got?.action === action) return got;
  if (got === undefined) throw new Failure("the peer has closed the connection; is the secret the same?");
  if (got.action === "result") throw new Failure(decode(Result, got.data).text);
  throw new Failure(`${got.action} came in place of ${action}`);
}

/** The server's half: who it is that has connected, 0 for a client. Throws `Failure`. */
export async function admit(
  connection: Connection,
  secret: Buffer,
  id: number,
  cluster: Buffer,
): Promise<number> {
  if (secret.length === 0 && !isLoopback(connection.peerHost))
    throw new Failure("refused: without a secret only this machine is served");
  connection.deadline = performance.now() + HANDSHAKE_MS;
  const challenge = { nonce: randomBytes(NONCE_BYTES), cluster };
  await connection.write(frame(id, "challenge", "", encode(Challenge, challenge)));
  const { idNode, data } = await read(connection, "proof");
  const { nonce, mac } = decode(Proof, data);
  if (!timingSafeEqual(mac, macOf(secret, "client", challenge, nonce, idNode))) {
    const text = "refused: the secret is not the same; give the same --secret-file to all";
    await connection.write(frame(id, "result", "", encode(Result, { outcome: "failed", text })));
    throw new Failure(text);
  }
  const own = macOf(secret, "server", challenge, nonce, id);
  await connection.write(frame(id, "proof", "", encode(Proof, { nonce: challenge.nonce, mac: own })));
  connection.deadline = Number.POSITIVE_INFINITY;
  return idNode;
}

interface Dialed {
  connection: Connection;
  /** The server's node id and file system. */
  id: number;
  cluster: Buffer;
}

interface DialOptions {
  host: string;
  port: number;
  secret: Buffer;
  /** Our own id; 0 for a client. */
  id: number;
  /** Throws `Failure` where the server is of another file system; zeros: any will do. */
  cluster?: Buffer;
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** Connects, and proves both ends to each other. Throws `Failure`. */
export async function dial({ secret, id, cluster = NO_CLUSTER, ...where }: DialOptions): Promise<Dialed> {
  const connection = await connect({ timeoutMs: HANDSHAKE_MS, ...where });
  try {
    connection.deadline = performance.now() + (where.timeoutMs ?? HANDSHAKE_MS);
    const hello = await read(connection, "challenge");
    const challenge = decode(Challenge, hello.data);
    const nonce = randomBytes(NONCE_BYTES);
    const mac = macOf(secret, "client", challenge, nonce, id);
    await connection.write(frame(id, "proof", "", encode(Proof, { nonce, mac })));
    const proof = decode(Proof, (await read(connection, "proof")).data);
    if (!timingSafeEqual(proof.mac, macOf(secret, "server", challenge, nonce, hello.idNode)))
      throw new Failure("refused: the server does not know the secret");
    if (!cluster.equals(NO_CLUSTER) && !cluster.equals(challenge.cluster))
      throw new Failure(`${connection.peer} serves another file system`);
    connection.deadline = Number.POSITIVE_INFINITY;
    return { connection, id: hello.idNode, cluster: challenge.cluster };
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** The next frame of an answer; throws `Failure` where the answer says why there is none, or breaks off. */
export async function nextFrame(connection: Connection): Promise<Frame> {
  const got = await connection.readPdu(Frame, MAX_FRAME_BYTES);
  if (got === undefined) throw new Failure("the node has closed the connection");
  return got;
}
