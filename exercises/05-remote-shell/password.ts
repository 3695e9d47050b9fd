/** Passwords: asked for without echo, or from a file; never from the command line, which everybody can read. */
import { openSync, readFileSync, statSync } from "node:fs";
import { ReadStream } from "node:tty";
import { Failure } from "../../shared/errors.ts";
import { checkPassword } from "./users.ts";

/** The first line of a file. Throws `Failure`. */
export function passwordFrom(path: string, log: (line: string) => void): string {
  try {
    const [password = ""] = readFileSync(path, "utf8").split(/\r?\n/);
    if (process.platform !== "win32" && statSync(path).mode & 0o077)
      log(`warning: others can read ${path}; chmod 600 it`);
    checkPassword(password);
    return password;
  } catch (error) {
    throw new Failure(`cannot take the password from ${path}`, { cause: error });
  }
}

/** The user's terminal, even where stdin is something else. Throws `Failure`. */
function openTerminal(): ReadStream {
  if (process.stdin.isTTY) return process.stdin;
  try {
    return new ReadStream(openSync("/dev/tty", "r"));
  } catch {
    throw new Failure("cannot ask for a password: there is no terminal; use --password-file");
  }
}

/** Throws `Failure` where the user gives up (Ctrl-C, Ctrl-D) or there is no terminal. */
export async function askPassword(prompt: string): Promise<string> {
  const terminal = openTerminal();
  process.stderr.write(prompt);
  terminal.setRawMode(true).resume();
  try {
    const password = await typedLine(terminal);
    if (password === undefined) throw new Failure("no password was given");
    checkPassword(password);
    return password;
  } finally {
    terminal.setRawMode(false).pause();
    process.stderr.write("\n");
    if (terminal !== process.stdin) terminal.destroy();
  }
}

/** What is typed up to Enter; undefined where the user gives up. */
function typedLine(terminal: ReadStream): Promise<string | undefined> {
  let typed = "";
  return new Promise((resolve) => {
    const onData = (chunk: Buffer) => {
      for (const key of chunk.toString()) {
        if (key === "\r" || key === "\n") return done(typed);
        if (key === "\u0003" || (key === "\u0004" && typed === "")) return done(undefined);
        if (key === "\u007f" || key === "\b") typed = [...typed].slice(0, -1).join("");
        else if (key === "\u0015") typed = "";
        else typed += key;
      }
    };
    const done = (password: string | undefined) => {
      terminal.off("data", onData);
      resolve(password);
    };
    terminal.on("data", onData);
  });
}
