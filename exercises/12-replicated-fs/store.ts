/**
 * What a node must not forget, in a folder beside its directory: who it is, its vote, the log and what came before it.
 *
 *     identity     who this is, and of which file system (JSON)
 *     vote         term and vote (JSON)
 *     base         the tree up to where the log begins: a `state` frame, a `manifest` frame for each path
 *     log          the entries behind it, each a frame behind its length and CRC-32
 *     progress     what has been applied to the directory: a hint, not synchronised
 *     stage/       contents that have arrived and are not yet in their place
 *     aside/       what was in the directory, or was to be, and is not of the file system
 */
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, statSync, writeSync } from "node:fs";
import { type FileHandle, open, rename } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { Failure } from "../../shared/errors.ts";
import { decode, encode } from "../../shared/pdu.ts";
import type { Durable } from "./consensus.ts";
import { decodeEntry, type Entry, encodeEntry } from "./entries.ts";
import type { Base } from "./log.ts";
import { decodeAll, encodeMembers, Frame, frame, Item, REQUEST_BYTES, State } from "./protocol.ts";
import { Tree, treeOf } from "./tree.ts";

export interface Identity {
  /** Hexadecimal, 16 octets. */
  cluster: string;
  uid: string;
  id: number;
  /** The master with which it was registered: whom to answer before the log says who is there. */
  contact?: { id: number; host: string; port: number };
}
interface Progress {
  applied: number;
  commit: number;
  boot: string;
  /** The last term in which this node was master, and had looked through its directory. */
  mastered?: number;
}

const RECORD_HEAD_BYTES = 8;

/** Changes with each start of the machine: then what was not synchronised may be gone. */
const bootId = () => {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return "unknown";
  }
};

export class Store implements Durable<Entry>, AsyncDisposable {
  readonly folder: string;
  readonly stage: string;
  readonly asideFolder: string;
  identity: Identity | undefined;
  term = 0;
  votedFor = 0;
  base: Base = { index: 0, term: 0, members: [] };
  log: readonly Entry[] = [];
  /** The tree as of `base`. */
  tree = new Tree();
  progress: Progress = { applied: 0, commit: 0, boot: bootId() };
  /** The machine has been started anew since: all that the log holds is to be looked at again. */
  readonly isAfterReboot: boolean;
  readonly #isSynchronous: boolean;
  #log: FileHandle | undefined;
  readonly #progressFd: number;

  /** Reads what is there. Throws `Failure`. */
  constructor(folder: string, isSynchronous: boolean) {
    this.folder = folder;
    this.#isSynchronous = isSynchronous;
    this.stage = join(folder, "stage");
    this.asideFolder = join(folder, "aside");
    for (const path of [folder, this.stage, this.asideFolder])
      mkdirSync(path, { recursive: true, mode: 0o700 });
    this.identity = this.#json<Identity>("identity");
    const vote = this.#json<{ term: number; votedFor: number }>("vote");
    this.term = vote?.term ?? 0;
    this.votedFor = vote?.votedFor ?? 0;
    this.#readBase();
    this.#readLog();
    const before = this.#json<Progress>("progress");
    this.isAfterReboot = before !== undefined && (before.boot !== bootId() || before.boot === "unknown");
    this.progress = { applied: this.base.index, commit: this.base.index, ...before, boot: bootId() };
    this.#progressFd = openSync(this.#path("progress"), existsSync(this.#path("progress")) ? "r+" : "w+");
  }

