/** Nodes on one machine, for tests, demo and bench; `switch.ts` gives each a host of its own. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Running, type StartOptions, start } from "../../shared/running.ts";

export const NODE = "exercises/15-document-index/node.ts";

interface ListedRow {
  path: string;
  size: number;
  sha256: string;
  nodes: { id: string; name: string }[];
  sameAs: string[];
  differs: boolean;
}
interface ListedNode {
  id: string;
  name: string;
  address: string;
  port: number;
  documents: number;
  version: number;
}

/** How long a busy machine may take for anything. */
export const LONG_MS = 120_000;

/** A node as a process, and its folder. */
export class LocalNode implements AsyncDisposable {
  readonly name: string;
  readonly folder: string;
  /** Where it puts what it gets. */
  readonly cwd: string;
  readonly running: Running;
  #lines = 0;
  #asked: Promise<unknown> = Promise.resolve();

  constructor(name: string, folder: string, cwd: string, running: Running) {
    this.name = name;
    this.folder = folder;
    this.cwd = cwd;
    this.running = running;
  }

  /** The answer to a command, one at a time. */
  ask(command: string, limitMs = LONG_MS): Promise<unknown> {
    this.#asked = this.#asked
      .catch(() => {})
      .then(async () => {
        const before = `^(?:listening on .*\\n){2}(?:.*\\n){${this.#lines}}`;
        this.running.child.stdin?.write(`${command}\n`);
        const [, line = ""] = await this.running.output(new RegExp(`${before}(.+)\\n`), "stdout", limitMs);
        this.#lines++;
        return JSON.parse(line);
      });
    return this.#asked;
  }

  list = () => this.ask("list") as Promise<ListedRow[]>;
  nodes = () => this.ask("nodes") as Promise<ListedNode[]>;

  /** `PATH SHA NODE`, sorted. */
  async listing(): Promise<string[]> {
    const rows = await this.list();
    return rows
      .flatMap(({ path, sha256, nodes }) => nodes.map(({ name }) => `${path} ${sha256} ${name}`))
      .toSorted();
  }

  put = (path: string, content: string | Buffer) => put(this.folder, path, content);

  /** Asks until the answer is as wanted. */
  async until<T>(ask: () => Promise<T>, isWanted: (answer: T) => boolean, what: string): Promise<T> {
    const giveUpMs = performance.now() + LONG_MS;
    while (true) {
      const answer = await ask();
      if (isWanted(answer)) return answer;
      if (performance.now() > giveUpMs)
        throw new Error(
          `${this.name} in vain waited for ${what}; has ${JSON.stringify(answer)}\n${this.running.stderr}`,
        );
      await delay(50);
    }
  }

  knows = (path: string) =>
    this.until(this.list, (rows) => rows.some((row) => row.path === path), `the document ${path}`);
  /** Until there are so many nodes, itself among them. */
  seesNodes = (count: number) => this.until(this.nodes, (nodes) => nodes.length === count, `${count} nodes`);

  [Symbol.asyncDispose](): Promise<void> {
    return this.running[Symbol.asyncDispose]();
  }
}

export async function put(folder: string, path: string, content: string | Buffer): Promise<void> {
  await mkdir(dirname(join(folder, path)), { recursive: true });
  await writeFile(join(folder, path), content);
}

/** Blocks of ports that several runs on one machine share out among them, below those that systems give away on their own. */
const [FIRST_BLOCK, BLOCKS, BLOCK_SIZE] = [31_000, 220, 8];
let nextBlock = (process.pid * 37) % BLOCKS;

async function isFree(port: number): Promise<boolean> {
  const socket = createSocket("udp4").bind({ port, exclusive: true });
  const server = createServer().listen(port);
  const [udp, tcp] = await Promise.allSettled([once(socket, "listening"), once(server, "listening")]);
  socket.close();
  if (tcp.status === "fulfilled") await new Promise((resolve) => server.close(resolve));
  return udp.status === "fulfilled" && tcp.status === "fulfilled";
}

/** Six ports in a row that nobody has, and a socket behind them that keeps them for this process. */
async function claimPorts(): Promise<{ first: number; guard: Server }> {
  for (let tries = 0; tries < BLOCKS; tries++) {
    const first = FIRST_BLOCK + BLOCK_SIZE * (nextBlock++ % BLOCKS);
    const guard = createServer().listen(first + BLOCK_SIZE - 1, "127.0.0.1");
    const isOurs = await once(guard, "listening").then(
      () => true,
      () => false,
    );
    if (!isOurs) continue;
    const free = await Promise.all(Array.from({ length: 6 }, (_, i) => isFree(first + i)));
    if (free.every(Boolean)) return { first, guard };
    guard.close();
  }
  throw new Error("there are no six free ports in a row");
}

interface NodeStart extends StartOptions {
  documents?: Record<string, string | Buffer>;
  args?: readonly (string | number)[];
  /** One that is there already, of a former life. */
  folder?: string;
}

/** A segment of this machine: nodes that find each other on ports that nobody else has. */
export class LocalSegment implements AsyncDisposable {
  readonly first: number;
  readonly directory: string;
  readonly nodes: LocalNode[] = [];
  readonly #guard: Server | undefined;
  #count = 0;

  private constructor(first: number, directory: string, guard?: Server) {
    this.first = first;
    this.directory = directory;
    this.#guard = guard;
  }

  /** `first`: the first of six ports, whether free or not; without it six free ones. */
  static async open(first?: number): Promise<LocalSegment> {
    const directory = await mkdtemp(join(tmpdir(), "netlab-15-"));
    if (first !== undefined) return new LocalSegment(first, directory);
    const claimed = await claimPorts();
    return new LocalSegment(claimed.first, directory, claimed.guard);
  }

  get ports(): string {
    return `${this.first}-${this.first + 5}`;
  }

  /** Its arguments keep it on this machine and this segment. */
  get args(): string[] {
    return ["--ports", this.ports, "--host", "127.0.0.1"];
  }

  async folder(documents: Record<string, string | Buffer> = {}): Promise<string> {
    const folder = join(this.directory, `folder-${this.#count++}`);
    await mkdir(folder);
    for (const [path, content] of Object.entries(documents)) await put(folder, path, content);
    return folder;
  }

  /** A node that answers in JSON; its current folder is empty and its own. */
  async start(
    name: string,
    { documents, args = [], folder, ...options }: NodeStart = {},
  ): Promise<LocalNode> {
    const own = folder ?? (await this.folder(documents));
    const cwd = await this.folder();
    const all = [...this.args, "--folder", own, "--name", name, "--json", ...args];
    const running = await start(NODE, all, { cwd, ...options, servers: 0 });
    const node = new LocalNode(name, own, cwd, running);
    this.nodes.push(node);
    await running.output(/^(?:listening on .*\n){2}/, "stdout", LONG_MS);
    return node;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node[Symbol.asyncDispose]()));
    this.#guard?.close();
    await rm(this.directory, { recursive: true, force: true });
  }
}
