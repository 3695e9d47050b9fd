import { strict as assert } from "node:assert";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { GRACE_MS } from "./tcp.ts";
import { type Result, run, start, within } from "./testing.ts";

const root = join(import.meta.dirname, "..");
const folder = mkdtempSync(join(tmpdir(), "netlab-program-"));
after(() => rmSync(folder, { recursive: true }));

const inFolder = (name: string, content: string) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};
const library = (module: string) => JSON.stringify(join(import.meta.dirname, module));

/** What a program does that does what `--do` says; without it, it prints its settings as JSON. */
inFolder(
  "spec.mts",
  `import { flag, integer, many, optional, setting, text } from ${library("config.ts")};
import { Failure, UsageError } from ${library("errors.ts")};
import { listenAt, type ProgramSpec } from ${library("program.ts")};
import { serve } from ${library("tcp.ts")};

const BIG = "0123456789abcdef".repeat(512 * 1024);
export const spec: ProgramSpec<any> = {
  summary: "A scratch program.",
  example: "--data hello",
  section: "scratch",
  settings: {
    ...listenAt(10900),
    do: optional(text, "what to do"),
    data: optional(text, "a text"),
    n: setting(integer(-10, 10), "a number", 1, { alias: ["numero", "id_n"] }),
    tag: many(text, "a list"),
    dryRun: flag("only say it"),
    config: setting(text, "configuration file", ""),
    file: optional(text, "a file", { positional: true }),
    count: setting(integer(0), "how many", 3, { positional: true }),
  },
  async run(settings, { signal, log, debug, ready }) {
    debug("debugging");
    const alive = settings.do?.includes("stop") ? setInterval(() => {}, 1000) : undefined;
    const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    switch (settings.do) {
      case undefined:
        return console.log(JSON.stringify(settings));
      case "serve": {
        const server = await serve({ ...settings, signal, log }, async (connection) => {
          while ((await connection.readLine(100)) !== undefined);
        });
        ready(server.url);
        return server.closed;
      }
      case "ignore":
        signal.addEventListener("abort", () => log("told to stop"));
        ready("nothing://here");
        return new Promise(() => setInterval(() => {}, 1000));
      case "fail after stop":
        ready("nothing://here");
        await aborted;
        clearInterval(alive);
        throw new Failure("cut short");
      case "bug after stop":
        ready("nothing://here");
        await aborted;
        return void (undefined as any).x;
      case "fail":
        throw new Failure("cannot do it", { cause: new Failure("it is too hard") });
      case "fail in a way of its own":
        throw Object.assign(new Failure("cannot find it"), { exitCode: 8 });
      case "usage":
        throw new UsageError("the data and the number do not go together");
      case "bug":
        return void (undefined as any).x;
      case "bug later":
        setTimeout(() => (undefined as any).x, 1);
        return aborted;
      case "leave things open":
        setInterval(() => {}, 1000);
        return;
      case "print":
        return void process.stdout.write(BIG);
      case "complain":
        return void process.stderr.write(BIG);
      case "print for ever":
        while (!signal.aborted) {
          if (!process.stdout.write("line\\n".repeat(1000))) await new Promise((resolve) => process.stdout.once("drain", resolve));
        }
        return;
      case "complain for ever":
        while (!signal.aborted) {
          log("line");
          await new Promise((resolve) => setImmediate(resolve));
        }
        return;
    }
  },
};
`,
);
const SCRATCH = relative(
  root,
  inFolder(
    "scratch.mts",
    `import { program } from ${library("program.ts")};
import { spec } from "./spec.mts";
await program(spec);
`,
  ),
);
/** The same with one command line after the other, in one process: starting one takes far longer than reading a line. */
const BATCH = relative(
  root,
  inFolder(
    "batch.mts",
    `import { program } from ${library("program.ts")};
import { spec } from "./spec.mts";

const commandLines: string[][] = JSON.parse(process.argv[2] ?? "");
const results: object[] = [];
const print = process.stdout.write.bind(process.stdout);
process.setMaxListeners(0);
process.stdout.setMaxListeners(0);
process.stderr.setMaxListeners(0);
for (const args of commandLines) {
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    process[name].write = ((chunk: string, done?: () => void) => {
      said[name] += chunk;
      done?.();
      return true;
    }) as typeof process.stdout.write;
  }
  process.exitCode = undefined;
  process.exit = ((code = process.exitCode ?? 0) => void results.push({ ...said, code })) as typeof process.exit;
  process.argv = [process.argv[0]!, process.argv[1]!, ...args];
  await program(spec);
}
process.exitCode = 0;
print(JSON.stringify(results));
process.removeAllListeners("SIGINT").removeAllListeners("SIGTERM");
`,
  ),
);
const BIG_BYTES = 16 * 512 * 1024;

