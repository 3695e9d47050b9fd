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
  const members = value.match(/(?:"(?:[^"\\]|\\.)*(?:"|\\?$)|[^",])+/g) ?? [];
  return members.map((member) => member.trim()).filter((member) => member !== "");
}

const FORBIDS = /^(?:no-store|no-cache|private|must-revalidate|proxy-revalidate)(?![\w-])/i;

/** A string that is never closed swallows what allows something, and not what forbids it. */
function apartIfUnclosed(member: string): string[] {
  const isClosed = /^(?:"(?:[^"\\]|\\.)*"|[^"])*$/s.test(member);
  if (isClosed) return [member];
  const behind = member.split(",").slice(1);
  return [member, ...behind.map((part) => part.trim()).filter((part) => FORBIDS.test(part))];
}

const DIRECTIVE = /^([!#$%&'*+.^_`|~\w-]+)(?:=(.*))?/s;

/** `Cache-Control` (RFC 9111 §5.2): names in lower case, each with all values that it is given. */
export class Directives {
  readonly #values = new Map<string, string[]>();

  constructor(value: string | undefined) {
    for (const member of splitList(value ?? "").flatMap(apartIfUnclosed)) {
      const [whole = "", name = "", argument] = DIRECTIVE.exec(member) ?? [];
      // `max-age =5` is no directive with an argument (the grammar has no blank there), yet max-age was meant.
      const text = argument ?? (whole.length < member.length ? "malformed" : "");
      const values = this.#values.get(name.toLowerCase());
      if (values === undefined) this.#values.set(name.toLowerCase(), [text]);
      else values.push(text);
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

/** An HTTP date in milliseconds since 1970, in any of its three forms and in any case (RFC 9111 §4.2); `undefined` for what is none. */
export function parseCacheDate(text: string): number | undefined {
  const words = text.toLowerCase().replace("gmt", "GMT");
  return parseDate(words.replace(/[a-z]+/g, (word) => word.charAt(0).toUpperCase() + word.slice(1)));
}

/** The field's date, if it has one and only one. */
export function dateOf(fields: Fields, name: string): number | undefined {
  const [value, ...others] = fields.all(name);
  return value === undefined || others.some((other) => other !== value) ? undefined : parseCacheDate(value);
}

/** Of a list the first member counts, of what is no number nothing (RFC 9111 §5.1). */
export function ageOf(fields: Fields): number {
  return parseSeconds(splitList(fields.get("Age") ?? "")[0] ?? "") ?? 0;
}
