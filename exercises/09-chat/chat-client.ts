/** A user of the chat: what the server sends is shown, what the user types is done, calls go on beside both. */
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { Failure, isFailure } from "../../shared/errors.ts";
import { connect } from "../../shared/tcp.ts";
import { createCalls } from "./calls.ts";
import { ctcp, ctcpOf, isRejection } from "./dcc.ts";
import { describeMessage, formatSaid, fromWire, hostOf, nickOf } from "./display.ts";
import { INPUT_COMMANDS, type Input, parseInput, piecesFor, usageOf } from "./input.ts";
import { fold, formatLine, isChannelLike, isNick, LIMITS, type Message } from "./protocol.ts";
import { serverGone, serverLink } from "./server-link.ts";
import type { Terminal } from "./terminal.ts";

export interface ClientOptions {
  host: string;
  port: number;
  nick: string;
  /** As bytes, like all texts here. */
  realName: string;
  password?: string | undefined;
  callPort: number;
  ringMs: number;
  signal: AbortSignal;
}

const FAREWELL_MS = 1000;
/** The answer to it tells that everything before has been answered. */
const LAST_PING = "end-of-input";
/** Other nicks to try where the wanted one is taken. */
const MORE_NICKS = 3;

/** Takes part until the user leaves, or the server has gone and no call is open. */
export async function chatWith(options: ClientOptions, terminal: Terminal): Promise<void> {
  const { host, port, signal, callPort, ringMs } = options;
  const connection = await connect({ host, port, signal });
  const server = serverLink(connection);
  const [registered, answered] = [deferred(), deferred()];
  const state = { me: options.nick, target: "", isRegistered: false, isGone: false, lastWords: "" };

  const note = (text: string) =>
    terminal.print(fromWire(`-- ${text}`), terminal.isInteractive ? process.stdout : process.stderr);

  async function send(line: string): Promise<void> {
    if (state.isGone) return note("there is no server any more; calls go on, /quit ends");
    await server.send(line);
  }
  const calls = createCalls({
    server: { host: connection.peerHost, port },
    localHost: connection.localHost,
    callPort,
    ringMs,
    tell: (command, nick, text) => send(formatLine("", command, nick, text)),
    print: (line) => terminal.print(line),
  });

  function aim(target: string): void {
    state.target = target;
    terminal.prompt(target === "" ? "> " : `[${fromWire(target)}] `);
  }

  /** What the user says to somebody is shown as everybody else's words are. */
  async function say(target: string, text: string, wrap = (piece: string) => piece): Promise<void> {
    if (target === "") return note("nobody to talk to: /query NICK, /join #CHANNEL or /call NICK");
    if (target.startsWith("=")) {
      if (!(await calls.say(target.slice(1), wrap(text))))
        return note(`no call with ${target.slice(1)} is open`);
    } else {
      for (const piece of piecesFor(target, text)) await send(formatLine("", "PRIVMSG", target, wrap(piece)));
    }
    terminal.print(formatSaid(target, state.me, wrap(text)));
  }

  /** To the open channel where the user names none. */
  const channelOr = (name: string | undefined) => name ?? (isChannelLike(state.target) ? state.target : "");
  const inChannel = async (command: string, name: string | undefined, ...more: string[]): Promise<void> => {
    const channel = channelOr(name);
    if (channel === "") return note("no channel is open here; /join #CHANNEL");
    await send(formatLine("", command, channel, ...more));
  };
  const caller = (name: string | undefined) => name?.replace(/^=/, "") ?? state.target.replace(/^=/, "");

  /** Leaving is the only command that is not here. */
  async function perform({ command, args }: Input): Promise<void> {
    const [first = "", second] = args;
    switch (command) {
      case "say":
        return say(state.target, first);
      case "msg":
        return say(first, second ?? "");
      case "me":
        return say(state.target, first, (piece) => ctcp(`ACTION ${piece}`));
      case "query":
        return aim(first);
      case "join":
        aim(first);
        return send(formatLine("", "JOIN", ...args.slice(0, 2)));
      case "part": {
        const reason = isChannelLike(first) ? second : args.join(" ");
        await inChannel("PART", isChannelLike(first) ? first : undefined, ...(reason ? [reason] : []));
        return aim("");
      }
      case "topic":
        return inChannel("TOPIC", undefined, ...args);
      case "names":
        return inChannel("NAMES", args[0]);
      case "call":
      case "accept":
        aim(`=${first}`);
        // A script goes on when the call is open or has failed; a person may do something else meanwhile.
        return command === "call" ? inTurn(calls.call(first)) : inTurn(calls.accept(first));
      case "decline":
        return calls.decline(first);
      case "hangup":
        return calls.hangUp(caller(args[0]));
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
  const inTurn = async (work: Promise<void>) => (terminal.isInteractive ? void work : work);

  /** To the end of the input or `/quit`. */
  async function obey(): Promise<string> {
    await registered.promise;
    terminal.prompt("> ");
    for (let line = await terminal.next(); line !== undefined; line = await terminal.next()) {
      const input = parseInput(line);
      if (typeof input === "string") note(input);
      else if (input?.command === "quit") return input.args[0] ?? "";
      else if (input !== undefined) await perform(input);
    }
    if (!state.isGone) await server.sendNow(formatLine("", "PING", LAST_PING));
    if (!state.isGone) await answered.promise;
    return "";
  }

  /** What the client itself has to do with a message. Says whether the user is to see it too. */
  async function handle(message: Message): Promise<boolean> {
    const { source, command, params } = message;
    const nick = nickOf(source);
    const [, text = ""] = params;
    if (command === "001") {
      state.me = params[0] ?? state.me;
      state.isRegistered = true;
      registered.resolve();
    } else if (command === "NICK" && fold(nick) === fold(state.me)) state.me = params[0] ?? state.me;
    else if (command === "ERROR") state.lastWords = fromWire(params[0] ?? "");
    else if (command === "PONG") {
      if (text === LAST_PING) answered.resolve();
      return false;
    } else if (command === "433" && !state.isRegistered) await tryAnotherNick();
    else if (command === "PRIVMSG" || command === "NOTICE") return !handleCall(nick, source, text);
    return true;
  }

  function handleCall(nick: string, source: string, text: string): boolean {
    const request = ctcpOf(text);
    if (request === undefined || !/^DCC /i.test(request)) return false;
    if (isRejection(request)) calls.rejected(nick);
    else calls.offered(nick, hostOf(source), request);
    return true;
  }

  async function tryAnotherNick(): Promise<void> {
    const next = `${state.me.slice(0, LIMITS.nick - 1)}_`;
    if (next === state.me || next.length > options.nick.length + MORE_NICKS) {
      state.lastWords = `${options.nick} is in use; choose another with --nick`;
      return connection.stopReading();
    }
    state.me = next;
    await server.sendNow(formatLine("", "NICK", next));
  }

  async function listen(): Promise<void> {
    try {
      for (let message = await server.next(); message !== undefined; message = await server.next()) {
        const line = (await handle(message)) ? describeMessage(message, state.me) : undefined;
        if (line !== undefined) terminal.print(line);
      }
    } catch (error) {
      if (!isFailure(error)) throw error;
      state.lastWords ||= error instanceof Error ? error.message : "";
    }
    state.isGone = true;
    connection.end(); // the server waits for our FIN before it forgets us
    answered.resolve();
  }

  if (!isNick(options.nick)) throw new Failure(`${options.nick} is no nick`);
  if (options.password !== undefined) await server.sendNow(formatLine("", "PASS", options.password));
  await server.sendNow(formatLine("", "NICK", options.nick));
  await server.sendNow(formatLine("", "USER", options.nick, "0", "*", options.realName));
  const listening = listen();
  const obeying = obey();
  const stopped = signal.aborted ? Promise.resolve([]) : once(signal, "abort");
  try {
    await Promise.race([listening, obeying, stopped]);
    if (state.isGone && !signal.aborted) {
      if (!calls.areOpen) throw serverGone(state.lastWords);
      note("the server is gone; calls go on, /quit ends");
      await Promise.race([calls.idle(), obeying, stopped]);
    }
    await calls.end();
    if (state.isGone) return;
    const reason = await Promise.race([obeying, stopped.then(() => "")]);
    await server.sendNow(formatLine("", "QUIT", ...(reason ? [reason] : [])));
    await Promise.race([listening, delay(FAREWELL_MS)]);
  } finally {
    connection.destroy();
  }
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