const DEFAULTS = {
  host: "127.0.0.1",
  port: 10900,
  n: 1,
  tag: [],
  dryRun: false,
  config: "",
  count: 3,
  verbose: false,
};
const ENGLISH = { LC_ALL: "C" };
const scratch = (...args: string[]): Promise<Result> => run(SCRATCH, args, { env: ENGLISH });

/** What each of these command lines gives. */
async function batch(commandLines: readonly (readonly string[])[]): Promise<Omit<Result, "bytes">[]> {
  const { stdout, stderr } = await run(BATCH, [JSON.stringify(commandLines)], { env: ENGLISH });
  assert.equal(stderr, "");
  const results = JSON.parse(stdout) as Result[];
  assert.equal(results.length, commandLines.length);
  return results;
}

const configPath = inFolder(
  "good.ini",
  "; for the scratch program\n\n[Scratch]\nPort = 5 ; free\nhost = ::1\nid_n = 7\ndry-run = yes\ntag[] = a\ntag[] = b\ncount = 4\n",
);

const GOOD: readonly (readonly [args: readonly string[], settings: object])[] = [
  [[], {}],
  [["--data", ""], { data: "" }],
  [["--data="], { data: "" }],
  [["--data=-x"], { data: "-x" }],
  [["--data=--verbose"], { data: "--verbose" }],
  [["--data", "a b\nc ñ \u{1f600}"], { data: "a b\nc ñ \u{1f600}" }],
  [["--data", "1e3", "--host", "007"], { data: "1e3", host: "007" }],
  [["--data", "true"], { data: "true" }],
  [["--data", "0x10"], { data: "0x10" }],
  [["--data=a=b"], { data: "a=b" }],
  [["--n", "-5"], { n: -5 }],
  [["--n=-5"], { n: -5 }],
  [["--numero", "4"], { n: 4 }],
  [["--id_n=4"], { n: 4 }],
  [["--n", "1", "--n", "2"], { n: 2 }],
  [["--n", "1", "--numero", "2"], { n: 2 }],
  [["--port", "0", "--host", "[::1]"], { port: 0, host: "::1" }],
  [["--tag", "a", "--tag=b", "--tag", "-1"], { tag: ["a", "b", "-1"] }],
  [["--tag", "a", "file.txt"], { tag: ["a"], file: "file.txt" }],
  [["--dry-run"], { dryRun: true }],
  [["--no-dry-run"], { dryRun: false }],
  [["--dry-run=false"], { dryRun: false }],
  [["--dry-run=yes"], { dryRun: true }],
  [["--dry-run=0", "x"], { dryRun: false, file: "x" }],
  [["--", "--dry-run=perhaps"], { file: "--dry-run=perhaps" }],
  [["--dry-run", "--no-dry-run"], { dryRun: false }],
  [["--dry-run", "file.txt", "5"], { dryRun: true, file: "file.txt", count: 5 }],
  [["007", "08"], { file: "007", count: 8 }],
  [["1e3"], { file: "1e3" }],
  [["--", "--data", "5"], { file: "--data", count: 5 }],
  [["", "5"], { file: "", count: 5 }],
  [
    ["--config", configPath],
    { config: configPath, host: "::1", port: 5, n: 7, dryRun: true, tag: ["a", "b"], count: 4 },
  ],
  [
    ["--config", configPath, "--port", "6", "--n", "1", "--no-dry-run", "--tag", "c", "f", "9"],
    { config: configPath, host: "::1", port: 6, n: 1, dryRun: false, tag: ["c"], file: "f", count: 9 },
  ],
];

test("the command line goes before the file, and the file before the defaults", async () => {
  const results = await batch(GOOD.map(([args]) => args));
  for (const [i, { code, stdout, stderr }] of results.entries()) {
    const [args = [], settings] = GOOD[i] ?? [];
    assert.deepEqual({ stderr, code }, { stderr: "", code: 0 }, args.join(" "));
    assert.deepEqual(JSON.parse(stdout), { ...DEFAULTS, ...settings }, args.join(" "));
  }
});

