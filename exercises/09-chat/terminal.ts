/** The user's screen: the line being typed stays at the bottom, what arrives is written above it. Pipes work too. */
import { clearScreenDown, createInterface, cursorTo, type Interface, moveCursor } from "node:readline";
import { toWire } from "./protocol.ts";

export class Terminal implements Disposable {
  /** Does a person sit there? */
  readonly isInteractive = process.stdin.isTTY === true && process.stdout.isTTY === true;
  readonly #readline: Interface;
  /** From the beginning, since what is read before anybody asks for it would be lost. */
  readonly #lines: AsyncIterator<string>;
  #isOpen = true;

  constructor(onInterrupt: () => void) {
    // As bytes from a pipe: what is no UTF-8 must not be lost here either.
    if (!this.isInteractive) process.stdin.setEncoding("latin1");
    this.#readline = createInterface({
      input: process.stdin,
      ...(this.isInteractive ? { output: process.stdout } : {}),
      terminal: this.isInteractive,
      historySize: 200,
    });
    this.#lines = this.#readline[Symbol.asyncIterator]();
    this.#readline.on("SIGINT", onInterrupt);
    this.#readline.on("close", () => {
      this.#isOpen = false;
    });
  }

  /** The next line of input as bytes; undefined at its end. */
  async next(): Promise<string | undefined> {
    const { done, value } = await this.#lines.next();
    if (done) return undefined;
    return this.isInteractive ? toWire(value) : value;
  }

  /** Writes a line, which must be fit for a terminal, above the one that is being typed. */
  print(line: string, stream: NodeJS.WriteStream = process.stdout): void {
    if (!this.isInteractive || !this.#isOpen) return void stream.write(`${line}\n`);
    const { rows } = this.#readline.getCursorPos();
    cursorTo(process.stdout, 0);
    moveCursor(process.stdout, 0, -rows);
    clearScreenDown(process.stdout);
    process.stdout.write(`${line}\n`);
    this.#readline.prompt(true);
  }

  /** What stands in front of the line being typed. */
  prompt(text: string): void {
    if (!this.isInteractive || !this.#isOpen) return;
    this.#readline.setPrompt(text);
    this.#readline.prompt(true);
  }

  [Symbol.dispose](): void {
    this.#readline.close();
    process.stdin.unref?.();
  }
}
