/** An echo client on a datagram socket (RFC 862): sends, and checks that the same datagram comes back. */
import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { integer, optional, setting, text } from "../../shared/config.ts";
import { formatAddress, TimeoutError } from "../../shared/connection.ts";
import { Failure, isFailure, UsageError } from "../../shared/errors.ts";
import { program, serverAt } from "../../shared/program.ts";
import { MAX_DATAGRAM_BYTES, request } from "../../shared/udp.ts";
import { difference, ECHO_PORT, LONGEST_MS } from "./protocol.ts";
import { repeat, repetition } from "./round-trips.ts";

const LF = 0x0a;

/** Lines with their ends, so that what comes back adds up to the input, byte for byte. */
async function* linesOf(input: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of input) {
    rest = Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(LF) + 1; end > 0; end = rest.indexOf(LF) + 1) {
      yield rest.subarray(0, end);
      rest = rest.subarray(end);
    }
    if (rest.length > MAX_DATAGRAM_BYTES) break; // refused as it is, rather than gathered for ever
  }
  if (rest.length > 0) yield rest;
}

interface Asking {
  address: string;
  port: number;
  /** For each try, in milliseconds. */
  timeoutMs: number;
  retries: number;
}

/**
 * The round trip's time in milliseconds, or undefined where nothing came back. An echo has no room for a number, so
 * the source port is the number: `request` sends each try from a socket of its own, and the reply to an earlier
 * try finds that one's socket closed. Throws `Failure`.
 */
async function ask(
  message: Buffer,
  { address, port, timeoutMs, retries }: Asking,
): Promise<number | undefined> {
  if (message.length > MAX_DATAGRAM_BYTES) {
    throw new Failure(`cannot send ${message.length} bytes: a datagram holds ${MAX_DATAGRAM_BYTES}`);
  }
  for (let tries = 0; tries <= retries; tries++) {
    const startedAt = performance.now();
    const accept = (returned: Buffer) => ({ returned, timeMs: performance.now() - startedAt });
    try {
      const { returned, timeMs } = await request({
        host: address,
        port,
        request: message,
        accept,
        timeoutMs,
      });
      if (!process.stdout.write(returned)) await once(process.stdout, "drain");
      const wrong = difference(message, returned);
      if (wrong !== undefined) throw new Failure(wrong);
      return timeMs;
    } catch (error) {
      const { cause } = error as Error;
      if (!(cause instanceof TimeoutError)) throw cause ?? error;
    }
  }
  return undefined;
}

async function askLines(lines: AsyncIterable<Buffer> | Buffer[], asking: Asking): Promise<void> {
  let sent = 0;
  let lost = 0;
  for await (const line of lines) {
    sent++;
    if ((await ask(line, asking)) === undefined) lost++;
  }
  if (lost > 0) throw new Failure(`${lost} of ${sent} did not come back within ${asking.timeoutMs} ms`);
}

await program({
  summary:
    "An echo client on a datagram socket (RFC 862): sends a text, or each line of its standard input, and prints what comes back.",
  example: "--data hello --count 3 --retries 2",
  settings: {
    ...serverAt(ECHO_PORT),
    data: optional(text, "what to send; without it, each line of standard input with its end"),
    ...repetition,
    timeout: setting(integer(1, LONGEST_MS), "milliseconds to wait for each try's reply", 1000),
    retries: setting(integer(0), "further tries for a datagram that does not come back", 0),
  },
  async run({ host, port, data, count, interval, timeout, retries }, { signal, log }) {
    if (count !== undefined && data === undefined) throw new UsageError("--count needs --data");
    const message = Buffer.from(data ?? "");
    try {
      const { address } = await lookup(host); // once, so that no round trip has it in its time
      const asking = { address, port, timeoutMs: timeout, retries };
      if (count !== undefined) {
        await repeat({ count, intervalMs: interval, signal, log }, () => ask(message, asking));
      } else {
        const lines = data === undefined ? linesOf(process.stdin) : [message];
        await Promise.race([askLines(lines, asking), once(signal, "abort")]);
      }
    } catch (error) {
      if (!isFailure(error)) throw error;
      throw new Failure(`no echo from udp://${formatAddress(host, port)}`, { cause: error });
    }
  },
});
