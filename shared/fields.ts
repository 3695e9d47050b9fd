/**
 * What a codec is, and the fields of fixed size: integers, named codes, bit fields, constants. Numbers are
 * big-endian, as the network's order is. Texts and bytes are in `octets.ts`; `pdu.ts` composes them all.
 */
import { inspect } from "node:util";
import { Failure } from "./errors.ts";

/** Bytes that do not follow the declaration, or a value that does not fit it. */
export class PduError extends Failure {
  override name = "PduError";
  readonly path: string;
  readonly offset: number;
  readonly problem: string;
  constructor(path: string, offset: number, problem: string) {
    super(`${path}${path && " "}at byte ${offset}: ${problem}`);
    this.path = path;
    this.offset = offset;
    this.problem = problem;
  }
}

/** What a codec describes, as plain data: a generator is a switch over `kind`. */
export type Shape =
  | { kind: "integer"; bits: 8 | 16 | 32 | 64; signed: boolean }
  | { kind: "enum"; of: Shape; codes: Readonly<Record<string, number>> }
  /** `before`: each bit is about a number, from 1 up, before the one in that field; the last bit about the nearest. */
  | { kind: "bits"; bits: number; fields: { name: string; width: number }[]; before?: string }
  | { kind: "text" | "bytes"; length: number | Shape | "rest"; max?: number; contents?: Contents }
  | { kind: "constant"; of: Shape; value: number | string }
  | StructShape
  | { kind: "union"; name: string; tag: string; of: Shape; variants: Variant[] };
export type StructShape = { kind: "struct"; name: string; fields: FieldShape[] };
export type FieldShape = { name: string; doc: string; shape: Shape };
export type Variant = { name: string; code: number; doc: string; body: StructShape };
/** What bytes hold: PDUs of one kind, one after the other; which kind, the enum called `by` in front of them tells. */
export type Contents = { by?: string; kinds: readonly { when: readonly string[]; pdu: StructShape }[] };

export type Cursor = { bytes: Buffer; at: number };

export interface Codec<T> {
  readonly shape: Shape;
  /** Bytes that every value takes at least, and whether all take just that. */
  readonly minSize: number;
  readonly fixed: boolean;
  sizeOf(value: T): number;
  write(value: T, to: Cursor): void;
  read(from: Cursor): T;
  /**
   * The offset behind the value that begins at `at`. Where too few bytes are there to tell, an offset beyond
   * them: at least so many are needed to go on. Throws where what is there already cannot be right.
   */
  endOf(bytes: Buffer, at: number): number;
}
export type ValueOf<C> = C extends Codec<infer T> ? T : never;

/** A refused value, for the complaint: in short, and whatever it is. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 40));
  return inspect(value, { depth: 0, breakLength: Infinity, maxArrayLength: 3, maxStringLength: 40 });
}

/** Moves the cursor over `size` bytes and returns where they begin; the field began at `fieldAt`. */
export function take(cursor: Cursor, size: number, fieldAt = cursor.at): number {
  const { at, bytes } = cursor;
  if (at + size > bytes.length) {
    throw new PduError("", fieldAt, `needs ${size} bytes, ${bytes.length - at} left`);
  }
  cursor.at = at + size;
  return at;
}

export function fixedCodec<T>(
  shape: Shape,
  size: number,
  write: (value: T, bytes: Buffer, at: number) => void,
  read: (bytes: Buffer, at: number) => T,
): Codec<T> {
  return {
    shape,
    minSize: size,
    fixed: true,
    sizeOf: () => size,
    write: (value, to) => {
      write(value, to.bytes, to.at);
      to.at += size;
    },
    read: (from) => read(from.bytes, take(from, size)),
    endOf: (_, at) => at + size,
  };
}

function integer(bits: 8 | 16 | 32, signed: boolean): Codec<number> {
  const name = `${signed ? "i" : "u"}${bits}`;
  const size = bits / 8;
  const min = signed ? -(2 ** (bits - 1)) : 0;
  const max = min + 2 ** bits - 1;
  const type = `${signed ? "Int" : "UInt"}${bits === 8 ? "8" : (`${bits}BE` as "16BE" | "32BE")}` as const;
  const readIt = Buffer.prototype[`read${type}`];
  const writeIt = Buffer.prototype[`write${type}`];
  return fixedCodec(
    { kind: "integer", bits, signed },
    size,
    (value, bytes, at) => {
      if (!Number.isInteger(value) || value < min || value > max) {
        throw new PduError("", at, `${show(value)} does not fit ${name}`);
      }
      writeIt.call(bytes, value, at);
    },
    (bytes, at) => readIt.call(bytes, at),
  );
}

