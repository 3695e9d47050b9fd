/** Goodput against loss and round-trip time: every path, every contender in turn, several times over. */
import { median } from "../../shared/measure.ts";
import type { Chart, Series } from "../../shared/plot.ts";
import type { Running } from "../../shared/running.ts";
import {
  type Bench,
  CONTENDERS,
  type Contender,
  goodput,
  percent,
  print,
  serve,
  setPath,
} from "./contenders.ts";

/** One that does not mind loss on each side, and the usual one. */
const COMPARED = CONTENDERS.filter(({ name }) => name !== "ours, newreno");

/** MB/s of each contender's runs, over one path. */
interface Row {
  rttMs: number;
  loss: number;
  runs: ReadonlyMap<Contender, number[]>;
}

export async function measureGoodput(
  bench: Bench,
  rttsMs: readonly number[],
  losses: readonly number[],
): Promise<Row[]> {
  await setPath(bench, rttsMs[0] ?? 0, 0);
  const servers = new Map<Contender, Running>();
  try {
    for (const contender of COMPARED) {
      const server = await serve(bench.link, contender);
      servers.set(contender, server);
      await goodput(bench.link, server, contender, bench.sizes.seconds); // does not count: Node compiles what it runs often
    }
    const rows: Row[] = [];
    for (const rttMs of rttsMs)
      for (const loss of losses) rows.push(await measureRow(bench, servers, rttMs, loss));
    return rows;
  } finally {
    for (const server of servers.values()) await server[Symbol.asyncDispose]();
  }
}

async function measureRow(
  bench: Bench,
  servers: ReadonlyMap<Contender, Running>,
  rttMs: number,
  loss: number,
): Promise<Row> {
  const { link, sizes, log } = bench;
  await setPath(bench, rttMs, loss);
  const runs = new Map<Contender, number[]>(COMPARED.map((contender) => [contender, []]));
  for (let run = 0; run < sizes.runs; run++)
    for (const [contender, server] of servers)
      runs.get(contender)?.push(await goodput(link, server, contender, sizes.seconds));
  const each = [...runs].map(([{ name }, own]) => `${name} ${shown(own)}`);
  log(`RTT ${rttMs} ms, loss ${percent(loss)}: ${each.join(", ")} MB/s`);
  return { rttMs, loss, runs };
}

const shown = (runs: readonly number[]) =>
  `${median(runs).toFixed(2)} (${Math.min(...runs).toFixed(2)}–${Math.max(...runs).toFixed(2)})`;

export function printGoodput(rows: readonly Row[], { rate, sizes }: Bench): void {
  print(
    `Goodput in MB/s, median (least–most) of ${sizes.runs} runs of ${sizes.seconds} s in turn; the link carries ${rate / 1e6} MB/s with IP headers:`,
  );
  print();
  print(`| RTT | loss each way | ${COMPARED.map(({ name }) => name).join(" | ")} |`);
  print(`|---|---|${COMPARED.map(() => "---|").join("")}`);
  for (const { rttMs, loss, runs } of rows)
    print(`| ${rttMs} ms | ${percent(loss)} | ${[...runs.values()].map(shown).join(" | ")} |`);
  print();
}

export function goodputCharts(rows: readonly Row[], { rate }: Bench): Chart[] {
  const rttsMs = [...new Set(rows.map(({ rttMs }) => rttMs))];
  return rttsMs.map((rttMs) => {
    const own = rows.filter((row) => row.rttMs === rttMs);
    const series = COMPARED.map((contender): Series => {
      const runs = own.map(({ loss, runs }) => ({ loss, each: runs.get(contender) ?? [] }));
      return {
        name: contender.name,
        points: runs.map(({ loss, each }) => [loss * 100, median(each)]),
        errors: runs.map(({ each }) => [Math.min(...each), Math.max(...each)] as const),
      };
    });
    return {
      title: `Goodput against loss, RTT ${rttMs} ms, link ${rate / 1e6} MB/s`,
      x: { name: "loss each way (%)" },
      y: { name: "MB/s", min: 0 },
      series,
    };
  });
}
