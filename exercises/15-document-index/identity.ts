/** Who a node is: a pair of Ed25519 keys (RFC 8032) that is made when it starts; the public one is its id. */
import { createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from "node:crypto";

export interface Identity {
  /** The public key, 32 bytes. */
  key: Buffer;
  sign: (bytes: Buffer) => Buffer;
}

/** What a public key of 32 bytes has in front of it as SubjectPublicKeyInfo (RFC 8410 §4). */
const SPKI_HEAD = Buffer.from("302a300506032b6570032100", "hex");
const MAX_KEYS = 512;
/** The keys of late, as making one of its bytes takes as long as using it. */
const keys = new Map<string, KeyObject>();

export function newIdentity(): Identity {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const key = publicKey.export({ format: "der", type: "spki" }).subarray(SPKI_HEAD.length);
  return { key, sign: (bytes) => sign(null, bytes, privateKey) };
}

function keyOf(bytes: Buffer): KeyObject {
  const id = bytes.toString("hex");
  const known = keys.get(id);
  if (known !== undefined) return known;
  const der = Buffer.concat([SPKI_HEAD, bytes]);
  const key = createPublicKey({ key: der, format: "der", type: "spki" });
  if (keys.size >= MAX_KEYS) keys.delete(keys.keys().next().value ?? "");
  keys.set(id, key);
  return key;
}

/** Whether the owner of this public key has signed these bytes. */
export const isSignedBy = (key: Buffer, bytes: Buffer, signature: Buffer) =>
  verify(null, bytes, keyOf(key), signature);
