/** How far each part is, as bars on a terminal. */
import { MultiBar, Presets, type SingleBar } from "cli-progress";
import { printable } from "../../shared/printable.ts";
import type { Progress } from "./job.ts";
import type { Part } from "./parts.ts";

const FORMAT = "part {part} {bar} {percentage}% of {megabytes} MB | {what}";

interface Display {
  update(progress: Progress): void;
  /** A line above the bars. */
  log(line: string): void;
  end(): void;
}

/** Bars where stderr is a terminal, else only the lines. */
export function display(parts: readonly Part[], log: (line: string) => void): Display {
  if (!process.stderr.isTTY) return { update: () => {}, log: (line) => log(printable(line)), end: () => {} };
  const bars = new MultiBar({ format: FORMAT, barsize: 24, linewrap: false }, Presets.shades_classic);
  const rows = parts.map(({ sizeBytes }, part) => new Row(bars, part, sizeBytes));
  return {
    update: (progress) => rows[progress.part]?.update(progress),
    log: (line) => bars.log(`${printable(line)}\n`),
    end: () => bars.stop(),
  };
}

class Row {
  readonly #bar: SingleBar;
  readonly #sizeBytes: number;
  /** How far each mapper is that works on it. */
  readonly #counted = new Map<string, number>();
  #state = "";

  constructor(bars: MultiBar, part: number, sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
    const megabytes = (sizeBytes / 1e6).toFixed(1);
    this.#bar = bars.create(Math.max(1, sizeBytes), 0, { part, megabytes, what: "waits for a mapper" });
  }

  update({ mapper, countedBytes = 0, state }: Progress): void {
    if (mapper !== undefined) this.#counted.set(mapper, countedBytes);
    if (state !== undefined) this.#state = state === "open" ? "" : state;
    if (state === "received") this.#counted.set("", Math.max(1, this.#sizeBytes));
    const names = [...this.#counted.keys()].filter((name) => name !== "");
    const what = this.#state === "" ? names.join(", ") : this.#state;
    this.#bar.update(Math.max(0, ...this.#counted.values()), { what });
  }
}
