/** Programs beside each other: alternating runs, medians, ratios. Absolute times drift on a shared machine, ratios hold. */
import { readFileSync } from "node:fs";
import { integer, setting } from "./config.ts";

/** What every bench can be told. */
export const ROUNDS = setting(integer(1, 100), "runs of each that count", 5);

/** The most memory that a process has had, in MiB; not a number where it has ended, or Linux's /proc is missing. */
export function peakMebibytes(pid: number | undefined): number {
  try {
    const kilobytes = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1];
    return Number(kilobytes) / 1024;
  } catch {
    return Number.NaN;
  }
}

export interface Contender {
  name: string;
  /** Does the work once, checks that it was really done, and returns the figure. */
  run: () => Promise<number>;
}

export interface Standing {
  name: string;
  median: number;
  /** The median of this one's figure over the first's, pair by pair. */
  ratio: number;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** Runs all in turn (A B C A B C …) after one round that does not count. The first is what the others are compared with. */
export async function compare(contenders: readonly Contender[], rounds: number): Promise<Standing[]> {
  const figures: number[][] = contenders.map(() => []);
  for (let round = 0; round <= rounds; round++) {
    for (const [i, { run }] of contenders.entries()) {
      const figure = await run();
      if (round > 0) figures[i]?.push(figure);
    }
  }
  return contenders.map(({ name }, i) => {
    const own = figures[i] ?? [];
    return {
      name,
      median: median(own),
      ratio: median(own.map((figure, r) => figure / (figures[0]?.[r] ?? Number.NaN))),
    };
  });
}

/** A Markdown table of the standings; `unit` says what the figures are. */
export function standingsTable(title: string, unit: string, standings: readonly Standing[]): string {
  const rows = standings.map(
    ({ name, median, ratio }) =>
      `| ${name} | ${median.toLocaleString("en", { maximumSignificantDigits: 4 })} | ${ratio.toFixed(2)} |`,
  );
  return [`| ${title} | ${unit}, median | ratio to the first |`, "|---|---|---|", ...rows].join("\n");
}
