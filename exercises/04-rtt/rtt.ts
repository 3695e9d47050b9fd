/** An RTT meter (RFC 2681): every host at once, by stream and by datagram sockets, once or on a schedule. */
import { renameSync, writeFileSync } from "node:fs";
import {
  flag,
  integer,
  many,
  oneOf,
  optional,
  type Parse,
  peerPort,
  setting,
  text,
} from "../../shared/config.ts";
import { explain, Failure, UsageError } from "../../shared/errors.ts";
import { svgOf } from "../../shared/plot.ts";
import { type Context, configFile, program } from "../../shared/program.ts";
import { cronExpression, onSchedule } from "../../shared/schedule.ts";
import { chartsOf, MAX_SERIES } from "./charts.ts";
import { appendRows, openCsv, rowsOf } from "./csv-file.ts";
import { LiveTable } from "./live.ts";
import { measure, type Plan, streamsOf } from "./measurement.ts";
import { clockResolutionMs, Mirror } from "./own-delay.ts";
import type { Transport } from "./probing.ts";
import { DNS_PORT, dnsProbe, ECHO_PORT, echoProbe, question } from "./protocol.ts";
import { jsonOf, type Measured, tableOf } from "./report.ts";
import { type Host, hostMaybePort, readHosts, targetsOf } from "./targets.ts";

/** Every result is kept until the end of its measurement. */
const MAX_PROBES = 2_000_000;
const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

const domainName: Parse<string> = (value) => {
  question(value);
  return value;
};

/** What becomes of a measurement besides its report. */
interface Outputs {
  json: boolean;
  csv: string | undefined;
  plot: string | undefined;
}

interface Campaign extends Outputs {
  hosts: readonly Host[];
  defaultPort: number;
  plan: Omit<Plan, "targets">;
}

/** Measures once and reports. Throws `Failure` where nobody answered. */
async function measureOnce(
  { hosts, defaultPort, plan, ...outputs }: Campaign,
  context: Context,
): Promise<void> {
  const { signal, log } = context;
  const targets = await targetsOf(hosts, defaultPort, log);
  if (targets.length === 0) throw new Failure("none of the hosts can be measured");
  const whole: Plan = { ...plan, targets };
  refuseTooMany(whole);
  const resolutionMs = clockResolutionMs();
  await using mirror = await Mirror.open(plan.transports);
  let note = log;
  const streams = await streamsOf(whole, (line) => note(line));
  const beginning = { begunAt: new Date(), begunMs: performance.now() };
  {
    using live = new LiveTable(streams, plan.seconds);
    note = (line) => live.note(line, log);
    await Promise.all([measure(streams, whole, signal), mirror.measure(whole, signal)]);
  }
  const quality = { clockResolutionMs: resolutionMs, own: mirror.delays };
  await publish({ plan: whole, streams, quality, ...beginning }, outputs, log);
  if (streams.some((stream) => stream.hasAnswered)) return;
  if (streams.every((stream) => stream.results.length === 0))
    throw new Failure("no probe was due; measure for longer, or with a shorter --interval");
  throw new Failure("no host answered; is there a path to them, and a server? See the lines above");
}

function refuseTooMany({ targets, transports, seconds, intervalMs }: Plan): void {
  const probes = (targets.length * transports.length * seconds * 1000) / intervalMs;
  if (probes <= MAX_PROBES) return;
  throw new UsageError(
    `${Math.round(probes)} probes are more than ${MAX_PROBES}; measure for a shorter time, and again and again with --cron`,
  );
}

async function publish(measured: Measured, { json, csv, plot }: Outputs, log: Context["log"]): Promise<void> {
  const { streams } = measured;
  process.stdout.write(json ? jsonOf(measured) : tableOf(measured));
  if (csv !== undefined) appendRows(csv, rowsOf(streams, measured));
  if (plot === undefined) return;
  if (streams.length > MAX_SERIES) log(`${plot}: shows the first ${MAX_SERIES} of ${streams.length}`);
  const svg = await svgOf(chartsOf(streams));
  try {
    writeFileSync(`${plot}.part`, svg);
    renameSync(`${plot}.part`, plot);
  } catch (error) {
    throw new Failure(`cannot write ${plot}`, { cause: error });
  }
}

