/** Fields of text (UTF-8) and of bytes: of fixed length, behind their length, or up to the datagram's end. */
import { type Codec, fixedCodec, PduError, show, take } from "./fields.ts";

/** How a text or byte field is stored: converts, and counts its bytes without converting. */
interface Content<T> {
  kind: "text" | "bytes";
  is(value: unknown): value is T;
  size(value: T): number;
  put(value: T, bytes: Buffer, at: number): void;
  get(bytes: Buffer, at: number, end: number): T;
}

const rawBytes: Content<Buffer> = {
  kind: "bytes",
  is: Buffer.isBuffer,
  size: (value) => value.length,
  put: (value, bytes, at) => void value.copy(bytes, at),
  get: (bytes, at, end) => bytes.subarray(at, end),
};

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const utf8Text: Content<string> = {
  kind: "text",
  is: (value) => typeof value === "string",
  size: (value) => Buffer.byteLength(value),
  put: (value, bytes, at) => {
    if (!value.isWellFormed()) throw new PduError("", at, "has a lone surrogate, which UTF-8 cannot carry");
    bytes.write(value, at);
  },
  get: (bytes, at, end) => {
    try {
      return strictUtf8.decode(bytes.subarray(at, end));
    } catch {
      throw new PduError("", at, "is not valid UTF-8");
    }
  },
};

/** Bytes that the value takes, for `sizeOf`; what is no such value at all is refused by `write`, which knows where. */
const sizeIn = <T>(content: Content<T>, value: T) => (content.is(value) ? content.size(value) : 0);

function checkedSize<T>(content: Content<T>, value: T, at: number): number {
  if (content.is(value)) return content.size(value);
  throw new PduError("", at, `${show(value)} is not ${content.kind === "text" ? "a text" : "a Buffer"}`);
}

/** `size` bytes; a shorter text is padded with NULs, which are no part of it. */
function fixedLength<T extends string | Buffer>(content: Content<T>, size: number): Codec<T> {
  const isText = content.kind === "text";
  return fixedCodec(
    { kind: content.kind, length: size },
    size,
    (value, bytes, at) => {
      const actual = checkedSize(content, value, at);
      if (isText ? actual > size : actual !== size) {
        throw new PduError("", at, `is ${actual} bytes, the field ${size}`);
      }
      if (isText && value.includes("\0")) throw new PduError("", at, "has a NUL, which is the padding");
      content.put(value, bytes, at);
      bytes.fill(0, at + actual, at + size);
    },
    (bytes, at) => {
      if (!isText) return content.get(bytes, at, at + size);
      const padding = bytes.subarray(at, at + size).indexOf(0);
      const end = padding < 0 ? at + size : at + padding;
      if (bytes.subarray(end, at + size).some((byte) => byte !== 0)) {
        throw new PduError("", end, "the padding is not all NUL");
      }
      return content.get(bytes, at, end);
    },
  );
}

/** A length, then so many bytes (at most `max`). */
function prefixed<T>(content: Content<T>, length: Codec<number>, max: number): Codec<T> {
  const check = (size: number, at: number) => {
    if (size < 0 || size > max) throw new PduError("", at, `is ${size} bytes, at most ${max} are allowed`);
    return size;
  };
  return {
    shape: { kind: content.kind, length: length.shape, ...(max === Infinity ? {} : { max }) },
    minSize: length.minSize,
    fixed: false,
    sizeOf: (value) => length.minSize + sizeIn(content, value),
    write: (value, to) => {
      const size = check(checkedSize(content, value, to.at), to.at);
      length.write(size, to);
      content.put(value, to.bytes, to.at);
      to.at += size;
    },
    read: (from) => {
      const { at } = from;
      const size = check(length.read(from), at);
      return content.get(from.bytes, take(from, size, at), from.at);
    },
    endOf: (bytes, at) => {
      const start = at + length.minSize;
      return start > bytes.length ? start : start + check(length.read({ bytes, at }), at);
    },
  };
}

/** Everything up to the end of the datagram; has no end of its own on a byte stream. */
function rest<T>(content: Content<T>): Codec<T> {
  return {
    shape: { kind: content.kind, length: "rest" },
    minSize: 0,
    fixed: false,
    sizeOf: (value) => sizeIn(content, value),
    write: (value, to) => {
      checkedSize(content, value, to.at);
      content.put(value, to.bytes, to.at);
      to.at = to.bytes.length;
    },
    read: (from) => content.get(from.bytes, take(from, from.bytes.length - from.at), from.at),
    endOf: () => {
      throw new TypeError("a field that takes the rest of its datagram has no end on a byte stream");
    },
  };
}

export const fixedText = (size: number) => fixedLength(utf8Text, size);
export const fixedBytes = (size: number) => fixedLength(rawBytes, size);
export const text = (length: Codec<number>, max = Infinity) => prefixed(utf8Text, length, max);
export const bytes = (length: Codec<number>, max = Infinity) => prefixed(rawBytes, length, max);
export const restText = rest(utf8Text);
export const restBytes = rest(rawBytes);
