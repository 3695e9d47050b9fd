/**
 * A file as long as it is not complete: `NAME.part`, with a record of what it is part of in `NAME.part.json`. It gets
 * its name when it is whole, so whoever sees `NAME` sees all of it.
 *
 * It is written synchronously: 1 GiB from the receive buffer straight to the disk took 1.1 + 0.3 s of CPU time,
 * gathered for the thread pool 2.0 + 0.6 s. While the disk takes its time, TCP's window holds the server back.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  futimesSync,
  linkSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { FileFailure } from "./failures.ts";
import { numbered } from "./names.ts";
import type { Version } from "./protocol.ts";

/** What `NAME.part` is part of. */
interface Origin extends Version {
  url: string;
  /** What is in the part was decompressed, so its size says nothing about where to go on. */
  isDecoded?: boolean;
}

export interface Earlier {
  /** The final name, with its folder. */
  path: string;
  sizeBytes: number;
  origin: Origin | undefined;
}

const partOf = (path: string) => `${path}.part`;
const recordOf = (path: string) => `${path}.part.json`;

/** Runs what touches files. Throws `FileFailure`. */
function onDisk<T>(what: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw new FileFailure(`cannot ${what}`, { cause: error });
  }
}

/**
 * What an earlier download of this URL has left: a part beside `path` whose record names the URL; else one called
 * after `path` that has no record. With `isChosen` the user has said the name, so no other will do.
 */
export function findPart(path: string, url: string, isChosen: boolean): Earlier | undefined {
  const folder = dirname(path);
  const wanted = basename(path);
  const names = readdirIfThere(folder).filter((name) => name.endsWith(".part.json"));
  for (const name of names.map((name) => name.slice(0, -".part.json".length)).toSorted()) {
    const isOurs = !isChosen || name.replace(/\.\d+$/, "") === wanted || name === wanted;
    const origin = isOurs ? readRecord(join(folder, name)) : undefined;
    if (origin?.url === url && existsSync(partOf(join(folder, name))))
      return earlier(join(folder, name), origin);
  }
  return existsSync(partOf(path)) && !existsSync(recordOf(path)) ? earlier(path, undefined) : undefined;
}

function earlier(path: string, origin: Origin | undefined): Earlier | undefined {
  const stats = lstatSync(partOf(path));
  return stats.isFile() ? { path, sizeBytes: stats.size, origin } : undefined;
}

function readdirIfThere(folder: string): string[] {
  return onDisk(`read the folder ${folder}`, () => readdirSync(folder));
}

/** A record that cannot be understood is none. */
function readRecord(path: string): Origin | undefined {
  try {
    const record: unknown = JSON.parse(readFileSync(recordOf(path), "utf8"));
    return typeof record === "object" && record !== null && "url" in record ? (record as Origin) : undefined;
  } catch {
    return undefined;
  }
}

/** Is there something other than a file or a folder, such as /dev/null, to be written to as it is? */
export function isSpecial(path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats !== undefined && !stats.isFile() && !stats.isDirectory();
}

/** The first name of `a`, `a.1`, `a.2` … that is free; with `force` the name as it is. */
function freePath(path: string, force: boolean): string {
  for (let number = 0; ; number++) {
    const candidate = numbered(path, number);
    if (force || lstatSync(candidate, { throwIfNoEntry: false }) === undefined) return candidate;
  }
}

export class PartFile {
  readonly path: string;
  readonly #fd: number;
  #sizeBytes: number;
  #isFinished = false;

  private constructor(path: string, fd: number, sizeBytes: number) {
    this.path = path;
    this.#fd = fd;
    this.#sizeBytes = sizeBytes;
  }

  /** A new one; what an earlier download has left under its name goes. Throws `FileFailure`. */
  static create(wanted: string, origin: Origin, force: boolean): PartFile {
    return onDisk(`write ${partOf(wanted)}`, () => {
      const path = freePath(wanted, force);
      rmSync(partOf(path), { force: true });
      rmSync(recordOf(path), { force: true });
      const fd = openSync(partOf(path), "wx");
      writeFileSync(recordOf(path), `${JSON.stringify(origin)}\n`, { flag: "wx", mode: 0o600 });
      return new PartFile(path, fd, 0);
    });
  }

  /** Goes on behind what is there. Throws `FileFailure`. */
  static goOn({ path, sizeBytes }: Earlier): PartFile {
    return onDisk(`write ${partOf(path)}`, () => {
      const fd = openSync(partOf(path), "r+");
      ftruncateSync(fd, sizeBytes);
      return new PartFile(path, fd, sizeBytes);
    });
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  write(chunk: Buffer): void {
    try {
      for (let at = 0; at < chunk.length; ) {
        const written = writeSync(this.#fd, chunk, at, chunk.length - at, this.#sizeBytes);
        at += written;
        this.#sizeBytes += written;
      }
    } catch (error) {
      throw new FileFailure(`cannot write ${partOf(this.path)}`, { cause: error });
    }
  }

  /** Gives it its name, or the next that is free, and returns that. `modifiedMs` is when the server's was changed. */
  finish(force: boolean, modifiedMs: number | undefined): string {
    return onDisk(`give ${partOf(this.path)} its name`, () => {
      if (modifiedMs !== undefined) futimesSync(this.#fd, new Date(), new Date(modifiedMs));
      const own = fstatSync(this.#fd);
      const there = lstatSync(partOf(this.path));
      if (own.ino !== there.ino || own.dev !== there.dev)
        throw new FileFailure("another program has put a file in its place");
      const name = moveTo(partOf(this.path), this.path, force);
      rmSync(recordOf(this.path), { force: true });
      this.#isFinished = true;
      return name;
    });
  }

  /** What is there stays for `--continue`, unless there is nothing. */
  close(): void {
    closeSync(this.#fd);
    if (this.#sizeBytes > 0 || this.#isFinished) return;
    rmSync(partOf(this.path), { force: true });
    rmSync(recordOf(this.path), { force: true });
  }
}

/** Without `force` by a link, as that fails where a file has appeared meanwhile; a rename would replace it. */
function moveTo(part: string, path: string, force: boolean): string {
  for (let number = 0; !force; number++) {
    const candidate = numbered(path, number);
    try {
      linkSync(part, candidate);
      unlinkSync(part);
      return candidate;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EEXIST") continue;
      if (lstatSync(candidate, { throwIfNoEntry: false }) !== undefined) continue;
      break; // a file system without links
    }
  }
  const target = freePath(path, force);
  renameSync(part, target);
  return target;
}