test("a process of its own, as a user starts it", async () => {
  const { code, stdout, stderr } = await scratch(
    "--data",
    "",
    "--n",
    "-5",
    "--config",
    configPath,
    "--tag=-x",
    "f",
  );
  assert.deepEqual({ stderr, code }, { stderr: "", code: 0 });
  assert.deepEqual(JSON.parse(stdout), {
    ...DEFAULTS,
    ...{
      config: configPath,
      host: "::1",
      port: 5,
      n: -5,
      dryRun: true,
      tag: ["-x"],
      count: 4,
      data: "",
      file: "f",
    },
  });
  const wrong = await scratch("--port", "abc");
  assert.deepEqual(
    { ...wrong, bytes: wrong.bytes.length },
    {
      code: 2,
      stdout: "",
      stderr: 'error: --port "abc" is not a port (0 to 65535)\n',
      bytes: 0,
    },
  );
});

const broken = (name: string, content: string) => relative(process.cwd(), inFolder(name, content));
const BAD: readonly (readonly [args: readonly string[], complaint: string | RegExp])[] = [
  [["--nonsense"], "Unknown argument: nonsense; see --help"],
  [["--dryRun"], "Unknown argument: dryRun; see --help"],
  [["-x"], "Unknown argument: x; see --help"],
  [["--port"], "Not enough arguments following: port; see --help"],
  [["--data", "-x"], /^Not enough arguments following: data; see --help$/],
  [["--port", "abc"], '--port "abc" is not a port (0 to 65535)'],
  [["--port", "-1"], '--port "-1" is not a port (0 to 65535)'],
  [["--port="], '--port "" is not a port (0 to 65535)'],
  [["--port", "1", "--port", "70000"], '--port "70000" is not a port (0 to 65535)'],
  [["--host", "a b"], '--host "a b" is not a host name or address'],
  [["--host", "localhost:80"], '--host "localhost:80" is not a host name or address'],
  [["--numero", "11"], '--n "11" is not a whole number from -10 to 10'],
  [["--dry-run=perhaps"], '--dry-run "perhaps" is neither true nor false'],
  [["--dry-run="], '--dry-run "" is neither true nor false'],
  [["a", "b"], 'COUNT "b" is not a whole number from 0 up'],
  [["a", "1", "c"], 'unexpected argument "c"; see --help'],
  [
    ["--config", "nowhere.ini"],
    "cannot read the configuration nowhere.ini: no such file or directory (ENOENT)",
  ],
  [["--config", "shared"], "cannot read the configuration shared: it is a directory (EISDIR)"],
  [
    ["--config", broken("port.ini", "; first\n\n\n[scratch]\nport = 70000\n")],
    /^\S*port\.ini:5: \[scratch\] port "70000" is not a port \(0 to 65535\)$/,
  ],
  [
    ["--config", broken("alias.ini", "[scratch]\nnumero = 11\n")],
    /^\S*alias\.ini:2: \[scratch\] numero "11" is not a whole number from -10 to 10$/,
  ],
  [
    ["--config", broken("unknown.ini", "[scratch]\n\nprot = 1\n")],
    /^\S*unknown\.ini:3: \[scratch\] prot is unknown; known are host, port, do, data, n, tag, dry-run, file, count$/,
  ],
  [
    ["--config", broken("stray.ini", "[scratch]\n[sratch]\nport = 1\n")],
    /^\S*stray\.ini:2: \[sratch\] is unknown; known is \[scratch\]$/,
  ],
  [
    ["--config", broken("outside.ini", "port = 1\n")],
    /^\S*outside\.ini:1: port: stands outside of any \[section\]$/,
  ],
  [["--do", "usage"], "the data and the number do not go together"],
];

test("bad usage and bad configuration: one line on stderr, exit code 2, nothing on stdout", async () => {
  const results = await batch(BAD.map(([args]) => args));
  for (const [i, { code, stdout, stderr }] of results.entries()) {
    const [args = [], complaint = ""] = BAD[i] ?? [];
    const [line = "", ...rest] = stderr.split("\n");
    assert.deepEqual(
      { stdout, code, rest },
      { stdout: "", code: 2, rest: [""] },
      `${args.join(" ")}: ${stderr}`,
    );
    const said = line.replace(/^error: /, "");
    assert.notEqual(said, line);
    if (typeof complaint === "string") assert.equal(said, complaint);
    else assert.match(said, complaint);
  }
});

