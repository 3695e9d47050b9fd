/**
 * The way to a path of the directory. It leaves it nowhere, whatever links other programs put there meanwhile: on Linux each
 * name on the way is opened as a directory and no link (what openat(2) with O_NOFOLLOW is for), and work is done relative to
 * that descriptor; elsewhere the way is looked at first.
 */
import { chmodSync, closeSync, constants, existsSync, fstatSync, lstatSync, openSync } from "node:fs";
import { join } from "node:path";
import { nameOf } from "./paths.ts";

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
/** Names what is there without opening it, so permissions do not matter. Node has no constant for it. */
export const O_PATH = 0o10000000;
export const HAS_PROC = existsSync("/proc/self/fd");
export const placeOf = (fd: number) => `/proc/self/fd/${fd}`;

export class Way {
  readonly #root: string;
  readonly #rootFd: number;
  readonly #isGuest: boolean;

  /**
   * What is done to the directory must be done on every node, so permissions that are replicated keep only others out: they
   * are lifted meanwhile (on Linux). They do bind a guest, who only looks.
   */
  constructor(root: string, isGuest: boolean) {
    this.#root = root;
    this.#isGuest = isGuest;
    this.#rootFd = openSync(root, O_RDONLY | O_DIRECTORY);
  }

  close(): void {
    closeSync(this.#rootFd);
  }

  /** A name for the path that goes through no link (the path's own last name may be one), until `leave` is called. */
  enter(path: string): { place: string; leave: () => void } {
    const root = this.#rootFd;
    if (path === "") return { place: HAS_PROC ? `${placeOf(root)}/.` : this.#root, leave: () => {} };
    const parents = path.split("/").slice(0, -1);
    if (!HAS_PROC) {
      for (const [i] of parents.entries())
        if (!lstatSync(join(this.#root, ...parents.slice(0, i + 1))).isDirectory())
          throw Object.assign(new Error("not a directory"), { code: "ENOTDIR", syscall: "open" });
      return { place: join(this.#root, path), leave: () => {} };
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
  at<T>(path: string, use: (place: string) => T, opensIt = false): T {
    try {
      return this.#try(path, use);
    } catch (error) {
      const lock = this.unlock(path, opensIt, error);
      try {
        return this.#try(path, use);
      } finally {
        lock();
      }
    }
  }
  #try<T>(path: string, use: (place: string) => T): T {
    const { place, leave } = this.enter(path);
    try {
      return use(place);
    } finally {
      leave();
    }
  }

  /** Permissions that keep their own owner from the path are lifted until the returned is called. Throws `why` where they are not the reason. */
  unlock(path: string, opensIt: boolean, why: unknown): () => void {
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
        if ((mode & needed) === needed) {
          closeSync(fd);
          continue;
        }
        lifted.push({ fd, mode });
        chmodSync(placeOf(fd), mode | needed);
      }
    } catch (error) {
      lock();
      throw error;
    }
    return lock;
  }
}
