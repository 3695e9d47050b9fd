/** One request to an origin server: over a connection that is idle or new, to an address that is allowed, in time. */
import { lookup } from "node:dns/promises";
import { type Connection, TimeoutError } from "../../shared/connection.ts";
import { Failure, isFailure } from "../../shared/errors.ts";
import {
  encodeRequest,
  type Fields,
  HttpError,
  persists,
  type ResponseHead,
  readResponse,
} from "../../shared/http.ts";
import { type Framing, responseFraming } from "../../shared/http-body.ts";
import { isIdempotent, onwardFields, relayMessage, UpstreamPool } from "../../shared/http-relay.ts";
import { connect } from "../../shared/tcp.ts";
import { isPrivate, type Target, withVia } from "./protocol.ts";

/** An origin that says "wait" more often than this has nothing else to say. */
const MAX_INTERIM = 20;

interface OriginRequest {
  method: string;
  target: Target;
  /** As they came, or with other conditions. */
  fields: Fields;
  /** Of the client's message: 0 or 1. */
  minor: number;
  /** The body, and from where it comes. */
  upload?: { from: Connection; framing: Framing } | undefined;
  /** Gets what comes before the response: 100, 103 (RFC 9110 §15.2). */
  onInterim?: (head: ResponseHead) => void;
}

export interface OriginResponse extends ResponseHead {
  framing: Framing;
  connection: Connection;
  requestTimeMs: number;
  responseTimeMs: number;
  /** To be called when the body has been read to its end: the connection may serve others. */
  release: () => void;
  /** The request's body is all sent. */
  isUploaded: () => boolean;
}

interface OriginOptions {
  /** For a connection, a head, and each part of a body. */
  timeoutMs: number;
  denyPrivate: boolean;
  pseudonym: string;
}

/** The origin cannot be asked; `status` is what to tell the client: 403, 502 or 504. */
export class OriginError extends Failure {
  override name = "OriginError";
  readonly status: number;
  constructor(status: number, message: string, cause?: unknown) {
    super(message, { cause });
    this.status = status;
  }
}

export class Origins implements Disposable {
  readonly #options: OriginOptions;
  readonly #pool = new UpstreamPool();
  constructor(options: OriginOptions) {
    this.#options = options;
  }

  /** The address to connect to: where private ones are denied, a name is resolved here and now, so that it cannot change its mind. */
  async #addressOf({ host, port }: { host: string; port: number }): Promise<{ host: string; port: number }> {
    if (!this.#options.denyPrivate) return { host, port };
    const found = await lookup(host, { all: true }).catch((error: unknown) => {
      throw new OriginError(502, `cannot resolve ${host}`, error);
    });
    if (found.some(({ address }) => isPrivate(address)))
      throw new OriginError(403, `${host} is on this machine or a private network`);
    return { host: found[0]?.address ?? host, port };
  }

  /** A connection for a tunnel. Throws `OriginError`. */
  async connect(to: { host: string; port: number }): Promise<Connection> {
    const address = await this.#addressOf(to);
    return await connect({ ...address, timeoutMs: this.#options.timeoutMs }).catch((error: unknown) => {
      throw asOriginError(error, "cannot connect");
    });
  }