test("--help: what it is, how it is called, every option, an example; in English wherever it runs", async () => {
  for (const env of [ENGLISH, { LC_ALL: "es_AR.UTF-8", LANG: "es_AR.UTF-8" }]) {
    const { code, stdout, stderr } = await run(SCRATCH, ["--help"], { env });
    assert.deepEqual({ stderr, code }, { stderr: "", code: 0 });
    assert.match(stdout, /^A scratch program\.\n\nUsage: npx tsx \S*scratch\.mts FILE COUNT \[options\]\n/);
    for (const name of [
      "help",
      "host",
      "port",
      "data",
      "n",
      "numero",
      "tag",
      "dry-run",
      "config",
      "verbose",
    ]) {
      assert.match(stdout, new RegExp(`-${name}\\b`));
    }
    assert.match(stdout, /--port +port to listen on .*\[default: 10900\]/);
    assert.match(stdout, /Examples:\n +npx tsx \S*scratch\.mts --data hello\n/);
    for (const line of stdout.split("\n")) assert.ok(line.length <= 100, line);
  }
});

test("a failure: one line and exit code 1; with --verbose the stack as well", async () => {
  const short = await scratch("--do", "fail");
  assert.deepEqual(
    { ...short, bytes: undefined },
    {
      code: 1,
      stdout: "",
      stderr: "error: cannot do it: it is too hard\n",
      bytes: undefined,
    },
  );
  const long = await scratch("--do", "fail", "--verbose");
  assert.equal(long.code, 1);
  assert.match(
    long.stderr,
    /^debugging\nerror: cannot do it: it is too hard\nFailure: cannot do it\n +at .*spec\.mts/,
  );
  const own = await scratch("--do", "fail in a way of its own");
  assert.deepEqual([own.code, own.stderr], [8, "error: cannot find it\n"]);
  const usage = await scratch("--verbose", "--port", "x");
  assert.match(usage.stderr, /^error: --port "x" is not a port.*\nUsageError: .*\n +at /);
  assert.equal(usage.code, 2);
});

test("a bug: loud, with its stack, and no exit code 0", async () => {
  for (const what of ["bug", "bug later"]) {
    const { code, stderr } = await scratch("--do", what);
    assert.equal(code, 1);
    assert.match(stderr, /TypeError: Cannot read properties of undefined \(reading 'x'\)\n +at .*spec\.mts/);
  }
  await using running = await start(SCRATCH, ["--do", "bug after stop"]);
  running.kill("SIGTERM");
  assert.equal((await within(running.exited, "its end")).code, 1, "not even when it was told to stop");
});

test("what is left open does not keep a program that is done", async () => {
  const { code, stderr } = await within(scratch("--do", "leave things open"), "its end");
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
});

test("a server: one ready line, and both signals end it with 0", async () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    await using running = await start(SCRATCH, ["--do", "serve", "--port", "0"]);
    assert.match(running.stdout, /^listening on tcp:\/\/127\.0\.0\.1:\d+\n$/);
    running.kill(signal);
    const { code } = await within(running.exited, "its end", GRACE_MS);
    assert.deepEqual({ code, stderr: running.stderr }, { code: 0, stderr: "" });
  }
  await using taken = await start(SCRATCH, ["--do", "serve", "--port", "0"]);
  const { code, stderr } = await scratch("--do", "serve", "--port", `${taken.port}`);
  assert.deepEqual(
    { code, stderr },
    {
      code: 1,
      stderr: `error: cannot listen on 127.0.0.1:${taken.port}: address already in use (EADDRINUSE); choose another with --port\n`,
    },
  );
});

test("once told to stop, being cut short is no failure", async () => {
  await using running = await start(SCRATCH, ["--do", "fail after stop"]);
  assert.equal(await running.stop(), 0);
  assert.equal(running.stderr, "");
});

test("a program that ignores the signal is ended when its time is over, with 0", async () => {
  await using running = await start(SCRATCH, ["--do", "ignore"]);
  const before = performance.now();
  running.kill("SIGTERM");
  running.kill("SIGTERM");
  const { code } = await within(running.exited, "its end", GRACE_MS + 2000);
  assert.equal(code, 0);
  assert.ok(performance.now() - before > GRACE_MS, "not before its time is over");
});

