/** Nodes in this process, for demo and tests, and jobs of a master in this process. */
import { setMaxListeners } from "node:events";
import { open } from "node:fs/promises";
import type { Connection } from "../../shared/connection.ts";
import { serve } from "../../shared/tcp.ts";
import type { Address, JobOptions } from "./job.ts";
import { runJob } from "./job.ts";
import { mapperSession } from "./mapping.ts";
import { divide } from "./parts.ts";
import type { Totals } from "./protocol.ts";
import { reducerSessions } from "./reducing.ts";

export class NodeHere implements AsyncDisposable {
  readonly address: Address;
  /** What it has said. */
  readonly notes: string[];
  readonly #connections: Set<Connection>;
  readonly #stop: AbortController;
  readonly #closed: Promise<void>;

  private constructor(
    port: number,
    notes: string[],
    connections: Set<Connection>,
    stop: AbortController,
    closed: Promise<void>,
  ) {
    this.address = { host: "127.0.0.1", port };
    this.notes = notes;
    this.#connections = connections;
    this.#stop = stop;
    this.#closed = closed;
  }

  /** `killed` is for sessions that wait for nothing else. */
  static async of(
    session: (connection: Connection, note: (line: string) => void, killed: AbortSignal) => Promise<void>,
    port = 0,
  ): Promise<NodeHere> {
    const notes: string[] = [];
    const connections = new Set<Connection>();
    const stop = new AbortController();
    setMaxListeners(0, stop.signal);
    const note = (line: string) => void notes.push(line);
    const options = { host: "127.0.0.1", port, signal: stop.signal, log: note };
    const server = await serve(options, async (connection) => {
      connections.add(connection);
      await session(connection, note, stop.signal).finally(() => connections.delete(connection));
    });
    return new NodeHere(server.port, notes, connections, stop, server.closed);
  }

  static mapper(port?: number): Promise<NodeHere> {
    return NodeHere.of(mapperSession, port);
  }

  static reducer(port?: number): Promise<NodeHere> {
    let sessions: ((connection: Connection) => Promise<void>) | undefined;
    return NodeHere.of((connection, note) => {
      sessions ??= reducerSessions(note);
      return sessions(connection);
    }, port);
  }

  /** As a kill -9 does: all its connections break, and nobody listens any more. */
  async kill(): Promise<void> {
    this.#stop.abort();
    for (const connection of this.#connections) connection.reset();
    await this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }
}

interface Counted {
  output: string;
  totals: Totals;
  /** What the master has said. */
  notes: string[];
}

/** A job of a master in this process, as `master.ts` does it. */
export async function countHere(
  path: string,
  reducer: Address,
  mappers: Readonly<Record<string, Address>>,
  options: Partial<JobOptions> & { partCount?: number } = {},
): Promise<Counted> {
  await using text = await open(path);
  const { size } = await text.stat();
  const count = options.partCount ?? Math.max(1, Math.floor(Object.keys(mappers).length / 2));
  const readAt = async (buffer: Buffer, offset: number) =>
    (await text.read(buffer, 0, buffer.length, offset)).bytesRead;
  const output: Buffer[] = [];
  const notes: string[] = [];
  const totals = await runJob({
    text,
    parts: await divide(size, count, readAt),
    reducer,
    mappers: new Map(Object.entries(mappers)),
    copies: 2,
    silenceMs: 3000,
    write: async (lines) => void output.push(Buffer.from(lines)),
    signal: new AbortController().signal,
    log: (line) => void notes.push(line),
    ...options,
  });
  return { output: Buffer.concat(output).toString(), totals, notes };
}
