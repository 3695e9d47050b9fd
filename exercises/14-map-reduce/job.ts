/** A master's side of the protocol: one job, from the text to the counted terms. */
import { randomBytes } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { type Connection, formatAddress } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { connect } from "../../shared/tcp.ts";
import { Board, type PartState } from "./board.ts";
import { chunksOf, type Part, type ReadAt } from "./parts.ts";
import { Peer } from "./peer.ts";
import type { MessageOf, Totals } from "./protocol.ts";
import { Worker } from "./worker.ts";

/** A mapper that is lost is looked for again after this. */
const RETRY_MS = 200;
/** A mapper with which nothing was done so many times in a row is given up. */
const MAX_FAILURES = 10;

export interface Address {
  host: string;
  port: number;
}

/** What happens, for a display. `state` "mapped" is the mapper's; the others are the reducer's word. */
export interface Progress {
  part: number;
  mapper?: string;
  countedBytes?: number;
  state?: PartState;
}

export interface JobOptions {
  text: FileHandle;
  /** None of them empty, but that of an empty text. */
  parts: readonly Part[];
  reducer: Address;
  mappers: ReadonlyMap<string, Address>;
  /** To how many mappers each part is given. */
  copies: number;
  /** Whoever says nothing for so long is lost. */
  silenceMs: number;
  /** Takes the output, in order. */
  write: (lines: Buffer) => Promise<unknown>;
  signal: AbortSignal;
  log: (line: string) => void;
  onProgress?: (progress: Progress) => void;
}

/** Counts the text. Throws `Failure` when the reducer is lost or there is no mapper left; what was written is then no result. */
export async function runJob(options: JobOptions): Promise<Totals> {
  const { reducer: address, silenceMs, signal } = options;
  const where = `the reducer at ${formatAddress(address.host, address.port)}`;
  const connection = await connect({ ...address, timeoutMs: silenceMs, signal }).catch((error) => {
    throw new Failure("cannot reach the reducer", { cause: error });
  });
  const job = new MasterJob(options);
  const stop = () => connection.destroy();
  signal.addEventListener("abort", stop, { once: true });
  using reducer = new Peer(connection, silenceMs);
  try {
    await reducer.send(job.announcement);
    const { role } = await reducer.expect("ready");
    if (role !== "reducer") throw new Failure(`a ${role} answers there`);
    return await job.run(reducer);
  } catch (error) {
    if (!isFailure(error) || error instanceof JobFailure) throw error;
    throw new Failure(`lost ${where}`, { cause: error });
  } finally {
    signal.removeEventListener("abort", stop);
    connection.destroy();
  }
}

/** Not the reducer's fault. */
class JobFailure extends Failure {}
const cannotWrite = (error: unknown) => {
  throw new JobFailure("cannot write the output", { cause: error });
};

class MasterJob {
  readonly announcement: MessageOf<"job">;
  readonly #options: JobOptions;
  readonly #board: Board;
  readonly #ended = new AbortController();
  /** Those with whom we talk. */
  readonly #joined = new Set<string>();
  readonly #failures = new Map<string, string>();
  /** Rejects when the job cannot go on. */
  readonly #failed: Promise<never>;
  #fail: (failure: Failure) => void = () => {};
  #alone: NodeJS.Timeout | undefined;
  /** Mappers that wait for a part to become open. */
  #waiting: (() => void)[] = [];

  constructor(options: JobOptions) {
    const { parts, reducer, silenceMs, copies } = options;
    this.#options = options;
    this.#board = new Board(parts.length, copies);
    this.announcement = {
      type: "job",
      job: randomBytes(8).readBigUInt64BE(),
      parts: parts.length,
      silenceMs,
      reducerHost: reducer.host,
      reducerPort: reducer.port,
    };
    this.#failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.#failed.catch(() => {});
  }

