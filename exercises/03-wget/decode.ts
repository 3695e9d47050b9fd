/** Bodies that were compressed for their way (RFC 9110 §8.4), decompressed as they come. */
import { pipeline, Readable, type Transform } from "node:stream";
import { createBrotliDecompress, createGunzip, createInflate, createInflateRaw } from "node:zlib";
import { Failure, isFailure } from "../../shared/errors.ts";
import type { Fields } from "../../shared/http.ts";
import { printable } from "../../shared/printable.ts";

const CODINGS = ["gzip", "x-gzip", "deflate", "br"];
/** Each needs a decoder with a window of its own; curl stops at five, too. */
const MAX_CODINGS = 5;

/** The codings that were applied, in their order. Throws `Failure` for one that nobody asked for. */
export function codingsOf(fields: Fields): string[] {
  const codings = fields.tokens("Content-Encoding").filter((coding) => coding !== "identity");
  const unknown = codings.find((coding) => !CODINGS.includes(coding));
  if (unknown !== undefined)
    throw new Failure(`the body is coded with ${printable(unknown)}, which was not asked for`);
  if (codings.length > MAX_CODINGS) throw new Failure(`the body is coded ${codings.length} times over`);
  return codings;
}

/** Some servers send RFC 1951 where `deflate` means RFC 1950, whose first byte tells it: method 8. */
const inflater = (firstByte: number) => ((firstByte & 0x0f) === 8 ? createInflate() : createInflateRaw());

function decoder(coding: string, firstByte: number): Transform {
  if (coding === "br") return createBrotliDecompress();
  return coding === "deflate" ? inflater(firstByte) : createGunzip();
}

/** Throws `Failure` where it is broken or cut off. */
export async function* decode(
  body: AsyncIterable<Buffer>,
  codings: readonly string[],
): AsyncGenerator<Buffer> {
  const chunks = body[Symbol.asyncIterator]();
  const first = await chunks.next();
  if (first.done) return; // nothing at all, not even a header, is what some servers make of nothing
  const source = Readable.from(copies(first.value, chunks));
  const decoders = codings
    .toReversed()
    .map((coding, i) => decoder(coding, i === 0 ? (first.value[0] ?? 0) : 8));
  const decompressed = pipeline([source, ...decoders], () => {}) as unknown as AsyncIterable<Buffer>;
  try {
    yield* decompressed;
  } catch (error) {
    if (isFailure(error) || !(error instanceof Error && "errno" in error)) throw error;
    throw new Failure(`the body is no proper ${codings.join(", ")}`, { cause: error });
  }
}

/** The streams hold on to what they were given, while our chunks are valid until the next only. */
async function* copies(first: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  for (let chunk: IteratorResult<Buffer> = { value: first }; !chunk.done; chunk = await rest.next())
    yield Buffer.from(chunk.value);
}
