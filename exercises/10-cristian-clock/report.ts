/** What a measurement says of this machine's clock: as figures, text, JSON and picture. */
import { rename, writeFile } from "node:fs/promises";
import { median } from "../../shared/measure.ts";
import { svgOf } from "../../shared/plot.ts";
import { boundOf, type Sample } from "./cristian.ts";
import type { Reading } from "./system-clock.ts";
import type { Measurement } from "./time-client.ts";

/** In milliseconds; the true offset is within `boundMs` of this one. */
interface Offset {
  /** UTC less this machine's clock: positive where that is behind. */
  offsetMs: number;
  boundMs: number;
}

/** A sample against the machine's clock as it is now. */
export function offsetOf(sample: Sample, clock: Reading, leastOneWayMs: number, nowMs: number): Offset {
  const boundMs = boundOf(sample, leastOneWayMs, nowMs) + clock.errorMs;
  return { offsetMs: sample.offsetMs - clock.offsetMs, boundMs };
}

const signed = (ms: number) => `${ms < 0 ? "-" : "+"}${Math.abs(ms).toFixed(3)}`;
/** Rounded up, and by what rounding the offset may add. */
const bound = (ms: number) => `± ${(Math.ceil(ms * 1000 + 0.5) / 1000).toFixed(3)} ms`;

export function asText(measurement: Measurement, { offsetMs, boundMs }: Offset): string {
  const { samples, best, lost, ignored } = measurement;
  const machine = `this machine's clock is ${Math.abs(offsetMs).toFixed(3)} ms ${offsetMs < 0 ? "ahead" : "behind"}`;
  return [
    `offset ${signed(offsetMs)} ms ${bound(boundMs)}: ${machine}`,
    `round trip ${best.roundTripMs.toFixed(3)} ms, the least of ${samples.length} samples (${lost} lost, ${ignored} ignored); the server is right to ${best.serverErrorMs.toFixed(3)} ms`,
  ].join("\n");
}

export function asJson(
  measurement: Measurement,
  offset: Offset,
  each: readonly Offset[],
  utcMs: number,
): string {
  const { samples, best, lost, ignored } = measurement;
  return JSON.stringify({
    utc: new Date(utcMs).toISOString(),
    ...offset,
    roundTripMs: best.roundTripMs,
    serverErrorMs: best.serverErrorMs,
    lost,
    ignored,
    samples: samples.map((sample, i) => ({
      roundTripMs: sample.roundTripMs,
      ...each[i],
      chosen: sample === best,
    })),
  });
}

/** Where most of them lie: one sample of a busy moment would press all others into a line. In round figures. */
function rangeOf(each: readonly Offset[]): { min: number; max: number } {
  const middle = median(each.map(({ offsetMs }) => offsetMs));
  const half = 3 * median(each.map(({ boundMs }) => boundMs));
  const step = 10 ** Math.floor(Math.log10(half));
  const decimals = Math.max(0, -Math.log10(step));
  const [low, high] = [Math.floor((middle - half) / step) * step, Math.ceil((middle + half) / step) * step];
  return { min: Number(low.toFixed(decimals)), max: Number(high.toFixed(decimals)) };
}

/** Each sample's offset with its error bar, the chosen one marked. The file is whole or not there. */
export async function plot(
  path: string,
  { samples, best }: Measurement,
  each: readonly Offset[],
  from: string,
) {
  const startMs = samples[0]?.atMs ?? 0;
  const all = samples.map((sample, i) => ({ sample, ...(each[i] as Offset) }));
  const series = (name: string, chosen: boolean) => {
    const own = all.filter(({ sample }) => (sample === best) === chosen);
    return {
      name,
      kind: "points" as const,
      points: own.map(({ sample, offsetMs }) => [(sample.atMs - startMs) / 1000, offsetMs] as const),
      errors: own.map(({ offsetMs, boundMs }) => [offsetMs - boundMs, offsetMs + boundMs] as const),
    };
  };
  const svg = await svgOf([
    {
      title: `Offset of this machine's clock, by ${from}`,
      x: { name: "time (s)" },
      y: { name: "UTC less this clock (ms)", ...rangeOf(each) },
      series: [series("sample and its bound", false), series("chosen: least round trip", true)],
    },
  ]);
  await writeFile(`${path}.part`, svg);
  await rename(`${path}.part`, path);
}
