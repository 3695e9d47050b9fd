/** Sets the machine's own clock, by the system's programs: `date` steps it, `adjtimex` slews it. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { Failure } from "../../shared/errors.ts";
import { pathOf } from "../../shared/running.ts";

/** From this on a clock is stepped, as NTP does it (RFC 5905, STEPT): to slew it at 500 ppm would take over 4 minutes. */
export const STEP_MS = 128;
/** adjtime(3) makes a clock faster or slower by this. */
const ADJTIME_RATE = 500e-6;

interface Plan {
  /** What will be done, for the user. */
  says: string;
  tool: "date" | "adjtimex";
  /** Given the machine's clock at the moment it is done, in milliseconds since 1970. */
  args: (systemMs: number) => string[];
}

/** How to correct a clock that is behind by so much (or ahead). */
export function planFor(offsetMs: number): Plan {
  const size = `${Math.abs(offsetMs).toFixed(3)} ms ${offsetMs < 0 ? "back" : "forward"}`;
  if (Math.abs(offsetMs) >= STEP_MS) {
    return {
      says: `step the system's clock ${size}`,
      tool: "date",
      args: (systemMs) => ["--utc", `--set=@${((systemMs + offsetMs) / 1000).toFixed(6)}`],
    };
  }
  const seconds = Math.abs(offsetMs) / 1000 / ADJTIME_RATE;
  return {
    says: `slew the system's clock ${size}, which takes ${seconds.toFixed(0)} s`,
    tool: "adjtimex",
    args: () => ["--singleshot", String(Math.round(offsetMs * 1000))],
  };
}

/** Throws `Failure`, also where the program for it is missing. */
export async function carryOut(plan: Plan, systemMs: () => number): Promise<void> {
  const path = pathOf(plan.tool);
  if (path === undefined) throw new Failure(`cannot ${plan.says}: ${plan.tool} is not installed`);
  try {
    await promisify(execFile)(path, plan.args(systemMs()));
  } catch (error) {
    const said = error instanceof Error && "stderr" in error ? `${error.stderr}`.trim() : `${error}`;
    throw new Failure(`cannot ${plan.says}: ${said}`);
  }
}
