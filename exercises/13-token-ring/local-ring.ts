/** Rings on loopback, for tests, demo and bench: of `node.ts` processes, and of nodes in this process. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../shared/free-port.ts";
import { type Running, start, within } from "../../shared/running.ts";
import type { Line } from "./protocol.ts";
import type { Account } from "./ring-checks.ts";
import { type NodeOptions, runNode } from "./ring-node.ts";

/** Ports that nobody has at the moment. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) ports.push(await freePort());
  return ports;
}

export const loopback = (ids: readonly number[], ports: readonly number[]) =>
  new Map(ids.map((id, i) => [id, { host: "127.0.0.1", port: ports[i] ?? 0 }]));

/** A node in this process. What it says is collected, or given away. */
export function nodeHere(
  options: Pick<NodeOptions, "id" | "members"> & Partial<NodeOptions>,
  onNote?: (note: string) => void,
) {
  const order = [...options.members.keys()];
  const account: Account = { id: options.id, printed: "", notes: "" };
  const stop = new AbortController();
  const note =
    onNote ??
    ((line: string) => {
      account.notes += `${line}\n`;
    });
  const ended = runNode(
    {
      first: order[(order.indexOf(options.id) + 1) % order.length] ?? options.id,
      lines: [],
      holdLimit: 10,
      idleHoldMs: 5,
      ...options,
    },
    {
      signal: stop.signal,
      log: note,
      debug: note,
      ready: () => {},
      print: (line) => {
        account.printed += `${line}\n`;
      },
    },
  );
  return { account, stop, ended };
}

/** A ring of processes: their configuration and their messages are in a temporary folder. */
export class LocalRing implements AsyncDisposable {
  /** Where each station listens, in the order of the ring. */
  readonly members: ReadonlyMap<number, { host: string; port: number }>;
  readonly config: string;
  /** Every process that was started, and the station that it was. */
  readonly lives: { id: number; running: Running }[] = [];
  readonly #folder: string;
  #files = 0;

  private constructor(folder: string, members: LocalRing["members"]) {
    this.#folder = folder;
    this.members = members;
    this.config = join(folder, "ring.ini");
  }

  static async of(ids: readonly number[], ports?: readonly number[]): Promise<LocalRing> {
    const members = loopback(ids, ports ?? (await freePorts(ids.length)));
    const ring = new LocalRing(await mkdtemp(join(tmpdir(), "netlab-ring-")), members);
    const sections = [...members].map(
      ([id, { host, port }]) => `[node${id}]\nhost = ${host}\nport = ${port}\n`,
    );
    await writeFile(ring.config, sections.join("\n"));
    return ring;
  }

  /** Starts a station and waits until it listens; it says what it does on stderr, unless it is to be quiet. */
  async start(
    id: number,
    args: readonly (string | number)[] = [],
    lines: readonly Line[] = [],
    verbose = true,
  ): Promise<Running> {
    const own: (string | number)[] = ["--id", id, "--config", this.config];
    if (verbose) own.push("--verbose");
    if (lines.length > 0) own.push("--messages", await this.messages(lines));
    const running = await start("exercises/13-token-ring/node.ts", [...own, ...args]);
    running.child.stderr?.setMaxListeners(0); // each `note()` that waits is one
    this.lives.push({ id, running });
    return running;
  }

  /** Starts all of them. */
  async startAll(args: readonly (string | number)[] = []): Promise<void> {
    const starts = await Promise.allSettled([...this.members.keys()].map((id) => this.start(id, args)));
    // All of them are known by now, those too that started beside one that failed: they are ended with the ring.
    for (const start of starts) if (start.status === "rejected") throw start.reason;
  }

  /** Writes a file of messages and returns its path. */
  async messages(lines: readonly Line[]): Promise<string> {
    const path = join(this.#folder, `messages-${this.#files++}.txt`);
    await writeFile(path, lines.map(({ idDestination, text }) => `${idDestination} ${text}\n`).join(""));
    return path;
  }

  /** The process that is that station now. */
  node(id: number): Running {
    const life = this.lives.findLast((life) => life.id === id);
    if (life === undefined) throw new Error(`station ${id} was not started`);
    return life.running;
  }

  /**
   * Waits for the next note of a station that matches; what it has said before does not count. Throws when it
   * does not come in time.
   */
  async note(id: number, pattern: RegExp, limitMs?: number): Promise<RegExpMatchArray> {
    const { child, exited } = this.node(id);
    let look = (_: Buffer) => {};
    const found = new Promise<RegExpMatchArray>((resolve, reject) => {
      let notes = "";
      look = (chunk) => {
        notes += chunk;
        const match = notes.match(pattern);
        if (match) resolve(match);
      };
      child.stderr?.on("data", look);
      exited.then(() => reject(new Error(`station ${id} ended without a note ${pattern}`)), reject);
    });
    return within(found, `${pattern} of station ${id}`, limitMs).finally(() =>
      child.stderr?.off("data", look),
    );
  }

  /** What all lives have said so far. */
  get accounts(): Account[] {
    return this.lives.map(({ id, running }) => ({ id, printed: running.stdout, notes: running.stderr }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.lives.map(({ running }) => running[Symbol.asyncDispose]()));
    await rm(this.#folder, { recursive: true });
  }
}
