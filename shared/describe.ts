/** A PDU's description (`shape`) as text for people: RFC-style bit diagrams and Markdown tables. */
import { type Cell, draw, MAX_DRAWN_BITS } from "./diagram.ts";
import type { Shape } from "./fields.ts";

export type { Dissector, Ports } from "./dissector.ts";

type Union = Extract<Shape, { kind: "union" }>;

/** What has a row of its own in a table, and a cell in a diagram. */
interface Part {
  name: string;
  /** Undefined where it varies; then `size` says how. */
  bits?: number;
  size?: string;
  type: string;
  meaning: string;
  /** What a diagram calls it, where that is not its name. */
  label?: string;
  bitFields?: readonly { name: string; width: number }[];
  union?: Union;
}

/** What has a diagram and a table of its own: a PDU, or one variant of a union in it. */
interface Section {
  heading: string;
  doc: string;
  /** Where it begins in the PDU, in bits; undefined behind what varies in size. */
  start: number | undefined;
  parts: Part[];
}

const sentence = (...texts: string[]) => texts.filter((text) => text !== "").join("; ");

function partsOf(name: string, doc: string, shape: Shape): Part[] {
  switch (shape.kind) {
    case "integer":
      return [{ name, bits: shape.bits, type: `${shape.signed ? "i" : "u"}${shape.bits}`, meaning: doc }];
    case "enum": {
      const codes = Object.entries(shape.codes).map(([code, value]) => `${value} = ${code}`);
      return partsOf(name, sentence(doc, codes.join(", ")), shape.of);
    }
    case "constant": {
      const { of, value } = shape;
      const unsigned = of.kind === "integer" && !of.signed;
      const text = unsigned
        ? `0x${value
            .toString(16)
            .toUpperCase()
            .padStart(of.bits / 4, "0")}`
        : JSON.stringify(value);
      return partsOf(name, sentence(doc, `always ${text}`), of);
    }
    case "bits":
      return [{ name, bits: shape.bits, type: "bits", meaning: doc, bitFields: shape.fields }];
    case "text":
    case "bytes": {
      const { length } = shape;
      const type = shape.kind === "text" ? "UTF-8" : "bytes";
      if (length === "rest") return [{ name, size: "to the end", type, meaning: doc }];
      if (typeof length === "number") {
        return [
          { name, bits: 8 * length, type: type + (type === "UTF-8" ? ", NUL-padded" : ""), meaning: doc },
        ];
      }
      const prefix = partsOf(
        `${name} length`,
        `bytes of ${name}${shape.max === undefined ? "" : `, at most ${shape.max}`}`,
        length,
      );
      return [...prefix, { name, size: "length bytes", type, meaning: doc }];
    }
    case "struct":
      return shape.fields.flatMap((field) =>
        partsOf(name === "" ? field.name : `${name}.${field.name}`, field.doc, field.shape),
      );
    case "union": {
      const names = shape.variants.map((variant) => variant.name).join(", ");
      const meaning = sentence(doc, `one of ${names}`);
      return [{ name: name || shape.name, size: "see below", type: "union", meaning, union: shape }];
    }
  }
}

/** The PDU itself (unless it is nothing but a union), then each variant of each union in it. */
function sectionsOf(section: Section): Section[] {
  let at = section.start;
  const variants = section.parts.flatMap(({ name, bits, union }) => {
    const start = at;
    at = at === undefined || bits === undefined ? undefined : at + bits;
    return union === undefined ? [] : variantsOf(name, union, start);
  });
  const onlyUnion = section.parts.length === 1 && variants.length > 0;
  return onlyUnion ? variants : [section, ...variants];
}

function variantsOf(name: string, { tag, of, variants }: Union, start: number | undefined): Section[] {
  return variants.flatMap((variant) => {
    const is = `${tag} = ${variant.code}`;
    const [tagPart] = partsOf(tag, `${variant.code} = ${variant.name}`, of);
    return sectionsOf({
      heading: `${name}: ${variant.name} (${is})`,
      doc: variant.doc,
      start,
      parts: [{ ...(tagPart as Part), label: is }, ...partsOf("", "", variant.body)],
    });
  });
}

const wholeOf = (shape: Shape) =>
  sectionsOf({ heading: "", doc: "", start: 0, parts: partsOf("", "", shape) });

/** Markdown: where each field stands, how large it is and what it means. Offsets and sizes are in bytes. */
export function table(shape: Shape): string {
  return wholeOf(shape)
    .map(({ heading, doc, start, parts }) => {
      const title = heading === "" ? [] : [`**${heading}**${doc && `: ${doc}`}`, ""];
      const head = ["| offset | size | field | type | meaning |", "|---|---|---|---|---|"];
      return [...title, ...head, ...rowsOf(parts, start)].join("\n");
    })
    .join("\n\n");
}

function rowsOf(parts: readonly Part[], start: number | undefined): string[] {
  const row = (...cells: string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  let at = start;
  return parts.flatMap(({ name, bits, size, type, meaning, bitFields = [] }) => {
    const offset = at === undefined ? "…" : `${at / 8}`;
    at = at === undefined || bits === undefined ? undefined : at + bits;
    let first = 0;
    const bitRows = bitFields.map((field) => {
      const last = first + field.width - 1;
      const where = field.width === 1 ? `bit ${first}` : `bits ${first}–${last}`;
      first = last + 1;
      const fieldMeaning = field.name === "reserved" ? "0 when sent, ignored when received" : "";
      const fieldType = field.width === 1 ? "flag" : `u${field.width}`;
      return row("", where, `${name}.${field.name}`, fieldType, fieldMeaning);
    });
    return [row(offset, size ?? `${(bits ?? 0) / 8}`, name, type, meaning), ...bitRows];
  });
}

/** The PDU, and each variant of a union in it, as RFCs draw bits. */
export function diagram(shape: Shape): string {
  return wholeOf(shape)
    .map(({ heading, parts }) => {
      const lines = draw(parts.flatMap(cellsOf));
      return [...(heading === "" ? [] : [heading, ""]), ...lines].join("\n");
    })
    .join("\n\n");
}

function cellsOf({ name, label = name, bits, size, bitFields }: Part): Cell[] {
  if (bitFields !== undefined) return bitFields.map((field) => ({ label: field.name, bits: field.width }));
  if (bits === undefined) return [{ label: `${label} (${size})` }];
  return [{ label: bits > MAX_DRAWN_BITS ? `${label} (${bits / 8} bytes)` : label, bits }];
}
