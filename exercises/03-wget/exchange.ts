/** One request and its response: over TCP or TLS, to the server or through a proxy (RFC 9110 §7, RFC 9112). */
import { isIP } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { Connection, formatAddress } from "../../shared/connection.ts";
import { Failure, isFailure } from "../../shared/errors.ts";
import {
  encodeRequest,
  Fields,
  HttpError,
  persists,
  type ResponseHead,
  readResponse,
} from "../../shared/http.ts";
import { type Body, type Framing, readBody, responseFraming } from "../../shared/http-body.ts";
import { printable } from "../../shared/printable.ts";
import { connect } from "../../shared/tcp.ts";
import { NetworkFailure, NoAnswer, ServerFailure, TlsFailure } from "./failures.ts";
import type { HeadersLog } from "./headers-log.ts";
import { authority, basicCredentials, endpoint, isSecure, requestTarget } from "./protocol.ts";

/** What a plain connection receives into: with 64 KiB, 1 GiB took a quarter more CPU time, with 1 MiB not less. */
const RECEIVE_BYTES = 256 * 1024;
const MAX_INTERIM = 100;
/** What is read of a redirection's body to keep its connection; a new one is cheaper than more. */
const MAX_DROPPED_BYTES = 64 * 1024;
/** These may be sent again when a kept connection turns out to have been closed (RFC 9110 §9.2.2). */
const REPEATABLE = ["GET", "HEAD"];

export interface ClientOptions {
  timeoutMs: number;
  signal: AbortSignal;
  proxyFor: (url: URL) => URL | undefined;
  /** Certificates of authorities, in PEM, beside those that Node knows. */
  authorities: readonly string[] | undefined;
  insecure: boolean;
  headers: HeadersLog;
}

interface Request {
  method: string;
  url: URL;
  fields: Fields;
  body: Buffer | undefined;
}

export interface Response {
  head: ResponseHead;
  framing: Framing;
  /** Each chunk is valid until the next is asked for. */
  body: Body;
}

/** Makes requests, one after the other, and keeps the last connection for the next one that goes the same way. */
export class Client {
  readonly #options: ClientOptions;
  #connection: Connection | undefined;
  /** Where the connection leads: a proxy takes requests for all plain origins. */
  #route = "";
  #mayGoOn = false;

  constructor(options: ClientOptions) {
    this.#options = options;
    options.signal.addEventListener("abort", () => this.#connection?.destroy(), { once: true });
  }

  /** Throws `Failure`s of the kinds in `failures.ts`, and the system's errors. */
  async send(request: Request): Promise<Response> {
    const { url, method } = request;
    const proxy = this.#options.proxyFor(url);
    const route =
      proxy === undefined || isSecure(url) ? `${url.origin} ${proxy?.host}` : `proxy ${proxy.host}`;
    const kept =
      this.#mayGoOn && route === this.#route && REPEATABLE.includes(method) ? this.#connection : undefined;
    this.#mayGoOn = false;
    if (kept !== undefined) {
      const response = await this.#exchange(kept, request, proxy).catch(unlessUnanswered);
      if (response !== undefined) return response;
    }
    this.#connection?.destroy();
    this.#route = route;
    this.#connection = await this.#open(url, proxy);
    return this.#exchange(this.#connection, request, proxy);
  }

  /** Reads what is left of the response, if that is worth it, so that its connection can be used again. */
  async drop({ head, framing, body }: Response): Promise<void> {
    if (!persists(head) || framing.kind === "close") return;
    let sizeBytes = framing.kind === "length" ? framing.bytes : 0;
    if (sizeBytes > MAX_DROPPED_BYTES) return;
    for await (const chunk of body) {
      if (framing.kind === "chunked") sizeBytes += chunk.length;
      if (sizeBytes > MAX_DROPPED_BYTES) return;
    }
    this.#mayGoOn = true;
  }

  close(): void {
    this.#connection?.destroy();
  }

  async #open(url: URL, proxy: URL | undefined): Promise<Connection> {
    const first = endpoint(proxy ?? url);
    const { timeoutMs, signal, headers } = this.#options;
    const buffer = isSecure(url) ? {} : { receiveBuffer: Buffer.allocUnsafeSlow(RECEIVE_BYTES) };
    const connection = await connect({ ...first, timeoutMs, signal, ...buffer }).catch((error: unknown) => {
      if (!(error instanceof Failure)) throw error;
      throw new NetworkFailure(error.message, { cause: error.cause });
    });
    headers.note(
      `connected to ${proxy === undefined ? "" : "the proxy "}${formatAddress(first.host, first.port)}`,
    );
    if (!isSecure(url)) return connection;
    this.#connection = connection; // so that it is cut when the user wants an end
    if (proxy !== undefined) await this.#tunnel(connection, url, proxy);
    return this.#secure(connection, url);
  }

