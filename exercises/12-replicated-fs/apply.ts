/** Makes the directory what the tree says: entry by entry, or as a whole. What is in the way and not ours is set aside. */
import { createHash } from "node:crypto";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { decode } from "../../shared/pdu.ts";
import { type Disk, hasContentOf, looksLike } from "./disk.ts";
import { type Entry, isPut, moveOf, putOf } from "./entries.ts";
import { nameOf, parentOf } from "./paths.ts";
import { type Item, MetadataBody } from "./protocol.ts";
import type { Tree } from "./tree.ts";
import { turns } from "./turns.ts";

export const hexOf = (bytes: Buffer): string => bytes.toString("hex");
/** Where a content lies that has arrived: by its blob's name, or, copied from another node, by its digest. */
export const stagedAs = (item: Item): string => hexOf(item.blob.length > 0 ? item.blob : item.digest);

/** A content: a file that may be moved into place, or the bytes; undefined where it cannot be had. */
export type ContentOf = (path: string, item: Item) => Promise<string | Buffer | undefined>;

interface Folders {
  stage: string;
  asideFolder: string;
}

export class Applier {
  readonly disk: Disk;
  tree: Tree;
  /** Something of the tree is not in the directory any more: it must be mended. */
  isDamaged = false;
  readonly #folders: Folders;
  readonly #log: (line: string) => void;
  #asides = 0;

  constructor(disk: Disk, tree: Tree, folders: Folders, log: (line: string) => void) {
    this.disk = disk;
    this.tree = tree;
    this.#folders = folders;
    this.#log = log;
  }

  /** The staged content of an item, if it is there. */
  staged(item: Item): string | undefined {
    const path = join(this.#folders.stage, stagedAs(item));
    return existsSync(path) ? path : undefined;
  }

  /**
   * Carries out a committed entry, in the directory and in the tree. One that was carried out before, in whole or in
   * part, may come again. `isOurs`: the change was seen in this very directory, and may have been overtaken there.
   */
  async apply(entry: Entry, isOurs: boolean): Promise<void> {
    const { path, action } = entry;
    if (isPut(entry)) await this.#put(entry, isOurs);
    if (action === "delete") await this.#delete(path, isOurs);
    if (action === "move") await this.#move(path, moveOf(entry), isOurs);
    const item = this.tree.get(path);
    if (action === "metadata" && item && !isOurs && this.disk.find(path)?.kind === item.kind)
      this.disk.setMetadata(path, { ...item, ...decode(MetadataBody, entry.body) });
    this.tree.apply(entry);
    if (isOurs) return;
    if (isPut(entry) || action === "delete" || action === "move") this.#restoreTime(parentOf(path));
    if (action === "move") this.#restoreTime(parentOf(moveOf(entry)));
  }

  async #put(entry: Entry, isOurs: boolean): Promise<void> {
    const { path } = entry;
    const { item, content } = putOf(entry);
    const before = this.tree.get(path);
    const staged = item.kind === "file" && item.blob.length > 0 ? this.staged(item) : undefined;
    if (isOurs) return void (staged !== undefined && rmSync(staged));
    const mayBeThere = staged === undefined && (item.kind !== "file" || item.blob.length > 0);
    if (mayBeThere && hasContentOf(this.disk.find(path), item)) return this.disk.setMetadata(path, item);
    if (this.tree.get(parentOf(path))?.kind !== "directory") return;
    this.#makeWay(path);
    await this.#makeRoom(path, before, item);
    if (item.kind === "file" && item.blob.length > 0 && staged === undefined)
      return this.#log(`the content of ${JSON.stringify(path)} is not here`);
    this.disk.put(path, item, staged ?? content);
  }

