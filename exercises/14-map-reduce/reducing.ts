/**
 * The reducer's side of the protocol. It alone decides what is counted: of each part one result, and that only when all of it
 * has arrived.
 */
import type { Connection } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { addLines, linesOf, mergeInto, sorted } from "./lines.ts";
import { checkJob, nameOf } from "./mapping.ts";
import { firstMessage, Peer, tellingWhy } from "./peer.ts";
import type { MessageOf, Totals } from "./protocol.ts";
import { TermTable } from "./term-table.ts";

type PartState = "open" | "granted" | "received";
type Debug = (line: string) => void;

class Job {
  readonly name: string;
  readonly silenceMs: number;
  readonly parts: PartState[];
  /** Settles when all parts are added up. */
  readonly complete: Promise<void>;
  /** Those who are talking about it: cut when it ends. */
  readonly connections = new Set<Connection>();
  table = new TermTable();
  invalidBytes = 0;
  longTerms = 0;
  readonly #master: Peer;
  #merged = 0;
  #merging: Promise<void> = Promise.resolve();
  #onComplete = () => {};
  #onFailure: (error: unknown) => void = () => {};

  constructor({ job, parts, silenceMs }: MessageOf<"job">, master: Peer) {
    this.name = nameOf(job);
    this.silenceMs = silenceMs;
    this.parts = Array.from({ length: parts }, () => "open");
    this.#master = master;
    this.complete = new Promise((resolve, reject) => {
      this.#onComplete = resolve;
      this.#onFailure = reject;
    });
    this.complete.catch(() => {}); // where its master has left, nobody waits for it
  }

  set(part: number, state: PartState): void {
    this.parts[part] = state;
    const told = state === "open" ? "dropped" : state;
    this.#master.send({ type: "partState", part, state: told }).catch(() => {}); // its reader will notice
  }

  /** Adds a part's result, after those that are being added. */
  add(table: TermTable, { invalidBytes, longTerms }: Totals): void {
    this.invalidBytes += Number(invalidBytes);
    this.longTerms += Number(longTerms);
    this.#merging = this.#merging.then(() => this.#merge(table)).catch(this.#onFailure);
  }

  async #merge(table: TermTable): Promise<void> {
    if (this.#merged === 0) this.table = table;
    else await mergeInto(this.table, table);
    this.#merged++;
    if (this.#merged === this.parts.length) this.#onComplete();
  }
}

/** The sessions of a reducer, for `serve()`: masters with their jobs, mappers with their results. */
export function reducerSessions(debug: Debug): (connection: Connection) => Promise<void> {
  const jobs = new Map<bigint, Job>();
  return (connection) =>
    tellingWhy(connection, async () => {
      const first = await firstMessage(connection);
      if (first?.type === "job") await masterSession(connection, first, jobs, debug);
      if (first?.type === "announce") await resultSession(connection, first, jobs.get(first.job), debug);
    });
}

async function masterSession(
  connection: Connection,
  first: MessageOf<"job">,
  jobs: Map<bigint, Job>,
  debug: Debug,
): Promise<void> {
  checkJob(first);
  if (jobs.has(first.job)) throw new Failure("there is a job of that number already");
  using master = new Peer(connection, first.silenceMs);
  const job = new Job(first, master);
  jobs.set(first.job, job);
  try {
    await master.send({ type: "ready", role: "reducer" });
    debug(`job ${job.name}: begun, parts: ${job.parts.length}`);
    const left = untilEnd(master);
    await Promise.race([left, output(job, master)]);
    debug(
      `job ${job.name}: ${job.parts.every((state) => state === "received") ? "done" : "its master has left"}`,
    );
  } finally {
    jobs.delete(first.job);
    for (const connection of job.connections) connection.reset();
  }
}

/** Listens to a master that has nothing more to say, for as long as it is there. */
async function untilEnd(master: Peer): Promise<void> {
  const message = await master.next();
  if (message !== undefined) throw new Failure(`a message ${message.type} came from a master`);
}

async function output(job: Job, master: Peer): Promise<void> {
  await job.complete;
  const { table, invalidBytes, longTerms } = job;
  for (const lines of linesOf(table, await sorted(table))) await master.send({ type: "result", lines });
  await master.send({ type: "jobDone", ...totals(table, invalidBytes, longTerms) });
}

const totals = ({ size, words }: TermTable, invalidBytes: number, longTerms: number): Totals => ({
  terms: size,
  words: BigInt(words),
  invalidBytes: BigInt(invalidBytes),
  longTerms: BigInt(longTerms),
});

async function resultSession(
  connection: Connection,
  { part }: MessageOf<"announce">,
  job: Job | undefined,
  debug: Debug,
): Promise<void> {
  using mapper = new Peer(connection, job?.silenceMs ?? connection.timeoutMs);
  if (job === undefined) return mapper.send({ type: "refuse", reason: "unknownJob" });
  const state = job.parts[part];
  if (state === undefined) throw new Failure(`part ${part} of ${job.parts.length}`);
  const who = `part ${part} of job ${job.name}, from ${connection.peer}`;
  if (state !== "open") {
    debug(`${who}: refused, ${state}`);
    return mapper.send({ type: "refuse", reason: state === "granted" ? "taken" : "received" });
  }
  debug(`${who}: granted`);
  job.set(part, "granted");
  job.connections.add(connection);
  try {
    await mapper.send({ type: "grant" });
    const { table, end } = await readResult(mapper);
    job.set(part, "received");
    debug(`${who}: received, terms: ${table.size}`);
    job.add(table, end);
    await mapper.send({ type: "received" });
  } finally {
    job.connections.delete(connection);
    if (job.parts[part] === "granted") job.set(part, "open");
  }
}

/** All of a result, apart from the others until it is whole. */
async function readResult(mapper: Peer): Promise<{ table: TermTable; end: Totals }> {
  const table = new TermTable();
  for (;;) {
    const message = await mapper.expect("result", "resultEnd");
    if (message.type === "result") addLines(table, message.lines);
    else if (message.terms === table.size && message.words === BigInt(table.words))
      return { table, end: message };
    else throw new Failure("the result is not what its end says");
  }
}
