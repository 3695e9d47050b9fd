/**
 * A station's links: one to its successor, which by-passes stations that are not there and comes back to them
 * when they are, and those on which predecessors send to it.
 */
import { setTimeout as delay } from "node:timers/promises";
import { type Connection, TimeoutError } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { encode } from "../../shared/pdu.ts";
import { connect } from "../../shared/tcp.ts";
import { Frame, frameOf, MAX_FRAME_BYTES, type Meaning, ringFrom, understand } from "./protocol.ts";

/** A link that carries nothing else is probed so often, */
const PROBE_INTERVAL_MS = 250;
/** and given up when the successor has been silent for so long. */
const SILENCE_MS = 800;
const CONNECT_TIMEOUT_MS = 500;
/** How often a by-passed station is tried again. */
const RETRY_INTERVAL_MS = 500;
/** What may wait for a successor. One message is under way at a time, so more is a fault and is dropped. */
const MAX_QUEUED_FRAMES = 64;

export type Address = { host: string; port: number };

export interface LinksOptions {
  id: number;
  /** The station that comes next when it is there. */
  first: number;
  members: ReadonlyMap<number, Address>;
  signal: AbortSignal;
  log: (line: string) => void;
  debug: (line: string) => void;
  /** The latest generation known here, which probes carry. */
  generation: () => number;
  /** Has the ring been complete once? Until then the first successor is waited for. */
  mayBypass: () => boolean;
  /** The newest link of each predecessor, and when it began. */
  newest: Map<number, { connection: Connection; sinceMs: number }>;
  /** Then probes are not answered any more. */
  isLeaving: () => boolean;
  /** A neighbour's probe said which generation it knows of, 0 for none. */
  onHeard: (generation: number) => void;
  onSuccessor: (id: number | undefined) => void;
}

interface SuccessorLink {
  send(meaning: Meaning): void;
  /** Resolves when all that was sent has been written and the link is closed. */
  close(): Promise<void>;
}

/** A connection whose other end has shown that it is the station we want. */
interface Open {
  id: number;
  connection: Connection;
  /** Resolves when the link is of no more use. */
  lost: Promise<void>;
}

/** Two waits, not one: when this process has been held up, the first ends before what has arrived is looked at. */
async function patientRead(connection: Connection): Promise<Frame | undefined> {
  for (let wait = 1; ; wait++) {
    try {
      return await connection.readPdu(Frame, MAX_FRAME_BYTES);
    } catch (error) {
      if (!(error instanceof TimeoutError)) throw error;
      if (wait === 2) throw new Failure(`the peer sent nothing for ${SILENCE_MS} ms`);
    }
  }
}

