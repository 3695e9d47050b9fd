/** The sockets of a call: the caller waits for one connection, the one who is called makes it. */
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { Connection, formatAddress, TimeoutError } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";

/** An offer that is open. */
export interface Ringing {
  readonly port: number;
  /** The first who connects; undefined when the call was taken back, `TimeoutError` when nobody came. */
  readonly answered: Promise<Connection | undefined>;
  cancel(): void;
}

/** Waits for one connection at this address and no longer than `limitMs`. Throws `Failure` where it cannot listen. */
export async function ring(host: string, port: number, limitMs: number): Promise<Ringing> {
  const server = createServer({ allowHalfOpen: true, noDelay: true });
  const answered = new Promise<Connection | undefined>((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new TimeoutError(`no answer within ${limitMs / 1000} s`));
      server.close();
    }, limitMs);
    server.once("connection", (socket) => {
      resolve(new Connection(socket));
      server.close(); // one call, one connection: a second finds nobody
    });
    server.once("close", () => {
      clearTimeout(timer);
      resolve(undefined);
    });
  });
  answered.catch(() => {}); // whoever waits for it hears of it; that nobody does yet is no bug
  server.maxConnections = 1;
  server.listen({ host, port });
  try {
    await once(server, "listening");
  } catch (error) {
    server.close();
    throw new Failure(`cannot wait for the call on ${formatAddress(host, port)}`, { cause: error });
  }
  return { port: (server.address() as AddressInfo).port, answered, cancel: () => server.close() };
}
