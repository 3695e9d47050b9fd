/** The line editor: at the prompt a line is a command, while one runs it is the command's input. */
import { createInterface, type Interface } from "node:readline";
import { PassThrough } from "node:stream";

const CTRL_C = 0x03;
const CTRL_D = 0x04;
const CTRL_BACKSLASH = 0x1c;

/** What the keys mean while a command runs. */
interface Keys {
  line: (line: string) => void;
  interrupt: () => void;
  end: () => void;
  leave: () => void;
}

export class Terminal implements Disposable {
  readonly #input = process.stdin;
  /** Between the keyboard and readline, which would end for good at a Ctrl-D that is meant for a command. */
  readonly #typed = new PassThrough();
  readonly #readline: Interface;
  #keys: Keys | undefined;
  /** Lines that came in one piece with one before, pasted. */
  readonly #ahead: string[] = [];
  #onLine: ((line: string | undefined) => void) | undefined;
  #hasEnded = false;

  constructor() {
    const options = { input: this.#typed, output: process.stdout, terminal: true, historySize: 1000 };
    this.#readline = createInterface(options);
    this.#readline.on("line", (line) => this.#received(line));
    this.#readline.on("SIGINT", () => this.#startAnew());
    this.#readline.on("close", () => {
      this.#hasEnded = true;
      this.#onLine?.(undefined);
    });
    this.#readline.on("history", (history: string[]) => {
      if (this.#keys !== undefined) history.shift(); // what a program was told is no command, and may be secret
    });
    this.#input.setRawMode(true);
    this.#input.on("data", (chunk: Buffer) => this.#pressed(chunk)).resume();
  }

  /** The next command; undefined where the user has had enough (Ctrl-D). */
  async command(prompt: string): Promise<string | undefined> {
    this.#keys = undefined;
    this.#readline.setPrompt(prompt);
    this.#readline.prompt(true);
    const ahead = this.#ahead.shift();
    if (ahead !== undefined) process.stdout.write(`${ahead}\n`);
    if (ahead !== undefined || this.#hasEnded) return ahead;
    const line = new Promise<string | undefined>((resolve) => {
      this.#onLine = resolve;
    });
    return line.finally(() => {
      this.#onLine = undefined;
    });
  }

  /** Until the next prompt the keys are for a command. */
  give(keys: Keys): void {
    this.#keys = keys;
    this.#readline.setPrompt("");
  }

  [Symbol.dispose](): void {
    this.#readline.close();
    this.#input.setRawMode(false);
    this.#input.pause();
  }

  #pressed(chunk: Buffer): void {
    const keys = this.#keys;
    if (keys === undefined) return void this.#typed.write(chunk);
    const rest = chunk.filter((byte) => ![CTRL_C, CTRL_D, CTRL_BACKSLASH].includes(byte));
    if (rest.length > 0) this.#typed.write(Buffer.from(rest));
    if (chunk.includes(CTRL_C)) {
      process.stdout.write("^C\n");
      keys.interrupt();
    }
    if (chunk.includes(CTRL_D)) keys.end();
    if (chunk.includes(CTRL_BACKSLASH)) keys.leave();
  }

  #received(line: string): void {
    if (this.#keys !== undefined) this.#keys.line(line);
    else if (this.#onLine === undefined) this.#ahead.push(line);
    else {
      this.#onLine(line);
      this.#onLine = undefined;
    }
  }

  /** Ctrl-C at the prompt: forget what was typed. */
  #startAnew(): void {
    process.stdout.write("^C\n");
    for (const name of ["e", "u"]) this.#readline.write(null, { ctrl: true, name });
    this.#readline.prompt();
  }
}
