/** The client's side of its connection to the server: lines as messages, PINGs answered, and no faster than allowed. */
import { setTimeout as delay } from "node:timers/promises";
import { type Connection, TimeoutError } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { bucket, FLOOD } from "./flood.ts";
import { formatLine, type Message, parseLine } from "./protocol.ts";

/** Longer than any server's, with the tags that it may put in front. */
const MAX_SERVER_LINE_BYTES = 8704;
/** After so long a silence the server is asked whether it is there, and after as long again it is taken for gone. */
const SILENCE_MS = 120_000;
/** Lines that are not the user's own, answers to PING above all, and must not be in excess. */
const RESERVED_LINES = 2;

export type ServerLink = ReturnType<typeof serverLink>;

export function serverLink(connection: Connection) {
  connection.timeoutMs = SILENCE_MS;
  const allowance = bucket({ ...FLOOD, burst: FLOOD.burst - RESERVED_LINES }, performance.now());

  const sendNow = (line: string) => connection.write(Buffer.from(`${line}\r\n`, "latin1"));

  async function nextLine(): Promise<string | undefined> {
    try {
      return await connection.readLine(MAX_SERVER_LINE_BYTES, "latin1");
    } catch (error) {
      if (!(error instanceof TimeoutError)) throw error;
    }
    await sendNow("PING :still-there");
    return connection.readLine(MAX_SERVER_LINE_BYTES, "latin1");
  }

  return {
    sendNow,
    /** Sends what the user says, as fast as the server takes it. */
    async send(line: string): Promise<void> {
      for (let waitMs = 1; waitMs > 0; ) {
        if (allowance.take(performance.now())) break;
        waitMs = allowance.waitMs(performance.now());
        await delay(waitMs);
      }
      await sendNow(line);
    },
    /** The next message that is not a PING; undefined at the end. Throws `Failure` when the server is gone. */
    async next(): Promise<Message | undefined> {
      for (;;) {
        const line = await nextLine();
        // What no line may hold, a server that means harm may send all the same: a PONG has to repeat it.
        const message = line === undefined ? undefined : parseLine(line.replace(/[\r\0]/g, ""));
        if (line === undefined) return undefined;
        if (message === undefined) continue;
        if (message.command !== "PING") return message;
        await sendNow(formatLine("", "PONG", ...message.params));
      }
    },
  };
}

/** A failure to speak of: what the server said last is more than that the connection has ended. */
export const serverGone = (lastWords: string, cause?: unknown) =>
  new Failure(lastWords === "" ? "the server has closed the connection" : `the server: ${lastWords}`, {
    cause,
  });
