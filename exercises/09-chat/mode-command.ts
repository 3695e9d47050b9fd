/** MODE: what a channel or a user is set to, and changes of it. */
import { type Channel, isOperator } from "./channel.ts";
import type { Command } from "./commands.ts";
import { formatModes, type ModeChange, parseModes, USER_MODES } from "./modes.ts";
import {
  completeMask,
  fold,
  formatLine,
  isChannelLike,
  isKey,
  LIMITS,
  MAX_LINE_BYTES,
  shown,
} from "./protocol.ts";
import {
  type Chat,
  findChannel,
  findUser,
  reply,
  seconds,
  sourceOf,
  tellChannel,
  type User,
} from "./state.ts";

const FLAGS = { i: "inviteOnly", n: "membersOnly", t: "topicLocked" } as const;
const isFlag = (letter: string): letter is keyof typeof FLAGS => letter in FLAGS;

function showChannelModes(chat: Chat, user: User, channel: Channel): void {
  const changes: ModeChange[] = [];
  for (const [letter, name] of Object.entries(FLAGS)) if (channel[name]) changes.push({ letter, set: true });
  const isMember = channel.members.has(user);
  const { key, limit } = channel;
  if (limit !== undefined) changes.push({ letter: "l", set: true, parameter: String(limit) });
  if (key !== undefined) changes.push({ letter: "k", set: true, parameter: isMember ? key : "*" });
  const modes = changes.length === 0 ? ["+"] : formatModes(changes);
  reply(chat, user, "RPL_CHANNELMODEIS", [channel.name, ...modes]);
  reply(chat, user, "RPL_CREATIONTIME", [channel.name, seconds(channel.createdMs)]);
}

function showBans(chat: Chat, user: User, channel: Channel): void {
  for (const { mask, by, atMs } of channel.bans)
    reply(chat, user, "RPL_BANLIST", [channel.name, mask, by, seconds(atMs)]);
  reply(chat, user, "RPL_ENDOFBANLIST", [channel.name]);
}

function changeChannel(chat: Chat, user: User, channel: Channel, changes: readonly ModeChange[]): void {
  const isAllowed = isOperator(channel, user);
  const done: ModeChange[] = [];
  let withParameter = 0;
  let refused = false;
  let isShown = false;
  for (const change of changes) {
    if (change.letter === "b" && !change.parameter) {
      if (!isShown) showBans(chat, user, channel); // anybody may look, once: a line has room for 500 b's
      isShown = true;
      continue;
    }
    if (!isAllowed) {
      if (!refused) reply(chat, user, "ERR_CHANOPRIVSNEEDED", [channel.name]);
      refused = true;
      continue;
    }
    if (change.parameter !== undefined && ++withParameter > LIMITS.modes) continue;
    const effect = applyChange(chat, user, channel, change);
    if (effect !== undefined) done.push(effect);
  }
  tellChanges(user, channel, done);
}

/** In two lines where one has no room: a mask that is cut would be another one. */
function tellChanges(user: User, channel: Channel, done: readonly ModeChange[]): void {
  if (done.length === 0) return;
  const source = sourceOf(user);
  const modes = formatModes(done);
  const sizeBytes = `:${source} MODE ${channel.name} ${modes.join(" ")}\r\n`.length;
  if (sizeBytes > MAX_LINE_BYTES && done.length > 1) {
    const half = Math.ceil(done.length / 2);
    tellChanges(user, channel, done.slice(0, half));
    tellChanges(user, channel, done.slice(half));
  } else tellChannel(channel, formatLine(source, "MODE", channel.name, ...modes));
}

/** Does it and says what was done, which is nothing where it was so already or cannot be. */
function applyChange(chat: Chat, user: User, channel: Channel, change: ModeChange): ModeChange | undefined {
  const { letter, set, parameter } = change;
  if (isFlag(letter)) {
    if (channel[FLAGS[letter]] === set) return undefined;
    channel[FLAGS[letter]] = set;
    return change;
  }
  switch (letter) {
    case "l":
      return setLimit(chat, user, channel, change);
    case "k":
      return setKey(chat, user, channel, change);
    case "b":
      return setBan(chat, user, channel, set, completeMask(parameter ?? ""));
    case "o":
      return parameter === undefined ? undefined : setOperator(chat, user, channel, set, parameter);
    default:
      reply(chat, user, "ERR_UNKNOWNMODE", [shown(letter)]);
      return undefined;
  }
}

