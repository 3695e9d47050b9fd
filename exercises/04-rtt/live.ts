/** How a measurement goes, on stderr: a table that is drawn over itself on a terminal, lines elsewhere. */

import { median } from "../../shared/measure.ts";
import type { Stream } from "./measurement.ts";
import { aligned, formatMs } from "./report.ts";

const REDRAW_MS = 250;
/** Without a terminal: so many times in a measurement, and not more often than once a second. */
const REPORTS = 5;
const HEAD = ["host", "by", "sent", "received", "lost", "refused", "last", "min", "median of 100"];

function rowOf({ target, transport, sent, counts, recentMs, minMs }: Stream): string[] {
  const times = [recentMs.at(-1) ?? Number.NaN, minMs === Infinity ? Number.NaN : minMs, median(recentMs)];
  const numbers = [sent, counts.received, counts.lost, counts.refused].map(String);
  return [target.name, transport, ...numbers, ...times.map(formatMs)];
}

/** What a terminal can show: no line longer than it is wide, none beyond its last; those that have no room are counted. */
export function fitted(lines: readonly string[], columns: number, rows: number): string[] {
  const room = Math.max(2, rows - 1);
  const shown =
    lines.length <= room ? lines : [...lines.slice(0, room - 1), `… ${lines.length - room + 1} more`];
  return shown.map((line) => line.slice(0, Math.max(1, columns - 1)));
}

export class LiveTable implements Disposable {
  readonly #streams: readonly Stream[];
  readonly #output: NodeJS.WriteStream;
  readonly #timer: NodeJS.Timeout;
  readonly #beginMs = performance.now();
  /** Lines of the table that stand on the terminal. */
  #drawn = 0;

  constructor(streams: readonly Stream[], seconds: number, output: NodeJS.WriteStream = process.stderr) {
    this.#streams = streams;
    this.#output = output;
    const everyMs = output.isTTY ? REDRAW_MS : Math.max(1000, (seconds * 1000) / REPORTS);
    this.#timer = setInterval(() => (output.isTTY ? this.#draw() : this.#print()), everyMs);
  }

  /** A line of commentary, above the table. */
  note(line: string, log: (line: string) => void): void {
    this.#erase();
    log(line);
  }

  /** Only what is shown is worked out: what takes long here is seen in the times that are measured meanwhile. */
  #draw(): void {
    const rows = this.#output.rows || 24; // 0 where nobody knows
    const columns = this.#output.columns || 80;
    const head = `${((performance.now() - this.#beginMs) / 1000).toFixed(0)} s`;
    const table = aligned([HEAD, ...this.#streams.slice(0, rows).map(rowOf)], 2);
    const beyond = this.#streams.slice(rows).map(() => "");
    const lines = fitted([head, ...table, ...beyond], columns, rows);
    this.#erase();
    this.#output.write(`${lines.join("\n")}\n`);
    this.#drawn = lines.length;
  }

  #erase(): void {
    if (this.#drawn > 0) this.#output.write(`\u001b[${this.#drawn}A\u001b[J`);
    this.#drawn = 0;
  }

  #print(): void {
    const seconds = ((performance.now() - this.#beginMs) / 1000).toFixed(0);
    const lines = this.#streams.map((stream) => {
      const [name, by, sent, received, lost, refused, last, min, recent] = rowOf(stream);
      const times = `last ${last}, min ${min}, median ${recent} ms`;
      return `${seconds} s: ${name} ${by}: ${sent} sent, ${received} received, ${lost} lost, ${refused} refused; ${times}`;
    });
    this.#output.write(`${lines.join("\n")}\n`);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#erase();
  }
}
