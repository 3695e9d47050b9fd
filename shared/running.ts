/** A program as a child process, started as a user would: for tests, demos and benches. */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";

/** Where a program is, if it is installed. */
export function pathOf(tool: string): string | undefined {
  const folders = (process.env["PATH"] ?? "").split(delimiter).concat("/usr/sbin", "/sbin");
  return folders.map((folder) => join(folder, tool)).find(isExecutable);
}

export const isInstalled = (tool: string) => pathOf(tool) !== undefined;

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** What to put in front of a command so that it has a core for itself, where that can be had. */
export const pinned = (core: number): string[] =>
  isInstalled("taskset") ? ["taskset", "-c", String(core)] : [];

/** CPU time that a process and its children have taken, in milliseconds; not a number where Linux's /proc is missing. */
export function cpuTimeMs(pid: number | undefined): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
      .replace(/^.*\) /s, "")
      .split(" ");
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").match(/\d+/g) ?? [];
    const ownMs = (Number(stat[11]) + Number(stat[12])) * 10; // ticks of 1/100 s
    return children.reduce((sum, child) => sum + cpuTimeMs(Number(child)), ownMs);
  } catch {
    return Number.NaN;
  }
}

/** How long anything that a test waits for may take before it has failed. */
export const PATIENCE_MS = 30_000;

/** The promise's value, or an error that says what was waited for. */
export async function within<T>(promise: Promise<T>, what: string, limitMs = PATIENCE_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${limitMs} ms in vain for ${what}`)), limitMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export interface StartOptions {
  /** Ready lines to wait for; 0 for a client. */
  servers?: number;
  env?: Record<string, string>;
  cwd?: string;
  /** Put in front of `node`; must become it (exec), or it would be ended in its place: `["taskset", "-c", "1"]`. */
  wrapper?: readonly string[];
}

/** Programs that still run: none outlives this process. */
const children = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

/** A running program. Disposing of it ends it. */
export class Running implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  #output = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  #onOutput = new Set<() => void>();

  constructor(command: string, args: readonly string[], { env, cwd }: StartOptions) {
    this.child = spawn(command, args, { env: { ...process.env, ...env }, cwd });
    children.add(this.child);
    for (const name of ["stdout", "stderr"] as const) {
      this.child[name]?.on("data", (chunk: Buffer) => {
        this.#output[name].push(chunk);
        for (const look of this.#onOutput) look();
      });
    }
    this.child.stdin?.on("error", () => {}); // it may end before it has read everything
    this.exited = new Promise((resolve, reject) => {
      this.child.once("error", reject);
      this.child.once("close", (code, signal) => {
        children.delete(this.child);
        resolve({ code, signal });
        for (const look of this.#onOutput) look();
      });
    });
    this.exited.catch(() => {});
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#output.stdout);
  }
  get stdout(): string {
    return this.bytes.toString();
  }
  get stderr(): string {
    return Buffer.concat(this.#output.stderr).toString();
  }
  /** Where it listens, by its ready lines: `tcp://127.0.0.1:40312`. */
  get urls(): string[] {
    return [...this.stdout.matchAll(/^listening on (\S+)$/gm)].map((match) => match[1] ?? "");
  }
  get port(): number {
    return Number(/:(\d+)$/.exec(this.urls[0] ?? "")?.[1]);
  }

  /** Waits until its output holds the pattern. */
  async output(
    pattern: RegExp,
    stream: "stdout" | "stderr" = "stdout",
    limitMs?: number,
  ): Promise<RegExpMatchArray> {
    let look: () => void = () => {};
    const found = new Promise<RegExpMatchArray>((resolve, reject) => {
      look = () => {
        const match = this[stream].match(pattern);
        if (match) resolve(match);
        else if (this.child.exitCode !== null || this.child.signalCode !== null) {
          reject(
            new Error(
              `it ended (${this.child.exitCode}) without ${pattern} on ${stream}: ${this.stdout}${this.stderr}`,
            ),
          );
        }
      };
      this.exited.then(look, reject);
      this.#onOutput.add(look);
      look();
    });
    return within(found, `${pattern} on ${stream}; there is: ${this[stream].slice(-2000)}`, limitMs).finally(
      () => this.#onOutput.delete(look),
    );
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  /** SIGTERM, and its exit code. */
  async stop(): Promise<number | null> {
    this.kill("SIGTERM");
    return (await within(this.exited, "an end after SIGTERM")).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill("SIGKILL");
    await this.exited.catch(() => {});
  }
}

const ROOT = join(import.meta.dirname, "..");
/** Where Node runs TypeScript by itself (24 and newer), a program starts in less than half the time that tsx takes. */
const RUNS_TYPESCRIPT = Number.parseInt(process.versions.node, 10) >= 24;
const NODE = RUNS_TYPESCRIPT
  ? [process.execPath, "--disable-warning=ExperimentalWarning"]
  : [process.execPath, "--import", import.meta.resolve("tsx")];
/** What was compiled once is not compiled again; older versions pass it over. */
const COMPILED = { NODE_COMPILE_CACHE: join(ROOT, "node_modules/.cache/compiled") };

/** Starts a program of the project (`exercises/01-echo/tcp-server.ts`) and waits for its ready lines. */
export async function start(
  script: string,
  args: readonly (string | number)[] = [],
  options: StartOptions = {},
): Promise<Running> {
  const [command = "", ...rest] = [
    ...(options.wrapper ?? []),
    ...NODE,
    join(ROOT, script),
    ...args.map(String),
  ];
  const running = new Running(command, rest, { ...options, env: { ...COMPILED, ...options.env } });
  const { servers = 1 } = options;
  try {
    if (servers > 0) await running.output(new RegExp(`(?:^listening on .*\\n(?:.*\\n)*?){${servers}}`, "m"));
  } catch (error) {
    await running[Symbol.asyncDispose](); // nobody else could end it
    throw error;
  }
  return running;
}

export interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
  /** What stdout carried, byte by byte. */
  bytes: Buffer;
}

/** Runs a program of the project to its end. */
export async function run(
  script: string,
  args: readonly (string | number)[] = [],
  { stdin = "", ...options }: StartOptions & { stdin?: string | Buffer } = {},
): Promise<Result> {
  await using running = await start(script, args, { ...options, servers: 0 });
  return await finish(running, stdin);
}

/** Runs any other program (`curl`, `nc`) to its end. */
export async function runTool(
  tool: string,
  args: readonly string[],
  stdin: string | Buffer = "",
): Promise<Result> {
  await using running = new Running(tool, args, {});
  return await finish(running, stdin);
}

async function finish(running: Running, stdin: string | Buffer): Promise<Result> {
  running.child.stdin?.end(stdin);
  const { code } = await within(running.exited, "the end of the program", 4 * PATIENCE_MS);
  return { code, stdout: running.stdout, stderr: running.stderr, bytes: running.bytes };
}
