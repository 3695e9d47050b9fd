/** The datagram socket of a node: broadcasts to every port of every network, and hears those of the others. */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { once } from "node:events";
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";
import { formatAddress } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";

/** Reaches every node of this machine whose socket has SO_BROADCAST, whatever networks there are. */
const LOOPBACK_BROADCAST = "127.255.255.255";
const isLoopback = (address: string) => address.startsWith("127.");

export interface PortRange {
  first: number;
  last: number;
}

/** The broadcast addresses of the networks: the host part of the address all ones (RFC 919 §7, RFC 922 §7). */
export function broadcastAddresses(
  interfaces: NodeJS.Dict<Pick<NetworkInterfaceInfo, "address" | "netmask" | "family">[]>,
): string[] {
  const own = Object.values(interfaces).flatMap((infos = []) =>
    infos.flatMap(({ family, address, netmask }) => {
      if (family !== "IPv4") return [];
      const [host, mask] = [bytesOf(address), bytesOf(netmask)];
      const hasBroadcast = (mask[3] ?? 255) < 254; // networks of one or two addresses have none (RFC 3021)
      return hasBroadcast ? [host.map((byte, i) => byte | (~(mask[i] ?? 0) & 0xff)).join(".")] : [];
    }),
  );
  return [...new Set([LOOPBACK_BROADCAST, ...own])];
}
const bytesOf = (address: string) => address.split(".").map(Number);

interface SegmentOptions {
  /** A loopback address: whoever is not of this machine is not heard, and hears nothing. */
  host: string;
  port: number;
  ports: PortRange;
  /** Where to send to; empty: wherever there is a network at the moment. */
  broadcast: readonly string[];
  signal: AbortSignal;
  log: (line: string) => void;
  onDatagram: (datagram: Buffer, from: RemoteInfo) => void;
}

export class Segment {
  readonly #socket: Socket;
  readonly #options: SegmentOptions;
  readonly #complained = new Set<string>();
  #isClosed = false;
  /** Where it sent to when it was last asked what has changed. */
  #networks: readonly string[];

  private constructor(socket: Socket, options: SegmentOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#networks = this.#addresses();
  }

  /** Throws `Failure`, its cause being the system's error. */
  static async open(options: SegmentOptions): Promise<Segment> {
    const { host, port, signal, log, onDatagram } = options;
    const socket = createSocket("udp4");
    try {
      // A socket that is bound to one address gets no broadcasts, so this one is bound to none.
      socket.bind({ address: "0.0.0.0", port, exclusive: true });
      await once(socket, "listening");
    } catch (error) {
      socket.close();
      throw new Failure(`cannot listen on ${formatAddress("0.0.0.0", port)}`, { cause: error });
    }
    socket.setBroadcast(true); // SO_BROADCAST: without it, sending to such an address is refused (EACCES)
    const segment = new Segment(socket, options);
    socket.on("message", (datagram, from) => {
      if (!isLoopback(host) || isLoopback(from.address)) onDatagram(datagram, from);
    });
    socket.on("error", (error) => {
      if (!isFailure(error)) throw error;
      log(explain(error));
    });
    if (signal.aborted) segment.close();
    return segment;
  }

  get url(): string {
    return `udp://${formatAddress(this.#socket.address().address, this.#options.port)}`;
  }

  #addresses(): readonly string[] {
    const { host, broadcast } = this.#options;
    const all = broadcast.length > 0 ? broadcast : broadcastAddresses(networkInterfaces());
    return isLoopback(host) ? all.filter(isLoopback) : all;
  }

  /** What has changed since it was asked last: a card is new or has its cable again, or has lost it. */
  networkChanges(): { come: string[]; gone: string[] } {
    const before = this.#networks;
    const now = this.#addresses();
    this.#networks = now;
    return {
      come: now.filter((address) => !before.includes(address)),
      gone: before.filter((address) => !now.includes(address)),
    };
  }

  /** To every port of every network, where it may be that there is a node. */
  broadcast(datagram: Buffer): Promise<unknown> {
    const { port: own, ports } = this.#options;
    const sent: Promise<void>[] = [];
    for (const address of this.#addresses()) {
      for (let port = ports.first; port <= ports.last; port++) {
        if (isLoopback(address) && port === own) continue; // on this machine that is this node
        sent.push(this.send(datagram, { address, port }));
      }
    }
    return Promise.all(sent);
  }

  /** Resolves when the system has taken it, or has not; what cannot be sent costs a line, once. */
  send(datagram: Buffer, { address, port }: { address: string; port: number }): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    return new Promise((resolve) => {
      this.#socket.send(datagram, port, address, (error) => {
        if (error && !this.#complained.has(address)) {
          this.#complained.add(address);
          this.#options.log(`cannot send to ${address}: ${explain(error)}`);
        }
        resolve();
      });
    });
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.close();
  }
}
