/** Keeps a disciplined clock: measures on a schedule, and corrects the clock without setting it. */
import { explain, isFailure } from "../../shared/errors.ts";
import { onSchedule } from "../../shared/schedule.ts";
import { boundOf } from "./cristian.ts";
import { type Discipline, read, update } from "./discipline.ts";
import { type Asking, measure } from "./time-client.ts";

interface Watching extends Asking {
  cron: string;
  leastOneWayMs: number;
  json: boolean;
  signal: AbortSignal;
  print: (line: string) => void;
  log: (line: string) => void;
}

/** Until the signal. A measurement that fails costs a line; the clock runs on at the rate that it has. */
export async function watch(watching: Watching): Promise<void> {
  const { cron, signal, log } = watching;
  let discipline: Discipline | undefined;
  let busy = false;
  let crash: (error: unknown) => void;
  const bug = new Promise<never>((_, reject) => {
    crash = reject;
  });

  const synchronise = async () => {
    if (busy) return; // the last has not ended yet
    busy = true;
    try {
      discipline = await correctedBy(watching, discipline);
    } catch (error) {
      if (!isFailure(error)) return crash(error);
      if (!signal.aborted) log(`${discipline ? "runs on alone" : "not synchronised"}: ${explain(error)}`);
    } finally {
      busy = false;
    }
  };
  onSchedule(cron, signal, () => void synchronise());
  void synchronise();
  const stopped = new Promise<void>((resolve) =>
    signal.addEventListener("abort", () => resolve(), { once: true }),
  );
  await Promise.race([stopped, bug]);
}

async function correctedBy(watching: Watching, before: Discipline | undefined): Promise<Discipline> {
  const { best } = await measure(watching);
  const nowMs = performance.now();
  const boundMs = boundOf(best, watching.leastOneWayMs, nowMs);
  const { discipline, behindMs, drift } = update(
    before,
    { atMs: best.atMs, offsetMs: best.offsetMs, boundMs },
    nowMs,
  );
  const { clock } = discipline;
  const time = new Date(read(clock, nowMs)).toISOString();
  const [ppm, ppmBound] = [(drift?.rate ?? 0) * 1e6, (drift?.bound ?? 0) * 1e6];
  const slewMs = clock.slewEndMs - clock.baseMs;
  if (watching.json) {
    const driftOrNot = drift && { driftPpm: ppm, driftBoundPpm: ppmBound };
    watching.print(
      JSON.stringify({
        utc: time,
        clockMs: read(clock, nowMs),
        behindMs,
        boundMs,
        ...driftOrNot,
        rate: clock.rate,
        slewMs,
      }),
    );
    return discipline;
  }
  const what =
    before === undefined
      ? `set, ± ${boundMs.toFixed(3)} ms`
      : `was ${Math.abs(behindMs).toFixed(3)} ms ${behindMs < 0 ? "ahead" : "behind"} (± ${boundMs.toFixed(3)}), slewing for ${(slewMs / 1000).toFixed(1)} s`;
  const rate = drift === undefined ? "" : `; drift ${ppm.toFixed(1)} ± ${ppmBound.toFixed(1)} ppm`;
  watching.print(`${time} ${what}${rate}`);
  return discipline;
}
