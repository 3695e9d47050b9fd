/** Asks a daytime server for the date and time in a zone: by the lab's PDU over UDP, or by RFC 867. */
import { randomInt } from "node:crypto";
import strftime from "strftime";
import { flag, integer, optional, setting, text } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { Failure, isFailure, UsageError } from "../../shared/errors.ts";
import { PduError } from "../../shared/pdu.ts";
import { type Context, program, serverAt } from "../../shared/program.ts";
import { connect } from "../../shared/tcp.ts";
import { request } from "../../shared/udp.ts";
import { DAYTIME_PORT, offsetText, type Reply, readReply, requestFor } from "./protocol.ts";
import { isLocale, isoWeek, localeTag, strftimeLocale } from "./regional.ts";

interface Peer {
  host: string;
  port: number;
  timeout: number;
  retries: number;
}

async function askForTime({ host, port, timeout, retries }: Peer, zone: string, { signal, log }: Context) {
  if (Buffer.byteLength(zone) > LONGEST_ZONE_BYTES) throw unknownZone(zone);
  const id = randomInt(2 ** 32);
  const accept = (datagram: Buffer): Reply | undefined => {
    try {
      return readReply(datagram, id);
    } catch (error) {
      if (!(error instanceof PduError)) throw error;
      log(`ignored ${datagram.length} bytes that are no reply to this request: ${error.message}`);
      return undefined; // the right one may still come
    }
  };
  const reply = await request({
    ...{ host, port, retries, signal, accept },
    request: requestFor(id, zone),
    timeoutMs: timeout,
  });
  if (reply.status === "unknown-zone") throw unknownZone(zone || reply.zone);
  if (reply.status === "bad-request") throw new Failure("the server calls the request malformed");
  return reply;
}

const LONGEST_ZONE_BYTES = 32;
const unknownZone = (zone: string) => new Failure(`the server knows no time zone ${JSON.stringify(zone)}`);

/** The line of an RFC 867 server, whichever: without its end, and without what would move a terminal's cursor. */
async function askForLine({ host, port, timeout, retries }: Peer, tcp: boolean, signal: AbortSignal) {
  if (!tcp) {
    const accept = (datagram: Buffer) => {
      const answer = datagram.toString("latin1");
      return answer.trim() === "" ? undefined : answer; // an echo of the empty request is no line
    };
    const empty = Buffer.alloc(0);
    const line = await request({ host, port, retries, signal, accept, request: empty, timeoutMs: timeout });
    return printable(line);
  }
  await using connection = await connect({ host, port, timeoutMs: timeout, signal });
  signal.addEventListener("abort", () => connection.destroy());
  try {
    const line = await connection.readLine(MAX_FOREIGN_LINE_BYTES, "latin1");
    if (line === undefined) throw new Failure("it closed without a line");
    return printable(line);
  } catch (error) {
    if (!isFailure(error)) throw error;
    throw new Failure(`no daytime from tcp://${formatAddress(host, port)}`, { cause: error });
  }
}

const MAX_FOREIGN_LINE_BYTES = 512;
const printable = (line: string) => line.trimEnd().replace(/[^\x20-\x7e]/g, "?");

/** The zone's local time, as a Date whose UTC fields show it: the offset came with the reply, no table is needed. */
const localTime = ({ utcMs, utcOffsetMinutes }: Reply) => new Date(utcMs + utcOffsetMinutes * 60_000);

function asJson(reply: Reply): string {
  const { zone, utcMs, utcOffsetMinutes, dst, synchronisation, stratum, locale } = reply;
  const local = localTime(reply).toISOString().replace("Z", offsetText(utcOffsetMinutes));
  const utc = new Date(utcMs).toISOString();
  return JSON.stringify({ zone, local, utc, utcMs, utcOffsetMinutes, dst, synchronisation, stratum, locale });
}

function asSentence(reply: Reply, locale: string): string {
  const style = new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "medium", timeZone: "UTC" });
  const where = `${reply.zone}, UTC${offsetText(reply.utcOffsetMinutes)}${reply.dst ? ", DST" : ""}`;
  return `${style.format(localTime(reply)).replace(/\s/g, " ")} (${where})`;
}

function asFormat(reply: Reply, locale: string, format: string): string {
  // The library reads a Date's local fields, and on a machine with DST an hour is missing from those each year.
  process.env["TZ"] = "UTC";
  // The library's %Z would be this machine's zone, and it has no weeks of ISO 8601.
  const zone = reply.zone.replaceAll("%", "%%");
  const week = isoWeek(localTime(reply));
  const known: Readonly<Record<string, string>> = {
    Z: zone,
    V: week.week,
    G: week.year,
    g: week.year.slice(-2),
  };
  const ours = format.replace(/%[-_0:]*(.)/gs, (whole, letter) => known[letter] ?? whole);
  // Its declared types leave out that these can be chained.
  const inLocale = strftime.localize(strftimeLocale(locale)) as typeof strftime;
  return inLocale.timezone(reply.utcOffsetMinutes)(ours, new Date(reply.utcMs));
}

const WARNING = {
  none: "the server's clock is not in step with a time server",
  holdover: "the server has lost its time server; its clock runs on alone",
};

await program({
  summary: "Asks a daytime server for the date and time in a time zone.",
  example: "--zone America/Argentina/Buenos_Aires --format '%A %d %B, %H:%M'",
  settings: {
    ...serverAt(DAYTIME_PORT),
    zone: optional(text, "zone of the tz database, as Asia/Kathmandu (default: the server's)"),
    format: optional(text, "how to write it, as strftime does: %c, '%H:%M', %A …"),
    locale: optional(localeTag, "language and region of the answer (default: the server's)"),
    json: flag("write everything the reply says, as JSON"),
    rfc867: flag("ask by RFC 867: any daytime server will do, there is no choice of zone"),
    tcp: flag("with --rfc867: over TCP rather than UDP"),
    timeout: setting(integer(1, 3_600_000), "milliseconds to wait for a reply, each time", 1000),
    retries: setting(integer(0, 100), "times to ask again", 2),
  },
  async run(settings, context) {
    const { zone = "", format, json, rfc867, tcp } = settings;
    if (tcp && !rfc867)
      throw new UsageError("--tcp goes with --rfc867 only: the lab's own PDU travels over UDP");
    if (json && format !== undefined) throw new UsageError("--json and --format exclude each other");
    if (rfc867 && (json || zone !== "" || format !== undefined || settings.locale !== undefined)) {
      throw new UsageError("--rfc867 gives the server's own line: no --zone, --locale, --format or --json");
    }
    if (rfc867) {
      process.stdout.write(`${await askForLine(settings, tcp, context.signal)}\n`);
      return;
    }
    const reply = await askForTime(settings, zone, context);
    const locale = settings.locale ?? (isLocale(reply.locale) ? reply.locale : "en");
    if (json) process.stdout.write(`${asJson(reply)}\n`);
    else if (format !== undefined) process.stdout.write(`${asFormat(reply, locale, format)}\n`);
    else process.stdout.write(`${asSentence(reply, locale)}\n`);
    if (reply.synchronisation !== "synchronised") context.log(WARNING[reply.synchronisation]);
  },
});
