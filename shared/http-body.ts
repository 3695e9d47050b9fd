/**
 * The bodies of HTTP/1.1 messages: where one ends (RFC 9112 §6), and reading and writing it. Whoever gets the end
 * wrong takes a body's bytes for the next message.
 */
import type { Connection } from "./connection.ts";
import { TooLongError, UnexpectedEndError } from "./connection.ts";
import {
  Fields,
  HttpError,
  MAX_HEAD_BYTES,
  parseFields,
  type RequestHead,
  type ResponseHead,
} from "./http.ts";

/** A chunk's size with its extensions. */
const MAX_CHUNK_LINE_BYTES = 1024;
const CRLF = "\r\n";
const LF = Buffer.from("\n");

/** How the end of a body is told (RFC 9112 §6.3). */
export type Framing =
  | { kind: "none" }
  | { kind: "length"; bytes: number }
  | { kind: "chunked" }
  | { kind: "close" };
const NONE: Framing = { kind: "none" };

function declaredFraming(fields: Fields, minor: number): Framing | undefined {
  const lengths = fields.all("Content-Length");
  const codings = fields.all("Transfer-Encoding");
  if (codings.length > 0) {
    if (lengths.length > 0) throw new HttpError(400, "both Transfer-Encoding and Content-Length");
    if (minor === 0) throw new HttpError(400, "Transfer-Encoding in HTTP/1.0");
    if (codings.length > 1 || codings[0]?.toLowerCase() !== "chunked")
      throw new HttpError(501, `Transfer-Encoding: ${codings.join(", ")}`);
    return { kind: "chunked" };
  }
  if (lengths.length === 0) return undefined;
  const bytes = Number(lengths[0]);
  if (lengths.length > 1 || !/^\d+$/.test(lengths[0] ?? "") || !Number.isSafeInteger(bytes)) {
    throw new HttpError(400, `Content-Length: ${lengths.join(", ")}`);
  }
  return { kind: "length", bytes };
}

export function requestFraming({ fields, minor }: RequestHead): Framing {
  return declaredFraming(fields, minor) ?? NONE;
}

export function responseFraming({ status, fields, minor }: ResponseHead, method: string): Framing {
  if (method === "HEAD" || status < 200 || status === 204 || status === 304) return NONE;
  if (method === "CONNECT" && status < 300) return NONE;
  return declaredFraming(fields, minor) ?? { kind: "close" };
}

/** A body as it arrives, chunk by chunk, each as large as it came. */
export interface Body extends AsyncIterable<Buffer> {
  /** What came behind a chunked body, once it was read to its end. */
  readonly trailers: Fields;
}

/** Reads exactly the body, so that the next message can follow. An end before its end throws `UnexpectedEndError`. */
export function readBody(connection: Connection, framing: Framing): Body {
  let trailers = new Fields();
  async function* chunks(): AsyncGenerator<Buffer> {
    if (framing.kind === "length") yield* readLength(connection, framing.bytes);
    else if (framing.kind === "chunked") trailers = yield* readChunked(connection);
    else if (framing.kind === "close") {
      for (let chunk = await connection.read(); chunk !== undefined; chunk = await connection.read())
        yield chunk;
    }
  }
  return {
    [Symbol.asyncIterator]: chunks,
    get trailers() {
      return trailers;
    },
  };
}

async function* readLength(connection: Connection, bytes: number): AsyncGenerator<Buffer> {
  for (let left = bytes; left > 0; ) {
    const chunk = await connection.read(left);
    if (chunk === undefined) throw new UnexpectedEndError(`the body ended ${left} of ${bytes} bytes early`);
    left -= chunk.length;
    yield chunk;
  }
}

/** RFC 9112 §7.1. Extensions are read and dropped, trailers are returned. */
async function* readChunked(connection: Connection): AsyncGenerator<Buffer, Fields> {
  while (true) {
    const line = await strictLine(connection, MAX_CHUNK_LINE_BYTES);
    const match = /^([0-9A-Fa-f]{1,13})(?:[ \t]*;[\t -~\x80-\xff]*)?$/.exec(line);
    if (match === null)
      throw new HttpError(400, `a malformed chunk size: ${JSON.stringify(line.slice(0, 40))}`);
    const size = Number.parseInt(match[1] ?? "", 16);
    if (size === 0) return await readTrailers(connection);
    yield* readLength(connection, size);
    if ((await strictLine(connection, 2)) !== "") throw new HttpError(400, "a chunk is longer than it says");
  }
}

async function readTrailers(connection: Connection): Promise<Fields> {
  const lines: string[] = [];
  let left = MAX_HEAD_BYTES;
  for (
    let line = await strictLine(connection, left);
    line !== "";
    line = await strictLine(connection, left)
  ) {
    lines.push(line);
    left -= line.length + 2;
  }
  return parseFields(lines);
}

/** A line that ends in CRLF and has no other CR. */
async function strictLine(connection: Connection, limitBytes: number): Promise<string> {
  const line = await connection.readUntil(LF, limitBytes, "a line").catch((error: unknown) => {
    throw error instanceof TooLongError ? new HttpError(400, error.message) : error;
  });
  if (line === undefined) throw new UnexpectedEndError("the body ended before its last chunk");
  const text = line.toString("latin1");
  if (text.length < 2 || text.indexOf("\r") !== text.length - 2)
    throw new HttpError(400, "a line of a chunked body does not end in CRLF");
  return text.slice(0, -2);
}

/** A chunk as it travels; empty data would end the body, so they make none. */
export function encodeChunk(data: Buffer): Buffer {
  if (data.length === 0) return data;
  return Buffer.concat([Buffer.from(data.length.toString(16) + CRLF), data, Buffer.from(CRLF)]);
}
export const encodeLastChunk = (trailers = new Fields()) => `0${CRLF}${trailers}${CRLF}`;
