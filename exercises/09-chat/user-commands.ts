/** What becomes of what the user types: lines to the server, texts into a call, a change of window. */
import type { Calls } from "./calls.ts";
import { ctcp } from "./dcc.ts";
import { formatSaid, fromWire } from "./display.ts";
import { INPUT_COMMANDS, type Input, piecesFor, piecesOf, usageOf } from "./input.ts";
import { formatLine, isChannelLike } from "./protocol.ts";
import type { Terminal } from "./terminal.ts";

export interface ClientState {
  /** The user's own nick, as the server has it. */
  me: string;
  /** Whom a plain text is for: `#channel`, `nick`, `=nick` for a call, or nobody. */
  target: string;
  isRegistered: boolean;
  /** The server has gone. */
  isGone: boolean;
  /** What it said last. */
  lastWords: string;
}

export interface User {
  readonly state: ClientState;
  readonly terminal: Terminal;
  readonly calls: Calls;
  /** Sends a line to the server, if it is there. */
  send(line: string): Promise<void>;
  /** A remark of the client's own. */
  note(text: string): void;
}

/** A piece of a text in a call; less than one line of it may have. */
const MAX_CALL_TEXT_BYTES = 4000;

/** Opens a window: what is typed from now on is for `target`. */
export function aim({ state, terminal }: User, target = state.target): void {
  state.target = target;
  terminal.prompt(fromWire(target === "" ? `<${state.me}> ` : `[${target}] <${state.me}> `));
}

/** What the user says is shown as everybody else's words are, but where it stands already as it was typed. */
async function say(user: User, target: string, text: string, action = false): Promise<void> {
  const wrap = (piece: string) => (action ? ctcp(`ACTION ${piece}`) : piece);
  if (target === "") return user.note("nobody to talk to: /query NICK, /join #CHANNEL or /call NICK");
  const callee = target.startsWith("=") ? target.slice(1) : undefined;
  const pieces = callee === undefined ? piecesFor(target, text) : piecesOf(text, MAX_CALL_TEXT_BYTES);
  for (const piece of pieces) {
    if (callee === undefined) await user.send(formatLine("", "PRIVMSG", target, wrap(piece)));
    else if (!(await user.calls.say(callee, wrap(piece)))) return user.note(`no call with ${callee} is open`);
  }
  const isOnScreen = user.terminal.isInteractive && target === user.state.target && !action;
  if (!isOnScreen) user.terminal.print(formatSaid(target, user.state.me, wrap(text)));
}

/** To the open channel where the user names none. */
async function inChannel(
  user: User,
  command: string,
  name: string | undefined,
  ...more: string[]
): Promise<void> {
  const channel = name ?? (isChannelLike(user.state.target) ? user.state.target : "");
  if (channel === "") return user.note("no channel is open here; /join #CHANNEL");
  await user.send(formatLine("", command, channel, ...more));
}

async function part(user: User, args: readonly string[]): Promise<void> {
  const [name, ...rest] = isChannelLike(args[0] ?? "") ? args : [undefined, ...args];
  const reason = rest.join(" ");
  await inChannel(user, "PART", name, ...(reason === "" ? [] : [reason]));
  aim(user, "");
}

/** A script goes on when the call is open or has failed; a person may do something else meanwhile. */
async function inTurn({ terminal }: User, work: Promise<void>): Promise<void> {
  if (!terminal.isInteractive) await work;
}

/** Does it. Leaving is the only command that is not here. */
export async function perform(user: User, { command, args }: Input): Promise<void> {
  const { state, calls, send, note } = user;
  const [first = "", second = ""] = args;
  switch (command) {
    case "say":
      return say(user, state.target, first);
    case "msg":
      return say(user, first, second);
    case "me":
      return say(user, state.target, first, true);
    case "query":
      return aim(user, first);
    case "join":
      aim(user, first);
      return send(formatLine("", "JOIN", ...args.slice(0, 2)));
    case "part":
      return part(user, args);
    case "topic":
      return inChannel(user, "TOPIC", undefined, ...args);
    case "names":
      return inChannel(user, "NAMES", args[0]);
    case "call":
    case "accept":
      aim(user, `=${first}`);
      return inTurn(user, calls[command](first));
    case "decline":
      return calls.decline(first);
    case "hangup":
      return calls.hangUp((args[0] ?? state.target).replace(/^=/, ""));
    case "raw":
      return send(first);
    case "help":
      for (const [name, { what }] of Object.entries(INPUT_COMMANDS))
        note(`${usageOf(name).padEnd(28)} ${what}`);
      return;
    default: // who, whois, list, nick, away: the server's own commands
      return send(formatLine("", command.toUpperCase(), ...args.slice(0, 1)));
  }
}
