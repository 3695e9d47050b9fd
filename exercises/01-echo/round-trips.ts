/** Asking again and again, as ping does: the time of each round trip, and a summary, whatever carries it. */
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { integer, optional } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { median } from "../../shared/measure.ts";

/** The longest that a timer of Node can run, in milliseconds: 24 days. */
export const LONGEST_MS = 2 ** 31 - 1;

export const repetition = {
  count: optional(integer(1), "send --data so many times, and print each round trip's time"),
  interval: optional(integer(0, LONGEST_MS), "with --count: milliseconds from one to the next"),
};

export interface RepeatOptions {
  count: number;
  /** From the start of one round trip to the start of the next. */
  intervalMs: number | undefined;
  signal: AbortSignal;
  log: (line: string) => void;
}

/**
 * Calls `ask` for the time in milliseconds of one round trip, or undefined where no answer came, which is no reason
 * to stop. Throws `Failure` when not all came back. Whatever ends it, the summary is given.
 */
export async function repeat(
  { count, intervalMs = 0, signal, log }: RepeatOptions,
  ask: () => Promise<number | undefined>,
): Promise<void> {
  const timesMs: number[] = [];
  let asked = 0;
  const askAll = async () => {
    while (asked < count) {
      const nextAt = performance.now() + intervalMs;
      asked++;
      const timeMs = await ask();
      log(`${asked}: ${timeMs === undefined ? "nothing came back" : milliseconds(timeMs)}`);
      if (timeMs !== undefined) timesMs.push(timeMs);
      const pauseMs = nextAt - performance.now();
      if (asked < count && pauseMs > 0) await sleep(pauseMs);
    }
  };
  try {
    await Promise.race([askAll(), once(signal, "abort")]);
  } finally {
    log(summary(asked, timesMs));
  }
  if (timesMs.length < asked) throw new Failure(`${asked - timesMs.length} of ${asked} did not come back`);
}

export function summary(asked: number, timesMs: readonly number[]): string {
  const sorted = timesMs.toSorted((a, b) => a - b);
  const outcome = `${sorted.length} of ${asked} came back`;
  const [min, max] = [sorted.at(0), sorted.at(-1)];
  if (min === undefined || max === undefined) return outcome;
  return `${outcome}: min ${milliseconds(min)}, median ${milliseconds(median(sorted))}, max ${milliseconds(max)}`;
}

const milliseconds = (timeMs: number) => `${timeMs.toFixed(3)} ms`;
