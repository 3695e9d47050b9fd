/**
 * Where in a directory to look, and when. chokidar tells what changes, and more than once; a directory that is new is looked
 * at again, as what was put there before it was watched is told by nobody.
 */
import type { Stats } from "node:fs";
import { join, relative } from "node:path";
import { type FSWatcher, watch } from "chokidar";

/** When a new directory is looked at once more, */
const LOOK_AGAIN_MS = [250, 2000];
/** and how long it is new. */
const FRESH_MS = 3000;

interface NoticesOptions {
  root: string;
  /** Something is due. */
  onDue: () => void;
  onError: (error: unknown) => void;
}

export class Notices {
  /** Directories that are new: it may be that nobody tells yet what is put into them. */
  readonly fresh = new Set<string>();
  readonly #options: NoticesOptions;
  /** Paths to be looked at, and not before when. */
  readonly #marked = new Map<string, number>();
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  #timerMs = 0;

  constructor(options: NoticesOptions) {
    this.#options = options;
  }

  get isOn(): boolean {
    return this.#watcher !== undefined;
  }

  start(): void {
    const { root, onError } = this.#options;
    // Directories only: they tell what changes in them, and a watch for each file would tell it again.
    this.#watcher = watch(root, {
      ignored: (_path, stats?: Stats) => stats !== undefined && !stats.isDirectory(),
      followSymlinks: false,
      ignoreInitial: true,
      ignorePermissionErrors: true,
    });
    this.#watcher.on("raw", (_event, name, details) => {
      const watched = (details as { watchedPath?: string }).watchedPath ?? root;
      this.#see(watched);
      if (typeof name === "string") this.#see(join(watched, name));
    });
    this.#watcher.on("all", (event, path) => {
      this.#see(path);
      if (event === "addDir") this.watchClosely(relative(root, path));
    });
    this.#watcher.on("error", onError);
  }

  stop(): void {
    void this.#watcher?.close();
    this.#watcher = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#marked.clear();
    this.fresh.clear();
  }

  #see(absolute: string): void {
    const path = relative(this.#options.root, absolute);
    if (path === ".." || path.startsWith("../")) return;
    this.mark(path);
  }

  /** The path is to be looked at, after `delayMs` at the earliest. */
  mark(path: string, delayMs = 0): void {
    if (!this.isOn) return;
    const dueMs = Math.max(performance.now() + delayMs, this.#marked.get(path) ?? 0);
    this.#marked.set(path, dueMs);
    this.#wakeAt(dueMs);
  }
  isMarked(path: string): boolean {
    return this.#marked.has(path);
  }

  watchClosely(path: string): void {
    if (this.fresh.has(path)) return;
    this.fresh.add(path);
    for (const ms of LOOK_AGAIN_MS) setTimeout(() => this.mark(path), ms).unref();
    setTimeout(() => this.fresh.delete(path), FRESH_MS).unref();
  }

  /** The paths that are due, parents before children. Each is taken before it is looked at: it may be marked meanwhile. */
  due(): string[] {
    const nowMs = performance.now();
    const due = [...this.#marked].filter(([, atMs]) => atMs <= nowMs);
    return due.map(([path]) => path).sort();
  }
  take(path: string): void {
    this.#marked.delete(path);
  }

  /** Those that were due have been looked at. */
  wakeForNext(): void {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const dueMs of this.#marked.values()) nextMs = Math.min(nextMs, dueMs);
    if (nextMs < Number.POSITIVE_INFINITY) this.#wakeAt(nextMs);
  }

  #wakeAt(atMs: number): void {
    if (this.#timer !== undefined && this.#timerMs <= atMs) return;
    clearTimeout(this.#timer);
    this.#timerMs = atMs;
    const wake = () => {
      this.#timer = undefined;
      this.#options.onDue();
    };
    this.#timer = setTimeout(wake, Math.max(1, atMs - performance.now()));
  }
}