/** Measures whenever the schedule says so. One that fails is said and is no reason to end. */
async function measureOnSchedule(cron: string, campaign: Campaign, context: Context): Promise<void> {
  const { signal, log } = context;
  let current: Promise<void> | undefined;
  onSchedule(cron, signal, () => {
    if (current !== undefined) return log("the measurement before is not over yet: this one is left out");
    current = measureOnce(campaign, context)
      .catch((error: unknown) => {
        if (!(error instanceof Failure) || error instanceof UsageError) throw error;
        if (!signal.aborted) log(`error: ${explain(error)}`);
      })
      .finally(() => {
        current = undefined;
      });
  });
  log(`measuring at ${cron} (UTC), each time for ${campaign.plan.seconds} s; Ctrl-C ends it`);
  await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  await current; // what it has measured so far is written
}

await program({
  summary:
    "An RTT meter (RFC 2681): measures round-trip times to all hosts at once, over TCP by the handshake and over UDP.",
  example: "127.0.0.1:10100 localhost --tcp --udp --seconds 5 --interval 100 --plot rtt.svg",
  section: "rtt",
  settings: {
    hosts: many(hostMaybePort, "HOST[:PORT] to measure", { positional: true }),
    hostsFile: optional(text, "file with more hosts, separated by ; or line ends"),
    tcp: flag("measure TCP handshakes (without --tcp and --udp: both)"),
    udp: flag("measure datagrams and their replies"),
    udpProbe: setting(
      oneOf("echo", "dns"),
      "what is sent over UDP: echo (RFC 862) or dns (RFC 1035)",
      "echo",
    ),
    dnsName: setting(domainName, "with --udp-probe dns: the name to ask for", "."),
    port: optional(
      peerPort,
      `port of hosts that name none (default: ${ECHO_PORT}, exercise 01's; with --udp-probe dns ${DNS_PORT})`,
    ),
    seconds: setting(integer(1, DAY_MS / 1000), "how long to measure", 10, { alias: ["segundos"] }),
    interval: setting(integer(1, DAY_MS), "milliseconds from one probe to a host to the next", 200),
    timeout: setting(integer(1, MINUTE_MS), "milliseconds after which a probe is lost", 1000),
    sampling: setting(oneOf("periodic", "poisson"), "whether probes come regularly or at random", "periodic"),
    json: flag("print JSON rather than a table"),
    csv: optional(text, "append a line for each probe to this file"),
    plot: optional(text, "draw the measurement as SVG into this file"),
    cron: optional(cronExpression, "measure again and again at these times (UTC), into --csv"),
    config: configFile("config/rtt.ini"),
  },
  async run(settings, context) {
    const { hostsFile, udpProbe, dnsName, cron, csv, json, plot, interval, timeout, ...rest } = settings;
    const hosts = [...settings.hosts, ...(hostsFile === undefined ? [] : readHosts(hostsFile))];
    if (cron !== undefined && csv === undefined)
      throw new UsageError("--cron needs --csv, to put the results");
    if (hosts.length === 0)
      throw new Failure("no host to measure; name some, or list them in --hosts-file or config/rtt.ini");
    if (interval > settings.seconds * 1000)
      throw new UsageError(`--interval ${interval} is longer than the measurement (${settings.seconds} s)`);
    const chosen = (["tcp", "udp"] as const).filter((transport) => settings[transport]);
    const transports: Transport[] = chosen.length > 0 ? chosen : ["tcp", "udp"];
    if (transports.includes("tcp") && timeout > 1000)
      context.log(
        "a handshake whose SYN is lost takes 1 s more, as the system repeats it: --timeout is above that",
      );
    const probe = udpProbe === "dns" ? dnsProbe(dnsName) : echoProbe;
    const defaultPort = settings.port ?? (udpProbe === "dns" ? DNS_PORT : ECHO_PORT);
    const { seconds, sampling } = rest;
    const plan = { transports, probe, seconds, intervalMs: interval, timeoutMs: timeout, sampling };
    if (csv !== undefined) openCsv(csv, context.log);
    const campaign = { hosts, defaultPort, plan, json, csv, plot };
    if (cron === undefined) await measureOnce(campaign, context);
    else await measureOnSchedule(cron, campaign, context);
  },
});
