/**
 * This machine's clock to the microsecond. `Date.now()` counts whole milliseconds; the monotonic `performance.now()` is
 * finer, and where one of its milliseconds begins is met by waiting for it.
 */

/** The machine's clock less the monotonic one, and how far that may be wrong. */
export interface Reading {
  offsetMs: number;
  errorMs: number;
}

/** Fine enough: a tick that was met within this. */
const FINE_MS = 0.005;
const TRIES = 5;
/** A `number` holds today's time in milliseconds to this. */
const ROUNDING_MS = 0.0005;

/** Waits for a tick of the clock; again where that was disturbed. Takes a millisecond each time. */
export function calibrate(): Reading {
  let best = untilTick();
  for (let i = 1; i < TRIES && best.errorMs > FINE_MS; i++) {
    const another = untilTick();
    if (another.errorMs < best.errorMs) best = another;
  }
  return best;
}

/** The clock showed `start` after `fromMs`, and something else before `untilMs`: between them it ticked. */
function untilTick(): Reading {
  let fromMs = performance.now();
  const start = Date.now();
  let seenMs = performance.now();
  let tick = Date.now();
  for (; tick === start; tick = Date.now()) {
    fromMs = seenMs;
    seenMs = performance.now();
  }
  const untilMs = performance.now();
  const isSet = Math.abs(tick - start - 1) > untilMs - fromMs + 1; // somebody set the clock just then
  if (isSet) return untilTick();
  return { offsetMs: tick - (fromMs + untilMs) / 2, errorMs: (untilMs - fromMs) / 2 + ROUNDING_MS };
}

/** Follows the machine's clock when somebody sets it. */
export class SystemClock {
  #reading = calibrate();

  /** The clock at this time of the monotonic clock (now, or nearly so). */
  at(monotonicMs: number): number {
    this.#check();
    return monotonicMs + this.#reading.offsetMs;
  }

  get reading(): Reading {
    this.#check();
    return this.#reading;
  }

  /** Twice: between its two looks at the clocks a process may have had to wait. */
  #check(): void {
    for (let i = 0; i < 2; i++) {
      const behindMs = performance.now() + this.#reading.offsetMs - Date.now();
      if (behindMs >= -this.#reading.errorMs - SLACK_MS && behindMs <= 1 + this.#reading.errorMs) return;
    }
    this.#reading = calibrate();
  }
}
/** What passes between the two looks. */
const SLACK_MS = 0.05;
