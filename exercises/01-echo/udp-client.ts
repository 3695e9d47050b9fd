/** An echo client on a datagram socket (RFC 862): sends, and checks that the same datagram comes back. */
import { createSocket, type Socket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { isIPv6 } from "node:net";
import { integer, optional, setting, text } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { Failure, isFailure, UsageError } from "../../shared/errors.ts";
import { program, serverAt } from "../../shared/program.ts";
import { MAX_DATAGRAM_BYTES } from "../../shared/udp.ts";
import { difference, ECHO_PORT } from "./protocol.ts";
import { LONGEST_MS, repeat, repetition } from "./round-trips.ts";

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

/** Sends from this socket, which is connected: the system drops what comes from anyone but the server. */
async function tryFrom(socket: Socket, message: Buffer, { address, port, timeoutMs }: Asking) {
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    socket.connect(port, address);
    await once(socket, "connect");
    const sentAt = performance.now();
    socket.send(message);
    // Rejects as soon as an ICMP message says that nobody listens there.
    const [returned] = (await once(socket, "message", { signal: timeout })) as [Buffer];
    return { returned, timeMs: performance.now() - sentAt };
  } catch (error) {
    if (timeout.aborted) return undefined;
    throw error;
  }
}

/**
 * The round trip's time in milliseconds, or undefined where nothing came back. An echo has no room for a number, so
 * the source port is the number: each try is sent from a socket of its own, and nobody reads what comes late to an
 * earlier one. All stay open until the end, lest the system give the same port again. Throws `Failure`.
 */
async function ask(message: Buffer, asking: Asking): Promise<number | undefined> {
  if (message.length > MAX_DATAGRAM_BYTES) {
    throw new Failure(`cannot send ${message.length} bytes: a datagram holds ${MAX_DATAGRAM_BYTES}`);
  }
  const sockets: Socket[] = [];
  try {
    while (sockets.length <= asking.retries) {
      const socket = createSocket(isIPv6(asking.address) ? "udp6" : "udp4");
      sockets.push(socket.on("error", () => {})); // what comes after its time is no error any more
      const answer = await tryFrom(socket, message, asking);
      if (answer === undefined) continue;
      if (!process.stdout.write(answer.returned)) await once(process.stdout, "drain");
      const wrong = difference(message, answer.returned);
      if (wrong !== undefined) throw new Failure(wrong);
      return answer.timeMs;
    }
    return undefined;
  } finally {
    for (const socket of sockets) socket.close();
  }
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
    if (count === undefined && interval !== undefined) throw new UsageError("--interval needs --count");
    if (count !== undefined && data === undefined) throw new UsageError("--count needs --data");
    if (port === 0) throw new UsageError("--port 0 is nobody's");
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
