/**
 * Endpoints joined by links of `shared/link.ts`, without sockets and without a clock: time jumps from one event to the next.
 * The same seed gives the same run, packet by packet; a transfer of minutes takes milliseconds.
 */
import { createHash } from "node:crypto";
import { type Fate, type LinkProfile, NEW_LINK, pass } from "../../shared/link.ts";
import type { Connection } from "./connection.ts";
import { type Address, Endpoint, NO_HASH, type Request } from "./endpoint.ts";
import type { ConnectionOptions } from "./options.ts";

/** A packet on its way: who sent it, and what becomes of it. */
export interface Passage {
  atMs: number;
  toServer: boolean;
  packet: Buffer;
  fate: Fate;
}

export interface SimulationOptions {
  seed: number;
  toServer: LinkProfile;
  toClient: LinkProfile;
  connection: ConnectionOptions;
  /** Machines so busy that a process gets its turn only once in so long, for what has come and for its timers. */
  turnMs?: number;
  /** What the clock shows at first: a server may have been up for long. */
  startMs?: number;
  onPassage?: (passage: Passage) => void;
}

interface Scheduled {
  atMs: number;
  order: number;
  run: () => void;
}

const SERVER: Address = { address: "10.0.0.1", port: 11_100 };

/** Bytes that look random, and are the same for the same seed: `random(seed)(16)`. */
export function randomOf(seed: number): (size: number) => Buffer {
  let count = 0;
  return (size) => {
    const digest = createHash("sha512").update(`${seed} ${count++}`).digest();
    return digest.subarray(0, size);
  };
}

/** One server and any number of clients, which share the link in each direction. */
export class Simulation {
  nowMs: number;
  readonly server: Endpoint;
  /** Links can be changed while it runs. */
  readonly links: { toServer: LinkProfile; toClient: LinkProfile };
  readonly #options: SimulationOptions;
  readonly #endpoints: { endpoint: Endpoint; address: Address }[] = [];
  #states = { toServer: NEW_LINK, toClient: NEW_LINK };
  #queue: Scheduled[] = [];
  #order = 0;

  constructor(options: SimulationOptions, onOpen: (connection: Connection, token: Buffer) => void) {
    this.#options = options;
    this.nowMs = options.startMs ?? 0;
    this.links = { toServer: options.toServer, toClient: options.toClient };
    this.server = new Endpoint({
      connection: options.connection,
      random: randomOf(options.seed),
      onOpen,
    });
    this.#endpoints.push({ endpoint: this.server, address: SERVER });
  }

