/**
 * HTTP/1.1 heads (RFC 9112) over a connection: a start line, field lines, an empty line. Bodies are in
 * `http-body.ts`. One parser for client, server and intermediaries, strict where the RFC lets a recipient choose:
 * what two programs could read in two ways is refused, since that is how requests are smuggled (RFC 9112 §11.2).
 */
import type { Connection } from "./connection.ts";
import { TimeoutError, UnexpectedEndError } from "./connection.ts";
import { Failure } from "./errors.ts";

/** A message that breaks the protocol, and the status that answers it when it was a request. */
export class HttpError extends Failure {
  override name = "HttpError";
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export const MAX_HEAD_BYTES = 64 * 1024;
/** RFC 9112 §3 asks for 8000 at least. */
const MAX_TARGET_BYTES = 8000;
const CRLF = "\r\n";
const HEAD_END = Buffer.from(CRLF + CRLF);

/** RFC 9110 §5.6.2. */
const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
/** RFC 9112 §3: a single space between the parts. */
const REQUEST_LINE = new RegExp(`^(${TOKEN}) ([!-~]+) HTTP/(\\d)\\.(\\d)$`);
/** RFC 9112 §3.2: origin-form, absolute-form, asterisk-form; CONNECT has authority-form alone. */
const TARGET = /^(?:\/|[A-Za-z][A-Za-z0-9+.-]*:\/\/[^/?#]|\*$)/;
const CONNECT_TARGET = /^[^/?#@]+:\d{1,5}$/;
/** RFC 9112 §4. */
const STATUS_LINE = /^HTTP\/(\d)\.(\d) ([1-9]\d\d)(?: ([\t -~\x80-\xff]*))?$/;
/** RFC 9112 §5: no space before the colon; the value is visible characters and blanks. */
const FIELD_LINE = new RegExp(`^(${TOKEN}):([\\t -~\\x80-\\xff]*)$`);
// Looked for at the first blank of a run only: else a head of blanks would cost the square of its length.
const OUTER_BLANKS = /^[ \t]+|(?<![ \t])[ \t]+$/g;
const FOLD = /(?<![ \t])[ \t]*\r\n[ \t]+/g;

/** Field lines in the order in which they came, with their names as they were written (RFC 9110 §5). */
export class Fields implements Iterable<readonly [name: string, value: string]> {
  readonly #lines: readonly (readonly [string, string])[];
  constructor(lines: readonly (readonly [string, string])[] = []) {
    this.#lines = lines;
  }

  /** All values of a field, a line each. */
  all(name: string): string[] {
    const wanted = name.toLowerCase();
    return this.#lines.filter(([other]) => other.toLowerCase() === wanted).map(([, value]) => value);
  }

  /** The field's value, several lines joined by a comma (RFC 9110 §5.3). */
  get(name: string): string | undefined {
    const values = this.all(name);
    return values.length === 0 ? undefined : values.join(", ");
  }

  /** The members of a list of tokens in lower case: `Connection: close, Upgrade`. */
  tokens(name: string): string[] {
    const value = this.get(name) ?? "";
    return value
      .split(",")
      .map((token) => token.trim().toLowerCase())
      .filter((token) => token !== "");
  }

  /** A copy without the named fields, and with these at its end. */
  replace(names: readonly string[], lines: readonly (readonly [string, string])[] = []): Fields {
    const gone = new Set(names.map((name) => name.toLowerCase()));
    return new Fields([...this.#lines.filter(([name]) => !gone.has(name.toLowerCase())), ...lines]);
  }

  [Symbol.iterator](): Iterator<readonly [string, string]> {
    return this.#lines[Symbol.iterator]();
  }

  /** As they travel, each line with its CRLF. */
  toString(): string {
    return this.#lines.map(([name, value]) => `${name}: ${value}${CRLF}`).join("");
  }
}

export interface RequestHead {
  method: string;
  target: string;
  /** The minor version: 0 or 1. */
  minor: number;
  fields: Fields;
}

export interface ResponseHead {
  minor: number;
  status: number;
  reason: string;
  fields: Fields;
}

/** Throws `HttpError`. */
export function parseFields(lines: readonly string[]): Fields {
  return new Fields(
    lines.map((line) => {
      const match = FIELD_LINE.exec(line);
      if (match === null)
        throw new HttpError(400, `a malformed field line: ${JSON.stringify(line.slice(0, 60))}`);
      return [match[1] ?? "", (match[2] ?? "").replace(OUTER_BLANKS, "")] as const;
    }),
  );
}

/** A CR or LF that is not part of a CRLF would be a line end to some and not to others. */
function linesOf(head: string): string[] {
  const lines = head.split(CRLF);
  if (/[\r\n]/.test(head.replaceAll(CRLF, ""))) throw new HttpError(400, "a bare CR or LF in the head");
  return lines;
}

function checkVersion(major: string | undefined, minor: string | undefined): number {
  if (major !== "1") throw new HttpError(505, `HTTP version ${major}.${minor}`);
  return minor === "0" ? 0 : 1;
}

/** `head` is start line and field lines without the empty line behind them. Throws `HttpError`. */
export function parseRequest(head: string): RequestHead {
  const [line = "", ...fieldLines] = linesOf(head);
  const match = REQUEST_LINE.exec(line);
  if (match === null)
    throw new HttpError(400, `a malformed request line: ${JSON.stringify(line.slice(0, 60))}`);
  const [, method = "", target = ""] = match;
  if (target.length > MAX_TARGET_BYTES) throw new HttpError(414, `a target of ${target.length} bytes`);
  if (!(method === "CONNECT" ? CONNECT_TARGET : TARGET).test(target)) {
    throw new HttpError(400, `a malformed request target: ${JSON.stringify(target.slice(0, 60))}`);
  }
  const minor = checkVersion(match[3], match[4]);
  const fields = parseFields(fieldLines);
  const hosts = fields.all("Host");
  if (hosts.length > 1 || (hosts.length === 0 && minor > 0))
    throw new HttpError(400, `${hosts.length} Host fields`);
  if (/[\s/@,?#]/.test(hosts[0] ?? "")) throw new HttpError(400, "a malformed Host field");
  return { method, target, minor, fields };
}

/** A folded field value (obs-fold) is joined with a space, as a client must (RFC 9112 §5.2). */
export function parseResponse(head: string): ResponseHead {
  const [line = "", ...fieldLines] = linesOf(head.replace(FOLD, " "));
  const match = STATUS_LINE.exec(line);
  if (match === null)
    throw new HttpError(502, `a malformed status line: ${JSON.stringify(line.slice(0, 60))}`);
  const minor = checkVersion(match[1], match[2]);
  return { minor, status: Number(match[3]), reason: match[4] ?? "", fields: parseFields(fieldLines) };
}

/** Does the connection stay open after this message (RFC 9112 §9.3)? */
export function persists({ fields, minor }: RequestHead | ResponseHead): boolean {
  const options = fields.tokens("Connection");
  return !options.includes("close") && (minor > 0 || options.includes("keep-alive"));
}

interface HeadLimits {
  headBytes?: number;
  /** From a head's first byte to its last, in milliseconds, so that nobody can send it for ever; 0 is for ever. */
  headMs?: number;
}

/**
 * Reads the requests of a connection: each call the next head, `undefined` when the peer finished between two. The
 * body must have been read before the next call. Throws `HttpError` for what is to be answered with its status.
 */
interface RequestReader {
  next(): Promise<RequestHead | undefined>;
  /**
   * A client mostly repeats itself: where the bytes that have arrived are those of the last head, it is the same
   * object again, without parsing and waiting. Else `undefined`, and `next()` is to be asked. (The file server of
   * exercise 06 spends 11.2 µs of CPU time on a request with it, 15.3 without.)
   */
  again(): RequestHead | undefined;
}

export function requestReader(connection: Connection, limits: HeadLimits = {}): RequestReader {
  let lastBytes = HEAD_END;
  let last: RequestHead | undefined;
  return {
    again() {
      const { length } = lastBytes;
      if (last === undefined || connection.unreadBytes < length) return undefined;
      if (connection.peek().compare(lastBytes, 0, length, 0, length) !== 0) return undefined;
      connection.take(length);
      return last;
    },
    async next() {
      const bytes = await readHead(connection, limits);
      if (bytes === undefined) return undefined;
      last = parseRequest(textOf(bytes));
      lastBytes = Buffer.from(bytes); // a copy: the bytes lie in a larger buffer that could not be freed
      return last;
    },
  };
}

/** The next response, or an interim one (1xx): each is a head of its own. */
export async function readResponse(
  connection: Connection,
  limits: HeadLimits = {},
): Promise<ResponseHead | undefined> {
  const head = await readHead(connection, limits);
  return head === undefined ? undefined : parseResponse(textOf(head));
}

/** Everything up to the empty line, and with it. */
async function readHead(
  connection: Connection,
  { headBytes = MAX_HEAD_BYTES, headMs = 0 }: HeadLimits,
): Promise<Buffer | undefined> {
  let searchedBytes = 0;
  let deadline = Number.POSITIVE_INFINITY;
  while (true) {
    const bytes = connection.peek();
    const found = bytes.indexOf(HEAD_END, Math.max(0, searchedBytes - HEAD_END.length + 1));
    const size = found < 0 ? bytes.length : found + HEAD_END.length;
    if (size > headBytes) {
      const inFirstLine = bytes.lastIndexOf(CRLF, headBytes) <= 0;
      throw new HttpError(inFirstLine ? 414 : 431, `a head of more than ${headBytes} bytes`);
    }
    if (found >= 0) return connection.take(size);
    searchedBytes = bytes.length;
    if (searchedBytes > 0 && headMs > 0) deadline = Math.min(deadline, performance.now() + headMs);
    const leftMs = deadline - performance.now();
    if (leftMs <= 0) throw new TimeoutError(`the head took longer than ${headMs} ms`);
    if (!(await connection.more(Number.isFinite(leftMs) ? leftMs : undefined))) {
      if (searchedBytes === 0) return undefined;
      throw new UnexpectedEndError(`the peer finished in the middle of a head, after ${searchedBytes} bytes`);
    }
  }
}

/** Without its last lines' ends, and without an empty line in front, which a server ignores (RFC 9112 §2.2). */
const textOf = (head: Buffer) =>
  head.toString("latin1", head.indexOf(CRLF) === 0 ? CRLF.length : 0, head.length - HEAD_END.length);

export const encodeRequest = ({ method, target, fields }: Omit<RequestHead, "minor">) =>
  `${method} ${target} HTTP/1.1${CRLF}${fields}${CRLF}`;
export const encodeResponse = ({ status, reason, fields }: Omit<ResponseHead, "minor">) =>
  `HTTP/1.1 ${status} ${reason}${CRLF}${fields}${CRLF}`;
