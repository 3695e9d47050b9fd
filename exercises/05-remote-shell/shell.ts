/**
 * One long-lived Unix shell: what `cd`, variables, functions and `umask` have set is there for the next command.
 *
 * The shell reads its script from a pipe that only this file writes to. Each command gets an input of its own, so that it
 * sees an end of it; output comes through two pipes; exit codes come through a FIFO that is opened by name for each
 * report, so that a command which closes descriptors cannot close it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  closeSync,
  constants,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  unlinkSync,
} from "node:fs";
import type { Socket } from "node:net";
import { constants as system, tmpdir } from "node:os";
import { join } from "node:path";
import { Connection } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { makeFifos, Output, openBothEnds, openForReading, openForWriting } from "./pipes.ts";
import {
  endSession,
  interruptibleChildren,
  killSession,
  SESSION_VARIABLE,
  signalGroup,
  signalProcess,
} from "./processes.ts";
import type { SIGNALS } from "./protocol.ts";
import type { ShellKind } from "./shell-kind.ts";
import { commandLines, preparation, reportAgain, type ScriptOptions, windowSize } from "./shell-script.ts";

const START_MS = 10_000;
const FOLDER = "netlab-shell-";
const SECOND_LOOKS_MS = [50, 200, 800];
const MAX_REPORT_BYTES = 16 * 1024;
const NUL = Buffer.from("\0");
const SIGNAL_NAMES = { interrupt: "SIGINT", quit: "SIGQUIT", terminate: "SIGTERM" } as const;

interface ShellOptions {
  kind: ShellKind;
  directory: string;
  env: NodeJS.ProcessEnv;
  /** Is waited for before more is read, and so a command that writes faster has to wait. */
  onOutput: (channel: "stdout" | "stderr", data: Buffer) => Promise<void>;
}

interface CommandEnd {
  code: number;
  /** Where the shell is. */
  directory: string;
  /** The shell has ended with it: `exit`, `exec`, or something killed it. */
  ended: boolean;
}

interface Command {
  token: string;
  hasStarted: boolean;
  hasNoMoreInput: boolean;
  wasInterrupted: boolean;
  /** What to signal once it has started: earlier it would meet the shell and be lost. */
  due: NodeJS.Signals[];
  stdin: Socket;
  finish: (end: CommandEnd) => void;
  fail: (error: unknown) => void;
}

/**
 * Ends what servers that were killed have left behind: their sessions' processes and folders. A server that lives reads
 * the FIFO of reports, so a folder whose FIFO can be opened for writing is in use; one that is new may not have got so far.
 */
export function removeLeftovers(parent = tmpdir(), olderThanMs = 2 * START_MS): number {
  let count = 0;
  for (const name of readdirSync(parent)) {
    if (!name.startsWith(FOLDER)) continue;
    const folder = join(parent, name);
    try {
      const { uid, mtimeMs } = lstatSync(folder);
      if (uid !== process.getuid?.() || Date.now() - mtimeMs < olderThanMs) continue;
      closeSync(openSync(join(folder, "report"), constants.O_WRONLY | constants.O_NONBLOCK));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENXIO") continue; // it has gone, or is none of ours
      killSession(folder);
      rmSync(folder, { recursive: true, force: true });
      count++;
    }
  }
  return count;
}

export class Shell implements AsyncDisposable {
  readonly #folder: string;
  readonly #script: ScriptOptions;
  readonly #child: ChildProcess;
  readonly #outputs: readonly Output[];
  readonly #reports: Connection;
  /** Ours until the shell has its own: a pipe without any writer has ended. */
  readonly #writers: readonly number[];
  readonly #exited: Promise<number>;
  #command: Command | undefined;
  #directory: string;
  /** To be told to the shell before the next command. */
  #windowSize = "";
  #disposal: Promise<void> | undefined;

