/** Files for their owner only: users, host key, known hosts. */
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { Failure } from "../../shared/errors.ts";

/** Where such a file is unless told. */
export const atHome = (name: string) => join(homedir(), ".netlab", name);

/** Written beside its name and renamed: there is always the old file or the new one. Throws `Failure`. */
export function writePrivately(path: string, content: string): void {
  const beside = `${path}.${process.pid}.part`;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const file = openSync(beside, "wx", 0o600);
    writeSync(file, content);
    fsyncSync(file);
    closeSync(file);
    renameSync(beside, path);
  } catch (error) {
    rmSync(beside, { force: true });
    throw new Failure(`cannot write ${path}`, { cause: error });
  }
}

/** Undefined where there is none. Throws `Failure`. */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new Failure(`cannot read ${path}`, { cause: error });
  }
}
