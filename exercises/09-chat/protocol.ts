/**
 * A line of IRC (RFC 1459, RFC 2812, modern.ircdocs.horse) and the names in it: what one consists of, and when two are
 * the same. Pure rules.
 *
 * A line is a string in which each character stands for a byte (latin1). Nothing is decoded on its way, so a text in any
 * encoding, or in none, arrives as it was sent.
 */
import type { Dissector } from "../../shared/describe.ts";

export const CHAT_PORT = 10_900;
/** Where the demo's direct link is caught: bare lines without commands, which to Wireshark are data and not IRC. */
const DEMO_CALL_PORT = 10_901;
export const dissectors: readonly Dissector[] = [
  { as: "irc", tcp: [CHAT_PORT] },
  { as: "data", tcp: [DEMO_CALL_PORT] },
];

/** A line with its CRLF (RFC 2812 §2.3). */
export const MAX_LINE_BYTES = 512;
/** The server's limits, in bytes; it tells its clients of them (RPL_ISUPPORT). */
export const LIMITS = {
  nick: 16,
  user: 10,
  channel: 50,
  topic: 307,
  kick: 255,
  away: 200,
  key: 23,
  /** Channels that a user may be in. */
  channels: 20,
  /** Masks on a channel's list of bans. */
  bans: 100,
  /** Changes with a parameter in one MODE. */
  modes: 4,
  /** Whom one PRIVMSG, NOTICE or KICK may be for. */
  targets: 4,
} as const;
const MAX_PARAMS = 15;

export interface Message {
  /** `nick!user@host` or a server's name; empty where the client speaks for itself. */
  source: string;
  /** In capitals, or three digits. */
  command: string;
  params: string[];
}

/** A line without its end, or undefined where it has no command. Tags, which nobody was offered, are skipped. */
export function parseLine(line: string): Message | undefined {
  const [, source = "", command, rest = ""] =
    /^(?:@[^ ]* )? *(?::([^ ]*) +)?([A-Za-z]+|\d{3})(?: (.*))?$/s.exec(line) ?? [];
  if (command === undefined) return undefined;
  return { source, command: command.toUpperCase(), params: parseParams(rest) };
}

function parseParams(text: string): string[] {
  const params: string[] = [];
  for (let at = 0; at < text.length; ) {
    if (text[at] === " ") {
      at++;
      continue;
    }
    if (text[at] === ":" || params.length === MAX_PARAMS - 1) {
      params.push(text.slice(text[at] === ":" ? at + 1 : at));
      return params;
    }
    const space = text.indexOf(" ", at);
    const end = space < 0 ? text.length : space;
    params.push(text.slice(at, end));
    at = end;
  }
  return params;
}

/**
 * The line without its CRLF, cut to what a line may be. A parameter that could begin a line of its own, or a middle
 * one that could be read as two, is a bug of the caller: `RangeError`.
 */
export function formatLine(source: string, command: string, ...params: readonly string[]): string {
  let line = source === "" ? command : `:${source} ${command}`;
  for (let i = 0; i < params.length; i++) {
    const param = params[i] ?? "";
    const needsColon = param === "" || param.startsWith(":") || param.includes(" ");
    if (needsColon && i < params.length - 1)
      throw new RangeError(`cannot put ${JSON.stringify(param)} in the middle of a line`);
    line += needsColon ? ` :${param}` : ` ${param}`;
  }
  return checked(line);
}

/** The line with a last parameter that has its colon in any case: many clients find a reply's text by it. */
export const withText = (line: string, text: string) => checked(`${line} :${text}`);

function checked(line: string): string {
  if (/[\r\n\0]/.test(line)) throw new RangeError(`cannot send more than a line: ${JSON.stringify(line)}`);
  return line.length > MAX_LINE_BYTES - 2 ? line.slice(0, MAX_LINE_BYTES - 2) : line;
}

/** The one spelling of all that count as the same name (casemapping rfc1459): `{}|^` are the small `[]\~`. */
export const fold = (name: string) =>
  name.replace(/[A-Z[\]\\~]/g, (char) => (char === "~" ? "^" : String.fromCharCode(char.charCodeAt(0) + 32)));

/** RFC 2812 §2.3.1, but longer. */
export const isNick = (name: string) =>
  name.length <= LIMITS.nick && /^[A-Za-z[\]\\`_^{|}][A-Za-z0-9[\]\\`_^{|}-]*$/.test(name);

/** A name that begins like a channel's is one, if only a wrong one. */
export const isChannelLike = (name: string) => name.startsWith("#");
/** Neither may hold a blank, a comma, a colon or a control character; the bytes of other scripts it may. */
const WORD = "[!-+\\--9;-~\x80-\xff]+";
const CHANNEL = new RegExp(`^#${WORD}$`);
const KEY = new RegExp(`^${WORD}$`);
export const isChannel = (name: string) => name.length <= LIMITS.channel && CHANNEL.test(name);
export const isKey = (key: string) => key.length <= LIMITS.key && KEY.test(key);

/** `nick`, `user@host` and `nick!user` as `nick!user@host`, what is not said being `*`. */
export function completeMask(mask: string): string {
  const [, nick, user, host] = /^(?:([^!@]*)!)?(?:([^@]*)@)?(.*)$/s.exec(mask) ?? [];
  if (user !== undefined) return `${nick || "*"}!${user || "*"}@${host || "*"}`;
  return nick === undefined ? `${host || "*"}!*@*` : `${nick || "*"}!${host || "*"}@*`;
}

/**
 * Does the text match the mask (`*` any characters, `?` one)? Both folded. It goes back to the last star only, so a
 * mask full of stars takes no longer than its length times the text's.
 */
export function matchesMask(mask: string, text: string): boolean {
  let [at, star, resume] = [0, -1, 0];
  for (let i = 0; i < text.length; ) {
    if (mask[at] === "*") {
      star = at++;
      resume = i;
    } else if (mask[at] === "?" || mask[at] === text[i]) {
      at++;
      i++;
    } else if (star < 0) return false;
    else {
      at = star + 1;
      i = ++resume;
    }
  }
  while (mask[at] === "*") at++;
  return at === mask.length;
}

/** The parts of a list, `#a,#b`. */
export const listOf = (param = "") => param.split(",").filter((part) => part !== "");
/** Each of them once, as it is first written. */
export function namesOf(param = ""): string[] {
  const names = new Map<string, string>();
  for (const name of listOf(param)) if (!names.has(fold(name))) names.set(fold(name), name);
  return [...names.values()];
}

/** What somebody said, as the middle of a line: in one piece and not too long. */
export const shown = (param: string) => param.replace(/^:+| /g, "_").slice(0, 50) || "*";

/** The bytes of a text as a line carries them. */
export const toWire = (text: string) => Buffer.from(text, "utf8").toString("latin1");
