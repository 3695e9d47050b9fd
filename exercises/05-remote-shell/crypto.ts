/**
 * The primitives, all of them Node's, in the form in which the protocol needs them: keys are 32 plain bytes. Nothing
 * here invents cryptography, and the tests hold each against the vectors of its specification.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { Failure } from "../../shared/errors.ts";
import { KEY_BYTES, TAG_BYTES } from "./protocol.ts";

const CIPHER = "aes-256-gcm";
type Curve = "X25519" | "Ed25519";

/** A public key as its 32 bytes (RFC 7748, RFC 8032). */
export function publicBytes(key: KeyObject): Buffer {
  return Buffer.from(key.export({ format: "jwk" }).x ?? "", "base64url");
}

function publicKey(curve: Curve, bytes: Buffer): KeyObject {
  return createPublicKey({ key: { kty: "OKP", crv: curve, x: bytes.toString("base64url") }, format: "jwk" });
}

export function privateKey(curve: Curve, secret: Buffer, publicPart: Buffer): KeyObject {
  const [d, x] = [secret.toString("base64url"), publicPart.toString("base64url")];
  return createPrivateKey({ key: { kty: "OKP", crv: curve, d, x }, format: "jwk" });
}

export const newExchangeKey = () => generateKeyPairSync("x25519").privateKey;
export const newHostKey = () => generateKeyPairSync("ed25519").privateKey;

/** X25519. Throws `Failure` for the points of low order, with which the secret would be known to all (RFC 7748 §6.1). */
export function sharedSecret(own: KeyObject, peerBytes: Buffer): Buffer {
  let secret: Buffer;
  try {
    secret = diffieHellman({ privateKey: own, publicKey: publicKey("X25519", peerBytes) });
  } catch {
    throw new Failure("the peer's X25519 key is of low order");
  }
  if (secret.every((byte) => byte === 0)) throw new Failure("the peer's X25519 key is of low order");
  return secret;
}

export const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest();

/** HKDF-SHA-256, extract and expand (RFC 5869). */
export function hkdf(secret: Buffer, salt: Buffer, info: string | Buffer, sizeBytes: number): Buffer {
  return Buffer.from(hkdfSync("sha256", secret, salt, info, sizeBytes));
}

export const signed = (key: KeyObject, bytes: Buffer) => sign(null, bytes, key);

export function isSignedBy(publicPart: Buffer, bytes: Buffer, signature: Buffer): boolean {
  return verify(null, bytes, publicKey("Ed25519", publicPart), signature);
}

/** AES-256-GCM: the ciphertext and behind it the tag. A nonce must never come twice under one key. */
export function seal(key: Buffer, nonce: Buffer, plain: Buffer, associated: Buffer): Buffer {
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(associated);
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** What was sealed, or undefined if a single bit of it, of its nonce or of what was associated is another. */
export function open(key: Buffer, nonce: Buffer, sealed: Buffer, associated: Buffer): Buffer | undefined {
  if (sealed.length < TAG_BYTES) return undefined;
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(associated);
  decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
  try {
    const plain = decipher.update(sealed.subarray(0, -TAG_BYTES));
    decipher.final();
    return plain;
  } catch {
    return undefined;
  }
}

/** A host key as people compare it, the way that ssh writes it: `SHA256:` and base64. */
export function fingerprint(hostKey: Buffer): string {
  if (hostKey.length !== KEY_BYTES) throw new Failure(`a host key of ${hostKey.length} bytes`);
  return `SHA256:${sha256(hostKey).toString("base64").replace(/=+$/, "")}`;
}