function setLimit(
  chat: Chat,
  user: User,
  channel: Channel,
  { set, parameter }: ModeChange,
): ModeChange | undefined {
  if (!set) {
    if (channel.limit === undefined) return undefined;
    channel.limit = undefined;
    return { letter: "l", set };
  }
  if (parameter === undefined) return undefined;
  const limit = /^\d{1,9}$/.test(parameter) ? Number(parameter) : 0;
  if (limit === 0) {
    reply(
      chat,
      user,
      "ERR_INVALIDMODEPARAM",
      [channel.name, "l", shown(parameter)],
      "Not a number from 1 up",
    );
    return undefined;
  }
  if (limit === channel.limit) return undefined;
  channel.limit = limit;
  return { letter: "l", set, parameter: String(limit) };
}

function setKey(
  chat: Chat,
  user: User,
  channel: Channel,
  { set, parameter }: ModeChange,
): ModeChange | undefined {
  if (!set) {
    if (channel.key === undefined) return undefined;
    channel.key = undefined;
    return { letter: "k", set, parameter: "*" };
  }
  if (parameter === undefined) return undefined;
  if (!isKey(parameter)) {
    reply(chat, user, "ERR_INVALIDKEY", [channel.name]);
    return undefined;
  }
  if (parameter === channel.key) return undefined;
  channel.key = parameter;
  return { letter: "k", set, parameter };
}

function setBan(
  chat: Chat,
  user: User,
  channel: Channel,
  set: boolean,
  mask: string,
): ModeChange | undefined {
  const parameter = mask.replace(/[ ,]|^:/g, "?").slice(0, 150);
  const index = channel.bans.findIndex((ban) => fold(ban.mask) === fold(parameter));
  if (set === index >= 0) return undefined;
  if (!set) channel.bans.splice(index, 1);
  else if (channel.bans.length >= LIMITS.bans) {
    reply(chat, user, "ERR_BANLISTFULL", [channel.name, "b"]);
    return undefined;
  } else channel.bans.push({ mask: parameter, by: sourceOf(user), atMs: chat.options.nowMs() });
  return { letter: "b", set, parameter };
}

function setOperator(
  chat: Chat,
  user: User,
  channel: Channel,
  set: boolean,
  nick: string,
): ModeChange | undefined {
  const other = findUser(chat, nick);
  if (other === undefined || !channel.members.has(other)) {
    if (other === undefined) reply(chat, user, "ERR_NOSUCHNICK", [shown(nick)]);
    else reply(chat, user, "ERR_USERNOTINCHANNEL", [other.nick, channel.name]);
    return undefined;
  }
  if (isOperator(channel, other) === set) return undefined;
  channel.members.set(other, set);
  return { letter: "o", set, parameter: other.nick };
}

/** A user may only be asked about and changed by itself. */
function userMode(chat: Chat, user: User, nick: string, text: string | undefined): void {
  const other = findUser(chat, nick);
  if (other === undefined) return reply(chat, user, "ERR_NOSUCHNICK", [shown(nick)]);
  if (other !== user) return reply(chat, user, "ERR_USERSDONTMATCH");
  if (text === undefined) return reply(chat, user, "RPL_UMODEIS", [user.invisible ? "+i" : "+"]);
  const changes = parseModes(text, []);
  const last = changes.findLast(({ letter }) => letter === "i");
  if (last !== undefined && last.set !== user.invisible) {
    user.invisible = last.set;
    user.link.send(formatLine(sourceOf(user), "MODE", user.nick, ...formatModes([last])));
  }
  if (changes.some(({ letter }) => !USER_MODES.includes(letter))) reply(chat, user, "ERR_UMODEUNKNOWNFLAG");
}

export const MODE: Command = {
  needs: 1,
  run(chat, user, [target = "", text, ...parameters]) {
    if (!isChannelLike(target)) return userMode(chat, user, target, text);
    const channel = findChannel(chat, target);
    if (channel === undefined) return reply(chat, user, "ERR_NOSUCHCHANNEL", [shown(target)]);
    if (text === undefined) return showChannelModes(chat, user, channel);
    changeChannel(chat, user, channel, parseModes(text, parameters));
  },
};
