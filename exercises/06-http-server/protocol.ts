/**
 * What a request for a file means (RFC 9110): its target, its conditions, its ranges. Pure rules over texts and
 * times; the syntax of messages is in `shared/http.ts`, what lies on the disk in `files.ts`.
 */
import { extname } from "node:path";
import { contentType } from "mime-types";
import type { Dissector } from "../../shared/describe.ts";
import { type Fields, HttpError, type RequestHead } from "../../shared/http.ts";
import { formatDate, parseDate } from "../../shared/http-serving.ts";

export const HTTP_PORT = 10_600;
export const dissectors: readonly Dissector[] = [{ as: "http", tcp: [HTTP_PORT] }];

export const ALLOWED = ["GET", "HEAD"];
/** Known, but not for files that are only read: 405. Any other is unknown: 501 (RFC 9110 §9.1). */
const KNOWN = [...ALLOWED, "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/** Throws `HttpError` 405 or 501. */
export function checkMethod(method: string): void {
  if (ALLOWED.includes(method)) return;
  throw new HttpError(KNOWN.includes(method) ? 405 : 501, `the method ${method}`);
}

/** What is asked for, decoded once: `/a/b%20c/?x` is `{ path: "a/b c", isFolder: true, query: "?x" }`. */
export interface Target {
  /** Relative to the root, without `.`, `..` and empty segments. */
  path: string;
  isFolder: boolean;
  query: string;
}

/**
 * Throws `HttpError`: 400 for what is no target of a file, 404 for what no file of ours may be called, so that no
 * spelling of `..` leads out of the root and none of `.git` to it. Decoding comes after the splitting: an encoded
 * slash must not become a separator.
 */
export function parseTarget(target: string): Target {
  const [, path, query = ""] = /^(?:https?:\/\/[^/?#]+)?(\/[^?#]*|(?=\?|$))(\?[^#]*)?$/i.exec(target) ?? [];
  if (path === undefined || target === "" || /%(?![0-9a-f]{2})/i.test(path)) {
    throw new HttpError(400, `the target ${JSON.stringify(target.slice(0, 60))}`);
  }
  const segments = path.slice(1).split("/");
  const isFolder = segments.at(-1) === "";
  if (isFolder) segments.pop();
  return { path: segments.map(decodeSegment).join("/"), isFolder, query };
}

function decodeSegment(encoded: string): string {
  const segment = encoded.includes("%") ? decodeUtf8(encoded) : encoded;
  // An empty one would make `//other.host/` of a redirect, which is another server's address.
  if (segment === "" || segment.startsWith(".") || /[/\\\0]/.test(segment)) {
    throw new HttpError(404, `no file is called ${JSON.stringify(segment)}`);
  }
  return segment;
}

function decodeUtf8(encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    throw new HttpError(404, "a name that is no UTF-8"); // the one thing that it throws for
  }
}

/** Where a folder without its slash really is: relative links on its page would else lead astray. */
export const folderLocation = ({ path, query }: Target) =>
  `/${path.split("/").map(encodeURIComponent).join("/")}/${query}`;

/** Text is UTF-8 here; what is not known is bytes, which a browser saves instead of guessing (RFC 9110 §8.3). */
export const mediaType = (name: string) => contentType(extname(name)) || "application/octet-stream";

/** What tells one state of a file from another (RFC 9110 §8.8). */
export interface Validators {
  /** Strong, in quotes. */
  etag: string;
  modifiedMs: number;
}

const toSeconds = (timeMs: number) => Math.floor(timeMs / 1000);

/** Is the tag in the field's list? The weak comparison takes `W/"a"` for `"a"` (RFC 9110 §8.8.3.2). */
function listsTag(list: string, etag: string, comparison: "weak" | "strong"): boolean {
  if (list.trim() === "*") return true;
  const tags = list.match(/(?:W\/)?"[!#-~\x80-\xff]*"/g) ?? [];
  return tags.some((tag) => (comparison === "weak" ? tag.replace(/^W\//, "") : tag) === etag);
}

/** The conditions in their order of precedence (RFC 9110 §13.2.2); 200 means: as if there were none. */
export function evaluateConditions(fields: Fields, { etag, modifiedMs }: Validators): 200 | 304 | 412 {
  const ifMatch = fields.get("If-Match");
  const unmodifiedSince = parseDate(fields.get("If-Unmodified-Since") ?? "");
  if (ifMatch !== undefined) {
    if (!listsTag(ifMatch, etag, "strong")) return 412;
  } else if (unmodifiedSince !== undefined && toSeconds(modifiedMs) > toSeconds(unmodifiedSince)) return 412;
  const ifNoneMatch = fields.get("If-None-Match");
  if (ifNoneMatch !== undefined) return listsTag(ifNoneMatch, etag, "weak") ? 304 : 200;
  const modifiedSince = parseDate(fields.get("If-Modified-Since") ?? "");
  return modifiedSince !== undefined && toSeconds(modifiedMs) <= toSeconds(modifiedSince) ? 304 : 200;
}

/** The bytes `start` to `end - 1`. */
export interface Range {
  start: number;
  end: number;
}

/** More than these is a burden rather than a download: the whole file is sent instead (RFC 9110 §14.2). */
export const MAX_RANGES = 16;

/**
 * The ranges of a `Range` field that lie in the file; none: 416. `undefined` where it is to be ignored: also for an
 * empty file, as some clients ask for a range to be on the safe side, and no range could say that it is all there.
 */
export function parseRanges(value: string, sizeBytes: number): Range[] | undefined {
  const [, list] = /^bytes=(.*)$/i.exec(value) ?? [];
  const specs = (list ?? "").split(",").flatMap((spec) => spec.trim() || []); // RFC 9110 §5.6.1.2: empty ones do not count
  if (specs.length === 0 || sizeBytes === 0) return undefined;
  const ranges: Range[] = [];
  for (const spec of specs) {
    const [, first = "", last = ""] = /^(\d*)-(\d*)$/.exec(spec) ?? [];
    if (first === "" && last === "") return undefined;
    if (first !== "" && last !== "" && Number(last) < Number(first)) return undefined;
    const start = first === "" ? Math.max(0, sizeBytes - Number(last)) : Number(first);
    const end = first === "" || last === "" ? sizeBytes : Math.min(sizeBytes, Number(last) + 1);
    if (start < end) ranges.push({ start, end });
  }
  // Together more than the file: they overlap, and a small request would make a huge answer.
  const totalBytes = ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  return specs.length > MAX_RANGES || totalBytes > sizeBytes ? undefined : ranges;
}

/** The ranges to send of a file, `undefined` for all of it: `If-Range` asks for the whole if it has changed. */
export function wantedRanges(
  { method, fields }: RequestHead,
  sizeBytes: number,
  { etag, modifiedMs }: Validators,
): Range[] | undefined {
  const range = fields.get("Range");
  if (range === undefined || method !== "GET") return undefined;
  const ifRange = fields.get("If-Range");
  const unchanged = ifRange === undefined || ifRange === etag || ifRange === formatDate(modifiedMs);
  return unchanged ? parseRanges(range, sizeBytes) : undefined;
}
