/**
 * This protocol beside the kernel's TCP over the same path: two network namespaces joined by a link of `shared/link.ts`, through
 * which both run alike (Linux, root, `ip`, `socat`). Goodput against loss, window and round trips over time, and the
 * latency of 30 messages a second. Where such a path cannot be had nothing is compared.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { flag, integer, many, oneOf, optional, setting, share, text } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { type NamespaceLink, namespaceLink, namespacesMissing } from "../../shared/namespaces.ts";
import { type Chart, type Series, svgOf } from "../../shared/plot.ts";
import { program } from "../../shared/program.ts";
import {
  at,
  type Bench,
  CONTENDERS,
  type Contender,
  chooseCongestion,
  client,
  goodput,
  linesOf,
  percent,
  print,
  profile,
  serve,
  setPath,
} from "./contenders.ts";
import { goodputCharts, measureGoodput, printGoodput } from "./goodput.ts";

const RTTS_MS = [20, 100, 2];
const LOSSES = [0, 0.001, 0.01, 0.05, 0.1];

/** How much is measured; the short form gives the same rows in five minutes. */
const SIZES = {
  long: { runs: 3, seconds: 3, messages: 450, timelineSeconds: 8, sharingSeconds: 10 },
  short: { runs: 2, seconds: 2, messages: 240, timelineSeconds: 5, sharingSeconds: 5 },
};
const MESSAGES = { perSecond: 30, lossShare: 0.05, rttMs: 100 };
const TIMELINE = { lossShare: 0.01, rttMs: 20 };
const SHARING = { rttMs: 20, headStartMs: 2000 };

const [RUDP, TCP] = ["rudp", "tcp"].map((transport) =>
  CONTENDERS.filter((one) => one.transport === transport),
) as [Contender[], Contender[]];
/** Each of ours beside each of the kernel's, and the kernel's beside each other, for comparison. */
const PAIRS = [
  ...RUDP.flatMap((one) => TCP.map((other) => [one, other] as const)),
  TCP as [Contender, Contender],
];

/** Two through the bottleneck at once: neither may starve the other. */
async function measureSharing(bench: Bench): Promise<void> {
  const { link, log } = bench;
  const { rttMs } = SHARING;
  const seconds = bench.sizes.sharingSeconds;
  await setPath(bench, rttMs, 0);
  print(`Two at once, each for ${seconds} s, RTT ${rttMs} ms, no loss but the queue's, in MB/s:`);
  print();
  print("| first | 2 s later | first got | second got | Jain's index |");
  print("|---|---|---|---|---|");
  for (const [one, other] of PAIRS) {
    await using first = await serve(link, one);
    await using second = await serve(link, other);
    const running = goodput(link, first, one, seconds);
    // The route's congestion control is that of the first until it is connected.
    const later = delay(SHARING.headStartMs).then(() => goodput(link, second, other, seconds));
    const [a, b] = await Promise.all([running, later]);
    const jain = (a + b) ** 2 / (2 * (a * a + b * b));
    const row = [one.name, other.name, a.toFixed(2), b.toFixed(2), jain.toFixed(2)];
    log(row.join(" "));
    print(`| ${row.join(" | ")} |`);
  }
  print();
}

type Point = [atS: number, windowKiB: number, rttMs: number];

/** The kernel's own word on its connection, by `ss`. */
async function askKernel(
  link: NamespaceLink,
  { name, congestion }: Contender,
  startMs: number,
): Promise<Point | undefined> {
  const { stdout } = await at(link.server, ["ss", "-tin", "state", "established"]);
  const number = (pattern: RegExp) => Number(pattern.exec(stdout)?.[1] ?? Number.NaN);
  const window = number(/ cwnd:(\d+)/) * number(/ mss:(\d+)/);
  if (Number.isNaN(window)) return undefined;
  if (!stdout.includes(` ${congestion} `)) throw new Failure(`${name} does not run ${congestion}: ${stdout}`);
  return [(performance.now() - startMs) / 1000, window / 1024, number(/ rtt:([\d.]+)/)];
}

