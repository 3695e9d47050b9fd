/** A node's directory made right as a whole: after a start, after having been master, and where the log does not reach back. */
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isFailure } from "../../shared/errors.ts";
import { stagedAs } from "./apply.ts";
import { type Entry, isPut, putOf } from "./entries.ts";
import type { ReplicaNode } from "./node.ts";

const AGAIN_MS = 500;

export class Mending {
  readonly #node: ReplicaNode;
  /** The directory may hold what is not the file system's: it is looked through when there is a master. */
  isStray = true;
  #isMending = false;
  #isCopying = false;

  constructor(node: ReplicaNode) {
    this.#node = node;
  }

  /** Repairs what a crash left half done. */
  async afterStart(): Promise<void> {
    const node = this.#node;
    const { progress, base, isAfterReboot } = node.store;
    if (progress.applied < base.index || isAfterReboot) {
      const touched = new Set(node.core.log.map(({ path }) => path));
      const isSuspect = (path: string) => isAfterReboot && touched.has(path);
      await node.applier.mend(node.tree, node.contents.here(), isSuspect);
    }
    node.store.noteProgress(node.appliedIndex, node.core.commit);
    this.#sweepStage();
  }

  /** Contents that no entry needs any more. */
  #sweepStage(): void {
    const { core, store } = this.#node;
    const needed = new Set(core.log.filter(isPut).map((entry) => stagedAs(putOf(entry).item)));
    for (const name of readdirSync(store.stage))
      if (!needed.has(name)) rmSync(join(store.stage, name), { force: true });
  }

  /** Entries that were never acknowledged: their contents are kept, beside the directory. */
  reportCut(entries: readonly Entry[]): void {
    const { contents, options } = this.#node;
    for (const entry of entries) {
      if (entry.action === "begin") continue;
      const kept = isPut(entry) ? contents.keep(entry) : undefined;
      const what = `${entry.action} ${JSON.stringify(entry.path)} of term ${entry.term}`;
      options.log(`set aside a write that was never acknowledged: ${what}${kept ? `: ${kept}` : ""}`);
    }
  }

  /** Of a replica with a master: what is in the directory and not in the tree is set aside. */
  async mendStray(): Promise<void> {
    const node = this.#node;
    const hasMaster = () => node.core.role === "replica" && node.core.master !== 0;
    if (this.#isMending) return;
    this.#isMending = true;
    await node.inQueue(async () => {
      this.#isMending = false;
      if (hasMaster()) this.isStray = (await this.mendTree()).length > 0;
    });
    if (this.isStray && hasMaster() && !node.options.signal.aborted)
      setTimeout(() => void this.mendStray().catch(node.fail), AGAIN_MS).unref();
  }

  /** In the disk's queue. The paths whose content could not be had. */
  async mendTree(): Promise<string[]> {
    const { applier, contents, options, tree } = this.#node;
    applier.isDamaged = false;
    const missing = await applier.mend(tree, contents.anywhere());
    for (const path of missing) options.log(`the content of ${JSON.stringify(path)} could not be had yet`);
    return missing;
  }

  /** What this node lacks is in no log: manifest and digests tell what differs, and only that is fetched. */
  async copyAll(): Promise<void> {
    if (this.#isCopying) return;
    this.#isCopying = true;
    try {
      await this.#node.inQueue(() => this.#copyTree());
    } catch (error) {
      if (!isFailure(error)) throw error;
    } finally {
      this.#isCopying = false;
      this.#node.kick();
    }
  }

  async #copyTree(): Promise<void> {
    const node = this.#node;
    const { core, store, contents, applier } = node;
    const copied = await contents.copyTree();
    if (copied === undefined || copied.base.index <= core.commit) return;
    const { base, tree, fetched } = copied;
    store.noteProgress(0, base.index); // until it is mended, the directory is neither the old nor the new one
    node.rebase(base, tree.copy());
    core.install(base);
    node.kick();
    await node.until(() => store.base.index >= base.index);
    await applier.mend(tree, contents.anywhere());
    node.appliedIndex = base.index;
    this.isStray = false;
    store.noteProgress(base.index, core.commit);
    node.options.log(`copied the whole tree: ${tree.items.size - 1} paths, ${fetched} contents fetched`);
  }
}
