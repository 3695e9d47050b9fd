/** A link that can be cut and mended: a TCP relay on loopback, for tests and demo. Faults live on the path, not in programs. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export type Cut =
  /** Both ends are told. */
  | "reset"
  /** Nobody is told: nothing comes through any more. */
  | "silence";

export class CutLink implements AsyncDisposable {
  readonly port: number;
  readonly #server: ReturnType<typeof createServer>;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #cut: Cut | undefined;

  private constructor(server: ReturnType<typeof createServer>, toPort: number) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on("connection", (client) => this.#accept(client, toPort));
  }

  static async to(port: number): Promise<CutLink> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }).listen(0, "127.0.0.1");
    await once(server, "listening");
    return new CutLink(server, port);
  }

  #accept(client: Socket, toPort: number): void {
    if (this.#cut === "reset") return void client.resetAndDestroy();
    const upstream = connect({ port: toPort, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
    const pair = [client, upstream] as const;
    this.#pairs.add(pair);
    for (const [from, to] of [pair, [upstream, client] as const]) {
      from.on("error", () => to.resetAndDestroy());
      from.on("close", () => {
        to.destroy();
        this.#pairs.delete(pair);
      });
      from.pipe(to);
    }
    if (this.#cut === "silence") silence(pair);
  }

  /** Cuts what is there, and what comes, until it is mended. */
  cut(how: Cut): void {
    this.#cut = how;
    for (const pair of this.#pairs) {
      if (how === "silence") silence(pair);
      else for (const socket of pair) socket.resetAndDestroy();
    }
  }

  /** New connections pass. Those that were silenced are reset: on a real path, what was lost would be sent again, too late. */
  mend(): void {
    const silenced = this.#cut === "silence" ? [...this.#pairs] : [];
    this.#cut = undefined;
    for (const pair of silenced) for (const socket of pair) socket.resetAndDestroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }
}

function silence(pair: readonly [Socket, Socket]): void {
  for (const socket of pair) socket.unpipe().pause();
}
