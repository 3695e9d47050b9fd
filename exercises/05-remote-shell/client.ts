/** The client: a prompt for the remote shell, or one command whose exit code becomes the client's own. */
import { oneOf, optional, setting, text } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { printable } from "../../shared/printable.ts";
import { type Context, program, serverAt } from "../../shared/program.ts";
import { checkHostKey } from "./known-hosts.ts";
import { askPassword, passwordFrom } from "./password.ts";
import { atHome } from "./private-files.ts";
import { MAX_COMMAND_BYTES, PORT } from "./protocol.ts";
import { type OnOutput, RemoteShell } from "./remote.ts";
import { Terminal } from "./terminal.ts";
import { openTranscript, type Transcript } from "./transcript.ts";

const ATTEMPTS = 3;
/** So many Ctrl-C in a row that a command has not heeded end the client. */
const INTERRUPTS_TO_LEAVE = 3;

/** What Ctrl-C does, as the process's signal or as a key: at first it ends the client. */
let onInterrupt: () => void = () => process.exit(130);

/** Passes the signal on to the command, and ends the client when that has no effect. */
function interrupting(remote: RemoteShell, log: (line: string) => void): () => void {
  let count = 0;
  return () => {
    count++;
    if (count === INTERRUPTS_TO_LEAVE) process.exit(130);
    if (count === INTERRUPTS_TO_LEAVE - 1) log("\nthe command has not ended; once more to leave");
    remote.signal("interrupt").catch(() => {}); // where the connection is gone, its reader says so
  };
}

async function login(
  remote: RemoteShell,
  user: string,
  passwordFile: string | undefined,
  { log }: Context,
): Promise<void> {
  if (passwordFile !== undefined) {
    if (await remote.login(user, passwordFrom(passwordFile, log))) return;
    throw new Failure("cannot log in: user or password is wrong");
  }
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    if (await remote.login(user, await askPassword(`password for ${user}: `))) return;
    log("user or password is wrong");
  }
  throw new Failure(`cannot log in: ${ATTEMPTS} attempts failed`);
}

/** Writes, and waits until the reader has taken it: so a reader that stops makes the remote command wait. */
function writing(transcript: Transcript | undefined): OnOutput {
  return (channel, data) => {
    transcript?.output(data);
    return new Promise((resolve) => process[channel].write(data, () => resolve()));
  };
}

/** Stdin becomes the command's, as it comes and no faster than the command takes it. */
async function feed(remote: RemoteShell): Promise<void> {
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) await remote.input(chunk);
  await remote.endInput();
}

async function* linesOf(input: NodeJS.ReadStream): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of input.setEncoding("utf8") as AsyncIterable<string>) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
    // More could not be sent, and to look through it again with each piece would take longer and longer.
    if (rest.length > MAX_COMMAND_BYTES)
      throw new Failure(`a line of stdin is longer than the ${MAX_COMMAND_BYTES} bytes of a command`);
  }
  if (rest !== "") yield rest;
}

class Client {
  readonly #remote: RemoteShell;
  readonly #onOutput: OnOutput;
  readonly #transcript: Transcript | undefined;
  readonly #log: (line: string) => void;
  /** The prompt needs a line of its own: drawing it would wipe out what stands in its line. */
  #isAtLineStart = true;

  constructor(remote: RemoteShell, transcript: Transcript | undefined, log: (line: string) => void) {
    this.#remote = remote;
    const write = writing(transcript);
    this.#onOutput = (channel, data) => {
      this.#isAtLineStart = data.at(-1) === 0x0a;
      return write(channel, data);
    };
    this.#transcript = transcript;
    this.#log = log;
  }

  async run(command: string): Promise<number> {
    this.#transcript?.command(printable(this.#remote.directory), command);
    onInterrupt = interrupting(this.#remote, this.#log);
    const code = await this.#remote.run(command, this.#onOutput);
    this.#transcript?.exit(code);
    return code;
  }

  /** One command with our stdin. */
  async runOne(command: string): Promise<number> {
    const code = this.run(command);
    feed(this.#remote).catch(() => {}); // what goes wrong with the connection, `code` says
    return code;
  }

  /** A command in each line of stdin: a script, or another program. They get no input. */
  async runLines(): Promise<number> {
    let code = 0;
    for await (const line of linesOf(process.stdin)) {
      const running = this.run(line);
      await Promise.all([running, this.#remote.endInput()]);
      code = await running;
      if (this.#remote.ended) break;
    }
    return code;
  }

  async prompt(where: string): Promise<number> {
    const remote = this.#remote;
    using terminal = new Terminal();
    const resize = () => remote.resize(process.stdout.columns ?? 0, process.stdout.rows ?? 0).catch(() => {});
    process.stdout.on("resize", resize);
    await resize();
    for (let code = 0; ; ) {
      const command = await terminal.command(`${where}:${printable(remote.directory)}$ `);
      if (command === undefined) return code;
      if (command.trim() === "") continue;
      terminal.give({
        line: (line) => void remote.input(Buffer.from(`${line}\n`)).catch(() => {}),
        interrupt: () => onInterrupt(),
        end: () => void remote.endInput().catch(() => {}),
        leave: () => process.exit(1),
      });
      code = await this.run(command);
      if (!this.#isAtLineStart) process.stdout.write("\n");
      this.#isAtLineStart = true;
      if (remote.ended) return code;
    }
  }
}

await program({
  summary: "Runs commands on a remote machine, over an encrypted connection.",
  example: "--user ana --command 'ls -l'",
  ownInterrupt: true,
  settings: {
    ...serverAt(PORT),
    user: setting(text, "who to log in as"),
    passwordFile: optional(text, "file whose first line is the password (default: it is asked for)"),
    command: optional(text, "run this command only, with our stdin, and end with its exit code"),
    log: optional(text, "file to add the whole session to: commands, output, exit codes"),
    knownHosts: setting(text, "file of the servers' keys", atHome("shell-known-hosts")),
    fingerprint: optional(text, "the server's key, SHA256:… as it prints it, known from elsewhere"),
    encrypt: optional(oneOf("session", "login"), "refuse a server that encrypts otherwise"),
  },
  async run({ host, port, user, passwordFile, command, knownHosts, ...settings }, context) {
    const { log, signal } = context;
    process.on("SIGINT", () => onInterrupt());
    await using remote = await RemoteShell.connect({ host, port, signal });
    signal.addEventListener("abort", () => remote.destroy(), { once: true });
    const { hostKey, encrypt } = remote.greeted;
    checkHostKey(knownHosts, { host, port }, hostKey, settings.fingerprint, log);
    if (settings.encrypt !== undefined && settings.encrypt !== encrypt)
      throw new Failure(
        `the server encrypts the ${encrypt} and not the ${settings.encrypt}, as --encrypt demands`,
      );
    if (encrypt === "login")
      log("warning: the server encrypts the login only: all that follows can be read and changed on its way");
    await login(remote, user, passwordFile, context);
    using transcript = openTranscript(settings.log, `${user}@${host}:${port}`);
    const client = new Client(remote, transcript, log);
    if (command !== undefined) process.exitCode = await client.runOne(command);
    else if (process.stdin.isTTY) process.exitCode = await client.prompt(`${user}@${host}`);
    else process.exitCode = await client.runLines();
  },
});
