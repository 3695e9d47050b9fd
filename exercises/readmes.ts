/**
 * Runs what the READMEs show: every command of a ```console block, typed in order, must print what stands under it, but for
 * numbers, dates and hashes. A line `…` stands for any lines, `^C` ends what runs. A program that goes on running, as a
 * server does, keeps its terminal, and the next command is typed into another one.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { optional, text } from "../shared/config.ts";
import { Failure } from "../shared/errors.ts";
import { program } from "../shared/program.ts";
import { isInstalled } from "../shared/running.ts";
import { exerciseCalled, exercisesWith } from "./folders.ts";
import { type Command, commandsOf, saysTheSame } from "./readme-text.ts";

const ROOT = join(import.meta.dirname, "..");
/** A command that says nothing new for so long waits for ever. */
const PATIENCE_MS = 30_000;
/** No command takes longer, whatever it says. */
const LIMIT_MS = 120_000;
/** So long after its last expected line a program that has not ended is taken to go on running. */
const QUIET_MS = 1_000;

/** Those of no exercise. */
const PAGES = ["README.md", "captures/README.md"];

/** Types commands; each one's end is a NUL. `$?` and variables live on from one to the next. */
const SHELL = `
  [ "$(id -u)" != 0 ] || sudo() { "$@"; }
  [ -z "$NETLAB_README_NAMESPACES" ] || ip link set lo up
  trap : INT
  status=0
  while IFS= read -r -d "" -u 3 command; do
    (exit $status)
    eval "$command" </dev/null 3<&-
    status=$?
    printf "\\0"
  done 2>&1`;

/** A shell that is typed into; what it starts ends with it. */
class Terminal {
  readonly #shell;
  readonly ended: Promise<void>;
  isBusy = false;
  output = "";

  constructor(folder: string) {
    const env = {
      ...process.env,
      HOME: folder,
      TMPDIR: join(folder, "tmp"),
      NO_COLOR: "1",
      npm_config_loglevel: "error",
    };
    this.#shell = spawn("bash", ["-c", SHELL], {
      cwd: folder,
      env,
      detached: true,
      stdio: ["ignore", "pipe", "inherit", "pipe"],
    });
    this.#shell.stdout?.on("data", (chunk: Buffer) => {
      this.output += chunk.toString().replaceAll(folder, "/root"); // whose home it stands for
      if (this.output.includes("\0")) this.isBusy = false;
    });
    this.#shell.stdio[3]?.on("error", () => {}); // it has ended
    this.ended = new Promise((resolve) => void this.#shell.once("close", () => resolve()));
  }

  type(command: string): void {
    this.output = "";
    this.isBusy = true;
    (this.#shell.stdio[3] as Writable).write(`${command}\0`);
  }

  /** To the shell and all that it has started, as a terminal's keys do. */
  signal(signal: NodeJS.Signals): void {
    try {
      if (this.#shell.pid !== undefined) process.kill(-this.#shell.pid, signal);
    } catch {
      // it has ended
    }
  }
}

/** The project, where commands may write what they like. */
function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), "netlab-readmes-"));
  mkdirSync(join(folder, "tmp"));
  for (const entry of readdirSync(ROOT)) {
    if (entry === "node_modules") symlinkSync(join(ROOT, entry), join(folder, entry));
    else if (entry !== ".git") cpSync(join(ROOT, entry), join(folder, entry), { recursive: true });
  }
  return folder;
}

/** Undefined where it printed what it should, else what it printed. */
async function attempt(
  terminal: Terminal,
  command: Command,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { text, expected, isInterrupted } = command;
  terminal.type(text);
  const endMs = performance.now() + LIMIT_MS;
  let quietSince = performance.now();
  let seen = "";
  while (terminal.isBusy && !signal.aborted && performance.now() < endMs) {
    await delay(20);
    if (terminal.output !== seen) quietSince = performance.now();
    seen = terminal.output;
    const quietMs = performance.now() - quietSince;
    const isAllThere = expected.length > 0 && saysTheSame(expected, seen);
    if (isAllThere && isInterrupted) terminal.signal("SIGINT");
    if (quietMs > (isAllThere ? QUIET_MS : PATIENCE_MS)) break;
  }
  const output = terminal.output.replaceAll("\0", "");
  return saysTheSame(expected, output) ? undefined : output;
}

interface Count {
  passed: number;
  failed: number;
}

async function check(path: string, signal: AbortSignal, log: (line: string) => void): Promise<Count> {
  const folder = scratch();
  const terminals: Terminal[] = [];
  const count = { passed: 0, failed: 0 };
  try {
    for (const command of commandsOf(readFileSync(join(ROOT, path), "utf8"))) {
      const latest = terminals.at(-1);
      const terminal = latest?.isBusy === false ? latest : new Terminal(folder);
      if (terminal !== latest) terminals.push(terminal);
      const wrong = await attempt(terminal, command, signal);
      if (signal.aborted) throw new Failure("stopped");
      count[wrong === undefined ? "passed" : "failed"]++;
      if (wrong === undefined) continue;
      const quoted = (lines: string) => lines.replace(/^/gm, "    ");
      log(
        `${path}:${command.line}: $ ${command.text}\n  should print\n${quoted(command.expected.join("\n"))}\n  but prints`,
      );
      log(quoted(wrong.trimEnd()));
    }
    return count;
  } finally {
    for (const terminal of terminals) terminal.signal("SIGKILL");
    for (const { ended } of terminals) await ended;
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A list of network namespaces of its own. The machine's would be taken for leftovers, as their processes are not seen. */
const OWN_NETNS = 'mkdir -p /run/netns && mount -t tmpfs netns /run/netns && exec "$0" "$@"';

/** As root in a network and among processes of its own: no port is taken, and no other process is met. */
async function insideNamespaces(): Promise<number> {
  const args = [
    "--net",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
    "sh",
    "-c",
    OWN_NETNS,
    process.execPath,
    ...process.execArgv,
  ];
  const child = spawn("unshare", [...args, ...process.argv.slice(1)], {
    stdio: "inherit",
    env: { ...process.env, NETLAB_README_NAMESPACES: "1" },
  });
  const [code] = await once(child, "close");
  return code ?? 1;
}

/** Throws `UsageError` where there is no such page. */
function pathsOf(wanted: string | undefined): string[] {
  if (wanted !== undefined && PAGES.includes(wanted)) return [wanted];
  const all = exercisesWith("README.md");
  const exercises = wanted === undefined ? all : [exerciseCalled(wanted, all)];
  const paths = exercises.map(({ folder }) => `${folder}/README.md`);
  return wanted === undefined ? [...PAGES, ...paths] : paths;
}

await program({
  summary:
    "Runs the commands of the READMEs and compares what they print with what stands there, but for numbers.",
  example: "13",
  settings: {
    exercise: optional(text, "the one to check, by number or name; or README.md", { positional: true }),
  },
  async run({ exercise }, { signal, log }) {
    const canUnshare = process.getuid?.() === 0 && isInstalled("unshare");
    if (canUnshare && process.env["NETLAB_README_NAMESPACES"] === undefined)
      return void process.exit(await insideNamespaces());
    const paths = pathsOf(exercise);
    let total = { passed: 0, failed: 0 };
    for (const path of paths) {
      const { passed, failed } = await check(path, signal, log);
      log(`${path}: ${passed} commands as it says, ${failed} not`);
      total = { passed: total.passed + passed, failed: total.failed + failed };
    }
    process.stdout.write(`# pass ${total.passed}\n# fail ${total.failed}\n`);
    if (total.failed > 0) throw new Failure(`${total.failed} commands do not print what the READMEs say`);
  },
});
