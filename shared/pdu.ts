/**
 * A protocol data unit (PDU), declared once.
 *
 * The declaration gives the TypeScript type (`ValueOf`), the encoder, the decoder, the framing on a byte
 * stream (`endOf`) and, through its `shape`, the diagrams and dissectors of `describe.ts`:
 *
 *     export const Frame = struct("Frame", {
 *       length: [u32, "what follows, in bytes"],
 *       flags:  [bits({ last: 1, reserved: 7 }), "last: no more frames follow"],
 *     });
 *     export type Frame = ValueOf<typeof Frame>;
 */
import {
  type Codec,
  type Constant,
  type Contents,
  enumOf,
  PduError,
  type StructShape,
  show,
  type ValueOf,
} from "./fields.ts";

export * from "./fields.ts";
export * from "./octets.ts";

/** The value's bytes, in a buffer of their own. Throws `PduError` where it does not fit the declaration. */
export function encode<T>(codec: Codec<T>, value: T): Buffer {
  const to = { bytes: Buffer.allocUnsafe(codec.sizeOf(value)), at: 0 };
  codec.write(value, to);
  return to.bytes;
}

/** The value of exactly these bytes; byte fields are views of them, not copies. Throws `PduError`. */
export function decode<T>(codec: Codec<T>, bytes: Buffer): T {
  const from = { bytes, at: 0 };
  const value = codec.read(from);
  if (from.at === bytes.length) return value;
  const name = "name" in codec.shape ? codec.shape.name : codec.shape.kind;
  throw new PduError(name, from.at, `${bytes.length - from.at} bytes left over`);
}

// biome-ignore lint/suspicious/noExplicitAny: a table of fields holds codecs of every type
type AnyCodec = Codec<any>;
/** A PDU's fields in the order in which they travel, each with what it means. */
export type Fields = Readonly<Record<string, readonly [codec: AnyCodec, doc: string]>>;
type Flat<T> = { [K in keyof T]: T[K] };
type StructValue<F extends Fields> = {
  -readonly [K in keyof F as F[K][0] extends Constant ? never : K]: ValueOf<F[K][0]>;
};
type AnyValue = Record<string, unknown>;
const isRecord = (value: unknown) => typeof value === "object" && value !== null;

/** Fields one after the other. `shape.name` is what errors, diagrams and dissectors call it. */
export function struct<const F extends Fields>(
  name: string,
  fields: F,
): Codec<Flat<StructValue<F>>> & { readonly shape: StructShape } {
  const names = Object.keys(fields);
  const codecs = Object.values(fields).map(([codec]) => codec);
  const kept = codecs.map((codec) => !("constant" in codec));
  const minSize = codecs.reduce((sum, codec) => sum + codec.minSize, 0);
  const growing = names.flatMap((field, i) =>
    codecs[i]?.fixed ? [] : [{ field, codec: codecs[i] as AnyCodec }],
  );

  /** Where in the PDU an error was met is only worked out when there is one. */
  const named = (error: unknown, index: number): unknown => {
    if (!(error instanceof PduError)) return error;
    const inner = error.path.replace(/^[^.]*/, ""); // without the inner codec's own name
    return new PduError(`${name}.${names[index]}${inner}`, error.offset, error.problem);
  };

  return {
    shape: {
      kind: "struct",
      name,
      fields: Object.entries(fields).map(([field, [codec, doc]]) => ({
        name: field,
        doc,
        shape: codec.shape,
      })),
    },
    minSize,
    fixed: growing.length === 0,
    sizeOf: (value: AnyValue) =>
      isRecord(value)
        ? growing.reduce((sum, { field, codec }) => sum + codec.sizeOf(value[field]) - codec.minSize, minSize)
        : minSize,
    write: (value: AnyValue, to) => {
      if (!isRecord(value)) throw new PduError(name, to.at, `${show(value)} is not an object`);
      let i = 0;
      try {
        for (; i < codecs.length; i++) (codecs[i] as AnyCodec).write(value[names[i] as string], to);
      } catch (error) {
        throw named(error, i);
      }
    },
    read: (from) => {
      const value: AnyValue = {};
      let i = 0;
      try {
        for (; i < codecs.length; i++) {
          const part = (codecs[i] as AnyCodec).read(from);
          if (kept[i]) value[names[i] as string] = part;
        }
      } catch (error) {
        throw named(error, i);
      }
      return value as Flat<StructValue<F>>;
    },
    endOf: (bytes, at) => {
      let end = at;
      let i = 0;
      try {
        for (; i < codecs.length && end <= bytes.length; i++) end = (codecs[i] as AnyCodec).endOf(bytes, end);
      } catch (error) {
        throw named(error, i);
      }
      return Math.max(end, at + minSize);
    },
  };
}

