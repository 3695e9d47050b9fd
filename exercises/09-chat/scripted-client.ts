/** A user by script, for tests, demo and bench: says lines, and waits for lines that it can name. */
import type { Connection } from "../../shared/connection.ts";
import { within } from "../../shared/running.ts";
import { connect } from "../../shared/tcp.ts";

const PATIENCE_MS = 15_000;

export class ScriptedClient implements AsyncDisposable {
  readonly connection: Connection;
  /** Everything that has come, in latin1. */
  readonly heard: string[] = [];

  private constructor(connection: Connection) {
    this.connection = connection;
  }

  static async connect(port: number, host = "127.0.0.1"): Promise<ScriptedClient> {
    return new ScriptedClient(await connect({ host, port, timeoutMs: PATIENCE_MS }));
  }

  /** Connects and registers. */
  static async as(nick: string, port: number, host?: string): Promise<ScriptedClient> {
    const client = await ScriptedClient.connect(port, host);
    await client.send(`NICK ${nick}`, `USER ${nick} 0 * :${nick}`);
    await client.until(/ (?:376|422) /);
    return client;
  }

  /** Sends lines, as one write. */
  async send(...lines: readonly string[]): Promise<void> {
    await this.connection.write(Buffer.from(lines.map((line) => `${line}\r\n`).join(""), "latin1"));
  }

  /** The next line; undefined at the end. */
  async next(): Promise<string | undefined> {
    const line = await this.connection.readLine(8192, "latin1");
    if (line !== undefined) this.heard.push(line);
    return line;
  }

  /** The lines up to one that fits, which is the last. */
  async until(pattern: RegExp): Promise<string[]> {
    const lines: string[] = [];
    for (let line = await this.next(); line !== undefined; line = await this.next()) {
      lines.push(line);
      if (pattern.test(line)) return lines;
    }
    throw new Error(`the server closed without ${pattern}; there was: ${lines.join("\n")}`);
  }

  /** What the server says in answer to these lines. */
  async ask(...lines: readonly string[]): Promise<string[]> {
    await this.send(...lines, "PING :mark");
    return (await this.until(/ PONG .*mark$/)).slice(0, -1);
  }

  /** All lines to the end. */
  async rest(): Promise<string[]> {
    const lines: string[] = [];
    const reading = (async () => {
      for (let line = await this.next(); line !== undefined; line = await this.next()) lines.push(line);
    })();
    await within(reading, "the end of the connection");
    return lines;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.connection.destroy();
  }
}
