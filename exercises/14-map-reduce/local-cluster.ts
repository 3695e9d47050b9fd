/** A reducer and mappers on this machine, for demo, bench and tests: as processes, which can be killed and started again. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../shared/free-port.ts";
import { type Running, type StartOptions, start } from "../../shared/running.ts";
import type { Address } from "./job.ts";

export const HERE = "exercises/14-map-reduce";

interface ClusterOptions {
  mappers: number;
  /** For each program: `--verbose`. */
  args?: readonly string[];
  wrapper?: StartOptions["wrapper"];
}

export class LocalCluster implements AsyncDisposable {
  readonly folder: string;
  readonly config: string;
  /** `reducer`, `mapper1` … */
  readonly addresses = new Map<string, Address>();
  readonly #running = new Map<string, Running>();
  readonly #options: ClusterOptions;

  private constructor(folder: string, options: ClusterOptions) {
    this.folder = folder;
    this.config = join(folder, "map-reduce.ini");
    this.#options = options;
  }

  static async of(options: ClusterOptions): Promise<LocalCluster> {
    const cluster = new LocalCluster(await mkdtemp(join(tmpdir(), "netlab-map-reduce-")), options);
    const names = ["reducer", ...Array.from({ length: options.mappers }, (_, i) => `mapper${i + 1}`)];
    for (const name of names) cluster.addresses.set(name, { host: "127.0.0.1", port: await freePort() });
    await cluster.configure();
    const starts = await Promise.allSettled(names.map((name) => cluster.start(name)));
    const failed = starts.find((start) => start.status === "rejected");
    if (failed === undefined) return cluster;
    await cluster[Symbol.asyncDispose]();
    throw failed.reason;
  }

  /** Writes the configuration; with other addresses where a link stands before a node. */
  async configure(links: ReadonlyMap<string, number> = new Map()): Promise<void> {
    const sections = [...this.addresses].map(
      ([name, { host, port }]) => `[${name}]\nhost = ${host}\nport = ${links.get(name) ?? port}\n`,
    );
    await writeFile(this.config, sections.join("\n"));
  }

  get names(): string[] {
    return [...this.addresses.keys()];
  }

  /** Starts a node, for the first time or again. */
  async start(name: string): Promise<Running> {
    const { host, port } = this.address(name);
    const own =
      name === "reducer" ? ["reducer.ts", "--host", host, "--port", port] : ["mapper.ts", host, port];
    const [program, ...args] = [...own, ...(this.#options.args ?? [])];
    const { wrapper } = this.#options;
    const running = await start(`${HERE}/${program}`, args, wrapper === undefined ? {} : { wrapper });
    running.child.stderr?.setMaxListeners(0);
    this.#running.set(name, running);
    return running;
  }

  node(name: string): Running {
    const running = this.#running.get(name);
    if (running === undefined) throw new Error(`${name} was not started`);
    return running;
  }

  address(name: string): Address {
    const address = this.addresses.get(name);
    if (address === undefined) throw new Error(`there is no ${name}`);
    return address;
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  /** Starts a master on the way; what it has counted will be in `out`. */
  master(from: string, out: string, args: readonly (string | number)[] = []): Promise<Running> {
    return start(`${HERE}/master.ts`, [from, out, "--config", this.config, ...args], { servers: 0 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#running.values()].map((running) => running[Symbol.asyncDispose]()));
    await rm(this.folder, { recursive: true, force: true });
  }
}
