/** What a line of a client does: finds its command, and refuses what nobody needs to run to know that it is wrong. */
import { CHANNEL_COMMANDS } from "./channel-commands.ts";
import { MESSAGE_COMMANDS } from "./message-commands.ts";
import { parseLine } from "./protocol.ts";
import { QUERY_COMMANDS } from "./query-commands.ts";
import { REGISTRATION_COMMANDS } from "./registration-commands.ts";
import { type Chat, reply, type User } from "./state.ts";

export interface Command {
  /** Parameters that it needs at least: fewer are ERR_NEEDMOREPARAMS. */
  needs?: number;
  /** Also from one who is not registered yet. */
  anytime?: true;
  run(chat: Chat, user: User, params: readonly string[]): void;
}

const COMMANDS = new Map<string, Command>(
  Object.entries({
    ...REGISTRATION_COMMANDS,
    ...CHANNEL_COMMANDS,
    ...MESSAGE_COMMANDS,
    ...QUERY_COMMANDS,
  }),
);

/** Runs a line, given without its end. Who speaks is known by the connection: a source in the line counts nothing. */
export function runLine(chat: Chat, user: User, line: string): void {
  const message = parseLine(line);
  if (message === undefined || user.gone) return;
  const command = COMMANDS.get(message.command);
  if (!user.registered && command?.anytime !== true) return reply(chat, user, "ERR_NOTREGISTERED");
  if (command === undefined) return reply(chat, user, "ERR_UNKNOWNCOMMAND", [message.command.slice(0, 50)]);
  if (message.params.length < (command.needs ?? 0))
    return reply(chat, user, "ERR_NEEDMOREPARAMS", [message.command]);
  command.run(chat, user, message.params);
}
