/**
 * The files under a root: which one a target names, what it is now, and the content of the small ones. Nothing
 * outside the root is ever opened, whatever links lead there.
 *
 * The system is asked on every request, and waited for, as nginx does unless told otherwise: `statSync` on a local
 * disk takes 0.7 µs, since it is answered from the kernel's memory, a trip through the thread pool 8 µs. The
 * price: a disk that hangs stops all clients of this process. With `--file-cache` it is asked less often.
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readlinkSync,
  readSync,
  realpathSync,
  type Stats,
  statSync,
} from "node:fs";
import { isAbsolute, relative, sep } from "node:path";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { HttpError } from "../../shared/http.ts";
import { formatDate } from "../../shared/http-serving.ts";
import { mediaType, type Target, type Validators } from "./protocol.ts";

/** What is kept in memory: files up to this size, this many of them, 64 MiB in all. */
export const SMALL_FILE_BYTES = 64 * 1024;
const MAX_KEPT = 1024;
/** A file that changed as shortly before it was read may change again with the same time stamp (they tick, too). */
const SETTLED_MS = 100;

export interface ServedFile extends Validators {
  /** Without any links. */
  path: string;
  sizeBytes: number;
  /** The field lines that tell about it. */
  fields: readonly (readonly [name: string, value: string])[];
  /** All of it, if it is small. */
  content: Buffer | undefined;
  /** The whole of a 200 response, and the `Date` in it, made once a second. */
  response?: { date: string; bytes: Buffer };
  stats: Stats;
  /** Until when it is taken to be the same, by `performance.now()`. */
  freshUntil: number;
  /** Open on what is described; whoever sends it takes it over in the same turn of the event loop. */
  fd?: number | undefined;
}

/** No rights, a loop of links: for a client, that is not there, either. */
const ABSENT = ["ENOENT", "ENOTDIR", "EACCES", "EPERM", "ELOOP", "ENAMETOOLONG"];

/** What else goes wrong (no descriptor left, a disk that fails) is no 404: the client asked for the right thing. */
const unreadable = (path: string, error: unknown) =>
  isFailure(error) ? new HttpError(500, `cannot read ${path}: ${explain(error)}`) : error;

/** The same file in the same state: a rename or a new link, too, sets ctime anew, and no program can set it back. */
const isSame = (a: Stats, b: Stats) =>
  a.ino === b.ino &&
  a.size === b.size &&
  a.mtimeMs === b.mtimeMs &&
  a.ctimeMs === b.ctimeMs &&
  a.dev === b.dev;

export class Files {
  readonly #root: string;
  readonly #indexName: string;
  readonly #cacheMs: number;
  readonly #kept = new Map<string, ServedFile>();

