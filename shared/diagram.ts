/** Bits as RFCs draw them: 32 in a row; `~` edges a field of variable size, `/` one that is not drawn to scale. */

/** A field in a diagram; without `bits` it takes a row of its own. */
export interface Cell {
  label: string;
  bits?: number;
}
/** 32 bits of a diagram, and which field each of them belongs to. */
interface Row {
  cells: (Cell | undefined)[];
  edge: "|" | "~" | "/";
}
const WIDTH = 32;
/** A fixed field of more bits than this is shown as one row, edged with `/`. */
export const MAX_DRAWN_BITS = 4 * WIDTH;
const RULER = [
  ` ${Array.from({ length: WIDTH }, (_, bit) => (bit % 10 === 0 ? bit / 10 : " ")).join(" ")}`.trimEnd(),
  ` ${Array.from({ length: WIDTH }, (_, bit) => bit % 10).join(" ")}`,
];

/** The ruler and the rows. */
export function draw(cells: readonly Cell[]): string[] {
  const rows = layOut(cells);
  const lines = rows.flatMap((row, i) => [lineAbove(rows[i - 1], row), lineOf(row)]);
  lines.push(lineAbove(rows.at(-1), undefined));
  for (const cell of new Set(rows.flatMap((row) => row.cells))) {
    if (cell === undefined) continue;
    const widths = rows.map(({ cells }) => cells.filter((other) => other === cell).length);
    const width = Math.max(...widths);
    const firstRow = widths.indexOf(width);
    const lastRow = width === WIDTH ? widths.lastIndexOf(width) : firstRow;
    // Separators and rows alternate: the middle of several rows may be a separator, which is blank there.
    const line = firstRow + lastRow + 1;
    const text = fitted(cell.label, 2 * width - 1);
    const left = 2 * (rows[firstRow]?.cells.indexOf(cell) ?? 0) + 1;
    const column = left + ((2 * width - 1 - text.length) >> 1);
    const old = lines[line] ?? "";
    lines[line] = old.slice(0, column) + text + old.slice(column + text.length);
  }
  return [...RULER, ...lines.map((line) => line.trimEnd())];
}

function layOut(cells: readonly Cell[]): Row[] {
  const rows: Row[] = [];
  let at = WIDTH;
  const put = (cell: Cell, bits: number, edge: Row["edge"] = "|") => {
    for (let left = bits; left > 0; ) {
      if (at === WIDTH) {
        rows.push({ cells: Array(WIDTH).fill(undefined), edge });
        at = 0;
      }
      const fitting = Math.min(left, WIDTH - at);
      rows.at(-1)?.cells.fill(cell, at, at + fitting);
      at += fitting;
      left -= fitting;
    }
  };
  for (const cell of cells) {
    if (cell.bits === undefined) {
      at = WIDTH;
      put(cell, WIDTH, "~");
      continue;
    }
    const head = Math.min(cell.bits, WIDTH - at);
    const tail = (cell.bits - head) % WIDTH;
    if (cell.bits - head - tail <= MAX_DRAWN_BITS) {
      put(cell, cell.bits);
      continue;
    }
    put(cell, head);
    put(cell, WIDTH, "/");
    put(cell, tail);
  }
  return rows;
}

function fitted(label: string, width: number): string {
  if (width === 1) return label.slice(0, 1).toUpperCase();
  if (label.length <= width) return label;
  return label.slice(label.lastIndexOf(".") + 1).slice(0, width);
}

function lineOf({ cells, edge }: Row): string {
  return Array.from({ length: WIDTH + 1 }, (_, bit) => {
    const isEdge = bit === 0 || (bit === WIDTH && cells[WIDTH - 1] !== undefined);
    if (isEdge) return edge;
    return cells[bit - 1] === cells[bit] ? " " : "|";
  }).join(" ");
}

/** A line wherever another field begins. */
function lineAbove(above: Row | undefined, below: Row | undefined): string {
  const isDrawn = (bit: number) => above?.cells[bit] !== below?.cells[bit];
  const isEdge = (bit: number) =>
    bit === 0 || (bit === WIDTH && (above?.cells[bit - 1] ?? below?.cells[bit - 1]) !== undefined);
  return Array.from({ length: WIDTH + 1 }, (_, bit) => {
    const corner = isEdge(bit) || isDrawn(bit - 1) || isDrawn(bit) ? "+" : " ";
    return corner + (isDrawn(bit) ? "-" : " ");
  }).join("");
}
