/** The other end of a connection of the protocol: messages in and out, and a sign of life of ours at regular times. */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Connection } from "../../shared/connection.ts";
import { explain, Failure, isFailure, TimeoutError, UnexpectedEndError } from "../../shared/errors.ts";
import { encode } from "../../shared/pdu.ts";
import { BEATS_IN_SILENCE, MAX_MESSAGE_BYTES, Message, type MessageOf } from "./protocol.ts";

/** How long somebody who has connected may take for the first message. */
const FIRST_MESSAGE_MS = 5000;

interface Sign {
  /** What our signs of life say that we have counted. */
  countedBytes?: () => number;
  /** What those of the peer say. */
  onAlive?: (countedBytes: number) => void;
}

export class Peer implements Disposable {
  readonly connection: Connection;
  readonly #beat: NodeJS.Timeout;
  readonly #onAlive: NonNullable<Sign["onAlive"]>;

  /** Whoever is silent for `silenceMs`, or takes nothing for so long, is lost: then reading or writing fails. */
  constructor(
    connection: Connection,
    silenceMs: number,
    { countedBytes = () => 0, onAlive = () => {} }: Sign = {},
  ) {
    this.connection = connection;
    this.#onAlive = onAlive;
    connection.timeoutMs = silenceMs;
    this.#beat = setInterval(() => {
      // What is still on its way is a sign as well; on a dead path more and more would pile up.
      if (connection.unsentBytes > 0) return;
      this.send({ type: "alive", countedBytes: BigInt(countedBytes()) }).catch(() => {}); // its reader will notice
    }, silenceMs / BEATS_IN_SILENCE);
  }

  send(message: Message): Promise<void> {
    return this.connection.write(encode(Message, message));
  }

  /** The next message that is more than a sign of life; undefined when the peer has finished. Throws what it says is wrong. */
  async next(): Promise<Exclude<Message, { type: "alive" | "error" }> | undefined> {
    for (;;) {
      const message = await this.#read();
      if (message?.type === "error") throw new Failure(`it says: ${message.reason}`);
      if (message?.type !== "alive") return message;
      this.#onAlive(Number(message.countedBytes));
    }
  }

  /** Silence is the peer's only if nothing lies here: it may be that this process was the one that slept. */
  async #read(): Promise<Message | undefined> {
    for (;;) {
      try {
        return await this.connection.readPdu(Message, MAX_MESSAGE_BYTES);
      } catch (error) {
        const knownBytes = this.connection.unreadBytes;
        if (!(error instanceof TimeoutError)) throw error;
        await nextTurn();
        if (this.connection.unreadBytes === knownBytes) throw error;
      }
    }
  }

  /** The next message, which must be of one of these types. */
  async expect<T extends Message["type"]>(...types: T[]): Promise<MessageOf<T>> {
    const message = await this.next();
    if (message === undefined) throw new UnexpectedEndError(`it finished instead of ${types.join(" or ")}`);
    if ((types as string[]).includes(message.type)) return message as unknown as MessageOf<T>;
    throw new Failure(`a message ${message.type} came instead of ${types.join(" or ")}`);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#beat);
  }
}

/** The first message of somebody who has connected. */
export async function firstMessage(
  connection: Connection,
): Promise<MessageOf<"job" | "announce"> | undefined> {
  connection.timeoutMs = FIRST_MESSAGE_MS;
  const message = await connection.readPdu(Message, MAX_MESSAGE_BYTES);
  if (message === undefined || message.type === "job" || message.type === "announce") return message;
  throw new Failure(`a message ${message.type} came first`);
}

/** Runs a session; where it fails, the peer is told why before the connection is cut. */
export async function tellingWhy(connection: Connection, session: () => Promise<void>): Promise<void> {
  try {
    await session();
  } catch (error) {
    if (!isFailure(error)) throw error;
    const reason = explain(error).slice(0, 1000);
    if (!connection.closed && connection.unsentBytes === 0)
      await connection.write(encode(Message, { type: "error", reason })).catch(() => {});
    throw error;
  }
}
