/** A campaign's file: one line for each probe, only ever appended to, so that a crash or a restart costs no earlier line. */
import {
  appendFileSync,
  closeSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
} from "node:fs";
import { Failure, isFailure } from "../../shared/errors.ts";
import type { Stream } from "./measurement.ts";

const COLUMNS = "measurement,sent_at,host,address,port,transport,outcome,rtt_ms";

/** When a measurement began, on the wall clock, which may have been set since the program began, and by `performance.now()`. */
export interface Beginning {
  begunAt: Date;
  begunMs: number;
}

/** A line for each probe whose fate is known, in the order of sending. `begunAt` is the same in all lines of a measurement. */
export function rowsOf(streams: readonly Stream[], { begunAt, begunMs }: Beginning): string[] {
  const dateOf = (atMs: number) => new Date(begunAt.getTime() + atMs - begunMs).toISOString();
  const rows = streams.flatMap(({ target, transport, results }) =>
    results.map(({ sentAtMs, outcome, rttMs }) => {
      const { name, address, port } = target;
      const rtt = Number.isFinite(rttMs) ? rttMs.toFixed(4) : "";
      const fields = [begunAt.toISOString(), dateOf(sentAtMs), name, address, port, transport, outcome, rtt];
      return { sentAtMs, row: fields.join(",") };
    }),
  );
  return rows.sort((a, b) => a.sentAtMs - b.sentAtMs).map(({ row }) => row);
}

/**
 * Makes the file, or looks whether it is one of ours; a last line that a crash has cut short is taken off.
 * Throws `Failure`.
 */
export function openCsv(path: string, log: (line: string) => void): void {
  try {
    const file = openSync(path, "a+");
    try {
      if (!fstatSync(file).isFile()) throw new Failure("it is no regular file"); // a device may have no end
      const bytes = readFileSync(file);
      const end = bytes.lastIndexOf("\n") + 1;
      if (end > 0 && bytes.subarray(0, bytes.indexOf("\n")).toString().trimEnd() !== COLUMNS)
        throw new Failure("it has other columns; choose another file");
      if (end === 0 && !COLUMNS.startsWith(bytes.toString()))
        throw new Failure("it is no CSV file of this program; choose another");
      if (end < bytes.length) {
        ftruncateSync(file, end);
        log(`${path}: the last line was cut short, ${bytes.length - end} bytes are taken off`);
      }
      if (end === 0) appendFileSync(file, `${COLUMNS}\n`);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    if (!isFailure(error)) throw error;
    throw new Failure(`cannot write to ${path}`, { cause: error });
  }
}

/** In one piece, and on the disk when this returns. Throws `Failure`. */
export function appendRows(path: string, rows: readonly string[]): void {
  try {
    const file = openSync(path, "a");
    try {
      appendFileSync(file, rows.map((row) => `${row}\n`).join(""));
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    if (!isFailure(error)) throw error;
    throw new Failure(`cannot write to ${path}`, { cause: error });
  }
}
