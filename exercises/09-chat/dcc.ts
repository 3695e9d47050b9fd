/**
 * Calls: DCC CHAT, a direct link between two users that is offered through the server. Pure rules: how an offer is
 * written, and which are refused. It has no standard; this is what clients have done since 1991.
 *
 *     PRIVMSG bob :^ADCC CHAT chat 2130706433 40123^A
 *
 * says: call me back at 127.0.0.1 (as one number), port 40123. Then lines that end in LF go both ways.
 */
import { isIP, isIPv4, isIPv6, SocketAddress } from "node:net";

/** A line of a call, with its end. */
export const MAX_CALL_LINE_BYTES = 4096;
const CTCP = "\x01";

/** Where the other one waits to be called. */
export interface Offer {
  host: string;
  port: number;
}

/** The text between the marks of a CTCP message, or undefined if it is an ordinary one. */
export function ctcpOf(text: string): string | undefined {
  if (!text.startsWith(CTCP)) return undefined;
  return text.slice(1, text.endsWith(CTCP) && text.length > 1 ? -1 : undefined);
}
export const ctcp = (text: string) => `${CTCP}${text}${CTCP}`;

export function formatOffer({ host, port }: Offer): string {
  const octets = host.split(".").map(Number);
  const address = isIPv4(host) ? octets.reduce((sum, octet) => sum * 256 + octet, 0) : host;
  return ctcp(`DCC CHAT chat ${address} ${port}`);
}
export const REJECTION = ctcp("DCC REJECT CHAT chat");
export const isRejection = (text: string) => /^DCC (?:REJECT|DECLINE) CHAT\b/i.test(text);

/** The offer in a CTCP text; undefined where it is none, null where it is one that nobody could understand. */
export function parseOffer(text: string): Offer | null | undefined {
  if (!/^DCC +CHAT\b/i.test(text)) return undefined;
  const [, address = "", digits = ""] = /^DCC +CHAT +[^ ]+ +([^ ]+) +(\d{1,5})(?: |$)/i.exec(text) ?? [];
  const host = /^\d{1,10}$/.test(address) ? dotted(Number(address)) : address;
  const port = Number(digits);
  // A name would have to be looked up, and so tell its owner that somebody did.
  return isIP(host) === 0 || digits === "" || port > 65_535 ? null : { host, port };
}

const dotted = (address: number) =>
  address > 0xffffffff ? "" : [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");

/** The one spelling of an address, without its zone: IPv6 has many (RFC 5952), and `0::1` is this machine as `::1` is. */
export function canonical(host: string): string {
  if (!isIPv6(host)) return host;
  return new SocketAddress({ address: host.replace(/%.*/, ""), family: "ipv6" }).address;
}

/** Above 1023, and yet no place where a caller would wait. */
const SERVICES: readonly (readonly [first: number, last?: number])[] = [
  [1080], // SOCKS
  [1433],
  [1521],
  [2049],
  [2375, 2376], // Docker
  [3128],
  [3306],
  [3389],
  [5432],
  [5900, 5910], // VNC
  [6000, 6063], // X11
  [6379],
  [6660, 6669], // IRC
  [6697],
  [8000],
  [8080],
  [8443],
  [9100], // printers
  [9200],
  [11_211],
  [27_017],
];
const isService = (port: number) => SERVICES.some(([first, last = first]) => port >= first && port <= last);

const isLoopback = (host: string) => host === "::1" || (isIPv4(host) && host.startsWith("127."));

/** No single machine: unspecified, multicast, broadcast; and IPv4 in disguise (`::ffff:127.0.0.1`, `::127.0.0.1`). */
function isNobody(host: string): boolean {
  if (isIPv6(host)) return /^(?:::|ff[0-9a-f]{2}:.*|::(?:ffff:.*)?[\d.]+\.\d+)$/i.test(host);
  const first = Number(host.split(".")[0]);
  return first === 0 || first >= 224;
}

/**
 * Why nobody should be called there, or undefined. An offer makes the one who accepts it connect to any address and
 * port that the other likes, with a text of which the other has a say: that is how one attacks a third.
 */
export function whyRefused(offer: Offer, server: Offer): string | undefined {
  const [host, port] = [canonical(offer.host), offer.port];
  if (port === 0) return "it names no port (a passive call)";
  if (port < 1024) return `port ${port} is a privileged one`;
  if (isService(port) || port === server.port) return `port ${port} is one of another service`;
  if (isNobody(host)) return `${host} is no address of one machine`;
  if (isLoopback(host) && !isLoopback(canonical(server.host))) return `${host} is this machine itself`;
  return undefined;
}
