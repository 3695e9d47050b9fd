/** A link for the class: stands between any client and server, or opens two namespaces with nothing else between them. */
import {
  decimal,
  flag,
  hostPort,
  integer,
  kebabCase,
  oneOf,
  optional,
  type Parse,
  type SettingsValue,
  setting,
  share,
} from "../shared/config.ts";
import { formatAddress } from "../shared/connection.ts";
import { Failure, UsageError } from "../shared/errors.ts";
import { type LinkProfile, type PacketReport, udpLink } from "../shared/link.ts";
import { measureCarrier, namespaceLink } from "../shared/namespaces.ts";
import { type Context, program } from "../shared/program.ts";
import { type TcpFault, type TcpProfile, tcpLink } from "../shared/tcp-link.ts";

type BothWays = { toServer?: number; toClient?: number };

/** `5` is for both directions, `5/35` the way to the server and the way back; either may be left out. */
function bothWays(parse: Parse<number>): Parse<BothWays> {
  return (value) => {
    const [there = "", back = there, ...more] = value.split("/");
    if (more.length > 0 || there + back === "") throw new Failure("is not VALUE, or THERE/BACK");
    return {
      ...(there === "" ? {} : { toServer: parse(there) }),
      ...(back === "" ? {} : { toClient: parse(back) }),
    };
  };
}

interface Front {
  transport: "udp" | "tcp";
  host: string;
  port: number;
}
const front: Parse<Front> = (value) => {
  const [, transport, address] = /^(udp|tcp):\/\/(.+)$/.exec(value) ?? [];
  if (transport === undefined || address === undefined)
    throw new Failure("is not udp://HOST:PORT or tcp://HOST:PORT");
  return { transport: transport as Front["transport"], ...hostPort(0)(address) };
};

const PACKETS = {
  loss: optional(bothWays(share), "share of packets that are lost, as 2% or 0.02"),
  duplication: optional(bothWays(share), "share of packets that come twice"),
  reordering: optional(bothWays(share), "share of packets that later ones overtake"),
  corruption: optional(bothWays(share), "share of packets with one bit flipped"),
  queue: optional(bothWays(integer(0)), "bytes that may wait for the --rate; what is beyond is dropped"),
};
const STREAMS = {
  split: optional(bothWays(integer(1)), "tcp: pass on in pieces of so many bytes"),
  stallAfter: optional(bothWays(integer(0)), "tcp: after so many bytes nothing comes any more"),
  resetAfter: optional(bothWays(integer(0)), "tcp: after so many bytes the connection is reset"),
};
const settings = {
  what: optional(oneOf("namespaces"), "namespaces: open two network namespaces instead of a port (root)", {
    positional: true,
  }),
  listen: optional(front, "where clients go, udp://HOST:PORT or tcp://HOST:PORT"),
  to: optional(hostPort(0), "HOST:PORT of the server behind the link"),
  delay: optional(
    bothWays(decimal("milliseconds", 0)),
    "milliseconds each way; this and all below may be THERE/BACK, as 5/35",
  ),
  jitter: optional(
    bothWays(decimal("milliseconds", 0)),
    "milliseconds by which the delay varies, to either side",
  ),
  rate: optional(bothWays(decimal("megabits a second", 0.001)), "megabits a second"),
  ...PACKETS,
  ...STREAMS,
  seed: setting(integer(0, 2 ** 31), "the same seed does the same again", 1),
  quiet: flag("say nothing of single packets"),
};
type Given = SettingsValue<typeof settings>;

/** What was given for one direction; what was not is left out. */
function profileOf(given: Given, way: keyof BothWays): LinkProfile & TcpProfile {
  const megabits = given.rate?.[way];
  const values: Record<keyof (LinkProfile & TcpProfile), number | undefined> = {
    delayMs: given.delay?.[way],
    jitterMs: given.jitter?.[way],
    loss: given.loss?.[way],
    duplication: given.duplication?.[way],
    reordering: given.reordering?.[way],
    corruption: given.corruption?.[way],
    rateBytesPerSecond: megabits === undefined ? undefined : megabits * 125_000,
    queueBytes: given.queue?.[way],
    splitBytes: given.split?.[way],
    stallAfterBytes: given.stallAfter?.[way],
    resetAfterBytes: given.resetAfter?.[way],
  };
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}

