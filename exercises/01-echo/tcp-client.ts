/** An echo client on a stream socket (RFC 862): sends, and checks that the same bytes come back in the same order. */
import { EventEmitter, once } from "node:events";
import { integer, optional, setting, text } from "../../shared/config.ts";
import { type Connection, formatAddress } from "../../shared/connection.ts";
import { Failure, isFailure, UsageError } from "../../shared/errors.ts";
import { program, serverAt } from "../../shared/program.ts";
import { connect } from "../../shared/tcp.ts";
import { inFlight } from "./in-flight.ts";
import { difference, ECHO_PORT } from "./protocol.ts";
import { LONGEST_MS, type RepeatOptions, repeat, repetition } from "./round-trips.ts";

/** What may be under way: more would have to be held here to be compared with what comes back. */
const MAX_IN_FLIGHT_BYTES = 4 * 1024 * 1024;

async function print(bytes: Buffer): Promise<void> {
  if (!process.stdout.write(bytes)) await once(process.stdout, "drain");
}

/**
 * Sends all of the input while it reads what comes back: a client that wrote everything first would deadlock with
 * the server as soon as the buffers of both directions are full.
 */
async function stream(
  connection: Connection,
  input: AsyncIterable<Buffer> | Buffer[],
  signal: AbortSignal,
): Promise<void> {
  const flight = inFlight(MAX_IN_FLIGHT_BYTES);
  const progress = new EventEmitter();
  let backBytes = 0;
  const line = progressLine(() => `${(backBytes / 2 ** 20).toFixed(1)} MiB are back`);
  const { timeoutMs } = connection;
  connection.timeoutMs = 0; // for writes, which may wait because nobody reads our stdout
  let ended = false;

  async function send(): Promise<void> {
    for await (const chunk of input) {
      for (let at = 0; at < chunk.length; ) {
        if (flight.roomBytes === 0) await once(progress, "returned");
        const piece = chunk.subarray(at, at + flight.roomBytes);
        flight.sent(piece);
        progress.emit("sent");
        await connection.write(piece);
        at += piece.length;
      }
    }
    connection.end();
    ended = true;
    progress.emit("sent");
  }

  /** The time limit is for what the server owes: a user may think, and whoever reads our stdout may pause. */
  async function nextBytes(): Promise<Buffer | undefined> {
    if (connection.unreadBytes === 0) {
      const owed = flight.sizeBytes > 0 || ended;
      if (!owed) await Promise.race([once(progress, "sent"), connection.more(0)]);
      if (connection.unreadBytes === 0 && !(await connection.more(timeoutMs))) return undefined;
    }
    return connection.take(connection.unreadBytes);
  }

  async function receive(): Promise<void> {
    for (let bytes = await nextBytes(); bytes !== undefined; bytes = await nextBytes()) {
      await print(bytes);
      flight.returned(bytes);
      backBytes += bytes.length;
      progress.emit("returned");
    }
    flight.finished();
    if (!ended) throw new Failure("the server finished before we did");
  }

  // The signal has to be in it, as nothing else ends the wait for a user who types.
  try {
    await Promise.race([Promise.all([send(), receive()]), once(signal, "abort")]);
  } finally {
    line.end();
  }
}

/** A line on the terminal that is written anew twice a second, unless what comes back is written there itself. */
function progressLine(text: () => string): { end: () => void } {
  if (!process.stderr.isTTY || process.stdout.isTTY) return { end: () => {} };
  let isShown = false;
  const timer = setInterval(() => {
    isShown = true;
    process.stderr.write(`\r${text()}`);
  }, 500);
  return {
    end() {
      clearInterval(timer);
      if (isShown) process.stderr.write(`\r${text()}\n`);
    },
  };
}

async function pingPong(connection: Connection, message: Buffer, options: RepeatOptions): Promise<void> {
  await repeat(options, async () => {
    const startedAt = performance.now();
    const [returned] = await Promise.all([connection.readExactly(message.length), connection.write(message)]);
    const timeMs = performance.now() - startedAt;
    if (returned === undefined) throw new Failure("the server finished before we did");
    await print(returned);
    const wrong = difference(message, returned);
    if (wrong !== undefined) throw new Failure(wrong);
    return timeMs;
  });
  connection.end();
  if ((await connection.read()) !== undefined) throw new Failure("more came back than was sent");
}

await program({
  summary:
    "An echo client on a stream socket (RFC 862): sends a text, or its standard input, and prints what comes back.",
  example: "--data hello --count 3",
  settings: {
    ...serverAt(ECHO_PORT),
    data: optional(text, "what to send; without it, standard input to its end"),
    ...repetition,
    timeout: setting(integer(0, LONGEST_MS), "milliseconds to wait for the server (0 = for ever)", 5000),
  },
  async run({ host, port, data, count, interval, timeout }, { signal, log }) {
    if (count === undefined && interval !== undefined) throw new UsageError("--interval needs --count");
    if (count !== undefined && !data) throw new UsageError("--count needs a --data that is not empty");
    const connection = await connect({ host, port, timeoutMs: timeout, signal });
    const message = Buffer.from(data ?? "");
    try {
      if (count === undefined)
        await stream(connection, data === undefined ? process.stdin : [message], signal);
      else await pingPong(connection, message, { count, intervalMs: interval, signal, log });
    } catch (error) {
      if (!isFailure(error)) throw error;
      throw new Failure(`no echo from tcp://${formatAddress(host, port)}`, { cause: error });
    } finally {
      connection.destroy();
    }
  },
});
