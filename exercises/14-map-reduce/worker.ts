/** A mapper as its master sees it: it is greeted, counts one part after the other, and is lost some day. */
import type { Connection } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import type { Progress } from "./job.ts";
import { Peer } from "./peer.ts";
import type { MessageOf } from "./protocol.ts";

export class Worker implements Disposable {
  readonly name: string;
  isLost = false;
  readonly #peer: Peer;
  #part = 0;
  #onDone: ((done: MessageOf<"partDone">) => void) | undefined;

  constructor(
    connection: Connection,
    silenceMs: number,
    name: string,
    onProgress: ((progress: Progress) => void) | undefined,
  ) {
    const onAlive = (countedBytes: number) => onProgress?.({ part: this.#part, mapper: name, countedBytes });
    this.#peer = new Peer(connection, silenceMs, { onAlive });
    this.name = name;
  }

  async greet(job: MessageOf<"job">): Promise<void> {
    await this.#peer.send(job);
    const { role } = await this.#peer.expect("ready");
    if (role !== "mapper") throw new Failure(`a ${role} answers there`);
  }

  /** Listens from now on, whatever is sent to it meanwhile. Rejects when it is lost. */
  listen(): Promise<never> {
    return this.#listen().catch((error) => {
      this.isLost = true;
      this.#peer.connection.destroy();
      throw error;
    });
  }

  async #listen(): Promise<never> {
    for (;;) {
      const done = await this.#peer.expect("partDone");
      if (this.#onDone === undefined || done.part !== this.#part)
        throw new Failure(`part ${done.part} was not its`);
      this.#onDone(done);
      this.#onDone = undefined;
    }
  }

  /** Sends it a part, and says what has become of that. A chunk may be overwritten when the next is asked for. */
  async count(
    part: number,
    sizeBytes: number,
    chunks: AsyncIterable<Buffer>,
  ): Promise<MessageOf<"partDone">> {
    this.#part = part;
    const done = new Promise<MessageOf<"partDone">>((resolve) => {
      this.#onDone = resolve;
    });
    await this.#peer.send({ type: "part", part, sizeBytes: BigInt(sizeBytes) });
    for await (const data of chunks) await this.#peer.send({ type: "chunk", data });
    return done;
  }

  [Symbol.dispose](): void {
    this.#peer[Symbol.dispose]();
  }
}
