/**
 * Bytes and messages without files, by this protocol or by the kernel's TCP: what `compare.ts` and `bench.ts` run at both ends of
 * a path. `serve` gives a blob to who connects, or takes messages and says how long each was under way; `fetch` and
 * `talk` are their clients. Results are lines of JSON.
 */

import { once } from "node:events";
import { connect as connectTcp, createServer, type Socket } from "node:net";
import { pipeline } from "node:stream/promises";
import { setTimeout as delay } from "node:timers/promises";
import { flag, integer, oneOf, setting } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { type Context, listenAt, program } from "../../shared/program.ts";
import type { Connection } from "./connection.ts";
import { NO_HASH } from "./endpoint.ts";
import { CONNECTION_SETTINGS, connectionOptions } from "./settings.ts";
import { connectRudp, serveRudp } from "./socket.ts";
import { ended, send } from "./transfer.ts";

const CHUNK_BYTES = 256 * 1024;
const SAMPLE_MS = 50;
/** Of a message over TCP: when it was made, and its number. */
const MESSAGE_BYTES = 100;

/** The same for all processes of a machine (CLOCK_MONOTONIC). */
const nowUs = () => process.hrtime.bigint() / 1000n;
const report = (value: object) => void process.stdout.write(`${JSON.stringify(value)}\n`);
/** A piece that is the same for every offset: to make bytes must not be what is measured. */
const chunk = Buffer.alloc(CHUNK_BYTES, "netlab ");
const sourceOf = (size: number) => ({
  size,
  read: async (offset: number, most: number) => chunk.subarray(0, Math.min(most, size - offset)),
});

/** Tells every so often what the sender believes of the path. */
function sample(connection: Connection): void {
  const startMs = performance.now();
  const timer = setInterval(() => {
    if (connection.state === "ended") return clearInterval(timer);
    const { congestion, rtt, sent } = connection.flight;
    report({
      atMs: performance.now() - startMs,
      windowBytes: congestion.windowBytes,
      inFlightBytes: sent.inFlightBytes,
      rttMs: rtt.smoothedMs,
    });
  }, SAMPLE_MS);
}

const arrived = (number: number, sentUs: bigint) =>
  report({ number, latencyMs: Number(nowUs() - sentUs) / 1000 });

function serveOne(connection: Connection, token: Buffer, bytes: number, samples: boolean): void {
  const isTalk = connection.open.request === "events";
  connection.handlers.onEvent = ({ number, sentUs }) => arrived(number, sentUs);
  connection.accept(token, isTalk ? 0 : bytes, NO_HASH);
  if (!isTalk) send(connection, sourceOf(bytes), 0);
  if (samples && !isTalk) sample(connection);
  ended(connection).then(
    () => report({ packets: connection.sentPackets, repeated: connection.repeatedPackets }),
    (error: Error) => report({ failed: error.message }),
  );
}

async function serveTcp(
  { host, port, bytes }: { host: string; port: number; bytes: number },
  { ready, signal }: Context,
) {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on("error", () => {});
    socket.once("data", (first) => {
      if (first[0] === GET) return void pour(socket, bytes);
      takeMessages(socket, first.subarray(1));
    });
  });
  server.listen(port, host);
  await once(server, "listening");
  const { port: bound } = server.address() as { port: number };
  ready(`tcp://${formatAddress(host, bound)}`);
  await once(signal, "abort");
  server.close();
}
const GET = 0x47;
const TALK = 0x54;

function* pieces(bytes: number): Generator<Buffer> {
  for (let at = 0; at < bytes; at += CHUNK_BYTES) yield chunk.subarray(0, Math.min(CHUNK_BYTES, bytes - at));
}
const pour = (socket: Socket, bytes: number) => pipeline(pieces(bytes), socket).catch(() => {}); // who has seen enough

function takeMessages(socket: Socket, first: Buffer): void {
  let rest = first;
  const take = (bytes: Buffer) => {
    rest = Buffer.concat([rest, bytes]);
    for (; rest.length >= MESSAGE_BYTES; rest = rest.subarray(MESSAGE_BYTES))
      arrived(rest.readUInt32BE(8), rest.readBigUInt64BE(0));
  };
  take(Buffer.alloc(0));
  socket.on("data", take);
}

