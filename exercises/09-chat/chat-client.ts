/** A user of the chat: what the server sends is shown, what the user types is done, calls go on beside both. */
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import type { Connection } from "../../shared/connection.ts";
import { explain, isFailure } from "../../shared/errors.ts";
import { connect } from "../../shared/tcp.ts";
import { createCalls } from "./calls.ts";
import { ctcpOf, isRejection } from "./dcc.ts";
import { describeMessage, fromWire, hostOf, nickOf } from "./display.ts";
import { parseInput } from "./input.ts";
import { fold, formatLine, LIMITS, type Message } from "./protocol.ts";
import { type ServerLink, serverGone, serverLink } from "./server-link.ts";
import type { Terminal } from "./terminal.ts";
import { aim, type ClientState, perform, type User } from "./user-commands.ts";

interface ClientOptions {
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
/** Underscores that a nick may get where the wanted one is taken. */
const MORE_NICKS = 3;

interface Session {
  readonly options: ClientOptions;
  readonly connection: Connection;
  readonly server: ServerLink;
  readonly user: User;
  readonly registered: Deferred;
  /** All that the user said has been answered. */
  readonly answered: Deferred;
}

/** Takes part until the user leaves, or the server has gone and no call is open. Throws `Failure` if it goes before. */
export async function chatWith(options: ClientOptions, terminal: Terminal): Promise<void> {
  const { host, port, signal } = options;
  const connection = await connect({ host, port, signal });
  try {
    await converse(createSession(options, connection, terminal));
  } finally {
    connection.destroy();
  }
}

function createSession(options: ClientOptions, connection: Connection, terminal: Terminal): Session {
  const { port, callPort, ringMs, nick } = options;
  const server = serverLink(connection);
  const state: ClientState = { me: nick, target: "", isRegistered: false, isGone: false, lastWords: "" };
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
  const user: User = { state, terminal, calls, send, note };
  return { options, connection, server, user, registered: deferred(), answered: deferred() };
}

async function converse(session: Session): Promise<void> {
  const { options, server, user } = session;
  const { state, calls, note } = user;
  const { signal, password, nick, realName } = options;
  if (password !== undefined) await server.sendNow(formatLine("", "PASS", password));
  await server.sendNow(formatLine("", "NICK", nick));
  await server.sendNow(formatLine("", "USER", nick, "0", "*", realName));
  const listening = listen(session);
  const obeying = obey(session);
  const stopped = signal.aborted ? Promise.resolve([]) : once(signal, "abort");
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
}

/** Does what is typed, to the end of the input or to `/quit`, whose reason it returns. */
async function obey({ server, user, registered, answered }: Session): Promise<string> {
  const { terminal, state, note } = user;
  await registered.promise;
  aim(user);
  for (let line = await terminal.next(); line !== undefined; line = await terminal.next()) {
    const input = parseInput(line);
    if (typeof input === "string") note(input);
    else if (input?.command === "quit") return input.args[0] ?? "";
    else if (input !== undefined) await perform(user, input);
    aim(user);
  }
  if (!state.isGone) await server.sendNow(formatLine("", "PING", LAST_PING));
  if (!state.isGone) await answered.promise;
  return "";
}

/** Shows what the server sends, to its end. */
async function listen(session: Session): Promise<void> {
  const { server, user, connection, answered } = session;
  const { state, terminal } = user;
  try {
    for (let message = await server.next(); message !== undefined; message = await server.next()) {
      const line = (await handle(session, message)) ? describeMessage(message, state.me) : undefined;
      if (line !== undefined) terminal.print(line);
    }
  } catch (error) {
    if (!isFailure(error)) throw error;
    state.lastWords ||= explain(error);
  }
  state.isGone = true;
  connection.end(); // the server waits for our FIN before it forgets us
  answered.resolve();
}

/** What the client itself has to do with a message. Says whether the user is to see it too. */
async function handle(session: Session, message: Message): Promise<boolean> {
  const { state } = session.user;
  const [first = "", text = ""] = message.params;
  switch (message.command) {
    case "001":
      state.me = first;
      state.isRegistered = true;
      session.registered.resolve();
      return true;
    case "433":
      if (!state.isRegistered) await tryAnotherNick(session);
      return true;
    case "401":
      session.user.calls.refused(text, "is not there");
      return true;
    case "NICK":
      if (fold(nickOf(message.source)) === fold(state.me)) {
        state.me = first;
        aim(session.user);
      }
      return true;
    case "ERROR":
      state.lastWords = fromWire(first);
      return true;
    case "PONG":
      if (text === LAST_PING) session.answered.resolve();
      return false;
    case "PRIVMSG":
    case "NOTICE":
      return !handleCall(session.user, message);
    default:
      return true;
  }
}

/** An offer of a call, or the refusal of one. What is said in a channel is none: nobody calls a crowd. */
function handleCall({ state, calls }: User, { source, command, params }: Message): boolean {
  const [target = "", text = ""] = params;
  const request = ctcpOf(text);
  if (request === undefined || !/^DCC /i.test(request) || fold(target) !== fold(state.me)) return false;
  if (isRejection(request)) calls.refused(nickOf(source), "does not take the call");
  else if (command === "PRIVMSG") calls.offered(nickOf(source), hostOf(source), request);
  return true;
}

async function tryAnotherNick({ user, options, server, connection }: Session): Promise<void> {
  const { state } = user;
  const next = `${state.me.slice(0, LIMITS.nick - 1)}_`;
  if (next === state.me || next.length > options.nick.length + MORE_NICKS) {
    state.lastWords = `${options.nick} is in use; choose another with --nick`;
    return connection.stopReading();
  }
  state.me = next;
  await server.sendNow(formatLine("", "NICK", next));
}

interface Deferred {
  readonly promise: Promise<void>;
  resolve(): void;
}
function deferred(): Deferred {
  let resolve = () => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
