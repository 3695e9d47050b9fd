/** What a probe is and what can become of it, whatever carries it. */

export type Transport = "tcp" | "udp";

/** Lost: nothing came in time. Refused: the host's kernel said that nobody listens. Unsent: it never left this machine. */
export type Outcome = "received" | "lost" | "refused" | "unsent";

/** What became of one probe. Times in milliseconds. */
export interface Result {
  outcome: Outcome;
  /** By `performance.now()`. */
  sentAtMs: number;
  /** Infinite where nothing came. A refusal has its time, too. */
  rttMs: number;
  /** The system's error, where there was one. */
  error?: NodeJS.ErrnoException;
}

/** Datagrams that answered no probe under way: after their time-out, a second time, or never asked for. */
export interface Strays {
  late: number;
  repeated: number;
  unknown: number;
}

export interface Prober {
  /** Sends one probe, and calls `done` once, at the latest after the time-out. */
  send(sequence: number, done: (result: Result) => void): void;
  readonly strays: Strays;
  /** Gives up what is under way: `done` is not called for it any more. */
  close(): void;
}

export interface ProberOptions {
  /** Numeric: names are resolved before anything is measured. */
  address: string;
  port: number;
  timeoutMs: number;
}

const LOCAL_ERRORS = [
  "EACCES",
  "EADDRNOTAVAIL",
  "EINVAL",
  "EMFILE",
  "ENETUNREACH",
  "ENFILE",
  "ENOBUFS",
  "EPERM",
];

export const lost = (sentAtMs: number): Result => ({
  outcome: "lost",
  sentAtMs,
  rttMs: Number.POSITIVE_INFINITY,
});

/** An answer `rttMs` after the probe: lost where that is too late, also if it is this program that was late to see it. */
export const answered = (sentAtMs: number, rttMs: number, timeoutMs: number): Result =>
  rttMs <= timeoutMs ? { outcome: "received", sentAtMs, rttMs } : lost(sentAtMs);

/** The system's error, `rttMs` after the probe. */
export function failed(
  error: NodeJS.ErrnoException,
  sentAtMs: number,
  rttMs: number,
  timeoutMs: number,
): Result {
  if (error.code === "ECONNREFUSED" && rttMs <= timeoutMs)
    return { outcome: "refused", sentAtMs, rttMs, error };
  const isLocal = LOCAL_ERRORS.includes(error.code ?? "");
  return { ...lost(sentAtMs), outcome: isLocal ? "unsent" : "lost", error };
}
