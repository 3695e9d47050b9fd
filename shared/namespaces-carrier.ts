/**
 * Carries IP packets between two network namespaces, in a process of its own, so that nobody else's work delays them:
 *
 *     program ─ kernel ─ TUN device ─ socat ─ UDP ─ this process ─ UDP ─ socat ─ TUN device ─ kernel ─ program
 *     └ namespace of the client ┘                                          └ namespace of the server ┘
 *
 * `namespaces.ts` starts it and says by message what the path is like. It ends, and takes all with it, as soon as
 * nobody is there any more to speak to it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { explain, Failure, isFailure } from "./errors.ts";
import { Direction, type LinkProfile, type PacketReport } from "./link.ts";
import { ADDRESSES, deleteNamespace, type End, ip, namespaceName } from "./namespaces.ts";

export interface CarrierOptions {
  toServer: LinkProfile;
  toClient: LinkProfile;
  seed: number;
  reports: boolean;
}
export type ToCarrier =
  | { open: CarrierOptions }
  | { change: { toServer?: LinkProfile; toClient?: LinkProfile } };
export type FromCarrier =
  | { opened: Record<End, string> }
  | { failed: string }
  | { changed: true }
  | { packets: PacketReport[] };

/** 4 MiB hold 50 ms of 600 Mbit/s; where the system allows less, a burst may lose packets that the profile did not drop. */
const BUFFER_BYTES = 4 * 1024 * 1024;
/** How long reports of packets are gathered. */
const REPORT_MS = 5;

const socats: ChildProcess[] = [];
const namespaces: string[] = [];
let toServer: Direction | undefined;
let toClient: Direction | undefined;
let reports: PacketReport[] = [];

/** Who asked may be gone just now. */
const tell = (message: FromCarrier) => process.send?.(message, undefined, undefined, () => {});

function report(packet: PacketReport): void {
  if (reports.length === 0) {
    setTimeout(() => {
      tell({ packets: reports });
      reports = [];
    }, REPORT_MS);
  }
  reports.push(packet);
}

/** A namespace with a device that socat moves packets to and from; the socket is the link's end of that. */
async function openEnd(end: End): Promise<Socket> {
  const namespace = namespaceName(process.pid, end);
  const device = `nl${process.pid}${end[0]}`;
  await ip(`netns add ${namespace}`);
  namespaces.push(namespace);
  const socket = createSocket({ type: "udp4", recvBufferSize: BUFFER_BYTES, sendBufferSize: BUFFER_BYTES });
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  const port = await startSocat(device, socket.address().port);
  socket.connect(port, "127.0.0.1");
  await once(socket, "connect");
  socket.on("error", () => {}); // socat has gone: `startSocat` notices
  // Without IPv6 nothing crosses the link that no program has sent.
  await ip(`netns exec ${namespace} sysctl -qw net.ipv6.conf.all.disable_ipv6=1`);
  await ip(`link set ${device} netns ${namespace}`);
  await ip(`-n ${namespace} link set lo up`);
  await ip(`-n ${namespace} link set ${device} txqueuelen 5000 up`);
  await ip(`-n ${namespace} addr add ${ADDRESSES[end]}/24 dev ${device}`);
  return socket;
}

/** Starts socat between a new device and one of our ports; returns its own. */
async function startSocat(device: string, port: number): Promise<number> {
  const tun = `TUN,tun-name=${device},iff-no-pi`;
  const udp = `UDP4:127.0.0.1:${port},bind=127.0.0.1,rcvbuf=${BUFFER_BYTES},sndbuf=${BUFFER_BYTES}`;
  // In a process group of its own: a Ctrl-C at the terminal is not for it.
  const socat = spawn("socat", ["-d", "-d", tun, udp], {
    stdio: ["ignore", "ignore", "pipe"],
    detached: true,
  });
  socats.push(socat);
  let said = "";
  return await new Promise((resolve, reject) => {
    socat.once("error", reject);
    socat.once("exit", () => {
      reject(new Failure(`socat ended: ${/ E (.*)/.exec(said)?.[1] ?? said}`));
      void end(); // afterwards: without it there is no path
    });
    socat.stderr?.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(-4000);
      const [, own] = /connected from local address AF=2 127\.0\.0\.1:(\d+)/.exec(said) ?? [];
      if (own !== undefined && said.includes("starting data transfer")) resolve(Number(own));
    });
  });
}

async function open(options: CarrierOptions): Promise<void> {
  const onPacket = options.reports ? report : undefined;
  const forward = new Direction("to server", options.toServer, options.seed, onPacket);
  const backward = new Direction("to client", options.toClient, options.seed, onPacket);
  const client = await openEnd("client");
  const server = await openEnd("server");
  const sendToServer = (packet: Buffer) => server.send(packet);
  const sendToClient = (packet: Buffer) => client.send(packet);
  client.on("message", (packet) => forward.enter(packet, sendToServer));
  server.on("message", (packet) => backward.enter(packet, sendToClient));
  [toServer, toClient] = [forward, backward];
  tell({ opened: { client: namespaces[0] ?? "", server: namespaces[1] ?? "" } });
}

let ending = false;
async function end(): Promise<void> {
  if (ending) return;
  ending = true;
  for (const namespace of namespaces) await deleteNamespace(namespace);
  for (const socat of socats) socat.kill("SIGTERM");
  process.exit();
}

function change({ toServer: there, toClient: back }: { toServer?: LinkProfile; toClient?: LinkProfile }) {
  if (there !== undefined && toServer) toServer.profile = there;
  if (back !== undefined && toClient) toClient.profile = back;
  tell({ changed: true });
}

process.on("message", (message: ToCarrier) => {
  if ("change" in message) return change(message.change);
  open(message.open).catch((error: unknown) => {
    if (!isFailure(error)) throw error;
    tell({ failed: explain(error) });
    void end();
  });
});
process.on("disconnect", () => void end());
// A Ctrl-C is for who uses the link; when that has ended, this ends too.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});
if (process.send === undefined) throw new Error("namespaces.ts starts this");
