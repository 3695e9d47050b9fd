/**
 * The connections behind one socket, as a pure machine: whose packet is this, is its sender where it says, who is
 * forgotten. Nothing is remembered of an address before it has sent back a cookie, and a challenge is shorter than
 * what it answers: so a forged address gets less than the forger spent (RFC 9000 §8).
 */
import { formatAddress } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { PduError } from "../../shared/pdu.ts";
import { Connection } from "./connection.ts";
import type { ConnectionOptions } from "./options.ts";
import {
  type Arrived,
  cookieFor,
  HASH_BYTES,
  isCookieFor,
  keyOf,
  NO_SEQUENCE,
  type Open,
  type Parts,
  seal,
  TOKEN_BYTES,
  unseal,
} from "./protocol.ts";

export interface Address {
  address: string;
  port: number;
}
/** What a client asks for; the rest of the open is the endpoint's. */
export type Request = Pick<Open, "request" | "name"> & { offset?: number; size?: number; sha256?: Buffer };
export const NO_HASH = Buffer.alloc(HASH_BYTES);

interface Peer {
  connection: Connection;
  to: Address;
  /** Under which it is in `#opening`. */
  openedAs: string;
}

interface EndpointOptions {
  connection: ConnectionOptions;
  /** Unguessable bytes. */
  random: (size: number) => Buffer;
  /** Somebody has a request, and is where its packets come from; without it, nobody can open anything here. */
  onOpen?: (connection: Connection, token: Buffer, from: Address) => void;
  /** At most so many connections; further opens are not answered. */
  maxConnections?: number;
  log?: (line: string) => void;
}

const keyOfAddress = ({ address, port }: Address) => formatAddress(address, port);

export class Endpoint {
  readonly #options: EndpointOptions;
  readonly #secret: Buffer;
  /** By the token in the packets that come. */
  readonly #peers = new Map<string, Peer>();
  /** A client's connection at the server, by its token and address, until the client knows the server's token. */
  readonly #opening = new Map<string, string>();
  /** Connections that may have something to send. */
  readonly #active = new Set<Peer>();
  /** Packets that belong to no connection. */
  #loose: { packet: Parts; to: Address }[] = [];
  /** Called when the application has given a connection something to do. */
  onActive: () => void = () => {};

  constructor(options: EndpointOptions) {
    this.#options = options;
    this.#secret = options.random(32);
  }

  get connections(): number {
    return this.#peers.size;
  }

  /** Opens a connection to a server. */
  connect(request: Request, to: Address, nowMs: number): Connection {
    const { mtu, windowBytes } = this.#options.connection;
    const token = this.#options.random(TOKEN_BYTES);
    const open: Open = {
      ...{ kind: "open", request: request.request, name: request.name, token, mtu, window: windowBytes },
      offset: BigInt(request.offset ?? 0),
      size: BigInt(request.size ?? 0),
      sha256: request.sha256 ?? NO_HASH,
      cookie: Buffer.alloc(0),
    };
    const connection = new Connection(open, this.#options.connection, nowMs);
    this.#add(token, connection, to, "");
    return connection;
  }

  #add(token: Buffer, connection: Connection, to: Address, openedAs: string): void {
    const peer = { connection, to, openedAs };
    this.#peers.set(keyOf(token), peer);
    this.#active.add(peer);
    connection.onActive = () => {
      this.#active.add(peer);
      this.onActive();
    };
  }