function bigInteger(signed: boolean): Codec<bigint> {
  const clamp = signed ? BigInt.asIntN : BigInt.asUintN;
  const type = signed ? "BigInt64BE" : "BigUInt64BE";
  return fixedCodec(
    { kind: "integer", bits: 64, signed },
    8,
    (value, bytes, at) => {
      if (typeof value !== "bigint" || clamp(64, value) !== value) {
        throw new PduError("", at, `${show(value)} does not fit ${signed ? "i" : "u"}64 (a bigint)`);
      }
      bytes[`write${type}`](value, at);
    },
    (bytes, at) => bytes[`read${type}`](at),
  );
}

export const u8 = integer(8, false);
export const u16 = integer(16, false);
export const u32 = integer(32, false);
export const u64 = bigInteger(false);
export const i8 = integer(8, true);
export const i16 = integer(16, true);
export const i32 = integer(32, true);
export const i64 = bigInteger(true);

/** Named codes: a value is one of the names; an unknown code is an error. */
export function enumOf<const C extends Record<string, number>>(
  of: Codec<number>,
  codes: C,
): Codec<keyof C & string> {
  const names = new Map(Object.entries(codes).map(([name, code]) => [code, name]));
  const nameAt = (bytes: Buffer, at: number) => {
    const code = of.read({ bytes, at });
    const name = names.get(code);
    if (name === undefined) throw new PduError("", at, `unknown code ${code}`);
    return name;
  };
  const codec = fixedCodec<keyof C & string>(
    { kind: "enum", of: of.shape, codes },
    of.minSize,
    (name, bytes, at) => {
      const code = Object.hasOwn(codes, name) ? codes[name] : undefined;
      if (code === undefined) throw new PduError("", at, `unknown name ${show(name)}`);
      of.write(code, { bytes, at });
    },
    nameAt,
  );
  return { ...codec, endOf: checkedEnd(of.minSize, nameAt) };
}

/** Looks at a value as soon as its bytes are there, so that garbage on a stream is refused at once. */
function checkedEnd(size: number, check: (bytes: Buffer, at: number) => unknown) {
  return (bytes: Buffer, at: number) => {
    if (at + size <= bytes.length) check(bytes, at);
    return at + size;
  };
}

type BitsValue<W> = {
  -readonly [K in keyof W as K extends "reserved" ? never : K]: W[K] extends 1 ? boolean : number;
};

/**
 * Bit fields, the most significant first; one bit is a boolean, more are a number. Bits named `reserved` are
 * no part of the value: written as zero, ignored when read.
 */
export function bits<const W extends Record<string, number>>(widths: W): Codec<BitsValue<W>> {
  const total = Object.values(widths).reduce((sum, width) => sum + width, 0);
  const of = { 8: u8, 16: u16, 32: u32 }[total];
  if (of === undefined) throw new TypeError(`bit fields of ${total} bits: must be 8, 16 or 32`);
  let below = total;
  const fields = Object.entries(widths).map(([name, width]) => {
    below -= width;
    return { name, width, low: 2 ** below, size: 2 ** width };
  });
  return fixedCodec(
    { kind: "bits", bits: total, fields: fields.map(({ name, width }) => ({ name, width })) },
    total / 8,
    (value: Record<string, unknown> | undefined, bytes, at) => {
      let word = 0;
      for (const { name, low, size } of fields) {
        if (name === "reserved") continue;
        const given = value?.[name];
        const part = typeof given === (size === 2 ? "boolean" : "number") ? Number(given) : Number.NaN;
        if (!Number.isInteger(part) || part < 0 || part >= size) {
          const room = size === 2 ? "one bit (a boolean)" : `${Math.log2(size)} bits`;
          throw new PduError(`bits.${name}`, at, `${show(given)} does not fit ${room}`);
        }
        word += part * low;
      }
      of.write(word, { bytes, at });
    },
    (bytes, at) => {
      const word = of.read({ bytes, at });
      const value: Record<string, unknown> = {};
      for (const { name, low, size } of fields) {
        const part = Math.floor(word / low) % size;
        if (name !== "reserved") value[name] = size === 2 ? part === 1 : part;
      }
      return value as BitsValue<W>;
    },
  ) as Codec<BitsValue<W>>;
}

/** Always the same value (magic, version): no part of the PDU's value, and anything else is an error. */
export type Constant = Codec<void> & { readonly constant: true };
export function constant<T extends number | string>(of: Codec<T>, value: T): Constant {
  const check = (bytes: Buffer, at: number) => {
    const found = of.read({ bytes, at });
    if (found !== value) throw new PduError("", at, `is ${found}, must be ${value}`);
  };
  const codec = fixedCodec<void>(
    { kind: "constant", of: of.shape, value },
    of.minSize,
    (_, bytes, at) => of.write(value, { bytes, at }),
    check,
  );
  return { ...codec, endOf: checkedEnd(of.minSize, check), constant: true };
}
