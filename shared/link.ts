/**
 * An emulated link: what happens to each packet, and when, is a pure function of a seed, which a `Direction` carries
 * out. Of its carriers one is here, a UDP relay on ordinary sockets; `tcp-link.ts` and `namespaces.ts` have the others.
 * The same seed and the same packets always meet the same fate.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { once } from "node:events";
import { formatAddress } from "./connection.ts";

/** One direction of a link. Probabilities are from 0 to 1; what is left out does not happen. */
export interface LinkProfile {
  delayMs?: number;
  /** The delay varies by up to this much either way, evenly; order is kept, as in a queue. */
  jitterMs?: number;
  loss?: number;
  duplication?: number;
  /** A reordered packet waits its delay a second time (at least 1 ms), so that later ones overtake it. */
  reordering?: number;
  /** One bit of the packet is flipped. */
  corruption?: number;
  /** A packet's last byte leaves its size divided by this after its first. */
  rateBytesPerSecond?: number;
  /** What may wait for the rate; a packet beyond it is dropped (tail drop). */
  queueBytes?: number;
}

/** What a link remembers between packets. */
interface LinkState {
  /** Packets so far. */
  index: number;
  /** When the last queued packet will have left. */
  freeAtMs: number;
  lastArrivalMs: number;
}
export const NEW_LINK: LinkState = { index: 0, freeAtMs: 0, lastArrivalMs: 0 };

/** A copy that comes out: when, and which bit of it is flipped, if one is. */
interface Arrival {
  atMs: number;
  flippedBit?: number;
}
export type Fate =
  | { outcome: "delivered" | "duplicated"; arrivals: Arrival[] }
  | { outcome: "lost" | "queue full"; arrivals: [] };

/** What becomes of a packet of `sizeBytes` that enters at `nowMs`, and the link's state after it. */
export function pass(
  profile: LinkProfile,
  seed: number,
  state: LinkState,
  nowMs: number,
  sizeBytes: number,
): [LinkState, Fate] {
  const { delayMs = 0, jitterMs = 0, rateBytesPerSecond = Infinity, queueBytes = Infinity } = profile;
  const { loss = 0, reordering = 0, corruption = 0, duplication = 0 } = profile;
  const { index } = state;
  const next = { ...state, index: index + 1 };
  if (random(seed, index, 0) < loss) return [next, { outcome: "lost", arrivals: [] }];

  const waitMs = Math.max(0, state.freeAtMs - nowMs);
  if (waitMs > 0 && (waitMs * rateBytesPerSecond) / 1000 + sizeBytes > queueBytes) {
    return [next, { outcome: "queue full", arrivals: [] }];
  }
  next.freeAtMs = nowMs + waitMs + (sizeBytes * 1000) / rateBytesPerSecond;

  const travelMs = Math.max(0, delayMs + (2 * random(seed, index, 1) - 1) * jitterMs);
  const arrival: Arrival = { atMs: Math.max(next.freeAtMs + travelMs, state.lastArrivalMs) };
  if (random(seed, index, 2) < reordering) arrival.atMs += Math.max(1, travelMs);
  else next.lastArrivalMs = arrival.atMs;
  if (random(seed, index, 3) < corruption && sizeBytes > 0)
    arrival.flippedBit = Math.floor(random(seed, index, 4) * sizeBytes * 8);
  if (random(seed, index, 5) >= duplication) return [next, { outcome: "delivered", arrivals: [arrival] }];
  return [next, { outcome: "duplicated", arrivals: [arrival, { atMs: arrival.atMs }] }];
}

/**
 * A number in [0, 1) that depends on nothing but its arguments, so that one packet's fate does not shift with
 * another's: the finalizer of MurmurHash3 (Appleby) over a Weyl sequence.
 */
function random(seed: number, index: number, purpose: number): number {
  let bits = seed | 0;
  for (const salt of [index, purpose]) {
    bits = (bits ^ Math.imul(salt + 1, 0x9e3779b9)) | 0;
    bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
    bits ^= bits >>> 16;
  }
  return (bits >>> 0) / 2 ** 32;
}

function flipBit(bytes: Buffer, bit: number | undefined): Buffer {
  if (bit === undefined) return bytes;
  const copy = Buffer.from(bytes);
  copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (0x80 >> (bit & 7));
  return copy;
}

/** What a link did to one packet. */
export interface PacketReport {
  direction: "to server" | "to client";
  index: number;
  sizeBytes: number;
  /** When it came to the link, on the clock of the fate's arrivals. */
  enteredMs: number;
  fate: Fate;
}
export type OnPacket = (report: PacketReport) => void;

/** Nearer than this to a packet's time a timer of whole milliseconds is too coarse: the rest is waited in short naps. */
const NEAR_MS = 1.5;
const NAP_MS = 0.05;
const napping = new Int32Array(new SharedArrayBuffer(4));

