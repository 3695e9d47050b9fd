/** The directory itself: what lies at a path, and what is done to it. */
import {
  type BigIntStats,
  chmodSync,
  closeSync,
  constants,
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
import { joined } from "./paths.ts";
import { type Item, NOTHING } from "./protocol.ts";
import { HAS_PROC, O_PATH, placeOf, Way } from "./way.ts";

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;

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
  readonly #way: Way;

  /** A guest only looks, and permissions bind it. */
  constructor(root: string, asideFolder: string, isGuest = false) {
    this.root = root;
    this.#asideFolder = asideFolder;
    this.#way = new Way(root, isGuest);
  }

  close(): void {
    this.#way.close();
  }

  find(path: string): Found | undefined {
    try {
      return this.#way.at(path, (place) => foundOf(lstatSync(place, { bigint: true }), place));
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** The names in a directory; none where it is not one. */
  names(path: string): string[] {
    try {
      return this.#way.at(path === "" ? "" : `${path}/.`, (place) => readdirSync(place).sort());
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  }

  /** Opens a file for reading; throws `Failure` where it is none. */
  async open(path: string): Promise<FileHandle> {
    const open = () => {
      const { place, leave } = this.#way.enter(path);
      return openFile(place, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).finally(leave);
    };
    const handle = await open().catch((error) => {
      const lock = this.#way.unlock(path, true, error);
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
    return this.#way.at(path, read, true);
  }

  /** A new name for something on its way into the directory, or out of it. */
  aside(): string {
    return join(this.#asideFolder, `.new-${process.pid}-${asides++}`);
  }

  /** Puts it in place of what is there; `source` is a file that becomes it, or its content. */
  put(path: string, item: Item, source: string | Buffer = NOTHING): void {
    const before = this.find(path);
    if (item.kind === "directory") {
      if (before !== undefined && before.kind !== "directory") this.#way.at(path, unlinkSync);
      if (before?.kind !== "directory") this.#way.at(path, (place) => mkdirSync(place));
      return this.setMetadata(path, item);
    }
    if (before?.kind === "directory") this.remove(path);
    const aside = typeof source === "string" ? source : this.aside();
    if (item.kind === "link") symlinkSync(item.target, aside);
    else if (typeof source !== "string") writeFileSync(aside, source, { flag: "wx", mode: 0o600 });
    if (item.kind === "file") chmodSync(aside, item.mode);
    lutimesSync(aside, secondsOf(item.mtimeUs), secondsOf(item.mtimeUs));
    this.#way.at(path, (place) => renameSync(aside, place));
  }

  /** Removes a file, a link or an empty directory; false where the directory is not empty. */
  remove(path: string): boolean {
    const found = this.find(path);
    if (found === undefined) return true;
    try {
      this.#way.at(path, found.kind === "directory" ? rmdirSync : unlinkSync);
      return true;
    } catch (error) {
      if (["ENOTEMPTY", "EEXIST"].includes((error as NodeJS.ErrnoException).code ?? "")) return false;
      throw error;
    }
  }

  move(from: string, to: string): void {
    this.#way.at(from, (source) => this.#way.at(to, (place) => renameSync(source, place)), true);
  }

  /** Takes it out of the directory, to a place beside it. */
  takeOut(path: string, to: string): void {
    this.#way.at(path, (place) => renameSync(place, to), true);
  }

  setMetadata(path: string, { mode, mtimeUs, kind }: Pick<Item, "mode" | "mtimeUs" | "kind">): void {
    this.#way.at(path, (place) => {
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
    this.#way.at(path, sync, true);
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
