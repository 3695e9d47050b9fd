/**
 * A stored response as a file: `ObjectHead`, what it answers, the body. Written beside its name and renamed when it is whole;
 * read only after its sums have been compared, and again after anybody else has touched it.
 *
 * The disk is waited for: what was written lately is in the kernel's memory, and there a call takes less time than a trip to
 * the thread pool.
 */
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from "node:fs";
import { crc32 } from "node:zlib";
import { isFailure } from "../../shared/errors.ts";
import { decode, encode } from "../../shared/pdu.ts";
import { MAX_META_BYTES, ObjectHead } from "./protocol.ts";

/** What is stored beside the body. */
export interface Meta {
  url: string;
  /** The request's values of the fields that it varies by. */
  variant: Readonly<Record<string, string>>;
  status: number;
  reason: string;
  fields: readonly (readonly [string, string])[];
  requestTimeMs: number;
  responseTimeMs: number;
}

export interface ObjectFile {
  path: string;
  bodyOffset: number;
  bodyBytes: number;
  bodySum: number;
  /** As it was when its sum was compared. */
  seen?: Stats;
}

export const OBJECT = ".object";
export const PART = ".part";
const PIECE_BYTES = 256 * 1024;
/** Bodies begin at multiples of this, and heads have as much to grow when they are freshened. */
const BLOCK_BYTES = 1024;

function encodeHead(file: Omit<ObjectFile, "path">, meta: Meta): Buffer {
  const text = JSON.stringify(meta);
  const { bodyOffset, bodyBytes, bodySum } = file;
  return encode(ObjectHead, {
    bodyOffset,
    bodyBytes: BigInt(bodyBytes),
    bodySum,
    metaSum: crc32(text),
    meta: text,
  });
}

/** A file that is being written: first the body, at its place, and when that is whole, the head in front of it. */
export class ObjectWriter {
  readonly #path: string;
  readonly #fd: number;
  readonly bodyOffset: number;
  bodyBytes = 0;
  #bodySum = 0;

  /** `path` without ending. Throws the system's error, as the methods do. */
  constructor(path: string, meta: Meta) {
    this.#path = path;
    const headBytes = encodeHead({ bodyOffset: 0, bodyBytes: 0, bodySum: 0 }, meta).length;
    this.bodyOffset = (Math.ceil(headBytes / BLOCK_BYTES) + 1) * BLOCK_BYTES;
    this.#fd = openSync(path + PART, "wx+");
  }