  /** A client of its own at this port, and its connection. */
  connect(request: Request, port: number, connection = this.#options.connection): Connection {
    const endpoint = new Endpoint({ connection, random: randomOf(this.#options.seed * 1000 + port) });
    this.#endpoints.push({ endpoint, address: { address: "10.0.0.2", port } });
    return endpoint.connect(request, SERVER, this.nowMs);
  }

  /** Moves a client to another port. */
  move(from: number, to: number): void {
    const found = this.#endpoints.find(({ address }) => address.port === from);
    if (found) found.address = { ...found.address, port: to };
  }

  at(atMs: number, run: () => void): void {
    const event = { atMs, order: this.#order++, run };
    let i = this.#queue.length;
    this.#queue.push(event);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (isBefore(this.#queue[parent], event)) break;
      this.#queue[i] = this.#queue[parent] as Scheduled;
      i = parent;
    }
    this.#queue[i] = event;
  }

  /** Takes the first event off the heap. */
  #shift(): Scheduled {
    const first = this.#queue[0] as Scheduled;
    const last = this.#queue.pop() as Scheduled;
    const size = this.#queue.length;
    let i = 0;
    while (size > 0) {
      let child = 2 * i + 1;
      if (child >= size) break;
      if (child + 1 < size && isBefore(this.#queue[child + 1], this.#queue[child] as Scheduled)) child++;
      if (!isBefore(this.#queue[child], last)) break;
      this.#queue[i] = this.#queue[child] as Scheduled;
      i = child;
    }
    if (size > 0) this.#queue[i] = last;
    return first;
  }

  /** Runs until nothing more happens, `isOver` says so, or the time has come; returns the time. */
  run(untilMs: number, isOver: () => boolean = () => false): number {
    while (true) {
      for (const from of this.#endpoints) this.#flush(from);
      if (isOver()) break;
      const wakeAtMs = this.#turn(Math.min(...this.#endpoints.map(({ endpoint }) => endpoint.wakeAtMs)));
      const nextMs = Math.min(this.#queue[0]?.atMs ?? Infinity, wakeAtMs);
      if (nextMs > untilMs) break;
      this.nowMs = Math.max(this.nowMs, nextMs);
      while (this.#queue[0] !== undefined && this.#queue[0].atMs <= this.nowMs) this.#shift().run();
      for (const { endpoint } of this.#endpoints) endpoint.onTime(this.nowMs);
    }
    return this.nowMs;
  }

  /** When a process that would run now gets its turn. */
  #turn(atMs: number): number {
    const { turnMs } = this.#options;
    return turnMs === undefined ? atMs : Math.max(atMs, Math.ceil(atMs / turnMs) * turnMs); // rounding must not lead back
  }

  #flush(from: { endpoint: Endpoint; address: Address }): void {
    for (let out = from.endpoint.next(this.nowMs); out; out = from.endpoint.next(this.nowMs))
      this.#carry(Buffer.concat(out.packet), from.address, out.to);
  }

  #carry(packet: Buffer, from: Address, to: Address): void {
    const direction = to === SERVER ? "toServer" : "toClient";
    const { seed, onPassage } = this.#options;
    const seedOfDirection = 2 * seed + (direction === "toServer" ? 0 : 1);
    const [state, fate] = pass(
      this.links[direction],
      seedOfDirection,
      this.#states[direction],
      this.nowMs,
      packet.length,
    );
    this.#states[direction] = state;
    onPassage?.({ atMs: this.nowMs, toServer: direction === "toServer", packet, fate });
    for (const { atMs, flippedBit } of fate.arrivals) {
      const copy = Buffer.from(packet);
      if (flippedBit !== undefined)
        copy[flippedBit >> 3] = (copy[flippedBit >> 3] ?? 0) ^ (0x80 >> (flippedBit & 7));
      this.at(this.#turn(atMs), () => {
        const found = this.#endpoints.find(({ address }) => address.port === to.port);
        found?.endpoint.receive(copy, from, this.nowMs);
      });
    }
  }
}

function isBefore(a: Scheduled | undefined, b: Scheduled): boolean {
  return a !== undefined && (a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order));
}

/** The end of a transfer, as both sides see it. */
export interface Transfer {
  client: Connection;
  server: Connection | undefined;
  received: Buffer[];
  receivedBytes: number;
  ends: { client?: string; server?: string };
  endedAtMs?: number;
}

/** Serves `file` to who gets it, and takes what is put, in memory; in a simulation there is no disk. */
export function serveFrom(fileOf: (name: string) => Buffer, transfers: Map<string, Transfer>) {
  return (connection: Connection, token: Buffer) => {
    const { request, name, size } = connection.open;
    const transfer = transfers.get(name);
    if (transfer) transfer.server = connection;
    connection.handlers.onEnd = (error) => {
      if (transfer) transfer.ends.server = error?.message ?? "ok";
    };
    if (request === "put") {
      connection.accept(token, Number(size), NO_HASH);
      collect(connection, transfer, Number(size));
    } else {
      const file = fileOf(name);
      connection.accept(token, file.length, NO_HASH);
      feed(connection, file.subarray(Number(connection.open.offset)));
    }
  };
}
const CHUNK_BYTES = 64 * 1024;

function feed(connection: Connection, file: Buffer): void {
  let at = 0;
  connection.handlers.onWritable = () => {
    while (at < file.length && connection.room > 0) {
      connection.write(file.subarray(at, at + CHUNK_BYTES));
      at += CHUNK_BYTES;
    }
  };
  connection.handlers.onWritable();
}

function collect(connection: Connection, transfer: Transfer | undefined, size: number): void {
  connection.handlers.onReadable = () => {
    for (const bytes of connection.take()) {
      transfer?.received.push(bytes);
      if (transfer) transfer.receivedBytes += bytes.length;
    }
    if (transfer === undefined || transfer.receivedBytes === size) connection.finish();
  };
  connection.handlers.onReadable();
}

/** A client that gets or puts `file`. */
export function transferOf(
  simulation: Simulation,
  transfers: Map<string, Transfer>,
  { request, name, file, port }: { request: "get" | "put"; name: string; file: Buffer; port: number },
  options?: ConnectionOptions,
): Transfer {
  const client = simulation.connect({ request, name, size: file.length }, port, options);
  const transfer: Transfer = { client, server: undefined, received: [], receivedBytes: 0, ends: {} };
  transfers.set(name, transfer);
  client.handlers.onEnd = (error) => {
    transfer.ends.client = error?.message ?? "ok";
    transfer.endedAtMs = simulation.nowMs;
  };
  client.handlers.onAccepted = () => {
    if (request === "put") feed(client, file);
    else collect(client, transfer, file.length);
  };
  return transfer;
}
