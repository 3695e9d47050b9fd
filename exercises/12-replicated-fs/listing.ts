/** What the terminal prints of the replicated directory: the lines of ls, stat, tree, df and nodes. Pure. */

import { nameOf, parentOf } from "./paths.ts";
import type { Item } from "./protocol.ts";
import type { Listed } from "./remote.ts";
import { quote } from "./words.ts";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const TYPES = { file: "-", directory: "d", link: "l" } as const;
/** A node that was not heard of for so long has missed some heartbeats. */
const LOST_MS = 1500;

function sizeText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}
function modeText({ kind, mode }: Item): string {
  const bits = [...(kind === "link" ? 0o777 : mode & 0o777).toString(2).padStart(9, "0")];
  return TYPES[kind] + bits.map((bit, i) => (bit === "1" ? "rwx"[i % 3] : "-")).join("");
}
const timeText = ({ mtimeUs }: Item) =>
  new Date(Number(mtimeUs / 1000n)).toISOString().slice(0, 19).replace("T", " ");
const targetText = ({ kind, target }: Item) => (kind === "link" ? ` -> ${shown(target)}` : "");

/** A name as it may be shown: on a terminal nothing of it moves the cursor. */
export const shown = (name: string): string => (/\p{Cc}/u.test(name) ? quote(name) : name);

export function lsLine(item: Item, name: string, isLong: boolean): string {
  if (!isLong) return shown(name);
  const size = String(item.sizeBytes).padStart(11);
  return `${modeText(item)} ${size} ${timeText(item)} ${shown(name)}${targetText(item)}`;
}

export function statLines(path: string, item: Item): string[] {
  const { kind, mode, sizeBytes, digest, target } = item;
  return [
    `path      /${shown(path)}`,
    `kind      ${kind}`,
    `mode      ${mode.toString(8).padStart(4, "0")} ${modeText(item)}`,
    `modified  ${timeText(item)} UTC`,
    ...(kind === "file" ? [`size      ${sizeBytes} bytes`, `SHA-256   ${digest.toString("hex")}`] : []),
    ...(kind === "link" ? [`target    ${shown(target)}`] : []),
  ];
}

/** `all`: the path itself, then all below, parents first. */
export function treeLines(from: string, all: readonly Listed[]): string[] {
  const lines = [`/${shown(from)}`];
  const last = new Map(all.map(({ path }) => [parentOf(path), path]));
  const counts = { file: 0, directory: 0, link: 0 };
  for (const { path, item } of all.slice(1)) {
    counts[item.kind]++;
    let stem = "";
    for (let at = parentOf(path); at !== from; at = parentOf(at))
      stem = (last.get(parentOf(at)) === at ? "    " : "│   ") + stem;
    const branch = last.get(parentOf(path)) === path ? "└── " : "├── ";
    lines.push(stem + branch + shown(nameOf(path)) + targetText(item));
  }
  return [...lines, `${counts.directory} directories, ${counts.file + counts.link} files`];
}

/** From the answer to `df`. */
export function dfLines(text: string, address: string): string[] {
  const row = (size: string, free: string, paths: string, node: string) =>
    `${size.padStart(10)} ${free.padStart(10)} ${paths.padStart(8)}  ${node}`;
  const [size = 0, free = 0, paths = 0] = text.split("\t").map(Number);
  return [row("size", "free", "paths", "node"), row(sizeText(size), sizeText(free), String(paths), address)];
}

/** From the answer to `nodes`. */
export function nodesLines(text: string): string[] {
  const [head = "", ...rows] = text.split("\n");
  const lines = rows.map((row) => {
    const [id = "", address = "", role = "", match = "", lag = "", heard = ""] = row.split("\t");
    const when = heard === "?" ? "?" : `${heard} ms ago${Number(heard) > LOST_MS ? ", lost" : ""}`;
    return `${id.padEnd(5)} ${address.padEnd(22)} ${role.padEnd(8)} ${match.padStart(7)} ${lag.padStart(5)}  ${when}`;
  });
  return [
    head.replaceAll("\t", ", "),
    "node  address                role     entries  lags  heard",
    ...lines,
  ];
}
