/** Requests a second: the lab's PDU and RFC 867, beside RFC 867 as a plain Python program answers it. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { Failure } from "../../shared/errors.ts";
import { type Contender, compare, ROUNDS, standingsTable } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { needs, Running, start } from "../../shared/testing.ts";
import { readReply, requestFor } from "./protocol.ts";

const REQUESTS = 20_000;
/** Requests on their way at a time: fewer than a socket's buffer holds, so that none is lost. */
const WINDOW = 32;
const STALL_MS = 5000;

const PYTHON = `
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
print("listening on udp://127.0.0.1:%d" % s.getsockname()[1], flush=True)
while True:
    _, client = s.recvfrom(65536)
    s.sendto(time.strftime("%A, %B %d, %Y %H:%M:%S%z\\r\\n").encode("ascii"), client)`;

/** Sends so many requests, a window at a time, looks at every answer, and returns answers a second. */
async function load(
  port: number,
  requestAt: (index: number) => Buffer,
  check: (answer: Buffer, index: number) => void,
): Promise<number> {
  const socket = createSocket("udp4");
  socket.connect(port, "127.0.0.1");
  await once(socket, "connect");
  let [sent, received] = [0, 0];
  const startMs = performance.now();
  try {
    await new Promise<void>((resolve, reject) => {
      let before = 0;
      const stall = setInterval(() => {
        if (received === before) reject(new Failure(`${REQUESTS - received} answers are missing`));
        before = received;
      }, STALL_MS);
      const done = () => {
        clearInterval(stall);
        resolve();
      };
      socket.on("error", reject);
      socket.on("message", (answer) => {
        check(answer, received++);
        if (received === REQUESTS) done();
        else if (sent < REQUESTS) socket.send(requestAt(sent++));
      });
      while (sent < WINDOW) socket.send(requestAt(sent++));
    });
    return (REQUESTS * 1000) / (performance.now() - startMs);
  } finally {
    socket.close();
  }
}

function checkLine(answer: Buffer): void {
  if (answer.length < 30 || answer.at(-1) !== 10)
    throw new Failure(`no daytime line: ${answer.toString("latin1")}`);
}

const zones = Intl.supportedValuesOf("timeZone");
/** Answers come in the order of the requests: both sides are one queue on loopback. */
function checkReply(answer: Buffer, index: number): void {
  const { status, zone } = readReply(answer, index);
  if (status !== "ok" || zone !== zones[index % zones.length])
    throw new Failure(`request ${index}: ${status}, ${zone}`);
}

await program({
  summary: "Measures the daytime server beside a plain one in Python.",
  example: "",
  settings: { rounds: ROUNDS },
  async run({ rounds }, { log }) {
    await using server = await start("exercises/02-daytime/server.ts", ["--port", 0, "--zone", "UTC"], {
      servers: 2,
    });
    const empty = Buffer.alloc(0);
    const requests = Array.from({ length: REQUESTS }, (_, i) => requestFor(i, zones[i % zones.length] ?? ""));
    const contenders: Contender[] = [
      { name: "server.ts, RFC 867", run: () => load(server.port, () => empty, checkLine) },
      {
        name: "server.ts, 64-byte PDU, all zones in turn",
        run: () => load(server.port, (i) => requests[i] ?? empty, checkReply),
      },
    ];
    const { skip } = needs("python3");
    await using python = skip === undefined ? new Running("python3", ["-c", PYTHON], {}) : undefined;
    if (python === undefined) log(`Python's is missing: ${skip}`);
    else {
      await python.output(/^listening on .*\n/m);
      contenders.unshift({ name: "Python, RFC 867", run: () => load(python.port, () => empty, checkLine) });
    }
    const title = `${REQUESTS} requests over UDP, ${WINDOW} at a time`;
    process.stdout.write(`${standingsTable(title, "requests/s", await compare(contenders, rounds))}\n`);
  },
});
