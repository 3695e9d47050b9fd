/** When to send: the pauses from one probe to the next, in milliseconds. */

/** A number in [0, 1), each as likely as any other: `Math.random`, or in tests a seeded one. */
export type Draw = () => number;

export type Sampling = "periodic" | "poisson";

/**
 * Every `meanMs`, the first after a random part of it (RFC 3432 §3.2), so that many hosts are not asked at once. What
 * happens on the path with the same period is always met, or never.
 */
export function* periodic(meanMs: number, draw: Draw): Generator<number> {
  yield draw() * meanMs;
  while (true) yield meanMs;
}

/**
 * Pauses that are exponentially distributed (RFC 2330 §11.1.1, which RFC 2681 §4 asks for): what comes next does not
 * depend on what was, so nothing on the path can be in step with the probes.
 */
export function* poisson(meanMs: number, draw: Draw): Generator<number> {
  while (true) yield -Math.log(1 - draw()) * meanMs; // 1 - draw() is never 0
}

export const SAMPLINGS = { periodic, poisson } as const;

/** The times at which to send, from 0 on and before `endMs`. */
export function* timesUntil(endMs: number, pauses: Iterable<number>): Generator<number> {
  let atMs = 0;
  for (const pauseMs of pauses) {
    atMs += pauseMs;
    if (atMs >= endMs) return;
    yield atMs;
  }
}
