/**
 * What an HTTP client has to know besides the syntax of messages (RFC 9110): targets, redirections, what tells one
 * version of a file from another, ranges. Pure rules; nothing here asks a socket, a disk or a clock.
 */
import type { Dissector } from "../../shared/describe.ts";
import { Failure } from "../../shared/errors.ts";
import { Fields, type ResponseHead } from "../../shared/http.ts";
import { parseDate } from "../../shared/http-serving.ts";
import { printable } from "../../shared/printable.ts";
import { ServerFailure } from "./failures.ts";

/** Where the demo's server listens, and behind it its proxy. */
const WGET_PORT = 10_300;
export const dissectors: readonly Dissector[] = [{ as: "http", tcp: [`${WGET_PORT}-${WGET_PORT + 1}`] }];

/** `localhost:8080/x` as well: without a scheme it is http. Throws `Failure`. */
export function httpUrl(text: string): URL {
  const whole = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  const url = URL.canParse(whole) ? new URL(whole) : undefined;
  if (url?.protocol === "http:" || url?.protocol === "https:") return url;
  throw new Failure("is not an http or https URL");
}

export const isSecure = (url: URL) => url.protocol === "https:";

/** Where to connect to. */
export function endpoint(url: URL): { host: string; port: number } {
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  return { host, port: url.port === "" ? (isSecure(url) ? 443 : 80) : Number(url.port) };
}

/** RFC 9112 §3.2: a server is told the path, a proxy the whole; never the fragment, never a password. */
export function requestTarget({ pathname, search, host }: URL, form: "origin" | "absolute"): string {
  return `${form === "absolute" ? `http://${host}` : ""}${pathname}${search}`;
}
/** RFC 9112 §3.2.3: what CONNECT is told. */
export const authority = (url: URL) => (url.port === "" ? `${url.hostname}:${endpoint(url).port}` : url.host);

/** `Authorization` for the user and password in a URL (RFC 7617), which is then to be used without them. */
export function basicCredentials({ username, password }: URL): string | undefined {
  if (username === "" && password === "") return undefined;
  const pair = `${decoded(username)}:${decoded(password)}`;
  return `Basic ${Buffer.from(pair).toString("base64")}`;
}

export function withoutCredentials(url: URL): URL {
  const bare = new URL(url);
  bare.username = bare.password = "";
  return bare;
}

/** Percent-decoded; what is not well encoded stays as it is. */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // the one thing that it throws for
  }
}

/** Field values are bytes; where they are UTF-8, as they should be, as text. */
export function fieldText(value: string): string {
  const text = Buffer.from(value, "latin1").toString("utf8");
  return text.includes("\ufffd") ? value : text;
}

/** A request that is yet to be made. `fields` are the user's own. */
export interface Hop {
  method: string;
  url: URL;
  fields: Fields;
  body: Buffer | undefined;
}

const REDIRECTIONS = [301, 302, 303, 307, 308];

/**
 * Where a response sends us; `undefined` where it does not. A fragment goes along unless there is a new one
 * (RFC 9110 §10.2.2). Throws `ServerFailure` where it sends us nowhere.
 */
export function redirection({ status, fields }: ResponseHead, from: URL): URL | undefined {
  if (!REDIRECTIONS.includes(status)) return undefined;
  const locations = [...new Set(fields.all("Location"))];
  const [location = ""] = locations;
  if (locations.length !== 1)
    throw new ServerFailure(`${status} redirects to ${locations.length || "no"} places`);
  const text = fieldText(location);
  const to = URL.canParse(text, from.href) ? new URL(text, from.href) : undefined;
  if (to?.protocol !== "http:" && to?.protocol !== "https:")
    throw new ServerFailure(`${status} redirects to ${printable(text).slice(0, 100)}, which is no HTTP`);
  if (to.hash === "") to.hash = from.hash;
  return withoutCredentials(to); // a password that a server hands out is none of ours (RFC 9110 §4.2.4)
}

/** Of the user's own fields, those that can give away nothing and so may go to another origin. */
const HARMLESS = ["accept", "accept-encoding", "accept-language", "user-agent", "content-type", "range"];

/** The method rules of RFC 9110 §15.4; credentials, cookies and whatever may be one stay with their origin. */
export function nextHop(hop: Hop, status: number, url: URL): Hop {
  const toGet = status === 303 ? hop.method !== "HEAD" : status <= 302 && hop.method === "POST";
  const kept = [...hop.fields].filter(
    ([name]) => url.origin === hop.url.origin || HARMLESS.includes(name.toLowerCase()),
  );
  const fields = new Fields(kept);
  if (!toGet) return { ...hop, url, fields };
  return { method: "GET", url, fields: fields.replace(["Content-Type"]), body: undefined };
}

/** What a server says of the version of a file that it sends. */
export interface Version {
  etag?: string | undefined;
  lastModified?: string | undefined;
  /** Only with this may parts be put together without a doubt: it goes into `If-Range` (RFC 9110 §13.1.5). */
  validator?: string | undefined;
  totalBytes?: number | undefined;
}

/** `receivedMs` is when the head came: it counts where the server says no `Date`. */
export function versionOf({ fields }: ResponseHead, receivedMs: number): Version {
  const etag = fields.get("ETag");
  const lastModified = fields.get("Last-Modified");
  const dateMs = parseDate(fields.get("Date") ?? "") ?? receivedMs;
  const modifiedMs = parseDate(lastModified ?? "");
  // Within the second of a change there may be another change (RFC 9110 §8.8.2.2).
  const isStrongDate = modifiedMs !== undefined && dateMs - modifiedMs >= 1000;
  const isStrongTag = etag !== undefined && /^"[!#-~\x80-\xff]*"$/.test(etag);
  const validator = isStrongTag ? etag : etag === undefined && isStrongDate ? lastModified : undefined;
  const totalBytes = parseContentRange(fields.get("Content-Range"))?.totalBytes ?? contentLength(fields);
  return { etag, lastModified, validator, totalBytes };
}

function contentLength(fields: Fields): number | undefined {
  const text = fields.get("Content-Length") ?? "";
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

/** As far as both say anything, they say the same. */
export function isSameVersion(a: Version, b: Version): boolean {
  return (["etag", "lastModified", "totalBytes"] as const).every(
    (key) => a[key] === undefined || b[key] === undefined || a[key] === b[key],
  );
}

interface ContentRange {
  /** `undefined` with 416: no byte of it. The end is behind the last byte. */
  start: number | undefined;
  end: number | undefined;
  totalBytes: number | undefined;
}

/** RFC 9110 §14.4: `bytes 10-19/30`, `bytes 10-19/*`, `bytes *` + `/30`; `undefined` for what is none. */
export function parseContentRange(value = ""): ContentRange | undefined {
  const match = /^bytes (?:(\d{1,15})-(\d{1,15})|\*)\/(?:(\d{1,15})|\*)$/.exec(value);
  if (match === null) return undefined;
  const [start, last, totalBytes] = match.slice(1).map((text) => (text === undefined ? text : Number(text)));
  const end = last === undefined ? undefined : last + 1;
  if (start !== undefined && end !== undefined && (end <= start || end > (totalBytes ?? end)))
    return undefined;
  return { start, end, totalBytes };
}