  /** Takes a datagram, which it may change. Whatever is no packet of a connection here, or damaged, is ignored. */
  receive(datagram: Buffer, from: Address, nowMs: number): void {
    let arrived: Arrived | undefined;
    try {
      arrived = unseal(datagram);
    } catch (error) {
      if (!(error instanceof PduError)) throw error;
      return this.#options.log?.(`${keyOfAddress(from)}: ${error.message}`);
    }
    if (arrived === undefined) return;
    if (arrived.message.kind === "open") return this.#onOpen(arrived, arrived.message, from, nowMs);
    const peer = this.#peers.get(arrived.token);
    if (peer === undefined) return;
    // Every packet is from the peer's address; one from another, with the right token, may be the peer behind a new port.
    if (from.port !== peer.to.port || from.address !== peer.to.address) {
      if (!this.#isMove(arrived, peer, from, nowMs)) return;
    }
    this.#active.add(peer);
    try {
      peer.connection.receive(arrived, nowMs);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      peer.connection.fail("broken rules", error.message);
    }
  }

  #onOpen(arrived: Arrived, open: Open, from: Address, nowMs: number): void {
    const { onOpen, connection, maxConnections = 1000, random } = this.#options;
    if (onOpen === undefined) return;
    const address = keyOfAddress(from);
    const name = `${keyOf(open.token)} ${address}`;
    const known = this.#peers.get(this.#opening.get(name) ?? "");
    if (known) {
      this.#active.add(known);
      return known.connection.receive(arrived, nowMs);
    }
    if (!isCookieFor(open.cookie, this.#secret, address, open.token, nowMs))
      return this.#challenge(arrived.sequence, open.token, from, nowMs);
    if (!this.#hasRoom(maxConnections)) return;
    const token = random(TOKEN_BYTES);
    // The datagram's buffer is not ours to keep.
    const kept = { ...open, token: Buffer.from(open.token), sha256: Buffer.from(open.sha256) };
    const fresh = new Connection(kept, connection, nowMs, kept.token);
    this.#add(token, fresh, from, name);
    this.#opening.set(name, keyOf(token));
    fresh.receive(arrived, nowMs);
    onOpen(fresh, token, from);
  }

  /** Ended connections keep nobody out: where there is no room, they are forgotten before their time. */
  #hasRoom(most: number): boolean {
    if (this.#peers.size < most) return true;
    for (const [key, peer] of this.#peers) if (peer.connection.state === "ended") this.#forget(key, peer);
    return this.#peers.size < most;
  }

  #forget(key: string, { openedAs }: Peer): void {
    this.#peers.delete(key);
    this.#opening.delete(openedAs);
  }

  /** Asks whether anybody is there. `ack` is the open that it answers; anything else is as good as lost, and not acknowledged. */
  #challenge(ack: number, token: Buffer, to: Address, nowMs: number): void {
    const cookie = cookieFor(this.#secret, keyOfAddress(to), token, nowMs);
    const acks = { ack, ackBitfield: 0 };
    this.#loose.push({ packet: [seal(NO_SEQUENCE, acks, token, { kind: "challenge", cookie })], to });
    this.onActive();
  }

  /** A packet of a known connection from elsewhere: the new address must send back a cookie before anything else goes there. */
  #isMove(arrived: Arrived, peer: Peer, from: Address, nowMs: number): boolean {
    if (this.#options.onOpen === undefined) return false; // servers do not move
    const { token } = peer.connection.open;
    const { message } = arrived;
    if (message.kind !== "echo") {
      this.#challenge(0, token, from, nowMs);
      return false;
    }
    if (!isCookieFor(message.cookie, this.#secret, keyOfAddress(from), token, nowMs)) return false;
    this.#options.log?.(`${keyOfAddress(peer.to)} is now ${keyOfAddress(from)}`);
    peer.to = from;
    return true;
  }

  /** The next packet to be sent, and where to. */
  next(nowMs: number): { packet: Parts; to: Address } | undefined {
    const loose = this.#loose.shift();
    if (loose) return loose;
    for (const peer of this.#active) {
      const packet = peer.connection.next(nowMs);
      if (packet) return { packet, to: peer.to };
      this.#active.delete(peer);
    }
    return undefined;
  }

  /** When `onTime` is to be called. */
  get wakeAtMs(): number {
    let atMs = Infinity;
    for (const { connection } of this.#peers.values()) atMs = Math.min(atMs, connection.wakeAtMs);
    return atMs;
  }

  /** Lets connections whose time has come go on, and forgets those that have ended. */
  onTime(nowMs: number): void {
    for (const [key, peer] of this.#peers) {
      if (peer.connection.forgetAtMs <= nowMs) this.#forget(key, peer);
      else if (peer.connection.wakeAtMs <= nowMs) this.#active.add(peer);
    }
  }

  /** Ends every connection, saying why. */
  stop(reason: string): void {
    for (const { connection } of this.#peers.values()) connection.fail("stopped", reason);
  }
}
