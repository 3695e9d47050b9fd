/** The simulator's time and network: what happens when, drawn from a seed; parcels are delayed, lost, repeated, cut off. */

export interface NetworkProfile {
  loss: number;
  maxDelayMs: number;
}

export class SimulatedNetwork<Parcel> {
  nowMs = 0;
  readonly #random: () => number;
  readonly #profile: NetworkProfile;
  readonly #deliver: (to: number, parcel: Parcel) => void;
  readonly #events: { atMs: number; run: () => void }[] = [];
  readonly #cut = new Set<string>();

  constructor(random: () => number, profile: NetworkProfile, deliver: (to: number, parcel: Parcel) => void) {
    this.#random = random;
    this.#profile = profile;
    this.#deliver = deliver;
  }

  /** Carries out what happens until then. */
  runUntil(untilMs: number): void {
    while (true) {
      this.#events.sort((a, b) => a.atMs - b.atMs);
      const next = this.#events[0];
      if (next === undefined || next.atMs > untilMs) break;
      this.#events.shift();
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.run();
    }
    this.nowMs = untilMs;
  }

  later(maxMs: number, run: () => void): void {
    this.#events.push({ atMs: this.nowMs + this.#random() * maxMs, run });
  }

  send(from: number, to: number, parcel: Parcel): void {
    const { loss, maxDelayMs } = this.#profile;
    if (this.#random() < loss) return;
    const copies = this.#random() < 0.03 ? 2 : 1;
    for (let i = 0; i < copies; i++)
      this.later(this.#random() < 0.02 ? maxDelayMs * 20 : maxDelayMs, () => {
        if (!this.#cut.has(`${from} ${to}`)) this.#deliver(to, parcel);
      });
  }

  /** Between the node and each of these, either way or both, as it is drawn. */
  cutOff(id: number, others: Iterable<number>): void {
    for (const other of others) {
      if (this.#random() < 0.7) this.#cut.add(`${id} ${other}`);
      if (this.#random() < 0.7) this.#cut.add(`${other} ${id}`);
    }
  }
  heal(): void {
    this.#cut.clear();
  }
}
