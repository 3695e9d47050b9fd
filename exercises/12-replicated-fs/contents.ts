/** The contents of files: where they lie on this node, and how they come from the master. */
import { createHash, type Hash } from "node:crypto";
import { existsSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import type { Connection } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { decode, encode } from "../../shared/pdu.ts";
import { asideName, type ContentOf, hexOf, stagedAs } from "./apply.ts";
import { hasContentOf } from "./disk.ts";
import { type Entry, isPut, putOf } from "./entries.ts";
import { dial, nextFrame } from "./link.ts";
import type { Base } from "./log.ts";
import type { ReplicaNode } from "./node.ts";
import { checkPath } from "./paths.ts";
import { CHUNK_BYTES, Fetch, frame, Item, NOTHING, Result, State } from "./protocol.ts";
import { type Tree, treeOf } from "./tree.ts";
import { turns } from "./turns.ts";

const STALL_MS = 10_000;
/** `gone`: the node that was asked has it no more. */
type Fetched = "here" | "gone";

export class Contents {
  readonly #node: ReplicaNode;
  readonly #fetching = new Set<string>();
  #connection: { to: number; connection: Connection } | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(node: ReplicaNode) {
    this.#node = node;
  }

  #staged = (name: string) => join(this.#node.store.stage, name);

  /** Is all of the entry here? */
  has(entry: Entry): boolean {
    if (!isPut(entry)) return true;
    const { item } = putOf(entry);
    return item.blob.length === 0 || existsSync(this.#staged(stagedAs(item)));
  }

  /** Gets what a new entry of the master's refers to; undefined where it is already on its way, or the way is broken. */
  async fetchFor(entry: Entry, from: number): Promise<Fetched | undefined> {
    const { item } = putOf(entry);
    const name = stagedAs(item);
    if (this.#fetching.has(name)) return undefined;
    this.#fetching.add(name);
    return this.#fetch(entry.path, item, from).finally(() => this.#fetching.delete(name));
  }

  /** Finds contents that are on this node: in the log, staged, or at another path. What is where, it learns once. */
  here(): ContentOf {
    let places: Map<string, (Buffer | string)[]> | undefined;
    return async (_path, item) => {
      for (const name of [hexOf(item.blob), hexOf(item.digest)])
        if (name !== "" && existsSync(this.#staged(name))) return this.#staged(name);
      places ??= this.#places();
      const { applier, disk } = this.#node;
      for (const place of places.get(hexOf(item.digest)) ?? []) {
        if (typeof place !== "string") return place;
        const known = applier.tree.get(place);
        if (known !== undefined && hasContentOf(disk.find(place), known)) return this.#copyOut(place, item);
      }
      return undefined;
    };
  }

  /** By digest: contents in the log, and paths of the tree. */
  #places(): Map<string, (Buffer | string)[]> {
    const { core, applier } = this.#node;
    const places = new Map<string, (Buffer | string)[]>();
    const add = ({ digest }: Item, place: Buffer | string) => {
      const known = places.get(hexOf(digest));
      if (known === undefined) places.set(hexOf(digest), [place]);
      else known.push(place);
    };
    for (const { item, content } of core.log.filter(isPut).map(putOf))
      if (item.kind === "file" && item.blob.length === 0) add(item, content);
    for (const [path, item] of applier.tree.items) if (item.kind === "file") add(item, path);
    return places;
  }

  /** The same, else from the master; the master itself asks the others. */
  anywhere(): ContentOf {
    const here = this.here();
    return async (path, item) => {
      const found = await here(path, item);
      if (found !== undefined) return found;
      const { master, members, id } = this.#node.core;
      const holders = master === id ? members.filter((other) => other !== id) : master === 0 ? [] : [master];
      for (const from of holders)
        if ((await this.#fetch(path, item, from)) === "here") return this.#staged(stagedAs(item));
      return undefined;
    };
  }

  /** A copy of a file of the directory; undefined where its content is not what was wanted. */
  async #copyOut(path: string, item: Item): Promise<string | undefined> {
    const to = this.#node.disk.aside();
    const { digest } = await snapshotFile(await this.#node.disk.open(path), to);
    if (digest.equals(item.digest)) return to;
    rmSync(to);
    return undefined;
  }

  /** One request at a time, on one connection that is kept. */
  async #ask<T>(
    from: number,
    request: Buffer,
    read: (connection: Connection) => Promise<T>,
  ): Promise<T | undefined> {
    const before = this.#turn;
    const asked = (async () => {
      await before;
      try {
        const connection = await this.#connect(from);
        await connection.write(request);
        return await read(connection);
      } catch (error) {
        if (!isFailure(error)) throw error;
        this.#node.options.debug(`cannot get from node ${from}: ${explain(error)}`);
        this.#connection?.connection.destroy();
        this.#connection = undefined;
        return undefined;
      }
    })();
    this.#turn = asked.catch(() => {});
    return asked;
  }

  async #connect(to: number): Promise<Connection> {
    if (this.#connection?.to === to && !this.#connection.connection.closed)
      return this.#connection.connection;
    this.#connection?.connection.destroy();
    const member = this.#node.addressOf(to);
    if (member === undefined) throw new Failure(`node ${to} is not known`);
    const { secret, signal } = this.#node.options;
    const cluster = Buffer.from(this.#node.store.identity?.cluster ?? "", "hex");
    const { host, port } = member;
    const { connection } = await dial({ host, port, secret, id: this.#node.id, cluster, signal });
    connection.timeoutMs = STALL_MS;
    signal.addEventListener("abort", () => connection.destroy(), { once: true });
    this.#connection = { to, connection };
    return connection;
  }

  async #fetch(path: string, item: Item, from: number): Promise<Fetched | undefined> {
    const to = this.#staged(stagedAs(item));
    if (existsSync(to)) return "here";
    const request = frame(this.#node.id, "fetch", path, encode(Fetch, item));
    return this.#ask<Fetched>(from, request, async (connection) => {
      const aside = this.#node.disk.aside();
      const { digest, problem } = await receiveFile(connection, aside, this.#node.options.isSynchronous);
      if (problem === undefined && digest.equals(item.digest)) {
        renameSync(aside, to);
        return "here";
      }
      rmSync(aside);
      this.#node.options.debug(
        `${JSON.stringify(path)} cannot be had: ${problem ?? "it is another content"}`,
      );
      return "gone";
    });
  }

  /** The master's tree, with every content that is not here fetched; undefined where it could not be had. */
  async copyTree(): Promise<{ base: Base; tree: Tree; fetched: number } | undefined> {
    const { core, disk, applier } = this.#node;
    const from = core.master;
    const request = frame(this.#node.id, "manifest");
    const copied = await this.#ask(from, request, (connection) => readManifest(connection));
    if (copied === undefined) return undefined;
    const { state, items } = copied;
    const tree = treeOf(state, items);
    const members = tree.members.map(({ id }) => id);
    const here = this.here();
    const turn = turns();
    let fetched = 0;
    for (const [path, item] of tree.walk("")) {
      await turn();
      if (item.kind !== "file") continue;
      const isSame =
        applier.tree.get(path)?.digest.equals(item.digest) && hasContentOf(disk.find(path), item);
      const found = isSame ? NOTHING : await here(path, item);
      if (typeof found === "string") renameSync(found, this.#staged(stagedAs(item)));
      if (found !== undefined) continue;
      if ((await this.#fetch(path, item, from)) !== "here") return undefined; // it changed meanwhile: a newer manifest will tell
      fetched++;
    }
    return { base: { index: state.index, term: state.term, members }, tree, fetched };
  }

  /** Opens a content that another node asks for: staged, at its path, or wherever it has been moved since. */
  async open(path: string, wanted: { blob: Buffer; digest: Buffer }): Promise<FileHandle | undefined> {
    for (const name of [hexOf(wanted.blob), hexOf(wanted.digest)])
      if (name !== "" && existsSync(this.#staged(name))) return open(this.#staged(name), "r");
    const { tree, disk } = this.#node;
    const isIt = (item: Item | undefined) => item?.kind === "file" && item.digest.equals(wanted.digest);
    const first: [string, Item | undefined] = [path, tree.get(path)];
    const found = isIt(first[1]) ? first : [...tree.items].find(([, item]) => isIt(item));
    if (found?.[1] === undefined || !hasContentOf(disk.find(found[0]), found[1])) return undefined;
    return disk.open(found[0]);
  }

  /** Keeps the content of an entry that is cut off, beside the directory; the file's path. */
  keep(entry: Entry): string | undefined {
    const { item, content } = putOf(entry);
    if (item.kind !== "file") return undefined;
    const to = join(this.#node.store.asideFolder, asideName(`term${entry.term}`, entry.path));
    const staged = this.#staged(stagedAs(item));
    if (item.blob.length === 0) writeFileSync(to, content);
    else if (existsSync(staged)) renameSync(staged, to);
    else return undefined;
    return to;
  }
}

/** Copies an open file, and closes it; its size and digest as they were copied. */
export async function snapshotFile(
  from: FileHandle,
  to: string,
  isSynchronous = false,
): Promise<{ digest: Buffer; sizeBytes: number }> {
  const hash = createHash("sha256");
  const file = await open(to, "wx", 0o600);
  let sizeBytes = 0;
  try {
    const buffer = Buffer.allocUnsafe(4 * CHUNK_BYTES);
    while (true) {
      const { bytesRead } = await from.read(buffer, 0, buffer.length, sizeBytes);
      if (bytesRead === 0) break;
      const chunk = buffer.subarray(0, bytesRead);
      await hashAndWrite(hash, file, chunk);
      sizeBytes += bytesRead;
    }
    if (isSynchronous) await file.sync();
  } finally {
    await Promise.all([file.close(), from.close()]);
  }
  return { digest: hash.digest(), sizeBytes };
}

/** Both at the same time: the digest is made here while the system writes. */
export async function hashAndWrite(hash: Hash, file: FileHandle, data: Buffer): Promise<void> {
  const written = file.appendFile(data); // all of it, or an error: a full disk takes a part
  hash.update(data);
  await written;
}

/** Takes chunks up to the result into a new file, which is on disk when this resolves. */
async function receiveFile(
  connection: Connection,
  to: string,
  isSynchronous: boolean,
): Promise<{ digest: Buffer; problem?: string }> {
  const hash = createHash("sha256");
  await using file = await open(to, "wx", 0o600);
  while (true) {
    const { action, data } = await nextFrame(connection);
    if (action === "result") {
      if (isSynchronous) await file.sync();
      const { outcome, text } = decode(Result, data);
      return { digest: hash.digest(), ...(outcome === "done" ? {} : { problem: text }) };
    }
    if (action !== "chunk") throw new Failure(`${action} came in place of chunk`);
    await hashAndWrite(hash, file, data);
  }
}

async function readManifest(connection: Connection): Promise<{ state: State; items: [string, Item][] }> {
  const first = await nextFrame(connection);
  if (first.action !== "state") throw new Failure(decode(Result, first.data).text);
  const state = decode(State, first.data);
  const items: [string, Item][] = [];
  while (true) {
    const { action, path, data } = await nextFrame(connection);
    if (action === "result") return { state, items };
    items.push([checkPath(path), copied(decode(Item, data))]);
  }
}
/** The decoded bytes are views of what has arrived, which would be kept with them. */
const copied = (item: Item): Item => ({
  ...item,
  digest: Buffer.from(item.digest),
  blob: Buffer.from(item.blob),
});
