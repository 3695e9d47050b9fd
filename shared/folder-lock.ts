/** One process a folder: two would remove each other's files. */
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "./errors.ts";

const LOCK = "lock";

/**
 * The lock of one that was killed does not count. Throws `Failure` where another process holds it; `advice` says what
 * to do then.
 */
export function lock(folder: string, advice: string): void {
  const path = join(folder, LOCK);
  if (existsSync(path)) {
    const pid = Number(readFileSync(path, "utf8"));
    if (pid !== process.pid && isRunning(pid))
      throw new Failure(`process ${pid} uses it; ${advice}, or remove ${path}`);
  }
  writeFileSync(path, String(process.pid));
}

function isRunning(pid: number): boolean {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch {
    return false; // it is gone, or somebody else's, who could not have written here
  }
}

export function unlock(folder: string): void {
  rmSync(join(folder, LOCK), { force: true });
}
