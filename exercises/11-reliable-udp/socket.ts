/** The one file that has a socket and a clock: it runs an endpoint on them. */
import { randomBytes } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { isIPv6 } from "node:net";
import { formatAddress } from "../../shared/connection.ts";
import { explain, Failure } from "../../shared/errors.ts";
import { bind, enlargeBuffers, type UdpServer } from "../../shared/udp.ts";
import type { Connection } from "./connection.ts";
import { type Address, Endpoint, type Request } from "./endpoint.ts";
import type { ConnectionOptions } from "./options.ts";
import type { Parts } from "./protocol.ts";

/** What the system may keep for us while we are busy. */
const BUFFER_BYTES = 4 * 2 ** 20;
/** Packets that leave before it is looked whether anything has come. */
const FLUSH_PACKETS = 256;

/** Sends what an endpoint has to send, when it is time to. */
class Driver {
  readonly #endpoint: Endpoint;
  readonly #send: (packet: Parts, to: Address) => void;
  #isScheduled = false;
  #timer: NodeJS.Timeout | undefined;
  #timerAtMs = Infinity;

  constructor(endpoint: Endpoint, send: (packet: Parts, to: Address) => void) {
    this.#endpoint = endpoint;
    this.#send = send;
    endpoint.onActive = () => this.schedule();
  }

  /** After everything that has arrived by now: so one acknowledgement does for all of it. */
  schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => this.flush());
  }

  flush(): void {
    this.#isScheduled = false;
    for (let count = 0; count < FLUSH_PACKETS; count++) {
      const out = this.#endpoint.next(performance.now());
      if (out === undefined) return this.#sleep();
      this.#send(out.packet, out.to);
    }
    this.schedule();
  }

  /** A timer that is set already and fires no later is left alone: it costs less to look once in vain. */
  #sleep(): void {
    const wakeAtMs = this.#endpoint.wakeAtMs;
    if (wakeAtMs >= this.#timerAtMs || wakeAtMs === Infinity) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = wakeAtMs;
    this.#timer = setTimeout(() => this.#wake(), Math.max(1, wakeAtMs - performance.now()));
  }

  #wake(): void {
    this.#timerAtMs = Infinity;
    this.#endpoint.onTime(performance.now());
    this.flush();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#endpoint.onActive = () => {};
  }
}

interface Served {
  url: string;
  port: number;
  endpoint: Endpoint;
  /** After the signal, when everybody has been told. */
  closed: Promise<void>;
}

interface ServeOptions {
  host: string;
  port: number;
  connection: ConnectionOptions;
  signal: AbortSignal;
  log: (line: string) => void;
  debug?: (line: string) => void;
}

/** Opens a socket and calls `onOpen` for each request. Throws `Failure`. */
export async function serveRudp(
  { host, port, connection, signal, log, debug = () => {} }: ServeOptions,
  onOpen: (connection: Connection, token: Buffer, from: Address) => void,
): Promise<Served> {
  const stop = new AbortController();
  const endpoint = new Endpoint({ connection, random: randomBytes, onOpen, log: debug });
  // An answer leaves from the socket, and so from the address, to which the last packet of its peer came.
  const ways = new WeakMap<Address, UdpServer>();
  const server = await bind(
    { host, port, signal: stop.signal, log, bufferBytes: BUFFER_BYTES },
    (datagram, from, way) => {
      ways.set(from, way);
      endpoint.receive(datagram, from, performance.now());
      driver.schedule();
    },
  );
  const driver = new Driver(endpoint, (packet, to) => (ways.get(to) ?? server).send(packet, to));
  signal.addEventListener("abort", () => {
    endpoint.stop("the server was stopped");
    driver.flush();
    driver.stop();
    setImmediate(() => stop.abort());
  });
  return { url: server.url, port: server.port, endpoint, closed: server.closed };
}

export interface ConnectOptions {
  /** An address. */
  host: string;
  port: number;
  connection: ConnectionOptions;
  signal: AbortSignal;
}

/** Nobody is there, or no way leads there. Another address of the same name may be the right one. */
export class UnreachableError extends Failure {}

/** A client's connection on a socket of its own, which must be closed. Throws `UnreachableError`. */
export async function connectRudp(
  request: Request,
  { host, port, connection: options, signal }: ConnectOptions,
): Promise<{ connection: Connection; close: () => void }> {
  const socket = await connectedSocket(host, port);
  const server = { address: host, port };
  const endpoint = new Endpoint({ connection: options, random: randomBytes });
  const connection = endpoint.connect(request, server, performance.now());
  let arrivals = 0;
  /** The system's word comes before what somebody had said last, which waits to be read: after a turn without any of that. */
  const lose = (error: Failure) => {
    const before = arrivals;
    const look = () => (arrivals === before ? connection.lose(error) : lose(error));
    setImmediate(() => setImmediate(look));
  };
  const onError = (error: NodeJS.ErrnoException | null) => {
    // Nobody listens there (ICMP port unreachable). Whatever else keeps a packet from being sent is a loss.
    if (error?.code !== "ECONNREFUSED") return;
    lose(new (connection.state === "opening" ? UnreachableError : Failure)(explain(error)));
  };
  // The system says it once, to whichever call comes first: the next packet's, or the one that receives.
  const driver = new Driver(endpoint, (packet) => socket.send(packet, onError));
  socket.on("message", (datagram) => {
    arrivals++;
    endpoint.receive(datagram, server, performance.now());
    driver.schedule();
  });
  socket.on("error", onError);
  const onAbort = () => connection.fail("stopped", "the client was stopped");
  signal.addEventListener("abort", onAbort, { once: true });
  driver.schedule();
  const close = () => {
    signal.removeEventListener("abort", onAbort);
    driver.flush(); // the last word
    driver.stop();
    socket.close();
  };
  return { connection, close };
}

async function connectedSocket(address: string, port: number): Promise<Socket> {
  const socket = createSocket(isIPv6(address) ? "udp6" : "udp4");
  try {
    socket.connect(port, address);
    await once(socket, "connect");
  } catch (error) {
    socket.close();
    throw new UnreachableError(`cannot connect to udp://${formatAddress(address, port)}`, { cause: error });
  }
  enlargeBuffers(socket, BUFFER_BYTES);
  return socket;
}
