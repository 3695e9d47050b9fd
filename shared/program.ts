/**
 * A command-line program's life: options, ready line, signals, exit codes, the error line. Every program of
 * the lab is one call of `program()`.
 *
 * stdout carries the ready line of a server and the answer of a client, stderr everything else. Exit codes:
 * 0 done, 1 the work failed (or the failure's own), 2 bad usage or configuration, 130 a second Ctrl-C.
 */
import { relative } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import yargs from "yargs";
import {
  flag,
  host,
  Ini,
  kebabCase,
  peerPort,
  port,
  readSetting,
  type Setting,
  type Settings,
  type SettingsValue,
  setting,
  text,
} from "./config.ts";
import { explain, Failure, isFailure, UsageError } from "./errors.ts";
import { GRACE_MS } from "./tcp.ts";

export interface Context {
  /** Aborted by the first SIGINT or SIGTERM. */
  signal: AbortSignal;
  /** Commentary, on stderr. */
  log: (line: string) => void;
  /** The same, with --verbose only. */
  debug: (line: string) => void;
  /** Prints the one line on stdout that says where a server can be reached. */
  ready: (url: string) => void;
}

interface ProgramSpec<S extends Settings> {
  /** What it is, in a sentence. */
  summary: string;
  /** Arguments of a command that works as it stands. */
  example: string;
  settings: S;
  /** The [section] of the file under --config that gives what the command line does not. */
  section?: string;
  /** SIGINT is what `run` makes of it, and does not end the program: for what passes a Ctrl-C on to somebody else. */
  ownInterrupt?: boolean;
  run: (settings: SettingsValue<S>, context: Context) => Promise<void>;
}

/** Where a program listens. */
export const listenAt = (defaultPort: number) => ({
  host: setting(host, "name or address to listen on", "127.0.0.1"),
  port: setting(port, "port to listen on (0 = any free one)", defaultPort),
});

/** Which server a client asks. */
export const serverAt = (defaultPort: number) => ({
  host: setting(host, "name or address of the server", "127.0.0.1"),
  port: setting(peerPort, "port of the server", defaultPort),
});

/** A file of the project, wherever the program was started: `projectFile("config/daytime.ini")`. */
export const projectFile = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url));
/** A setting for the .ini file that a program reads. */
export const configFile = (path: string) =>
  setting(text, "configuration file", relative(process.cwd(), projectFile(path)));

/**
 * At its end Node waits for its compiling threads, and for ever where one of them waits for a garbage collection
 * (nodejs/node#54918; seen in one of 25 ends after much work, Node 26.10). A moment before, it gets that.
 */
const PARTING_MS = 20;

const COMMON = { verbose: flag("say more on stderr, and show stack traces") };

/** Runs the program to its end and exits the process. */
export async function program<S extends Settings>(spec: ProgramSpec<S>): Promise<never> {
  const stop = new AbortController();
  let verbose = process.argv.includes("--verbose"); // until the arguments are understood
  // What a peer or a file said may be in it: nothing of that moves a terminal's cursor.
  const log = (line: string) => void process.stderr.write(`${line.replace(/[^\P{Cc}\t\n]/gu, "?")}\n`);
  process.stderr.on("error", () => {}); // nobody reads the commentary: that must not end a server
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(); // a reader that has seen enough (`| head`) is no failure
    log(`error: cannot write to stdout: ${explain(error)}`);
    process.exit(1);
  });
  try {
    const settings = readArguments(spec, process.argv.slice(2));
    verbose = settings.verbose;
    stopOnSignals(stop, spec.ownInterrupt ? ["SIGTERM"] : ["SIGINT", "SIGTERM"]);
    await spec.run(settings, {
      signal: stop.signal,
      log,
      debug: verbose ? log : () => {},
      ready: (url) => void process.stdout.write(`listening on ${url}\n`),
    });
  } catch (error) {
    if (!isFailure(error)) throw error; // a bug: crash loudly
    // Once the user has asked for an end, being cut short is no failure.
    if (!stop.signal.aborted || error instanceof UsageError) {
      log(`error: ${explain(error)}`);
      process.exitCode = error instanceof Failure ? error.exitCode : 1;
    }
    if (verbose && error instanceof Error) log(`${error.stack}`);
  }
  for (const stream of [process.stdout, process.stderr]) {
    await new Promise<void>((resolve) => stream.write("", () => resolve()));
  }
  await delay(PARTING_MS);
  process.exit();
}

