/**
 * The documents of a folder: found, hashed (SHA-256) and watched. A file is read when its size, time of modification or
 * inode differ from when it was read last; what the watching misses is found by looking through the folder again.
 */
import { createHash, hash } from "node:crypto";
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync, type Stats } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { setTimeout as delay, setImmediate as nextTurn } from "node:timers/promises";
import { type FSWatcher, watch } from "chokidar";
import { explain, isFailure } from "../../shared/errors.ts";
import { printable, whyUnsafe } from "./safe-path.ts";

export interface FoundFile {
  /** Below the folder, `/` between its parts. */
  path: string;
  size: number;
  modifiedMs: number;
  /** In hex. */
  sha256: string;
}

interface FolderOptions {
  folder: string;
  /** Files beyond these are not told. */
  maxFiles?: number;
  /** How long it is looked through before it is watched. */
  watchAfterMs?: number;
  signal: AbortSignal;
  /** Gets a line for what cannot be shared, once. */
  log: (line: string) => void;
  onFile: (file: FoundFile) => void;
  onGone: (path: string) => void;
  /** After some of these. */
  onChanges: () => void;
}

/** Names of files that are being written and are no documents yet. */
const isUnfinished = (name: string) => name.endsWith(".nldi-part");

/** Files up to this size are read in one go: 10,000 of them take 0.5 s so, 1.5 s with asynchronous calls. */
const SMALL_BYTES = 256 * 1024;
/** How long the small ones may keep everything else waiting. */
const TURN_MS = 10;
/** Events of one file within this time are one. */
const SETTLE_MS = 100;
/** Looks through the folder again. */
const RESCAN_MS = 15_000;
/** The same while it is not watched. */
const RESCAN_UNWATCHED_MS = 1000;
/** To watch 10,000 files takes 1 s of CPU, which is better spent on telling the others what there is first. */
const WATCH_AFTER_MS = 3000;
/** A file may change twice in the time that its file system tells apart: one so young is read again. */
const RACY_MS = 50;
const MAX_COMPLAINTS = 1000;
const MAX_PATH_BYTES = 1024;

/** What was known when a file was read last; the same again, and it was not changed. */
const stampOf = ({ size, mtimeMs, ino }: Stats) => `${size} ${mtimeMs} ${ino}`;

export class Folder {
  readonly #options: FolderOptions;
  readonly #known = new Map<string, { stamp: string; isYoung: boolean; file: FoundFile }>();
  readonly #complained = new Set<string>();
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #buffer = Buffer.allocUnsafe(SMALL_BYTES);
  #turnMs = 0;
  /** One file or folder at a time, in order. */
  #work: Promise<void> = Promise.resolve();
  #isWatched = false;
  #isBeingScanned = false;
  /** How many files were read so far. */
  filesRead = 0;

  private constructor(options: FolderOptions) {
    this.#options = options;
  }

  /** Resolves when everything in it was told. Throws `Failure` where the folder cannot be read. */
  static async open(options: FolderOptions): Promise<Folder> {
    const folder = new Folder(options);
    await readdir(options.folder); // a folder that is not there is worth an error, not a complaint
    await folder.#rescan();
    void folder.#lookAgain();
    const timer = setTimeout(() => folder.#watch(), options.watchAfterMs ?? WATCH_AFTER_MS);
    options.signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
    return folder;
  }

  #watch(): void {
    const { folder, signal } = this.#options;
    if (signal.aborted) return;
    const watcher = watch(folder, { ignoreInitial: true, followSymlinks: false });
    const changed = (path: string) => this.#soon(relative(folder, path).split(sep).join("/"));
    watcher.on("add", changed).on("change", changed).on("unlink", changed);
    let hasFailed = false;
    watcher.on("error", (error) => {
      hasFailed = true;
      this.#isWatched = false;
      this.#complain("", `cannot watch all of ${folder}, so it is looked through every second`, error);
    });
    watcher.on("ready", () => {
      this.#isWatched = !hasFailed;
      void this.#rescan(); // for what came between the last look and now
    });
    signal.addEventListener("abort", () => this.#close(watcher), { once: true });
  }

  #close(watcher: FSWatcher): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    void watcher.close();
  }

  async #lookAgain(): Promise<void> {
    const { signal } = this.#options;
    for (let waitedMs = 0; !signal.aborted; waitedMs += RESCAN_UNWATCHED_MS) {
      await delay(RESCAN_UNWATCHED_MS, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted || (this.#isWatched && waitedMs % RESCAN_MS !== 0)) continue;
      await this.#rescan();
    }
  }

  /** When its events have ceased for a moment. */
  #soon(path: string): void {
    clearTimeout(this.#timers.get(path));
    const look = () => {
      this.#timers.delete(path);
      void this.#inOrder(async () => {
        if (await this.#look(path)) this.#options.onChanges();
      });
    };
    this.#timers.set(path, setTimeout(look, SETTLE_MS));
  }