  /** `cacheMs` is for how long the disk is not asked again. Throws `Failure` if the root is no folder. */
  constructor(root: string, indexName: string, cacheMs = 0) {
    try {
      this.#root = realpathSync(root);
    } catch (error) {
      throw new Failure(`cannot serve ${root}`, { cause: error });
    }
    if (!statSync(this.#root).isDirectory()) throw new Failure(`cannot serve ${root}: it is not a directory`);
    this.#indexName = indexName;
    this.#cacheMs = cacheMs;
  }

  /**
   * The file that the target names; "folder" for one whose slash is missing. What may not be had is not there.
   * Throws `HttpError` 500 where the system fails.
   */
  find({ path: name, isFolder }: Target): ServedFile | "folder" | undefined {
    // Put together without `join`, which would take it apart first: the parts are known to be clean.
    const path = this.#root + sep + (isFolder ? (name && name + sep) + this.#indexName : name);
    const kept = this.#kept.get(path);
    if (kept !== undefined && this.#cacheMs > 0 && performance.now() < kept.freshUntil) return kept;
    try {
      const stats = statSync(path, { throwIfNoEntry: false });
      if (stats === undefined) return undefined;
      if (stats.isDirectory())
        return isFolder || !this.#isInside(realpathSync.native(path)) ? undefined : "folder";
      if (!stats.isFile()) return undefined; // opening a pipe or a device can have effects of its own
      if (kept === undefined || !isSame(kept.stats, stats)) return this.#look(path);
      if (this.#cacheMs > 0) kept.freshUntil = performance.now() + this.#cacheMs;
      return kept;
    } catch (error) {
      if (isFailure(error) && ABSENT.includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
      throw unreadable(path, error);
    }
  }

  #isInside(realPath: string): boolean {
    const way = relative(this.#root, realPath);
    return !isAbsolute(way) && !way.split(sep).some((segment) => segment.startsWith("."));
  }

  #look(path: string): ServedFile | undefined {
    this.#kept.delete(path);
    const file = this.#describe(realpathSync.native(path));
    if (file === undefined || Date.now() - file.stats.ctimeMs < SETTLED_MS) return file;
    const [oldest] = this.#kept.keys();
    if (this.#kept.size >= MAX_KEPT && oldest !== undefined) this.#kept.delete(oldest);
    this.#kept.set(path, file);
    return file;
  }

  /** Opened first and then described, so that all that is said is about one file, and that one lies in the root. */
  #describe(path: string): ServedFile | undefined {
    if (!this.#isInside(path)) return undefined;
    const fd = openSync(path, OPEN_FLAGS);
    let file: ServedFile | undefined;
    try {
      file = this.#isInside(pathOf(fd, path)) ? describeOpened(fd, path) : undefined;
    } finally {
      if (file === undefined || file.content !== undefined) closeSync(fd);
    }
    if (file === undefined || file.content !== undefined) return file;
    file.fd = fd;
    setImmediate(closeUnused, file);
    return file;
  }
}

function closeUnused(file: ServedFile): void {
  if (file.fd !== undefined) closeSync(file.fd);
  file.fd = undefined;
}

/** Without O_NONBLOCK, opening a pipe would wait for its other end; a link in the last place came after the check. */
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;

/** Where what was opened really is, since a folder on the way can become a link after the check. Only Linux can tell. */
function pathOf(fd: number, path: string): string {
  return process.platform === "linux" ? readlinkSync(`/proc/self/fd/${fd}`) : path;
}

/** `undefined` for a pipe or device. */
function describeOpened(fd: number, path: string): ServedFile | undefined {
  const stats = fstatSync(fd);
  if (!stats.isFile()) return undefined;
  const content = stats.size <= SMALL_FILE_BYTES ? readWhole(fd, stats.size) : undefined;
  const etag = `"${[stats.ino, stats.size, stats.mtimeMs * 1000, stats.ctimeMs * 1000].map((n) => Math.round(n).toString(36)).join("-")}"`;
  const modifiedMs = Math.min(stats.mtimeMs, Date.now()); // RFC 9110 §8.8.2.1: never in the future
  const fields = [
    ["Content-Type", mediaType(path)],
    ["Last-Modified", formatDate(modifiedMs)],
    ["ETag", etag],
    ["Accept-Ranges", "bytes"],
  ] as const;
  return { path, sizeBytes: stats.size, etag, modifiedMs, fields, content, stats, freshUntil: 0 };
}

/** `undefined` where it has shrunk in between: then it is treated like a large one. */
function readWhole(fd: number, sizeBytes: number): Buffer | undefined {
  const content = Buffer.alloc(sizeBytes);
  return readSync(fd, content, 0, sizeBytes, 0) === sizeBytes ? content : undefined;
}

/**
 * A descriptor to read a large one with. It may have grown since: what was promised of it is still there, and a log
 * that is being written could never be read otherwise. Throws `HttpError` 500 if it is no longer the same: another file can
 * have got the same inode, but not at the same birth, as the one that is described from memory is older than a tick.
 */
export function openFile(file: ServedFile): number {
  const { path, stats, fd: open } = file;
  file.fd = undefined;
  if (open !== undefined) return open;
  try {
    const fd = openSync(path, OPEN_FLAGS);
    const now = fstatSync(fd);
    const isOne = now.ino === stats.ino && now.dev === stats.dev && now.birthtimeMs === stats.birthtimeMs;
    if (isOne && now.size >= stats.size) return fd;
    closeSync(fd);
  } catch (error) {
    throw unreadable(path, error);
  }
  throw new HttpError(500, `${path} was replaced while it was asked for`);
}