function stopOnSignals(stop: AbortController, signals: readonly NodeJS.Signals[]): void {
  const onSignal = (signal: NodeJS.Signals) => {
    if (stop.signal.aborted) {
      if (signal === "SIGINT") process.exit(130);
      return;
    }
    stop.abort();
    setTimeout(() => process.exit(), GRACE_MS + 250).unref();
  };
  for (const signal of signals) process.on(signal, onSignal);
}

/** `--flag=yes` as `--flag=true`: of any other text yargs makes `false`. */
function plainFlags(declared: Settings, argv: readonly string[]): string[] {
  return argv.map((arg, i) => {
    const [, name = "", value = ""] = /^--([^=]+)=(.*)$/s.exec(arg) ?? [];
    const flags = Object.entries(declared).filter(([, { flag }]) => flag);
    const found = flags.find(([key, { alias = [] }]) => [kebabCase(key), ...alias].includes(name))?.[1];
    if (found === undefined || argv.lastIndexOf("--", i) >= 0) return arg;
    return `--${name}=${readSetting(found, [value], () => `--${name}`)}`;
  });
}

/** The settings from the command line, else from the configuration file, else their defaults. */
function readArguments<S extends Settings>(
  spec: ProgramSpec<S>,
  argv: string[],
): SettingsValue<S> & SettingsValue<typeof COMMON> {
  const declared: Settings = { ...spec.settings, ...COMMON };
  const named = Object.entries(declared).filter(([, { positional }]) => !positional);
  const positional = Object.entries(declared).filter(([, setting]) => setting.positional);
  const command = `npx tsx ${relative(process.cwd(), process.argv[1] ?? "")}`;
  const given = yargs(plainFlags(declared, argv))
    .detectLocale(false)
    .usage(
      `${spec.summary}\n\nUsage: ${[command, ...positional.map(([name]) => name.toUpperCase()), "[options]"].join(" ")}`,
    )
    .options(
      Object.fromEntries(
        named.map(([name, { describe, default: fallback, flag, many, alias }]) => [
          kebabCase(name),
          {
            describe,
            type: flag ? ("boolean" as const) : ("string" as const),
            ...(flag ? {} : { requiresArg: true }),
            ...(many ? { array: true, nargs: 1 } : {}),
            ...(alias ? { alias } : {}),
            ...(flag || many || fallback === undefined ? {} : { defaultDescription: String(fallback) }),
          },
        ]),
      ),
    )
    .example(`${command} ${spec.example}`, "")
    .parserConfiguration({
      "camel-case-expansion": false,
      "dot-notation": false,
      "parse-positional-numbers": false,
    })
    .strictOptions()
    .version(false)
    .describe("help", "show this help")
    .wrap(Math.min(process.stdout.columns ?? 100, 100))
    .fail((message, error) => {
      throw new UsageError(`${message ?? error.message}; see --help`);
    })
    .parseSync();
  if (given._.length > positional.length && !positional.at(-1)?.[1].many) {
    throw new UsageError(
      `unexpected argument ${JSON.stringify(String(given._[positional.length]))}; see --help`,
    );
  }
  const texts = (name: string): string[] => {
    const index = positional.findIndex(([other]) => other === name);
    const inOrder = declared[name]?.many ? given._.slice(index) : given._[index];
    const value = index < 0 ? given[kebabCase(name)] : inOrder;
    return value === undefined || Number.isNaN(value) ? [] : [value].flat().map(String);
  };
  const config = declared["config"] as Setting<string> | undefined;
  const configPath = config === undefined ? "" : readSetting(config, texts("config"), () => "--config");
  const ini = spec.section !== undefined && configPath !== "" ? new Ini(configPath) : undefined;
  const { config: _, ...inFiles } = spec.settings;
  ini?.refuseUnknown(spec.section ?? "", inFiles);
  const stray = ini?.sections.find((section) => section !== spec.section);
  if (stray !== undefined)
    throw new UsageError(`${ini?.where(stray)} is unknown; known is [${spec.section}]`);
  const entries = Object.entries(declared).map(([name, setting]) => {
    const onCommandLine = texts(name);
    const inFile =
      onCommandLine.length > 0 ? [] : (ini?.texts(spec.section ?? "", name, setting.alias) ?? []);
    const where = (text?: string) => {
      if (inFile.length > 0) return ini?.where(spec.section ?? "", name, setting.alias, text) ?? "";
      return setting.positional ? name.toUpperCase() : `--${kebabCase(name)}`;
    };
    return [name, readSetting(setting, onCommandLine.concat(inFile), where)];
  });
  return Object.fromEntries(entries) as SettingsValue<S> & SettingsValue<typeof COMMON>;
}
