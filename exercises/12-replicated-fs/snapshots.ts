/** Copies of large files of the master's directory: they may change while the others fetch them, the copies do not. */
import { randomBytes } from "node:crypto";
import { renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { hexOf } from "./apply.ts";
import { snapshotFile } from "./contents.ts";
import { type Disk, type Found, looksLike } from "./disk.ts";
import type { ReplicaNode } from "./node.ts";
import type { Item } from "./protocol.ts";

export class Snapshots {
  readonly #node: ReplicaNode;
  readonly #disk: Disk;
  /** Those that are staged. */
  #made = new Map<string, Item>();
  /** Paths of which one is being made, and by whom. */
  readonly #making = new Map<string, Promise<void>>();

  constructor(node: ReplicaNode, disk: Disk) {
    this.#node = node;
    this.#disk = disk;
  }

  /** The copy of what was found at the path; whoever takes it must use it. */
  take(path: string, found: Found): Item | undefined {
    const copy = this.#made.get(path);
    if (copy === undefined || !looksLike(found, copy)) return undefined;
    this.#made.delete(path);
    return copy;
  }

  /** Resolves when it is there, or the file has become another meanwhile. The disk's queue does not wait for it. */
  make(path: string, item: Item): Promise<void> {
    const under = this.#making.get(path);
    if (under !== undefined) return under;
    const making = this.#copy(path, item).finally(() => this.#making.delete(path));
    this.#making.set(path, making);
    return making;
  }

  async #copy(path: string, item: Item): Promise<void> {
    const disk = this.#disk;
    const { store, options } = this.#node;
    const made = this.#made;
    const aside = disk.aside();
    const { digest } = await snapshotFile(await disk.open(path), aside, options.isSynchronous);
    if (made !== this.#made || !looksLike(disk.find(path), item)) return rmSync(aside);
    const before = made.get(path);
    if (before !== undefined) rmSync(join(store.stage, hexOf(before.blob)), { force: true });
    const blob = randomBytes(16);
    renameSync(aside, join(store.stage, hexOf(blob)));
    made.set(path, { ...item, blob, digest });
  }

  /** Forgets all, and what is being made. */
  clear(): void {
    this.#made = new Map();
  }
}
