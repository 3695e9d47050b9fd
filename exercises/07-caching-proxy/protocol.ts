/**
 * A proxy's part of HTTP (RFC 9110, RFC 9112): what it is asked to fetch, how it shows that it was there, and the head of the files
 * in which it keeps what it fetched. What may be kept and used is in `rules.ts` and `selection.ts`.
 */
import { BlockList, isIP } from "node:net";
import type { Dissector } from "../../shared/describe.ts";
import { type Fields, HttpError } from "../../shared/http.ts";
import { constant, struct, text, u32, u64, type ValueOf } from "../../shared/pdu.ts";

export const PROXY_PORT = 10_700;
/** Of the demo's origin server: both sides of the proxy can be watched. */
export const ORIGIN_PORT = 10_780;
export const dissectors: readonly Dissector[] = [{ as: "http", tcp: [PROXY_PORT, ORIGIN_PORT] }];

const MAGIC = 0x4e4c_4350;
const FORMAT_VERSION = 1;
export const MAX_META_BYTES = 256 * 1024;

/** In front of each stored body. Whatever does not add up is no object. */
export const ObjectHead = struct("ObjectHead", {
  magic: [constant(u32, MAGIC), '"NLCP" in ASCII'],
  version: [constant(u32, FORMAT_VERSION), "of this format"],
  bodyOffset: [u32, "where the body begins, counted from the file's first byte"],
  bodyBytes: [u64, "length of the body, which ends the file"],
  bodySum: [u32, "CRC-32 of the body"],
  metaSum: [u32, "CRC-32 of the meta"],
  meta: [text(u32, MAX_META_BYTES), "what it answers and how (JSON); after it, zeros up to the body"],
});
export type ObjectHead = ValueOf<typeof ObjectHead>;

/** What a client wants from another server. */
export interface Target {
  /** Lower case, an IPv6 address without brackets. */
  host: string;
  port: number;
  /** For the server: `/a?b`, or `*`. */
  path: string;
  /** With host and port as they go into Host. */
  authority: string;
  /** What it is stored under: the address in one spelling. */
  url: string;
}

const ABSOLUTE = /^http:\/\/(\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()*+,;=%-]+)(?::(\d*))?((?:[/?][^#]*)?)(?:#.*)?$/i;

/** Absolute form (RFC 9112 §3.2.2). Throws `HttpError` 400 for what is none, or for another protocol than HTTP. */
export function parseTarget(method: string, target: string): Target {
  const [, name, port, rest = ""] = ABSOLUTE.exec(target) ?? [];
  if (name === undefined)
    throw new HttpError(
      400,
      `the target ${JSON.stringify(target.slice(0, 60))} is no http address of a server`,
    );
  const portNumber = port === undefined || port === "" ? 80 : Number(port);
  if (portNumber < 1 || portNumber > 65_535) throw new HttpError(400, `the port ${port}`);
  const authority = name.toLowerCase() + (portNumber === 80 ? "" : `:${portNumber}`);
  const path = rest.startsWith("/") ? rest : `/${rest}`;
  return {
    host: name.toLowerCase().replace(/[[\]]/g, ""),
    port: portNumber,
    path: method === "OPTIONS" && rest === "" ? "*" : path,
    authority,
    url: `http://${authority}${path}`,
  };
}

/** Authority form (RFC 9112 §3.2.3): where a tunnel leads. Throws `HttpError` 400. */
export function parseAuthority(target: string): { host: string; port: number } {
  const [, name = "", port = ""] = /^(\[[0-9a-f:.]+\]|[^/?#@:[\]]+):(\d+)$/i.exec(target) ?? [];
  if (name === "" || Number(port) < 1 || Number(port) > 65_535)
    throw new HttpError(400, `the target ${JSON.stringify(target.slice(0, 60))} is no HOST:PORT`);
  return { host: name.replace(/[[\]]/g, "").toLowerCase(), port: Number(port) };
}

/**
 * This machine and its own networks: loopback, private, link-local, unspecified, shared (RFC 6890), multicast; and what a
 * translator or a tunnel on the way may turn into one of them: NAT64, Teredo, 6to4, IPv4-compatible.
 */
const PRIVATE = new BlockList();
for (const [network, bits] of [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["224.0.0.0", 3],
] as const)
  PRIVATE.addSubnet(network, bits, "ipv4");
for (const [network, bits] of [
  ["::", 96],
  ["64:ff9b::", 96],
  ["64:ff9b:1::", 48],
  ["2001::", 32],
  ["2002::", 16],
  ["fec0::", 10],
  ["fc00::", 7],
  ["fe80::", 10],
  ["ff00::", 8],
] as const)
  PRIVATE.addSubnet(network, bits, "ipv6");

/** `address` is numeric; an IPv4 address may come in IPv6 clothes (`::ffff:10.0.0.1`). */
export function isPrivate(address: string): boolean {
  const version = isIP(address);
  return version === 0 || PRIVATE.check(address, version === 4 ? "ipv4" : "ipv6");
}

/** `Via` with this hop at its end (RFC 9110 §7.6.3). */
export const withVia = (fields: Fields, minor: number, pseudonym: string): [string, string] => [
  "Via",
  [...fields.all("Via"), `1.${minor} ${pseudonym}`].join(", "),
];

/** Has a message been here already? */
export const wasHere = (fields: Fields, pseudonym: string) =>
  fields
    .all("Via")
    .flatMap((value) => value.split(","))
    .some((hop) => hop.trim().split(/[ \t]+/)[1] === pseudonym);

/** How a response came about (RFC 9211): in the cache, or for which reason not. */
export interface CacheStatus {
  hit?: boolean;
  fwd?: "bypass" | "method" | "uri-miss" | "vary-miss" | "request" | "stale" | "miss";
  /** The origin's status code, where it is not the response's. */
  fwdStatus?: number;
  /** Seconds that it stays fresh; negative when it no longer is. */
  ttl?: number;
  stored?: boolean;
  collapsed?: boolean;
  detail?: string;
}

const CACHE_NAME = "netlab";

export function formatCacheStatus({
  hit,
  fwd,
  fwdStatus,
  ttl,
  stored,
  collapsed,
  detail,
}: CacheStatus): string {
  const parts = [CACHE_NAME];
  if (hit) parts.push("hit");
  if (fwd !== undefined) parts.push(`fwd=${fwd}`);
  if (fwdStatus !== undefined) parts.push(`fwd-status=${fwdStatus}`);
  if (ttl !== undefined) parts.push(`ttl=${ttl}`);
  if (stored) parts.push("stored");
  if (collapsed) parts.push("collapsed");
  if (detail !== undefined) parts.push(`detail=${detail}`);
  return parts.join("; ");
}
