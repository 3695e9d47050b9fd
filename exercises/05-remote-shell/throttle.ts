/** Guessing made slow: attempts from one address come one after the other, and after each failure later. */
import { setTimeout as delay } from "node:timers/promises";

const MAX_DELAY_MS = 30_000;
/** So long after its last failure an address is forgotten. */
const FORGET_MS = 10 * 60_000;
const MAX_ADDRESSES = 10_000;

interface Entry {
  failures: number;
  lastFailureMs: number;
  /** Settles when those before are through. */
  queue: Promise<unknown>;
  waiting: number;
}

/** How long after its last failure an address must wait: `firstMs`, and twice as long each time. */
export const delayAfter = (failures: number, firstMs: number) =>
  failures === 0 ? 0 : Math.min(firstMs * 2 ** (failures - 1), MAX_DELAY_MS);

/** Whom a peer's address stands for: an IPv4 address, or a whole IPv6 network, as anybody has all of its addresses. */
export function addressOf(peer: string): string {
  const host = peer.slice(0, peer.lastIndexOf(":")).replace(/^\[(?:::ffff:(?=.*\.))?|\]$/g, "");
  if (!host.includes(":")) return host;
  const [head = "", tail] = host.split("::");
  const groups = head.split(":").filter((group) => group !== "");
  const missing = tail === undefined ? 0 : 8 - groups.length - tail.split(":").filter((g) => g !== "").length;
  const all = [...groups, ...Array<string>(Math.max(missing, 0)).fill("0"), ...(tail?.split(":") ?? [])];
  return `${all.slice(0, 4).join(":")}::/64`;
}

export class Throttle {
  readonly #firstMs: number;
  readonly #entries = new Map<string, Entry>();

  constructor(firstMs: number) {
    this.#firstMs = firstMs;
  }

  /** Calls `check` when it is the address's turn; false is a failure, undefined no attempt at all. */
  attempt(address: string, check: () => Promise<boolean | undefined>): Promise<boolean | undefined> {
    const entry = this.#entry(address);
    entry.waiting++;
    const turn = entry.queue.then(async () => {
      const dueMs = entry.lastFailureMs + delayAfter(entry.failures, this.#firstMs);
      await delay(Math.max(0, dueMs - performance.now()));
      const isRight = await check().finally(() => entry.waiting--);
      if (isRight !== false) return isRight;
      entry.failures++;
      entry.lastFailureMs = performance.now();
      return false;
    });
    entry.queue = turn.catch(() => {});
    return turn;
  }

  #entry(address: string): Entry {
    const known = this.#entries.get(address);
    if (known !== undefined) {
      if (performance.now() - known.lastFailureMs > FORGET_MS) known.failures = 0;
      return known;
    }
    for (const [other, { waiting, lastFailureMs }] of this.#entries) {
      if (this.#entries.size < MAX_ADDRESSES) break;
      const isOld = performance.now() - lastFailureMs > FORGET_MS || this.#entries.size > 2 * MAX_ADDRESSES;
      if (waiting === 0 && isOld) this.#entries.delete(other);
    }
    const entry: Entry = {
      failures: 0,
      lastFailureMs: Number.NEGATIVE_INFINITY,
      queue: Promise.resolve(),
      waiting: 0,
    };
    this.#entries.set(address, entry);
    return entry;
  }
}
