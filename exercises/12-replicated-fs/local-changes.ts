/** Changes that other programs make in the master's directory: where there is notice of one, the disk is compared with the tree. */
import { createHash } from "node:crypto";
import { explain, isFailure } from "../../shared/errors.ts";
import { encode } from "../../shared/pdu.ts";
import { Disk, type Found, hasContentOf, looksLike } from "./disk.ts";
import type { Change } from "./entries.ts";
import { Unavailable } from "./mastership.ts";
import type { ReplicaNode } from "./node.ts";
import { Notices } from "./notices.ts";
import { checkPath, joined, parentOf, within } from "./paths.ts";
import {
  type Action,
  CHUNK_BYTES,
  INLINE_BYTES,
  type Item,
  MetadataBody,
  MoveBody,
  NOTHING,
  PutBody,
} from "./protocol.ts";
import { Snapshots } from "./snapshots.ts";
import { turns } from "./turns.ts";

/** What has gone may come up again under another name: then it was moved. */
const GONE_MS = 120;
/** A large file that still grows is copied when it has been quiet for so long. */
const QUIET_MS = 200;
/** Against what no notice came of. */
const RESCAN_MS = 10_000;

export class LocalChanges {
  readonly #node: ReplicaNode;
  readonly #disk: Disk;
  readonly #notices: Notices;
  readonly #snapshots: Snapshots;
  #rescan: NodeJS.Timeout | undefined;
  /** In the log and not yet applied: looked at again afterwards. */
  readonly #pending = new Map<string, Action>();
  /** What has which inode, as far as it was seen. */
  readonly #inodes = new Map<bigint, string>();
  readonly #complained = new Set<string>();
  /** Directories that were looked through in this round, and whether there was news. */
  readonly #looked = new Map<string, boolean>();

