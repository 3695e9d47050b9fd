/** What the server tells its clients about itself (RPL_ISUPPORT): nothing but what holds. */
import { CHANMODES } from "./modes.ts";
import { LIMITS } from "./protocol.ts";
import { type Chat, reply, type User } from "./state.ts";

export const VERSION = "netlab-chat-1";
export const NETWORK = "netlab";

const SUPPORTED = [
  `NETWORK=${NETWORK}`,
  "CASEMAPPING=rfc1459",
  "CHANTYPES=#",
  "PREFIX=(o)@",
  `CHANMODES=${CHANMODES}`,
  `CHANLIMIT=#:${LIMITS.channels}`,
  `MODES=${LIMITS.modes}`,
  `MAXLIST=b:${LIMITS.bans}`,
  `NICKLEN=${LIMITS.nick}`,
  `USERLEN=${LIMITS.user}`,
  `CHANNELLEN=${LIMITS.channel}`,
  `TOPICLEN=${LIMITS.topic}`,
  `KICKLEN=${LIMITS.kick}`,
  `AWAYLEN=${LIMITS.away}`,
  `KEYLEN=${LIMITS.key}`,
  `TARGMAX=PRIVMSG:${LIMITS.targets},NOTICE:${LIMITS.targets},KICK:${LIMITS.targets},JOIN:,PART:,NAMES:,LIST:,WHOIS:1`,
];
/** Thirteen to a line, since a line has fifteen parameters. */
const SUPPORTED_PER_LINE = 13;

export function supported(chat: Chat, user: User): void {
  for (let at = 0; at < SUPPORTED.length; at += SUPPORTED_PER_LINE)
    reply(chat, user, "RPL_ISUPPORT", SUPPORTED.slice(at, at + SUPPORTED_PER_LINE));
}