  /** Throws `Failure` where it does not start. */
  static async start(options: ShellOptions): Promise<Shell> {
    const folder = mkdtempSync(join(tmpdir(), FOLDER));
    const paths = ["stdout", "stderr", "stdin", "report"].map((name) => join(folder, name));
    try {
      await makeFifos(...paths);
    } catch (error) {
      rmSync(folder, { recursive: true });
      throw error;
    }
    const shell = new Shell(options, folder);
    const late = setTimeout(() => shell.#fail(new Failure("the shell does not answer")), START_MS);
    try {
      if ((await shell.run(":")).ended) throw new Failure("the shell ended at once");
      for (const name of ["stdout", "stderr"]) unlinkSync(join(folder, name));
      return shell;
    } catch (error) {
      await shell[Symbol.asyncDispose]();
      throw error;
    } finally {
      clearTimeout(late);
      for (const writer of shell.#writers) closeSync(writer);
    }
  }

  private constructor({ kind, directory, env, onOutput }: ShellOptions, folder: string) {
    this.#folder = folder;
    this.#directory = directory;
    this.#script = { isBash: kind.isBash, stdin: join(folder, "stdin"), report: join(folder, "report") };
    this.#reports = new Connection(openForReading(this.#script.report));
    const [out, err] = [openBothEnds(join(folder, "stdout")), openBothEnds(join(folder, "stderr"))];
    this.#child = spawn(kind.path, kind.isBash ? ["--norc", "--noediting", "-i", "-s"] : ["-s"], {
      cwd: directory,
      env: { ...env, [SESSION_VARIABLE]: folder },
      stdio: ["pipe", out.writer, kind.isBash ? "ignore" : err.writer],
      detached: true, // a session and a process group of its own
    });
    this.#child.stdin?.on("error", () => {}); // it has ended, which is seen below
    this.#exited = once(this.#child, "exit").then(([code, signal]: (number | NodeJS.Signals | null)[]) =>
      typeof code === "number" ? code : 128 + system.signals[signal as NodeJS.Signals],
    );
    this.#child.stdin?.write(preparation(this.#script, join(folder, "stderr")));
    this.#outputs = [
      new Output(out.reader, (data) => onOutput("stdout", data)),
      new Output(err.reader, (data) => onOutput("stderr", data)),
    ];
    void this.#exited.then(
      (code) => this.#finish({ code, ended: true }),
      (error) => this.#fail(new Failure("cannot start the shell", { cause: error })),
    );
    this.#writers = [out.writer, err.writer];
    this.#readReports().catch((error) => this.#fail(error));
  }

  get #hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null || this.#child.pid === undefined;
  }

  /** Runs a command to its end; all that it wrote has then been passed on. One at a time. Throws `Failure`. */
  async run(text: string): Promise<CommandEnd> {
    if (text.includes("\0")) throw new Failure("a command with a NUL came: no shell can read that");
    if (this.#command !== undefined) throw new Failure("a command came while another one was running");
    const token = randomBytes(8).toString("hex");
    const stdin = openForWriting(this.#script.stdin);
    stdin.on("error", () => {}); // nobody reads any more
    return await new Promise((finish, fail) => {
      this.#command = {
        ...{ token, stdin, finish, fail, due: [] },
        ...{ hasStarted: false, hasNoMoreInput: false, wasInterrupted: false },
      };
      this.#child.stdin?.write(this.#windowSize + commandLines(this.#script, token, text));
      this.#windowSize = "";
      if (this.#hasEnded) void this.#exited.then((code) => this.#finish({ code, ended: true }), fail);
    });
  }

  /** Input for the running command; settles when the system has taken it, or nobody will. */
  async write(data: Buffer): Promise<void> {
    const stdin = this.#command?.stdin;
    if (stdin === undefined || stdin.destroyed) return;
    await new Promise<void>((resolve) => stdin.write(data, () => resolve()));
  }

  /** The running command's input ends here, once it has begun. */
  end(): void {
    const command = this.#command;
    if (command?.hasStarted) command.stdin.end();
    else if (command !== undefined) command.hasNoMoreInput = true;
  }

  get directory(): string {
    return this.#directory;
  }

  signal(signal: keyof typeof SIGNALS): void {
    const command = this.#command;
    if (command === undefined) return;
    if (command.hasStarted) this.#signal(command, SIGNAL_NAMES[signal]);
    else command.due.push(SIGNAL_NAMES[signal]);
  }

  /** For COLUMNS and LINES of the commands to come; the running one gets SIGWINCH. */
  resize(columns: number, rows: number): void {
    this.#windowSize = windowSize(columns, rows);
    if (this.#command !== undefined) signalGroup(this.#child.pid ?? 0, "SIGWINCH");
  }

  /** Ends everything that runs in it. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#disposal ??= this.#dispose();
    return this.#disposal;
  }

  async #dispose(): Promise<void> {
    this.#reports.destroy();
    for (const output of this.#outputs) output.close();
    if (this.#child.pid !== undefined) await endSession(this.#child.pid, this.#folder);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** A background process may still have the FIFO of a command open: it must not get the input of the next. */
  async #closeStdin(stdin: Socket): Promise<void> {
    if (!stdin.closed) await once(stdin.destroy(), "close");
    const path = this.#script.stdin;
    try {
      closeSync(openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)); // fails where nobody reads
    } catch {
      return;
    }
    unlinkSync(path);
    await makeFifos(path);
  }

  #signal(command: Command, signal: NodeJS.Signals): void {
    signalGroup(this.#child.pid ?? 0, signal);
    if (signal !== "SIGINT") return;
    for (const delayMs of SECOND_LOOKS_MS) setTimeout(() => this.#signalLate(command), delayMs);
    if (command.wasInterrupted) return;
    command.wasInterrupted = true;
    this.#child.stdin?.write(reportAgain(this.#script, command.token));
  }

  /** What SIGINT ends and is still there was being started by the shell when it came, and has missed it. */
  #signalLate(command: Command): void {
    if (command !== this.#command) return;
    for (const pid of interruptibleChildren(this.#child.pid ?? 0)) signalProcess(pid, "SIGINT");
  }

  async #readReports(): Promise<void> {
    while (true) {
      const bytes = await this.#reports.readUntil(NUL, MAX_REPORT_BYTES, "a report of the shell");
      const [, token, state, directory] =
        /^(\w+) (started|\d+) (.*)\n\0$/s.exec(bytes?.toString() ?? "") ?? [];
      const command = this.#command;
      if (command === undefined || token !== command.token) continue;
      if (state !== "started") {
        this.#directory = directory ?? "";
        this.#finish({ code: Number(state) & 0xff, ended: false });
        continue;
      }
      command.hasStarted = true;
      if (command.hasNoMoreInput) command.stdin.end();
      for (const signal of command.due.splice(0)) this.#signal(command, signal);
    }
  }

  #finish(end: Omit<CommandEnd, "directory">): void {
    const command = this.#command;
    if (command === undefined) return;
    this.#command = undefined;
    this.#tidyUp(command).then(
      () => command.finish({ ...end, directory: this.#directory }),
      (error) => command.fail(error),
    );
  }

  async #tidyUp({ stdin }: Command): Promise<void> {
    for (const output of this.#outputs) await output.flushed();
    await this.#closeStdin(stdin);
  }

  #fail(error: unknown): void {
    this.#command?.fail(error);
    this.#command = undefined;
  }
}
