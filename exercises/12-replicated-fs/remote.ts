/** The replicated directory as a client sees it: one file system, whichever node is master. It reconnects by itself. */
import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { hostPort } from "../../shared/config.ts";
import type { Connection } from "../../shared/connection.ts";
import { formatAddress } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { decode, encode } from "../../shared/pdu.ts";
import { dial, nextFrame } from "./link.ts";
import { CHUNK_BYTES, Command, frame, Item, NO_REQUEST, type Operation, PORT, Result } from "./protocol.ts";

type Address = { host: string; port: number };
export interface Listed {
  path: string;
  item: Item;
}
interface RemoteOptions {
  /** Where to begin; the other nodes are learned from whoever answers. */
  nodes: readonly Address[];
  secret: Buffer;
  /** For how long an operation is tried again while there is no master, in milliseconds. */
  patienceMs: number;
  signal: AbortSignal;
  debug: (line: string) => void;
}
type Extra = Partial<Pick<Command, "recursive" | "mode" | "to">>;
/** Gives the content from its beginning, as often as it is asked: a write may have to be repeated. */
export type Source = () => AsyncIterable<Buffer>;
type OnChunk = (data: Buffer) => Promise<void> | void;

const READS: readonly Operation[] = ["stat", "list", "walk", "read", "df", "nodes"];
const AGAIN_MS = 150;
const ANSWER_MS = 20_000;

/** The node cannot do it now: another may, or this one later. */
class NotHere extends Failure {}

export class Remote implements AsyncDisposable {
  readonly #options: RemoteOptions;
  #nodes: Address[];
  #at: { connection: Connection; address: Address } | undefined;
  /** Where the master is, by the last node that was asked. */
  #hint: Address | undefined;
  #isInterrupted = false;

  constructor(options: RemoteOptions) {
    this.#options = options;
    this.#nodes = [...options.nodes];
  }

  /** Ends what is being done, and what would follow, until `resume`. */
  interrupt(): void {
    this.#isInterrupted = true;
    this.#at?.connection.destroy();
  }
  resume(): void {
    this.#isInterrupted = false;
  }

  /** The node that answered last. */
  get address(): string {
    const address = this.#at?.address ?? this.#nodes[0];
    return address === undefined ? "?" : formatAddress(address.host, address.port);
  }

  async stat(path: string): Promise<Item> {
    return (await this.#ask("stat", path)).items[0]?.item as Item;
  }
  /** The path itself, then what is in it. */
  async list(path: string): Promise<Listed[]> {
    return (await this.#ask("list", path)).items;
  }
  /** The path and all below, parents first. */
  async walk(path: string): Promise<Listed[]> {
    return (await this.#ask("walk", path)).items;
  }
  async read(path: string, onChunk: OnChunk): Promise<Item> {
    return (await this.#ask("read", path, {}, undefined, onChunk)).items[0]?.item as Item;
  }
  async write(path: string, source: Source, mode = 0): Promise<void> {
    await this.#ask("write", path, { mode }, source);
  }
  /** Any other operation; its text. */
  async do(operation: Operation, path: string, extra: Extra = {}): Promise<string> {
    return (await this.#ask(operation, path, extra)).text;
  }

  async #ask(operation: Operation, path: string, extra: Extra = {}, source?: Source, onChunk?: OnChunk) {
    const isRead = READS.includes(operation);
    const request = isRead ? NO_REQUEST : randomBytes(NO_REQUEST.length);
    const command = encode(Command, { operation, recursive: 0, mode: 0, to: "", ...extra, request });
    const giveUpAt = performance.now() + this.#options.patienceMs;
    let isStarted = false;
    let told: unknown; // why not, by a node that was reached: it says more than that another was not
    for (let attempt = 0; ; attempt++) {
      if (this.#isInterrupted) throw new Failure(`interrupted: ${operation} ${JSON.stringify(`/${path}`)}`);
      try {
        const { connection } = await this.#connect(attempt);
        const onFirst: OnChunk | undefined =
          onChunk &&
          ((data) => {
            isStarted = true;
            return onChunk(data);
          });
        return await exchange(connection, path, command, source, onFirst);
      } catch (error) {
        if (!isFailure(error) || (error instanceof Failure && error.name === "Refused")) throw error;
        this.#onFailure(error);
        if (this.#isInterrupted) continue;
        if (error instanceof NotHere) told = error;
        const isOver = performance.now() > giveUpAt || this.#options.signal.aborted;
        // Of a content that has been passed on in part, the rest of another would not do.
        if (isOver || isStarted)
          throw new Failure(`cannot ${operation} ${JSON.stringify(`/${path}`)}`, { cause: told ?? error });
        this.#options.debug(`${explain(error)}; trying again`);
        await delay(this.#hint === undefined ? AGAIN_MS : 10);
      }
    }
  }

  #onFailure(error: unknown): void {
    const where = error instanceof Elsewhere ? error.address : undefined;
    this.#at?.connection.destroy();
    this.#at = undefined;
    this.#hint = where;
  }

  async #connect(attempt: number): Promise<{ connection: Connection }> {
    if (this.#at !== undefined && !this.#at.connection.closed) return this.#at;
    const { secret, signal } = this.#options;
    const address = this.#hint ?? this.#nodes[attempt % this.#nodes.length];
    this.#hint = undefined;
    if (address === undefined) throw new Failure("no node is known");
    const { connection } = await dial({ ...address, secret, id: 0, timeoutMs: 1500, signal });
    connection.timeoutMs = ANSWER_MS;
    this.#at = { connection, address };
    await this.#learn(connection);
    return this.#at;
  }

  /** Who else is there: should this one die, they are asked. */
  async #learn(connection: Connection): Promise<void> {
    const command = encode(Command, {
      operation: "nodes",
      recursive: 0,
      mode: 0,
      to: "",
      request: NO_REQUEST,
    });
    const { text } = await exchange(connection, "", command);
    for (const line of text.split("\n").slice(1)) {
      const address = hostPort(PORT)(line.split("\t")[1] ?? "");
      const isKnown = this.#nodes.some(({ host, port }) => host === address.host && port === address.port);
      if (!isKnown) this.#nodes.push(address);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#at?.connection.close();
  }
}

class Elsewhere extends Failure {
  readonly address: Address;
  constructor(text: string) {
    super(`the master is ${text}`);
    this.address = hostPort(PORT)(text);
  }
}
/** The node understood, and the answer is no. */
export class Refused extends Failure {
  override name = "Refused";
}

async function exchange(
  connection: Connection,
  path: string,
  command: Buffer,
  source?: Source,
  onChunk?: OnChunk,
) {
  await connection.write(frame(0, "remote", path, command));
  // An answer that comes while chunks are still being sent ends the sending with the connection.
  if (source !== undefined) {
    for await (const data of source())
      for (let at = 0; at < data.length; at += CHUNK_BYTES)
        await connection.write(frame(0, "chunk", "", data.subarray(at, at + CHUNK_BYTES)));
    await connection.write(frame(0, "chunk"));
  }
  const items: Listed[] = [];
  while (true) {
    const got = await nextFrame(connection);
    if (got.action === "manifest") items.push({ path: got.path, item: decode(Item, Buffer.from(got.data)) });
    else if (got.action === "chunk") await onChunk?.(got.data);
    else {
      const { outcome, text } = decode(Result, got.data);
      if (outcome === "done") return { items, text };
      if (outcome === "waiting") continue;
      if (outcome === "elsewhere") throw new Elsewhere(text);
      throw outcome === "failed" ? new Refused(text) : new NotHere(text);
    }
  }
}