  /** RFC 9110 §9.3.6: behind a 2xx the connection is as one to the server itself. */
  async #tunnel(connection: Connection, url: URL, proxy: URL): Promise<void> {
    const credentials = basicCredentials(proxy);
    const target = authority(url);
    const fields = new Fields([
      ["Host", target],
      ...(credentials === undefined ? [] : [["Proxy-Authorization", credentials] as const]),
    ]);
    const head = await this.#ask(connection, "CONNECT", target, fields);
    if (head.status < 200 || head.status > 299) {
      const answer = `${head.status} ${printable(head.reason)}`;
      throw new ServerFailure(`the proxy ${proxy.host} makes no tunnel to ${target}: ${answer}`);
    }
  }

  async #secure(connection: Connection, url: URL): Promise<Connection> {
    const { host } = endpoint(url);
    const { timeoutMs, insecure, authorities, headers } = this.#options;
    const socket = connectTls({
      socket: connection.release(),
      host,
      servername: isIP(host) ? "" : host, // an address is no name to ask for (RFC 6066 §3)
      ALPNProtocols: ["http/1.1"],
      rejectUnauthorized: !insecure,
      ...(authorities === undefined ? {} : { ca: [...authorities] }),
    });
    await handshake(socket, timeoutMs);
    headers.note(
      `${socket.getProtocol()} with ${host}, certificate ${socket.authorized ? "verified" : "not verified"}`,
    );
    return new Connection(socket, timeoutMs);
  }

  async #exchange(connection: Connection, request: Request, proxy: URL | undefined): Promise<Response> {
    const { method, url, body } = request;
    const viaProxy = proxy !== undefined && !isSecure(url);
    const credentials = viaProxy ? basicCredentials(proxy) : undefined;
    const fields =
      credentials === undefined
        ? request.fields
        : request.fields.replace([], [["Proxy-Authorization", credentials]]);
    const target = requestTarget(url, viaProxy ? "absolute" : "origin");
    const head = await this.#ask(connection, method, target, fields, body);
    const framing = responseFraming(head, method);
    return { head, framing, body: readBody(connection, framing) };
  }

  /** Sends, and reads heads up to the final one. */
  async #ask(
    connection: Connection,
    method: string,
    target: string,
    fields: Fields,
    body: Buffer = Buffer.alloc(0),
  ): Promise<ResponseHead> {
    const { headers, timeoutMs } = this.#options;
    headers.request(method, target, fields);
    const bytes = Buffer.from(encodeRequest({ method, target, fields }), "latin1");
    await connection.write(Buffer.concat([bytes, body])).catch(asNoAnswer);
    for (let i = 0; i < MAX_INTERIM; i++) {
      const isFirst = i === 0;
      const head = await readResponse(connection, { headMs: timeoutMs }).catch((error: unknown) =>
        isFirst && connection.unreadBytes === 0 ? asNoAnswer(error) : Promise.reject(error),
      );
      if (head === undefined) throw new NoAnswer("the server closed the connection without an answer");
      headers.response(head);
      if (head.status >= 200) return head;
      if (head.status === 101)
        throw new HttpError(502, "the server changed to a protocol that nobody asked for");
    }
    throw new HttpError(502, `more than ${MAX_INTERIM} interim responses`);
  }
}

function unlessUnanswered(error: unknown): undefined {
  if (!(error instanceof NoAnswer)) throw error;
}

/** For what the system says: a reset is an answer as good as none. */
function asNoAnswer(error: unknown): never {
  if (error instanceof Failure || !isFailure(error)) throw error;
  throw new NoAnswer("the connection broke", { cause: error });
}

async function handshake(socket: TLSSocket, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      const late = () => reject(new NetworkFailure(`the TLS handshake took longer than ${timeoutMs} ms`));
      if (timeoutMs > 0) timer = setTimeout(late, timeoutMs);
      socket.once("secureConnect", resolve).once("error", reject);
      socket.once("close", () =>
        reject(new NetworkFailure("the connection was closed during the TLS handshake")),
      );
    });
  } catch (error) {
    socket.on("error", () => {}).destroy();
    if (error instanceof Failure) throw error;
    throw new TlsFailure(`no trusted TLS connection${adviceFor(error)}`, { cause: tlsReason(error) });
  } finally {
    clearTimeout(timer);
  }
}

/** In OpenSSL's own words, without its file names and numbers, and without Node's advice, which is not about us. The texts of a certificate are its maker's. */
function tlsReason(error: unknown): Failure {
  const message = error instanceof Error ? error.message.trim() : String(error);
  const reason =
    /:SSL routines:[^:]*:([^:]+):/.exec(message)?.[1] ?? message.replace(/; if the root CA .*/, "");
  return new Failure(printable(reason));
}

const adviceFor = (error: unknown) =>
  error instanceof Error && "code" in error && /CERT|ISSUER|ALTNAME|SIGNATURE/.test(String(error.code))
    ? " (its authority can be given with --ca, or the check be left out with --insecure)"
    : "";