export function successorLink(options: LinksOptions): SuccessorLink {
  const { id, first, members, signal, debug, generation, mayBypass, onHeard, onSuccessor } = options;
  const order = ringFrom(id, first, [...members.keys()]);
  const queue: Meaning[] = [];
  let current: Open | undefined;
  let writing: Promise<void> | undefined;

  const probe = (to: number) =>
    encode(Frame, frameOf({ kind: "probe", idSource: id, idDestination: to, generation: generation() }));

  /** Connects to a station and waits for its answer to a probe; undefined when it is not there. */
  async function open(to: number): Promise<Open | undefined> {
    const address = members.get(to);
    if (address === undefined) return undefined;
    let connection: Connection | undefined;
    try {
      connection = await connect({ ...address, timeoutMs: CONNECT_TIMEOUT_MS, signal });
      connection.timeoutMs = SILENCE_MS / 2;
      await connection.write(probe(to));
      await answer(connection, to);
      return { id: to, connection, lost: watch(connection, to) };
    } catch (error) {
      connection?.destroy();
      if (!isFailure(error)) throw error;
      debug(`station ${to}: ${explain(error)}`);
      return undefined;
    }
  }

  async function answer(connection: Connection, from: number): Promise<void> {
    const frame = await patientRead(connection);
    if (frame === undefined) throw new Failure("the successor closed the link");
    const meaning = understand(frame);
    if (meaning.kind !== "probe" || meaning.idSource !== from)
      throw new Failure(`station ${from} did not answer the probe`);
    onHeard(meaning.generation);
  }

  /** Probes until the successor is silent or gone. */
  async function watch(connection: Connection, to: number): Promise<void> {
    const timer = setInterval(() => connection.write(probe(to)).catch(() => {}), PROBE_INTERVAL_MS);
    try {
      while (true) await answer(connection, to);
    } catch (error) {
      connection.destroy();
      if (!isFailure(error)) throw error;
      if (current?.connection === connection) debug(`station ${to} is lost: ${explain(error)}`);
    } finally {
      clearInterval(timer);
    }
  }

  function use(link: Open): void {
    const old = current;
    current = link;
    onSuccessor(link.id);
    void old?.connection.close(); // in order, so that what it still carries arrives
    void link.lost.then(() => {
      if (current !== link) return;
      current = undefined;
      onSuccessor(undefined);
    });
    flush();
  }

  function flush(): void {
    writing ??= (async () => {
      for (let meaning = queue[0]; meaning !== undefined && current; meaning = queue[0]) {
        queue.shift();
        // A frame that was handed over may be lost with the link; the station's timers make up for it.
        await current.connection.write(encode(Frame, frameOf(meaning))).catch(() => {});
      }
    })().finally(() => {
      writing = undefined;
    });
  }

  /** Looks for the nearest station that is there, and while there is one, for a nearer one. */
  async function search(): Promise<void> {
    let fellSilent: number | undefined;
    while (!signal.aborted) {
      const inReach = mayBypass() ? order.slice(0, current && order.indexOf(current.id)) : order.slice(0, 1);
      for (const candidate of inReach) {
        // One that has just fallen silent would only keep us waiting again: the others come first.
        if (candidate === current?.id || candidate === fellSilent) continue;
        const link = await open(candidate);
        if (link === undefined) continue;
        use(link);
        break;
      }
      const used = current;
      const pause = delay(used ? RETRY_INTERVAL_MS : RETRY_INTERVAL_MS / 5, undefined, { signal });
      await Promise.race([pause.catch(() => {}), used?.lost ?? pause.catch(() => {})]);
      fellSilent = used !== undefined && current === undefined ? used.id : undefined;
    }
  }

  const searching = search();
  return {
    send(meaning) {
      queue.push(meaning);
      if (queue.length > MAX_QUEUED_FRAMES) queue.shift();
      flush();
    },
    async close() {
      await searching;
      await writing;
      await current?.connection.close();
    },
  };
}

/** Reads what a predecessor sends, to its end: a session of `serve()`. */
export async function predecessorLink(
  connection: Connection,
  { id, members, log, generation, newest, isLeaving, onHeard }: Omit<LinksOptions, "first" | "onSuccessor">,
  onFrame: (meaning: Meaning) => void,
): Promise<void> {
  let predecessor: number | undefined;
  let hasTwin = false;
  connection.timeoutMs = 4 * SILENCE_MS;
  for (;;) {
    const frame = await connection.readPdu(Frame, MAX_FRAME_BYTES);
    if (frame === undefined) return;
    const meaning = understand(frame);
    if (meaning.kind !== "probe") {
      if (predecessor === undefined) throw new Failure("a link must begin with a probe");
      onFrame(meaning);
      continue;
    }
    const { idSource, idDestination } = meaning;
    if (idDestination !== id) throw new Failure(`station ${idDestination} is wanted, this is station ${id}`);
    if (!members.has(idSource)) throw new Failure(`station ${idSource} is not in the configuration`);
    const { connection: other, sinceMs = 0 } = newest.get(idSource) ?? {};
    if (predecessor === undefined) newest.set(idSource, { connection, sinceMs: performance.now() });
    else if (other !== connection && !hasTwin && performance.now() > sinceMs + SILENCE_MS) {
      hasTwin = true;
      log(`station ${idSource} probes on two links: do two programs have its id?`);
    }
    predecessor = idSource;
    onHeard(meaning.generation);
    if (isLeaving()) continue;
    await connection.write(
      encode(
        Frame,
        frameOf({ kind: "probe", idSource: id, idDestination: idSource, generation: generation() }),
      ),
    );
  }
}
