/**
 * A clock that is corrected without ever running backwards: it is made to run a little faster or slower until it is right
 * (slewing), and at the rate that its past errors show (drift). Plain data; times in milliseconds, rates in ms per ms.
 */

/** A clock: straight from its base on, and from the end of the slewing on straight again. */
interface Clock {
  /** On the monotonic clock. */
  readonly baseMs: number;
  /** What it shows at its base. */
  readonly timeMs: number;
  /** How fast it runs, against the monotonic clock. */
  readonly rate: number;
  /** What is added to the rate until `slewEndMs`. */
  readonly slew: number;
  readonly slewEndMs: number;
}

/** As chrony has it (maxslewrate): a twelfth. A clock that is 1 s behind has caught up after 12 s. */
export const MAX_SLEW = 1 / 12;
/** No quartz is worse than that by far. */
export const MAX_DRIFT = 5000e-6;
/** A small error is spread over this time. */
const SHORTEST_SLEW_MS = 500;

export const startClock = (atMs: number, timeMs: number): Clock => ({
  ...{ baseMs: atMs, timeMs, rate: 1 },
  ...{ slew: 0, slewEndMs: atMs },
});

/** What the clock shows at a time of the monotonic clock that is not before its base. */
export function read({ baseMs, timeMs, rate, slew, slewEndMs }: Clock, atMs: number): number {
  const slewedMs = Math.min(atMs, slewEndMs) - baseMs;
  return timeMs + (atMs - baseMs) * rate + Math.max(0, slewedMs) * slew;
}

/** The clock that goes on from here, at another rate, and makes up for an error of `behindMs`; it shows the same at this time. */
export function correct(clock: Clock, atMs: number, behindMs: number, drift: number): Clock {
  const durationMs = Math.max(SHORTEST_SLEW_MS, Math.abs(behindMs) / MAX_SLEW);
  return {
    baseMs: atMs,
    timeMs: read(clock, atMs),
    rate: 1 + Math.max(-MAX_DRIFT, Math.min(MAX_DRIFT, drift)),
    slew: behindMs / durationMs,
    slewEndMs: atMs + durationMs,
  };
}

/** An offset (UTC less the monotonic clock) as it was found, and how far it may be wrong. */
interface Point {
  atMs: number;
  offsetMs: number;
  boundMs: number;
}

interface Drift {
  /** By how much UTC runs faster than the monotonic clock. */
  rate: number;
  /** How far that may be wrong, given that each offset is within its bound. */
  bound: number;
}

/**
 * The slope of the offsets, by linear regression (least squares). It is a weighted sum of the offsets, so the same sum of
 * their bounds, each by the size of its weight, bounds its error. Undefined for fewer than three points.
 */
export function driftOf(points: readonly Point[]): Drift | undefined {
  if (points.length < 3) return undefined;
  const mean = points.reduce((sum, { atMs }) => sum + atMs, 0) / points.length;
  const spread = points.reduce((sum, { atMs }) => sum + (atMs - mean) ** 2, 0);
  if (spread === 0) return undefined;
  const first = points[0]?.offsetMs ?? 0; // offsets are large and nearly alike: their differences are exact
  let [rate, bound] = [0, 0];
  for (const { atMs, offsetMs, boundMs } of points) {
    const weight = (atMs - mean) / spread;
    rate += weight * (offsetMs - first);
    bound += Math.abs(weight) * boundMs;
  }
  return { rate, bound };
}

/** The clock, and the offsets that its drift is estimated from. */
export interface Discipline {
  readonly clock: Clock;
  readonly points: readonly Point[];
}

/** Older offsets than these say little of how the clock drifts today. */
const MAX_POINTS = 20;

interface Correction {
  discipline: Discipline;
  /** How far the clock was behind. */
  behindMs: number;
  drift: Drift | undefined;
}

/** After one more offset. The first sets the clock, as nobody has read it yet. */
export function update(discipline: Discipline | undefined, point: Point, atMs = point.atMs): Correction {
  if (discipline === undefined) {
    const clock = startClock(atMs, atMs + point.offsetMs);
    return { discipline: { clock, points: [point] }, behindMs: 0, drift: undefined };
  }
  const points = [...discipline.points, point].slice(-MAX_POINTS);
  const drift = driftOf(points);
  // A drift that may as well be none is not followed: it would only add noise.
  const known = drift !== undefined && Math.abs(drift.rate) > drift.bound ? drift.rate : 0;
  const behindMs = atMs + point.offsetMs - read(discipline.clock, atMs);
  return { discipline: { clock: correct(discipline.clock, atMs, behindMs, known), points }, behindMs, drift };
}
