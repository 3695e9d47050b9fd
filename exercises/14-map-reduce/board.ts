/** Which part goes to which mapper: the master's rules, without sockets and clock. */

/** `granted`: its result is on its way to the reducer. */
export type PartState = "open" | "granted" | "received";

export class Board {
  readonly states: PartState[];
  /** The mappers that work on each part. */
  readonly workers: Set<string>[];
  readonly #copies: number;

  /** Each part goes to `copies` mappers, as long as it is open. */
  constructor(parts: number, copies: number) {
    this.states = Array.from({ length: parts }, () => "open");
    this.workers = Array.from({ length: parts }, () => new Set());
    this.#copies = copies;
  }

  /** The part that this mapper gets, if one is open for it: that on which the fewest work. */
  take(mapper: string): number | undefined {
    let best: number | undefined;
    for (const [part, state] of this.states.entries()) {
      const size = this.workers[part]?.size ?? 0;
      if (state !== "open" || size >= this.#copies || this.workers[part]?.has(mapper)) continue;
      if (best === undefined || size < (this.workers[best]?.size ?? 0)) best = part;
    }
    if (best !== undefined) this.workers[best]?.add(mapper);
    return best;
  }

  /** It works on nothing any more: it has finished, or is lost. */
  release(mapper: string): void {
    for (const workers of this.workers) workers.delete(mapper);
  }

  /**
   * What the reducer says of a part; what it has received stays so. Where a result was lost on its way, nobody knows which of
   * its mappers had sent it: others get it as if none were left, and the reducer will refuse who comes second.
   */
  set(part: number, state: PartState): void {
    if (this.states[part] === undefined || this.states[part] === "received") return;
    this.states[part] = state;
    if (state === "open") this.workers[part]?.clear();
  }

  get isDone(): boolean {
    return this.states.every((state) => state === "received");
  }
}
