/** Who may log in: names with scrypt hashes (RFC 7914), a line each: `ana:$scrypt$ln=15,r=8,p=1$SALT$HASH`. */
import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { Failure } from "../../shared/errors.ts";
import { MAX_PASSWORD_BYTES, USER_NAME } from "./protocol.ts";

const derive = promisify<string, Buffer, number, ScryptOptions, Buffer>(scrypt);
const HASH_BYTES = 32;
const SALT_BYTES = 16;
const LINE = /^([^:]+):\$scrypt\$ln=(\d+),r=(\d+),p=(\d+)\$([\w+/]+)\$([\w+/]+)$/;

/** What one guess costs: memory is 128 × r × 2^ln bytes, here 32 MiB. */
interface Cost {
  ln: number;
  r: number;
  p: number;
}
const COST: Cost = { ln: 15, r: 8, p: 1 };

interface Entry extends Cost {
  salt: Buffer;
  hash: Buffer;
}
export type Users = ReadonlyMap<string, Entry>;

/** Throws `Failure` with the line that is wrong. */
export function parseUsers(content: string): Map<string, Entry> {
  const users = new Map<string, Entry>();
  for (const [i, line] of content.split(/\r?\n/).entries()) {
    if (/^\s*(#|$)/.test(line)) continue;
    const [, name = "", ln, r, p, salt = "", hash = ""] = LINE.exec(line) ?? [];
    const entry = { ln: Number(ln), r: Number(r), p: Number(p), salt: base64(salt), hash: base64(hash) };
    const isSane = USER_NAME.test(name) && entry.ln >= 1 && entry.ln <= 20 && entry.r <= 16 && entry.p <= 16;
    if (!isSane || entry.hash.length !== HASH_BYTES)
      throw new Failure(
        `line ${i + 1}: must be NAME:$scrypt$ln=…,r=…,p=…$SALT$HASH, as adduser.ts writes it`,
      );
    if (users.has(name)) throw new Failure(`line ${i + 1}: ${name} is there a second time`);
    users.set(name, entry);
  }
  return users;
}

const base64 = (text: string) => Buffer.from(text, "base64");
const unpadded = (bytes: Buffer) => bytes.toString("base64").replaceAll("=", "");

function derived(password: string, { ln, r, p, salt }: Omit<Entry, "hash">): Promise<Buffer> {
  const options = { N: 2 ** ln, r, p, maxmem: 256 * r * 2 ** ln };
  return derive(password.normalize("NFC"), salt, HASH_BYTES, options);
}

/** The user's line for the file. */
export async function userLine(name: string, password: string, cost = COST): Promise<string> {
  const salt = randomBytes(SALT_BYTES);
  const hash = await derived(password, { ...cost, salt });
  return `${name}:$scrypt$ln=${cost.ln},r=${cost.r},p=${cost.p}$${unpadded(salt)}$${unpadded(hash)}`;
}

/** Throws `Failure` where it cannot be one. */
export function checkPassword(password: string): void {
  if (password === "") throw new Failure("the password is empty");
  if (/\p{Cc}/u.test(password)) throw new Failure("the password has control characters");
  if (Buffer.byteLength(password) > MAX_PASSWORD_BYTES)
    throw new Failure(`the password is longer than ${MAX_PASSWORD_BYTES} bytes`);
}

/** Somebody who does not exist costs as much as the costliest user, and is never let in. */
function decoy(users: Users): Entry {
  const costs = [...users.values()].sort((a, b) => b.ln * b.r * b.p - a.ln * a.r * a.p);
  return { ...(costs[0] ?? COST), salt: Buffer.alloc(SALT_BYTES), hash: Buffer.alloc(HASH_BYTES) };
}

export async function isRight(users: Users, name: string, password: string): Promise<boolean> {
  const user = users.get(name);
  const entry = user ?? decoy(users);
  const isSame = timingSafeEqual(await derived(password, entry), entry.hash);
  return isSame && user !== undefined;
}
