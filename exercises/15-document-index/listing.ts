/** Which document is on which node: all indexes as one listing, and its lines. Pure. */
import { Failure } from "../../shared/errors.ts";
import { formatBytes } from "../../shared/progress.ts";
import type { Document } from "./document-index.ts";
import { printable } from "./safe-path.ts";

/** A node and what it has. */
export interface Holder {
  id: string;
  name: string;
  documents: Iterable<Document>;
}

/** A content under a path, and the nodes that have it there. */
export interface Row extends Document {
  holders: Pick<Holder, "id" | "name">[];
  /** Other paths of the same content: the first of them, as ten thousand empty files have each other. */
  sameAs: string[];
  /** How many other paths there are. */
  copies: number;
  /** There is another content under this path. */
  differs: boolean;
}

const MAX_SAME_AS = 10;

/** By path, then by content. */
export function listingOf(holders: readonly Holder[]): Row[] {
  const rows = new Map<string, Row>();
  const paths = new Map<string, Set<string>>();
  const contents = new Map<string, Set<string>>();
  for (const { id, name, documents } of holders) {
    for (const document of documents) {
      const { path, sha256, modifiedMs } = document;
      const key = `${sha256} ${path}`;
      const row = rows.get(key);
      if (row === undefined) {
        rows.set(key, { ...document, holders: [{ id, name }], sameAs: [], copies: 0, differs: false });
        addTo(paths, path, sha256);
        addTo(contents, sha256, path);
      } else {
        row.holders.push({ id, name });
        row.modifiedMs = Math.max(row.modifiedMs, modifiedMs);
      }
    }
  }
  const firsts = new Map<string, string[]>();
  for (const [sha256, all] of contents)
    if (all.size > 1) firsts.set(sha256, [...all].toSorted().slice(0, MAX_SAME_AS + 1));
  for (const row of rows.values()) {
    row.differs = (paths.get(row.path)?.size ?? 0) > 1;
    row.copies = (contents.get(row.sha256)?.size ?? 1) - 1;
    const others = firsts.get(row.sha256)?.filter((path) => path !== row.path);
    row.sameAs = others?.slice(0, MAX_SAME_AS) ?? [];
  }
  return [...rows.values()].sort((a, b) => compare(a.path, b.path) || compare(a.sha256, b.sha256));
}
const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

function addTo(sets: Map<string, Set<string>>, key: string, value: string): void {
  const set = sets.get(key);
  if (set === undefined) sets.set(key, new Set([value]));
  else set.add(value);
}

/** `*` stands for any characters, `?` for one. */
export function matches(pattern: string): (path: string) => boolean {
  const parts = [...pattern];
  return (path) => fits(parts, [...path]) || fits(parts, [...printable(path)]);
}

/**
 * Pattern times text at most. A regular expression would try every way to share out the text among several `*`, and a
 * peer chooses the text.
 */
function fits(pattern: readonly string[], text: readonly string[]): boolean {
  let at = 0;
  let star = -1;
  let afterStar = 0;
  for (let i = 0; i < text.length; ) {
    if (pattern[at] === "*") {
      star = at++;
      afterStar = i;
    } else if (pattern[at] === "?" || pattern[at] === text[i]) {
      at++;
      i++;
    } else if (star >= 0) {
      at = star + 1; // the last `*` takes one more
      i = ++afterStar;
    } else return false;
  }
  return pattern.slice(at).every((part) => part === "*");
}

/** Whether a path's text has this text in it, in any case of letters. */
export const contains = (text: string) => (path: string) =>
  printable(path).toLowerCase().includes(text.toLowerCase());

/** Names as people see them: with the beginning of the id where two nodes have the same. */
export function labels(nodes: readonly { id: string; name: string }[]): Map<string, string> {
  const ids = new Map<string, Set<string>>();
  for (const { id, name } of nodes) addTo(ids, name, id);
  return new Map(
    nodes.map(({ id, name }) => [
      id,
      (ids.get(name)?.size ?? 0) > 1 ? `${printable(name)}~${id.slice(0, 4)}` : printable(name),
    ]),
  );
}

/** Columns, as wide as their longest text. */
export function table(heads: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = heads.map((head, i) =>
    rows.reduce((max, row) => Math.max(max, row[i]?.length ?? 0), head.length),
  );
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd();
  return [heads, ...rows].map(line);
}

/** The listing for people: ≠ beside a path that has several contents, = before the other paths of the same content. */
export function listingLines(rows: readonly Row[]): string[] {
  const nodes = labels(rows.flatMap(({ holders }) => holders));
  const cells = rows.map(({ path, size, modifiedMs, sha256, holders, sameAs, copies, differs }) => [
    printable(path),
    `${differs ? "≠ " : ""}${sha256.slice(0, 8)}`,
    formatBytes(size),
    new Date(modifiedMs).toISOString().slice(0, 16).replace("T", " "),
    holders.map(({ id }) => nodes.get(id)).join(", "),
    copies === 0 ? "" : `= ${othersOf(sameAs, copies)}`,
  ]);
  return table(["DOCUMENT", "CONTENT", "SIZE", "MODIFIED (UTC)", "NODES", ""], cells);
}

const othersOf = ([first = ""]: readonly string[], copies: number) =>
  copies === 1 ? printable(first) : `${printable(first)} and ${copies - 1} more`;

/**
 * The one content that is meant: by its path, the end of its path, or the beginning of its SHA-256. Throws `Failure`
 * where there is none, or more than one.
 */
export function rowCalled(wanted: string, rows: readonly Row[]): Row {
  const named = ({ path }: Row) => path === wanted || printable(path) === wanted;
  const ways = [
    named,
    ({ path }: Row) => printable(path).endsWith(`/${wanted}`),
    ({ sha256 }: Row) => /^[0-9a-f]{8,}$/.test(wanted) && sha256.startsWith(wanted),
  ];
  const found = ways.map((way) => rows.filter(way)).find((some) => some.length > 0) ?? [];
  const [row, ...others] = found;
  if (row === undefined) throw new Failure(`there is no document ${JSON.stringify(wanted)}; see list`);
  if (others.every(({ sha256 }) => sha256 === row.sha256)) return row;
  const nodes = labels(found.flatMap(({ holders }) => holders));
  const choices = found.map(
    ({ path, sha256, holders }) =>
      `${sha256.slice(0, 8)} ${printable(path)} at ${holders.map(({ id }) => nodes.get(id)).join(", ")}`,
  );
  throw new Failure(
    `${JSON.stringify(wanted)} is ${found.length} different documents; name one by its content, or --from a node: ${choices.join("; ")}`,
  );
}
