/** A channel: who is in it, what it is set to, who may come in and who may speak. */
import { fold, matchesMask } from "./protocol.ts";
import { sourceOf, type User } from "./state.ts";

interface Ban {
  /** `nick!user@host`, with `*` and `?`. */
  mask: string;
  by: string;
  atMs: number;
}

export interface Channel {
  /** As its first member has written it. */
  readonly name: string;
  readonly createdMs: number;
  /** Is the member an operator? */
  readonly members: Map<User, boolean>;
  /** Who may come in once although it is for invited ones only. */
  readonly invited: Set<User>;
  readonly bans: Ban[];
  topic: { text: string; by: string; atMs: number } | undefined;
  /** +i: for invited ones only. */
  inviteOnly: boolean;
  /** +n: only members may speak. */
  membersOnly: boolean;
  /** +t: only operators may set the topic. */
  topicLocked: boolean;
  /** +k */
  key: string | undefined;
  /** +l */
  limit: number | undefined;
}

/** As most servers have it, a new channel is closed to speakers from outside (+n), and its topic is locked (+t). */
export function createChannel(name: string, nowMs: number): Channel {
  return {
    name,
    createdMs: nowMs,
    members: new Map(),
    invited: new Set(),
    bans: [],
    topic: undefined,
    inviteOnly: false,
    membersOnly: true,
    topicLocked: true,
    key: undefined,
    limit: undefined,
  };
}

export const isOperator = (channel: Channel, user: User) => channel.members.get(user) === true;
/** A member's nick as NAMES and WHOIS show it. */
export const prefixOf = (channel: Channel, user: User) => (isOperator(channel, user) ? "@" : "");

function isBanned(channel: Channel, user: User): boolean {
  if (channel.bans.length === 0) return false;
  const source = fold(sourceOf(user));
  return channel.bans.some(({ mask }) => matchesMask(fold(mask), source));
}

/** Why the user may not come in, or undefined. An invitation opens all but a wrong key. */
export function whyNotJoin(
  channel: Channel,
  user: User,
  key: string | undefined,
): "ERR_BADCHANNELKEY" | "ERR_INVITEONLYCHAN" | "ERR_BANNEDFROMCHAN" | "ERR_CHANNELISFULL" | undefined {
  if (channel.key !== undefined && key !== channel.key) return "ERR_BADCHANNELKEY";
  if (channel.invited.has(user)) return undefined;
  if (channel.inviteOnly) return "ERR_INVITEONLYCHAN";
  if (isBanned(channel, user)) return "ERR_BANNEDFROMCHAN";
  if (channel.limit !== undefined && channel.members.size >= channel.limit) return "ERR_CHANNELISFULL";
  return undefined;
}

/** Operators may always; a ban silences a member too. */
export function maySpeak(channel: Channel, user: User): boolean {
  const operator = channel.members.get(user);
  if (operator === true) return true;
  if (operator === undefined && channel.membersOnly) return false;
  return !isBanned(channel, user);
}

/** May the user see that the other one is in the channel? */
export const isVisible = (channel: Channel, member: User, to: User) =>
  !member.invisible || member === to || channel.members.has(to);