async function timeline({ link, sizes }: Bench, contender: Contender): Promise<Point[]> {
  await using server = await serve(link, contender);
  const running = goodput(link, server, contender, sizes.timelineSeconds);
  const points: Point[] = [];
  let isOver = false;
  const end = running.finally(() => {
    isOver = true;
  });
  const startMs = performance.now();
  while (contender.transport === "tcp" && !isOver) {
    const point = await askKernel(link, contender, startMs);
    if (point) points.push(point);
    await Promise.race([delay(100), end]);
  }
  await end;
  const own = linesOf(server.stdout).filter(({ inFlightBytes = 0 }) => inFlightBytes > 0);
  const first = points[0]?.[0] ?? 0;
  return contender.transport === "tcp"
    ? points.map(([atS, window, rtt]) => [atS - first, window, rtt])
    : own.map(({ atMs = 0, windowBytes = 0, rttMs = 0 }) => [atMs / 1000, windowBytes / 1024, rttMs]);
}

async function measureTimelines(bench: Bench): Promise<Chart[]> {
  await setPath(bench, TIMELINE.rttMs, TIMELINE.lossShare);
  const lines: { name: string; points: Point[] }[] = [];
  for (const contender of CONTENDERS)
    lines.push({ name: contender.name, points: await timeline(bench, contender) });
  const of = (column: 1 | 2) =>
    lines.map(
      ({ name, points }): Series => ({ name, points: points.map((point) => [point[0], point[column]]) }),
    );
  const path = `RTT ${TIMELINE.rttMs} ms, loss ${percent(TIMELINE.lossShare)}, link ${bench.rate / 1e6} MB/s`;
  return [
    { title: `Congestion window: ${path}`, x: { name: "time (s)" }, y: { name: "KiB" }, series: of(1) },
    { title: `Smoothed round trip: ${path}`, x: { name: "time (s)" }, y: { name: "ms" }, series: of(2) },
  ];
}

interface Talk {
  name: string;
  latenciesMs: number[];
}

/** What the article is about: each message as soon as it is there, or each after the one before. */
async function measureTalks(bench: Bench): Promise<Talk[]> {
  const { link, sizes } = bench;
  const { perSecond, lossShare, rttMs } = MESSAGES;
  const count = sizes.messages;
  await setPath(bench, rttMs, lossShare);
  const talks: Talk[] = [];
  for (const contender of CONTENDERS) {
    await using server = await serve(link, contender);
    await chooseCongestion(link, contender);
    await client(link, server, [
      "talk",
      "--transport",
      contender.transport,
      "--per-second",
      perSecond,
      "--count",
      count,
      "--congestion",
      contender.transport === "rudp" ? contender.congestion : "bbr",
    ]);
    const giveUpMs = performance.now() + 10_000;
    const arrived = () => linesOf(server.stdout).filter((line) => "latencyMs" in line);
    while (arrived().length < count && performance.now() < giveUpMs) await delay(50);
    const lines = arrived();
    if (new Set(lines.map(({ number }) => number)).size !== count || lines.length !== count)
      throw new Failure(`${contender.name}: ${lines.length} messages of ${count} came`);
    talks.push({ name: contender.name, latenciesMs: lines.map(({ latencyMs = Number.NaN }) => latencyMs) });
  }
  return talks;
}

const quantile = (values: readonly number[], share: number) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ??
  Number.NaN;

