/** A server for tests that answers what it is told to, right or wrong, and remembers what it was asked. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { Connection } from "../../shared/connection.ts";
import { isFailure } from "../../shared/errors.ts";
import { persists, type RequestHead, requestReader } from "../../shared/http.ts";
import { readBody, requestFraming } from "../../shared/http-body.ts";
import { writeSplit } from "../../shared/testing.ts";

interface Asked extends RequestHead {
  body: string;
  /** Which connection it came on, from 1. */
  connection: number;
}

/** Bytes to send, and how: in pieces, and what happens then. */
interface Told {
  bytes: string | Buffer;
  pieceBytes?: number;
  after?: "keep" | "end" | "reset" | "stall";
}
export type Script = (asked: Asked, number: number) => string | Buffer | Told | Promise<string | Told>;

interface ScriptedOptions {
  host?: string;
  tls?: { key: string; cert: string };
}

export class ScriptedServer implements AsyncDisposable {
  readonly asked: Asked[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #script: Script;
  #connections = 0;

  private constructor(script: Script, { tls }: ScriptedOptions) {
    this.#script = script;
    const serve = (socket: Socket) => void this.#converse(socket);
    this.#server = tls
      ? createTlsServer(tls, serve)
      : createServer({ allowHalfOpen: true, noDelay: true }, serve);
    this.#server.on("tlsClientError", () => {});
  }

  static async start(script: Script, options: ScriptedOptions = {}): Promise<ScriptedServer> {
    const scripted = new ScriptedServer(script, options);
    scripted.#server.listen(0, options.host ?? "127.0.0.1");
    await once(scripted.#server, "listening");
    return scripted;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }
  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async #converse(socket: Socket): Promise<void> {
    const connection = new Connection(socket, 10_000);
    const number = ++this.#connections;
    this.#sockets.add(socket);
    try {
      const reader = requestReader(connection);
      for (let head = await reader.next(); head !== undefined; head = await reader.next()) {
        const chunks: Buffer[] = [];
        for await (const chunk of readBody(connection, requestFraming(head))) chunks.push(chunk);
        const asked = { ...head, body: Buffer.concat(chunks).toString(), connection: number };
        this.asked.push(asked);
        if (!(await this.#answer(socket, await this.#script(asked, this.asked.length)))) return;
        if (!persists(head)) break;
      }
      connection.end();
    } catch (error) {
      if (!isFailure(error)) throw error;
      socket.destroy();
    }
  }

  async #answer(socket: Socket, answer: string | Buffer | Told): Promise<boolean> {
    const {
      bytes,
      pieceBytes,
      after = "keep",
    } = typeof answer === "object" && "bytes" in answer ? answer : { bytes: answer };
    const buffer = typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes;
    await writeSplit(socket, buffer, pieceBytes ?? Math.max(buffer.length, 1)).catch(() => {});
    if (after === "end") socket.end();
    if (after === "reset") socket.resetAndDestroy();
    return after === "keep";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }
}

/** A response with a length. */
export function ok(body: string | Buffer, fields = "", status = "200 OK"): Buffer {
  const bytes = typeof body === "string" ? Buffer.from(body, "latin1") : body;
  return Buffer.concat([
    Buffer.from(`HTTP/1.1 ${status}\r\nContent-Length: ${bytes.length}\r\n${fields}\r\n`, "latin1"),
    bytes,
  ]);
}
export const redirect = (location: string, status = 302, fields = "") =>
  ok("moved", `Location: ${location}\r\n${fields}`, `${status} Moved`);
