/**
 * A daytime server with time zones: the lab's own PDU and RFC 867 on one UDP port, RFC 867 over TCP on the same
 * number. It keeps in step with time servers, and answers at once whether it is or not.
 */
import { hostPort, many, optional, type Parse, setting } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { encode } from "../../shared/pdu.ts";
import { configFile, listenAt, program } from "../../shared/program.ts";
import { listenOnBoth } from "../../shared/same-port.ts";
import { cronExpression } from "../../shared/schedule.ts";
import { type Clock, keepClock, nowMs, type TimeServer } from "./clock.ts";
import { type Arrival, classify, DAYTIME_PORT, Daytime, NTP_PORT } from "./protocol.ts";
import {
  daytimeLineIn,
  localeTag,
  machineLocale,
  machineZone,
  shortTag,
  zoneAt,
  zoneName,
} from "./regional.ts";

const timeServer: Parse<TimeServer> = (text) => {
  const server = hostPort(NTP_PORT)(text);
  if (server.port !== 0) return server;
  throw new Failure("has no port that can be asked");
};

/** Where the server is: its zone, its language, and RFC 867's line in both, given UTC. */
interface Region {
  zone: string;
  tag: string;
  lineAt: (utcMs: number) => Buffer;
}

function regionOf(zone: string, locale: string): Region {
  const write = daytimeLineIn(locale);
  let last: { second: number; line: Buffer } = { second: Number.NaN, line: Buffer.alloc(0) };
  const lineAt = (utcMs: number) => {
    const second = Math.floor(utcMs / 1000);
    // One line is right for a second: to keep it makes for 2.4 times the requests a second.
    if (second !== last.second) {
      last = { second, line: write(utcMs, zoneAt(zone, utcMs)?.utcOffsetMinutes ?? 0) };
    }
    return last.line;
  };
  return { zone, tag: shortTag(locale), lineAt };
}

function answerTo(arrival: Arrival, region: Region, clock: Clock): Buffer | undefined {
  switch (arrival.kind) {
    case "request":
      return reply(arrival.id, arrival.zone || region.zone, "unknown-zone", region, clock);
    case "bad request":
      return reply(arrival.id, "", "bad-request", region, clock);
    case "daytime request":
      return region.lineAt(nowMs(clock));
    case "dropped":
      return undefined;
  }
}

/** A reply, of status `otherwise` where the zone cannot be read. */
function reply(
  id: number,
  zone: string,
  otherwise: Daytime["status"],
  { tag }: Region,
  clock: Clock,
): Buffer {
  const utcMs = Math.floor(nowMs(clock));
  const reading = zoneAt(zone, utcMs);
  return encode(Daytime, {
    kind: "reply",
    status: reading === undefined ? otherwise : "ok",
    synchronisation: clock.synchronisation,
    stratum: clock.stratum,
    flags: { dst: reading?.dst ?? false },
    utcOffsetMinutes: reading?.utcOffsetMinutes ?? 0,
    id,
    utcMs: BigInt(utcMs),
    zone,
    locale: tag,
  });
}

/** For a client that connects and does not take its line. */
const PATIENCE_MS = 5000;

await program({
  summary: "A daytime server with time zones, over UDP; and RFC 867 over UDP and TCP.",
  example: "--port 0 --zone America/Argentina/Buenos_Aires --locale es-AR",
  section: "server",
  settings: {
    ...listenAt(DAYTIME_PORT),
    zone: optional(zoneName, "the server's time zone (default: the machine's)"),
    locale: optional(localeTag, "the server's language and region, as es-AR (default: the machine's)"),
    ntpServer: many(timeServer, "time server HOST[:PORT] to keep in step with; may be given several times"),
    syncCron: setting(cronExpression, "when to ask the time servers again, in UTC", "*/5 * * * *"),
    config: configFile("config/daytime.ini"),
  },
  async run(settings, context) {
    const { signal, log, debug, ready } = context;
    const { zone = machineZone(), locale = machineLocale(), ntpServer: servers, syncCron: cron } = settings;
    const region = regionOf(zone, locale);
    const clock = keepClock({ servers, cron, signal, log, debug });
    const dropped = new Set<string>();

    const { host, port } = settings;
    const { tcp, udp } = await listenOnBoth(
      { host, port, signal, log, timeoutMs: PATIENCE_MS },
      (datagram, from, { send }) => {
        const arrival = classify(datagram, from.port);
        const peer = formatAddress(from.address, from.port);
        if (arrival.kind === "bad request") debug(`${peer}: bad request: ${arrival.problem}`);
        if (arrival.kind === "dropped") {
          // A loop would be endless in the log too: each reason is said once.
          const say = dropped.has(arrival.reason) ? debug : log;
          dropped.add(arrival.reason);
          say(`${peer}: dropped, as the datagram ${arrival.reason}`);
        }
        const answer = answerTo(arrival, region, clock());
        if (answer !== undefined) send(answer, from);
      },
      (connection) => connection.write(region.lineAt(nowMs(clock()))),
    );
    ready(udp.url);
    ready(tcp.url);
    await Promise.all([udp.closed, tcp.closed]);
  },
});
