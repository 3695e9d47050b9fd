/** Where a text may be cut: behind a separator, so neither in a term nor in a UTF-8 sequence. */
import { isContinuation, isInTerm, sequenceAt } from "./characters.ts";
import { CHUNK_BYTES } from "./protocol.ts";

export interface Part {
  /** Where it begins in the text, in bytes. */
  offset: number;
  sizeBytes: number;
}

/** Looks for the first place to cut in bytes that come in chunks, the first of which may begin anywhere. */
export class CutFinder {
  /** Bytes of earlier chunks that are done with. */
  #passed = 0;
  #rest = Buffer.alloc(0);
  /** Has a sequence begun? Behind the bytes that continue one, one must. */
  #isInStep = false;

  /** How far behind the beginning of the first chunk one may cut, or undefined if not in these. */
  push(chunk: Buffer): number | undefined {
    const bytes = Buffer.concat([this.#rest, chunk]);
    let at = 0;
    while (!this.#isInStep && at < bytes.length && isContinuation(bytes[at] as number)) at++;
    this.#isInStep ||= at < bytes.length;
    while (at < bytes.length) {
      const sequence = sequenceAt(bytes, at, bytes.length);
      if (sequence === 0) break;
      if (sequence < 0) return this.#passed + at - sequence;
      at += sequence & 7;
      if (!isInTerm(sequence >> 3)) return this.#passed + at;
    }
    this.#passed += at;
    this.#rest = bytes.subarray(at);
    return undefined;
  }
}

/** Fills a buffer with the text from `offset` on, as far as there is any, and returns how many bytes there were. */
export type ReadAt = (buffer: Buffer, offset: number) => Promise<number>;

const WINDOW_BYTES = 64 * 1024;

/** At most `count` parts of about the same size, in order and none of them empty; one empty part of an empty text. */
export async function divide(sizeBytes: number, count: number, readAt: ReadAt): Promise<Part[]> {
  const parts: Part[] = [];
  let offset = 0;
  for (let i = 1; i <= count; i++) {
    const end =
      i === count ? sizeBytes : await cutFrom(Math.floor((sizeBytes * i) / count), sizeBytes, readAt);
    if (end <= offset) continue;
    parts.push({ offset, sizeBytes: end - offset });
    offset = end;
  }
  return parts.length > 0 ? parts : [{ offset: 0, sizeBytes: 0 }];
}

async function cutFrom(begin: number, sizeBytes: number, readAt: ReadAt): Promise<number> {
  const finder = new CutFinder();
  for (let offset = begin; offset < sizeBytes; ) {
    const window = Buffer.allocUnsafe(WINDOW_BYTES);
    const read = await readAt(window, offset);
    if (read === 0) break;
    const cut = finder.push(window.subarray(0, read));
    if (cut !== undefined) return begin + cut;
    offset += read;
  }
  return sizeBytes;
}

/** Read at a time: a call of the file system costs more than the bytes of one chunk. */
const READ_BYTES = 16 * CHUNK_BYTES;

/** The bytes of a part. Each chunk is valid until the next one only. */
export async function* chunksOf({ offset, sizeBytes }: Part, readAt: ReadAt): AsyncGenerator<Buffer, void> {
  const block = Buffer.allocUnsafe(Math.min(READ_BYTES, sizeBytes));
  for (let sent = 0; sent < sizeBytes; ) {
    const read = await readAt(block.subarray(0, sizeBytes - sent), offset + sent);
    for (let at = 0; at < read; at += CHUNK_BYTES) yield block.subarray(at, Math.min(at + CHUNK_BYTES, read));
    sent += read;
  }
}
