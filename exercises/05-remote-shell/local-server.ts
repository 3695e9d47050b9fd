/** A server of one's own in a folder of its own, for demo, bench and tests. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Running, start } from "../../shared/running.ts";
import { RemoteShell } from "./remote.ts";
import { userLine } from "./users.ts";

export const HERE = "exercises/05-remote-shell";
/** Long enough not to turn up in random bytes by chance, where it is searched for. */
export const USER = "anamaria";
export const PASSWORD = "rosa y 38 clavos";
/** Cheap, so that tests need not wait for it. */
const COST = { ln: 10, r: 8, p: 1 };

export class LocalServer implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "netlab-remote-"));
  #running: Running | undefined;

  static async start(
    args: readonly (string | number)[] = [],
    wrapper: readonly string[] = [],
  ): Promise<LocalServer> {
    const server = new LocalServer();
    writeFileSync(server.file("users"), `${await userLine(USER, PASSWORD, COST)}\n`, { mode: 0o600 });
    writeFileSync(server.file("password"), `${PASSWORD}\n`, { mode: 0o600 });
    await server.restart(args, wrapper);
    return server;
  }

  async restart(args: readonly (string | number)[] = [], wrapper: readonly string[] = []): Promise<void> {
    await this.#running?.stop();
    const own = ["--port", 0, "--users", this.file("users"), "--host-key", this.file("host-key")];
    this.#running = await start(`${HERE}/server.ts`, [...own, "--log", this.file("log"), ...args], {
      wrapper,
    });
  }

  get running(): Running {
    if (this.#running === undefined) throw new Error("it has not been started");
    return this.#running;
  }
  get port(): number {
    return this.running.port;
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  /** What the server has logged, line by line. */
  get log(): Record<string, unknown>[] {
    const lines = readFileSync(this.file("log"), "utf8").split("\n");
    return lines.filter((line) => line !== "").map((line) => JSON.parse(line));
  }

  /** Arguments of a client that knows the password. */
  as(user = USER, port = this.port): string[] {
    const files = ["--password-file", this.file("password"), "--known-hosts", this.file("known-hosts")];
    return ["--port", String(port), "--user", user, ...files];
  }

  /** Logged in, without looking at the host key. */
  async remote(port = this.port): Promise<RemoteShell> {
    const remote = await RemoteShell.connect({ host: "127.0.0.1", port });
    if (!(await remote.login(USER, PASSWORD))) throw new Error("not let in");
    return remote;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running?.stop();
    await this.#running?.[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Runs a command and gathers what it says. */
export async function output(
  remote: RemoteShell,
  command: string,
  input?: Buffer,
): Promise<{ code: number; stdout: string; stderr: string; bytes: Buffer }> {
  const chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  const running = remote.run(command, async (channel, data) => void chunks[channel].push(Buffer.from(data)));
  if (input !== undefined) await remote.input(input);
  await remote.endInput();
  const code = await running;
  const bytes = Buffer.concat(chunks.stdout);
  return { code, bytes, stdout: bytes.toString(), stderr: Buffer.concat(chunks.stderr).toString() };
}
