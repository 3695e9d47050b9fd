/** What every HTTP server of the lab says alike: dates, reason phrases, the page of an error, the access log. */
import { open } from "node:fs/promises";
import { Writable } from "node:stream";
import { explain, Failure } from "./errors.ts";
import type { RequestHead } from "./http.ts";

/** RFC 9110 §15. */
export const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  206: "Partial Content",
  301: "Moved Permanently",
  304: "Not Modified",
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  408: "Request Timeout",
  412: "Precondition Failed",
  413: "Content Too Large",
  414: "URI Too Long",
  416: "Range Not Satisfiable",
  417: "Expectation Failed",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
  508: "Loop Detected",
};

/** IMF-fixdate (RFC 9110 §5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`. */
export const formatDate = (timeMs: number) => new Date(timeMs).toUTCString();

const DATES = [
  /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (\w{3}) \d{4} \d\d:\d\d:\d\d GMT$/,
  /^(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, \d\d-(\w{3})-\d\d \d\d:\d\d:\d\d GMT$/, // obsolete: RFC 850
  /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun) (\w{3}) [ \d]\d \d\d:\d\d:\d\d \d{4}$/, // obsolete: C's asctime()
];

const SHORT_YEAR = /(?<=-)\d\d(?= )/;
/** The year that ends like this and lies at most 50 years ahead (RFC 9110 §5.6.7). */
function fullYear(twoDigits: string): string {
  const latest = new Date().getUTCFullYear() + 50;
  return String(latest - ((latest - Number(twoDigits)) % 100));
}

/** Milliseconds since 1970; `undefined` for what is no HTTP date. All three forms are to be read. */
export function parseDate(text: string): number | undefined {
  if (!DATES.some((form) => form.test(text))) return undefined;
  const timeMs = Date.parse(text.endsWith("GMT") ? text.replace(SHORT_YEAR, fullYear) : `${text} GMT`);
  return Number.isNaN(timeMs) ? undefined : timeMs;
}

/** A `Date` field has whole seconds, so it is made once a second. */
let date = "";
let dateUntilMs = 0;
export function currentDate(): string {
  const now = Date.now();
  // A clock that was set back is followed, too.
  if (now >= dateUntilMs || now < dateUntilMs - 1000) {
    date = formatDate(now);
    dateUntilMs = now - (now % 1000) + 1000;
  }
  return date;
}

/** A small page that explains a status: UTF-8 HTML. `advice` is HTML, too. */
export function statusPage(status: number, advice: string): Buffer {
  const title = `${status} ${REASONS[status] ?? "Error"}`;
  return Buffer.from(
    `<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>${title}</title>\n<h1>${title}</h1>\n<p>${advice}</p></html>\n`,
  );
}

/** A line of an access log in the Combined Log Format of Apache and nginx; what a peer wrote cannot break its line. */
export function logLine(
  address: string,
  timeMs: number,
  head: RequestHead | undefined,
  status: number,
  bodyBytes: number,
): string {
  const [, weekday = "", day, month, year, clock] =
    /^(\w+), (\d+) (\w+) (\d+) (\S+)/.exec(formatDate(timeMs)) ?? [];
  const time = weekday && `${day}/${month}/${year}:${clock} +0000`;
  const quote = (text = "-") => `"${text.replace(/["\\]|[^ -~]/g, escapeByte)}"`;
  const request = head && `${head.method} ${head.target} HTTP/1.${head.minor}`;
  const size = bodyBytes === 0 ? "-" : bodyBytes;
  return `${address} - - [${time}] ${quote(request)} ${status} ${size} ${quote(head?.fields.get("Referer"))} ${quote(head?.fields.get("User-Agent"))}\n`;
}

const escapeByte = (character: string) =>
  `\\x${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;

/**
 * Opens a log that is only ever added to. What the disk does not take is lost, and `complain` hears of the first line
 * that is; as soon as there is room again, the log goes on. Throws `Failure` where it cannot be opened.
 */
export async function openLog(
  path: string,
  complain: (line: string) => void = (line) => process.stderr.write(`${line}\n`),
): Promise<Writable> {
  const file = await open(path, "a").catch((error: unknown) => {
    throw new Failure(`cannot write ${path}`, { cause: error });
  });
  let isLosing = false;
  const add = async (lines: Buffer, done: () => void) => {
    try {
      await file.appendFile(lines);
      isLosing = false;
    } catch (error) {
      if (!isLosing) complain(`cannot write ${path}: ${explain(error)}; lines are lost`);
      isLosing = true;
    }
    done();
  };
  return new Writable({
    write: (line: Buffer, _encoding, done) => void add(line, done),
    writev: (lines, done) => void add(Buffer.concat(lines.map(({ chunk }) => chunk)), done),
    final: (done) => void file.close().then(() => done(), done),
  });
}
