/** Files under a root: names that stay inside it, hashes that are remembered, files that are whole or not there. */
import { createHash } from "node:crypto";
import type { Dirent } from "node:fs";
import { constants, type FileHandle, open, readdir, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { Failure, isFailure } from "../../shared/errors.ts";

const HASH_CHUNK_BYTES = 2 ** 20;
const PART = ".part";
const NOT_SERVED = "names that begin with a dot, end in .part or lead out of the root are not served";

/** The file is not the one that it was. */
export class ChangedError extends Failure {
  override name = "ChangedError";
}

/** `a/b.txt` under the root, wherever links lead. Throws `Failure` for a name that leads out of it, or that is kept for parts. */
export async function pathUnder(root: string, name: string): Promise<string> {
  const parts = name.split("/");
  const isPlain = parts.every(
    (part) => part !== "" && part !== "." && part !== ".." && !part.startsWith("."),
  );
  if (!isPlain || /[\0\\]/.test(name) || name.endsWith(PART)) throw new Failure(NOT_SERVED);
  const realRoot = await realpath(root);
  const path = join(realRoot, ...parts);
  const real = await realpath(path).catch(async () =>
    join(await realpath(dirname(path)), parts.at(-1) ?? ""),
  );
  if (!real.startsWith(realRoot.endsWith(sep) ? realRoot : realRoot + sep)) throw new Failure(NOT_SERVED);
  return real;
}

/** What tells one content of a file from another without reading it. */
interface Identity {
  ino: bigint;
  size: bigint;
  mtimeNs: bigint;
}

/** A file that is being read, and must not change meanwhile. */
export class SourceFile implements AsyncDisposable {
  readonly size: number;
  readonly #handle: FileHandle;
  readonly #identity: Identity;

  private constructor(handle: FileHandle, identity: Identity) {
    this.#handle = handle;
    this.#identity = identity;
    this.size = Number(identity.size);
  }

  /** Throws `Failure`. */
  static async open(path: string): Promise<SourceFile> {
    // Looked at before it is opened: that would wait for who writes into a pipe.
    if (!(await stat(path)).isFile()) throw new Failure("it is no regular file");
    const handle = await open(path, "r");
    return new SourceFile(handle, await handle.stat({ bigint: true }));
  }

  /** Up to `size` bytes from `offset` on. Throws `ChangedError`. */
  async read(offset: number, size: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafeSlow(Math.min(size, this.size - offset));
    const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, offset);
    const { size: sizeNow, mtimeNs } = await this.#handle.stat({ bigint: true });
    const { size: sizeThen, mtimeNs: then } = this.#identity;
    if (bytesRead < buffer.length || sizeNow !== sizeThen || mtimeNs !== then)
      throw new ChangedError("the file was changed while it was read");
    return buffer;
  }

  /** SHA-256 of the whole; `onProgress` is told how far it is and may throw to stop it. */
  async hash(known: HashMemory, onProgress: (done: number) => void = () => {}): Promise<Buffer> {
    const { ino, size, mtimeNs } = this.#identity;
    const key = `${ino} ${size} ${mtimeNs}`;
    const remembered = known.get(key);
    if (remembered) return remembered;
    const hash = createHash("sha256");
    for (let offset = 0; offset < this.size; offset += HASH_CHUNK_BYTES) {
      hash.update(await this.read(offset, HASH_CHUNK_BYTES));
      onProgress(Math.min(this.size, offset + HASH_CHUNK_BYTES));
    }
    const digest = hash.digest();
    known.set(key, digest);
    return digest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

/** Hashes of files that have not changed since. */
export class HashMemory {
  static readonly MOST = 10_000;
  readonly #hashes = new Map<string, Buffer>();
  get(key: string): Buffer | undefined {
    return this.#hashes.get(key);
  }
  set(key: string, hash: Buffer): void {
    const [oldest] = this.#hashes.keys();
    if (this.#hashes.size >= HashMemory.MOST && oldest !== undefined) this.#hashes.delete(oldest);
    this.#hashes.set(key, hash);
  }
}

/** A file that comes into being beside its name, and gets it when it is whole. */
export class TargetFile implements AsyncDisposable {
  /** Bytes that it holds. */
  sizeBytes: number;
  readonly #path: string;
  readonly #part: string;
  readonly #handle: FileHandle;
  readonly #hash = createHash("sha256");
  readonly #isKept: boolean;
  #isPlaced = false;

  private constructor(path: string, part: string, handle: FileHandle, sizeBytes: number, isKept: boolean) {
    this.#path = path;
    this.#part = part;
    this.#handle = handle;
    this.sizeBytes = sizeBytes;
    this.#isKept = isKept;
  }

  /** A part that has a name of its own (`beside`), or one that is kept for another time if it does not get whole. */
  static async create(path: string, beside?: string): Promise<TargetFile> {
    await mustBeReplaceable(path);
    const part = beside === undefined ? path + PART : join(dirname(path), `.${beside}${PART}`);
    await rm(part, { force: true }); // another program may still write into it
    return new TargetFile(path, part, await open(part, "wx"), 0, beside === undefined);
  }

  /** Goes on with what an earlier try has left; what is there counts for the hash. */
  static async continue(path: string): Promise<TargetFile> {
    await mustBeReplaceable(path);
    const part = path + PART;
    const handle = await open(part, constants.O_RDWR | constants.O_CREAT);
    const target = new TargetFile(path, part, handle, 0, true);
    const { size } = await handle.stat();
    while (target.sizeBytes < size) {
      const buffer = Buffer.allocUnsafe(Math.min(HASH_CHUNK_BYTES, size - target.sizeBytes));
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, target.sizeBytes);
      if (bytesRead === 0) break;
      target.#hash.update(buffer.subarray(0, bytesRead));
      target.sizeBytes += bytesRead;
    }
    return target;
  }

  async write(bytes: Buffer): Promise<void> {
    this.#hash.update(bytes);
    // Each at its place, wherever another program that goes on with the same part is.
    for (let at = 0; at < bytes.length; )
      at += (await this.#handle.write(bytes, at, bytes.length - at, this.sizeBytes + at)).bytesWritten;
    this.sizeBytes += bytes.length;
  }

  /** Is the part what is written into, or has another program put its own there, or given it its name? */
  async #isOwn(): Promise<boolean> {
    const [own, there] = await Promise.all([this.#handle.stat(), stat(this.#part).catch(() => undefined)]);
    return own.ino === there?.ino && own.dev === there.dev;
  }
  async #remove(): Promise<void> {
    if (await this.#isOwn()) await rm(this.#part, { force: true });
  }

  /** Gives it its name. Throws `Failure` where it is not what was announced; then it is not kept. */
  async place(sha256: Buffer): Promise<void> {
    if (!this.#hash.digest().equals(sha256)) {
      await this.#remove();
      throw new ChangedError("the SHA-256 is not the one that was announced");
    }
    if (!(await this.#isOwn()))
      throw new Failure("another program has written a file of that name meanwhile");
    await this.#handle.sync();
    await rename(this.#part, this.#path);
    this.#isPlaced = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isPlaced && !(this.#isKept && this.sizeBytes > 0)) await this.#remove();
    await this.#handle.close();
  }
}

/** Throws `Failure` where something stands that a file must not take the place of, such as a folder or /dev/null. */
async function mustBeReplaceable(path: string): Promise<void> {
  const stats = await stat(path).catch(() => undefined);
  if (stats?.isDirectory()) throw new Failure("it is a directory");
  if (stats?.isFile() === false) throw new Failure("it is no regular file");
}

/** What is in a folder and in those below it, but for those that cannot be read. */
async function entriesUnder(folder: string): Promise<Dirent[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const folders = entries.filter((entry) => entry.isDirectory());
  const below = folders.map(({ name }) =>
    entriesUnder(join(folder, name)).catch((error: unknown) => {
      if (isFailure(error)) return [];
      throw error;
    }),
  );
  return [...entries, ...(await Promise.all(below)).flat()];
}

/** Every regular file under the root: `SIZE  DATE  NAME`, a line each. */
export async function listing(root: string): Promise<Buffer> {
  const entries = await entriesUnder(root);
  const files = entries.filter((entry) => entry.isFile());
  const lines = await Promise.all(
    files.map(async (entry) => {
      const path = join(entry.parentPath, entry.name);
      const name = relative(root, path).replaceAll(sep, "/");
      if (name.split("/").some((part) => part.startsWith(".")) || name.endsWith(PART)) return undefined;
      const stats = await stat(path).catch(() => undefined); // gone since
      return stats && `${String(stats.size).padStart(12)}  ${stats.mtime.toISOString()}  ${name}\n`;
    }),
  );
  return Buffer.from(
    lines
      .filter((line) => line !== undefined)
      .toSorted(byName)
      .join(""),
  );
}
const byName = (a: string, b: string) => (a.slice(40) < b.slice(40) ? -1 : 1);
