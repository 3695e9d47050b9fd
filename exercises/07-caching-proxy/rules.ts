/**
 * What a shared cache may do with a response (RFC 9111): store it, use it, ask the origin, freshen it. Pure rules over
 * heads and times.
 *
 * The decisions are those of `http-cache-semantics`; it is shown the messages as RFC 9111 has them understood, since on
 * its own it
 *   - reads directives by their case, and a comma in quotes as a separator; takes the last of two, and `5x` for 5;
 *   - never uses a response with must-revalidate or proxy-revalidate, not even a fresh one, nor one with a cookie;
 *   - knows 14 status codes, and neither must-understand nor no-cache or private for single fields;
 *   - counts the age from when the response came, without its Date and its time on the way;
 *   - obeys Pragma in responses, and lets stale responses out where s-maxage forbids it;
 *   - on a 304, updates only the fields that were there before, and sets Date anew.
 */
import CachePolicy from "http-cache-semantics";
import type { Fields, RequestHead } from "../../shared/http.ts";
import { formatDate } from "../../shared/http-serving.ts";
import { ageOf, cacheControl, type Directives, dateOf, MAX_DELTA_SECONDS } from "./directives.ts";
import { varyNames } from "./selection.ts";

/** A response, and when its request left and it came, in milliseconds since 1970. */
interface Received {
  status: number;
  fields: Fields;
  requestTimeMs: number;
  responseTimeMs: number;
}

/** `expired` and `request` (it was fresh, but the client wants more): the origin is to be asked first. */
type Verdict = "fresh" | "max-stale" | "stale-while-revalidate" | "expired" | "request";

/** What this cache knows the meaning of (RFC 9111 §5.2.2.3): of 206 and 304 it stores nothing. */
const UNDERSTOOD = [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501];
/** The library guesses that it stays for 10 % of the time that it has not changed (RFC 9111 §4.2.2); with this, at most a day. */
const MAX_UNCHANGED_MS = 10 * 86_400_000;

/** Each is looked up for each stored variant at each request: thousands would cost seconds. */
const MAX_VARY_NAMES = 50;

type Headers = Record<string, string>;

/** The library asks for the time by itself: it is told this one. */
let clockMs = 0;
class Library extends CachePolicy {
  now(): number {
    return clockMs;
  }
}

/** May a shared cache keep it (RFC 9111 §3)? */
export function isStorable({ method, fields }: RequestHead, received: Received): boolean {
  const { status } = received;
  if (method !== "GET" || status < 200 || status === 206 || status === 304) return false;
  const directives = cacheControl(received.fields);
  if (directives.has("must-understand") && !UNDERSTOOD.includes(status)) return false;
  const names = varyNames(received.fields);
  if (names.includes("*") || names.length > MAX_VARY_NAMES) return false;
  clockMs = received.responseTimeMs;
  const policy = new Library(requestShown(fields, directives), responseShown(received, directives));
  if (!policy.storable()) return false;
  // Of a cookie the origin must have said that it is for all: most are not, and a guess or a 304 would hand them on.
  const isForAll =
    directives.has("public") || (isExplicit(received.fields, directives) && policy.maxAge() > 0);
  if (received.fields.get("Set-Cookie") !== undefined && !isForAll) return false;
  // Neither fresh for a moment nor to be validated: there would be no use for it.
  return policy.maxAge() > 0 || hasValidator(received.fields) || mayOutlive(directives);
}

/** Does the origin say for how long it is fresh? */
const isExplicit = (fields: Fields, directives: Directives) =>
  directives.has("max-age") || directives.has("s-maxage") || fields.get("Expires") !== undefined;

const mayOutlive = (directives: Directives) =>
  directives.has("stale-if-error") ||
  directives.has("stale-while-revalidate") ||
  directives.seconds("max-age") === 0;
export const hasValidator = (fields: Fields) =>
  fields.get("ETag") !== undefined || fields.get("Last-Modified") !== undefined;

/** The request's field lines, as far as the library is to know them. */
function requestShown(fields: Fields, response?: Directives): { method: string; headers: Headers } {
  const headers: Headers = {};
  const directives = cacheControl(fields);
  const shown: string[] = ["no-store", "no-cache"].filter((name) => directives.has(name));
  for (const name of ["max-age", "min-fresh", "max-stale"]) {
    if (name === "max-stale" && response !== undefined && forbidsStale(response)) continue;
    const seconds = directives.seconds(name);
    if (seconds !== undefined)
      shown.push(name === "max-stale" && !directives.hasArgument(name) ? name : `${name}=${seconds}`);
  }
  if (shown.length > 0) headers["cache-control"] = shown.join(", ");
  // For the HTTP/1.0 client that has no other way to say it (RFC 9111 §5.4).
  const pragma = fields.get("Cache-Control") === undefined ? fields.get("Pragma")?.toLowerCase() : undefined;
  if (pragma !== undefined) headers["pragma"] = pragma;
  // must-revalidate allows it to be stored (RFC 9111 §3.5), and is hidden below.
  if (fields.get("Authorization") !== undefined && !response?.has("must-revalidate"))
    headers["authorization"] = "?";
  return { method: "GET", headers };
}