  #inOrder(work: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(async () => {
      if (!this.#options.signal.aborted) await work();
    });
    return this.#work;
  }

  /** Looks through all of it, once at a time. */
  async #rescan(): Promise<void> {
    if (this.#isBeingScanned) return;
    this.#isBeingScanned = true;
    await this.#inOrder(async () => {
      const seen = new Set<string>();
      let changes = await this.#walk("", seen);
      for (const path of this.#known.keys()) {
        if (!seen.has(path) && this.#forget(path)) changes++;
      }
      if (changes > 0) this.#options.onChanges();
    });
    this.#isBeingScanned = false;
  }

  /** The number of changes in a folder, and below it. */
  async #walk(below: string, seen: Set<string>): Promise<number> {
    let changes = 0;
    const entries = await readdir(join(this.#options.folder, below), { withFileTypes: true }).catch(
      (error: unknown) => {
        this.#complain(below, `cannot read the folder ${printable(JSON.stringify(below))}`, error);
        return [];
      },
    );
    for (const entry of entries) {
      if (this.#options.signal.aborted) break;
      const path = below === "" ? entry.name : `${below}/${entry.name}`;
      if (entry.isDirectory()) changes += await this.#walk(path, seen);
      if (!entry.isFile()) continue;
      seen.add(path);
      if (await this.#look(path)) changes++;
    }
    return changes;
  }

  /** Whether something about the file is new. */
  async #look(path: string): Promise<boolean> {
    if (isUnfinished(path)) return false;
    const problem = Buffer.byteLength(path) > MAX_PATH_BYTES ? "is too long" : whyUnsafe(path);
    if (problem !== undefined) {
      this.#complain(path, `${printable(JSON.stringify(path))} is not shared: it ${problem}`);
      return false;
    }
    const { maxFiles = Number.POSITIVE_INFINITY } = this.#options;
    if (this.#known.size >= maxFiles && !this.#known.has(path)) {
      this.#complain("too many", `only ${maxFiles} documents are shared, not the others`);
      return false;
    }
    if (performance.now() - this.#turnMs > TURN_MS) {
      await nextTurn();
      this.#turnMs = performance.now();
    }
    try {
      return await this.#read(path);
    } catch (error) {
      if (!isFailure(error)) throw error;
      const { code } = error as NodeJS.ErrnoException;
      const shown = `${printable(JSON.stringify(path))} is not shared`;
      if (code !== "ENOENT") this.#complain(path, shown, error);
      else if (path.includes("\ufffd")) this.#complain(path, `${shown}: its name is not UTF-8`);
      return this.#forget(path);
    }
  }

  async #read(path: string): Promise<boolean> {
    const file = join(this.#options.folder, path);
    const stats = lstatSync(file);
    if (!stats.isFile()) return this.#forget(path);
    const stamp = stampOf(stats);
    const known = this.#known.get(path);
    if (known?.stamp === stamp && !known.isYoung) return false;
    this.filesRead++;
    const isSmall = stats.size <= SMALL_BYTES;
    const read = isSmall ? this.#hashSmall(file) : await hashLarge(file, this.#options.signal);
    if (stampOf(read.stats) !== stamp) {
      this.#soon(path); // it is being written: its next event may have been before
      return false;
    }
    const { sha256 } = read;
    const modifiedMs = Math.max(0, Math.round(stats.mtimeMs));
    const found = { path, size: stats.size, modifiedMs, sha256 };
    this.#known.set(path, { stamp, isYoung: Math.abs(Date.now() - stats.mtimeMs) < RACY_MS, file: found });
    const isNew = known?.file.sha256 !== sha256 || known.file.modifiedMs !== modifiedMs;
    if (isNew) this.#options.onFile(found);
    return isNew;
  }

  #hashSmall(file: string): Hashed {
    const descriptor = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const size = readSync(descriptor, this.#buffer);
      const sha256 = hash("sha256", this.#buffer.subarray(0, size), "hex");
      return { sha256, stats: fstatSync(descriptor) };
    } finally {
      closeSync(descriptor);
    }
  }

  #forget(path: string): boolean {
    if (!this.#known.delete(path)) return false;
    this.#options.onGone(path);
    return true;
  }

  #complain(path: string, what: string, error?: unknown): void {
    if (this.#complained.has(path) || this.#complained.size >= MAX_COMPLAINTS) return;
    this.#complained.add(path);
    this.#options.log(error === undefined ? what : `${what}: ${explain(error)}`);
  }
}

/** A content's SHA-256 in hex, and what its file was when it had been read. */
interface Hashed {
  sha256: string;
  stats: Stats;
}

/** For files of any size. */
export async function hashLarge(file: string, signal: AbortSignal): Promise<Hashed> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const hash = createHash("sha256");
    const buffer = Buffer.allocUnsafe(1024 * 1024);
    while (!signal.aborted) {
      const { bytesRead } = await handle.read(buffer);
      if (bytesRead === 0) break;
      hash.update(buffer.subarray(0, bytesRead));
    }
    return { sha256: hash.digest("hex"), stats: await handle.stat() };
  } finally {
    await handle.close();
  }
}
