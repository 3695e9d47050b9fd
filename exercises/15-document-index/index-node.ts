/** A node: membership and index with sockets, clock and folder. */

import type { RemoteInfo } from "node:dgram";
import { readdir } from "node:fs/promises";
import { hostname } from "node:os";
import { formatAddress } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { serve } from "../../shared/tcp.ts";
import { OwnIndex } from "./document-index.ts";
import { answer, fetchIndex } from "./exchange.ts";
import { Folder } from "./folder.ts";
import { Gate } from "./gate.ts";
import type { Source } from "./get.ts";
import { type Identity, newIdentity } from "./identity.ts";
import { type Holder, labels } from "./listing.ts";
import { type Action, Membership } from "./membership.ts";
import {
  type Announcement,
  LieError,
  MAX_DOCUMENTS,
  MAX_NAME_BYTES,
  signedAnnouncement,
} from "./protocol.ts";
import { type PortRange, Segment } from "./segment.ts";

const TICK_MS = 250;
const IDLE_MS = 10_000;
const MAX_CONNECTIONS = 500;
const MAX_COMPLAINTS = 1000;

interface NodeOptions {
  host: string;
  /** 0: the first of `ports` that is free. */
  port: number;
  ports: PortRange;
  broadcast: readonly string[];
  folder: string | undefined;
  /** Else the machine's name and the port. */
  name: string | undefined;
  signal: AbortSignal;
  log: (line: string) => void;
  debug: (line: string) => void;
}

export class IndexNode {
  readonly index = new OwnIndex();
  readonly identity: Identity = newIdentity();
  readonly id = this.identity.key.toString("hex");
  readonly membership = new Membership(this.id, this.index);
  readonly #options: NodeOptions;
  readonly #complained = new Set<string>();
  /** Ends fetches when the node does. */
  readonly #end = new AbortController();
  #segment: Segment | undefined;
  #sequence = 0n;
  readonly #gate: Gate;
  #timer: NodeJS.Timeout | undefined;
  /** When something was heard or learnt last, by `performance.now()`. */
  #newsMs = 0;
  #isScanned: boolean;
  #leaving: Promise<void> | undefined;
  port = 0;
  /** `udp://…` and `tcp://…`. */
  urls: string[] = [];
  closed: Promise<void> = Promise.resolve();

  private constructor(options: NodeOptions) {
    this.#options = options;
    this.#isScanned = options.folder === undefined;
    this.#gate = new Gate(this.identity.key, options.ports);
  }

  /** Resolves when it listens and has announced itself. Throws `Failure`. */
  static async start(options: NodeOptions): Promise<IndexNode> {
    const { folder, signal } = options;
    if (folder !== undefined) {
      await readdir(folder).catch((error: unknown) => {
        throw new Failure(`cannot read the folder ${folder}`, { cause: error });
      });
    }
    const node = new IndexNode(options);
    await node.#listen();
    node.#perform(node.membership.start(performance.now()));
    node.#newsMs = performance.now();
    node.#timer = setInterval(() => node.#tick(), TICK_MS);
    signal.addEventListener("abort", () => void node.leave(), { once: true });
    if (signal.aborted) void node.leave();
    if (folder !== undefined) void node.#share(folder);
    return node;
  }

