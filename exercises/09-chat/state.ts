/**
 * Who is there and where: the server's users and channels, and how they are told something. No sockets and no clock of
 * its own: a user has a `send`, the server a `nowMs`, so that the rules can be run without a network.
 */
import type { Channel } from "./channel.ts";
import { NUMERICS, type Numeric } from "./numerics.ts";
import { fold, formatLine, MAX_LINE_BYTES, withText } from "./protocol.ts";

/** What the rules need of a connection. */
interface Link {
  /** Queues a line, given without its end. */
  send(line: string): void;
  /** The rules have said their last word to it: what is queued is to go out, and then the end. */
  close(): void;
}

export interface User {
  readonly link: Link;
  /** The address that others see; never begins with a colon. */
  readonly host: string;
  /** Empty until NICK. */
  nick: string;
  /** Empty until USER. */
  username: string;
  realName: string;
  password: string;
  /** `CAP LS` or `CAP REQ` keeps the registration open until `CAP END`. */
  negotiating: boolean;
  registered: boolean;
  gone: boolean;
  invisible: boolean;
  away: string | undefined;
  readonly channels: Set<Channel>;
  readonly signedOnMs: number;
  spokeMs: number;
}

export interface ChatOptions {
  /** The server's name in its lines. */
  name: string;
  /** What PASS must say, as bytes. */
  password?: string | undefined;
  /** The message of the day, a line each; undefined where there is none. */
  motd?: readonly string[] | undefined;
  nowMs: () => number;
}

export interface Chat {
  readonly options: ChatOptions;
  readonly startedMs: number;
  /** All connections, registered or not. */
  readonly connected: Set<User>;
  /** By folded nick, from the moment that the nick is theirs. */
  readonly users: Map<string, User>;
  /** By folded name. One that nobody is in does not exist. */
  readonly channels: Map<string, Channel>;
  /** Who is registered, now and at most. */
  registered: number;
  mostRegistered: number;
}

export function createChat(options: ChatOptions): Chat {
  return {
    options,
    startedMs: options.nowMs(),
    connected: new Set(),
    users: new Map(),
    channels: new Map(),
    registered: 0,
    mostRegistered: 0,
  };
}

/** An IPv4 address that came through an IPv6 socket as itself; an IPv6 address so that it is no last parameter. */
const hostOf = (address: string) => address.replace(/^::ffff:(?=\d+\.)/i, "").replace(/^:/, "0:");

/** A new connection, about which nothing is known but its address. */
export function connectUser(chat: Chat, address: string, link: Link): User {
  const nowMs = chat.options.nowMs();
  const user: User = {
    link,
    host: hostOf(address),
    nick: "",
    username: "",
    realName: "",
    password: "",
    negotiating: false,
    registered: false,
    gone: false,
    invisible: false,
    away: undefined,
    channels: new Set(),
    signedOnMs: nowMs,
    spokeMs: nowMs,
  };
  chat.connected.add(user);
  return user;
}

export const sourceOf = (user: User) => `${user.nick}!${user.username}@${user.host}`;
export const seconds = (timeMs: number) => String(Math.floor(timeMs / 1000));
/** A registered user; one who has only chosen a nick is not there yet. */
export function findUser(chat: Chat, nick: string): User | undefined {
  const user = chat.users.get(fold(nick));
  return user?.registered ? user : undefined;
}
export const findChannel = (chat: Chat, name: string) => chat.channels.get(fold(name));

/** A numbered reply; `text` where the number has none of its own. */
export function reply(
  chat: Chat,
  user: User,
  numeric: Numeric,
  params: readonly string[] = [],
  text?: string,
): void {
  const [code, usualText] = NUMERICS[numeric] as readonly [string, string?];
  const ending = text ?? usualText;
  const line = formatLine(chat.options.name, code, user.nick || "*", ...params);
  user.link.send(ending === undefined ? line : withText(line, ending));
}

/** A list as replies of as many items as a line holds. */
export function replyList(
  chat: Chat,
  user: User,
  numeric: Numeric,
  params: readonly string[],
  items: readonly string[],
): void {
  const head = formatLine(chat.options.name, NUMERICS[numeric][0], user.nick || "*", ...params);
  let text = "";
  for (const item of items) {
    if (text !== "" && head.length + text.length + item.length + " : \r\n".length > MAX_LINE_BYTES) {
      reply(chat, user, numeric, params, text);
      text = "";
    }
    text += text === "" ? item : ` ${item}`;
  }
  if (text !== "") reply(chat, user, numeric, params, text);
}

/** To everybody in the channel; `except` is the one who said it. */
export function tellChannel(channel: Channel, line: string, except?: User): void {
  for (const user of channel.members.keys()) if (user !== except) user.link.send(line);
}

/** Once to everybody who is in a channel with the user, without the user. */
export function tellNeighbours(user: User, line: string): void {
  const told = new Set<User>([user]);
  for (const channel of user.channels) {
    for (const other of channel.members.keys()) {
      if (told.has(other)) continue;
      told.add(other);
      other.link.send(line);
    }
  }
}

/** Takes the user out of the channel, which ends with its last member. */
export function leave(chat: Chat, user: User, channel: Channel): void {
  channel.members.delete(user);
  user.channels.delete(channel);
  if (channel.members.size === 0) chat.channels.delete(fold(channel.name));
}

/** The end of a user, for whatever reason: the others hear of it, the user gets ERROR, and the link is closed. */
export function quit(chat: Chat, user: User, reason: string): void {
  if (user.gone) return;
  if (user.registered) tellNeighbours(user, formatLine(sourceOf(user), "QUIT", reason));
  forget(chat, user, reason);
}

function forget(chat: Chat, user: User, reason: string): void {
  user.gone = true;
  for (const channel of user.channels) leave(chat, user, channel);
  for (const channel of chat.channels.values()) channel.invited.delete(user);
  if (user.nick !== "") chat.users.delete(fold(user.nick));
  if (user.registered) chat.registered--;
  chat.connected.delete(user);
  user.link.send(formatLine("", "ERROR", `Closing Link: ${user.host} (${reason})`));
  user.link.close();
}

/** The end of everybody. Nobody hears of the others' ends: there is nobody left to whom they matter. */
export function shutDown(chat: Chat, reason: string): void {
  chat.channels.clear();
  for (const user of chat.connected) {
    user.channels.clear();
    forget(chat, user, reason);
  }
}
