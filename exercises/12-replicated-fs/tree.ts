/** The tree that the committed entries describe: what every node's directory must look like. No disk here. */

import { decode } from "../../shared/pdu.ts";
import { type Entry, isPut, moveOf, putOf } from "./entries.ts";
import { joined, nameOf, parentOf } from "./paths.ts";
import { decodeAll, type Item, Member, MetadataBody, NO_REQUEST, NOTHING, type State } from "./protocol.ts";

/** So many requests are remembered, lest one that is repeated be carried out twice. */
const REMEMBERED = 1000;

export const directoryItem = (mode: number, mtimeUs: bigint): Item => ({
  kind: "directory",
  mode,
  mtimeUs,
  sizeBytes: 0n,
  digest: NOTHING,
  blob: NOTHING,
  target: "",
});

/** A tree as it travels. */
export function treeOf(state: State, items: Iterable<[string, Item]>): Tree {
  const requests = state.requests.toString("hex").match(/.{16}/g) ?? [];
  return new Tree(items, requests, decodeAll(Member, state.members), state.highestId);
}

export class Tree {
  readonly items: Map<string, Item>;
  /** Carried out, the oldest first, in hex. */
  readonly requests: Set<string>;
  members: readonly Member[];
  /** No id is given twice: a node that comes without the state of another is another. */
  highestId: number;
  readonly #children = new Map<string, Set<string>>();

  constructor(
    items: Iterable<[string, Item]> = [],
    requests: Iterable<string> = [],
    members: readonly Member[] = [],
    highestId = 0,
  ) {
    this.items = new Map(items);
    if (!this.items.has("")) this.items.set("", directoryItem(0o755, 0n));
    this.requests = new Set(requests);
    this.members = members;
    this.highestId = Math.max(highestId, ...members.map(({ id }) => id));
    for (const path of this.items.keys()) if (path !== "") this.#link(path);
  }

  copy(): Tree {
    return new Tree(this.items, this.requests, this.members, this.highestId);
  }

  get(path: string): Item | undefined {
    return this.items.get(path);
  }
  /** Names in a directory, in order. */
  names(path: string): string[] {
    return [...(this.#children.get(path) ?? [])].sort();
  }
  /** The path and all below it, parents first. */
  *walk(path: string): Generator<[string, Item]> {
    const item = this.items.get(path);
    if (item === undefined) return;
    yield [path, item];
    for (const name of this.names(path)) yield* this.walk(joined(path, name));
  }

  /** The same on every node; what does not fit (it cannot have been proposed so) changes nothing. */
  apply(entry: Entry): void {
    const { action, path, timeUs } = entry;
    if (!entry.request.equals(NO_REQUEST)) this.#remember(entry.request.toString("hex"));
    if (entry.nodes) {
      this.members = entry.nodes;
      this.highestId = Math.max(this.highestId, ...entry.nodes.map(({ id }) => id));
    }
    if (isPut(entry)) this.#put(path, putOf(entry).item, timeUs);
    if (action === "delete" && path !== "" && this.items.has(path)) {
      this.#remove(path);
      this.#touch(parentOf(path), timeUs);
    }
    if (action === "move") this.#move(path, moveOf(entry), timeUs);
    const item = this.items.get(path);
    if (action === "metadata" && item !== undefined)
      this.items.set(path, { ...item, ...decode(MetadataBody, entry.body) });
  }

  #put(path: string, item: Item, timeUs: bigint): void {
    if (this.items.get(parentOf(path))?.kind !== "directory" || path === "") return;
    if (this.items.get(path)?.kind !== item.kind) this.#remove(path);
    this.items.set(path, item);
    this.#link(path);
    this.#touch(parentOf(path), timeUs);
  }

  #move(from: string, to: string, timeUs: bigint): void {
    const isImpossible = from === "" || to === from || to.startsWith(`${from}/`);
    if (isImpossible || !this.items.has(from) || this.items.get(parentOf(to))?.kind !== "directory") return;
    const moved = [...this.walk(from)];
    this.#remove(to);
    this.#remove(from);
    for (const [path, item] of moved) {
      const target = to + path.slice(from.length);
      this.items.set(target, item);
      this.#link(target);
    }
    this.#touch(parentOf(from), timeUs);
    this.#touch(parentOf(to), timeUs);
  }

  #remove(path: string): void {
    for (const [below] of [...this.walk(path)]) {
      this.items.delete(below);
      this.#children.delete(below);
    }
    this.#children.get(parentOf(path))?.delete(nameOf(path));
  }

  #touch(path: string, mtimeUs: bigint): void {
    const item = this.items.get(path);
    if (item !== undefined) this.items.set(path, { ...item, mtimeUs });
  }

  #link(path: string): void {
    const parent = parentOf(path);
    const names = this.#children.get(parent) ?? new Set();
    this.#children.set(parent, names.add(nameOf(path)));
  }

  #remember(request: string): void {
    this.requests.add(request);
    const [oldest] = this.requests;
    if (this.requests.size > REMEMBERED && oldest !== undefined) this.requests.delete(oldest);
  }
}
