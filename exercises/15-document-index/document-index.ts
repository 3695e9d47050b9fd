/**
 * The index of a node's documents by version and digest, pure: what the node itself keeps (`OwnIndex`) and what others
 * know of it (`RemoteIndex`).
 */
import { hash } from "node:crypto";
import { Failure } from "../../shared/errors.ts";
import { printable } from "./safe-path.ts";

export interface Document {
  /** In the node's folder, `/` between its parts. */
  path: string;
  /** In bytes. */
  size: number;
  modifiedMs: number;
  /** Of the content, in hex. */
  sha256: string;
}
/** A document that is new or has changed, or the path of one that is gone. */
export type Change = Document | { path: string };

/** What leads from one version to another. */
export interface Update {
  version: number;
  digest: Buffer;
  /** Whether it begins from nothing. */
  whole: boolean;
  changes: readonly Change[];
}

const DIGEST_BYTES = 16;
/** Removals that are remembered; who has a version before them gets the whole index. */
export const MAX_REMOVALS = 10_000;

const emptyDigest = () => Buffer.alloc(DIGEST_BYTES);
export const isDocument = (change: Change): change is Document => "sha256" in change;

/**
 * Adds a document to a digest, or takes it out: the digest is the XOR of the documents' own, so it does not depend on
 * their order, and a change costs what changed.
 */
function toggle(digest: Buffer, { path, size, modifiedMs, sha256 }: Document): void {
  const own = hash("sha256", `${size} ${modifiedMs} ${sha256} ${path}`, "buffer");
  for (let i = 0; i < DIGEST_BYTES; i++) digest[i] = (digest[i] ?? 0) ^ (own[i] ?? 0);
}

const isSame = (a: Document, b: Document) =>
  a.sha256 === b.sha256 && a.size === b.size && a.modifiedMs === b.modifiedMs;

/** A node's own documents. Each change gives a new version. */
export class OwnIndex {
  version = 0;
  readonly digest = emptyDigest();
  readonly #documents = new Map<string, { document: Document; version: number }>();
  readonly #removals = new Map<string, number>();
  /** The last version of which a removal was forgotten. */
  #forgotten = 0;

  /** False where nothing changed. */
  set(document: Document): boolean {
    const before = this.#documents.get(document.path)?.document;
    if (before !== undefined && isSame(before, document)) return false;
    if (before !== undefined) toggle(this.digest, before);
    toggle(this.digest, document);
    this.#removals.delete(document.path);
    this.#documents.set(document.path, { document, version: ++this.version });
    return true;
  }

  remove(path: string): boolean {
    const before = this.#documents.get(path)?.document;
    if (before === undefined) return false;
    toggle(this.digest, before);
    this.#documents.delete(path);
    this.#removals.set(path, ++this.version);
    if (this.#removals.size > MAX_REMOVALS) {
      const [oldest = "", version = 0] = this.#removals.entries().next().value ?? [];
      this.#removals.delete(oldest);
      this.#forgotten = version;
    }
    return true;
  }

  get documents(): Document[] {
    return Array.from(this.#documents.values(), ({ document }) => document);
  }
  get size(): number {
    return this.#documents.size;
  }

  /** One of the documents with this content. */
  withContent(sha256: string): Document | undefined {
    for (const { document } of this.#documents.values()) if (document.sha256 === sha256) return document;
    return undefined;
  }

  /** What somebody lacks who has this version. Who has none, one too old or one that never was gets everything. */
  since(version: number): Update {
    const { version: current, documents } = this;
    const digest = Buffer.from(this.digest);
    if (version === 0 || version < this.#forgotten || version > current)
      return { version: current, digest, whole: true, changes: documents };
    const changes: Change[] = [];
    for (const entry of this.#documents.values()) if (entry.version > version) changes.push(entry.document);
    for (const [path, at] of this.#removals) if (at > version) changes.push({ path });
    return { version: current, digest, whole: false, changes };
  }
}

/** Another node's documents, as it told them. */
export class RemoteIndex {
  version = 0;
  digest = emptyDigest();
  #documents = new Map<string, Document>();

  get documents(): Iterable<Document> {
    return this.#documents.values();
  }
  get size(): number {
    return this.#documents.size;
  }

  /** Throws `Failure`, and nothing has changed, where the changes do not make what the digest says. */
  apply({ version, digest, whole, changes }: Update): void {
    const documents = whole ? new Map<string, Document>() : this.#documents;
    const result = whole ? emptyDigest() : Buffer.from(this.digest);
    const paths = new Set<string>();
    for (const change of changes) {
      if (paths.has(change.path))
        throw new Failure(`its index names ${printable(JSON.stringify(change.path))} twice`);
      paths.add(change.path);
      const before = documents.get(change.path);
      if (before !== undefined) toggle(result, before);
      if (isDocument(change)) toggle(result, change);
    }
    if (!result.equals(digest)) throw new Failure("its index is not what its digest says");
    for (const change of changes) {
      if (isDocument(change)) documents.set(change.path, change);
      else documents.delete(change.path);
    }
    this.#documents = documents;
    this.version = version;
    this.digest = result;
  }
}
