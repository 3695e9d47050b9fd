/**
 * How true the figures are beside others over one path, and how many probes a second there can be: with 1, 10 and 100
 * hosts, every round trip compared with what it was on the wire.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure } from "../../shared/errors.ts";
import { type Contender, compare, median, ROUNDS, standingsTable } from "../../shared/measure.ts";
import {
  type NamespaceEnd,
  type NamespaceLink,
  namespaceLink,
  namespacesMissing,
} from "../../shared/namespaces.ts";
import { program } from "../../shared/program.ts";
import { isInstalled, run } from "../../shared/running.ts";
import { addHosts, echoServers, hostAddress, kernelEstimates, npings, pings } from "./peers.ts";
import type { Transport } from "./probing.ts";
import { PORT } from "./protocol.ts";
import { percentile } from "./statistics.ts";
import { errorsOf, onTheWire } from "./wire.ts";

const RTT = "exercises/04-rtt/rtt.ts";
const PATH = { delayMs: 20 };
const TRANSPORTS = ["tcp", "udp"] as const;
const MOST_HOSTS = 100;
interface Row {
  sent: number;
  received: number;
  medianMs: number;
  ownDelayMs: number;
}

/** One run of the program at one end: its table in numbers. */
async function measured({ wrapper }: NamespaceEnd, args: readonly (string | number)[]): Promise<Row[]> {
  const { code, stdout, stderr } = await run(RTT, [...args, "--json"], { wrapper });
  if (code !== 0) throw new Failure(`rtt.ts failed: ${stderr}`);
  return (JSON.parse(stdout) as { results: Row[] }).results;
}

function contenders(link: NamespaceLink, log: (line: string) => void): Contender[] {
  const ours = (transport: Transport): Contender => ({
    name: `rtt.ts --${transport}`,
    run: async () => {
      const args = [`${link.server.address}:${PORT}`, `--${transport}`, "--seconds", 2, "--interval", 50];
      const [row] = await measured(link.client, args);
      if (row === undefined || row.received < 20) throw new Failure("too few round trips to compare");
      return row.medianMs;
    },
  });
  const peers: [name: string, tool: string, times: (link: NamespaceLink) => Promise<number[]>][] = [
    ["the kernel's handshakes (ss -ti)", "python3", kernelEstimates],
    ["ping", "ping", pings],
    ["nping --tcp", "nping", npings],
  ];
  const there = peers.filter(([name, tool]) => {
    if (!isInstalled(tool)) log(`missing: ${tool}, so there is no figure of ${name}`);
    return isInstalled(tool);
  });
  return [
    ...there.map(([name, , times]): Contender => ({ name, run: async () => median(await times(link)) })),
    ours("tcp"),
    ours("udp"),
  ];
}

/** A row for so many hosts: what the program said, less what it was on the wire. */
async function errorsWith(
  link: NamespaceLink,
  hosts: number,
  transport: Transport,
  csv: string,
): Promise<string> {
  const names = Array.from({ length: hosts }, (_, i) => `${hostAddress(i)}:${PORT}`);
  const seconds = hosts >= 100 ? 2 : 4;
  let rows: Row[] = [];
  rmSync(csv, { force: true });
  const wire = await onTheWire(link.client, PORT, async () => {
    rows = await measured(link.client, [
      ...names,
      `--${transport}`,
      "--seconds",
      seconds,
      "--interval",
      200,
      "--csv",
      csv,
    ]);
  });
  const sent = rows.reduce((sum, row) => sum + row.sent, 0);
  const errors = errorsOf(csv, wire, transport);
  if (errors === undefined || errors.length !== sent)
    throw new Failure(
      `${sent} sent, ${readFileSync(csv, "utf8").split("\n").length - 2} in the file, ${wire.length} on the wire`,
    );
  const figures = [Math.min(...errors), median(errors), percentile(errors, 95)].map((ms) => ms.toFixed(3));
  return `| ${hosts} | ${transport} | ${Math.round(sent / seconds)} | ${figures.join(" | ")} | ${rows[0]?.ownDelayMs.toFixed(3)} |`;
}

/** As many as it can, to itself at the far end: an interval that is shorter than it can keep. */
async function mostProbes({ server }: NamespaceLink, hosts: number, transport: Transport): Promise<string> {
  const [seconds, interval] = [2, Math.max(2, hosts / 5)];
  const names = Array.from({ length: hosts }, (_, i) => `${hostAddress(i)}:${PORT}`);
  const args = [...names, `--${transport}`, "--seconds", seconds, "--interval", interval];
  const rows = await measured(server, args);
  const sum = (of: (row: Row) => number) => rows.reduce((all, row) => all + of(row), 0);
  const [sent, received] = [sum((row) => row.sent), sum((row) => row.received)];
  if (received === 0) throw new Failure("nothing came back");
  return `| ${hosts} | ${transport} | ${(hosts * 1000) / interval} | ${Math.round(sent / seconds)} | ${Math.round(received / seconds)} |`;
}

await program({
  summary: "Measures the RTT meter's own error, beside ping, nping and the kernel, and against the wire.",
  example: "",
  settings: { rounds: ROUNDS },
  async run({ rounds }, { log }) {
    const missing = namespacesMissing();
    if (missing !== undefined) throw new Failure(`cannot make a path of known delay: ${missing}`);
    const folder = mkdtempSync(join(tmpdir(), "netlab-rtt-bench-"));
    try {
      await using link = await namespaceLink({ toServer: PATH, toClient: PATH, seed: 1 });
      await addHosts(link, MOST_HOSTS);
      await using _ = await echoServers(link.server);
      const standings = await compare(contenders(link, log), rounds);
      process.stdout.write(`${standingsTable("20 ms each way, a host", "median RTT, ms", standings)}\n\n`);
      const say = (line: string) => void process.stdout.write(`${line}\n`);
      say(
        "| hosts, each every 200 ms | by | probes a second | too long at least, ms | at median | at p95 | said: at most |",
      );
      say("|---|---|---|---|---|---|---|");
      for (const hosts of [1, 10, MOST_HOSTS])
        for (const by of TRANSPORTS) say(await errorsWith(link, hosts, by, join(folder, "errors.csv")));
      say(
        "\n| hosts, to itself | by | probes a second, wanted | sent | answered within 1 s |\n|---|---|---|---|---|",
      );
      for (const hosts of [1, 10, MOST_HOSTS])
        for (const by of TRANSPORTS) say(await mostProbes(link, hosts, by));
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
});
