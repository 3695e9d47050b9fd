/**
 * The directory itself. No path leaves it, whatever links other programs put there meanwhile: on Linux each name on the
 * way is opened as a directory and no link (what openat(2) with O_NOFOLLOW is for), and work is done relative to that
 * descriptor; elsewhere the way is looked at first.
 */
import {
  type BigIntStats,
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  renameSync,
  rmdirSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { type FileHandle, open as openFile } from "node:fs/promises";
import { join } from "node:path";
import { Failure } from "../../shared/errors.ts";
import { joined, nameOf } from "./paths.ts";
import { type Item, NOTHING } from "./protocol.ts";

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants;
/** Names what is there without opening it, so permissions do not matter. Node has no constant for it. */
const O_PATH = 0o10000000;
const HAS_PROC = existsSync("/proc/self/fd");
const placeOf = (fd: number) => `/proc/self/fd/${fd}`;

/** What is at a path, without its content. */
export interface Found {
  kind: Item["kind"] | "other";
  mode: number;
  mtimeUs: bigint;
  sizeBytes: bigint;
  target: string;
  inode: bigint;
}

/** A little more than it is: what turns it into whole microseconds cuts off, and a double may be a little less. */
const secondsOf = (timeUs: bigint) => (Number(timeUs) + 0.3) / 1e6;
const isMissing = (error: unknown) =>
  ["ENOENT", "ENOTDIR", "ELOOP"].includes((error as NodeJS.ErrnoException).code ?? "");
let asides = 0;

export class Disk {
  readonly root: string;
  /** Where files are written before they are renamed into place: on the same file system. */
  readonly #asideFolder: string;
  readonly #rootFd: number;
  readonly #isGuest: boolean;

  /**
   * What is done to the directory must be done on every node, so permissions that are replicated keep only others out: they
   * are lifted meanwhile (on Linux). They do bind a guest, who only looks.
   */
  constructor(root: string, asideFolder: string, isGuest = false) {
    this.root = root;
    this.#asideFolder = asideFolder;
    this.#isGuest = isGuest;
    this.#rootFd = openSync(root, O_RDONLY | O_DIRECTORY);
  }

  close(): void {
    closeSync(this.#rootFd);
  }

  /** A name for the path that goes through no link (the path's own last name may be one), until `leave` is called. */
  #enter(path: string): { place: string; leave: () => void } {
    const root = this.#rootFd;
    if (path === "") return { place: HAS_PROC ? `${placeOf(root)}/.` : this.root, leave: () => {} };
    const parents = path.split("/").slice(0, -1);
    if (!HAS_PROC) {
      for (const [i] of parents.entries())
        if (!lstatSync(join(this.root, ...parents.slice(0, i + 1))).isDirectory())
          throw Object.assign(new Error("not a directory"), { code: "ENOTDIR", syscall: "open" });
      return { place: join(this.root, path), leave: () => {} };
    }
    let fd = root;
    const leave = () => {
      if (fd !== root) closeSync(fd);
      fd = root;
    };
    try {
      for (const name of parents) {
        const next = openSync(`${placeOf(fd)}/${name}`, O_PATH | O_DIRECTORY | O_NOFOLLOW);
        leave();
        fd = next;
      }
    } catch (error) {
      leave();
      throw error;
    }
    return { place: `${placeOf(fd)}/${nameOf(path)}`, leave };
  }

  /** `opensIt`: what is at the path must be opened, or is a directory that goes elsewhere. */
  #at<T>(path: string, use: (place: string) => T, opensIt = false): T {
    try {
      return this.#try(path, use);
    } catch (error) {
      const lock = this.#unlock(path, opensIt, error);
      try {
        return this.#try(path, use);
      } finally {
        lock();
      }
    }
  }
  #try<T>(path: string, use: (place: string) => T): T {
    const { place, leave } = this.#enter(path);
    try {
      return use(place);
    } finally {
      leave();
    }
  }

  /** Permissions that keep their own owner from the path are lifted until the returned is called. Throws `why` where they are not the reason. */
  #unlock(path: string, opensIt: boolean, why: unknown): () => void {
    if (this.#isGuest || !HAS_PROC || (why as NodeJS.ErrnoException).code !== "EACCES") throw why;
    const lifted: { fd: number; mode: number }[] = [];
    const lock = () => {
      for (const { fd, mode } of lifted.reverse()) {
        chmodSync(placeOf(fd), mode);
        closeSync(fd);
      }
    };
    const names = path.split("/");
    try {
      for (let i = 1; i <= names.length - (opensIt ? 0 : 1); i++) {
        const way = names.slice(0, i).join("/");
        const fd = this.#try(way, (place) => openSync(place, O_PATH | O_NOFOLLOW));
        const stat = fstatSync(fd);
        const mode = stat.mode & 0o7777;
        const needed = stat.isDirectory() ? 0o700 : stat.isFile() ? 0o400 : 0;
        lifted.push({ fd, mode });
        if ((mode & needed) !== needed) chmodSync(placeOf(fd), mode | needed);
      }
    } catch (error) {
      lock();
      throw error;
    }
    return lock;
  }

  find(path: string): Found | undefined {
    try {
      return this.#at(path, (place) => foundOf(lstatSync(place, { bigint: true }), place));
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** The names in a directory; none where it is not one. */
  names(path: string): string[] {
    try {
      return this.#at(path === "" ? "" : `${path}/.`, (place) => readdirSync(place).sort());
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  }

  /** Opens a file for reading; throws `Failure` where it is none. */
  async open(path: string): Promise<FileHandle> {
    const open = () => {
      const { place, leave } = this.#enter(path);
      return openFile(place, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).finally(leave);
    };
    const handle = await open().catch((error) => {
      const lock = this.#unlock(path, true, error);
      return open().finally(lock);
    });
    if ((await handle.stat()).isFile()) return handle;
    await handle.close();
    throw new Failure(`${JSON.stringify(path)} is not a file`);
  }

  /** A file's first octets, at most so many. Throws `Failure` where it is none. */
  read(path: string, limit: number): Buffer {
    const read = (place: string) => {
      const fd = openSync(place, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      try {
        const stat = fstatSync(fd);
        if (!stat.isFile()) throw new Failure(`${JSON.stringify(path)} is not a file`);
        const buffer = Buffer.allocUnsafe(Math.min(stat.size, limit));
        return buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, 0));
      } finally {
        closeSync(fd);
      }
    };
    return this.#at(path, read, true);
  }

  /** A new name for something on its way into the directory, or out of it. */
  aside(): string {
    return join(this.#asideFolder, `.new-${process.pid}-${asides++}`);
  }

  /** Puts it in place of what is there; `source` is a file that becomes it, or its content. */
  put(path: string, item: Item, source: string | Buffer = NOTHING): void {
    const before = this.find(path);
    if (item.kind === "directory") {
      if (before !== undefined && before.kind !== "directory") this.#at(path, unlinkSync);
      if (before?.kind !== "directory") this.#at(path, (place) => mkdirSync(place));
      return this.setMetadata(path, item);
    }
    if (before?.kind === "directory") this.remove(path);
    const aside = typeof source === "string" ? source : this.aside();
    if (item.kind === "link") symlinkSync(item.target, aside);
    else if (typeof source !== "string") writeFileSync(aside, source, { flag: "wx", mode: 0o600 });
    if (item.kind === "file") chmodSync(aside, item.mode);
    lutimesSync(aside, secondsOf(item.mtimeUs), secondsOf(item.mtimeUs));
    this.#at(path, (place) => renameSync(aside, place));
  }

  /** Removes a file, a link or an empty directory; false where the directory is not empty. */
  remove(path: string): boolean {
    const found = this.find(path);
    if (found === undefined) return true;
    try {
      this.#at(path, found.kind === "directory" ? rmdirSync : unlinkSync);
      return true;
    } catch (error) {
      if (["ENOTEMPTY", "EEXIST"].includes((error as NodeJS.ErrnoException).code ?? "")) return false;
      throw error;
    }
  }

  move(from: string, to: string): void {
    this.#at(from, (source) => this.#at(to, (place) => renameSync(source, place)), true);
  }

  /** Takes it out of the directory, to a place beside it. */
  takeOut(path: string, to: string): void {
    this.#at(path, (place) => renameSync(place, to), true);
  }

  setMetadata(path: string, { mode, mtimeUs, kind }: Pick<Item, "mode" | "mtimeUs" | "kind">): void {
    this.#at(path, (place) => {
      const found = lstatSync(place);
      if (kind !== "link" && !found.isSymbolicLink() && (found.mode & 0o7777) !== mode) {
        const fd = openSync(place, HAS_PROC ? O_PATH | O_NOFOLLOW : O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
        if (HAS_PROC) chmodSync(placeOf(fd), mode);
        else fchmodSync(fd, mode);
        closeSync(fd);
      }
      lutimesSync(place, secondsOf(mtimeUs), secondsOf(mtimeUs));
    });
  }

  /** What was done at the path is on disk when this returns. */
  sync(path: string): void {
    const found = this.find(path);
    if (found?.kind !== "file" && found?.kind !== "directory") return;
    const sync = (place: string) => {
      const fd = openSync(place, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      fsyncSync(fd);
      closeSync(fd);
    };
    this.#at(path, sync, true);
  }

  /** Everything in the directory, parents first; gives way to others now and then. `onTrouble` hears where a guest may not look. */
  async *walk(
    path = "",
    onTrouble?: (path: string, error: unknown) => void,
  ): AsyncGenerator<[string, Found]> {
    let found: Found | undefined;
    let names: string[] = [];
    try {
      found = this.find(path);
      if (found?.kind === "directory") names = this.names(path);
    } catch (error) {
      if (onTrouble === undefined) throw error;
      onTrouble(path, error);
    }
    if (found === undefined) return;
    yield [path, found];
    if (found.kind !== "directory") return;
    await new Promise((resolve) => setImmediate(resolve));
    for (const name of names) yield* this.walk(joined(path, name), onTrouble);
  }
}

function foundOf(stat: BigIntStats, place: string): Found {
  const kind = stat.isFile()
    ? "file"
    : stat.isDirectory()
      ? "directory"
      : stat.isSymbolicLink()
        ? "link"
        : "other";
  return {
    kind,
    mode: kind === "link" ? 0 : Number(stat.mode & 0o7777n),
    mtimeUs: stat.mtimeNs > 0n ? (stat.mtimeNs + 500n) / 1000n : 0n, // what is older than 1970 counts as of then
    sizeBytes: kind === "file" ? stat.size : 0n,
    target: kind === "link" ? readlinkSync(place) : "",
    inode: stat.ino,
  };
}

/** Does what is there look like the item? The content is not read: time and size tell, as for rsync. */
export function looksLike(found: Found | undefined, item: Item | undefined): boolean {
  if (found === undefined || item === undefined) return found === item;
  return (
    found.kind === item.kind &&
    found.mode === item.mode &&
    found.mtimeUs === item.mtimeUs &&
    found.sizeBytes === item.sizeBytes &&
    found.target === item.target
  );
}
/** The same but for permissions and, of a directory, times: the content need not be written again. */
export function hasContentOf(found: Found | undefined, item: Item): boolean {
  if (found?.kind !== item.kind) return false;
  if (item.kind === "directory") return true;
  return found.sizeBytes === item.sizeBytes && found.mtimeUs === item.mtimeUs && found.target === item.target;
}