function printTalks(talks: readonly Talk[]): void {
  const { perSecond, lossShare, rttMs } = MESSAGES;
  print(
    `${talks[0]?.latenciesMs.length} messages, ${perSecond} a second, RTT ${rttMs} ms, loss ${percent(lossShare)} each way: from sending to delivery, in ms:`,
  );
  print();
  print("| | median | 90 % | 99 % | longest | later than a round trip |");
  print("|---|---|---|---|---|---|");
  for (const { name, latenciesMs } of talks) {
    const at = (share: number) => quantile(latenciesMs, share).toFixed(0);
    const late = latenciesMs.filter((ms) => ms > rttMs).length;
    print(
      `| ${name} | ${at(0.5)} | ${at(0.9)} | ${at(0.99)} | ${at(1)} | ${percent(late / latenciesMs.length)} |`,
    );
  }
  print();
}

function talkChart(talks: readonly Talk[]): Chart {
  const { perSecond, lossShare, rttMs } = MESSAGES;
  const points = (latenciesMs: number[]): [number, number][] =>
    latenciesMs.toSorted((a, b) => a - b).map((ms, i) => [ms, (100 * (i + 1)) / latenciesMs.length]);
  return {
    title: `${perSecond} messages a second, RTT ${rttMs} ms, loss ${percent(lossShare)}`,
    x: { name: "delivered within (ms)", min: 0 },
    y: { name: "% of messages", min: 0, max: 100 },
    series: talks.map(
      ({ name, latenciesMs }): Series => ({ name, kind: "step", points: points(latenciesMs) }),
    ),
  };
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (error) {
    throw new Failure(`cannot make the folder ${path}`, { cause: error });
  }
}

await program({
  summary: "Compares this protocol with the kernel's TCP over the same path (Linux, root).",
  example: "--what messages",
  settings: {
    what: setting(
      oneOf("all", "goodput", "timeline", "messages", "sharing"),
      "what to measure",
      "all" as const,
    ),
    short: flag("all the same rows within five minutes: fewer and shorter runs"),
    runs: optional(integer(1, 100), "goodput: runs of each (3; short: 2)"),
    seconds: optional(integer(1, 600), "goodput: how long a run is (3; short: 2)"),
    rtt: many(integer(0, 10_000), "goodput: over such a round trip only, in ms; may be given several times"),
    loss: many(share, "goodput: with such a loss only; may be given several times"),
    rate: setting(integer(10, 50_000), "of the link, in kB/s", 1000),
    seed: setting(integer(0, 2 ** 30), "of the link", 11),
    plot: optional(text, "draw pictures as SVG into this folder"),
  },
  async run({ what, short, runs, seconds, rtt, loss, rate: kilobytes, seed, plot }, { log }) {
    const missing = namespacesMissing();
    if (missing !== undefined) throw new Failure(`cannot compare: ${missing}`);
    if (plot !== undefined) makeFolder(plot); // before anything is measured, not after, if that fails
    const rate = kilobytes * 1000;
    const path = profile(rate, RTTS_MS[0] ?? 0, 0);
    await using link = await namespaceLink({ toServer: path, toClient: path, seed });
    const usual = short ? SIZES.short : SIZES.long;
    const sizes = { ...usual, runs: runs ?? usual.runs, seconds: seconds ?? usual.seconds };
    const bench: Bench = { link, rate, sizes, log };
    const save = async (name: string, charts: readonly Chart[]) => {
      if (plot === undefined) return;
      const file = join(plot, `${name}.svg`);
      writeFileSync(file, await svgOf(charts));
      log(`wrote ${file}`);
    };
    if (what === "all" || what === "messages") {
      const talks = await measureTalks(bench);
      printTalks(talks);
      await save("messages", [talkChart(talks)]);
    }
    if (what === "all" || what === "timeline") await save("timeline", await measureTimelines(bench));
    if (what === "all" || what === "sharing") await measureSharing(bench);
    if (what === "all" || what === "goodput") {
      const rows = await measureGoodput(
        bench,
        rtt.length > 0 ? rtt : RTTS_MS,
        loss.length > 0 ? loss : LOSSES,
      );
      printGoodput(rows, bench);
      await save("goodput", goodputCharts(rows, bench));
    }
  },
});