  /** Sends the request and returns the response's head; its body is still to be read. Throws `OriginError`, and what the client does wrong as it is. */
  async fetch(request: OriginRequest): Promise<OriginResponse> {
    const address = await this.#addressOf(request.target);
    const isRepeatable = isIdempotent(request.method) && request.upload === undefined;
    // One that waited may have been closed by the origin at this moment: that is no answer.
    const idle = isRepeatable ? this.#pool.reuse(address) : undefined;
    if (idle !== undefined) {
      try {
        return await this.#ask(request, idle, address);
      } catch (error) {
        idle.destroy();
        if (!isFailure(error)) throw error;
        if (!(error instanceof SilentEnd)) throw asOriginError(error, "no answer");
      }
    }
    const connection = await connect({ ...address, timeoutMs: this.#options.timeoutMs }).catch(
      (error: unknown) => {
        throw asOriginError(error, "cannot connect");
      },
    );
    try {
      return await this.#ask(request, connection, address);
    } catch (error) {
      connection.destroy();
      throw error instanceof ClientError || !isFailure(error) ? error : asOriginError(error, "no answer");
    }
  }

  async #ask(
    request: OriginRequest,
    connection: Connection,
    address: { host: string; port: number },
  ): Promise<OriginResponse> {
    const { method, target, upload } = request;
    const { timeoutMs, pseudonym } = this.#options;
    connection.timeoutMs = timeoutMs;
    const framing: Framing = upload?.framing ?? { kind: "none" };
    const fields = onwardFields(request.fields, framing).replace(
      ["Host", "Via", "Proxy-Authorization"],
      [["Host", target.authority], withVia(request.fields, request.minor, pseudonym)],
    );
    const head = Buffer.from(encodeRequest({ method, target: target.path, fields }), "latin1");
    const requestTimeMs = Date.now();
    const sending = { done: upload === undefined, clientError: undefined as unknown };
    if (upload === undefined) await connection.write(head);
    else void sendUpload(upload.from, framing, connection, head, sending);
    const response = await readFinal(connection, timeoutMs, sending, request.onInterim).catch(
      (error: unknown) => {
        throw sending.clientError === undefined
          ? error
          : new ClientError("the request broke off", { cause: sending.clientError });
      },
    );
    const bodyFraming = responseFraming(response, method);
    return {
      ...response,
      framing: bodyFraming,
      connection,
      requestTimeMs,
      responseTimeMs: Date.now(),
      isUploaded: () => sending.done,
      release: () => {
        if (persists(response) && bodyFraming.kind !== "close" && sending.done)
          this.#pool.release(address, connection);
        else connection.destroy();
      },
    };
  }

  [Symbol.dispose](): void {
    this.#pool[Symbol.dispose]();
  }
}

/** The client's body broke off: nobody is left to be told. */
export class ClientError extends Failure {
  override name = "ClientError";
}
/** The origin closed without a byte of an answer. */
class SilentEnd extends Failure {
  override name = "SilentEnd";
}

interface Sending {
  done: boolean;
  clientError: unknown;
}

/** Runs beside the reading of the response: an origin may answer before it has read everything. */
async function sendUpload(
  from: Connection,
  framing: Framing,
  to: Connection,
  head: Buffer,
  sending: Sending,
): Promise<void> {
  try {
    await relayMessage(from, framing, to, framing, head);
    sending.done = true;
  } catch (error) {
    if (!isFailure(error)) throw error;
    // What fails on the origin's side shows in the answer, or in that there is none.
    if (error instanceof Error && error.name === "ReceiverError") return;
    sending.clientError = error;
    to.destroy();
  }
}

async function readFinal(
  connection: Connection,
  timeoutMs: number,
  sending: Sending,
  onInterim?: (head: ResponseHead) => void,
): Promise<ResponseHead> {
  for (let count = 0; count <= MAX_INTERIM; ) {
    let head: ResponseHead | undefined;
    try {
      head = await readResponse(connection, { headMs: timeoutMs });
    } catch (error) {
      if (error instanceof TimeoutError && !sending.done && connection.unreadBytes === 0) continue;
      if (connection.unreadBytes === 0 && isReset(error))
        throw new SilentEnd("the origin closed the connection", { cause: error });
      throw error;
    }
    if (head === undefined) throw new SilentEnd("the origin closed the connection without an answer");
    if (head.status === 101) throw new HttpError(502, "the origin switches to another protocol unasked");
    if (head.status >= 200) return head;
    onInterim?.(head);
    count++;
  }
  throw new HttpError(502, `more than ${MAX_INTERIM} interim responses`);
}

const isReset = (error: unknown) =>
  isFailure(error) && !(error instanceof TimeoutError) && !(error instanceof HttpError);

function asOriginError(error: unknown, what: string): Error {
  if (!isFailure(error) || error instanceof OriginError || error instanceof ClientError)
    return error as Error;
  return new OriginError(isTimeout(error) ? 504 : 502, what, error);
}

const isTimeout = (error: unknown): boolean =>
  error instanceof TimeoutError ||
  (error instanceof Error && error.cause !== undefined && isTimeout(error.cause));
