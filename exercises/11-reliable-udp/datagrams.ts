/** Bare datagrams from one process to another, with nothing to make sure that they arrive: the runtime's ceiling. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { integer, oneOf, setting } from "../../shared/config.ts";
import { listenAt, program } from "../../shared/program.ts";
import { enlargeBuffers } from "../../shared/udp.ts";
import { BASE_MTU } from "./protocol.ts";

/** In a turn: as many as a window would let go. */
const BURST = 64;
const SILENCE_MS = 500;
const processorMs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/** Counts until nothing more comes. */
async function receive(host: string, ready: (url: string) => void): Promise<void> {
  const socket = createSocket("udp4").bind(0, host);
  await once(socket, "listening");
  enlargeBuffers(socket, 4 * 2 ** 20);
  let [bytes, firstMs, lastMs, beforeMs] = [0, 0, 0, 0];
  const silence = setTimeout(() => socket.close(), 60_000);
  socket.on("message", (datagram) => {
    lastMs = performance.now();
    if (bytes === 0) {
      [firstMs, beforeMs] = [lastMs, processorMs()];
      const look = setInterval(() => {
        if (performance.now() - lastMs < SILENCE_MS) return;
        clearInterval(look);
        clearTimeout(silence);
        socket.close();
      }, SILENCE_MS);
    }
    bytes += datagram.length;
  });
  ready(`udp://${host}:${socket.address().port}`);
  await once(socket, "close");
  process.stdout.write(
    `${bytes} bytes, ${(lastMs - firstMs).toFixed(1)} ms, ${(processorMs() - beforeMs).toFixed(1)} ms of processor\n`,
  );
}

async function send(host: string, port: number, count: number, size: number): Promise<void> {
  const socket = createSocket("udp4");
  socket.connect(port, host);
  await once(socket, "connect");
  const beforeMs = processorMs();
  for (let sent = 0; sent < count; sent += BURST) {
    for (let i = 1; i < BURST; i++) socket.send(Buffer.allocUnsafe(size));
    await new Promise((resolve) => socket.send(Buffer.allocUnsafe(size), resolve));
  }
  socket.close();
  process.stdout.write(`${(processorMs() - beforeMs).toFixed(1)} ms of processor\n`);
}

await program({
  summary: "Sends or counts bare datagrams.",
  example: "receive",
  settings: {
    role: setting(oneOf("receive", "send"), "receive or send", undefined, { positional: true }),
    ...listenAt(0),
    count: setting(integer(1), "datagrams to send", 100_000),
    size: setting(integer(1, 65_507), "bytes of each", BASE_MTU),
  },
  async run({ role, host, port, count, size }, { ready }) {
    await (role === "receive" ? receive(host, ready) : send(host, port, count, size));
  },
});
