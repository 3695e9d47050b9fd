/** A chat server that speaks IRC (RFC 1459, RFC 2812), for our client and for real ones. */
import { readFileSync } from "node:fs";
import { integer, optional, type Parse, seconds, setting, text } from "../../shared/config.ts";
import { Failure, UsageError } from "../../shared/errors.ts";
import { listenAt, program } from "../../shared/program.ts";
import { serve } from "../../shared/tcp.ts";
import { FLOOD } from "./flood.ts";
import { CHAT_PORT, toWire } from "./protocol.ts";
import { Turn } from "./send-queue.ts";
import { session } from "./session.ts";
import { createChat, shutDown } from "./state.ts";

/** The most that a line of the message of the day may have beside the reply's own words. */
const MOTD_LINE_BYTES = 400;

const serverName: Parse<string> = (value) => {
  if (/^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$/.test(value) && value.includes(".")) return value;
  throw new Failure("is not a server's name (letters, digits, hyphens and at least one dot)");
};

/** The lines as bytes, without what a line may not hold. */
function readMotd(path: string): string[] {
  try {
    const lines = readFileSync(path, "latin1")
      .replace(/\0/g, "")
      .trimEnd()
      .split(/\r\n|\r|\n/);
    return lines.map((line) => line.slice(0, MOTD_LINE_BYTES));
  } catch (error) {
    throw new UsageError(`cannot read the message of the day ${path}`, { cause: error });
  }
}

await program({
  summary: "A chat server for one machine that speaks IRC (RFC 2812).",
  example: "--motd welcome.txt",
  settings: {
    ...listenAt(CHAT_PORT),
    name: setting(serverName, "name of the server in its lines", "chat.netlab.example"),
    password: optional(text, "what clients must say with PASS"),
    motd: optional(text, "file with the message of the day"),
    maxClients: setting(integer(1), "clients at once", 10_000),
    floodBurst: setting(integer(1), "lines that a client may send at once", FLOOD.burst),
    floodRate: setting(integer(0), "lines a second that it may send after them (0 = no limit)", FLOOD.rate),
    receiveQueue: setting(
      integer(512, 60_000),
      "bytes of a flooding client that wait; more, and it is cut off",
      8192,
    ),
    sendQueue: setting(
      integer(1024),
      "bytes that wait for a client that does not read; more, and it is cut off",
      2 ** 20,
    ),
    pingInterval: setting(seconds, "seconds of silence until a PING, and from there to the end", 90),
    registrationTimeout: setting(seconds, "seconds that NICK and USER may take", 30),
  },
  async run(settings, { signal, log, debug, ready }) {
    const { host, port, name, password, motd, maxClients } = settings;
    const chat = createChat({
      name,
      password: password === undefined ? undefined : toWire(password),
      motd: motd === undefined ? undefined : readMotd(motd),
      nowMs: Date.now,
    });
    // Before serve() learns of it: the sessions that it then ends have said their last words.
    signal.addEventListener("abort", () => shutDown(chat, "Server shutting down"), { once: true });
    const options = {
      chat,
      turn: new Turn(),
      flood: { burst: settings.floodBurst, rate: settings.floodRate },
      receiveQueueBytes: settings.receiveQueue,
      sendQueueBytes: settings.sendQueue,
      registrationTimeoutMs: settings.registrationTimeout * 1000,
      pingIntervalMs: settings.pingInterval * 1000,
      log,
      debug,
    };
    const server = await serve({ host, port, signal, log, maxConnections: maxClients }, (connection) =>
      session(connection, options),
    );
    ready(server.url);
    await server.closed;
  },
});
