/** What the user types, as what it asks for. Pure rules. */
import { fromWire } from "./display.ts";
import { MAX_LINE_BYTES } from "./protocol.ts";

/** A command with its words as bytes, or a text for the window that is open. */
export interface Input {
  command: string;
  /** The first `words` of the command, then all the rest as one. */
  args: string[];
}

interface CommandSpec {
  usage: string;
  /** Arguments that are words of their own; what follows them is one text. */
  words: number;
  needs: number;
  what: string;
}
export const INPUT_COMMANDS: Readonly<Record<string, CommandSpec>> = {
  join: { usage: "#CHANNEL [KEY]", words: 2, needs: 1, what: "go into a channel, and talk there" },
  part: { usage: "[#CHANNEL] [REASON]", words: 1, needs: 0, what: "leave it" },
  query: {
    usage: "[NICK]",
    words: 1,
    needs: 0,
    what: "talk to somebody from now on; without a name, to nobody",
  },
  msg: { usage: "NICK TEXT", words: 1, needs: 2, what: "say something to somebody or in a channel" },
  me: { usage: "TEXT", words: 0, needs: 1, what: "do something" },
  call: { usage: "NICK", words: 1, needs: 1, what: "offer a direct link (DCC CHAT); the window is =NICK" },
  accept: { usage: "NICK", words: 1, needs: 1, what: "take a call" },
  decline: { usage: "NICK", words: 1, needs: 1, what: "refuse a call" },
  hangup: { usage: "[NICK]", words: 1, needs: 0, what: "end a call" },
  who: { usage: "[MASK]", words: 1, needs: 0, what: "who is there, or in a channel" },
  whois: { usage: "NICK", words: 1, needs: 1, what: "more about somebody" },
  names: { usage: "[#CHANNEL]", words: 1, needs: 0, what: "who is in a channel" },
  list: { usage: "", words: 0, needs: 0, what: "the channels" },
  topic: { usage: "[TEXT]", words: 0, needs: 0, what: "the topic of the channel" },
  nick: { usage: "NICK", words: 1, needs: 1, what: "change your nick" },
  away: {
    usage: "[TEXT]",
    words: 0,
    needs: 0,
    what: "say that you are away; without a text, that you are back",
  },
  raw: { usage: "LINE", words: 0, needs: 1, what: "send a line of IRC as it is" },
  help: { usage: "", words: 0, needs: 0, what: "this list" },
  quit: { usage: "[REASON]", words: 0, needs: 0, what: "leave" },
};

export const usageOf = (command: string) => `/${command} ${INPUT_COMMANDS[command]?.usage}`.trimEnd();

/**
 * A line of input, as bytes; `say` is the command of a plain text, and `//` begins one that begins with a slash. A
 * string says what is wrong. Nothing in it can end a line or begin a last parameter.
 */
export function parseInput(line: string): Input | string | undefined {
  const clean = line.replace(/[\r\n\0]/g, "");
  if (clean.trim() === "") return undefined;
  const [, name, rest = ""] = /^\/([^ /]+) *(.*)$/s.exec(clean) ?? [];
  if (name === undefined) return { command: "say", args: [clean.replace(/^\/\//, "/")] };
  const command = name.toLowerCase();
  const spec = Object.hasOwn(INPUT_COMMANDS, command) ? INPUT_COMMANDS[command] : undefined;
  if (spec === undefined) return `there is no /${fromWire(name)}; /help says what there is`;
  const args = splitWords(rest.trimEnd(), spec.words);
  return args.length < spec.needs ? `usage: ${usageOf(command)}` : { command, args };
}

function splitWords(text: string, count: number): string[] {
  const args: string[] = [];
  let rest = text;
  while (args.length < count && rest !== "") {
    const [, word = "", after = ""] = /^:*([^ ]*) *(.*)$/s.exec(rest) ?? [];
    if (word !== "") args.push(word);
    rest = after;
  }
  if (rest !== "") args.push(rest);
  return args;
}

/** What the server puts in front when it passes a text on: `:nick!user@host PRIVMSG `, at its longest. */
const RELAY_HEAD_BYTES = 120;

/** However long a name is that nobody has. */
const MIN_PIECE_BYTES = 50;

/** The text, as bytes, in pieces that arrive whole. */
export function piecesFor(target: string, text: string): string[] {
  const room = MAX_LINE_BYTES - RELAY_HEAD_BYTES - target.length - " :\r\n".length;
  return piecesOf(text, Math.max(room, MIN_PIECE_BYTES));
}

/** Pieces of at most `limit` bytes; a character of UTF-8 is not cut. */
export function piecesOf(text: string, limit: number): string[] {
  const pieces: string[] = [];
  const isInside = (index: number) => (text.charCodeAt(index) & 0xc0) === 0x80;
  for (let at = 0; at < text.length; ) {
    let end = Math.min(text.length, at + limit);
    for (let back = 0; end < text.length && back < 3 && isInside(end); back++) end--;
    pieces.push(text.slice(at, end));
    at = end;
  }
  return pieces;
}
