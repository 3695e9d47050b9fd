/** The record layer: messages in order, sealed or clear, over a connection. */
import type { Connection } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { decode, encode } from "../../shared/pdu.ts";
import { open, seal } from "./crypto.ts";
import { MAX_RECORD_BYTES, MAX_RECORDS, Message, Record, TAG_BYTES } from "./protocol.ts";

const NONCE_BYTES = 12;
const HEADER_BYTES = 5;

/** One direction: its key, and how many records it has sealed or opened. */
export class Direction {
  readonly #key: Buffer;
  readonly #nonce = Buffer.alloc(NONCE_BYTES);
  #count = 0;

  constructor(key: Buffer) {
    this.#key = key;
  }

  /** The next nonce: the number of the record, so that it is never used twice and never sent. */
  #next(): Buffer {
    if (this.#count >= MAX_RECORDS) throw new Failure(`${MAX_RECORDS} records have passed under one key`);
    this.#nonce.writeBigUInt64BE(BigInt(this.#count++), NONCE_BYTES - 8);
    return this.#nonce;
  }

  seal(plain: Buffer, header: Buffer): Buffer {
    return seal(this.#key, this.#next(), plain, header);
  }

  /** Throws `Failure` unless this is the next record of the peer, whole and unchanged. */
  open(sealed: Buffer, header: Buffer): Buffer {
    const plain = open(this.#key, this.#next(), sealed, header);
    if (plain !== undefined) return plain;
    throw new Failure("a record was altered, replayed, left out or not made by the peer");
  }
}

/** The first bytes of a sealed record, type and length: sealed in with the rest, as what is associated with it. */
function headerOf(ciphertextBytes: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt8(3, 0);
  header.writeUInt32BE(ciphertextBytes, 1);
  return header;
}

export class Channel {
  readonly connection: Connection;
  readonly #out: Direction;
  readonly #in: Direction;
  #isClear = false;

  constructor(connection: Connection, out: Direction, incoming: Direction) {
    this.connection = connection;
    this.#out = out;
    this.#in = incoming;
  }

  /** From now on nothing is sealed any more, in either direction. */
  goClear(): void {
    this.#isClear = true;
  }

  /** Sends, and waits while the peer is not taking what was sent before. Calls keep their order. */
  send(message: Message): Promise<void> {
    if (this.#isClear) return this.connection.write(encode(Record, { type: "clear", message }));
    const plain = encode(Message, message);
    const header = headerOf(plain.length + TAG_BYTES);
    return this.connection.write(Buffer.concat([header, this.#out.seal(plain, header)]));
  }

  /** The peer's next message; undefined when it has finished on a record's boundary. Throws `Failure`. */
  async receive(limitBytes = MAX_RECORD_BYTES): Promise<Message | undefined> {
    const record = await this.connection.readPdu(Record, limitBytes);
    if (record === undefined) return undefined;
    if (record.type === "clear" && this.#isClear) return record.message;
    if (record.type !== "sealed" || this.#isClear)
      throw new Failure(
        `a ${record.type} record came where only ${this.#isClear ? "clear" : "sealed"} ones may`,
      );
    return decode(Message, this.#in.open(record.ciphertext, headerOf(record.ciphertext.length)));
  }
}
