/**
 * What a sample of round trips says. A lost probe's delay is undefined and counts as infinite (RFC 2681 §5): it stays
 * in the sample, so that a path cannot look fast by losing what is slow. All times in milliseconds.
 */
import { median } from "../../shared/measure.ts";

export interface Summary {
  /** Probes with a round-trip time, and probes without one in time. */
  received: number;
  lost: number;
  /** Answered by the host's kernel with a refusal: no part of the sample. */
  refused: number;
  /** Of those received; not a number where there are none. */
  minMs: number;
  meanMs: number;
  maxMs: number;
  /** With the lost ones as infinite. */
  medianMs: number;
  p95Ms: number;
  jitterMs: number;
}

/**
 * The least value that is not below `percent` of the values (RFC 2330 §11.3, RFC 2681 §5.1); infinite values are
 * allowed. Not a number for no values.
 */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  // (n × percent) / 100 in this order: n × 0.07 can be a hair above the whole number that it stands for.
  const rank = Math.max(1, Math.ceil((sorted.length * percent) / 100));
  return sorted[rank - 1] ?? Number.NaN;
}

/**
 * The delay's variation from each packet to the next in the order of sending (RFC 3393 §4.2, here of round trips): later
 * less earlier. It is undefined, and left out, where either of the two was lost.
 */
export function delayVariations(delaysMs: readonly number[]): number[] {
  return delaysMs
    .slice(1)
    .map((delayMs, i) => delayMs - (delaysMs[i] ?? Number.NaN))
    .filter(Number.isFinite);
}

/** The mean size of the variations (RFC 3393 §4.5); not a number where no two neighbours arrived. */
export const jitter = (delaysMs: readonly number[]): number => mean(delayVariations(delaysMs).map(Math.abs));

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** Of delays in the order of sending, infinite where lost; refused probes are counted and not among them. */
export function summarise(delaysMs: readonly number[], refused = 0): Summary {
  const received = delaysMs.filter(Number.isFinite);
  const least = (values: readonly number[]) =>
    values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const known = received.length > 0;
  return {
    received: received.length,
    lost: delaysMs.length - received.length,
    refused,
    minMs: known ? least(received) : Number.NaN,
    meanMs: mean(received),
    maxMs: known ? -least(received.map((value) => -value)) : Number.NaN,
    medianMs: median(delaysMs),
    p95Ms: percentile(delaysMs, 95),
    jitterMs: jitter(delaysMs),
  };
}

/** The empirical distribution (RFC 2330 §11.3): for each delay that occurs, the share of the sample at or below it. */
export function distribution(delaysMs: readonly number[]): [delayMs: number, share: number][] {
  const sorted = delaysMs.filter(Number.isFinite).toSorted((a, b) => a - b);
  const steps = sorted.map((delayMs, i): [number, number] => [delayMs, (i + 1) / delaysMs.length]);
  return steps.filter(([delayMs], i) => delayMs !== steps[i + 1]?.[0]);
}
