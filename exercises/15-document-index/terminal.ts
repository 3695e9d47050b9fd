/** What a user types at a node, and what it answers. */
import { createInterface } from "node:readline";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { formatBytes, Progress } from "../../shared/progress.ts";
import { get } from "./get.ts";
import type { IndexNode } from "./index-node.ts";
import { contains, labels, listingLines, listingOf, matches, type Row, rowCalled, table } from "./listing.ts";
import { printable } from "./safe-path.ts";

const HELP = `list [PATTERN]            the documents and who has them; * and ? stand for any characters, and for one
nodes                     who is there
find TEXT                 the documents with this text in their path
get DOCUMENT [--from NODE]
                          fetch a document into the current folder; by its path, its name, or the
                          beginning of its content's hash
help                      this
quit                      leave`;

interface TerminalOptions {
  node: IndexNode;
  json: boolean;
  signal: AbortSignal;
  log: (line: string) => void;
  print: (line: string) => void;
}

/** Does what the line says. Throws `Failure` where it cannot be done. */
export async function execute(line: string, options: TerminalOptions): Promise<void> {
  const [, command = "", rest = ""] = /^\s*(\S*)\s*(.*?)\s*$/s.exec(line) ?? [];
  switch (command) {
    case "":
      return;
    case "list":
      return list(rest === "" ? () => true : matches(rest), options);
    case "find":
      if (rest === "") throw new Failure("find needs a text");
      return list(contains(rest), options);
    case "nodes":
      return nodes(options);
    case "get":
      return fetch(rest, options);
    case "help":
      return options.print(HELP);
    default:
      throw new Failure(`there is no command ${JSON.stringify(command)}; see help`);
  }
}

function list(isWanted: (path: string) => boolean, { node, json, print }: TerminalOptions): void {
  const rows = listingOf(node.holders).filter(({ path }) => isWanted(path));
  if (json) return print(JSON.stringify(rows.map(plainRow)));
  for (const line of listingLines(rows)) print(line);
}
const plainRow = ({ path, size, modifiedMs, sha256, holders, ...rest }: Row) => ({
  ...{ path, size, modified: new Date(modifiedMs).toISOString(), sha256, nodes: holders, ...rest },
});

function nodes({ node, json, print }: TerminalOptions): void {
  const all = node.holders.map(({ documents, ...rest }) => ({ ...rest, documents: [...documents].length }));
  if (json) return print(JSON.stringify(all));
  const names = labels(all);
  const cells = all.map(({ id, address, port, documents, version, heardMs }) => [
    ...[
      names.get(id) ?? "",
      id.slice(0, 8),
      address === "" ? `port ${port}, this node` : `${address}:${port}`,
    ],
    ...[`${documents}`, `${version}`, address === "" ? "" : `${(heardMs / 1000).toFixed(1)} s ago`],
  ]);
  for (const line of table(["NODE", "ID", "ADDRESS", "DOCUMENTS", "VERSION", "HEARD"], cells)) print(line);
}

async function fetch(what: string, { node, json, signal, log, print }: TerminalOptions): Promise<void> {
  const [, wanted = "", from] = /^(.*?)(?:\s+--from[\s=]+(\S+))?$/s.exec(what) ?? [];
  if (wanted === "") throw new Failure("get needs a document");
  const { holders } = node;
  const names = labels(holders);
  const chosen = holders.filter(
    ({ id, name }) =>
      from === undefined ||
      names.get(id) === from ||
      name === from ||
      (from.length >= 4 && id.startsWith(from)),
  );
  if (chosen.length === 0) throw new Failure(`there is no node ${JSON.stringify(from)}; see nodes`);
  const rows = listingOf(chosen);
  const row = rowCalled(wanted, rows);
  // Whoever has the content will do, under whatever name.
  const ids = rows
    .filter(({ sha256 }) => sha256 === row.sha256)
    .flatMap((same) => same.holders.map(({ id }) => id));
  const progress = new Progress(row.size, 0, process.stderr.isTTY && row.size > 10_000_000);
  let doneBytes = 0;
  const onBytes = (bytes: number) => {
    progress.advance(bytes - doneBytes);
    doneBytes = bytes;
  };
  const sources = node.sourcesOf([...new Set(ids)]);
  const got = await get(row, sources, { into: ".", signal, log, onBytes }).finally(() => progress.end());
  const { size, sha256 } = row;
  if (json) return print(JSON.stringify({ name: got.name, size, sha256, from: got.from }));
  const amount = `${formatBytes(size)}, SHA-256 ${sha256.slice(0, 8)}… verified`;
  const origin = got.from.length === 0 ? "it was here already" : `from ${got.from.join(", then ")}`;
  print(`${printable(got.name)}: ${amount}, ${origin}`);
}

/** Takes commands from stdin, one after the other, until `quit`, the terminal's end or a stop. */
export async function converse(options: TerminalOptions, prompt: { show: () => void }): Promise<void> {
  const isTerminal = Boolean(process.stdin.isTTY && process.stdout.isTTY);
  const { signal, log, print } = options;
  const lines = createInterface({
    input: process.stdin,
    ...(isTerminal ? { output: process.stdout, prompt: "> " } : {}),
    terminal: isTerminal,
  });
  prompt.show = () => isTerminal && lines.prompt(true);
  lines.on("SIGINT", () => process.kill(process.pid, "SIGINT"));
  const close = () => lines.close();
  signal.addEventListener("abort", close, { once: true });
  if (signal.aborted) close();
  lines.prompt();
  for await (const line of lines) {
    if (line.trim() === "quit") return close();
    try {
      await execute(line, { ...options, print });
    } catch (error) {
      if (!isFailure(error)) throw error;
      if (!signal.aborted) log(`error: ${explain(error)}`);
    }
    prompt.show();
  }
  // The end of a pipe or of /dev/null is not the user's: a node in the background goes on.
  if (!isTerminal && !signal.aborted)
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