/** What comes within the time; the whole blob, if it is soon enough. */
async function fetchTcp(host: string, port: number, limitMs: number): Promise<number> {
  const socket = connectTcp({ host, port, noDelay: true });
  await once(socket, "connect");
  socket.write(Buffer.of(GET));
  let bytes = 0;
  socket.on("data", (piece) => {
    bytes += piece.length;
  });
  await Promise.race([once(socket, "close"), delay(limitMs, undefined, { ref: false })]);
  socket.destroy();
  return bytes;
}

type ClientOptions = Parameters<typeof connectRudp>[1];

async function fetchRudp(options: ClientOptions, limitMs: number): Promise<number> {
  const { connection, close } = await connectRudp({ request: "get", name: "blob" }, options);
  let bytes = 0;
  connection.handlers.onReadable = () => {
    for (const piece of connection.take()) bytes += piece.length;
    if (connection.input?.isComplete) connection.finish();
  };
  await Promise.race([ended(connection), delay(limitMs, undefined, { ref: false })]);
  connection.fail("stopped", "seen enough");
  close();
  return bytes;
}

async function every(perSecond: number, count: number, say: (number: number, sentUs: bigint) => void) {
  const startMs = performance.now();
  for (let number = 0; number < count; number++) {
    say(number, nowUs());
    await delay(Math.max(0, startMs + ((number + 1) * 1000) / perSecond - performance.now()));
  }
}

async function talkTcp(host: string, port: number, perSecond: number, count: number): Promise<void> {
  const socket = connectTcp({ host, port, noDelay: true });
  await once(socket, "connect");
  socket.write(Buffer.of(TALK));
  await every(perSecond, count, (number, sentUs) => {
    const message = Buffer.alloc(MESSAGE_BYTES);
    message.writeBigUInt64BE(sentUs, 0);
    message.writeUInt32BE(number, 8);
    socket.write(message);
  });
  socket.end();
  await once(socket, "close");
}

async function talkRudp(options: ClientOptions, perSecond: number, count: number): Promise<void> {
  const { connection, close } = await connectRudp({ request: "events", name: "" }, options);
  const end = ended(connection);
  await Promise.race([
    end,
    new Promise<void>((resolve) => {
      connection.handlers.onAccepted = () => resolve();
    }),
  ]);
  const body = Buffer.alloc(MESSAGE_BYTES - 12);
  await every(perSecond, count, (number, sentUs) => connection.sendEvent(number, sentUs, body));
  while (connection.flight.sent.inFlight > 0) await delay(10);
  connection.finish();
  await end.finally(close);
}

await program({
  summary: "Serves, fetches or talks without files, by this protocol or TCP, for comparisons.",
  example: "serve --transport tcp --port 0 --bytes 1000000",
  settings: {
    role: setting(oneOf("serve", "fetch", "talk"), "serve, fetch or talk", undefined, { positional: true }),
    transport: setting(oneOf("rudp", "tcp"), "rudp or tcp", "rudp" as const),
    ...listenAt(11_100),
    bytes: setting(integer(0), "size of what is served", 10_000_000),
    seconds: setting(integer(1), "fetch: stop after so many seconds", 3600),
    samples: flag("serve: tell window and round trips every 50 ms"),
    perSecond: setting(integer(1, 1000), "talk: messages a second", 30),
    count: setting(integer(1), "talk: messages", 300),
    ...CONNECTION_SETTINGS,
  },
  async run(settings, context) {
    const { role, transport, host, port, bytes, samples, perSecond, count } = settings;
    const { signal, log, ready } = context;
    const options = { host, port, signal, connection: connectionOptions(settings) };
    if (role === "serve" && transport === "tcp") return await serveTcp({ host, port, bytes }, context);
    if (role === "serve") {
      const { url, closed } = await serveRudp({ ...options, log }, (connection, token) =>
        serveOne(connection, token, bytes, samples),
      );
      ready(url);
      return await closed;
    }
    const limitMs = settings.seconds * 1000;
    const startMs = performance.now();
    const { user: userBefore, system: systemBefore } = process.cpuUsage();
    if (role === "talk") {
      await (transport === "tcp"
        ? talkTcp(host, port, perSecond, count)
        : talkRudp(options, perSecond, count));
      return;
    }
    const got = await (transport === "tcp" ? fetchTcp(host, port, limitMs) : fetchRudp(options, limitMs));
    if (got !== bytes && performance.now() - startMs < limitMs)
      throw new Failure(`${got} bytes came instead of ${bytes}`);
    const { user, system } = process.cpuUsage();
    report({
      bytes: got,
      ms: performance.now() - startMs,
      cpuMs: (user + system - userBefore - systemBefore) / 1000,
    });
  },
});
