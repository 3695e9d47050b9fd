/** Who is compared: this protocol and the kernel's TCP, each with its congestion control, run at the ends of a link between namespaces. */
import { Failure } from "../../shared/errors.ts";
import type { LinkProfile } from "../../shared/link.ts";
import type { NamespaceEnd, NamespaceLink } from "../../shared/namespaces.ts";
import { type Running, runTool, start } from "../../shared/running.ts";

const BLOB = "exercises/11-reliable-udp/blob.ts";
const BLOB_BYTES = 1_000_000_000;
/** With IP's and UDP's headers 1,500, as TCP's segments have: the link counts those too. TCP is told by the device, ours probes. */
const DATAGRAM_BYTES = 1472;

export interface Contender {
  name: string;
  transport: "rudp" | "tcp";
  congestion: string;
}
export const CONTENDERS: readonly Contender[] = [
  { name: "ours, bbr", transport: "rudp", congestion: "bbr" },
  { name: "ours, newreno", transport: "rudp", congestion: "newreno" },
  { name: "TCP, bbr", transport: "tcp", congestion: "bbr" },
  { name: "TCP, cubic", transport: "tcp", congestion: "cubic" },
];

/** What is measured through, and how much. */
export interface Bench {
  link: NamespaceLink;
  /** Bytes a second that the link carries. */
  rate: number;
  sizes: { runs: number; seconds: number; messages: number; timelineSeconds: number; sharingSeconds: number };
  log: (line: string) => void;
}

/** A path whose queue holds what is under way in a round trip. */
export const profile = (rateBytesPerSecond: number, rttMs: number, loss: number): LinkProfile => ({
  delayMs: rttMs / 2,
  loss,
  rateBytesPerSecond,
  queueBytes: Math.max(30_000, (rateBytesPerSecond * rttMs) / 1000),
});

export async function setPath({ link, rate }: Bench, rttMs: number, loss: number): Promise<void> {
  const both = profile(rate, rttMs, loss);
  await link.change({ toServer: both, toClient: both });
}

/** TCP's congestion control is chosen by the route to the other end: a namespace's own default may not be set everywhere. */
export async function chooseCongestion(
  { client, server }: NamespaceLink,
  { transport, congestion }: Contender,
): Promise<void> {
  if (transport !== "tcp") return;
  for (const [end, other] of [
    [server, client],
    [client, server],
  ] as const) {
    const { stdout } = await at(end, ["ip", "-o", "route", "get", other.address]);
    const device = / dev (\S+)/.exec(stdout)?.[1] ?? "";
    const route = ["ip", "route", "replace", other.address, "dev", device, "congctl", congestion];
    const { code, stderr } = await at(end, route);
    if (code !== 0) throw new Failure(`this kernel's TCP has no ${congestion}: ${stderr.trim()}`);
  }
}

/** Runs a command at one end. */
export function at({ wrapper }: NamespaceEnd, command: readonly string[]) {
  const [first = "", ...rest] = [...wrapper, ...command];
  return runTool(first, rest);
}

export async function serve(link: NamespaceLink, { transport, congestion }: Contender): Promise<Running> {
  const { wrapper, address } = link.server;
  const sender = ["--congestion", congestion, "--samples", "--mtu", DATAGRAM_BYTES];
  const own = transport === "rudp" ? sender : [];
  const args = [
    "serve",
    "--transport",
    transport,
    "--host",
    address,
    "--port",
    0,
    "--bytes",
    BLOB_BYTES,
    ...own,
  ];
  return await start(BLOB, args, { wrapper });
}

/** Runs a client of `server` to its end and gives the JSON that it prints. */
export async function client(
  link: NamespaceLink,
  server: Running,
  args: (string | number)[],
): Promise<Record<string, number>[]> {
  const where = ["--host", link.server.address, "--port", server.port];
  await using running = await start(BLOB, [...args, ...where], { servers: 0, wrapper: link.client.wrapper });
  const { code } = await running.exited;
  if (code !== 0) throw new Failure(`${args.join(" ")} failed: ${running.stderr.trim()}`);
  return linesOf(running.stdout);
}

export const linesOf = (output: string): Record<string, number>[] =>
  output
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Record<string, number>);

/** MB/s that a contender fetches in so many seconds, its beginning included. */
export async function goodput(
  link: NamespaceLink,
  server: Running,
  contender: Contender,
  seconds: number,
): Promise<number> {
  await chooseCongestion(link, contender);
  const args = ["fetch", "--transport", contender.transport, "--bytes", BLOB_BYTES, "--seconds", seconds];
  if (contender.transport === "rudp") args.push("--mtu", DATAGRAM_BYTES);
  const [result] = await client(link, server, args);
  const { bytes = Number.NaN, ms = Number.NaN } = result ?? {};
  if (Number.isNaN(bytes / ms)) throw new Failure(`no result: ${args.join(" ")}`);
  return bytes / ms / 1000;
}

export const print = (line = "") => void process.stdout.write(`${line}\n`);
export const percent = (part: number) => `${Math.round(part * 1000) / 10} %`;
