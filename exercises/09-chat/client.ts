/** A chat client: a terminal for IRC, with direct calls (DCC CHAT). */
import { userInfo } from "node:os";
import { integer, optional, type Parse, port, setting } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { program, serverAt } from "../../shared/program.ts";
import { chatWith } from "./chat-client.ts";
import { CHAT_PORT, isNick, LIMITS, toWire } from "./protocol.ts";
import { Terminal } from "./terminal.ts";

const nick: Parse<string> = (value) => {
  if (isNick(value)) return value;
  throw new Failure(`is not a nick (a letter, then letters, digits and hyphens, at most ${LIMITS.nick})`);
};

/** What goes into a line must not end it. */
const line: Parse<string> = (value) => {
  if (!/[\r\n\0]/.test(value)) return toWire(value);
  throw new Failure("has more than one line");
};

/** The name at this machine, as far as a nick may be like it. */
function ownName(): string {
  const name = userInfo()
    .username.replace(/[^A-Za-z0-9-]/g, "")
    .slice(0, LIMITS.nick);
  return isNick(name) ? name : "somebody";
}

await program({
  summary: "A chat client for a terminal or a pipe (IRC); /help says what can be typed.",
  example: "--nick ana",
  settings: {
    ...serverAt(CHAT_PORT),
    nick: setting(nick, "your name in the chat", ownName()),
    realName: optional(line, "what WHOIS tells about you (default: the nick)"),
    password: optional(line, "the server's password"),
    callPort: setting(port, "port on which calls of yours wait (0 = any free one)", 0),
    ringTimeout: setting(integer(1, 3600), "seconds that a call waits for an answer", 120),
  },
  async run({ host, port, nick, realName, password, callPort, ringTimeout }, { signal }) {
    using terminal = new Terminal(() => void process.emit("SIGINT"));
    const options = {
      host,
      port,
      nick,
      realName: realName ?? nick,
      password,
      callPort,
      ringMs: ringTimeout * 1000,
      signal,
    };
    await chatWith(options, terminal);
  },
});
