/** What the encryption and the shell cost: small commands, and a stream, beside the same without them. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { Failure } from "../../shared/errors.ts";
import { type Contender, compare, ROUNDS, standingsTable } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { connect } from "../../shared/tcp.ts";
import { LocalServer } from "./local-server.ts";
import { RemoteShell } from "./remote.ts";

const COMMANDS = 500;
const CONNECTIONS = 50;
const STREAM_BYTES = 200_000_000;
const STREAM = `head -c ${STREAM_BYTES} /dev/zero`;

const perSecond = (count: number, startMs: number) => (count * 1000) / (performance.now() - startMs);

/** `sh` on a plain socket, and nothing else: no login, no encryption, one channel, an exit code only if one asks for it. */
async function plainShell(): Promise<{ port: number; close: () => void }> {
  const server = createServer({ noDelay: true }, (socket) => {
    const shell = spawn("/bin/sh", ["-s"], { stdio: ["pipe", "pipe", "ignore"] });
    socket.pipe(shell.stdin);
    shell.stdout.pipe(socket);
    socket.on("error", () => {});
    socket.on("close", () => shell.kill("SIGKILL"));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, close: () => server.close() };
}

async function plainCommands(port: number): Promise<number> {
  const connection = await connect({ host: "127.0.0.1", port });
  const startMs = performance.now();
  for (let i = 0; i < COMMANDS; i++) {
    await connection.write(":; echo $?\n");
    if ((await connection.readLine(100)) !== "0") throw new Failure("the plain shell failed");
  }
  const figure = perSecond(COMMANDS, startMs);
  connection.destroy();
  return figure;
}

async function plainStream(port: number): Promise<number> {
  const connection = await connect({ host: "127.0.0.1", port });
  const startMs = performance.now();
  await connection.write(`${STREAM}\n`);
  for (let left = STREAM_BYTES; left > 0; ) left -= (await connection.read())?.length ?? left;
  const figure = perSecond(STREAM_BYTES / 1e6, startMs);
  connection.destroy();
  return figure;
}

async function commands(server: LocalServer): Promise<number> {
  await using remote = await server.remote();
  const startMs = performance.now();
  for (let i = 0; i < COMMANDS; i++) {
    if ((await remote.run(":", async () => {})) !== 0) throw new Failure("a command failed");
  }
  return perSecond(COMMANDS, startMs);
}

async function stream(server: LocalServer): Promise<number> {
  await using remote = await server.remote();
  let bytes = 0;
  const startMs = performance.now();
  await remote.run(STREAM, async (_, data) => {
    bytes += data.length;
  });
  if (bytes !== STREAM_BYTES) throw new Failure(`${bytes} bytes came instead of ${STREAM_BYTES}`);
  return perSecond(bytes / 1e6, startMs);
}

async function handshakes(port: number): Promise<number> {
  const startMs = performance.now();
  for (let i = 0; i < CONNECTIONS; i++) {
    const remote = await RemoteShell.connect({ host: "127.0.0.1", port });
    if (remote.greeted.hostKey.length !== 32) throw new Failure("no host key");
    remote.destroy();
  }
  return perSecond(CONNECTIONS, startMs);
}

async function connections(port: number): Promise<number> {
  const startMs = performance.now();
  for (let i = 0; i < CONNECTIONS; i++) (await connect({ host: "127.0.0.1", port })).destroy();
  return perSecond(CONNECTIONS, startMs);
}

await program({
  summary: "Measures the remote shell beside sh on a plain socket: small commands, a stream, handshakes.",
  example: "--rounds 5",
  settings: { rounds: ROUNDS },
  async run({ rounds }, { log }) {
    log("missing: ssh (needs an sshd that may be started here; not compared)");
    const plain = await plainShell();
    await using session = await LocalServer.start();
    await using login = await LocalServer.start(["--encrypt", "login"]);
    const table = async (title: string, unit: string, contenders: Contender[]) => {
      log(`${title} …`);
      process.stdout.write(`${standingsTable(title, unit, await compare(contenders, rounds))}\n\n`);
    };
    await table("the command `:`, one after the other", "commands/s", [
      { name: "sh on a plain socket", run: () => plainCommands(plain.port) },
      { name: "ours, --encrypt session", run: () => commands(session) },
      { name: "ours, --encrypt login", run: () => commands(login) },
    ]);
    await table(`head -c ${STREAM_BYTES} /dev/zero`, "MB/s", [
      { name: "sh on a plain socket", run: () => plainStream(plain.port) },
      { name: "ours, --encrypt session", run: () => stream(session) },
      { name: "ours, --encrypt login", run: () => stream(login) },
    ]);
    await table("connections, one after the other", "connections/s", [
      { name: "TCP alone", run: () => connections(session.port) },
      { name: "with both hellos", run: () => handshakes(session.port) },
    ]);
    plain.close();
  },
});
