/** What runs on a schedule, by node-cron. What comes more often than once a second is for timers. */
import { schedule, validate } from "node-cron";
import type { Parse } from "./config.ts";
import { Failure } from "./errors.ts";

export const cronExpression: Parse<string> = (text) => {
  if (validate(text)) return text;
  throw new Failure("is not a schedule ([second] minute hour day month weekday), as */5 * * * * is");
};

/**
 * Calls `work` at the times that `cron` says, in UTC (in local time a schedule pauses in the hour that DST repeats), until
 * the signal.
 */
export function onSchedule(cron: string, signal: AbortSignal, work: () => void): void {
  if (signal.aborted) return;
  // node-cron would only log what a promise of the work's rejects with, where a bug has to be loud: it gets none.
  const task = schedule(cron, () => void work(), { timezone: "UTC", suppressMissedWarning: true });
  signal.addEventListener("abort", () => void task.destroy(), { once: true });
}
