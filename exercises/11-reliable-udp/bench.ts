/** Bytes a second over loopback, memory to memory, beside node:net and beside bare datagrams. */

import { integer, setting } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { type Contender, compare, standingsTable } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { cpuTimeMs, pinned, start } from "../../shared/running.ts";

const HERE = "exercises/11-reliable-udp";
const TOTAL_BYTES = 200_000_000;
const DATAGRAMS = 100_000;

interface Ran {
  bytesPerMs: number;
  bytesPerCpuMs: number;
}

/** A blob from one process to another; what both took of their processors, too. */
async function blob(args: readonly (string | number)[], bytes = TOTAL_BYTES): Promise<Ran> {
  const size = ["--bytes", bytes, ...args];
  await using server = await start(`${HERE}/blob.ts`, ["serve", "--port", 0, ...size], {
    wrapper: pinned(0),
  });
  const beforeMs = cpuTimeMs(server.child.pid);
  const to = ["--port", server.port, ...size];
  await using client = await start(`${HERE}/blob.ts`, ["fetch", ...to], { servers: 0, wrapper: pinned(1) });
  const { code } = await client.exited;
  if (code !== 0) throw new Failure(`the fetch failed: ${client.stderr}`);
  const result = JSON.parse(client.stdout) as { bytes: number; ms: number; cpuMs: number };
  if (result.bytes !== bytes) throw new Failure(`${result.bytes} bytes came`);
  const cpuMs = result.cpuMs + cpuTimeMs(server.child.pid) - beforeMs;
  return { bytesPerMs: bytes / result.ms, bytesPerCpuMs: bytes / cpuMs };
}

/** What the runtime carries in datagrams of 1,200 bytes, acknowledged by nobody: what arrives, of what is sent in a second. */
async function ceiling(): Promise<Ran> {
  await using receiver = await start(`${HERE}/datagrams.ts`, ["receive"], { wrapper: pinned(0) });
  const args = ["send", "--port", receiver.port, "--count", DATAGRAMS];
  await using sender = await start(`${HERE}/datagrams.ts`, args, { servers: 0, wrapper: pinned(1) });
  const { code } = await sender.exited;
  if (code !== 0) throw new Failure(`the sender failed: ${sender.stderr}`);
  const [, bytes = "", ms = "", received = ""] = await receiver.output(
    /^(\d+) bytes, ([\d.]+) ms, ([\d.]+) ms of processor$/m,
  );
  const [, sent = ""] = /([\d.]+) ms of processor/.exec(sender.stdout) ?? [];
  if (!(Number(bytes) > 0)) throw new Failure("no datagram arrived");
  return {
    bytesPerMs: Number(bytes) / Number(ms),
    bytesPerCpuMs: Number(bytes) / (Number(received) + Number(sent)),
  };
}

await program({
  summary: "Measures bytes a second over loopback, memory to memory, beside node:net and bare datagrams.",
  example: "--rounds 5",
  settings: { rounds: setting(integer(1, 100), "runs of each that count", 5) },
  async run({ rounds }, { log }) {
    log("missing: utp-native (npm) is a native module that is not installed here");
    const kinds: [string, () => Promise<Ran>][] = [
      ["node:net, plain stream", () => blob(["--transport", "tcp"])],
      [
        "ours, newreno, packets of up to 60,000 bytes",
        () => blob(["--mtu", 60_000, "--congestion", "newreno"]),
      ],
      ["ours, bbr, packets of up to 60,000 bytes", () => blob(["--mtu", 60_000])],
      ["bare datagrams of 1,200 bytes", () => ceiling()],
      ["ours, newreno, packets of 1,200 bytes", () => blob(["--congestion", "newreno"], TOTAL_BYTES / 4)],
      ["ours, bbr, packets of 1,200 bytes", () => blob([], TOTAL_BYTES / 4)],
    ];
    const cpu = new Map<string, number[]>();
    const contenders = kinds.map(
      ([name, run]): Contender => ({
        name,
        run: async () => {
          const { bytesPerMs, bytesPerCpuMs } = await run();
          cpu.set(name, [...(cpu.get(name) ?? []), bytesPerCpuMs]);
          return bytesPerMs / 1000;
        },
      }),
    );
    const standings = await compare(contenders, rounds);
    process.stdout.write(`${standingsTable("loopback", "MB/s", standings)}\n\n`);
    process.stdout.write(
      "| loopback | MB for each second of processor time at both ends, best |\n|---|---|\n",
    );
    for (const [name, figures] of cpu)
      process.stdout.write(`| ${name} | ${(Math.max(...figures) / 1000).toFixed(0)} |\n`);
  },
});
