/** Finds out by Cristian's algorithm how far this machine's clock is off, and keeps a clock of its own right, or sets the machine's. */
import { decimal, flag, integer, optional, setting, text } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { Failure, UsageError } from "../../shared/errors.ts";
import { type Context, program, serverAt } from "../../shared/program.ts";
import { cronExpression } from "../../shared/schedule.ts";
import { boundOf } from "./cristian.ts";
import { CLOCK_PORT } from "./protocol.ts";
import { asJson, asText, offsetOf, plot } from "./report.ts";
import { carryOut, planFor } from "./set-clock.ts";
import { SystemClock } from "./system-clock.ts";
import { type Asking, measure } from "./time-client.ts";
import { watch } from "./watch.ts";

interface Once extends Asking {
  leastOneWayMs: number;
  json: boolean;
  plot: string | undefined;
  setSystemClock: boolean;
}

const print = (line: string) => void process.stdout.write(`${line}\n`);

async function once(asking: Once, { log, debug }: Context): Promise<void> {
  const { host, port, leastOneWayMs } = asking;
  const measurement = await measure(asking);
  const contradicted = measurement.samples.find((sample) => boundOf(sample, leastOneWayMs) < 0);
  if (contradicted !== undefined) {
    throw new UsageError(
      `--least-one-way ${leastOneWayMs} cannot be: a round trip took ${contradicted.roundTripMs.toFixed(3)} ms`,
    );
  }
  const clock = new SystemClock();
  const nowMs = performance.now();
  const offset = offsetOf(measurement.best, clock.reading, leastOneWayMs, nowMs);
  const each = measurement.samples.map((sample) => offsetOf(sample, clock.reading, leastOneWayMs, nowMs));
  for (const [i, { offsetMs, boundMs }] of each.entries()) {
    const { roundTripMs } = measurement.samples[i] ?? measurement.best;
    debug(
      `sample ${i + 1}: round trip ${roundTripMs.toFixed(3)} ms, offset ${offsetMs.toFixed(3)} ± ${boundMs.toFixed(3)} ms`,
    );
  }
  if (asking.json) print(asJson(measurement, offset, each, nowMs + measurement.best.offsetMs));
  else print(asText(measurement, offset));
  if (asking.plot !== undefined)
    await plot(asking.plot, measurement, each, `udp://${formatAddress(host, port)}`);
  if (!asking.setSystemClock) return;
  if (Math.abs(offset.offsetMs) <= offset.boundMs) {
    log("the system's clock stays as it is: it is as right as can be told from here");
    return;
  }
  const plan = planFor(offset.offsetMs);
  log(`about to ${plan.says}`);
  await carryOut(plan, () => clock.at(performance.now()));
}

await program({
  summary:
    "Finds by Cristian's algorithm how far this machine's clock is off; or keeps a clock of its own right.",
  example: "--samples 8 --interval 250",
  settings: {
    ...serverAt(CLOCK_PORT),
    samples: setting(integer(1, 10_000), "samples to choose the best of", 8),
    interval: setting(integer(0, 3_600_000), "milliseconds between two samples", 250),
    timeout: setting(integer(1, 3_600_000), "milliseconds to wait for a reply, each time", 1000),
    retries: setting(integer(0, 100), "times to ask again, for each sample", 2),
    leastOneWay: setting(
      decimal("milliseconds", 0),
      "milliseconds that the way takes at least, where known",
      0,
    ),
    json: flag("write all figures as JSON"),
    plot: optional(text, "draw each sample's offset and its error bar into this SVG file"),
    watch: flag("keep a disciplined clock: measure again on the schedule, correct by slewing"),
    cron: setting(cronExpression, "with --watch: when to measure, in UTC", "*/1 * * * *"),
    setSystemClock: flag("set this machine's clock (root): step or slew it, and say which"),
  },
  async run(settings, context) {
    const { host, port, samples, json, plot, setSystemClock, cron } = settings;
    const { signal, log, debug } = context;
    const asking = {
      ...{ host, port, samples, json, plot, setSystemClock, signal, debug },
      intervalMs: settings.interval,
      timeoutMs: settings.timeout,
      retries: settings.retries,
      leastOneWayMs: settings.leastOneWay,
    };
    if (settings.watch && (plot !== undefined || setSystemClock))
      throw new UsageError("--watch keeps a clock of its own: no --plot, no --set-system-clock");
    if (setSystemClock && process.getuid?.() !== 0)
      throw new Failure(
        "cannot set the system's clock: only root may; leave --set-system-clock out to see by how much it is off",
      );
    if (settings.watch) return watch({ ...asking, cron, print, log });
    await once(asking, context);
  },
});
