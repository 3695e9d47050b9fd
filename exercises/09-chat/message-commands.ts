/** What is said to others, and what they hear when one is away: PRIVMSG, NOTICE, AWAY. */
import { maySpeak } from "./channel.ts";
import type { Command } from "./commands.ts";
import type { Numeric } from "./numerics.ts";
import { formatLine, isChannelLike, LIMITS, namesOf, shown } from "./protocol.ts";
import { type Chat, findChannel, findUser, reply, sourceOf, tellChannel, type User } from "./state.ts";

/** Passes a text on. Nobody ever hears why a NOTICE did not arrive: two programs could answer each other for ever. */
function say(chat: Chat, user: User, command: "PRIVMSG" | "NOTICE", params: readonly string[]): void {
  const refuse = (numeric: Numeric, params: readonly string[] = [], text?: string) => {
    if (command === "PRIVMSG") reply(chat, user, numeric, params, text);
  };
  const [list, text = ""] = params;
  const targets = namesOf(list); // who is named twice hears it once
  if (targets.length === 0) return refuse("ERR_NORECIPIENT", [], `No recipient given (${command})`);
  if (text === "") return refuse("ERR_NOTEXTTOSEND");
  if (targets.length > LIMITS.targets) return refuse("ERR_TOOMANYTARGETS", [shown(list ?? "")]);
  user.spokeMs = chat.options.nowMs();
  for (const target of targets) {
    if (isChannelLike(target)) sayToChannel(chat, user, command, target, text, refuse);
    else sayToUser(chat, user, command, target, text, refuse);
  }
}

type Refuse = (numeric: Numeric, params: readonly string[]) => void;

function sayToChannel(
  chat: Chat,
  user: User,
  command: string,
  target: string,
  text: string,
  refuse: Refuse,
): void {
  const channel = findChannel(chat, target);
  if (channel === undefined) return refuse("ERR_NOSUCHCHANNEL", [shown(target)]);
  if (!maySpeak(channel, user)) return refuse("ERR_CANNOTSENDTOCHAN", [channel.name]);
  tellChannel(channel, formatLine(sourceOf(user), command, channel.name, text), user);
}

function sayToUser(
  chat: Chat,
  user: User,
  command: string,
  target: string,
  text: string,
  refuse: Refuse,
): void {
  const other = findUser(chat, target);
  if (other === undefined) return refuse("ERR_NOSUCHNICK", [shown(target)]);
  other.link.send(formatLine(sourceOf(user), command, other.nick, text));
  if (other.away !== undefined && command === "PRIVMSG")
    reply(chat, user, "RPL_AWAY", [other.nick], other.away);
}

export const MESSAGE_COMMANDS: Record<string, Command> = {
  PRIVMSG: { run: (chat, user, params) => say(chat, user, "PRIVMSG", params) },
  NOTICE: { run: (chat, user, params) => say(chat, user, "NOTICE", params) },
  AWAY: {
    run(chat, user, [text = ""]) {
      user.away = text === "" ? undefined : text.slice(0, LIMITS.away);
      reply(chat, user, user.away === undefined ? "RPL_UNAWAY" : "RPL_NOWAWAY");
    },
  },
};
