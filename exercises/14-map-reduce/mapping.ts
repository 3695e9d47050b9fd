/** A mapper's side of the protocol: counts the parts that a master sends, and offers each result to the reducer. */
import { setTimeout as delay } from "node:timers/promises";
import type { Connection } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { connect } from "../../shared/tcp.ts";
import { linesOf } from "./lines.ts";
import { firstMessage, Peer, tellingWhy } from "./peer.ts";
import { MAX_SILENCE_MS, type MessageOf, MIN_SILENCE_MS } from "./protocol.ts";
import { Tokenizer } from "./tokenizer.ts";

type Job = MessageOf<"job">;
type Debug = (line: string) => void;
type Delivery = Pick<MessageOf<"partDone">, "outcome" | "reason">;

/** A result that could not be delivered is offered again after this. */
const RETRY_MS = 200;

/** Throws `Failure` where a job is not one that can be worked on. */
export function checkJob({ parts, silenceMs }: Job): void {
  if (parts === 0) throw new Failure("a job without parts");
  if (silenceMs < MIN_SILENCE_MS || silenceMs > MAX_SILENCE_MS)
    throw new Failure(`a silence of ${silenceMs} ms; it must be from ${MIN_SILENCE_MS} to ${MAX_SILENCE_MS}`);
}

export const nameOf = (job: bigint) => job.toString(16).padStart(16, "0").slice(0, 4);

/** A session of `serve()`: a master, from its job to its end. */
export function mapperSession(connection: Connection, debug: Debug): Promise<void> {
  return tellingWhy(connection, async () => {
    const job = await firstMessage(connection);
    if (job === undefined) return;
    if (job.type !== "job") throw new Failure("this is a mapper: only masters connect to it");
    checkJob(job);
    await new Mapping(connection, job, debug).run();
  });
}

class Mapping {
  readonly #peer: Peer;
  readonly #job: Job;
  readonly #debug: Debug;
  /** The part that is coming in. */
  #current: { part: number; missingBytes: number; tokenizer: Tokenizer } | undefined;
  #countedBytes = 0;
  /** Is a result on its way to the reducer? */
  #isDelivering = false;
  /** Ends that, when the master has gone. */
  readonly #ended = new AbortController();

  constructor(connection: Connection, job: Job, debug: Debug) {
    this.#peer = new Peer(connection, job.silenceMs, { countedBytes: () => this.#countedBytes });
    this.#job = job;
    this.#debug = debug;
  }

  async run(): Promise<void> {
    const name = nameOf(this.#job.job);
    try {
      await this.#peer.send({ type: "ready", role: "mapper" });
      this.#debug(`job ${name}: begun`);
      for (let message = await this.#peer.next(); message !== undefined; message = await this.#peer.next()) {
        if (message.type === "part") this.#begin(message);
        else if (message.type === "chunk") this.#count(message.data);
        else throw new Failure(`a message ${message.type} came from a master`);
      }
      this.#debug(`job ${name}: its master has finished`);
    } finally {
      this.#ended.abort();
      this.#peer[Symbol.dispose]();
    }
  }

  #begin({ part, sizeBytes }: MessageOf<"part">): void {
    if (this.#current !== undefined || this.#isDelivering)
      throw new Failure("a part came before the last was done");
    if (part >= this.#job.parts) throw new Failure(`part ${part} of ${this.#job.parts}`);
    this.#debug(`part ${part}: begun, ${sizeBytes} bytes`);
    this.#current = { part, missingBytes: Number(sizeBytes), tokenizer: new Tokenizer() };
    this.#countedBytes = 0;
    this.#deliverIfWhole();
  }

  #count(data: Buffer): void {
    const current = this.#current;
    if (current === undefined || data.length > current.missingBytes)
      throw new Failure("more came than the part has");
    current.tokenizer.push(data);
    current.missingBytes -= data.length;
    this.#countedBytes += data.length;
    this.#deliverIfWhole();
  }

  #deliverIfWhole(): void {
    if (this.#current?.missingBytes !== 0) return;
    const { part, tokenizer } = this.#current;
    this.#current = undefined;
    tokenizer.end();
    this.#isDelivering = true;
    void this.#finish(part, tokenizer);
  }

  /** Runs beside the reading: the master must be heard while the reducer is talked to. */
  async #finish(part: number, tokenizer: Tokenizer): Promise<void> {
    const { outcome, reason } = await this.#deliver(part, tokenizer);
    this.#isDelivering = false;
    this.#debug(`part ${part}: ${outcome}${reason === "" ? "" : `, ${reason}`}`);
    await this.#peer.send({ type: "partDone", part, outcome, reason }).catch(() => {}); // the reader has noticed
  }

  /** A way to the reducer that is broken for less than the silence makes nobody lost: then the result is offered again. */
  async #deliver(part: number, tokenizer: Tokenizer): Promise<Delivery> {
    const { signal } = this.#ended;
    const lostMs = performance.now() + this.#job.silenceMs;
    for (;;) {
      const delivery = await this.#offer(part, tokenizer);
      if (delivery.outcome !== "failed" || signal.aborted || performance.now() >= lostMs) return delivery;
      this.#debug(`part ${part}: ${delivery.reason}; trying again`);
      await delay(RETRY_MS, undefined, { signal }).catch(() => {});
    }
  }

  async #offer(part: number, tokenizer: Tokenizer): Promise<Delivery> {
    const { job, reducerHost: host, reducerPort: port, silenceMs } = this.#job;
    const { signal } = this.#ended;
    let connection: Connection | undefined;
    const cut = () => connection?.reset();
    try {
      connection = await connect({ host, port, timeoutMs: silenceMs / 2, signal });
      connection.timeoutMs = silenceMs;
      signal.addEventListener("abort", cut, { once: true });
      using reducer = new Peer(connection, silenceMs);
      await reducer.send({ type: "announce", job, part });
      const answer = await reducer.expect("grant", "refuse");
      if (answer.type === "refuse") return { outcome: "refused", reason: answer.reason };
      this.#debug(`part ${part}: granted`);
      await sendResult(reducer, tokenizer);
      await reducer.expect("received");
      return { outcome: "delivered", reason: "" };
    } catch (error) {
      if (!isFailure(error)) throw error;
      cut();
      return { outcome: "failed", reason: explain(error).slice(0, 1000) };
    } finally {
      signal.removeEventListener("abort", cut);
      void connection?.close();
    }
  }
}

async function sendResult(reducer: Peer, { table, invalidBytes, longTerms }: Tokenizer): Promise<void> {
  for (const lines of linesOf(table)) await reducer.send({ type: "result", lines });
  await reducer.send({
    type: "resultEnd",
    terms: table.size,
    words: BigInt(table.words),
    invalidBytes: BigInt(invalidBytes),
    longTerms: BigInt(longTerms),
  });
}
