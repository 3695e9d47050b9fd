/**
 * Counted terms as lines of text, `term<TAB>count`: what mappers send, what is in the output, and what goes between `map.ts`
 * and `reduce.ts`. Adding them up is the reduce function.
 */
import { isUtf8 } from "node:buffer";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Failure } from "../../shared/errors.ts";
import type { TermTable } from "./term-table.ts";
import { MAX_TERM_BYTES } from "./tokenizer.ts";

const TAB = 0x09;
const LF = 0x0a;
const ZERO = 0x30;
const MAX_DIGITS = 15;
/** Lower case and NFC make a term longer, by less than five times. A line has a tab, a count and its end as well. */
export const MAX_LINE_BYTES = 5 * MAX_TERM_BYTES + 32;
/** Lines are written, and terms worked off, in pieces of about so much: other things have their turn in between. */
const PIECE_BYTES = 64 * 1024;
const PIECE_TERMS = 16_384;

/** Whole lines in pieces of about 64 KiB, of all terms or of those in `order`. */
export function* linesOf(table: TermTable, order?: Uint32Array): Generator<Buffer> {
  const { arena, starts, counts } = table;
  let piece = Buffer.allocUnsafe(PIECE_BYTES + MAX_LINE_BYTES);
  let size = 0;
  for (let i = 0; i < table.size; i++) {
    const term = order === undefined ? i : (order[i] as number);
    const end = starts[term + 1] as number;
    for (let at = starts[term] as number; at < end; at++) piece[size++] = arena[at] as number;
    piece[size++] = TAB;
    size += piece.write(String(counts[term]), size, "latin1");
    piece[size++] = LF;
    if (size < PIECE_BYTES) continue;
    yield piece.subarray(0, size);
    piece = Buffer.allocUnsafe(PIECE_BYTES + MAX_LINE_BYTES);
    size = 0;
  }
  if (size > 0) yield piece.subarray(0, size);
}

/** Adds whole lines to a table. Throws `Failure` where one is not `term<TAB>count`. */
export function addLines(table: TermTable, lines: Buffer): void {
  if (!isUtf8(lines)) throw new Failure("the counted terms are not UTF-8");
  let start = 0;
  while (start < lines.length) {
    let tab = start;
    while (tab < lines.length && (lines[tab] as number) > TAB + 1) tab++;
    let at = tab + 1;
    let count = 0;
    for (let digit = 0; at < lines.length; at++) {
      digit = (lines[at] as number) - ZERO;
      if (digit < 0 || digit > 9) break;
      count = count * 10 + digit;
    }
    const isWhole = lines[tab] === TAB && lines[at] === LF && at - tab <= MAX_DIGITS + 1;
    if (!isWhole || tab === start || count === 0)
      throw new Failure(`not a term, a tab and a count: ${shown(lines, start)}`);
    table.add(lines, start, tab, count);
    start = at + 1;
  }
  table.checkWords();
}

function shown(lines: Buffer, start: number): string {
  const end = lines.indexOf(LF, start);
  const line = lines.subarray(start, end < 0 ? lines.length : end);
  return JSON.stringify(line.toString("utf8", 0, 60));
}

/** `addLines`, for lines that come in chunks cut anywhere. */
export class LineReader {
  readonly #table: TermTable;
  #rest: Buffer = Buffer.alloc(0);

  constructor(table: TermTable) {
    this.#table = table;
  }

  push(chunk: Buffer): void {
    const lastEnd = chunk.lastIndexOf(LF) + 1;
    if (lastEnd > 0) {
      addLines(this.#table, Buffer.concat([this.#rest, chunk.subarray(0, lastEnd)]));
      this.#rest = Buffer.alloc(0);
    }
    this.#rest = Buffer.concat([this.#rest, chunk.subarray(lastEnd)]);
    if (this.#rest.length > MAX_LINE_BYTES)
      throw new Failure(`a line is longer than ${MAX_LINE_BYTES} bytes`);
  }

  /** The last line may lack its end. */
  end(): void {
    if (this.#rest.length > 0) addLines(this.#table, Buffer.concat([this.#rest, Buffer.from("\n")]));
  }
}

/** Adds one table to another, piece by piece. */
export async function mergeInto(table: TermTable, other: TermTable): Promise<void> {
  for (let first = 0; first < other.size; first += PIECE_TERMS) {
    table.merge(other, first, Math.min(first + PIECE_TERMS, other.size));
    await nextTurn();
  }
}

/**
 * The terms' numbers, the most frequent first, those of one frequency by their bytes. A merge sort, piece by piece: that of the
 * runtime would let no heartbeat through for seconds when there are millions.
 */
export async function sorted(table: TermTable): Promise<Uint32Array> {
  const compare = comparing(table);
  let from = Uint32Array.from({ length: table.size }, (_, term) => term);
  for (let first = 0; first < from.length; first += PIECE_TERMS) {
    from.subarray(first, first + PIECE_TERMS).sort(compare);
    await nextTurn();
  }
  let to = new Uint32Array(from.length);
  for (let width = PIECE_TERMS; width < from.length; width *= 2) {
    for (let first = 0; first < from.length; first += 2 * width)
      await mergeRuns(from, to, first, width, compare);
    [from, to] = [to, from];
  }
  return from;
}

async function mergeRuns(
  from: Uint32Array,
  to: Uint32Array,
  first: number,
  width: number,
  compare: (a: number, b: number) => number,
): Promise<void> {
  const middle = Math.min(first + width, from.length);
  const end = Math.min(first + 2 * width, from.length);
  let [left, right] = [first, middle];
  for (let at = first; at < end; at++) {
    if (at % PIECE_TERMS === 0) await nextTurn();
    const isLeft =
      right === end || (left < middle && compare(from[left] as number, from[right] as number) <= 0);
    to[at] = (isLeft ? from[left++] : from[right++]) as number;
  }
}

function comparing(table: TermTable): (a: number, b: number) => number {
  const { arena, starts, counts } = table;
  return (a, b) => {
    const byCount = (counts[b] as number) - (counts[a] as number);
    if (byCount !== 0) return byCount;
    const [startA, startB] = [starts[a] as number, starts[b] as number];
    const [sizeA, sizeB] = [(starts[a + 1] as number) - startA, (starts[b + 1] as number) - startB];
    const size = Math.min(sizeA, sizeB);
    for (let i = 0; i < size; i++) {
      const byByte = (arena[startA + i] as number) - (arena[startB + i] as number);
      if (byByte !== 0) return byByte;
    }
    return sizeA - sizeB;
  };
}
