/** One process a folder: two would remove each other's files. */
import {
  closeSync,
  fstatSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Failure } from "./errors.ts";

const LOCK = "lock";

/**
 * The lock of one that was killed does not count. Throws `Failure` where another process holds it; `advice` says what
 * to do then.
 */
export function lock(folder: string, advice: string): void {
  const path = join(folder, LOCK);
  const holder = take(path);
  if (holder !== undefined) throw new Failure(`process ${holder} uses it; ${advice}, or remove ${path}`);
}

/** Undefined when the lock is ours, else the process that has it. Of many that try at once, one gets it. */
function take(path: string): number | undefined {
  const own = `${path}.${process.pid}`;
  writeFileSync(own, String(process.pid));
  try {
    while (true) {
      if (linked(own, path)) return undefined; // with its content: nobody sees it half written
      const found = lookAt(path);
      if (found === undefined) continue; // it has just been given back
      if (found.pid === process.pid) return undefined;
      if (isRunning(found.pid)) return found.pid;
      // Its holder is dead. Only who has the lock named after that very file may put another in its place.
      const claim = `${path}.of-${found.inode}`;
      const other = take(claim);
      if (other !== undefined) return other;
      try {
        const now = lookAt(path);
        if (now?.inode !== found.inode || isRunning(now.pid)) continue;
        renameSync(own, path);
        return undefined;
      } finally {
        rmSync(claim);
      }
    }
  } finally {
    rmSync(own, { force: true });
  }
}

function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

function lookAt(path: string): { pid: number; inode: bigint } | undefined {
  try {
    const fd = openSync(path, "r");
    try {
      return { pid: Number(readFileSync(fd, "utf8")), inode: fstatSync(fd, { bigint: true }).ino };
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function isRunning(pid: number): boolean {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch {
    return false; // it is gone, or somebody else's, who could not have written here
  }
}

/** Gives it back, if it is this process's. */
export function unlock(folder: string): void {
  const path = join(folder, LOCK);
  if (lookAt(path)?.pid === process.pid) rmSync(path, { force: true });
}
