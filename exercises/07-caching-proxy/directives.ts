/**
 * The values that caching depends on, read as RFC 9111 asks for: Cache-Control, ages, dates. What is malformed counts
 * as stale and as forbidden, since a cache that errs should err by asking the origin.
 */
import type { Fields } from "../../shared/http.ts";
import { parseDate } from "../../shared/http-serving.ts";

/** RFC 9111 §1.2.2: what is larger is taken for this. */
export const MAX_DELTA_SECONDS = 2 ** 31;

/** Non-negative seconds; `undefined` for what is none. */
export function parseSeconds(text: string): number | undefined {
  return /^\d+$/.test(text) ? Math.min(Number(text), MAX_DELTA_SECONDS) : undefined;
}

/** The members of a list; commas in quoted strings are no separators (RFC 9110 §5.6.1). */
export function splitList(value: string): string[] {
  const members = value.match(/(?:"(?:[^"\\]|\\.)*(?:"|$)|[^",])+/g) ?? [];
  return members.map((member) => member.trim()).filter((member) => member !== "");
}

const DIRECTIVE = /^([!#$%&'*+.^_`|~\w-]+)(?:=(.*))?/s;

/** `Cache-Control` (RFC 9111 §5.2): names in lower case, each with all values that it is given. */
export class Directives {
  readonly #values = new Map<string, string[]>();

  constructor(value: string | undefined) {
    for (const member of splitList(value ?? "")) {
      const [whole = "", name = "", argument] = DIRECTIVE.exec(member) ?? [];
      // `max-age =5` is no directive with an argument (the grammar has no blank there), yet max-age was meant.
      const text = argument ?? (whole.length < member.length ? "malformed" : "");
      const values = this.#values.get(name.toLowerCase()) ?? [];
      this.#values.set(name.toLowerCase(), [...values, text]);
    }
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** Without a directive `undefined`. Of several the least; what is no number of seconds counts as 0 (RFC 9111 §4.2.1). */
  seconds(name: string): number | undefined {
    const values = this.#values.get(name);
    return values && Math.min(...values.map((text) => parseSeconds(unquote(text)) ?? 0));
  }

  /** Is there the directive as a whole, rather than for single fields? A list of fields must be quoted. */
  isUnqualified(name: string): boolean {
    return this.#values.get(name)?.some((text) => !isQuoted(text)) ?? false;
  }

  /** The fields, in lower case, that it is about: `no-cache="Set-Cookie"` (RFC 9111 §5.2.2.4, §5.2.2.7). */
  fields(name: string): string[] {
    const lists = this.#values.get(name)?.filter(isQuoted) ?? [];
    return lists.flatMap((text) => splitList(unquote(text))).map((field) => field.toLowerCase());
  }

  /** An argument was given, whatever it is. */
  hasArgument(name: string): boolean {
    return this.#values.get(name)?.some((text) => text !== "") ?? false;
  }
}

const isQuoted = (text: string) => /^".+"$/s.test(text);
const unquote = (text: string) => (isQuoted(text) ? text.slice(1, -1).replace(/\\(.)/gs, "$1") : text);

export const cacheControl = (fields: Fields) => new Directives(fields.get("Cache-Control"));

const FIFTY_YEARS = 50;

/**
 * An HTTP date in milliseconds since 1970, in any of the three forms and in any case (RFC 9111 §4.2); a year of two digits is
 * at most 50 years ahead of `nowMs` (RFC 9110 §5.6.7). `undefined` for what is none, so also for any zone but GMT.
 */
export function parseCacheDate(text: string, nowMs: number): number | undefined {
  const capitalised = text
    .toLowerCase()
    .replace(/[a-z]+/g, (word) => (word === "gmt" ? "GMT" : word.charAt(0).toUpperCase() + word.slice(1)));
  const timeMs = parseDate(capitalised);
  const [, day, month, digits] = /^[A-Z][a-z]+day, (\d\d)-(\w{3})-(\d\d) /.exec(capitalised) ?? [];
  if (timeMs === undefined || digits === undefined) return timeMs;
  const thisYear = new Date(nowMs).getUTCFullYear();
  let year = thisYear - (thisYear % 100) + Number(digits);
  if (year > thisYear + FIFTY_YEARS) year -= 100;
  else if (year <= thisYear - FIFTY_YEARS) year += 100;
  const clock = capitalised.slice(-12);
  return Date.parse(`${day} ${month} ${year} ${clock}`);
}

/** The field's date, if it has one and only one. */
export function dateOf(fields: Fields, name: string, nowMs: number): number | undefined {
  const [value, ...others] = fields.all(name);
  return value === undefined || others.some((other) => other !== value)
    ? undefined
    : parseCacheDate(value, nowMs);
}

/** Of a list the first member counts, of what is no number nothing (RFC 9111 §5.1). */
export function ageOf(fields: Fields): number {
  return parseSeconds(splitList(fields.get("Age") ?? "")[0] ?? "") ?? 0;
}
