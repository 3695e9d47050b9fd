/** How a connection becomes a user and stays one: PASS, CAP, NICK, USER, PING, PONG, QUIT. */
import type { Command } from "./commands.ts";
import { NETWORK, supported, VERSION } from "./isupport.ts";
import { CHANNEL_MODES, USER_MODES } from "./modes.ts";
import { fold, formatLine, isNick, LIMITS, shown } from "./protocol.ts";
import { motd, userCounts } from "./query-commands.ts";
import { type Chat, quit, reply, sourceOf, tellNeighbours, type User } from "./state.ts";

/** Registers the user once NICK and USER have been said and no negotiation is open. */
function registerIfComplete(chat: Chat, user: User): void {
  if (user.registered || user.negotiating || user.nick === "" || user.username === "") return;
  const { password, name } = chat.options;
  if (password !== undefined && user.password !== password) {
    reply(chat, user, "ERR_PASSWDMISMATCH");
    return quit(chat, user, "Bad password");
  }
  user.registered = true;
  chat.mostRegistered = Math.max(chat.mostRegistered, ++chat.registered);
  reply(chat, user, "RPL_WELCOME", [], `Welcome to the ${NETWORK} network, ${sourceOf(user)}`);
  reply(chat, user, "RPL_YOURHOST", [], `Your host is ${name}, running version ${VERSION}`);
  reply(chat, user, "RPL_CREATED", [], `This server was created ${new Date(chat.startedMs).toUTCString()}`);
  reply(chat, user, "RPL_MYINFO", [name, VERSION, USER_MODES, CHANNEL_MODES]);
  supported(chat, user);
  userCounts(chat, user);
  motd(chat, user);
}

function setNick(chat: Chat, user: User, nick: string): void {
  if (!isNick(nick)) return reply(chat, user, "ERR_ERRONEUSNICKNAME", [shown(nick)]);
  const owner = chat.users.get(fold(nick));
  if (owner !== undefined && owner !== user) return reply(chat, user, "ERR_NICKNAMEINUSE", [nick]);
  if (nick === user.nick) return;
  if (user.registered) {
    const line = formatLine(sourceOf(user), "NICK", nick);
    user.link.send(line);
    tellNeighbours(user, line);
  }
  if (user.nick !== "") chat.users.delete(fold(user.nick));
  user.nick = nick;
  chat.users.set(fold(nick), user);
  registerIfComplete(chat, user);
}

function capabilities(chat: Chat, user: User, [subcommand = "", list = ""]: readonly string[]): void {
  const answer = (...params: string[]) =>
    user.link.send(formatLine(chat.options.name, "CAP", user.nick || "*", ...params));
  switch (subcommand.toUpperCase()) {
    case "LS":
      user.negotiating = !user.registered;
      return answer("LS", "");
    case "LIST":
      return answer("LIST", "");
    case "REQ":
      user.negotiating = !user.registered;
      return answer("NAK", list); // none is offered, so none can be had
    case "END":
      user.negotiating = false;
      return registerIfComplete(chat, user);
    default:
      return reply(chat, user, "ERR_INVALIDCAPCMD", [shown(subcommand)]);
  }
}

export const REGISTRATION_COMMANDS: Record<string, Command> = {
  PASS: {
    needs: 1,
    anytime: true,
    run(chat, user, [password = ""]) {
      if (user.registered) return reply(chat, user, "ERR_ALREADYREGISTERED");
      user.password = password;
    },
  },
  CAP: { needs: 1, anytime: true, run: capabilities },
  NICK: {
    anytime: true,
    run(chat, user, [nick = ""]) {
      if (nick === "") return reply(chat, user, "ERR_NONICKNAMEGIVEN");
      setNick(chat, user, nick);
    },
  },
  USER: {
    needs: 4,
    anytime: true,
    run(chat, user, [username = "", , , realName = ""]) {
      if (user.registered) return reply(chat, user, "ERR_ALREADYREGISTERED");
      // The tilde says that nobody has checked the name; what could be read as part of an address goes.
      user.username = `~${username.replace(/[^A-Za-z0-9._-]/g, "").slice(0, LIMITS.user - 1)}`;
      user.realName = realName;
      registerIfComplete(chat, user);
    },
  },
  PING: {
    anytime: true,
    run(chat, user, [token]) {
      if (token === undefined) return reply(chat, user, "ERR_NOORIGIN");
      const { name } = chat.options;
      user.link.send(formatLine(name, "PONG", name, token));
    },
  },
  PONG: { anytime: true, run() {} }, // that something came is what counts, and the connection has seen it
  QUIT: {
    anytime: true,
    run(chat, user, [reason = ""]) {
      quit(chat, user, reason === "" ? "Quit" : `Quit: ${reason}`);
    },
  },
};
