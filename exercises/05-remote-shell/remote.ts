/** The client's side of a session, without a terminal: log in, run commands, feed and interrupt them. */
import { Failure } from "../../shared/errors.ts";
import { type ConnectOptions, connect } from "../../shared/tcp.ts";
import { clientHandshake, type Greeted } from "./handshake.ts";
import {
  MAX_COMMAND_BYTES,
  MAX_DATA_BYTES,
  type MessageOf,
  refuseUnless,
  type SIGNALS,
  STDIN_WINDOW_BYTES,
} from "./protocol.ts";
import type { Channel } from "./records.ts";

export type OnOutput = (channel: "stdout" | "stderr", data: Buffer) => Promise<void>;

const WHY = {
  failures: "too many failed logins",
  idle: "idle for too long",
  stopping: "it is being stopped",
} as const;

export class RemoteShell implements AsyncDisposable {
  readonly #channel: Channel;
  readonly greeted: Greeted;
  /** Where the shell is; empty before the login. */
  directory = "";
  /** The shell has ended: `exit`. */
  ended = false;
  #id = 0;
  #isRunning = false;
  #roomBytes = 0;
  #onRoom = () => {};

  /** Throws `Failure` where there is no server, or its signature is wrong. Whose key it is, the caller must look at. */
  static async connect(options: ConnectOptions): Promise<RemoteShell> {
    const connection = await connect(options);
    try {
      return new RemoteShell(await clientHandshake(connection));
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }

  private constructor(greeted: Greeted) {
    this.greeted = greeted;
    this.#channel = greeted.channel;
  }

  /** False where user or password are wrong; which of them is not said. Throws `Failure` where it is over. */
  async login(user: string, password: string): Promise<boolean> {
    const { connection } = this.#channel;
    connection.timeoutMs = 0; // the server lets those wait who have failed before
    await this.#channel.send({ kind: "login", user, password });
    const message = await this.#next();
    refuseUnless(message, "result");
    if (message.outcome === "full") throw new Failure("the server has too many sessions; try again later");
    if (message.outcome === "refused") return false;
    this.directory = message.directory;
    if (this.greeted.encrypt === "login") this.#channel.goClear();
    return true;
  }

  /** Runs a command to its end and returns its exit code. Throws `Failure`. */
  async run(text: string, onOutput: OnOutput): Promise<number> {
    if (Buffer.byteLength(text) > MAX_COMMAND_BYTES)
      throw new Failure(`the command is longer than ${MAX_COMMAND_BYTES} bytes`);
    if (text.includes("\0")) throw new Failure("the command has a NUL in it");
    const id = ++this.#id;
    this.#roomBytes = STDIN_WINDOW_BYTES;
    this.#isRunning = true;
    await this.#channel.send({ kind: "command", id, text });
    while (true) {
      const message = await this.#next();
      refuseUnless(message, "stdout", "stderr", "window", "exit");
      if (message.kind === "exit") return this.#hasEnded(message, id);
      if (message.kind === "window") this.#hasRoom(message, id);
      else await onOutput(message.kind, message.data);
    }
  }

  /** Input for the running command; waits while it does not read. Without a command it is dropped. */
  async input(data: Buffer): Promise<void> {
    const id = this.#id;
    for (let at = 0; at < data.length; ) {
      while (this.#roomBytes === 0 && this.#isRunning && id === this.#id) {
        await new Promise<void>((resolve) => {
          this.#onRoom = resolve;
        });
      }
      if (!this.#isRunning || id !== this.#id) return;
      const piece = data.subarray(at, at + Math.min(this.#roomBytes, MAX_DATA_BYTES));
      at += piece.length;
      this.#roomBytes -= piece.length;
      await this.#channel.send({ kind: "stdin", id, data: piece });
    }
  }

  /** The running command's input ends here. */
  async endInput(): Promise<void> {
    if (this.#isRunning) await this.#channel.send({ kind: "stdin", id: this.#id, data: Buffer.alloc(0) });
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  async signal(signal: keyof typeof SIGNALS): Promise<void> {
    if (this.#isRunning) await this.#channel.send({ kind: "signal", id: this.#id, signal });
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.#channel.send({ kind: "windowSize", columns, rows });
  }

  /** Cuts what goes on. */
  destroy(): void {
    this.#channel.connection.destroy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#channel.connection.close();
  }

  async #next() {
    const message = await this.#channel.receive();
    if (message === undefined) throw new Failure("the server closed the connection");
    if (message.kind === "disconnect")
      throw new Failure(`the server ended the session: ${WHY[message.reason]}`);
    return message;
  }

  #hasRoom({ id, bytes }: MessageOf<"window">, running: number): void {
    if (id !== running) return;
    this.#roomBytes += bytes;
    this.#onRoom();
  }

  #hasEnded({ id, code, shell, directory }: MessageOf<"exit">, running: number): number {
    if (id !== running)
      throw new Failure(`the exit code of command ${id} came instead of that of ${running}`);
    this.#isRunning = false;
    this.#onRoom();
    this.ended = shell === "ended";
    this.directory = directory;
    return code;
  }
}
