/** The link for TCP, as a relay: what it gets it delays, splits, withholds for ever or cuts off by a reset; it loses nothing. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { formatAddress } from "./connection.ts";
import { Direction, type LinkProfile, type OnPacket, type PacketReport } from "./link.ts";

/** One direction. What is left out does not happen; order is kept always. */
export interface TcpProfile extends Pick<LinkProfile, "delayMs" | "jitterMs" | "rateBytesPerSecond"> {
  /** What comes in goes on in pieces of so many bytes. */
  splitBytes?: number;
  /** After so many bytes of a connection nothing comes any more. */
  stallAfterBytes?: number;
  /** After so many bytes the connection is reset, on both sides. */
  resetAfterBytes?: number;
}

export interface TcpLinkOptions {
  host?: string;
  port?: number;
  to: { host: string; port: number };
  toServer: TcpProfile;
  toClient: TcpProfile;
  seed: number;
  onPacket?: OnPacket;
  onFault?: (fault: TcpFault) => void;
}

export interface TcpFault {
  fault: "stall" | "reset";
  direction: PacketReport["direction"];
  afterBytes: number;
}

interface TcpLink extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
}

/** On their way in one direction of a connection; beyond, the sender has to wait. */
const MAX_UNDERWAY_BYTES = 4 * 1024 * 1024;
const NOTHING = Buffer.alloc(0);
/** From the last byte to the RST: libuv reports data and a RST that it meets together as data and an end in order. */
const RESET_PAUSE_MS = 20;

/** Each connection, by the order in which they came, meets the same again with the same seed. */
export async function tcpLink(options: TcpLinkOptions): Promise<TcpLink> {
  const { host = "127.0.0.1", port = 0, to, toServer, toClient, seed, onPacket } = options;
  const sockets = new Set<Socket>();
  const directions = new Set<Direction>();
  let connections = 0;
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const upstream = connect({ ...to, allowHalfOpen: true, noDelay: true });
    const own = seed + 1_000_003 * connections++;
    const forward = new Direction("to server", toServer, own, onPacket);
    const backward = new Direction("to client", toClient, own, onPacket);
    const reset = () => {
      for (const socket of [client, upstream]) cutOff(socket);
      for (const direction of [forward, backward]) direction.end();
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", reset);
      socket.on("close", () => sockets.delete(socket));
    }
    for (const direction of [forward, backward]) directions.add(direction);
    const ended = [
      pump({ from: client, to: upstream, over: forward, profile: toServer, reset, options }),
      pump({ from: upstream, to: client, over: backward, profile: toClient, reset, options }),
    ];
    void Promise.allSettled(ended).then(() => {
      for (const direction of [forward, backward]) directions.delete(direction);
    });
  });
  server.listen(port, host);
  await once(server, "listening");
  const { address, port: bound } = server.address() as AddressInfo;
  return {
    url: `tcp://${formatAddress(address, bound)}`,
    port: bound,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      for (const direction of directions) direction.end();
      server.close();
      await once(server, "close");
    },
  };
}

/** By a RST and nothing before it: by itself Node sends a FIN first, which the other side may take for an end in order. */
function cutOff(socket: Socket): void {
  const isEnding = socket.writableEnded;
  if (!isEnding) socket._final = () => {};
  socket.resetAndDestroy();
  if (!isEnding) socket.destroy(); // else as soon as the FIN that is already asked for has left
}

interface Pump {
  from: Socket;
  to: Socket;
  over: Direction;
  profile: TcpProfile;
  reset: () => void;
  options: TcpLinkOptions;
}

/** Passes on one direction of a connection, its end included. */
async function pump({ from, to, over, profile, reset, options }: Pump): Promise<void> {
  const { splitBytes = Infinity, stallAfterBytes = Infinity, resetAfterBytes = Infinity } = profile;
  const limit = Math.min(stallAfterBytes, resetAfterBytes);
  let [offset, underwayBytes, goOn] = [0, 0, () => {}];
  try {
    for await (const chunk of from.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      const passed = chunk.subarray(0, limit - offset);
      offset += passed.length;
      for (let at = 0; at < passed.length; at += splitBytes) {
        const piece = passed.subarray(at, at + splitBytes);
        underwayBytes += piece.length;
        over.enter(piece, (bytes) =>
          to.write(bytes, () => {
            underwayBytes -= bytes.length;
            goOn();
          }),
        );
        await nextTurn(); // lest they arrive as one
      }
      if (offset >= limit) {
        const fault = resetAfterBytes <= stallAfterBytes ? "reset" : "stall";
        options.onFault?.({ fault, direction: over.name, afterBytes: limit });
        if (fault === "reset")
          over.enter(NOTHING, () => setTimeout(() => setImmediate(reset), RESET_PAUSE_MS));
        return;
      }
      while (underwayBytes > MAX_UNDERWAY_BYTES && !to.destroyed) {
        await new Promise<void>((resolve) => {
          goOn = resolve;
          to.once("close", resolve);
        });
      }
    }
    over.enter(NOTHING, () => to.end());
  } catch {
    to.destroy(); // one side went away: so does the other
  }
}
