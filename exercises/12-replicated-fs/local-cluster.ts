/** Clusters on one machine, for demo, bench and tests: real processes, and relays between them whose links can be cut. */
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../shared/free-port.ts";
import { type Running, start, within } from "../../shared/running.ts";
import { digestOf } from "./apply.ts";
import { Disk } from "./disk.ts";
import { type Item, NOTHING } from "./protocol.ts";
import { Remote } from "./remote.ts";
import { itemOf } from "./session.ts";
import { differences } from "./verify.ts";

export const HERE = "exercises/12-replicated-fs";
const HEAD_BYTES = 4;

/** Stands before a node. Who connects is known by the id in the first frame, so a link can be cut by who is at its ends. */
class Gate {
  readonly to: number;
  readonly #server: Server;
  readonly #open = new Set<{ from: number; sockets: [Socket, Socket] }>();
  /** Ids from which nothing comes through. */
  readonly cut = new Set<number>();

  constructor(to: number) {
    this.to = to;
    this.#server = createServer({ noDelay: true }, (client) => this.#accept(client));
  }
  async listen(): Promise<number> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return (this.#server.address() as AddressInfo).port;
  }
  #accept(client: Socket): void {
    const node = connect({ host: "127.0.0.1", port: this.to, noDelay: true });
    const link = { from: -1, sockets: [client, node] as [Socket, Socket] };
    this.#open.add(link);
    for (const socket of link.sockets) {
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#open.delete(link);
        for (const other of link.sockets) other.destroy();
      });
    }
    let head = NOTHING;
    client.on("data", (chunk: Buffer) => {
      if (head.length < HEAD_BYTES) {
        head = Buffer.concat([head, chunk]);
        if (head.length >= HEAD_BYTES) link.from = head.readUInt32BE();
        if (this.cut.has(link.from)) return void client.destroy();
      }
      if (!node.write(chunk)) client.pause();
    });
    node.on("drain", () => client.resume());
    node.pipe(client);
  }
  /** Cuts what comes from these nodes, now and later. */
  cutFrom(ids: Iterable<number>): void {
    for (const id of ids) this.cut.add(id);
    for (const { from, sockets } of this.#open)
      if (this.cut.has(from)) for (const socket of sockets) socket.destroy();
  }
  close(): void {
    this.#server.close();
    for (const { sockets } of this.#open) for (const socket of sockets) socket.destroy();
  }
}

export interface LocalNode {
  id: number;
  dir: string;
  port: number;
  args: string[];
  script: "master.ts" | "replica.ts";
  running: Running | undefined;
  /** What all its lives have said. */
  said: Running[];
  gate: Gate | undefined;
}

interface ClusterOptions {
  args?: string[];
  /** A relay before each node. */
  isGated?: boolean;
  /** The first of fixed ports; else any. */
  ports?: number;
}

export class LocalCluster implements AsyncDisposable {
  readonly folder: string;
  readonly nodes: LocalNode[] = [];
  readonly #options: ClusterOptions;
  #hasEnded = false;

  private constructor(folder: string, options: ClusterOptions) {
    this.folder = folder;
    this.#options = options;
  }

  /** A master and so many replicas, all of them members. `ports`: the first of fixed ones; else any. */
  static async start(replicas: number, options: ClusterOptions = {}): Promise<LocalCluster> {
    const cluster = new LocalCluster(await mkdtemp(join(tmpdir(), "netlab-replicas-")), options);
    await chmod(cluster.folder, 0o755);
    try {
      for (let id = 1; id <= replicas + 1; id++) await cluster.add();
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** One more node; resolves when it is a member. `cut`: nodes from which nothing reaches it, of a gated cluster. */
  async add({ cut = [] }: { cut?: readonly number[] } = {}): Promise<LocalNode> {
    const id = this.nodes.length + 1;
    const dir = join(this.folder, `node${id}`);
    const node: LocalNode = {
      id,
      dir,
      port: 0,
      args: [],
      script: id === 1 ? "master.ts" : "replica.ts",
      running: undefined,
      said: [],
      gate: undefined,
    };
    node.args = ["--dir", dir, "--verbose", ...(this.#options.args ?? [])];
    const first = this.nodes[0];
    if (first !== undefined) node.args.push("--master", `127.0.0.1:${first.port}`);
    this.nodes.push(node);
    if (this.#options.isGated) {
      node.port = await freePort();
      node.gate = new Gate(node.port);
      node.gate.cutFrom(cut);
      node.args.push("--advertise", `127.0.0.1:${await node.gate.listen()}`);
    } else if (this.#options.ports) node.port = this.#options.ports + id - 1;
    await this.launch(node);
    if (id === 1) await node.running?.output(/^master \(term/m, "stderr");
    else await within(this.#isMember(id), `node ${id} to be a member`, 60_000);
    return node;
  }
  async #isMember(id: number): Promise<void> {
    await using remote = this.remote();
    while (!new RegExp(`^${id}\\t`, "m").test(await remote.do("nodes", "")))
      await new Promise((resolve) => setTimeout(resolve, 100));
    await remote.do("mkdir", "", { recursive: 1 }); // it is committed that it is one, too
  }

  async launch(node: LocalNode): Promise<void> {
    node.running = await start(`${HERE}/${node.script}`, [...node.args, "--port", node.port]);
    node.port = node.running.port;
    node.said.push(node.running);
    node.running.child.stderr?.setMaxListeners(0);
  }
  async kill(node: LocalNode): Promise<void> {
    node.running?.kill("SIGKILL");
    await node.running?.exited;
    node.running = undefined;
  }
  node(id: number): LocalNode {
    const node = this.nodes[id - 1];
    if (node === undefined) throw new Error(`there is no node ${id}`);
    return node;
  }

  remote(options: { patienceMs?: number; nodes?: readonly LocalNode[] } = {}): Remote {
    const nodes = (options.nodes ?? this.nodes)
      .filter(({ port }) => port > 0)
      .map(({ port }) => ({ host: "127.0.0.1", port }));
    const { signal } = new AbortController();
    return new Remote({
      nodes,
      secret: NOTHING,
      patienceMs: options.patienceMs ?? 60_000,
      signal,
      debug: () => {},
    });
  }
  nodesFlags(): string[] {
    return this.nodes.flatMap(({ port }) => ["--node", `127.0.0.1:${port}`]);
  }

  /** Who says that it is master, by term, the latest last; throws where two did in the same. */
  masters(): Map<number, number> {
    const masters = new Map<number, number>();
    for (const { id, said } of this.nodes)
      for (const { stderr } of said)
        for (const [, term] of stderr.matchAll(/^master \(term (\d+)\)$/gm)) {
          const other = masters.get(Number(term));
          if (other !== undefined && other !== id)
            throw new Error(`nodes ${other} and ${id} were master of term ${term}`);
          masters.set(Number(term), id);
        }
    return new Map([...masters].sort(([one], [other]) => one - other));
  }

  /** How the trees of these nodes differ from the first one's. */
  async differences(nodes: readonly LocalNode[] = this.nodes): Promise<string[]> {
    const trees = await Promise.all(nodes.map(({ dir }) => treeOf(dir)));
    return trees
      .slice(1)
      .flatMap((tree, i) =>
        differences(trees[0] ?? new Map(), tree).map((line) => `node ${nodes[i + 1]?.id}: ${line}`),
      );
  }
  /** Waits until all trees are the same. */
  async same(nodes: readonly LocalNode[] = this.nodes, limitMs = 60_000): Promise<void> {
    const giveUpAt = performance.now() + limitMs;
    while (true) {
      const lines = await this.differences(nodes).catch((error: Error) => [error.message]); // something went while it was read
      if (lines.length === 0) return;
      if (performance.now() > giveUpAt)
        throw new Error(`the trees are not the same: ${lines.slice(0, 5).join("; ")}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    for (const { gate } of this.nodes) gate?.close();
    await Promise.all(
      this.nodes.flatMap(({ said }) => said.map((running) => running[Symbol.asyncDispose]())),
    );
    await rm(this.folder, { recursive: true, force: true });
  }
}

async function treeOf(dir: string): Promise<Map<string, Item>> {
  const disk = new Disk(dir, dir);
  const items = new Map<string, Item>();
  for await (const [path, found] of disk.walk())
    if (found.kind !== "other") items.set(path, itemOf(found, (await digestOf(disk, path)) ?? NOTHING));
  disk.close();
  return items;
}