test("a second SIGINT ends it at once, with 130", async () => {
  for (const first of ["SIGINT", "SIGTERM"] as const) {
    await using running = await start(SCRATCH, ["--do", "ignore"]);
    running.kill(first);
    await running.output(/told to stop/, "stderr");
    running.kill("SIGINT");
    const { code } = await within(running.exited, "its end");
    assert.equal(code, 130);
  }
});

test("an error line repeats neither a URL's password nor what a terminal would obey", async () => {
  const { code, stderr } = await scratch("--port", "http://user:secret@ho\u001b[2J\u009b st/");
  assert.equal(code, 2);
  assert.match(stderr, /^error: --port "http:\/\/…@ho\\u001b\[2J\? st\/" is not a port.*\n$/);
});

test("with ownInterrupt SIGINT is the program's own affair, SIGTERM is not", async () => {
  const script = inFolder(
    "own-interrupt.mts",
    `import { program } from ${library("program.ts")};
import { spec } from "./spec.mts";
process.on("SIGINT", () => console.error("passed on"));
await program({ ...spec, ownInterrupt: true });
`,
  );
  await using running = await start(relative(root, script), ["--do", "ignore"]);
  for (const count of [1, 2]) {
    running.kill("SIGINT");
    await running.output(new RegExp(`^(passed on\\n){${count}}$`), "stderr");
  }
  running.kill("SIGTERM");
  await running.output(/told to stop/, "stderr");
  assert.equal((await within(running.exited, "its end", GRACE_MS + 2000)).code, 0);
});

const command = (...args: string[]) => [
  process.execPath,
  "--import",
  import.meta.resolve("tsx"),
  join(root, SCRATCH),
  ...args,
];
function spawned(...args: string[]): ChildProcess {
  const [node = "", ...rest] = command(...args);
  return spawn(node, rest);
}

test("what it has said is never cut off, however slow the reader", async () => {
  for (const [what, name] of [
    ["print", "stdout"],
    ["complain", "stderr"],
  ] as const) {
    const child = spawned("--do", what);
    const exited = once(child, "exit");
    await once(child[name] ?? assert.fail(), "readable"); // it has begun, and nobody reads on
    await sleep(300);
    const hash = [];
    for await (const chunk of child[name] ?? []) hash.push(chunk as Buffer);
    const said = Buffer.concat(hash);
    assert.equal(said.length, BIG_BYTES, what);
    assert.equal(said.toString("latin1"), "0123456789abcdef".repeat(BIG_BYTES / 16));
    assert.deepEqual(await exited, [0, null]);
  }
});

test("a reader that has seen enough (`| head -1`) ends it quietly", async () => {
  const child = spawned("--do", "print for ever");
  const exited = once(child, "exit");
  const complaints: Buffer[] = [];
  child.stderr?.on("data", (chunk: Buffer) => complaints.push(chunk));
  await once(child.stdout ?? assert.fail(), "data");
  child.stdout?.destroy();
  assert.deepEqual(await within(exited, "its end"), [0, null]);
  assert.equal(Buffer.concat(complaints).toString(), "");
});

test("nobody reading the commentary does not end it", async () => {
  const child = spawned("--do", "complain for ever");
  const exited = once(child, "exit");
  await once(child.stderr ?? assert.fail(), "data");
  child.stderr?.destroy();
  const outlived = Promise.race([exited, sleep(300, "alive")]);
  assert.equal(await outlived, "alive");
  child.kill("SIGTERM");
  assert.deepEqual(await within(exited, "its end"), [0, null]);
});

test("a disk that is full is a failure, in one line", { skip: !existsSync("/dev/full") }, async () => {
  const child = spawn("sh", ["-c", 'exec "$@" > /dev/full', "sh", ...command("--data", "x")]);
  const said: Buffer[] = [];
  child.stderr.on("data", (chunk: Buffer) => said.push(chunk));
  const [code] = await within(once(child, "close"), "its end");
  assert.deepEqual(
    { code, stderr: Buffer.concat(said).toString() },
    { code: 1, stderr: "error: cannot write to stdout: the disk is full (ENOSPC)\n" },
  );
});