/** RFC 9111 §4.2.4: nobody may have it stale, not even when the origin cannot be reached. */
const forbidsStale = (directives: Directives) =>
  ["must-revalidate", "proxy-revalidate", "s-maxage"].some((name) => directives.has(name)) ||
  directives.isUnqualified("no-cache");

function responseShown(
  { status, fields, requestTimeMs, responseTimeMs }: Received,
  directives: Directives,
): { status: number; headers: Headers } {
  const understandable = directives.has("must-understand") && UNDERSTOOD.includes(status);
  const shown = ["public", "no-store"].filter(
    (name) => directives.has(name) && !(understandable && name === "no-store"),
  );
  for (const name of ["private", "no-cache"]) if (directives.isUnqualified(name)) shown.push(name);
  const headers: Headers = {};
  const maxAge = directives.seconds("max-age");
  const lifetime = directives.seconds("s-maxage") ?? maxAge;
  if (directives.has("s-maxage")) shown.push(`s-maxage=${lifetime}`);
  if (maxAge !== undefined) shown.push(`max-age=${maxAge}`);
  const dateMs = dateOf(fields, "Date") ?? responseTimeMs;
  headers["date"] = formatDate(dateMs);
  const hasExpires = fields.get("Expires") !== undefined;
  // What is no date has expired (RFC 9111 §5.3).
  if (lifetime === undefined && hasExpires) headers["expires"] = formatDate(dateOf(fields, "Expires") ?? 0);
  const modifiedMs = dateOf(fields, "Last-Modified");
  if (modifiedMs !== undefined)
    headers["last-modified"] = formatDate(Math.max(modifiedMs, dateMs - MAX_UNCHANGED_MS));
  const whileRevalidate = directives.seconds("stale-while-revalidate");
  if (whileRevalidate !== undefined && !forbidsStale(directives))
    shown.push(`stale-while-revalidate=${whileRevalidate}`);
  // RFC 9111 §4.2.3: corrected_initial_age.
  const apparentAge = Math.max(0, Math.floor((responseTimeMs - dateMs) / 1000));
  const delay = Math.max(0, (responseTimeMs - requestTimeMs) / 1000);
  headers["age"] = String(Math.max(apparentAge, Math.floor(ageOf(fields) + delay)));
  if (shown.length > 0) headers["cache-control"] = shown.join(", ");
  // Any final status code may be stored if the response says so itself (RFC 9111 §3).
  const isAllowed = isExplicit(fields, directives) || directives.has("public");
  return { status: isAllowed ? 200 : status, headers };
}

/** A stored response over time. */
export class Policy {
  readonly #library: Library;
  readonly #directives: Directives;
  /** Until then it is fresh, in milliseconds since 1970. */
  readonly freshUntilMs: number;
  readonly #initialAgeS: number;
  readonly #responseTimeMs: number;

  constructor(received: Received) {
    this.#directives = cacheControl(received.fields);
    const shown = responseShown(received, this.#directives);
    this.#responseTimeMs = clockMs = received.responseTimeMs;
    this.#library = new Library({ headers: {} }, shown);
    this.#initialAgeS = Number(shown.headers["age"]);
    this.freshUntilMs = this.#responseTimeMs + (this.#library.maxAge() - this.#initialAgeS) * 1000;
  }

  /** The `Age` to send, in whole seconds. */
  ageS(nowMs: number): number {
    const residentS = Math.max(0, Math.floor((nowMs - this.#responseTimeMs) / 1000));
    return Math.min(this.#initialAgeS + residentS, MAX_DELTA_SECONDS);
  }

  /** May this request have it (RFC 9111 §4)? */
  judge(request: Fields, nowMs: number): Verdict {
    clockMs = nowMs;
    const { response, revalidation } = this.#library.evaluateRequest(requestShown(request, this.#directives));
    const isFresh = nowMs < this.freshUntilMs;
    if (response === undefined) return isFresh ? "request" : "expired";
    if (revalidation !== undefined) return "stale-while-revalidate";
    return isFresh ? "fresh" : "max-stale";
  }

  /** May it go out stale because the origin cannot be reached, or failed (500, 502, 503, 504)? RFC 9111 §4.2.4, RFC 5861 §4. */
  outlives(problem: "disconnected" | "error", request: Fields, nowMs: number): boolean {
    const asked = cacheControl(request);
    if (forbidsStale(this.#directives) || asked.has("no-cache")) return false;
    if (problem === "disconnected") return true;
    const allowedS = this.#directives.seconds("stale-if-error") ?? asked.seconds("stale-if-error");
    return allowedS !== undefined && (nowMs - this.freshUntilMs) / 1000 <= allowedS;
  }
}
