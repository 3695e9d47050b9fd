/** The terminal: one file system, whichever node is master. */
import { createInterface } from "node:readline/promises";
import { flag, hostPort, integer, many, optional, setting, text } from "../../shared/config.ts";
import { explain, isFailure } from "../../shared/errors.ts";
import { printable } from "../../shared/printable.ts";
import { program } from "../../shared/program.ts";
import { secretOf } from "./link.ts";
import { PORT } from "./protocol.ts";
import { Remote } from "./remote.ts";
import { Shell } from "./shell.ts";

const out = (data: Buffer | string): Promise<void> =>
  new Promise((resolve) => process.stdout.write(data, () => resolve()));

/** Runs the lines; the code of the last one that failed, or of the first where that ends it. */
async function runLines(
  shell: Shell,
  lines: AsyncIterable<string> | Iterable<string>,
  keepsGoing: boolean,
  log: (line: string) => void,
): Promise<number> {
  let code = 0;
  for await (const line of lines) {
    try {
      await shell.run(line);
    } catch (error) {
      if (!isFailure(error)) throw error;
      log(`error: ${explain(error)}`);
      code = 1;
      if (!keepsGoing) break;
    }
    if (shell.isOver) break;
  }
  return code;
}

async function prompt(
  shell: Shell,
  remote: Remote,
  signal: AbortSignal,
  log: (line: string) => void,
): Promise<number> {
  const terminal = createInterface({
    input: process.stdin,
    output: process.stdout,
    completer: (line: string) => shell.complete(line),
  });
  signal.addEventListener("abort", () => terminal.close());
  terminal.on("SIGINT", () => {
    if (isBusy) return remote.interrupt(); // it says so itself, below its progress bar
    process.stdout.write("^C\n");
    terminal.write(null, { ctrl: true, name: "u" });
    terminal.prompt();
  });
  let isBusy = false;
  const ask = () => {
    terminal.setPrompt(`/${printable(shell.folder)}> `);
    terminal.prompt();
  };
  let code = 0;
  ask();
  for await (const line of terminal) {
    isBusy = true;
    remote.resume();
    code = await runLines(shell, [line], true, log);
    isBusy = false;
    if (shell.isOver) break;
    ask();
  }
  terminal.close();
  return code;
}

await program({
  summary:
    "A terminal on a replicated directory: ls, cd, cat, cp, mv, rm, put, get, nodes …; help lists them.",
  example: '--command "ls -l"',
  settings: {
    node: many(
      hostPort(PORT),
      "HOST:PORT of a node; may be given several times (default: 127.0.0.1:11200 to 11202)",
    ),
    command: many(text, "run this line and end; may be given several times, the first failure ends it"),
    keepGoing: flag("go on with the next --command, or line of stdin, when one has failed"),
    secretFile: optional(text, "file with the secret of the nodes"),
    patience: setting(integer(0, 3600), "seconds for which it is tried again while there is no master", 20),
  },
  async run({ node, command, keepGoing, secretFile, patience }, { signal, log, debug }) {
    const nodes = node.length > 0 ? node : [0, 1, 2].map((i) => ({ host: "127.0.0.1", port: PORT + i }));
    await using remote = new Remote({
      nodes,
      secret: secretOf(secretFile),
      patienceMs: patience * 1000,
      signal,
      debug,
    });
    const shell = new Shell(remote, out, process.stderr.isTTY);
    if (command.length > 0) process.exitCode = await runLines(shell, command, keepGoing, log);
    else if (process.stdin.isTTY) process.exitCode = await prompt(shell, remote, signal, log);
    else process.exitCode = await runLines(shell, createInterface({ input: process.stdin }), keepGoing, log);
  },
});