type Variants = Readonly<Record<string, readonly [code: number, fields: Fields, doc: string]>>;
type UnionValue<Tag extends string, U extends Variants> = {
  [V in keyof U]: Flat<{ [K in Tag]: V } & StructValue<U[V][1]>>;
}[keyof U];

/**
 * One of several PDUs, told apart by a code in front: the type is a discriminated union on `tag`. An unknown
 * code is an error.
 */
export function union<const Tag extends string, const U extends Variants>(
  name: string,
  tag: Tag,
  of: Codec<number>,
  variants: U,
): Codec<UnionValue<Tag, U>> {
  const entries = Object.entries(variants);
  const codes = Object.fromEntries(entries.map(([variant, [code]]) => [variant, code]));
  const head: AnyCodec = struct(name, { [tag]: [enumOf(of, codes), "which of them it is"] });
  const bodies = new Map(
    entries.map(([variant, [, fields]]) => [variant, struct(`${name}.${variant}`, fields)]),
  );
  const bodyOf = (value: AnyValue) => {
    const body = bodies.get(value[tag] as string);
    if (body === undefined) throw new PduError(`${name}.${tag}`, 0, `unknown name ${show(value[tag])}`);
    return body as AnyCodec & { readonly shape: StructShape };
  };
  return {
    shape: {
      kind: "union",
      name,
      tag,
      of: of.shape,
      variants: entries.map(([variant, [code, , doc]]) => ({
        name: variant,
        code,
        doc,
        body: bodyOf({ [tag]: variant }).shape,
      })),
    },
    minSize: head.minSize + Math.min(...[...bodies.values()].map((body) => body.minSize)),
    fixed: false,
    sizeOf: (value: AnyValue) =>
      head.minSize + (bodies.get(value?.[tag] as string)?.sizeOf(value as never) ?? 0),
    write: (value: AnyValue, to) => {
      head.write(value, to);
      bodyOf(value).write(value, to);
    },
    read: (from) => {
      const value: AnyValue = head.read(from);
      return Object.assign(value, bodyOf(value).read(from)) as UnionValue<Tag, U>;
    },
    endOf: (bytes, at) => {
      const end = head.endOf(bytes, at);
      return end > bytes.length ? end : bodyOf(head.read({ bytes, at })).endOf(bytes, end);
    },
  };
}

type StructCodec = { readonly shape: StructShape };
/**
 * Bytes in which other PDUs travel, one after the other: all of one kind, or of the kind that a named code (`by`)
 * in front of them tells, in this PDU or in one around it. The value stays bytes, for who reads them to decode;
 * Wireshark takes them apart.
 */
export function containing(of: Codec<Buffer>, pdu: StructCodec): Codec<Buffer>;
export function containing(
  of: Codec<Buffer>,
  by: string,
  kinds: Readonly<Record<string, StructCodec>>,
): Codec<Buffer>;
export function containing(
  of: Codec<Buffer>,
  ...[first, kinds = {}]: [pdu: StructCodec] | [by: string, kinds: Readonly<Record<string, StructCodec>>]
): Codec<Buffer> {
  if (of.shape.kind !== "bytes") throw new TypeError(`${of.shape.kind} contains no PDU: only bytes do`);
  const names = Object.keys(kinds);
  const byKind = [...new Set(Object.values(kinds))].map(({ shape }) => ({
    when: names.filter((name) => kinds[name]?.shape === shape),
    pdu: shape,
  }));
  const contents: Contents =
    typeof first === "string" ? { by: first, kinds: byKind } : { kinds: [{ when: [], pdu: first.shape }] };
  return { ...of, shape: { ...of.shape, contents } };
}