/** `to server #3, 64 bytes: 20.4 ms later`; the times of copies, or why there is none. */
function packetLine({ direction, index, sizeBytes, enteredMs, fate }: PacketReport): string {
  const arrivals = fate.arrivals.map(({ atMs, flippedBit }) => {
    const flipped = flippedBit === undefined ? "" : `, bit ${flippedBit} flipped`;
    return `${(atMs - enteredMs).toFixed(1)} ms later${flipped}`;
  });
  const what = arrivals.length === 0 ? fate.outcome : arrivals.join(" and ");
  return `${direction} #${index}, ${sizeBytes} bytes: ${what}`;
}
const faultLine = ({ direction, fault, afterBytes }: TcpFault) =>
  `${direction}: ${fault} after ${afterBytes} bytes`;

function refuse(given: Given, names: readonly string[], why: string): void {
  const found = names.find((name) => given[name as keyof Given] !== undefined);
  if (found !== undefined) throw new UsageError(`--${kebabCase(found)} ${why}`);
}

/** A relay on a port, for UDP or TCP. */
async function relay(given: Given, { transport, host, port }: Front, { signal, log, ready }: Context) {
  const { to, seed, quiet } = given;
  if (to === undefined || to.port === 0)
    throw new UsageError("--to HOST:PORT is missing: the server behind the link");
  refuse(given, Object.keys(transport === "udp" ? STREAMS : PACKETS), `is not for ${transport}`);
  const onPacket = quiet ? {} : { onPacket: (packet: PacketReport) => log(packetLine(packet)) };
  const options = { host, port, to, seed, ...onPacket };
  const profiles = { toServer: profileOf(given, "toServer"), toClient: profileOf(given, "toClient") };
  const open =
    transport === "udp"
      ? udpLink({ ...options, ...profiles })
      : tcpLink({ ...options, ...profiles, onFault: (fault) => log(faultLine(fault)) });
  await using link = await open.catch((error: unknown) => {
    throw new Failure(`cannot listen on ${transport}://${formatAddress(host, port)}`, { cause: error });
  });
  log(`seed ${seed}`);
  ready(link.url);
  await stopped(signal);
}

/** Two namespaces, until the end; says how to run something in each, and what the carrier itself costs. */
async function namespaces(given: Given, { signal, log }: Context) {
  refuse(given, ["listen", "to", ...Object.keys(STREAMS)], "is not for namespaces");
  const { seed, quiet } = given;
  const added = await measureCarrier();
  const onPacket = quiet ? {} : { onPacket: (packet: PacketReport) => log(packetLine(packet)) };
  const profiles = { toServer: profileOf(given, "toServer"), toClient: profileOf(given, "toClient") };
  await using link = await namespaceLink({ ...profiles, seed, ...onPacket });
  if (added === undefined) log("what the carrier itself adds is unknown: ping is not installed");
  else
    log(
      `the carrier itself adds ${added.medianMs.toFixed(2)} ms to a round trip (median of ${added.count} pings on a path of 2 × 20 ms)`,
    );
  log(`seed ${seed}`);
  for (const [end, { address, wrapper }] of Object.entries({ server: link.server, client: link.client })) {
    process.stdout.write(`${end} ${address}: ip ${wrapper.slice(1).join(" ")} COMMAND\n`);
  }
  await Promise.race([stopped(signal), link.broken]);
}

const stopped = (signal: AbortSignal) =>
  new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));

await program({
  summary:
    "A link that delays, loses, duplicates, reorders, corrupts; or for TCP delays, splits, stalls, resets.",
  example: "--listen udp://127.0.0.1:9000 --to 127.0.0.1:11000 --delay 20 --jitter 5 --loss 2% --seed 42",
  settings,
  async run(given, context) {
    if (given.what === "namespaces") return namespaces(given, context);
    if (given.listen === undefined) throw new UsageError("--listen is missing (or namespaces); see --help");
    await relay(given, given.listen, context);
  },
});
