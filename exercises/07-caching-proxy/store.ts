/**
 * The stored responses: found by address and variant, bounded in bytes on the disk and in memory, least recently used out
 * first. The index is in memory alone; after a crash it is read again from the heads of the files.
 */
import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { lock, unlock } from "../../shared/folder-lock.ts";
import type { Fields } from "../../shared/http.ts";
import { type Entry, entryOf, isSameVariant, metaOf } from "./entry.ts";
import {
  copyObject,
  type Meta,
  OBJECT,
  type ObjectFile,
  ObjectWriter,
  openObject,
  PART,
  readBodyOf,
  readObject,
  rewriteHead,
} from "./object-file.ts";
import { Policy } from "./rules.ts";
import { isVariant } from "./selection.ts";
import { type Transfer, WINDOW_BYTES } from "./transfer.ts";

interface StoreOptions {
  folder: string;
  maxBytes: number;
  maxMemoryBytes: number;
  log: (line: string) => void;
}

/** What a file takes of the disk besides its bytes, so that a million of empty ones count for something. */
const FILE_COST_BYTES = 4096;
const costOf = ({ bodyOffset, bodyBytes }: ObjectFile) => bodyOffset + bodyBytes + FILE_COST_BYTES;

/** Of one address; each request is compared with each of them. */
const MAX_VARIANTS = 200;

export class Store {
  readonly #options: StoreOptions;
  readonly #byUrl = new Map<string, Entry[]>();
  /** All that are on the disk, those used last at the end. */
  readonly #recent = new Set<Entry>();
  readonly #inMemory = new Set<Entry>();
  /** On the disk, those included that are being written. */
  bytes = 0;
  memoryBytes = 0;
  #lastName = 0;

