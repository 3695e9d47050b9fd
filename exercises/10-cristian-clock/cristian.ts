/**
 * Cristian's algorithm (F. Cristian, "Probabilistic clock synchronization", Distributed Computing 3, 1989): a server's
 * time is as old, when it comes, as its way was long, and of a round trip one knows only the sum of both ways.
 * Times are in milliseconds. T1 and T4 are the client's monotonic clock, T2 and T3 the server's UTC.
 */

/** One request and its reply. */
interface Exchange {
  /** When the request left, and when the reply came. */
  t1Ms: number;
  t4Ms: number;
  /** When the request came to the server, and when its reply left. */
  t2Ms: number;
  t3Ms: number;
  serverErrorMs: number;
}

/** What an exchange says of the time. */
export interface Sample {
  /** When the reply came, on the monotonic clock. */
  atMs: number;
  /** On the way there and back; the server's own time is not in it. */
  roundTripMs: number;
  /** UTC less the monotonic clock. */
  offsetMs: number;
  serverErrorMs: number;
}

/** T = T3 + RTT/2 when the reply comes. Undefined where the times contradict each other: the server held it longer than it took. */
export function sampleOf({ t1Ms, t2Ms, t3Ms, t4Ms, serverErrorMs }: Exchange): Sample | undefined {
  const roundTripMs = t4Ms - t1Ms - (t3Ms - t2Ms);
  if (!(roundTripMs >= 0 && t3Ms >= t2Ms)) return undefined;
  return { atMs: t4Ms, roundTripMs, offsetMs: t3Ms + roundTripMs / 2 - t4Ms, serverErrorMs };
}

/** The sample of least round trip: half of that bounds its error. */
export function best(samples: readonly Sample[]): Sample | undefined {
  const [first, ...others] = samples;
  return others.reduce(
    (least, sample) => (sample.roundTripMs < (least?.roundTripMs ?? 0) ? sample : least),
    first,
  );
}

/** Two clocks that are not disciplined drift apart by no more than this, as NTP has it too (RFC 5905 §7.3, PHI). */
export const DRIFT_TOLERANCE = 15e-6;

/**
 * How far the offset of a sample may be from the truth at `nowMs`: the reply left between T4 less the round trip (and plus what
 * the request took at least) and T4 less what it took itself at least. Negative where a way of `leastOneWayMs` contradicts the sample.
 */
export function boundOf(sample: Sample, leastOneWayMs = 0, nowMs = sample.atMs): number {
  const drift = DRIFT_TOLERANCE * Math.max(0, nowMs - sample.atMs);
  return sample.roundTripMs / 2 - leastOneWayMs + sample.serverErrorMs + drift;
}
