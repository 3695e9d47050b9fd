/** UDP: bind a socket and answer datagrams, or ask one peer and wait for its answer. */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { formatAddress, TimeoutError } from "./connection.ts";
import { explain, Failure, isFailure } from "./errors.ts";

/** The largest payload of a UDP datagram over IPv4: 65,535 less the headers of IP (20) and UDP (8). */
export const MAX_DATAGRAM_BYTES = 65_507;

export interface BindOptions {
  host: string;
  /** 0 is any free one. */
  port: number;
  /** Closes the socket. */
  signal: AbortSignal;
  /** Gets a line for each datagram that could not be sent. */
  log: (line: string) => void;
}

export interface UdpServer {
  /** `udp://127.0.0.1:10200` */
  readonly url: string;
  readonly port: number;
  readonly closed: Promise<void>;
  /** Hands a datagram to the network; what cannot be sent costs a log line, as nobody is waiting for it. */
  send(bytes: Buffer, to: { address: string; port: number }): void;
}

async function openSocket(host: string): Promise<{ socket: Socket; address: string }> {
  const { address, family } = await lookup(host);
  return { socket: createSocket({ type: family === 6 ? "udp6" : "udp4" }), address };
}

/**
 * Calls `onDatagram` for each datagram, in order; a `Failure` that it throws costs one log line. Throws `Failure`, its
 * cause being the system's error.
 */
export async function bind(
  { host, port, signal, log }: BindOptions,
  onDatagram: (datagram: Buffer, from: RemoteInfo, server: UdpServer) => void,
): Promise<UdpServer> {
  let opened: Awaited<ReturnType<typeof openSocket>> | undefined;
  try {
    opened = await openSocket(host);
    opened.socket.bind({ address: opened.address, port });
    await once(opened.socket, "listening");
  } catch (error) {
    opened?.socket.close();
    throw new Failure(`cannot listen on ${formatAddress(host, port)}`, { cause: error });
  }
  const { socket } = opened;
  const cannotSend = (bytes: Buffer, to: { address: string; port: number }, why: string) =>
    log(`${formatAddress(to.address, to.port)}: cannot send ${bytes.length} bytes: ${why}`);
  const closed = new Promise<void>((resolve) => socket.once("close", resolve));
  const { address, port: bound } = socket.address();
  const server: UdpServer = {
    url: `udp://${formatAddress(address, bound)}`,
    port: bound,
    closed,
    send: (bytes, to) => {
      if (signal.aborted) return;
      // A datagram's source port may be 0 (RFC 768): it wants no answer.
      if (to.port === 0) return cannotSend(bytes, to, "nobody is at port 0");
      socket.send(bytes, to.port, to.address, (error) => {
        if (error) cannotSend(bytes, to, explain(error));
      });
    },
  };
  socket.on("message", (datagram, from) => {
    try {
      onDatagram(datagram, from, server);
    } catch (error) {
      if (!isFailure(error)) throw error;
      log(`${formatAddress(from.address, from.port)}: ${explain(error)}`);
    }
  });
  socket.on("error", (error) => log(explain(error)));
  signal.addEventListener("abort", () => socket.close(), { once: true });
  if (signal.aborted) socket.close();
  return server;
}

export interface RequestOptions<T> {
  host: string;
  port: number;
  request: Buffer;
  /** Looks at each datagram that comes from the peer: the answer, or undefined where it is none. A `Failure` ends the asking. */
  accept: (datagram: Buffer) => T | undefined;
  /** For each try. */
  timeoutMs: number;
  /** Tries after the first; all send the same bytes from the same port. */
  retries?: number;
  signal?: AbortSignal;
}

/**
 * Asks one peer from a connected socket: the kernel drops what comes from anyone else, and a port where nobody
 * listens is reported (ICMP port unreachable, ECONNREFUSED). Throws `Failure`; no answer is a `TimeoutError`.
 */
export async function request<T>(options: RequestOptions<T>): Promise<T> {
  const { host, port, accept, timeoutMs, retries = 0, signal } = options;
  const name = formatAddress(host, port);
  const { socket, address } = await openSocket(host).catch((error: unknown) => {
    throw new Failure(`cannot resolve ${host}`, { cause: error });
  });
  let timer: NodeJS.Timeout | undefined;
  let stop = () => {};
  try {
    socket.connect(port, address);
    await once(socket, "connect");
    return await new Promise<T>((resolve, reject) => {
      stop = () => reject(new Failure("stopped"));
      signal?.addEventListener("abort", stop);
      if (signal?.aborted) return stop();
      socket.on("error", reject);
      socket.on("message", (datagram) => {
        try {
          const answer = accept(datagram);
          if (answer !== undefined) resolve(answer);
        } catch (error) {
          if (!isFailure(error)) throw error;
          reject(error);
        }
      });
      const ask = (triesLeft: number) => {
        if (triesLeft === 0)
          return reject(new TimeoutError(`nothing came within ${timeoutMs} ms (tries: ${retries + 1})`));
        socket.send(options.request, (error) => error && reject(error));
        timer = setTimeout(ask, timeoutMs, triesLeft - 1);
      };
      ask(retries + 1);
    });
  } catch (error) {
    if (!isFailure(error)) throw error;
    throw new Failure(`cannot get an answer from udp://${name}`, { cause: error });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    socket.close();
  }
}
