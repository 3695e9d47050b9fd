/** Durations in buckets whose width grows with them, so that a few hundred numbers hold any percentile to within 6 %. */

const SUB_BUCKETS = 16;
/** Up to 2^27 µs, more than two minutes. */
const OCTAVES = 24;
/** Then all counts are halved: what was long ago weighs little. */
const MAX_COUNT = 10_000;

export class LatencyHistogram {
  readonly #counts = new Uint32Array(SUB_BUCKETS * OCTAVES);
  #count = 0;

  record(durationMs: number): void {
    const bucket = bucketOf(Math.max(0, durationMs) * 1000);
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#count++;
    if (this.#count >= MAX_COUNT) this.#halve();
  }

  #halve(): void {
    this.#count = 0;
    for (const [bucket, count] of this.#counts.entries()) {
      this.#counts[bucket] = count >> 1;
      this.#count += count >> 1;
    }
  }

  /** Milliseconds that a share of all durations (0.99) did not exceed; `undefined` while there are none. */
  percentile(share: number): number | undefined {
    if (this.#count === 0) return undefined;
    let left = Math.max(1, Math.ceil(share * this.#count));
    for (const [bucket, count] of this.#counts.entries()) {
      left -= count;
      if (left <= 0) return middleOf(bucket) / 1000;
    }
    return undefined;
  }
}

/** The first 16 buckets are 1 µs wide each, the 16 of the next octave too, then 2, 4, 8 … */
function bucketOf(us: number): number {
  if (us < SUB_BUCKETS) return Math.floor(us);
  const octave = Math.min(Math.floor(Math.log2(us)) - 4, OCTAVES - 2);
  return SUB_BUCKETS * (octave + 1) + Math.min(SUB_BUCKETS - 1, Math.floor(us / 2 ** octave) - SUB_BUCKETS);
}

function middleOf(bucket: number): number {
  if (bucket < SUB_BUCKETS) return bucket + 0.5;
  const octave = Math.floor(bucket / SUB_BUCKETS) - 1;
  return (SUB_BUCKETS + (bucket % SUB_BUCKETS) + 0.5) * 2 ** octave;
}
