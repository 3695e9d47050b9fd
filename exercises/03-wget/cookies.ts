/**
 * The cookies of one download (RFC 6265): sites set one and redirect to see whether it comes back. Kept for the
 * origin that set them alone, which is stricter than the RFC, and forgotten at the end.
 */
import { parseDate } from "../../shared/http-serving.ts";

const MAX_COOKIES = 50;
const MAX_COOKIE_BYTES = 4096;

interface Cookie {
  origin: string;
  name: string;
  value: string;
  path: string;
}

export class Cookies {
  #cookies: Cookie[] = [];

  /** Takes the values of the response's `Set-Cookie` fields. `nowMs` decides what has expired. */
  store(url: URL, lines: readonly string[], nowMs: number): void {
    for (const line of lines) {
      const [pair = "", ...attributes] = line.split(";").map((part) => part.trim());
      const [, name = "", value = ""] = /^([^=]+?)\s*=\s*(.*)$/.exec(pair) ?? [];
      if (name === "" || line.length > MAX_COOKIE_BYTES) continue;
      const given = new Map(attributes.map((text) => attribute(text)));
      if (given.has("secure") && url.protocol !== "https:") continue;
      const path = given.get("path")?.startsWith("/") ? (given.get("path") ?? "") : defaultPath(url);
      const cookie = { origin: url.origin, name, value, path };
      this.#cookies = this.#cookies.filter((other) => !isSame(other, cookie));
      if (!hasExpired(given, nowMs)) this.#cookies.push(cookie);
    }
    this.#cookies = this.#cookies.slice(-MAX_COOKIES);
  }

  /** What to send there, as `Cookie` has it; `undefined` if nothing. Longer paths come first (RFC 6265 §5.4). */
  for(url: URL): string | undefined {
    const fitting = this.#cookies
      .filter(({ origin, path }) => origin === url.origin && isUnder(url.pathname, path))
      .toSorted((a, b) => b.path.length - a.path.length);
    return fitting.length === 0 ? undefined : fitting.map(({ name, value }) => `${name}=${value}`).join("; ");
  }
}

function attribute(text: string): [name: string, value: string] {
  const [name = "", ...rest] = text.split("=");
  return [name.trim().toLowerCase(), rest.join("=").trim()];
}

const isSame = (a: Cookie, b: Cookie) => a.origin === b.origin && a.name === b.name && a.path === b.path;

function hasExpired(given: Map<string, string>, nowMs: number): boolean {
  const maxAge = given.get("max-age");
  if (maxAge !== undefined && /^-?\d+$/.test(maxAge)) return Number(maxAge) <= 0;
  const expiresMs = parseDate((given.get("expires") ?? "").replace(/(\d\d)-(\w{3})-(\d{4})/, "$1 $2 $3"));
  return expiresMs !== undefined && expiresMs <= nowMs;
}

/** RFC 6265 §5.1.4: the folder of what was asked for. */
const defaultPath = ({ pathname }: URL) => pathname.slice(0, pathname.lastIndexOf("/")) || "/";

const isUnder = (path: string, folder: string) =>
  path === folder || path.startsWith(folder.endsWith("/") ? folder : `${folder}/`);
