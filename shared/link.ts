/**
 * An emulated link: what happens to each packet, and when, is a pure function of a seed; a UDP relay carries it
 * out on ordinary sockets. The same seed and the same packets always meet the same fate.
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
export interface LinkState {
  /** Packets so far. */
  index: number;
  /** When the last queued packet will have left. */
  freeAtMs: number;
  lastArrivalMs: number;
}
export const NEW_LINK: LinkState = { index: 0, freeAtMs: 0, lastArrivalMs: 0 };

/** A copy that comes out: when, and which bit of it is flipped, if one is. */
export interface Arrival {
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
  const draw = (purpose: number) => random(seed, state.index, purpose);
  const next = { ...state, index: state.index + 1 };
  if (draw(0) < (profile.loss ?? 0)) return [next, { outcome: "lost", arrivals: [] }];

  const waitMs = Math.max(0, state.freeAtMs - nowMs);
  if (waitMs > 0 && (waitMs * rateBytesPerSecond) / 1000 + sizeBytes > queueBytes) {
    return [next, { outcome: "queue full", arrivals: [] }];
  }
  next.freeAtMs = nowMs + waitMs + (sizeBytes * 1000) / rateBytesPerSecond;

  const travelMs = Math.max(0, delayMs + (2 * draw(1) - 1) * jitterMs);
  const arrival: Arrival = { atMs: Math.max(next.freeAtMs + travelMs, state.lastArrivalMs) };
  if (draw(2) < (profile.reordering ?? 0)) arrival.atMs += Math.max(1, travelMs);
  else next.lastArrivalMs = arrival.atMs;
  if (draw(3) < (profile.corruption ?? 0) && sizeBytes > 0)
    arrival.flippedBit = Math.floor(draw(4) * sizeBytes * 8);
  if (draw(5) >= (profile.duplication ?? 0)) return [next, { outcome: "delivered", arrivals: [arrival] }];
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

/** What a relay did to one packet. */
export interface PacketReport {
  direction: "to server" | "to client";
  index: number;
  sizeBytes: number;
  fate: Fate;
}

export interface UdpLinkOptions {
  /** Where clients send to; port 0 is any free one. */
  host?: string;
  port?: number;
  /** The server behind the link. */
  to: { host: string; port: number };
  toServer: LinkProfile;
  toClient: LinkProfile;
  seed: number;
  onPacket?: (report: PacketReport) => void;
}

export interface UdpLink extends AsyncDisposable {
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
  const states = { "to server": NEW_LINK, "to client": NEW_LINK };

  /** What is on its way, soonest first. One timer serves it all: several could fire in another order. */
  const underway: { atMs: number; deliver: () => void }[] = [];
  let timer: NodeJS.Timeout | undefined;
  const deliverDue = () => {
    const nowMs = performance.now();
    while (underway[0] !== undefined && underway[0].atMs <= nowMs) underway.shift()?.deliver();
    const [next] = underway;
    if (next !== undefined) timer = setTimeout(deliverDue, Math.max(1, next.atMs - nowMs));
  };
  const schedule = (atMs: number, deliver: () => void) => {
    const later = underway.findLastIndex((other) => other.atMs <= atMs);
    underway.splice(later + 1, 0, { atMs, deliver });
    clearTimeout(timer);
    deliverDue();
  };

  const carry = (direction: PacketReport["direction"], packet: Buffer, deliver: (bytes: Buffer) => void) => {
    const nowMs = performance.now();
    const [profile, seedOfDirection] =
      direction === "to server" ? [toServer, 2 * seed] : [toClient, 2 * seed + 1];
    const { index } = states[direction];
    const [state, fate] = pass(profile, seedOfDirection, states[direction], nowMs, packet.length);
    states[direction] = state;
    onPacket?.({ direction, index, sizeBytes: packet.length, fate });
    for (const { atMs, flippedBit } of fate.arrivals)
      schedule(atMs, () => deliver(flipBit(packet, flippedBit)));
  };

  const backFor = (client: RemoteInfo): Socket => {
    const key = formatAddress(client.address, client.port);
    const known = backs.get(key);
    if (known) return known;
    const back = createSocket(typeOf(to.host));
    back.on("message", (packet) =>
      carry("to client", packet, (bytes) => front.send(bytes, client.port, client.address)),
    );
    back.on("error", () => {}); // the server is not there: to the client, a loss
    backs.set(key, back);
    const [oldest] = backs.keys();
    if (backs.size > MAX_CLIENTS && oldest !== undefined) {
      backs.get(oldest)?.close();
      backs.delete(oldest);
    }
    return back;
  };

  front.on("message", (packet, client) => {
    const back = backFor(client);
    carry("to server", packet, (bytes) => {
      if (backs.get(formatAddress(client.address, client.port)) === back) back.send(bytes, to.port, to.host);
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
      clearTimeout(timer);
      for (const back of backs.values()) back.close();
      front.close();
      await once(front, "close");
    },
  };
}