  /** Somebody has put a link, or something else, where the tree has a directory above the path. */
  #makeWay(path: string): void {
    if (path === "") return;
    const parent = parentOf(path);
    this.#makeWay(parent);
    const item = this.tree.get(parent);
    const found = this.disk.find(parent);
    if (parent === "" || item?.kind !== "directory" || found?.kind === "directory") return;
    if (found !== undefined) this.setAside(parent);
    this.disk.put(parent, item);
    this.isDamaged = true;
  }

  /** What is at the path and is neither what was known nor what comes is kept; a directory that becomes a file goes. */
  async #makeRoom(path: string, before: Item | undefined, after: Item | undefined): Promise<void> {
    const found = this.disk.find(path);
    if (found === undefined) return;
    const isKnown = before !== undefined && hasContentOf(found, before);
    if (!isKnown && !(after && hasContentOf(found, after))) return this.setAside(path);
    if (before?.kind === "directory" && after?.kind !== "directory") await this.#delete(path, false);
  }

  async #delete(path: string, isOurs: boolean): Promise<void> {
    if (isOurs || path === "") return;
    const turn = turns();
    for (const [below, item] of [...this.tree.walk(path)].reverse()) {
      await turn();
      const found = this.disk.find(below);
      if (found === undefined) continue;
      if (!hasContentOf(found, item) || !this.disk.remove(below)) this.setAside(below);
    }
  }

  async #move(from: string, to: string, isOurs: boolean): Promise<void> {
    const item = this.tree.get(from);
    if (isOurs || item === undefined || !hasContentOf(this.disk.find(from), item)) return; // it was carried out before
    this.#makeWay(to);
    if (this.disk.find(to) !== undefined) {
      await this.#makeRoom(to, this.tree.get(to), item);
      if (this.disk.find(to)?.kind === "directory") await this.#delete(to, false);
    }
    this.disk.move(from, to);
  }

  #restoreTime(path: string): void {
    const item = this.tree.get(path);
    if (item && this.disk.find(path)?.kind === "directory") this.disk.setMetadata(path, item);
  }

  /** Takes what is at the path out of the directory, and says so. */
  setAside(path: string): void {
    const name = asideName(`${this.#asides++}`, path);
    this.disk.takeOut(path, join(this.#folders.asideFolder, name));
    this.#log(`set aside ${JSON.stringify(path)}, which was not the file system's, as ${name}`);
  }

  /**
   * Makes the whole directory what `tree` says, which becomes the tree. Contents are at hand before anything is
   * taken away, so that a crash in between loses none. Paths whose content cannot be had are returned, and left.
   */
  async mend(
    tree: Tree,
    contentOf: ContentOf,
    isSuspect: (path: string) => boolean = () => false,
  ): Promise<string[]> {
    const before = this.tree;
    const missing: string[] = [];
    const turn = turns();
    for (const [path, item] of [...tree.walk("")]) {
      await turn();
      const found = this.disk.find(path);
      const isSame = before.get(path)?.digest.equals(item.digest) ?? false;
      const isRight = hasContentOf(found, item) && (item.kind !== "file" || (isSame && !isSuspect(path)));
      if (isRight) {
        if (!looksLike(found, item) && item.kind !== "directory") this.disk.setMetadata(path, item);
        continue;
      }
      if (
        item.kind === "file" &&
        hasContentOf(found, item) &&
        (await digestOf(this.disk, path))?.equals(item.digest)
      ) {
        this.disk.setMetadata(path, item);
        continue;
      }
      const content = item.kind === "file" ? await contentOf(path, item) : undefined;
      if (item.kind === "file" && content === undefined) {
        missing.push(path);
        continue;
      }
      const isTorn = isSuspect(path) && found?.kind === item.kind;
      if (!isTorn) await this.#makeRoom(path, before.get(path), item);
      this.disk.put(path, item, content);
    }
    await this.#removeOthers(tree, before);
    this.tree = tree;
    for (const [path, item] of [...tree.walk("")].reverse()) {
      await turn();
      if (item.kind === "directory" && this.disk.find(path)?.kind === "directory")
        this.disk.setMetadata(path, item);
    }
    return missing;
  }

  /** What the new tree does not have: what the old one had is deleted there, the rest is nobody's. */
  async #removeOthers(tree: Tree, before: Tree): Promise<void> {
    const others: string[] = [];
    for await (const [path, found] of this.disk.walk())
      if (!tree.get(path) && found.kind !== "other") others.push(path);
    const turn = turns();
    for (const path of others.reverse()) {
      await turn();
      const found = this.disk.find(path);
      if (found === undefined) continue;
      const item = before.get(path);
      const isKnown = item !== undefined && hasContentOf(found, item);
      if (!isKnown || !this.disk.remove(path)) this.setAside(path);
    }
  }
}

/** A name of at most 255 octets for what is kept beside the directory: when, what it was, and, where it fits, its own name. */
export function asideName(what: string, path: string): string {
  const head = `${new Date().toISOString().replaceAll(":", "-")}-${what}-`;
  const cut = Buffer.from(nameOf(path))
    .subarray(0, 200 - head.length)
    .toString();
  return head + cut.replace(/\ufffd+$/, "");
}

/** SHA-256 of a file's content, read in pieces, each of which `onPiece` hears of; undefined where it is none. */
export async function digestOf(
  disk: Disk,
  path: string,
  onPiece: () => Promise<void> | void = () => {},
): Promise<Buffer | undefined> {
  if (disk.find(path)?.kind !== "file") return undefined;
  const hash = createHash("sha256");
  await using file = await disk.open(path);
  for await (const chunk of file.createReadStream({ autoClose: false, highWaterMark: 256 * 1024 })) {
    hash.update(chunk);
    await onPiece();
  }
  return hash.digest();
}
