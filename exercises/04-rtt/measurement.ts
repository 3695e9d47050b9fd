/** A measurement: every host by every transport at once, each probe on its own schedule. */
import { explain } from "../../shared/errors.ts";
import type { Outcome, Prober, Result, Strays, Transport } from "./probing.ts";
import type { DatagramProbe } from "./protocol.ts";
import { type Draw, SAMPLINGS, type Sampling, timesUntil } from "./sampling.ts";
import { type Summary, summarise } from "./statistics.ts";
import type { Target } from "./targets.ts";
import { tcpProber } from "./tcp-prober.ts";
import { UdpProber } from "./udp-prober.ts";

export interface Plan {
  targets: readonly Target[];
  transports: readonly Transport[];
  probe: DatagramProbe;
  seconds: number;
  /** From one probe to the next, on average. */
  intervalMs: number;
  timeoutMs: number;
  sampling: Sampling;
  draw?: Draw;
}

/** Round trips whose median a live table shows. */
const RECENT = 100;

/** One host by one transport: its probes and what became of them. */
export class Stream {
  readonly target: Target;
  readonly transport: Transport;
  readonly strays: Strays;
  /** How long after its time each probe left: timers are coarse, and this program may be busy. */
  readonly latenessMs: number[] = [];
  /** Probes that were not sent, as their time had long passed: this machine was too busy. */
  skipped = 0;
  readonly counts: Record<Outcome, number> = { received: 0, lost: 0, refused: 0, unsent: 0 };
  readonly recentMs: number[] = [];
  minMs = Number.POSITIVE_INFINITY;
  readonly #bySequence: (Result | undefined)[] = [];
  readonly #prober: Prober;
  readonly #said = new Set<string>();
  readonly #note: (line: string) => void;

  constructor(target: Target, transport: Transport, prober: Prober, note: (line: string) => void) {
    this.target = target;
    this.transport = transport;
    this.#prober = prober;
    this.strays = prober.strays;
    this.#note = note;
  }

  /** In the order of sending; what is still under way is not among them. */
  get results(): Result[] {
    return this.#bySequence.filter((result) => result !== undefined);
  }

  get sent(): number {
    return this.counts.received + this.counts.lost + this.counts.refused;
  }

  /** Something at that address has answered, if only to refuse. */
  get hasAnswered(): boolean {
    return this.counts.received + this.counts.refused > 0;
  }

  summary(): Summary {
    const isInSample = ({ outcome }: Result) => outcome === "received" || outcome === "lost";
    return summarise(
      this.results.filter(isInSample).map(({ rttMs }) => rttMs),
      this.counts.refused,
    );
  }

  /** Sends at each of these times (by `performance.now()`), whatever became of the probes before; resolves when all are over. */
  run(timesMs: Iterator<number>, intervalMs: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      let underWay = 0;
      let timer: NodeJS.Timeout | undefined;
      let due = timesMs.next();
      const over = (sequence: number, result: Result) => {
        underWay--;
        this.#add(sequence, result);
        if (due.done && underWay === 0) resolve();
      };
      const sendDue = () => {
        while (!due.done && due.value <= performance.now()) {
          const lateMs = performance.now() - due.value;
          due = timesMs.next();
          if (lateMs > Math.max(intervalMs, MUCH_TOO_LATE_MS)) {
            this.skipped++;
            continue;
          }
          const sequence = this.latenessMs.push(lateMs) - 1;
          this.#bySequence.push(undefined);
          underWay++;
          this.#prober.send(sequence, (result) => over(sequence, result));
        }
        if (!due.done) timer = setTimeout(sendDue, Math.max(1, due.value - performance.now()));
        else if (underWay === 0) resolve();
      };
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
      sendDue();
    });
  }

  #add(sequence: number, result: Result): void {
    this.#bySequence[sequence] = result;
    this.counts[result.outcome]++;
    if (result.outcome === "received") {
      this.minMs = Math.min(this.minMs, result.rttMs);
      this.recentMs.push(result.rttMs);
      if (this.recentMs.length > RECENT) this.recentMs.shift();
    }
    const { error, outcome } = result;
    if (error === undefined || this.#said.has(error.code ?? "")) return;
    this.#said.add(error.code ?? "");
    this.#note(`${this.target.name} ${this.transport}: ${outcome}: ${explain(error)}`);
  }

  close(): void {
    this.#prober.close();
  }
}

/** Probes later than this, and than the interval, are not made up for: they would leave in a burst. */
const MUCH_TOO_LATE_MS = 20;

/** The streams of a plan, ready to be run. */
export async function streamsOf(plan: Plan, note: (line: string) => void): Promise<Stream[]> {
  const { targets, transports, timeoutMs, probe } = plan;
  const opened = targets.flatMap((target) =>
    transports.map(async (transport) => {
      const options = { address: target.address, port: target.port, timeoutMs };
      const prober = transport === "tcp" ? tcpProber(options) : await UdpProber.open(options, probe);
      return new Stream(target, transport, prober, note);
    }),
  );
  return Promise.all(opened);
}

/** Runs all at once until the plan's time is over and every probe's fate is known, or until the signal. */
export async function measure(streams: readonly Stream[], plan: Plan, signal: AbortSignal): Promise<void> {
  const { seconds, intervalMs, sampling, draw = Math.random } = plan;
  const startMs = performance.now();
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  try {
    if (signal.aborted) return;
    const runs = streams.map((stream) => {
      const times = timesUntil(seconds * 1000, SAMPLINGS[sampling](intervalMs, draw));
      return stream.run(shifted(times, startMs), intervalMs, either);
    });
    await Promise.all(runs);
  } finally {
    stop.abort();
    for (const stream of streams) stream.close();
  }
}

function* shifted(times: Iterable<number>, byMs: number): Generator<number, undefined> {
  for (const timeMs of times) yield timeMs + byMs;
  return undefined;
}