  #path(name: string): string {
    return join(this.folder, name);
  }
  #json<T>(name: string): T | undefined {
    const path = this.#path(name);
    if (!existsSync(path) || statSync(path).size === 0) return undefined;
    try {
      return JSON.parse(readFileSync(path, "utf8")) as T;
    } catch (error) {
      if (name === "progress") return undefined; // it was being written
      throw new Failure(`cannot read the state in ${path}`, { cause: error });
    }
  }

  #readBase(): void {
    if (!existsSync(this.#path("base"))) return;
    const [head, ...items] = decodeAll(Frame, readFileSync(this.#path("base")));
    if (head === undefined) throw new Failure(`cannot read the state in ${this.#path("base")}`);
    this.setBase(
      decode(State, head.data),
      items.map(({ path, data }) => [path, decode(Item, data)]),
    );
  }

  /** The tree up to the log, as it was read or has been copied from another node. */
  setBase(state: State, items: Iterable<[string, Item]>): void {
    this.tree = treeOf(state, items);
    this.base = { index: state.index, term: state.term, members: this.tree.members.map(({ id }) => id) };
  }

  /** Up to the first record that is torn: what is behind it was never acknowledged. */
  #readLog(): void {
    const path = this.#path("log");
    if (!existsSync(path)) return;
    const bytes = readFileSync(path);
    const entries: Entry[] = [];
    let at = 4;
    while (at + RECORD_HEAD_BYTES <= bytes.length) {
      const end = at + RECORD_HEAD_BYTES + bytes.readUInt32BE(at);
      const record = bytes.subarray(at + RECORD_HEAD_BYTES, end);
      if (crc32(record) !== bytes.readUInt32BE(at + 4)) break;
      entries.push(decodeEntry(decode(Frame, Buffer.from(record))));
      at = end;
    }
    const skipped = this.base.index - (bytes.length >= 4 ? bytes.readUInt32BE(0) : 0);
    // A log of before the base was copied from elsewhere goes on behind it only if it agrees with it.
    const isOfBase = skipped === 0 || (skipped > 0 && entries[skipped - 1]?.term === this.base.term);
    this.log = isOfBase ? entries.slice(skipped) : [];
  }
  /** The log's file begins before the base: it is written anew before it is added to. */
  #isShortened = false;

  async saveIdentity(identity: Identity): Promise<void> {
    this.identity = identity;
    await this.#replace("identity", [Buffer.from(JSON.stringify(identity))]);
  }

  /** Brings the disk up to the core's state; when it resolves, all of it is synchronised. */
  async save(core: Durable<Entry>): Promise<void> {
    const { term, votedFor, base, log } = core;
    if (term !== this.term || votedFor !== this.votedFor) {
      await this.#replace("vote", [Buffer.from(JSON.stringify({ term, votedFor }))]);
      [this.term, this.votedFor] = [term, votedFor];
    }
    const next = [...log];
    const isAdded = this.log.length === 0 || this.log.at(-1) === next[this.log.length - 1];
    if (!isAdded || this.#log === undefined || this.#isShortened) await this.#rewriteLog(base.index, next);
    else if (next.length > this.log.length) await this.#append(this.#log, next.slice(this.log.length));
    this.log = next;
  }

  async #append(log: FileHandle, entries: readonly Entry[]): Promise<void> {
    await writeAll(log, entries.flatMap(recordOf));
    if (this.#isSynchronous) await log.datasync();
  }

  async #rewriteLog(firstIndex: number, entries: readonly Entry[]): Promise<void> {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(firstIndex);
    await this.#log?.close();
    this.#log = await this.#replace("log", [head, ...entries.flatMap(recordOf)], true);
    this.#isShortened = false;
  }

  /** The tree up to `index` becomes the base; the log is shortened with the next `save`. */
  async saveBase(base: Base, tree: Tree): Promise<void> {
    await this.#replace("base", stateFrames(base, tree));
    this.tree = tree;
    this.base = base;
    this.#isShortened = true;
  }

  /** Written without waiting: a crash of the process does not lose it, and one of the machine is noticed. */
  noteProgress(applied: number, commit: number): void {
    this.progress = { ...this.progress, applied, commit };
    const text = JSON.stringify(this.progress);
    // Always as long: the old one is overwritten, and no reader sees a mixture of two lengths.
    writeSync(this.#progressFd, `${text.padEnd(200)}\n`, 0);
  }

  noteMastered(mastered: number): void {
    this.progress.mastered = mastered;
    this.noteProgress(this.progress.applied, this.progress.commit);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    closeSync(this.#progressFd);
    await this.#log?.close();
  }

  async #replace(name: string, parts: readonly Buffer[], keepOpen: true): Promise<FileHandle>;
  async #replace(name: string, parts: readonly Buffer[]): Promise<undefined>;
  async #replace(name: string, parts: readonly Buffer[], keepOpen = false): Promise<FileHandle | undefined> {
    const file = await open(this.#path(`${name}.new`), "w", 0o600);
    await writeAll(file, parts);
    if (this.#isSynchronous) await file.sync();
    await rename(this.#path(`${name}.new`), this.#path(name));
    if (this.#isSynchronous) await syncFolder(this.folder);
    if (keepOpen) return file;
    await file.close();
    return undefined;
  }
}

/** Throws `Failure` where the disk takes a part only: it is full. */
async function writeAll(file: FileHandle, parts: readonly Buffer[]): Promise<void> {
  const { bytesWritten } = await file.writev([...parts]);
  if (bytesWritten < parts.reduce((sum, part) => sum + part.length, 0))
    throw new Failure("cannot write the state: the disk takes a part only; is it full?");
}

function recordOf(entry: Entry): Buffer[] {
  const record = encodeEntry(entry);
  const head = Buffer.alloc(RECORD_HEAD_BYTES);
  head.writeUInt32BE(record.length);
  head.writeUInt32BE(crc32(record), 4);
  return [head, record];
}

/** A tree as it travels and is kept: its state, then an item a frame. */
export function stateFrames({ index, term }: Base, tree: Tree): Buffer[] {
  const requests = Buffer.from([...tree.requests].join(""), "hex").subarray(-1000 * REQUEST_BYTES);
  const { highestId } = tree;
  const state = encode(State, { index, term, highestId, members: encodeMembers(tree.members), requests });
  return [
    frame(0, "state", "", state),
    ...[...tree.walk("")].map(([path, item]) => frame(0, "manifest", path, encode(Item, item))),
  ];
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  await folder.sync().finally(() => folder.close());
}
