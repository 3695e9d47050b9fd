/** A measurement as a picture: round trips over time, and their distribution. */
import type { Axis, Chart, Series } from "../../shared/plot.ts";
import type { Stream } from "./measurement.ts";
import type { Result } from "./probing.ts";
import { distribution, summarise } from "./statistics.ts";

/** More colours than these cannot be told apart. */
export const MAX_SERIES = 8;
/** Times that lie further apart than this are drawn on a logarithmic scale. */
const WIDE = 20;

const inSample = ({ outcome }: Result) => outcome === "received" || outcome === "lost";
const nameOf = ({ target, transport }: Stream) => `${target.name} ${transport}`;

/** One line for each host and transport; where a probe was lost the line is interrupted, and the share stays below 1. */
export function chartsOf(streams: readonly Stream[]): Chart[] {
  const shown = streams.slice(0, MAX_SERIES);
  const samples = shown.map((stream) => ({ name: nameOf(stream), results: stream.results.filter(inSample) }));
  const all = samples.flatMap(({ results }) => results);
  const { minMs, maxMs } = summarise(all.map(({ rttMs }) => rttMs));
  const scale: Pick<Axis, "scale"> = maxMs > WIDE * minMs ? { scale: "log" } : {};
  const startMs = all.reduce((first, { sentAtMs }) => Math.min(first, sentAtMs), Number.POSITIVE_INFINITY);
  const overTime = samples.map(
    ({ name, results }): Series => ({
      name,
      points: results.map(({ sentAtMs, rttMs }) => [
        (sentAtMs - startMs) / 1000,
        Number.isFinite(rttMs) ? rttMs : null,
      ]),
    }),
  );
  const shares = samples.map(
    ({ name, results }): Series => ({
      name,
      kind: "step",
      points: fromZero(distribution(results.map(({ rttMs }) => rttMs))),
    }),
  );
  return [
    {
      title: "Round-trip time (a gap is a lost probe)",
      x: { name: "time (s)", min: 0 },
      y: { name: "RTT (ms)", ...scale },
      series: overTime,
    },
    {
      title: "Distribution of the round-trip times",
      x: { name: "RTT (ms)", ...scale },
      y: { name: "share of probes at or below", min: 0, max: 1 },
      series: shares,
    },
  ];
}

/** The first step rises from the axis. */
const fromZero = (steps: readonly [x: number, y: number][]) =>
  steps
    .slice(0, 1)
    .map(([x]): [number, number] => [x, 0])
    .concat(steps);
