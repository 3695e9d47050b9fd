/**
 * Which stored response answers a request, and how a request makes it answer: Vary (RFC 9111 §4.1), conditions and ranges
 * (§4.3.2), and what an answer of the origin does to what is stored (§3.2, §4.3.4, §4.3.5, §4.4).
 */
import type { Fields, RequestHead } from "../../shared/http.ts";
import { cacheControl, dateOf, splitList } from "./directives.ts";

export const varyNames = (fields: Fields) => fields.tokens("Vary");

/** Of these the meaning is known: blanks, case and order do not matter in them. */
const UNORDERED = ["accept-encoding", "accept-language", "accept-charset"];

/** The request's values of the fields that the response varies by, in one form for all that mean the same. */
export function variantOf(response: Fields, request: Fields): Record<string, string> {
  return Object.fromEntries(varyNames(response).map((name) => [name, normalise(name, request)]));
}

function normalise(name: string, request: Fields): string {
  const value = request.get(name);
  if (value === undefined) return "(none)";
  const members = splitList(value);
  if (!UNORDERED.includes(name)) return `=${members.join(", ")}`;
  return `=${members
    .map((member) => member.toLowerCase().replaceAll(/\s/g, ""))
    .sort()
    .join(", ")}`;
}

export const isVariant = (variant: Readonly<Record<string, string>>, request: Fields) =>
  Object.entries(variant).every(([name, value]) => normalise(name, request) === value);

/** Of this hop only (RFC 9110 §7.6.1), or for this proxy (RFC 9111 §3.1). */
const HOP_BY_HOP =
  "connection keep-alive proxy-connection te trailer transfer-encoding upgrade proxy-authenticate proxy-authentication-info proxy-authorization".split(
    " ",
  );
/** What goes on to the next hop. */
export const endToEnd = (fields: Fields) => fields.replace([...HOP_BY_HOP, ...fields.tokens("Connection")]);

/** What is kept: neither this hop's, nor what may not be used again as it is (RFC 9111 §3.1, §5.2.2.4, §5.2.2.7). */
export function storedFields(fields: Fields): Fields {
  const directives = cacheControl(fields);
  return endToEnd(fields).replace([...directives.fields("no-cache"), ...directives.fields("private")]);
}

/** They tell about the content, which a 304 does not bring; and the age begins anew. */
const NOT_UPDATED = ["content-length", "content-encoding", "content-range"];

/** A stored head with what a 304, or the answer to a HEAD, has newer (RFC 9111 §3.2). */
export function updatedFields(stored: Fields, update: Fields): Fields {
  const newer = storedFields(update).replace(NOT_UPDATED);
  return stored.replace(["Age", ...[...newer].map(([name]) => name)], [...newer]);
}

const bareTag = (tag: string) => tag.trim().replace(/^W\//, "");
const isStrong = (tag: string) => tag.startsWith('"');

/** Does a 304 speak of this one (RFC 9111 §4.3.4)? Without any validator it must: it answers a request with those of this one. */
export function isAbout(update: Fields, stored: Fields): boolean {
  const [tag, storedTag] = [update.get("ETag"), stored.get("ETag")];
  if (tag !== undefined && storedTag !== undefined)
    return isStrong(tag) ? tag === storedTag : bareTag(tag) === bareTag(storedTag);
  const modified = update.get("Last-Modified");
  return (
    modified === undefined ||
    stored.get("Last-Modified") === undefined ||
    modified === stored.get("Last-Modified")
  );
}

/** Does the answer to a HEAD describe this one still (RFC 9111 §4.3.5)? */
export function describes(head: Fields, stored: Fields, sizeBytes: number): boolean {
  const length = head.get("Content-Length");
  const same = (name: string) => head.get(name) === undefined || head.get(name) === stored.get(name);
  return same("ETag") && same("Last-Modified") && (length === undefined || Number(length) === sizeBytes);
}

/** A request with the validators of what is stored in the place of the client's own (RFC 9111 §4.3.1). */
export function withValidators(request: Fields, stored: Fields): Fields {
  const lines: [string, string][] = [];
  const [tag, modified] = [stored.get("ETag"), stored.get("Last-Modified")];
  if (tag !== undefined) lines.push(["If-None-Match", tag]);
  if (modified !== undefined) lines.push(["If-Modified-Since", modified]);
  return request.replace([...CONDITIONS, "Range", "If-Range"], lines);
}

const CONDITIONS = ["If-None-Match", "If-Modified-Since"];
export const isConditional = (request: Fields) => CONDITIONS.some((name) => request.get(name) !== undefined);
/** They are about the origin's present state, of which a cache knows nothing (RFC 9111 §4.3.2). */
export const isForOrigin = (request: Fields) =>
  request.get("If-Match") !== undefined || request.get("If-Unmodified-Since") !== undefined;

/** Has the client this one already (RFC 9111 §4.3.2)? By tag if it gives one, else by date. */
export function isKnownToClient(request: Fields, stored: Fields, responseTimeMs: number): boolean {
  const tags = request.get("If-None-Match");
  const stamp = stored.get("ETag");
  if (tags !== undefined) {
    if (tags.trim() === "*") return true;
    return stamp !== undefined && splitList(tags).some((tag) => bareTag(tag) === bareTag(stamp));
  }
  const sinceMs = dateOf(request, "If-Modified-Since");
  if (sinceMs === undefined) return false;
  const modifiedMs = dateOf(stored, "Last-Modified") ?? dateOf(stored, "Date") ?? responseTimeMs;
  return modifiedMs <= sinceMs;
}

/** The bytes `start` to `end - 1`. */
export interface Range {
  start: number;
  end: number;
}

/**
 * The part of a stored content that a request is for (RFC 9110 §14): `undefined` for all of it, "none" for a range
 * beyond its end. Several ranges in one request get all of it, as a server may.
 */
export function wantedRange(request: Fields, stored: Fields, sizeBytes: number): Range | "none" | undefined {
  const [, first = "", last = ""] = /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(request.get("Range") ?? "") ?? [];
  if (first === "" && last === "") return undefined;
  if (first !== "" && last !== "" && Number(last) < Number(first)) return undefined;
  const ifRange = request.get("If-Range");
  if (ifRange !== undefined && !isUnchanged(ifRange, stored)) return undefined;
  const start = first === "" ? Math.max(0, sizeBytes - Number(last)) : Number(first);
  const end = first === "" || last === "" ? sizeBytes : Math.min(sizeBytes, Number(last) + 1);
  return start < end ? { start, end } : "none";
}

/** RFC 9110 §13.1.5: a strong tag, or the very date. */
const isUnchanged = (ifRange: string, stored: Fields) =>
  isStrong(ifRange) ? ifRange === stored.get("ETag") : ifRange === stored.get("Last-Modified");

/** RFC 9110 §9.2.1. After any other method the stored responses may be wrong. */
const SAFE = ["GET", "HEAD", "OPTIONS", "TRACE"];

/**
 * What a request with a method that is not safe makes invalid (RFC 9111 §4.4): its target, and what the answer points to
 * at the same origin. Absolute addresses without fragments.
 */
export function invalidated(
  { method }: RequestHead,
  url: string,
  status: number,
  response: Fields,
): string[] {
  if (SAFE.includes(method) || status < 200 || status >= 400) return [];
  const urls = [url];
  for (const name of ["Location", "Content-Location"]) {
    const value = response.get(name);
    if (value === undefined || !URL.canParse(value, url)) continue;
    const other = new URL(value, url);
    other.hash = "";
    if (other.origin === new URL(url).origin) urls.push(other.href);
  }
  return urls;
}
