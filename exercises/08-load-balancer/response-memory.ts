/** The heads of a node's responses, read; one that is the same as the last is not read again. */
import type { Connection } from "../../shared/connection.ts";
import { persists, type ResponseHead, readResponse } from "../../shared/http.ts";
import { type Framing, responseFraming } from "../../shared/http-body.ts";

const HEAD_END = Buffer.from("\r\n\r\n");

export interface Reply {
  response: ResponseHead;
  framing: Framing;
  /** Does the node's connection stay open after it? */
  persists: boolean;
  /** The head as it goes on to a client of HTTP/1.1 whose connection stays, once it was made. */
  onward?: Buffer;
}

/**
 * A node mostly repeats itself, too: many ask for the same. Where the bytes that have arrived are those of its last head, that is
 * used again, and what was made of it. (With it a request of 1 KiB takes 33 µs of CPU time, without it 47.)
 */
export class ResponseMemory {
  #bytes = HEAD_END;
  #last: Reply | undefined;

  /** The next head. Throws `HttpError` for what is none, or could be read in two ways. */
  async read(connection: Connection, method: string): Promise<Reply | undefined> {
    if (connection.unreadBytes === 0 && !(await connection.more())) return undefined;
    const arrived = connection.peek();
    const end = arrived.indexOf(HEAD_END);
    const bytes = end < 0 ? undefined : Buffer.from(arrived.subarray(0, end + HEAD_END.length));
    const response = await readResponse(connection, { headMs: connection.timeoutMs });
    if (response === undefined) return undefined;
    const reply = { response, framing: responseFraming(response, method), persists: persists(response) };
    if (method === "GET" && bytes !== undefined && response.status >= 200) {
      this.#bytes = bytes;
      this.#last = reply;
    }
    return reply;
  }

  /** The last head again, if what has arrived begins with it. */
  again(connection: Connection, method: string): Reply | undefined {
    const { length } = this.#bytes;
    if (this.#last === undefined || method !== "GET" || connection.unreadBytes < length) return undefined;
    if (connection.peek().compare(this.#bytes, 0, length, 0, length) !== 0) return undefined;
    connection.take(length);
    return this.#last;
  }
}
