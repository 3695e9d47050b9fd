/** How far a transfer is, on a terminal: a bar where the length is known, else the bytes and their rate. */
import { Presets, SingleBar } from "cli-progress";

const KNOWN = "{bar} {percentage}% | {amount} | {rate}/s | {eta_formatted} left";
const UNKNOWN = "{amount} | {rate}/s | {duration_formatted}";

/** `1.5 MB`, in powers of 1000 as networks count. */
export function formatBytes(bytes: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), 4);
  const value = bytes / 1000 ** power;
  return `${power === 0 ? value : value.toFixed(1)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

export class Progress {
  readonly #bar: SingleBar | undefined;
  readonly #startBytes: number;
  readonly #beginMs = performance.now();
  #bytes: number;

  /** `startBytes` are there from an earlier time. */
  constructor(totalBytes: number | undefined, startBytes: number, isShown: boolean) {
    this.#startBytes = this.#bytes = startBytes;
    if (!isShown) return;
    const format = totalBytes === undefined ? UNKNOWN : KNOWN;
    this.#bar = new SingleBar({ format, barsize: 30, etaBuffer: 100 }, Presets.shades_classic);
    this.#bar.start(totalBytes ?? 0, startBytes, this.#figures());
  }

  get bytes(): number {
    return this.#bytes;
  }
  /** Bytes a second, without those from an earlier time. */
  get rate(): number {
    return (this.#bytes - this.#startBytes) / Math.max((performance.now() - this.#beginMs) / 1000, 0.001);
  }
  get seconds(): number {
    return (performance.now() - this.#beginMs) / 1000;
  }

  advance(bytes: number): void {
    this.#bytes += bytes;
    this.#bar?.update(this.#bytes, this.#figures());
  }

  end(): void {
    this.#bar?.stop();
  }

  #figures() {
    return { amount: formatBytes(this.#bytes), rate: formatBytes(Math.round(this.rate)) };
  }
}
