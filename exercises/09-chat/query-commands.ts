/** Questions about the server and who is on it: WHO, WHOIS, ISON, USERHOST, LUSERS, MOTD, VERSION. */
import { isVisible, prefixOf } from "./channel.ts";
import type { Command } from "./commands.ts";
import { supported, VERSION } from "./isupport.ts";
import { fold, listOf, matchesMask, shown } from "./protocol.ts";
import { type Chat, findChannel, findUser, reply, replyList, seconds, sourceOf, type User } from "./state.ts";

const ABOUT = "netlab's chat, a server for lessons";
/** USERHOST answers about so many (RFC 2812 §4.8). */
const MAX_USERHOSTS = 5;

export function userCounts(chat: Chat, user: User): void {
  const all = [...chat.users.values()].filter(({ registered }) => registered);
  const invisible = all.filter((one) => one.invisible).length;
  const [now, most] = [chat.registered, chat.mostRegistered];
  const unknown = chat.connected.size - now;
  const visible = all.length - invisible;
  reply(
    chat,
    user,
    "RPL_LUSERCLIENT",
    [],
    `There are ${visible} users and ${invisible} invisible on 1 servers`,
  );
  reply(chat, user, "RPL_LUSEROP", ["0"]);
  if (unknown > 0) reply(chat, user, "RPL_LUSERUNKNOWN", [String(unknown)]);
  if (chat.channels.size > 0) reply(chat, user, "RPL_LUSERCHANNELS", [String(chat.channels.size)]);
  reply(chat, user, "RPL_LUSERME", [], `I have ${now} clients and 0 servers`);
  reply(chat, user, "RPL_LOCALUSERS", [String(now), String(most)], `Current local users ${now}, max ${most}`);
  reply(
    chat,
    user,
    "RPL_GLOBALUSERS",
    [String(now), String(most)],
    `Current global users ${now}, max ${most}`,
  );
}

export function motd(chat: Chat, user: User): void {
  const { motd, name } = chat.options;
  if (motd === undefined) return reply(chat, user, "ERR_NOMOTD");
  reply(chat, user, "RPL_MOTDSTART", [], `- ${name} Message of the day - `);
  for (const line of motd) reply(chat, user, "RPL_MOTD", [], `- ${line}`);
  reply(chat, user, "RPL_ENDOFMOTD");
}

/** Runs an answer about the server if it is this one that is asked about: there is no other. */
const aboutServer = (answer: (chat: Chat, user: User) => void): Command => ({
  run(chat, user, [target]) {
    const isThis = target === undefined || matchesMask(fold(target), fold(chat.options.name));
    if (isThis || findUser(chat, target)) answer(chat, user);
    else reply(chat, user, "ERR_NOSUCHSERVER", [shown(target)]);
  },
});

const sharesChannel = (user: User, other: User) => {
  for (const channel of user.channels) if (channel.members.has(other)) return true;
  return false;
};

function whoReply(chat: Chat, user: User, other: User, channelName: string, prefix: string): void {
  const { username, host, nick, away, realName } = other;
  const flags = (away === undefined ? "H" : "G") + prefix;
  const params = [channelName, username, host, chat.options.name, nick, flags];
  reply(chat, user, "RPL_WHOREPLY", params, `0 ${realName}`);
}

/** A channel's members, or the users whose nick, name or host the mask fits. */
function who(chat: Chat, user: User, [mask = "*", only]: readonly string[]): void {
  const channel = findChannel(chat, mask);
  if (only === "o") {
    // operators of the server: there are none
  } else if (channel !== undefined) {
    for (const other of channel.members.keys())
      if (isVisible(channel, other, user))
        whoReply(chat, user, other, channel.name, prefixOf(channel, other));
  } else {
    const wanted = fold(mask === "0" ? "*" : mask);
    for (const other of chat.users.values())
      if (other.registered && isFoundBy(user, other, wanted)) whoReply(chat, user, other, "*", "");
  }
  reply(chat, user, "RPL_ENDOFWHO", [shown(mask)]);
}

/** An invisible user is found by its whole nick, or by those who share a channel with it. */
function isFoundBy(user: User, other: User, mask: string): boolean {
  if (fold(other.nick) === mask) return true;
  if (other.invisible && other !== user && !sharesChannel(user, other)) return false;
  return [other.nick, other.username, other.host].some((text) => matchesMask(mask, fold(text)));
}

/** The last parameter is the nick; one before it would say which server is to answer. */
function whois(chat: Chat, user: User, params: readonly string[]): void {
  const nick = listOf(params.at(-1))[0];
  if (nick === undefined) return reply(chat, user, "ERR_NONICKNAMEGIVEN");
  const other = findUser(chat, nick);
  if (other === undefined) {
    reply(chat, user, "ERR_NOSUCHNICK", [shown(nick)]);
    return reply(chat, user, "RPL_ENDOFWHOIS", [shown(nick)]);
  }
  reply(chat, user, "RPL_WHOISUSER", [other.nick, other.username, other.host, "*"], other.realName);
  const channels = [...other.channels].filter((channel) => isVisible(channel, other, user));
  const shownChannels = channels.map((channel) => prefixOf(channel, other) + channel.name);
  replyList(chat, user, "RPL_WHOISCHANNELS", [other.nick], shownChannels);
  reply(chat, user, "RPL_WHOISSERVER", [other.nick, chat.options.name], ABOUT);
  if (other.away !== undefined) reply(chat, user, "RPL_AWAY", [other.nick], other.away);
  const idle = seconds(chat.options.nowMs() - other.spokeMs);
  reply(chat, user, "RPL_WHOISIDLE", [other.nick, idle, seconds(other.signedOnMs)]);
  reply(chat, user, "RPL_ENDOFWHOIS", [other.nick]);
}

const userhostOf = (user: User) =>
  `${user.nick}=${user.away === undefined ? "+" : "-"}${sourceOf(user).slice(user.nick.length + 1)}`;

export const QUERY_COMMANDS: Record<string, Command> = {
  WHO: { run: who },
  WHOIS: { run: whois },
  ISON: {
    needs: 1,
    run(chat, user, params) {
      const nicks = params.flatMap((param) => param.split(" "));
      const found = nicks.flatMap((nick) => findUser(chat, nick)?.nick ?? []);
      reply(chat, user, "RPL_ISON", [], found.join(" "));
    },
  },
  USERHOST: {
    needs: 1,
    run(chat, user, nicks) {
      const found = nicks.slice(0, MAX_USERHOSTS).flatMap((nick) => findUser(chat, nick) ?? []);
      reply(chat, user, "RPL_USERHOST", [], found.map(userhostOf).join(" "));
    },
  },
  LUSERS: { run: userCounts },
  MOTD: aboutServer(motd),
  VERSION: aboutServer((chat, user) => {
    reply(chat, user, "RPL_VERSION", [VERSION, chat.options.name], ABOUT);
    supported(chat, user);
  }),
};
