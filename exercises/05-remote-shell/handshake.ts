/** The handshake: two hellos, and both sides have the same two keys, known to nobody else. */
import { type KeyObject, randomBytes } from "node:crypto";
import type { Connection } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { encode } from "../../shared/pdu.ts";
import { hkdf, isSignedBy, newExchangeKey, publicBytes, sha256, sharedSecret, signed } from "./crypto.ts";
import {
  type Encrypt,
  KEY_BYTES,
  MAX_RECORD_BYTES,
  Record,
  type RecordOf,
  transcriptBytes,
} from "./protocol.ts";
import { Channel, Direction } from "./records.ts";

/** What is signed begins with this, so that no signature for another purpose can stand in for it. */
const SIGNED = Buffer.from("NLRS/1 server\0");
const RANDOM_BYTES = 32;

interface SessionKeys {
  clientToServer: Buffer;
  serverToClient: Buffer;
}

/** A key for each direction, so that a record cannot be sent back to who made it. */
export function sessionKeys(secret: Buffer, transcript: Buffer): SessionKeys {
  return {
    clientToServer: hkdf(secret, transcript, "NLRS/1 client to server", KEY_BYTES),
    serverToClient: hkdf(secret, transcript, "NLRS/1 server to client", KEY_BYTES),
  };
}

async function readHello<T extends "clientHello" | "serverHello">(
  connection: Connection,
  type: T,
): Promise<RecordOf<T>> {
  const record = await connection.readPdu(Record, MAX_RECORD_BYTES);
  if (record === undefined) throw new Failure("the peer closed the connection before its hello");
  if (record.type !== type) throw new Failure(`a ${record.type} record came instead of the ${type}`);
  return record as RecordOf<T>;
}

const newClientHello = (key: KeyObject): RecordOf<"clientHello"> => ({
  type: "clientHello",
  publicKey: publicBytes(key),
  random: randomBytes(RANDOM_BYTES),
});

/** Answers a client's hello. Throws `Failure` where it is none. */
export async function serverHandshake(
  connection: Connection,
  hostKey: KeyObject,
  encrypt: Encrypt,
): Promise<Channel> {
  const client = await readHello(connection, "clientHello");
  const own = newExchangeKey();
  const secret = sharedSecret(own, client.publicKey);
  const hello: RecordOf<"serverHello"> = {
    type: "serverHello",
    encrypt,
    publicKey: publicBytes(own),
    random: randomBytes(RANDOM_BYTES),
    hostKey: publicBytes(hostKey),
    signature: Buffer.alloc(64),
  };
  const transcript = sha256(transcriptBytes(client, hello));
  hello.signature = signed(hostKey, Buffer.concat([SIGNED, transcript]));
  await connection.write(encode(Record, hello));
  const { clientToServer, serverToClient } = sessionKeys(secret, transcript);
  return new Channel(connection, new Direction(serverToClient), new Direction(clientToServer));
}

export interface Greeted {
  channel: Channel;
  /** The server has proved that it has the private half. Whether it is the right server's, nobody has asked yet. */
  hostKey: Buffer;
  encrypt: Encrypt;
}

/** Throws `Failure` where the signature is not that of exactly these two hellos by the host key that came along. */
export async function clientHandshake(connection: Connection): Promise<Greeted> {
  const own = newExchangeKey();
  const hello = newClientHello(own);
  await connection.write(encode(Record, hello));
  const server = await readHello(connection, "serverHello");
  const transcript = sha256(transcriptBytes(hello, server));
  if (!isSignedBy(server.hostKey, Buffer.concat([SIGNED, transcript]), server.signature))
    throw new Failure("the server's signature is wrong: somebody has changed what was sent");
  const secret = sharedSecret(own, server.publicKey);
  const { clientToServer, serverToClient } = sessionKeys(secret, transcript);
  const channel = new Channel(connection, new Direction(clientToServer), new Direction(serverToClient));
  return { channel, hostKey: server.hostKey, encrypt: server.encrypt };
}
