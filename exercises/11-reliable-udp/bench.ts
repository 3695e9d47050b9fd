/** Bytes a second over loopback, memory to memory, beside node:net and beside bare datagrams. */

import { integer, setting } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { type Contender, compare, standingsTable } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { cpuTimeMs, pinned, start } from "../../shared/running.ts";

const HERE = "exercises/11-reliable-udp";
/** A second or two for each: less, and it is the compiler's warming up that is measured. */
const LARGE_BYTES = 1_000_000_000;
const SMALL_BYTES = 200_000_000;

interface Ran {
  bytesPerMs: number;
  bytesPerCpuMs: number;
}

/** A blob from one process to another; what both took of their processors, too. */
async function blob(args: readonly (string | number)[], bytes = LARGE_BYTES): Promise<Ran> {
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

/** What the runtime carries in datagrams that nobody checks or acknowledges: what arrives, of what is sent in a second. */
async function bare(size: number, count: number): Promise<Ran> {
  await using receiver = await start(`${HERE}/datagrams.ts`, ["receive"], { wrapper: pinned(0) });
  const args = ["send", "--port", receiver.port, "--count", count, "--size", size];
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
      ["bare datagrams of 60,000 bytes", () => bare(60_000, 40_000)],
      [
        "ours, newreno, packets of up to 60,000 bytes",
        () => blob(["--mtu", 60_000, "--congestion", "newreno"]),
      ],
      ["ours, bbr, packets of up to 60,000 bytes", () => blob(["--mtu", 60_000])],
      ["bare datagrams of 1,200 bytes", () => bare(1200, 400_000)],
      ["ours, newreno, packets of 1,200 bytes", () => blob(["--congestion", "newreno"], SMALL_BYTES)],
      ["ours, bbr, packets of 1,200 bytes", () => blob([], SMALL_BYTES)],
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
