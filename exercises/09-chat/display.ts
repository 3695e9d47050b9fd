/** What arrives, as a user reads it. Pure rules; nothing that a peer has written reaches the terminal but through `fromWire`. */
import { isUtf8 } from "node:buffer";
import { ctcpOf } from "./dcc.ts";
import { fold, isChannelLike, type Message } from "./protocol.ts";

const COLOUR = new RegExp(`${"\x03"}(?:\\d{1,2}(?:,\\d{1,2})?)?`, "g");
/** Control characters, which could move the cursor or worse, and what turns the direction of writing. */
const UNFIT = /[\p{Cc}\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;

/** The bytes of a line as a text that is fit for a terminal. What is no UTF-8 is taken for latin1. */
export function fromWire(bytes: string): string {
  const text = isUtf8(Buffer.from(bytes, "latin1")) ? Buffer.from(bytes, "latin1").toString() : bytes;
  return text.replace(COLOUR, "").replace(UNFIT, "");
}

/** The nick of `nick!user@host`. */
export const nickOf = (source: string) => source.split("!", 1)[0] ?? "";
/** The host of `nick!user@host`; empty for a server. */
export const hostOf = (source: string) => /@(.*)$/s.exec(source)?.[1] ?? "";

/** `[window] <nick> text`, or `[window] * nick text` for what somebody does. */
export function formatSaid(window: string, nick: string, text: string): string {
  const action = /^ACTION (.*)$/s.exec(ctcpOf(text) ?? "")?.[1];
  return fromWire(action === undefined ? `[${window}] <${nick}> ${text}` : `[${window}] * ${nick} ${action}`);
}

/** What the user knows already or has no use for: versions, limits, ends of lists. */
const QUIET = new Set(
  "002 003 004 005 252 253 255 265 266 315 318 321 323 329 333 366 368 375 376 422".split(" "),
);

/** The line for the user, or undefined where there is nothing to say. `me` is the user's nick. */
export function describeMessage(message: Message, me: string): string | undefined {
  const { command, params } = message;
  if (command === "PRIVMSG" || command === "NOTICE") return describeText(message, me);
  const event = describeEvent(message);
  if (event !== undefined) return fromWire(event);
  if (!/^\d{3}$/.test(command) || QUIET.has(command)) return undefined;
  return fromWire(describeNumeric(command, params.slice(1)));
}

function describeText(
  { source, command, params: [target = "", text = ""] }: Message,
  me: string,
): string | undefined {
  const nick = nickOf(source);
  const window = isChannelLike(target) ? target : fold(nick) === fold(me) ? target : nick;
  const isServer = !source.includes("!");
  const request = ctcpOf(text);
  if (request !== undefined && !request.startsWith("ACTION ")) {
    const word = request.split(" ", 1)[0];
    return fromWire(
      `[${window}] -- ${nick} sent a CTCP ${command === "NOTICE" ? "answer" : "request"}: ${word}`,
    );
  }
  if (isServer) return fromWire(`-- ${text}`);
  return command === "NOTICE" ? fromWire(`[${window}] -${nick}- ${text}`) : formatSaid(window, nick, text);
}

/** What happens to somebody, or to a channel. */
function describeEvent({ source, command, params }: Message): string | undefined {
  const nick = nickOf(source);
  const [first = "", second = "", third = ""] = params;
  const because = (reason: string) => (reason === "" ? "" : ` (${reason})`);
  switch (command) {
    case "JOIN":
      return `[${first}] --> ${nick} has joined`;
    case "PART":
      return `[${first}] <-- ${nick} has left${because(second)}`;
    case "QUIT":
      return `<-- ${nick} is gone${because(first)}`;
    case "KICK":
      return `[${first}] <-- ${second} was kicked by ${nick}${because(third)}`;
    case "NICK":
      return `-- ${nick} is now ${first}`;
    case "TOPIC":
      return `[${first}] -- ${nick} has set the topic: ${second}`;
    case "MODE":
      return `[${first}] -- ${nick} has set ${params.slice(1).join(" ")}`;
    case "INVITE":
      return `-- ${nick} invites ${first} to ${second}`;
    case "ERROR":
      return `-- the server: ${first}`;
    default:
      return undefined;
  }
}

/** `params` without the first, which is the user's own nick. */
function describeNumeric(command: string, params: readonly string[]): string {
  const [first = "", second = "", third = ""] = params;
  switch (command) {
    case "301":
      return `[${first}] -- ${first} is away: ${second}`;
    case "332":
      return `[${first}] -- topic: ${second}`;
    case "353":
      return `[${second}] -- here: ${third}`;
    case "352": {
      const [channel, user, host, , nick, flags] = params;
      return `-- ${nick} (${user}@${host}) ${channel} ${flags}${(params[6] ?? "").replace(/^\d+/, "")}`;
    }
    default:
      return `-- ${params.join(" ")}`;
  }
}