  /** Reads what is in the folder. Throws `Failure` where it cannot be used. */
  constructor(options: StoreOptions) {
    this.#options = options;
    const { folder } = options;
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      lock(folder, "choose another with --cache-dir");
      const names = readdirSync(folder);
      for (const name of names) if (name.endsWith(PART)) rmSync(join(folder, name));
      this.#rebuild(names.filter((name) => name.endsWith(OBJECT)));
    } catch (error) {
      throw new Failure(`cannot use ${folder} for the cache`, { cause: error });
    }
  }

  get objects(): number {
    return this.#recent.size;
  }

  #rebuild(names: readonly string[]): void {
    const found: Entry[] = [];
    for (const name of names) {
      const path = join(this.#options.folder, name);
      const object = readObject(path);
      if (object === undefined) {
        this.#options.log(`${path} is damaged, and dropped`);
        this.#removeFile(path);
        continue;
      }
      found.push({ ...entryOf(object.meta), file: object.file });
    }
    // Of two for the same, a crash between writing one and removing the other left both.
    for (const entry of found.sort((a, b) => a.responseTimeMs - b.responseTimeMs)) {
      this.#insert(entry);
      if (entry.file !== undefined) this.bytes += costOf(entry.file);
      this.#recent.add(entry);
    }
    this.#makeRoom();
  }

  /** The stored response that this request selects (RFC 9111 §4.1), of several the latest. */
  find(url: string, request: Fields): Entry | undefined {
    return this.#byUrl.get(url)?.findLast(({ variant }) => isVariant(variant, request));
  }

  /** All that is stored for the address. */
  variants(url: string): readonly Entry[] {
    return this.#byUrl.get(url) ?? [];
  }

  /** A place for a body; `undefined` if there is none. */
  begin(meta: Meta): ObjectWriter | undefined {
    try {
      return new ObjectWriter(this.#newPath(), meta);
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#options.log(`cannot store: ${explain(error)}`);
      return undefined;
    }
  }

  /** An entry whose body is on its way: from now on it is found. */
  addArriving(meta: Meta, transfer: Transfer): Entry {
    const entry = { ...entryOf(meta), transfer };
    this.#insert(entry);
    return entry;
  }

  #insert(entry: Entry): void {
    const same = this.variants(entry.url).filter((other) => isSameVariant(other, entry));
    for (const other of same) this.remove(other);
    const others = this.#byUrl.get(entry.url);
    if (others === undefined) this.#byUrl.set(entry.url, [entry]);
    else others.push(entry);
    const [oldest] = others ?? [];
    if (oldest !== undefined && this.variants(entry.url).length > MAX_VARIANTS) this.remove(oldest);
  }

  /** Bytes of a body have been written: room is made for them. Throws `Failure` where those that are on their way fill it all. */
  grow(bytes: number): void {
    this.bytes += bytes;
    this.#makeRoom();
    if (this.bytes > this.#options.maxBytes)
      throw new Failure("what is on its way is more than the cache may hold");
  }

  /** Its body is whole. */
  complete(entry: Entry, writer: ObjectWriter, content: Buffer | undefined): void {
    this.bytes -= writer.bodyBytes;
    entry.transfer = undefined;
    try {
      entry.file = writer.finish(metaOf(entry));
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#options.log(`cannot store: ${explain(error)}`);
    }
    if (entry.file === undefined) {
      writer.abandon();
      return this.remove(entry);
    }
    // It was invalidated, or replaced, on its way.
    if (!this.variants(entry.url).includes(entry)) return this.#removeFile(entry.file.path);
    this.bytes += costOf(entry.file);
    this.#recent.add(entry);
    if (content !== undefined) this.#remember(entry, content);
    this.#makeRoom();
  }

  /** Its body will not come, or cannot be kept. */
  fail(entry: Entry, writer: ObjectWriter): void {
    this.bytes -= writer.bodyBytes;
    entry.transfer = undefined;
    writer.abandon();
    this.remove(entry);
  }

  /** Used just now. */
  touch(entry: Entry): void {
    if (this.#recent.delete(entry)) this.#recent.add(entry);
    if (this.#inMemory.delete(entry)) this.#inMemory.add(entry);
  }

  /** The body of a small one, from memory or from the disk; `undefined` if it is damaged, and then it is dropped. */
  contentOf(entry: Entry): Buffer | undefined {
    if (entry.content !== undefined || entry.file === undefined) return entry.content;
    const content = readBodyOf(entry.file);
    if (content === undefined) this.#dropDamaged(entry);
    else this.#remember(entry, content);
    return content;
  }

  /** A descriptor for the body of a large one; `undefined` if it is damaged, and then it is dropped. */
  open(entry: Entry): number | undefined {
    const fd = entry.file && openObject(entry.file);
    if (fd === undefined) this.#dropDamaged(entry);
    return fd;
  }

  #dropDamaged(entry: Entry): void {
    // One that was removed while it was being asked for is no damage.
    if (this.#recent.has(entry)) this.#options.log(`${entry.file?.path} is damaged, and dropped`);
    this.remove(entry);
  }

  #remember(entry: Entry, content: Buffer): void {
    if (content.length > WINDOW_BYTES || content.length > this.#options.maxMemoryBytes) return;
    entry.content = content;
    this.#inMemory.add(entry);
    this.memoryBytes += content.length;
    for (const oldest of this.#inMemory) {
      if (this.memoryBytes <= this.#options.maxMemoryBytes) return;
      this.#forget(oldest);
    }
  }

  #forget(entry: Entry): void {
    if (!this.#inMemory.delete(entry)) return;
    this.memoryBytes -= entry.content?.length ?? 0;
    entry.content = undefined;
    entry.prepared = undefined;
  }

  /** It varies by other fields than it did. */
  relabel(entry: Entry, variant: Entry["variant"]): void {
    entry.variant = variant;
    const same = this.variants(entry.url).filter((other) => other !== entry && isSameVariant(other, entry));
    for (const other of same) this.remove(other);
  }

  /** The origin has confirmed it, with newer fields (RFC 9111 §4.3.4). */
  freshen(entry: Entry, fields: Fields, requestTimeMs: number, responseTimeMs: number): void {
    Object.assign(entry, { fields, requestTimeMs, responseTimeMs, prepared: undefined });
    entry.policy = new Policy(entry);
    if (entry.file !== undefined && !rewriteHead(entry.file, metaOf(entry)))
      this.#moveToRoom(entry, entry.file);
  }

  /** The head has outgrown its place. */
  #moveToRoom(entry: Entry, old: ObjectFile): void {
    let file: ObjectFile | undefined;
    try {
      file = copyObject(old, this.#newPath(), metaOf(entry));
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#options.log(`cannot store: ${explain(error)}`);
    }
    if (file === undefined) return this.remove(entry);
    this.bytes += costOf(file) - costOf(old);
    this.#removeFile(old.path);
    entry.file = file;
  }

  /** Without ending. One that is taken, by an earlier life that was ahead of the clock, is passed over. */
  #newPath(): string {
    while (true) {
      this.#lastName = Math.max(this.#lastName + 1, Date.now());
      const path = join(this.#options.folder, this.#lastName.toString(36));
      if (!existsSync(path + OBJECT)) return path;
    }
  }

  remove(entry: Entry): void {
    const left = this.variants(entry.url).filter((other) => other !== entry);
    if (left.length === 0) this.#byUrl.delete(entry.url);
    else this.#byUrl.set(entry.url, left);
    this.#forget(entry);
    entry.prepared = undefined;
    if (!this.#recent.delete(entry) || entry.file === undefined) return;
    this.bytes -= costOf(entry.file);
    this.#removeFile(entry.file.path);
  }

  /** Removes all that is stored for the address, or for all addresses; says how many there were. */
  purge(url?: string): number {
    const all = url === undefined ? [...this.#byUrl.values()].flat() : [...this.variants(url)];
    for (const entry of all) this.remove(entry);
    return all.length;
  }

  /** Others may use the folder from now on. */
  close(): void {
    unlock(this.#options.folder);
  }

  /** What cannot be removed now is compared and dropped, or used, after the next start: it must not end a request. */
  #removeFile(path: string): void {
    try {
      rmSync(path, { force: true });
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#options.log(`cannot remove ${path}: ${explain(error)}`);
    }
  }

  #makeRoom(): void {
    for (const oldest of this.#recent) {
      if (this.bytes <= this.#options.maxBytes) return;
      this.remove(oldest);
    }
  }
}
