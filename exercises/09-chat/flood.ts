/** Flood control: a bucket of lines that fills with time (the message timer of RFC 2812 §5.8, told the other way round). */

export interface FloodLimits {
  /** Lines at once. */
  burst: number;
  /** Lines a second that come after them; 0 for as many as one likes. */
  rate: number;
}
/** What the server allows; its own client keeps to a little less. */
export const FLOOD: FloodLimits = { burst: 10, rate: 2 };

interface Bucket {
  /** Takes a line out, if there is one. */
  take(nowMs: number): boolean;
  /** Milliseconds until there is one. */
  waitMs(nowMs: number): number;
}

export function bucket({ burst, rate }: FloodLimits, startMs: number): Bucket {
  let lines = burst;
  let filledMs = startMs;
  function fill(nowMs: number): void {
    lines = Math.min(burst, lines + ((nowMs - filledMs) / 1000) * rate);
    filledMs = nowMs;
  }
  return {
    take(nowMs) {
      if (rate === 0) return true;
      fill(nowMs);
      if (lines < 1) return false;
      lines--;
      return true;
    },
    waitMs(nowMs) {
      if (rate === 0) return 0;
      fill(nowMs);
      return lines >= 1 ? 0 : Math.ceil(((1 - lines) / rate) * 1000);
    },
  };
}