/** One direction of a link: what enters comes out when `pass` says so, in a buffer of its own where it is changed. */
export class Direction {
  /** May be replaced at any time; holds for what enters from then on. */
  profile: LinkProfile;
  readonly name: PacketReport["direction"];
  readonly #seed: number;
  readonly #onPacket: OnPacket | undefined;
  #state = NEW_LINK;
  /** Soonest first. One timer serves it all: several could fire in another order. */
  readonly #underway: { atMs: number; deliver: () => void }[] = [];
  #timer: NodeJS.Timeout | undefined;
  #near: NodeJS.Immediate | undefined;

  /** Both directions of a link have the same seed, and fates of their own. */
  constructor(name: PacketReport["direction"], profile: LinkProfile, seed: number, onPacket?: OnPacket) {
    this.name = name;
    this.profile = profile;
    this.#seed = 2 * seed + (name === "to server" ? 0 : 1);
    this.#onPacket = onPacket;
  }

  enter(packet: Buffer, deliver: (bytes: Buffer) => void): Fate {
    const enteredMs = performance.now();
    const { index } = this.#state;
    const [state, fate] = pass(this.profile, this.#seed, this.#state, enteredMs, packet.length);
    this.#state = state;
    this.#onPacket?.({ direction: this.name, index, sizeBytes: packet.length, enteredMs, fate });
    for (const { atMs, flippedBit } of fate.arrivals)
      this.#schedule(atMs, () => deliver(flipBit(packet, flippedBit)));
    return fate;
  }

  /** What is under way is lost. */
  end(): void {
    this.#underway.length = 0;
    clearTimeout(this.#timer);
    clearImmediate(this.#near);
  }

  #schedule(atMs: number, deliver: () => void): void {
    let place = this.#underway.length; // the end, as a rule
    while (place > 0 && (this.#underway[place - 1]?.atMs ?? 0) > atMs) place--;
    if (place === this.#underway.length) this.#underway.push({ atMs, deliver });
    else this.#underway.splice(place, 0, { atMs, deliver });
    if (place === 0) this.#deliverDue(); // nothing was to be waited for, or nothing so soon
  }

  #deliverDue(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#near);
    let leftMs = this.#leftMs();
    for (; leftMs <= 0; leftMs = this.#leftMs()) this.#underway.shift()?.deliver();
    if (leftMs === Infinity) return;
    if (leftMs > NEAR_MS) {
      this.#timer = setTimeout(() => this.#deliverDue(), leftMs - NEAR_MS);
      return;
    }
    if (leftMs > 4 * NAP_MS) Atomics.wait(napping, 0, 0, NAP_MS);
    this.#near = setImmediate(() => this.#deliverDue());
  }

  #leftMs(): number {
    const [first] = this.#underway;
    return first === undefined ? Infinity : first.atMs - performance.now();
  }
}

interface UdpLinkOptions {
  /** Where clients send to; port 0 is any free one. */
  host?: string;
  port?: number;
  /** The server behind the link. */
  to: { host: string; port: number };
  toServer: LinkProfile;
  toClient: LinkProfile;
  seed: number;
  onPacket?: OnPacket;
}

interface UdpLink extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
}

/** Clients that a relay keeps a way back for; of more, the one known longest is forgotten. */
const MAX_CLIENTS = 1000;

/** Stands between UDP clients and a server; each client has a port of its own towards the server, as behind a NAT. */
export async function udpLink(options: UdpLinkOptions): Promise<UdpLink> {
  const { host = "127.0.0.1", port = 0, to, toServer, toClient, seed, onPacket } = options;
  const typeOf = (address: string) => (address.includes(":") ? "udp6" : "udp4");
  const front = createSocket(typeOf(host));
  const backs = new Map<string, Socket>();
  const there = new Direction("to server", toServer, seed, onPacket);
  const back = new Direction("to client", toClient, seed, onPacket);

  const backFor = (client: RemoteInfo): Socket => {
    const key = formatAddress(client.address, client.port);
    const known = backs.get(key);
    if (known) return known;
    const own = createSocket(typeOf(to.host));
    own.on("message", (packet) =>
      back.enter(packet, (bytes) => front.send(bytes, client.port, client.address)),
    );
    own.on("error", () => {}); // the server is not there: to the client, a loss
    backs.set(key, own);
    const [oldest] = backs.keys();
    if (backs.size > MAX_CLIENTS && oldest !== undefined) {
      backs.get(oldest)?.close();
      backs.delete(oldest);
    }
    return own;
  };

  front.on("message", (packet, client) => {
    const own = backFor(client);
    there.enter(packet, (bytes) => {
      if (backs.get(formatAddress(client.address, client.port)) === own) own.send(bytes, to.port, to.host);
    });
  });
  front.bind(port, host);
  await once(front, "listening");
  front.on("error", () => {}); // a client has gone: to the server, a loss
  const { address, port: bound } = front.address();
  return {
    url: `udp://${formatAddress(address, bound)}`,
    port: bound,
    async [Symbol.asyncDispose]() {
      for (const direction of [there, back]) direction.end();
      for (const own of backs.values()) own.close();
      front.close();
      await once(front, "close");
    },
  };
}
