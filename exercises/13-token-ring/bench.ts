/** Rounds of the turn a second, beside the least that carries a byte round sockets, and how a round grows with the ring. */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Failure } from "../../shared/errors.ts";
import { type Contender, compare, median, ROUNDS, standingsTable } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { isInstalled, runTool, within } from "../../shared/running.ts";
import { freePorts, LocalRing, loopback, nodeHere } from "./local-ring.ts";

const MEASURE_MS = 500;
const WARM_UP_MS = 200;
const file = (name: string) => join(import.meta.dirname, name);

/** Rounds a second of a counter that has begun to count. */
async function rate(rounds: () => number): Promise<number> {
  await delay(WARM_UP_MS);
  const [before, startMs] = [rounds(), performance.now()];
  await delay(MEASURE_MS);
  const perSecond = ((rounds() - before) * 1000) / (performance.now() - startMs);
  if (!(perSecond > 0)) throw new Failure("the turn does not go round");
  return perSecond;
}

/** Stations in this process, over TCP. */
async function inOneProcess(size: number): Promise<number> {
  const ids = Array.from({ length: size }, (_, id) => id);
  const members = loopback(ids, await freePorts(size));
  let round = 0;
  let begin = () => {};
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const onNote = (note: string) => {
    if (!note.startsWith("turn ")) return;
    round++;
    if (note !== `turn generation=1 issuer=0 round=${round}`)
      throw new Failure(`not round ${round}: ${note}`);
    begin();
  };
  const nodes = ids.map((id) => nodeHere({ id, members, idleHoldMs: 0 }, id === 0 ? onNote : () => {}));
  await within(begun, "the first turn");
  const perSecond = await rate(() => round);
  nodes[0]?.stop.abort();
  await within(Promise.all(nodes.map(({ ended }) => ended)), "the end of the ring");
  return perSecond;
}

/** A process each. They say nothing (a note a hop costs more than the hop), so the time is that of rounds until the end. */
async function inProcesses(size: number): Promise<number> {
  const rounds = 20_000;
  const timeMs = async (rounds: number) => {
    const ids = Array.from({ length: size }, (_, id) => id);
    await using ring = await LocalRing.of(ids);
    const start = (id: number, ...args: (string | number)[]) =>
      ring.start(id, ["--idle-hold", 0, ...args], [], false);
    await Promise.all(ids.slice(1).map((id) => start(id)));
    const zero = await start(0, "--finish-after-idle", rounds);
    const startMs = performance.now();
    const { code } = await within(zero.exited, "the end of the ring", 60_000);
    if (code !== 0) throw new Failure(`node 0 failed: ${zero.stderr}`);
    return performance.now() - startMs;
  };
  const onlyTheEndsMs = await timeMs(1);
  return (rounds * 1000) / ((await timeMs(rounds + 1)) - onlyTheEndsMs);
}

/** What this runtime needs to pass a byte on: no frames, no timers, no checks. */
async function bareSockets(size: number): Promise<number> {
  const out: Socket[] = [];
  let rounds = 0;
  let accepted = 0;
  const server = createServer({ noDelay: true }, (socket) => {
    const station = accepted++;
    socket.on("data", (byte) => {
      if (station === 0) rounds++;
      out[(station + 1) % size]?.write(byte);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  for (let i = 0; i < size; i++) {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    await once(socket, "connect");
    out.push(socket);
  }
  out[0]?.write("T");
  const perSecond = await rate(() => rounds);
  for (const socket of out) socket.destroy();
  server.close();
  return perSecond;
}

/** A yardstick that is told how many stations and how long, and prints its rounds a second. */
async function other(command: string, size: number, { script = "", option = "" } = {}): Promise<number> {
  const args = [script, `${size}`, `${MEASURE_MS}`, option].filter((arg) => arg !== "");
  const { code, stdout, stderr } = await runTool(command, args);
  if (code !== 0 || !(Number(stdout) > 0)) throw new Failure(`${command} failed: ${stderr}`);
  return Number(stdout);
}

await program({
  summary: "Measures the rounds of an idle turn, beside the least that carries a byte round sockets.",
  example: "",
  settings: { rounds: ROUNDS },
  async run({ rounds }, { log }) {
    const folder = await mkdtemp(join(tmpdir(), "netlab-pass-"));
    try {
      const pass = join(folder, "pass");
      const hasC =
        isInstalled("cc") && (await runTool("cc", ["-O2", "-o", pass, file("bench-pass.c")])).code === 0;
      const hasPython = isInstalled("python3");
      if (!hasC) log("missing: cc, so there is no C program beside it");
      if (!hasPython) log("missing: python3, so there is no asyncio beside it");
      for (const size of [4, 64]) {
        const contenders: Contender[] = [
          { name: "a byte, node:net, one process", run: () => bareSockets(size) },
          { name: "PAL, one process", run: () => inOneProcess(size) },
        ];
        if (size === 4) contenders.push({ name: "PAL, a process each", run: () => inProcesses(size) });
        if (hasPython)
          contenders.push({
            name: "a byte, Python asyncio, one process",
            run: () => other("python3", size, { script: file("bench-pass.py") }),
          });
        if (hasC) contenders.push({ name: "a byte, blocking C, one thread", run: () => other(pass, size) });
        if (hasC && size === 4)
          contenders.push({
            name: "a byte, blocking C, a process each",
            run: () => other(pass, size, { option: "processes" }),
          });
        const standings = await compare(contenders, rounds);
        process.stdout.write(`${standingsTable(`${size} stations`, "rounds a second", standings)}\n\n`);
      }
      process.stdout.write("| stations | a round takes | a hop takes |\n|---|---|---|\n");
      for (const size of [2, 4, 8, 16, 32, 64]) {
        const rates: number[] = [];
        for (let i = 0; i < 5; i++) rates.push(await inOneProcess(size));
        const roundMs = 1000 / median(rates);
        process.stdout.write(
          `| ${size} | ${roundMs.toFixed(2)} ms | ${((roundMs * 1000) / size).toFixed(0)} µs |\n`,
        );
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  },
});
