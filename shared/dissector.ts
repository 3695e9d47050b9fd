/** A PDU's description (`shape`) as a dissector: a Lua script that teaches Wireshark to read it. */
import { readFileSync } from "node:fs";
import type { Contents, Shape } from "./fields.ts";

/** One port, or the first and the last of several. */
export type Ports = number | `${number}-${number}`;

/** What Wireshark shall make of the traffic on some ports. */
export type Dissector = { tcp?: readonly Ports[]; udp?: readonly Ports[] } & (
  | {
      /** What its display filters begin with: `pal` gives `pal.source`. Lower case. */
      name: string;
      /** What the tree calls the protocol; the packet list shows the name. */
      title: string;
      pdu: Shape;
      /**
       * The Info column: `turn from {source} to {destination}`. Or such a text for each kind of PDU: for what the
       * first field in `by` says that has one. Without a text every field is named there.
       */
      info?: string | { by: readonly string[]; texts: Readonly<Record<string, string>> };
      /**
       * Wireshark's own dissector that gets what does not begin with this PDU's magic (its first field, where
       * that is a constant) and, on UDP, what does not have its size (where that is fixed).
       */
      otherwise?: string;
    }
  /** A dissector that Wireshark already has: `echo`. */
  | { as: string }
);

/** The script: what interprets declarations, then the declarations. Fields are named `lower_case`, as Wireshark's own. */
export function lua(dissectors: readonly Dissector[]): string {
  const interpreter = readFileSync(new URL("dissector.lua", import.meta.url), "utf8");
  return [interpreter, ...dissectors.map(declaration)].join("\n");
}

function declaration(dissector: Dissector): string {
  const ports = (["tcp", "udp"] as const)
    .filter((transport) => dissector[transport] !== undefined)
    .map((transport) => `${transport} = { ${dissector[transport]?.map(literal).join(", ")} }`);
  if ("as" in dissector) return `attach(existing(${literal(dissector.as)}), { ${ports.join(", ")} })\n`;
  const { name, title, info, otherwise, pdu } = dissector;
  const options = Object.entries({ name, title, otherwise, size: sizeOf(pdu) }).flatMap(([key, value]) =>
    value === undefined ? [] : [`${key} = ${literal(value)}`],
  );
  if (info !== undefined) options.push(`info = ${infoOf(info)}`);
  const whole = `pdu = ${field("name" in pdu ? pdu.name : name, "", pdu)}`;
  return `protocol ${block([...options, ...ports, whole])}\n`;
}

function infoOf(info: NonNullable<Extract<Dissector, { name: string }>["info"]>): string {
  if (typeof info === "string") return literal(info);
  const texts = Object.entries(info.texts).map(([value, text]) => `[${literal(value)}] = ${literal(text)}`);
  return block([`by = { ${info.by.map(literal).join(", ")} }`, `texts = ${block(texts)}`]);
}

/** The size in bytes that every value takes, where all take the same. */
function sizeOf(shape: Shape): number | undefined {
  switch (shape.kind) {
    case "integer":
    case "bits":
      return shape.bits / 8;
    case "enum":
    case "constant":
      return sizeOf(shape.of);
    case "text":
    case "bytes":
      return typeof shape.length === "number" ? shape.length : undefined;
    case "struct": {
      const size = shape.fields.reduce((sum, { shape }) => sum + (sizeOf(shape) ?? Number.NaN), 0);
      return Number.isNaN(size) ? undefined : size;
    }
    case "union":
      return undefined;
  }
}

/** The call that declares a field; `rule` is what an integer or a text must obey besides. */
function field(name: string, doc: string, shape: Shape, ...rule: string[]): string {
  const call = (kind: string, ...more: string[]) =>
    `${kind}(${[literal(name), literal(doc), ...more, ...rule].join(", ")})`;
  switch (shape.kind) {
    case "integer":
      return call("integer", literal(shape.signed ? "int" : "uint"), `${shape.bits / 8}`);
    case "enum":
      return field(name, doc, shape.of, `{ codes = ${codesOf(shape.codes)} }`);
    case "constant": {
      const { of, value } = shape;
      if (of.kind === "enum") return field(name, doc, { ...shape, of: of.of, value: of.codes[value] ?? "" });
      const isUnsigned = typeof value === "number" && value >= 0;
      return field(name, doc, of, `{ always = ${isUnsigned ? `0x${value.toString(16)}` : literal(value)} }`);
    }
    case "bits":
      return call(
        "bits",
        `${shape.bits / 8}`,
        block(bitFields(shape.bits, shape.fields)),
        ...(shape.before === undefined ? [] : [literal(shape.before)]),
      );
    case "text":
    case "bytes": {
      const { kind, length, max, contents } = shape;
      const size =
        typeof length === "object" ? field(`${name} length`, `bytes of ${name}`, length) : literal(length);
      const limit = max === undefined ? [] : [`max = ${max}`];
      const rules = [...limit, ...(contents === undefined ? [] : contentsOf(contents))];
      return call(kind, size, ...(rules.length === 0 ? [] : [contents ? block(rules) : `{ ${rules} }`]));
    }
    case "struct":
      return call("group", block(shape.fields.map((part) => field(part.name, part.doc, part.shape))));
    case "union": {
      const codes = Object.fromEntries(shape.variants.map((variant) => [variant.name, variant.code]));
      const tag = field(shape.tag, "which of them it is", { kind: "enum", of: shape.of, codes });
      const bodies = shape.variants.map(
        (variant) => `[${variant.code}] = ${field(variant.name, variant.doc, variant.body)}`,
      );
      return call("group", block([tag]), block(bodies));
    }
  }
}

function contentsOf({ by, kinds }: Contents): string[] {
  const groups = kinds.map(({ when, pdu }) =>
    block([`when = { ${when.map(literal).join(", ")} }`, `pdu = ${field(pdu.name, "", pdu)}`]),
  );
  return [...(by === undefined ? [] : [`by = ${literal(by)}`]), `contents = ${block(groups)}`];
}

function bitFields(bits: number, fields: readonly { name: string; width: number }[]): string[] {
  let below = bits;
  return fields.map(({ name, width }) => {
    below -= width;
    const mask = (2 ** width - 1) * 2 ** below;
    return `{ name = ${literal(name)}, width = ${width}, mask = 0x${mask.toString(16)} }`;
  });
}

const codesOf = (codes: Readonly<Record<string, number>>) =>
  `{ ${Object.entries(codes)
    .map(([name, code]) => `[${code}] = ${literal(name)}`)
    .join(", ")} }`;

function block(items: readonly string[]): string {
  return items.length === 0
    ? "{}"
    : `{\n${items.map((item) => `${item},`.replace(/^/gm, "  ")).join("\n")}\n}`;
}

/** JSON's escapes are Lua's but for `\u`. */
function literal(value: string | number): string {
  return JSON.stringify(value).replace(/\\(?:u(\w{4})|.)/g, (sequence, hex: string | undefined) =>
    hex === undefined ? sequence : `\\${Number.parseInt(hex, 16).toString().padStart(3, "0")}`,
  );
}
