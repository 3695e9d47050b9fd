/** TCP: connect to a server, or serve each client with a session that reads top to bottom. */
import { once } from "node:events";
import { type AddressInfo, connect as connectSocket, createServer } from "node:net";
import { Connection, formatAddress, TimeoutError } from "./connection.ts";
import { explain, Failure, isFailure } from "./errors.ts";

/** How long open sessions may go on after a server was told to stop. */
export const GRACE_MS = 1500;

/** For an address before a name's next one is tried: asked at once, after 1 s and after 3. Node's own 250 ms are less than a far server takes. */
const ADDRESS_MS = 4000;

export interface ConnectOptions {
  host: string;
  port: number;
  /** For the connection's set-up and, later, for every wait on it; 0 is for ever. */
  timeoutMs?: number;
  signal?: AbortSignal;
  /**
   * All that arrives goes through this one buffer, so what a read returned is valid until the next read only. For
   * large transfers: 1 GiB to a file takes 87 MiB of memory at its peak with 256 KiB of it, 125 MiB and half as much
   * CPU time again with a new buffer for each read.
   */
  receiveBuffer?: Buffer;
}

/** Throws `Failure`, its cause being the system's error. */
export async function connect({
  host,
  port,
  timeoutMs = 10_000,
  signal,
  receiveBuffer,
}: ConnectOptions): Promise<Connection> {
  let connection: Connection | undefined;
  const callback = (size: number, buffer: Uint8Array) => {
    connection?.lend((buffer as Buffer).subarray(0, size));
    return true;
  };
  const onread = receiveBuffer && { onread: { buffer: receiveBuffer, callback } };
  const autoSelectFamilyAttemptTimeout = Math.min(ADDRESS_MS, Math.ceil(timeoutMs / 2) || ADDRESS_MS);
  const options = { allowHalfOpen: true, noDelay: true, autoSelectFamilyAttemptTimeout };
  const socket = connectSocket({ host, port, ...options, ...onread });
  const give = setTimeout(
    () => socket.destroy(new TimeoutError(`no answer within ${timeoutMs} ms`)),
    timeoutMs || 2 ** 31 - 1,
  );
  const abort = () => socket.destroy(new Failure("stopped"));
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  try {
    await once(socket, "connect");
    connection = new Connection(socket, timeoutMs);
    return connection;
  } catch (error) {
    socket.destroy();
    throw new Failure(`cannot connect to ${formatAddress(host, port)}`, { cause: error });
  } finally {
    clearTimeout(give);
    signal?.removeEventListener("abort", abort);
  }
}

export interface ServeOptions {
  host: string;
  /** 0 is any free one. */
  port: number;
  /** Stops the server: open sessions see the end of their input and have `GRACE_MS` to finish. */
  signal: AbortSignal;
  /** For every wait on a connection; 0 is for ever. */
  timeoutMs?: number;
  /** Clients beyond these are closed at once. */
  maxConnections?: number;
  /** Gets the one line that a bad peer costs. */
  log: (line: string) => void;
}

export interface TcpServer {
  /** `tcp://127.0.0.1:10100` */
  readonly url: string;
  readonly port: number;
  /** Settles when the server has stopped and no session is left, or those that are left have had their time. */
  readonly closed: Promise<void>;
}

/**
 * Calls `session` for each client. When it returns, the connection is closed in order; when it throws a
 * `Failure`, that connection alone is cut and its peer gets one log line. Any other error is a bug: it
 * stays unhandled and ends the program.
 */
export async function serve(
  { host, port, signal, timeoutMs = 0, maxConnections = 10_000, log }: ServeOptions,
  session: (connection: Connection) => Promise<void>,
): Promise<TcpServer> {
  const open = new Set<Connection>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, async (socket) => {
    const connection = new Connection(socket, timeoutMs);
    open.add(connection);
    try {
      if (signal.aborted) connection.stopReading();
      await session(connection);
      await connection.close();
    } catch (error) {
      if (!isFailure(error)) throw error;
      log(`${connection.peer}: ${explain(error)}`);
      connection.destroy();
    } finally {
      open.delete(connection);
      if (open.size === 0) server.emit("idle");
    }
  });
  server.maxConnections = maxConnections;
  server.on("drop", (client) =>
    log(
      `${formatAddress(client?.remoteAddress ?? "?", client?.remotePort ?? 0)}: refused, ${maxConnections} clients are connected`,
    ),
  );

  server.listen({ host, port });
  try {
    await once(server, "listening");
  } catch (error) {
    throw new Failure(`cannot listen on ${formatAddress(host, port)}`, { cause: error });
  }

  const { address, port: bound } = server.address() as AddressInfo;
  const closed = new Promise<void>((resolve) =>
    // A session may have work to do when its connection is already gone.
    server.once("close", () => (open.size === 0 ? resolve() : server.once("idle", resolve))),
  );
  const stop = () => {
    server.close();
    for (const connection of open) connection.stopReading();
    const cut = setTimeout(() => {
      for (const connection of open) connection.destroy();
      open.clear();
      server.emit("idle");
    }, GRACE_MS);
    void closed.then(() => clearTimeout(cut));
  };
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();

  return { url: `tcp://${formatAddress(address, bound)}`, port: bound, closed };
}
