/** Waits with deadlines, many on one timer: to set one for each wait would cost more than the wait. */
import { TimeoutError } from "./errors.ts";

interface Waiter {
  wake: (more: boolean) => void;
  fail: (error: unknown) => void;
  /** By `performance.now()`. */
  deadline: number;
  limitMs: number;
}

/** Those who wait for the same thing to happen. */
export class Waiting {
  readonly #complaint: string;
  readonly #waiters: Waiter[] = [];
  #alarm: NodeJS.Timeout | undefined;
  #alarmAt = Number.POSITIVE_INFINITY;

  /** `complaint` begins the message of a wait in vain: `the peer sent nothing`. */
  constructor(complaint: string) {
    this.#complaint = complaint;
  }

  /** Waits to be woken, at most `limitMs` (0 is for ever) and until `deadline`, by `performance.now()`. Throws `TimeoutError`. */
  wait(limitMs: number, deadline = Number.POSITIVE_INFINITY): Promise<boolean> {
    return new Promise((wake, fail) => {
      if (limitMs === 0 && deadline === Number.POSITIVE_INFINITY)
        return void this.#waiters.push({ wake, fail, deadline, limitMs });
      const now = performance.now();
      const end = limitMs === 0 ? deadline : Math.min(deadline, now + limitMs);
      this.#waiters.push({ wake, fail, deadline: end, limitMs: Math.max(0, Math.round(end - now)) });
      if (end < this.#alarmAt) this.#setAlarm(end);
    });
  }

  wake(more: boolean): void {
    for (let waiter = this.#waiters.shift(); waiter !== undefined; waiter = this.#waiters.shift())
      waiter.wake(more);
  }

  /** Wakes all for the last time: the timer is gone. */
  end(): void {
    clearTimeout(this.#alarm);
    this.wake(false);
  }

  fail(error: unknown): void {
    clearTimeout(this.#alarm);
    for (const { fail } of this.#waiters.splice(0)) fail(error);
  }

  /** It may ring when nobody waits any more, or too early for those who do. */
  #setAlarm(deadline: number): void {
    clearTimeout(this.#alarm);
    this.#alarmAt = deadline;
    this.#alarm = setTimeout(() => this.#ring(), Math.max(1, deadline - performance.now()));
  }

  #ring(): void {
    this.#alarmAt = Number.POSITIVE_INFINITY;
    for (const waiter of this.#waiters.splice(0)) {
      if (waiter.deadline <= performance.now()) {
        waiter.fail(new TimeoutError(`${this.#complaint} for ${waiter.limitMs} ms`));
        continue;
      }
      this.#waiters.push(waiter);
      if (waiter.deadline < this.#alarmAt) this.#setAlarm(waiter.deadline);
    }
  }
}
