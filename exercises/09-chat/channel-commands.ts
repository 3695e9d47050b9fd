/** Channels: JOIN, PART, KICK, INVITE, TOPIC, NAMES, LIST; MODE is in `mode-command.ts`. */
import { type Channel, createChannel, isOperator, isVisible, prefixOf, whyNotJoin } from "./channel.ts";
import type { Command } from "./commands.ts";
import { MODE } from "./mode-command.ts";
import { fold, formatLine, isChannel, LIMITS, listOf, namesOf, shown } from "./protocol.ts";
import {
  type Chat,
  findChannel,
  findUser,
  leave,
  reply,
  replyList,
  seconds,
  sourceOf,
  tellChannel,
  type User,
} from "./state.ts";

function join(chat: Chat, user: User, name: string, key: string | undefined): void {
  if (!isChannel(name)) return reply(chat, user, "ERR_BADCHANMASK", [shown(name)]);
  let channel = findChannel(chat, name);
  if (channel?.members.has(user)) return;
  if (user.channels.size >= LIMITS.channels) return reply(chat, user, "ERR_TOOMANYCHANNELS", [name]);
  const refusal = channel && whyNotJoin(channel, user, key);
  if (refusal !== undefined) return reply(chat, user, refusal, [channel?.name ?? name]);
  if (channel === undefined) {
    channel = createChannel(name, chat.options.nowMs());
    chat.channels.set(fold(name), channel);
  }
  channel.members.set(user, channel.members.size === 0);
  channel.invited.delete(user);
  user.channels.add(channel);
  tellChannel(channel, formatLine(sourceOf(user), "JOIN", channel.name));
  if (channel.topic !== undefined) showTopic(chat, user, channel);
  names(chat, user, channel);
}

function part(chat: Chat, user: User, channel: Channel, reason: string | undefined): void {
  const words = reason === undefined ? [] : [reason];
  tellChannel(channel, formatLine(sourceOf(user), "PART", channel.name, ...words));
  leave(chat, user, channel);
}

/** The channel of that name if the user is in it; else the user is told why not. */
function ownChannel(chat: Chat, user: User, name: string): Channel | undefined {
  const channel = findChannel(chat, name);
  if (channel?.members.has(user)) return channel;
  reply(chat, user, channel ? "ERR_NOTONCHANNEL" : "ERR_NOSUCHCHANNEL", [channel?.name ?? shown(name)]);
  return undefined;
}

function showTopic(chat: Chat, user: User, { name, topic }: Channel): void {
  if (topic === undefined) return reply(chat, user, "RPL_NOTOPIC", [name]);
  reply(chat, user, "RPL_TOPIC", [name], topic.text);
  reply(chat, user, "RPL_TOPICWHOTIME", [name, topic.by, seconds(topic.atMs)]);
}

function names(chat: Chat, user: User, channel: Channel): void {
  const members = [...channel.members.keys()].filter((member) => isVisible(channel, member, user));
  const nicks = members.map((member) => prefixOf(channel, member) + member.nick);
  replyList(chat, user, "RPL_NAMREPLY", ["=", channel.name], nicks);
  reply(chat, user, "RPL_ENDOFNAMES", [channel.name]);
}

function topic(chat: Chat, user: User, [name = "", text]: readonly string[]): void {
  const channel = ownChannel(chat, user, name);
  if (channel === undefined) return;
  if (text === undefined) return showTopic(chat, user, channel);
  if (channel.topicLocked && !isOperator(channel, user))
    return reply(chat, user, "ERR_CHANOPRIVSNEEDED", [channel.name]);
  const cut = text.slice(0, LIMITS.topic);
  channel.topic = cut === "" ? undefined : { text: cut, by: sourceOf(user), atMs: chat.options.nowMs() };
  tellChannel(channel, formatLine(sourceOf(user), "TOPIC", channel.name, cut));
}

function kick(chat: Chat, user: User, [name = "", nicks, reason = ""]: readonly string[]): void {
  const channel = ownChannel(chat, user, name);
  if (channel === undefined) return;
  if (!isOperator(channel, user)) return reply(chat, user, "ERR_CHANOPRIVSNEEDED", [channel.name]);
  for (const nick of listOf(nicks).slice(0, LIMITS.targets)) {
    const other = findUser(chat, nick);
    if (other === undefined || !channel.members.has(other)) {
      const numeric = other === undefined ? "ERR_NOSUCHNICK" : "ERR_USERNOTINCHANNEL";
      reply(chat, user, numeric, other === undefined ? [shown(nick)] : [other.nick, channel.name]);
      continue;
    }
    const words = (reason || user.nick).slice(0, LIMITS.kick);
    tellChannel(channel, formatLine(sourceOf(user), "KICK", channel.name, other.nick, words));
    leave(chat, other, channel);
  }
}

function invite(chat: Chat, user: User, [nick = "", name = ""]: readonly string[]): void {
  const other = findUser(chat, nick);
  if (other === undefined) return reply(chat, user, "ERR_NOSUCHNICK", [shown(nick)]);
  const channel = ownChannel(chat, user, name);
  if (channel === undefined) return;
  if (channel.inviteOnly && !isOperator(channel, user))
    return reply(chat, user, "ERR_CHANOPRIVSNEEDED", [channel.name]);
  if (channel.members.has(other)) return reply(chat, user, "ERR_USERONCHANNEL", [other.nick, channel.name]);
  // From anybody else it is only a message: a ban, a limit or a later +i is for operators to lift.
  if (isOperator(channel, user)) channel.invited.add(other);
  reply(chat, user, "RPL_INVITING", [other.nick, channel.name]);
  other.link.send(formatLine(sourceOf(user), "INVITE", other.nick, channel.name));
  if (other.away !== undefined) reply(chat, user, "RPL_AWAY", [other.nick], other.away);
}

function list(chat: Chat, user: User, [wanted]: readonly string[]): void {
  const channels =
    wanted === undefined
      ? [...chat.channels.values()]
      : namesOf(wanted).flatMap((name) => findChannel(chat, name) ?? []);
  reply(chat, user, "RPL_LISTSTART", ["Channel"]);
  for (const channel of channels) {
    const size = [...channel.members.keys()].filter((member) => isVisible(channel, member, user)).length;
    reply(chat, user, "RPL_LIST", [channel.name, String(size)], channel.topic?.text ?? "");
  }
  reply(chat, user, "RPL_LISTEND");
}

export const CHANNEL_COMMANDS: Record<string, Command> = {
  JOIN: {
    needs: 1,
    run(chat, user, [channels = "", keys = ""]) {
      if (channels === "0") for (const channel of [...user.channels]) part(chat, user, channel, undefined);
      else {
        const keyList = keys.split(",");
        for (const [i, name] of listOf(channels).entries()) join(chat, user, name, keyList[i]);
      }
    },
  },
  PART: {
    needs: 1,
    run(chat, user, [channels, reason]) {
      for (const name of listOf(channels)) {
        const channel = ownChannel(chat, user, name);
        if (channel !== undefined) part(chat, user, channel, reason);
      }
    },
  },
  NAMES: {
    run(chat, user, [channels]) {
      if (channels === undefined) return reply(chat, user, "RPL_ENDOFNAMES", ["*"]);
      for (const name of namesOf(channels)) {
        const channel = findChannel(chat, name);
        if (channel === undefined) reply(chat, user, "RPL_ENDOFNAMES", [shown(name)]);
        else names(chat, user, channel);
      }
    },
  },
  TOPIC: { needs: 1, run: topic },
  KICK: { needs: 2, run: kick },
  INVITE: { needs: 2, run: invite },
  LIST: { run: list },
  MODE,
};