  append(bytes: Buffer): void {
    writeAll(this.#fd, bytes, this.bodyOffset + this.bodyBytes);
    this.bodyBytes += bytes.length;
    this.#bodySum = crc32(bytes, this.#bodySum);
  }

  /** What was appended, from `offset` on: some of it. */
  read(offset: number): Buffer {
    return readSome(this.#fd, this.bodyOffset + offset, this.bodyBytes - offset);
  }

  /** `undefined` if the meta has grown so much that there is no room for it. */
  finish(meta: Meta): ObjectFile | undefined {
    const { bodyOffset, bodyBytes } = this;
    const file = { path: this.#path + OBJECT, bodyOffset, bodyBytes, bodySum: this.#bodySum };
    const head = encodeHead(file, meta);
    if (head.length > bodyOffset) return undefined;
    writeAll(this.#fd, head, 0);
    if (bodyBytes === 0) ftruncateSync(this.#fd, bodyOffset); // the file ends where its body does
    renameSync(this.#path + PART, file.path);
    return { ...file, seen: statSync(file.path) };
  }

  /** It will not become an object; what is in it can still be read. */
  abandon(): void {
    rmSync(this.#path + PART, { force: true });
  }

  close(): void {
    closeSync(this.#fd);
  }
}

function writeAll(fd: number, bytes: Buffer, position: number): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(fd, bytes, done, bytes.length - done, position + done);
}

function readSome(fd: number, position: number, availableBytes: number): Buffer {
  const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, availableBytes));
  return piece.subarray(0, readSync(fd, piece, 0, piece.length, position));
}

/** What a file holds, by its head; `undefined` for what is no whole object. Its body's sum is compared when it is used. */
export function readObject(path: string): { file: ObjectFile; meta: Meta } | undefined {
  const fd = openSync(path, "r");
  try {
    const start = Buffer.alloc(MIN_HEAD_BYTES);
    if (readSync(fd, start, 0, start.length, 0) < start.length) return undefined;
    const end = ObjectHead.endOf(start, 0);
    const bytes = Buffer.alloc(end);
    if (readSync(fd, bytes, 0, end, 0) < end) return undefined;
    const { bodyOffset, bodySum, metaSum, meta, ...head } = decode(ObjectHead, bytes);
    const bodyBytes = Number(head.bodyBytes);
    if (crc32(meta) !== metaSum || fstatSync(fd).size !== bodyOffset + bodyBytes) return undefined;
    return { file: { path, bodyOffset, bodyBytes, bodySum }, meta: JSON.parse(meta) };
  } catch (error) {
    if (isFailure(error)) return undefined;
    throw error;
  } finally {
    closeSync(fd);
  }
}
const MIN_HEAD_BYTES = ObjectHead.minSize;

const isSame = (a: Stats, b: Stats) =>
  a.ino === b.ino && a.size === b.size && a.mtimeMs === b.mtimeMs && a.ctimeMs === b.ctimeMs;

/** A descriptor to read the body with; `undefined` if it is damaged or gone. */
export function openObject(file: ObjectFile): number | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(file.path, "r");
    const stats = fstatSync(fd);
    if (file.seen !== undefined && isSame(file.seen, stats)) return fd;
    if (stats.size === file.bodyOffset + file.bodyBytes && sumOf(fd, file) === file.bodySum) {
      file.seen = stats;
      return fd;
    }
  } catch (error) {
    if (!isFailure(error)) throw error;
  }
  if (fd !== undefined) closeSync(fd);
  return undefined;
}

function sumOf(fd: number, { bodyOffset, bodyBytes }: ObjectFile): number | undefined {
  let sum = 0;
  for (let done = 0; done < bodyBytes; ) {
    const piece = readSome(fd, bodyOffset + done, bodyBytes - done);
    if (piece.length === 0) return undefined;
    sum = crc32(piece, sum);
    done += piece.length;
  }
  return sum;
}

/** The whole body; `undefined` if it is damaged or gone. */
export function readBodyOf(file: ObjectFile): Buffer | undefined {
  const fd = openObject(file);
  if (fd === undefined) return undefined;
  try {
    const body = Buffer.alloc(file.bodyBytes);
    return readSync(fd, body, 0, body.length, file.bodyOffset) === body.length ? body : undefined;
  } finally {
    closeSync(fd);
  }
}

/** Writes all of it anew as `path`, with another meta. Throws the system's error. */
export function copyObject(file: ObjectFile, path: string, meta: Meta): ObjectFile | undefined {
  const fd = openObject(file);
  if (fd === undefined) return undefined;
  const writer = new ObjectWriter(path, meta);
  try {
    while (writer.bodyBytes < file.bodyBytes)
      writer.append(readSome(fd, file.bodyOffset + writer.bodyBytes, file.bodyBytes - writer.bodyBytes));
    return writer.finish(meta);
  } catch (error) {
    writer.abandon();
    throw error;
  } finally {
    writer.close();
    closeSync(fd);
  }
}

/**
 * Writes the head anew, in its place: torn by a crash, its sum would not fit, and the object be dropped. False if it does not
 * fit in front of the body, or cannot be written: then the file still says what is no longer true.
 */
export function rewriteHead(file: ObjectFile, meta: Meta): boolean {
  const bytes = encodeHead(file, meta);
  if (bytes.length > file.bodyOffset || bytes.length > MAX_META_BYTES) return false;
  const known = openObject(file);
  if (known === undefined) return false;
  closeSync(known);
  try {
    const fd = openSync(file.path, "r+");
    try {
      writeAll(fd, bytes, 0);
      file.seen = fstatSync(fd);
      return true;
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (isFailure(error)) return false;
    throw error;
  }
}
