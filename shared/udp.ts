/** UDP: bind a socket and answer datagrams, or ask one peer and wait for its answer. */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import type { LookupAddress } from "node:dns";
import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { networkInterfaces } from "node:os";
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
  /** Bytes that the system keeps while we are busy, and likewise on their way out; as many of them as it allows. */
  bufferBytes?: number;
}

export interface UdpServer {
  /** `udp://127.0.0.1:10200` */
  readonly url: string;
  readonly port: number;
  readonly closed: Promise<void>;
  /** Hands a datagram to the network, which puts its parts together; what cannot be sent costs a log line, as nobody is waiting for it. */
  send(bytes: Buffer | Buffer[], to: { address: string; port: number }): void;
}

async function openSocket(family: number, address: string, port: number, reuseAddr = false): Promise<Socket> {
  // Peers are addresses, not names: without this, each datagram would wait for a look-up until the turn is over.
  const lookup = (
    address: string,
    _: unknown,
    done: (error: null, address: string, family: number) => void,
  ) => done(null, address, family);
  const socket = createSocket({ type: family === 6 ? "udp6" : "udp4", reuseAddr, lookup });
  try {
    const listening = once(socket, "listening");
    socket.bind({ address, port });
    await listening;
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/**
 * The sockets of a server: one, and where its address is a wildcard one more for each address of this machine. The
 * system gives a datagram to the socket that has its destination, and so the answer leaves from there (RFC 1122
 * §4.1.3.5); from the wildcard's own socket it would leave from an address of the system's choice.
 */
async function openSockets(host: string, port: number): Promise<[Socket, ...Socket[]]> {
  const { address, family } = await lookup(host);
  const exclusive = await openSocket(family, address, port);
  if (address !== "0.0.0.0" && address !== "::") return [exclusive];
  // Those that share a port must all allow it. This one did not: now it is known that nobody else has the port.
  const { port: free } = exclusive.address();
  exclusive.close();
  await once(exclusive, "close");
  const sockets: [Socket, ...Socket[]] = [await openSocket(family, address, free, true)];
  for (const own of ownAddresses(family)) {
    const socket = await openSocket(own.family, own.address, free, true).catch(() => undefined);
    if (socket) sockets.push(socket); // else the wildcard's serves that address, too
  }
  return sockets;
}

/** `::` stands for the addresses of both families. */
function ownAddresses(family: number): { address: string; family: number }[] {
  const all = Object.entries(networkInterfaces()).flatMap(([name, infos = []]) =>
    infos.map((info) => ({
      address: info.family === "IPv6" && info.scopeid > 0 ? `${info.address}%${name}` : info.address,
      family: info.family === "IPv6" ? 6 : 4,
    })),
  );
  return all.filter((own) => family === 6 || own.family === 4);
}

/** Asks for buffers of this size. Some systems give less than asked for, others refuse: then theirs stay as they are. */
export function enlargeBuffers(socket: Socket, bytes: number): void {
  for (const set of ["setRecvBufferSize", "setSendBufferSize"] as const) {
    try {
      socket[set](bytes);
    } catch (error) {
      if (!isFailure(error)) throw error;
    }
  }
}

/**
 * Calls `onDatagram` for each datagram; those of one peer come in order. What `send` of its `server` sends leaves from
 * the address to which the datagram came. A `Failure` that it throws costs one log line. Throws `Failure`, its cause
 * being the system's error.
 */
export async function bind(
  { host, port, signal, log, bufferBytes }: BindOptions,
  onDatagram: (datagram: Buffer, from: RemoteInfo, server: UdpServer) => void,
): Promise<UdpServer> {
  const sockets = await openSockets(host, port).catch((error: unknown) => {
    throw new Failure(`cannot listen on ${formatAddress(host, port)}`, { cause: error });
  });
  if (bufferBytes !== undefined) for (const socket of sockets) enlargeBuffers(socket, bufferBytes);
  const { address, port: bound } = sockets[0].address();
  const closed = Promise.all(
    sockets.map((socket) => new Promise<void>((resolve) => socket.once("close", resolve))),
  ).then(() => {});
  const cannotSend = (bytes: Buffer | Buffer[], to: { address: string; port: number }, why: string) => {
    const { length } = Buffer.concat([bytes].flat());
    log(`${formatAddress(to.address, to.port)}: cannot send ${length} bytes: ${why}`);
  };
  const serverOf = (socket: Socket): UdpServer => ({
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
  });
  for (const socket of sockets) {
    const server = serverOf(socket);
    socket.on("message", (datagram, from) => {
      try {
        onDatagram(datagram, from, server);
      } catch (error) {
        if (!isFailure(error)) throw error;
        log(`${formatAddress(from.address, from.port)}: ${explain(error)}`);
      }
    });
    socket.on("error", (error) => log(explain(error)));
  }
  const stop = () => {
    for (const socket of sockets) socket.close();
  };
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();
  return serverOf(sockets[0]);
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

/** All addresses of a name, as somebody may be at any of them. Throws `Failure`. */
export async function addressesOf(host: string): Promise<LookupAddress[]> {
  return await lookup(host, { all: true }).catch((error: unknown) => {
    throw new Failure(`cannot resolve ${host}`, { cause: error });
  });
}

/**
 * Asks one peer from a connected socket: the kernel drops what comes from anyone else, and a port where nobody
 * listens is reported (ICMP port unreachable, ECONNREFUSED); then the next address of the name is asked, if it has
 * one. Throws `Failure`; no answer is a `TimeoutError`.
 */
export async function request<T>(options: RequestOptions<T>): Promise<T> {
  const { host, port } = options;
  const addresses = await addressesOf(host);
  for (const [i, { address, family }] of addresses.entries()) {
    try {
      return await requestFrom(createSocket(family === 6 ? "udp6" : "udp4"), address, options);
    } catch (error) {
      if (!isFailure(error)) throw error;
      const isAnswer = error instanceof Failure; // or silence, or a stop: another address is no help
      if (isAnswer || i === addresses.length - 1)
        throw new Failure(`cannot get an answer from udp://${formatAddress(host, port)}`, { cause: error });
    }
  }
  throw new Failure(`cannot resolve ${host}`);
}

/** Throws the system's error, or `Failure` where somebody is there but gives no answer. */
async function requestFrom<T>(
  socket: Socket,
  address: string,
  { port, request, accept, timeoutMs, retries = 0, signal }: RequestOptions<T>,
): Promise<T> {
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
        socket.send(request, (error) => error && reject(error));
        timer = setTimeout(ask, timeoutMs, triesLeft - 1);
      };
      ask(retries + 1);
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    socket.close();
  }
}
