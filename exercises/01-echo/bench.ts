/**
 * Our servers beside others, under the same load: round trips a second and MB/s over TCP, datagrams a second over
 * UDP. The load is a C program, which checks every byte that comes back (`bench-load.c`): with one in Node, the
 * load would be what is measured.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure } from "../../shared/errors.ts";
import { type Contender, compare, ROUNDS, type Standing, standingsTable } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { isInstalled, pinned, Running, runTool, start } from "../../shared/running.ts";

const HERE = import.meta.dirname;
const CLIENTS = 64;
const MESSAGE_BYTES = 64;
const BULK_MEBIBYTES = 512;
const SECONDS = 1;

type Transport = "tcp" | "udp";
/** Starts a server that prints a ready line as ours do. */
type Peer = { name: string; serve: (transport: Transport) => Promise<Running> };

const ASYNCIO = `
import asyncio, sys

class Stream(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)
    def pause_writing(self):
        self.transport.pause_reading()
    def resume_writing(self):
        self.transport.resume_reading()

class Datagram(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, address):
        self.transport.sendto(data, address)

async def main(kind):
    loop = asyncio.get_running_loop()
    if kind == "tcp":
        socket = (await loop.create_server(Stream, "127.0.0.1", 0)).sockets[0]
    else:
        endpoint, _ = await loop.create_datagram_endpoint(Datagram, ("127.0.0.1", 0))
        socket = endpoint.get_extra_info("socket")
    print(f"listening on {kind}://127.0.0.1:{socket.getsockname()[1]}", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1]))
`;

/** The shortest servers that Node can be given; `pipe` respects backpressure. */
const PLAIN_NODE = `
const ready = (server) => console.log("listening on x://127.0.0.1:" + server.address().port);
if (process.argv[1] === "tcp") {
  const options = { allowHalfOpen: true, noDelay: true };
  const server = require("node:net").createServer(options, (socket) => socket.pipe(socket));
  server.listen(0, "127.0.0.1", () => ready(server));
} else {
  const socket = require("node:dgram").createSocket("udp4");
  socket.on("message", (datagram, from) => socket.send(datagram, from.port, from.address));
  socket.bind(0, "127.0.0.1", () => ready(socket));
}
`;

async function startTool(command: readonly string[]): Promise<Running> {
  const [file = "", ...args] = command;
  const running = new Running(file, args, {});
  await running.output(/^listening on .*\n/m);
  return running;
}

async function compiled(folder: string, name: string): Promise<string> {
  const program = join(folder, name);
  const { code, stderr } = await runTool("cc", ["-O2", "-o", program, join(HERE, `${name}.c`)]);
  if (code !== 0) throw new Failure(`cannot compile ${name}.c: ${stderr}`);
  return program;
}

/** One run of the load against a new server. */
async function load(
  peer: Peer,
  transport: Transport,
  command: readonly string[],
  args: readonly (string | number)[],
): Promise<number> {
  await using server = await peer.serve(transport);
  const words = [...command, ...args.map((arg) => String(arg === "PORT" ? server.port : arg))];
  const { code, stdout, stderr } = await runTool(words[0] ?? "", words.slice(1));
  if (code !== 0) throw new Failure(`${peer.name} is no echo server: ${stderr}`);
  return Number(stdout);
}

async function bench(folder: string, log: (line: string) => void, rounds: number): Promise<string[]> {
  const epoll = await compiled(folder, "bench-epoll");
  const generator = [...pinned(0), await compiled(folder, "bench-load")];
  const peers: Peer[] = [
    { name: "C, epoll", serve: (transport) => startTool([...pinned(1), epoll, transport]) },
    {
      name: "ours",
      serve: (transport) =>
        start(`exercises/01-echo/${transport}-server.ts`, ["--port", 0], { wrapper: pinned(1) }),
    },
    {
      name: "Node, plain (pipe, send)",
      serve: (transport) => startTool([...pinned(1), process.execPath, "-e", PLAIN_NODE, transport]),
    },
  ];
  if (isInstalled("python3")) {
    const serve = (transport: Transport) => startTool([...pinned(1), "python3", "-c", ASYNCIO, transport]);
    peers.push({ name: "Python, asyncio", serve });
  } else log("missing: python3");

  const measure = (transport: Transport, ...args: (string | number)[]): Promise<Standing[]> =>
    compare(
      peers.map(
        (peer): Contender => ({ name: peer.name, run: () => load(peer, transport, generator, args) }),
      ),
      rounds,
    );
  const job = `${CLIENTS} clients, ${MESSAGE_BYTES} bytes`;
  const sizes = [CLIENTS, MESSAGE_BYTES, SECONDS];
  log("round trips over TCP …");
  const trips = standingsTable(`TCP, ${job}`, "round trips/s", await measure("tcp", "tcp", "PORT", ...sizes));
  log("bulk over TCP …");
  const bulk = standingsTable(
    `TCP, ${BULK_MEBIBYTES} MiB there and back`,
    "MB/s",
    await measure("tcp", "bulk", "PORT", BULK_MEBIBYTES),
  );
  log("datagrams …");
  const udp = standingsTable(`UDP, ${job}`, "datagrams/s", await measure("udp", "udp", "PORT", ...sizes));
  return [trips, bulk, udp];
}

await program({
  summary: "Measures the echo servers beside a C program around epoll, Python's asyncio and plain Node.",
  example: "",
  settings: { rounds: ROUNDS },
  async run({ rounds }, { log }) {
    if (!isInstalled("cc")) {
      throw new Failure("cannot measure: the load and the yardstick are C, and cc is missing; install gcc");
    }
    const folder = mkdtempSync(join(tmpdir(), "netlab-echo-"));
    try {
      process.stdout.write(`${(await bench(folder, log, rounds)).join("\n\n")}\n`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
});