  async run(reducer: Peer): Promise<Totals> {
    this.#setAlarm();
    const workers = [...this.#options.mappers].map(([name, address]) => this.#work(name, address));
    const given = Promise.all(workers).then(() => {
      throw this.#noMapper();
    });
    try {
      return await Promise.race([this.#collect(reducer), this.#failed, given]);
    } finally {
      this.#ended.abort();
      await Promise.allSettled(workers);
      clearTimeout(this.#alone); // set again as the last of them left
    }
  }

  /** What the reducer says, to the end of the output. */
  async #collect(reducer: Peer): Promise<Totals> {
    for (;;) {
      const message = await reducer.expect("partState", "result", "jobDone");
      if (message.type === "result") await this.#options.write(message.lines).catch(cannotWrite);
      else if (message.type === "partState") this.#onPartState(message);
      else if (this.#board.isDone) return message;
      else throw new Failure("it ended the job before it had all parts");
    }
  }

  #onPartState({ part, state: told }: MessageOf<"partState">): void {
    const state = told === "dropped" ? "open" : told;
    if (told === "dropped") this.#options.log(`part ${part}: its result was lost on the way`);
    this.#board.set(part, state);
    this.#options.onProgress?.({ part, state });
    this.#wake();
  }

  /** A mapper's whole life, as far as this job goes: found, given parts, lost, found again. */
  async #work(name: string, address: Address): Promise<void> {
    const { signal } = this.#ended;
    for (let failures = 0; failures < MAX_FAILURES; ) {
      const hadJoined = await this.#session(name, address, () => {
        failures = 0;
      });
      if (signal.aborted) return;
      if (hadJoined) failures++;
      await delay(RETRY_MS, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
    }
    this.#options.log(`${name}: given up, it failed ${MAX_FAILURES} times in a row`);
  }

  /** One connection with it, until it breaks. Was it of any use, that is, had it joined? */
  async #session(name: string, address: Address, onUse: () => void): Promise<boolean> {
    const { silenceMs } = this.#options;
    const { signal } = this.#ended;
    let connection: Connection | undefined;
    const cut = () => connection?.destroy();
    try {
      connection = await connect({ ...address, timeoutMs: silenceMs, signal });
      signal.addEventListener("abort", cut, { once: true });
      using worker = new Worker(connection, silenceMs, name, this.#options.onProgress);
      await worker.greet(this.announcement);
      this.#join(name);
      await this.#giveParts(worker, onUse);
    } catch (error) {
      if (!isFailure(error)) throw error;
      if (!signal.aborted) this.#note(name, explain(error));
    } finally {
      signal.removeEventListener("abort", cut);
      cut();
    }
    return this.#leave(name);
  }

  async #giveParts(worker: Worker, onUse: () => void): Promise<never> {
    const { parts } = this.#options;
    const lost = worker.listen();
    for (;;) {
      const number = await Promise.race([this.#nextPart(worker), lost]);
      const part = parts[number] as Part;
      const done = worker.count(number, part.sizeBytes, chunksOf(part, this.#readAt));
      const { outcome, reason } = await Promise.race([done, lost]);
      this.#board.release(worker.name);
      this.#wake();
      if (outcome === "failed") throw new Failure(`it could not deliver part ${number}: ${reason}`);
      onUse();
    }
  }

  async #nextPart(worker: Worker): Promise<number> {
    for (;;) {
      if (worker.isLost) throw new Failure("it was lost while it had nothing to do");
      const part = this.#board.take(worker.name);
      if (part !== undefined) return part;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** That the text cannot be read is no mapper's fault: the job has failed. */
  #readAt: ReadAt = async (buffer, offset) => {
    try {
      const { bytesRead } = await this.#options.text.read(buffer, 0, buffer.length, offset);
      if (bytesRead > 0) return bytesRead;
      throw new Failure("it has become shorter");
    } catch (error) {
      if (!isFailure(error)) throw error;
      const failure = new JobFailure("cannot read the text", { cause: error });
      this.#fail(failure);
      throw failure;
    }
  };

  #join(name: string): void {
    clearTimeout(this.#alone);
    if (this.#failures.delete(name)) this.#options.log(`${name}: is back`);
    this.#joined.add(name);
  }

  #leave(name: string): boolean {
    const hadJoined = this.#joined.delete(name);
    this.#board.release(name);
    this.#wake();
    if (hadJoined && this.#joined.size === 0) this.#setAlarm();
    return hadJoined;
  }

  /** Says what a mapper has, but not again and again. */
  #note(name: string, reason: string): void {
    if (!this.#failures.has(name)) this.#options.log(`${name}: lost, ${reason}`);
    this.#failures.set(name, reason);
  }

  #setAlarm(): void {
    clearTimeout(this.#alone);
    this.#alone = setTimeout(() => this.#fail(this.#noMapper()), this.#options.silenceMs);
  }

  #noMapper(): Failure {
    return new JobFailure("cannot count: no mapper is left; start one with mapper.ts");
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}
