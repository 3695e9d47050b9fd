/** One client's connection: its lines are read, held back where they flood, and run; silence is asked whether anybody is there. */
import { type Connection, TimeoutError } from "../../shared/connection.ts";
import { explain, isFailure } from "../../shared/errors.ts";
import { runLine } from "./commands.ts";
import { bucket, type FloodLimits } from "./flood.ts";
import { DROPPED, lineReader, TOO_LONG } from "./line-reader.ts";
import { formatLine, MAX_LINE_BYTES } from "./protocol.ts";
import { SendQueue, type Turn } from "./send-queue.ts";
import { type Chat, connectUser, quit, reply, type User } from "./state.ts";

interface SessionOptions {
  chat: Chat;
  turn: Turn;
  flood: FloodLimits;
  /** Lines that a flooding client has sent and that wait to be run; more, and it is cut off. */
  receiveQueueBytes: number;
  /** What waits for a client that does not read; more, and it is cut off. */
  sendQueueBytes: number;
  registrationTimeoutMs: number;
  /** After so long a silence comes a PING, and after as long again the end. */
  pingIntervalMs: number;
  log: (line: string) => void;
  debug: (line: string) => void;
}

/** How long the last words may take. */
const FAREWELL_MS = 1000;

/** Leads the conversation to its end. A session of `serve()`; what a bad peer costs is its connection and a line in the log. */
export async function session(connection: Connection, options: SessionOptions): Promise<void> {
  const { chat, turn, sendQueueBytes, debug } = options;
  const log = (reason: string) =>
    options.log(`${connection.peer}: ${user.nick || "unregistered"}: ${reason}`);
  const queue = new SendQueue(turn, connection, sendQueueBytes, () => {
    log("Max SendQ exceeded");
    quit(chat, user, "Max SendQ exceeded");
    connection.destroy(); // it would not read our last words either
  });
  const close = () => {
    queue.flush();
    connection.stopReading();
  };
  const user = connectUser(chat, connection.peerHost, { send: (line) => queue.send(line), close });
  debug(`${connection.peer}: connected`);
  const reason = await converse(connection, user, options).catch((error) => {
    if (isFailure(error)) return explain(error);
    throw error;
  });
  if (reason !== undefined && !user.gone) log(reason);
  quit(chat, user, reason ?? "Remote host closed the connection");
  debug(`${connection.peer}: ${user.nick || "unregistered"} has left`);
  connection.timeoutMs = FAREWELL_MS;
}

/** Runs lines until the user is gone. Returns the reason where it lies with the connection; undefined for a plain end. */
async function converse(
  connection: Connection,
  user: User,
  options: SessionOptions,
): Promise<string | undefined> {
  const { chat, flood, receiveQueueBytes, registrationTimeoutMs, pingIntervalMs } = options;
  const lines = lineReader(connection, MAX_LINE_BYTES);
  const allowance = bucket(flood, performance.now());
  const registerByMs = performance.now() + registrationTimeoutMs;
  let isAsked = false;
  while (!user.gone) {
    const nowMs = performance.now();
    if (!user.registered && nowMs >= registerByMs) return "Registration timed out";
    const heldBackMs = allowance.waitMs(nowMs);
    const line = heldBackMs > 0 ? undefined : lines.next();
    if (line !== undefined) {
      allowance.take(nowMs);
      if (line === TOO_LONG) reply(chat, user, "ERR_INPUTTOOLONG");
      else if (line !== DROPPED) runLine(chat, user, line);
      continue;
    }
    const isFlooding = heldBackMs > 0 && connection.unreadBytes > 0;
    if (isFlooding && connection.unreadBytes > receiveQueueBytes) return "Excess Flood";
    const patienceMs = user.registered ? pingIntervalMs : registerByMs - nowMs;
    const came = await moreWithin(connection, isFlooding ? heldBackMs : patienceMs);
    if (came === "end") return undefined; // what a flooding client was not yet allowed to say, it has not said
    if (came === "bytes") isAsked = false;
    else if (isFlooding || !user.registered) continue;
    else if (isAsked) return `Ping timeout: ${pingIntervalMs / 1000} seconds`;
    else {
      isAsked = true;
      user.link.send(formatLine("", "PING", chat.options.name));
    }
  }
  return undefined;
}

async function moreWithin(connection: Connection, limitMs: number): Promise<"bytes" | "end" | "silence"> {
  try {
    return (await connection.more(Math.max(1, limitMs))) ? "bytes" : "end";
  } catch (error) {
    if (error instanceof TimeoutError) return "silence";
    throw error;
  }
}
