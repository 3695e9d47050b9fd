/** Messages delivered a second to 500 receivers, and 1,000 clients' arrival, beside ngircd. */
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectSocket, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { integer, setting } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { freePort } from "../../shared/free-port.ts";
import { type Contender, compare, ROUNDS, standingsTable } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { cpuTimeMs, isInstalled, pinned, Running, start, within } from "../../shared/running.ts";
import { Crowd } from "./crowd.ts";
import { ScriptedClient } from "./scripted-client.ts";

/** Lines ahead of the slowest receiver: one, as in a conversation, and so many that ngircd's 64 kB a receiver hold them. */
const LOADS = [
  { title: "one message at a time", window: 1, lines: 60 },
  { title: "pipelined, 400 messages ahead", window: 400, lines: 4000 },
];
const ARRIVING = 1000;
const ARRIVING_AT_ONCE = 50;

interface Peer {
  name: string;
  running: Running;
  port: number;
}

/** Without penalties for floods, look-ups of names and limits for an address: what is measured is the passing on. */
const ngircdConfig = (port: number) => `
[Global]
Name = irc.bench.example
Info = bench
Listen = 127.0.0.1
Ports = ${port}
[Limits]
MaxConnections = 0
MaxConnectionsIP = 0
MaxJoins = 0
MaxNickLength = 16
MaxPenaltyTime = 0
[Options]
DNS = no
Ident = no
PAM = no
`;

async function startNgircd(folder: string, pin: readonly string[]): Promise<Peer> {
  const port = await freePort();
  const config = join(folder, "ngircd.conf");
  writeFileSync(config, ngircdConfig(port));
  const [command = "", ...args] = [...pin, "ngircd", "--nodaemon", "--config", config];
  const running = new Running(command, args, {});
  for (let attempt = 0; attempt < 100; attempt++) {
    const client = await ScriptedClient.as("probe", port).catch(() => undefined);
    if (client !== undefined) {
      await client[Symbol.asyncDispose]();
      return { name: "ngircd", running, port };
    }
    await sleep(50);
  }
  await running[Symbol.asyncDispose]();
  throw new Failure(`ngircd does not answer: ${running.stderr}${running.stdout}`);
}

/** Connects clients and waits for each one's welcome; clients a second. They leave again. */
async function arrive(port: number): Promise<number> {
  const sockets: Socket[] = [];
  const begin = performance.now();
  let next = 0;
  async function one(): Promise<void> {
    while (next < ARRIVING) {
      const nick = `n${next++}`;
      const socket = connectSocket({ port, host: "127.0.0.1", noDelay: true });
      sockets.push(socket);
      let text = "";
      const welcomed = new Promise<void>((resolve, reject) => {
        socket
          .once("error", reject)
          .once("close", () => reject(new Failure(`${nick} was turned away: ${text}`)));
        socket.on("data", (chunk: Buffer) => {
          text += chunk.toString("latin1");
          if (/ (?:376|422) /.test(text)) resolve();
        });
      });
      socket.write(`NICK ${nick}\r\nUSER ${nick} 0 * :${nick}\r\n`);
      await within(welcomed, `the welcome of ${nick}`);
    }
  }
  await Promise.all(Array.from({ length: ARRIVING_AT_ONCE }, one));
  const perSecond = ARRIVING / ((performance.now() - begin) / 1000);
  await Promise.all(
    sockets.map(async (socket) => {
      socket.removeAllListeners("close");
      const closed = once(socket, "close");
      socket.end("QUIT\r\n");
      await within(closed, "the end of a client");
    }),
  );
  return perSecond;
}

async function measureCrowds(
  peers: readonly Peer[],
  receivers: number,
  rounds: number,
  log: (line: string) => void,
) {
  const crowds = new Map<Peer, Crowd>();
  try {
    for (const peer of peers) crowds.set(peer, await Crowd.gather(peer.port, receivers));
    for (const { title, window, lines } of LOADS) {
      log(`${title} …`);
      const spent = new Map<string, number[]>();
      const contenders = peers.map(
        (peer): Contender => ({
          name: peer.name,
          run: async () => {
            const before = cpuTimeMs(peer.running.child.pid);
            const perSecond = await (crowds.get(peer) as Crowd).say(lines, window);
            const each = ((cpuTimeMs(peer.running.child.pid) - before) * 1000) / (lines * receivers);
            spent.set(peer.name, [...(spent.get(peer.name) ?? []), each]);
            return perSecond;
          },
        }),
      );
      const standings = await compare(contenders, rounds);
      process.stdout.write(
        `${standingsTable(`${receivers} receivers, ${title}`, "deliveries/s", standings)}\n\n`,
      );
      for (const [name, values] of spent) {
        const mean = values.slice(1).reduce((sum, value) => sum + value, 0) / (values.length - 1);
        log(`${name}: ${mean.toFixed(2)} µs of CPU time a delivery`);
      }
    }
  } finally {
    for (const crowd of crowds.values()) await crowd[Symbol.asyncDispose]();
  }
}

await program({
  summary: "Measures the chat server beside ngircd: deliveries to many receivers, and arrivals.",
  example: "--rounds 5",
  settings: {
    rounds: ROUNDS,
    receivers: setting(integer(2, 5000), "members of the channel", 500),
  },
  async run({ rounds, receivers }, { log }) {
    const pin = pinned(1);
    const folder = mkdtempSync(join(tmpdir(), "netlab-chat-bench-"));
    const peers: Peer[] = [];
    try {
      if (isInstalled("ngircd")) peers.push(await startNgircd(folder, pin));
      else log("missing: ngircd");
      const ours = await start("exercises/09-chat/server.ts", ["--port", 0, "--flood-rate", 0], {
        wrapper: pin,
      });
      peers.push({ name: "ours", running: ours, port: ours.port });
      await measureCrowds(peers, receivers, rounds, log);
      log(`${ARRIVING} clients arrive …`);
      const contenders = peers.map(({ name, port }): Contender => ({ name, run: () => arrive(port) }));
      const standings = await compare(contenders, rounds);
      process.stdout.write(`${standingsTable(`${ARRIVING} clients arrive`, "clients/s", standings)}\n`);
    } finally {
      for (const { running } of peers) {
        running.kill("SIGTERM");
        await running.exited;
      }
      rmSync(folder, { recursive: true });
    }
  },
});