  async #listen(): Promise<void> {
    const { port, ports } = this.#options;
    if (port !== 0) return this.#listenOn(port);
    for (let next = ports.first; next <= ports.last; next++) {
      try {
        return await this.#listenOn(next);
      } catch (error) {
        const { code } = (error as { cause?: NodeJS.ErrnoException }).cause ?? {};
        if (code !== "EADDRINUSE") throw error;
      }
    }
    throw new Failure(`all ports of ${ports.first}-${ports.last} are in use; choose others with --ports`);
  }

  async #listenOn(port: number): Promise<void> {
    const { host, ports, broadcast, log } = this.#options;
    const { signal } = this.#end;
    const onDatagram = (datagram: Buffer, from: RemoteInfo) => this.#onDatagram(datagram, from);
    const segment = await Segment.open({ host, port, ports, broadcast, signal, log, onDatagram });
    try {
      const { identity, index } = this;
      const served = { identity, index, folder: this.#options.folder };
      const server = await serve(
        { host, port, signal, timeoutMs: IDLE_MS, maxConnections: MAX_CONNECTIONS, log: this.#complain },
        (connection) => answer(connection, served),
      );
      this.#segment = segment;
      Object.assign(this, { port, urls: [segment.url, server.url], closed: server.closed });
    } catch (error) {
      segment.close();
      throw error;
    }
  }

  async #share(folder: string): Promise<void> {
    const { signal, log, debug } = this.#options;
    const beginMs = performance.now();
    await Folder.open({
      folder,
      maxFiles: MAX_DOCUMENTS,
      signal,
      log,
      onFile: (file) => void this.index.set(file),
      onGone: (path) => void this.index.remove(path),
      onChanges: () => this.#perform(this.membership.changed(performance.now())),
    });
    this.#isScanned = true;
    const seconds = ((performance.now() - beginMs) / 1000).toFixed(2);
    debug(`documents in ${folder}: ${this.index.size}, after ${seconds} s`);
  }

  /** One line for each kind of trouble that a host makes. */
  #complain = (line: string): void => {
    const [, host = "", kind = line] = /^(\S+):\d+: (.*)$/s.exec(line) ?? [];
    const key = `${host} ${kind.replace(/\d+/g, "#")}`;
    if (this.#complained.has(key) || this.#complained.size >= MAX_COMPLAINTS) return;
    this.#complained.add(key);
    this.#options.log(line);
  };

  #onDatagram(datagram: Buffer, from: RemoteInfo): void {
    if (this.#end.signal.aborted) return;
    try {
      const news = this.#gate.admit(datagram, from.port);
      if (news !== undefined) this.#perform(this.membership.heard(news, from.address, performance.now()));
    } catch (error) {
      if (!isFailure(error)) throw error;
      this.#complain(`${formatAddress(from.address, from.port)}: refused: ${explain(error)}`);
    }
  }

  #tick(): void {
    const nowMs = performance.now();
    const { come, gone } = this.#segment?.networkChanges() ?? { come: [], gone: [] };
    if (gone.length > 0) this.#options.debug(`a network has gone: ${gone.join(", ")}`);
    if (come.length > 0) {
      this.#options.debug(`a network has come: ${come.join(", ")}`);
      this.#perform(this.membership.start(nowMs)); // whoever is there need not be waited for
    }
    this.#perform(this.membership.tick(nowMs));
  }

  #perform(actions: readonly Action[]): void {
    for (const action of actions) {
      if (action.do === "note") this.#options.log(action.line);
      else if (action.do === "fetch") void this.#fetch(action);
      else void this.#announce("announce", action.reply, action.to);
      if (action.do !== "announce") this.#newsMs = performance.now();
    }
  }

  #announce(
    kind: Announcement["kind"],
    reply: boolean,
    to?: { address: string; port: number },
  ): Promise<unknown> {
    const { version, digest } = this.index;
    const { name } = this;
    const own = {
      node: this.identity.key,
      sequence: ++this.#sequence,
      port: this.port,
      version,
      digest,
      name,
    };
    const datagram = signedAnnouncement({ kind, flags: { reply }, ...own }, this.identity.sign);
    return (
      (to === undefined ? this.#segment?.broadcast(datagram) : this.#segment?.send(datagram, to)) ??
      Promise.resolve()
    );
  }

  async #fetch({ id, at, since }: Action & { do: "fetch" }): Promise<void> {
    const { signal } = this.#end;
    try {
      const update = await fetchIndex(at, Buffer.from(id, "hex"), since, signal);
      this.#options.debug(
        `${at.address}:${at.port}: version ${update.version}, changes: ${update.changes.length}`,
      );
      if (!signal.aborted) this.#perform(this.membership.fetched(id, at, update, performance.now()));
    } catch (error) {
      if (!isFailure(error)) throw error;
      if (signal.aborted) return;
      this.#options.debug(`${at.address}:${at.port}: ${explain(error)}`);
      const isLie = error instanceof LieError;
      this.#perform(this.membership.fetchFailed(id, at, explain(error), isLie, performance.now()));
    }
  }

  get name(): string {
    const machine = hostname().replace(/[^\w.-]/g, "");
    return this.#options.name ?? `${machine.slice(0, MAX_NAME_BYTES - 6)}-${this.port}`;
  }

  /** Every node and its documents, this one first. */
  get holders(): (Holder & { address: string; port: number; version: number; heardMs: number })[] {
    const { id, port, index } = this;
    const self = {
      id,
      name: this.name,
      documents: index.documents,
      address: "",
      port,
      version: index.version,
    };
    const nowMs = performance.now();
    return [
      { ...self, heardMs: 0 },
      ...this.membership.members.map(({ id, name, port, addresses: [address = ""], index, heardMs }) => ({
        ...{ id, name, port, address, documents: index?.documents ?? [], version: index?.version ?? 0 },
        heardMs: nowMs - heardMs,
      })),
    ];
  }

  /** Where these nodes can be asked for a content, this one last. */
  sourcesOf(ids: readonly string[]): Source[] {
    const names = labels(this.holders);
    const { host } = this.#options;
    const own: Source = {
      label: "this node",
      address: host === "0.0.0.0" ? "127.0.0.1" : host,
      port: this.port,
    };
    const others = this.membership.members.filter(({ id }) => ids.includes(id));
    const sources = others.flatMap(({ id, port, addresses }) =>
      addresses.map((address) => ({ label: names.get(id) ?? id, address, port })),
    );
    return ids.includes(this.id) ? [...sources, own] : sources;
  }

  /** Whether it knows everything that it has heard of, and has heard nothing new for so long. */
  isStable(quietMs: number): boolean {
    return this.#isScanned && this.membership.isComplete && performance.now() - this.#newsMs >= quietMs;
  }

  /** Says goodbye and stops. */
  leave(): Promise<void> {
    this.#leaving ??= this.#leave();
    return this.#leaving;
  }

  async #leave(): Promise<void> {
    clearInterval(this.#timer);
    const farewell = this.#announce("leave", false);
    this.#end.abort();
    await farewell;
    this.#segment?.close();
    await this.closed;
  }
}
