/** How large a packet the path takes: probes of growing size, and back to the base when large ones vanish (after RFC 8899). */
import { BASE_MTU, MIN_MTU } from "./protocol.ts";

/** Ethernet with IPv6 or a tunnel, Ethernet, jumbo frames, and what loopback takes. */
const SIZES = [1280, 1400, 1472, 4096, 8972, 16_384, 32_768, 60_000, 65_507];
const TRIES = 3;

export class MtuSearch {
  currentBytes = BASE_MTU;
  #sizes: number[] = [];
  #most = BASE_MTU;
  #failures = 0;
  #isUnderWay = false;

  /** Looks for the largest size that is not above what both sides take; a peer's word may be 0. */
  begin(agreed: number): void {
    const most = Math.max(agreed, MIN_MTU);
    this.#most = most;
    this.#failures = 0;
    this.currentBytes = Math.min(BASE_MTU, most);
    this.#sizes = [...SIZES.filter((size) => size < most), most].filter((size) => size > BASE_MTU);
  }

  /** The size to be probed now, if there is one. */
  get wanted(): number | undefined {
    return this.#isUnderWay ? undefined : this.#sizes[0];
  }

  onProbe(): void {
    this.#isUnderWay = true;
  }

  onArrived(size: number): void {
    this.#isUnderWay = false;
    this.#failures = 0;
    if (this.#sizes[0] !== size) return;
    this.#sizes.shift();
    this.currentBytes = size;
  }

  onLost(): void {
    this.#isUnderWay = false;
    if (++this.#failures >= TRIES) this.#sizes.length = 0;
  }

  /** Nothing gets through: perhaps the path has changed, and takes no large ones now. Or it was only silent: it is searched again. */
  onBlackHole(): void {
    this.begin(this.#most);
  }
}