  constructor(node: ReplicaNode) {
    const { dir, log } = node.options;
    this.#node = node;
    this.#disk = new Disk(dir, node.store.stage, true);
    this.#snapshots = new Snapshots(node, this.#disk);
    this.#notices = new Notices({
      root: dir,
      onDue: () => node.inQueue(() => this.#lookAtMarked()).catch(() => {}), // the node says so
      onError: (error) => log(`cannot watch: ${explain(error)}; looking every ${RESCAN_MS / 1000} s`),
    });
  }

  /** In the disk's queue, when all that the log has is applied. */
  async start(): Promise<void> {
    this.#notices.start();
    await this.#lookEverywhere();
    if (!this.#notices.isOn) return; // deposed meanwhile
    this.#rescan = setInterval(() => {
      this.#node.inQueue(() => this.#lookEverywhere()).catch(() => {});
    }, RESCAN_MS);
  }

  stop(): void {
    this.#notices.stop();
    clearInterval(this.#rescan);
    this.#pending.clear();
    this.#inodes.clear();
    this.#goneAt.clear();
    this.#snapshots.clear();
  }

  async #lookEverywhere(): Promise<void> {
    const disk = this.#disk;
    const { tree } = this.#node;
    const seen = new Set<string>();
    const closed: string[] = [];
    const onTrouble = (path: string, error: unknown) => {
      if (!isFailure(error)) throw error;
      this.#complain(path, explain(error));
      closed.push(path);
    };
    for await (const [path, found] of disk.walk("", onTrouble)) {
      seen.add(path);
      this.#inodes.set(found.inode, this.#inodes.get(found.inode) ?? path);
      if (!looksLike(found, tree.get(path))) this.#notices.mark(path);
    }
    for (const path of tree.items.keys())
      if (!seen.has(path) && !closed.some((folder) => within(folder, path))) this.#notices.mark(path);
    await this.#lookAtMarked();
  }

  async #lookAtMarked(): Promise<void> {
    const turn = turns();
    this.#looked.clear();
    for (const path of this.#notices.due()) {
      await turn();
      if (!this.#notices.isOn || this.#node.mastership.tip === undefined) return;
      this.#notices.take(path);
      try {
        await this.#look(path);
      } catch (error) {
        if (!isFailure(error)) throw error;
        this.#complain(path, explain(error));
      }
    }
    this.#notices.wakeForNext();
  }

  #complain(path: string, why: string): void {
    if (this.#complained.has(path)) return;
    this.#complained.add(path);
    this.#node.options.log(`${JSON.stringify(path)} is not replicated: ${why}`);
  }

  async #look(path: string): Promise<void> {
    const disk = this.#disk;
    const { tree } = this.#node;
    if (this.#isPending(path)) return this.#notices.mark(path, 20);
    checkPath(path);
    if (path.includes("\ufffd")) return this.#complain(path, "its name is not UTF-8");
    if (this.#notices.fresh.has(path)) this.#hasNews(path);
    const found = disk.find(path);
    const item = tree.get(path);
    if (looksLike(found, item)) return void (found && this.#inodes.set(found.inode, path));
    if (found === undefined) return this.#gone(path);
    this.#goneAt.delete(path);
    if (found.kind === "other") return this.#complain(path, "it is neither a file, a directory nor a link");
    if (found.target.includes("\ufffd")) return this.#complain(path, "where it points is not UTF-8");
    if (path !== "" && tree.get(parentOf(path))?.kind !== "directory")
      return this.#notices.mark(parentOf(path));
    const from = item === undefined ? this.#movedFrom(path, found) : undefined;
    if (from !== undefined && this.#isPending(from)) return this.#notices.mark(path, 20);
    this.#inodes.set(found.inode, path);
    if (from !== undefined) {
      for (const [inode, below] of this.#inodes)
        if (within(from, below)) this.#inodes.set(inode, path + below.slice(from.length));
      return this.#propose("move", from, encode(MoveBody, { to: path }), path);
    }
    if (item !== undefined && hasContentOf(found, item)) {
      const body = encode(MetadataBody, { mode: found.mode, mtimeUs: found.mtimeUs });
      return this.#propose("metadata", path, body);
    }
    return this.#put(path, found, item);
  }

  /** A change of the path, or one that makes, moves or removes a directory above it, is not applied yet. */
  #isPending(path: string): boolean {
    if (this.#pending.get(path)) return true;
    for (let above = parentOf(path); above !== ""; above = parentOf(above))
      if (["mkdir", "move", "delete"].includes(this.#pending.get(above) ?? "")) return true;
    return false;
  }

  readonly #goneAt = new Map<string, number>();
  #gone(path: string): void {
    const sinceMs = this.#goneAt.get(path);
    const nowMs = performance.now();
    if (sinceMs === undefined || nowMs - sinceMs < GONE_MS) {
      if (sinceMs === undefined) this.#goneAt.set(path, nowMs);
      return this.#notices.mark(path, GONE_MS);
    }
    const parent = parentOf(path);
    if (this.#disk.find(parent)?.kind !== "directory" && !this.#complained.has(parent)) {
      this.#notices.mark(parent); // it was moved, or goes as a whole: what becomes of it becomes of this
      return this.#notices.mark(path, GONE_MS);
    }
    const places = [parent, ...this.#notices.fresh];
    if (places.filter((folder) => this.#hasNews(folder)).length > 0) return this.#notices.mark(path, GONE_MS);
    this.#goneAt.delete(path);
    this.#propose("delete", path, NOTHING);
  }

  /** Is there something in the directory that the tree does not know yet? It is looked at; what is gone may be there now. */
  #hasNews(folder: string): boolean {
    const known = this.#looked.get(folder);
    if (known !== undefined) return known;
    const disk = this.#disk;
    const { tree } = this.#node;
    const news = disk
      .names(folder)
      .map((name) => joined(folder, name))
      .filter((path) => !tree.get(path) && !this.#complained.has(path));
    for (const path of news)
      if (!this.#notices.isMarked(path) && !this.#pending.has(path)) this.#notices.mark(path);
    this.#looked.set(folder, news.length > 0);
    return news.length > 0;
  }

  /** The path that had this inode, and is no more: a rename moves, it does not copy. */
  #movedFrom(path: string, found: Found): string | undefined {
    const disk = this.#disk;
    const { tree } = this.#node;
    const from = this.#inodes.get(found.inode);
    if (from === undefined || from === path || disk.find(from) !== undefined) return undefined;
    const item = tree.get(from);
    const isIt = item !== undefined && hasContentOf(found, item) && !within(from, path);
    if (!isIt) return undefined;
    this.#goneAt.delete(from);
    return from;
  }

  async #put(path: string, found: Found, before: Item | undefined): Promise<void> {
    const action = found.kind === "directory" ? "mkdir" : before === undefined ? "add" : "modify";
    const item: Item = { ...found, kind: found.kind as Item["kind"], digest: NOTHING, blob: NOTHING };
    if (found.kind !== "file") {
      this.#propose(action, path, encode(PutBody, { item, content: NOTHING }));
      if (found.kind === "directory") {
        this.#notices.watchClosely(path);
        this.#hasNews(path);
      }
      return;
    }
    if (found.sizeBytes > INLINE_BYTES) {
      const copy = this.#snapshots.take(path, found);
      if (copy === undefined) return this.#snapshotSoon(path, item);
      return this.#propose(action, path, encode(PutBody, { item: copy, content: NOTHING }));
    }
    const content = this.#disk.read(path, INLINE_BYTES);
    if (!looksLike(this.#disk.find(path), item)) return this.#notices.mark(path, 20);
    item.digest = createHash("sha256").update(content).digest();
    this.#propose(action, path, encode(PutBody, { item, content }));
  }

  #snapshotSoon(path: string, item: Item): void {
    const ageMs = Date.now() - Number(item.mtimeUs / 1000n);
    if (ageMs >= 0 && ageMs < QUIET_MS && item.sizeBytes > 4 * CHUNK_BYTES)
      return this.#notices.mark(path, QUIET_MS);
    this.#snapshots
      .make(path, item)
      .catch((error) => {
        if (!isFailure(error)) throw error;
        this.#complain(path, explain(error));
      })
      .finally(() => this.#notices.mark(path));
  }

  /** Nobody waits for it: what comes of it is seen when the path is looked at again. */
  #propose(action: Action, path: string, body: Buffer, alsoPending = path): void {
    const timeUs = this.#disk.find(parentOf(path))?.mtimeUs ?? 0n;
    const change: Change = { action, path, body, timeUs };
    const paths = [path, alsoPending];
    for (const one of paths) this.#pending.set(one, action);
    this.#node.mastership
      .write(change, true)
      .then(
        () => true,
        (error) => {
          if (!isFailure(error)) throw error;
          if (error instanceof Unavailable) return true;
          this.#complain(alsoPending, explain(error));
          return false;
        },
      )
      .then((looksAgain) => {
        for (const one of paths) this.#pending.delete(one);
        if (!looksAgain) return;
        for (const one of [...paths, parentOf(path), parentOf(alsoPending)]) this.#notices.mark(one);
      });
  }
}
