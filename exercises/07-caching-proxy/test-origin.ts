/** What the tests stand on: an origin that does as each test says, and a client of the proxy. */
import type { Connection } from "../../shared/connection.ts";
import {
  type Fields,
  type RequestHead,
  type ResponseHead,
  readResponse,
  requestReader,
} from "../../shared/http.ts";
import { readBody, requestFraming, responseFraming } from "../../shared/http-body.ts";
import { connect, serve } from "../../shared/tcp.ts";

interface OriginRequest extends RequestHead {
  body: Buffer;
  /** Counts the connections of this origin, from 1. */
  connectionNumber: number;
}
/** Returns false to have the connection closed. */
type Handler = (connection: Connection, request: OriginRequest) => Promise<unknown>;

export class TestOrigin implements AsyncDisposable {
  readonly #stop = new AbortController();
  readonly #handlers = new Map<string, Handler>();
  #server: Awaited<ReturnType<typeof serve>> | undefined;
  #connections = 0;
  readonly requests: OriginRequest[] = [];

  static async start(): Promise<TestOrigin> {
    const origin = new TestOrigin();
    const options = { host: "127.0.0.1", port: 0, signal: origin.#stop.signal, log: () => {} };
    origin.#server = await serve(options, (connection) => origin.#session(connection));
    return origin;
  }

  get port(): number {
    return this.#server?.port ?? 0;
  }
  url(path: string): string {
    return `http://127.0.0.1:${this.port}${path}`;
  }
  count(path: string): number {
    return this.requests.filter(({ target }) => target === path).length;
  }

  /** What is done with requests for the path. */
  on(path: string, handler: Handler): string {
    this.#handlers.set(path, handler);
    return this.url(path);
  }

  /** A whole response. */
  serves(path: string, body: Buffer | string, ...lines: string[]): string {
    const head = ["HTTP/1.1 200 OK", `Content-Length: ${Buffer.byteLength(body)}`, ...lines, "", ""].join(
      "\r\n",
    );
    return this.on(path, (connection, { method }) =>
      connection.write(method === "HEAD" ? head : Buffer.concat([Buffer.from(head), Buffer.from(body)])),
    );
  }

  async #session(connection: Connection): Promise<void> {
    const connectionNumber = ++this.#connections;
    const reader = requestReader(connection);
    for (let head = await reader.next(); head !== undefined; head = await reader.next()) {
      if (head.fields.get("Expect") !== undefined) await connection.write("HTTP/1.1 100 Continue\r\n\r\n");
      const chunks: Buffer[] = [];
      for await (const chunk of readBody(connection, requestFraming(head))) chunks.push(chunk);
      const request = { ...head, body: Buffer.concat(chunks), connectionNumber };
      this.requests.push(request);
      const handler = this.#handlers.get(head.target);
      if (handler === undefined)
        await connection.write("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
      else if ((await handler(connection, request)) === false) return;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#server?.closed;
  }
}

export interface Answer extends ResponseHead {
  body: Buffer;
  trailers: Fields;
}

export const client = (port: number) => connect({ host: "127.0.0.1", port, timeoutMs: 10_000 });

/** The next response on the connection. Throws where it is cut off. */
export async function readAnswer(connection: Connection, method = "GET"): Promise<Answer> {
  let head = await readResponse(connection);
  while (head !== undefined && head.status < 200) head = await readResponse(connection);
  if (head === undefined) throw new Error("the proxy closed the connection without an answer");
  const body = readBody(connection, responseFraming(head, method));
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return { ...head, body: Buffer.concat(chunks), trailers: body.trailers };
}

export function requestFor(url: string, lines: readonly string[] = [], method = "GET"): string {
  return [`${method} ${url} HTTP/1.1`, `Host: ${new URL(url).host}`, ...lines, "", ""].join("\r\n");
}

/** One request on a connection of its own. */
export async function ask(
  port: number,
  url: string,
  lines: readonly string[] = [],
  method = "GET",
  body: Buffer | string = "",
): Promise<Answer> {
  await using connection = await client(port);
  await connection.write(Buffer.concat([Buffer.from(requestFor(url, lines, method)), Buffer.from(body)]));
  return await readAnswer(connection, method);
}

/** The part of Cache-Status that says how. */
export const how = ({ fields }: Answer) => fields.get("Cache-Status")?.split(";")[1]?.trim();
export const FRESH = "Cache-Control: max-age=600";
/** Bytes that differ from place to place. */
export function pattern(sizeBytes: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(sizeBytes);
  for (let i = 0; i < sizeBytes; i++) bytes[i] = i * 167 + (i >> 8) * 31 + seed * 13;
  return bytes;
}
