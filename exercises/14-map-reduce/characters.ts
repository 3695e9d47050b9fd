/**
 * What a term is made of: letters, marks and digits of any script (`\p{L}\p{M}\p{N}`), read from UTF-8. Which characters
 * these are is Node's own Unicode data; the tables are made from it at the start.
 */
const TERM_CHARACTER = /^[\p{L}\p{M}\p{N}]$/u;
const MARK = /^\p{M}$/u;

/** For the fast path: not to be decided by this byte, or by these two, alone. */
export const SLOW = 1;
/** For the fast path: no part of a term. */
export const SEPARATOR = 0;

/** Each ASCII byte in lower case, or SEPARATOR; SLOW for all others. */
export const ASCII = Uint8Array.from({ length: 256 }, (_, byte) => {
  if (byte >= 0x80) return SLOW;
  const character = String.fromCharCode(byte);
  return TERM_CHARACTER.test(character) ? character.toLowerCase().charCodeAt(0) : SEPARATOR;
});

/**
 * Each character of two bytes in lower case, or SEPARATOR. SLOW where its neighbours count: a mark, what has another
 * form in NFC, what becomes longer, and the sigma, which has another small letter at a term's end.
 */
export const TWO_BYTES = Uint16Array.from({ length: 0x800 }, (_, point) => {
  const character = String.fromCharCode(point);
  if (!TERM_CHARACTER.test(character)) return SEPARATOR;
  const lower = character.toLowerCase();
  const code = lower.charCodeAt(0);
  const isPlain = lower.length === 1 && code >= 0x80 && code < 0x800 && lower.normalize("NFC") === lower;
  return isPlain && !MARK.test(character) && character !== "Σ" ? code : SLOW;
});

/** 0 where nobody has asked yet, else 1 (no) or 2 (yes). */
const known = new Uint8Array(0x110000);

/** Is the code point part of terms? */
export function isInTerm(point: number): boolean {
  if (known[point] === 0) known[point] = TERM_CHARACTER.test(String.fromCodePoint(point)) ? 2 : 1;
  return known[point] === 2;
}

/** The smallest and largest second byte behind a first one, where they are not 0x80 and 0xbf (Unicode, table 3-7). */
const secondByte = (least: number, others: Readonly<Record<number, number>>) =>
  Uint8Array.from({ length: 256 }, (_, first) => others[first] ?? least);
const SECOND_MIN = secondByte(0x80, { 224: 0xa0, 240: 0x90 });
const SECOND_MAX = secondByte(0xbf, { 237: 0x9f, 244: 0x8f });

export const isContinuation = (byte: number) => (byte & 0xc0) === 0x80;

/**
 * The UTF-8 sequence that begins at `at`, as code point × 8 + its bytes. Where there is none, minus the number of bytes that
 * are invalid (the maximal subpart, as a WHATWG decoder has it); 0 where `end` comes too early to tell.
 */
export function sequenceAt(bytes: Uint8Array, at: number, end: number): number {
  const first = bytes[at] as number;
  if (first < 0x80) return first * 8 + 1;
  if (first < 0xc2 || first > 0xf4) return -1;
  const size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  let point = first & (0x7f >> size);
  for (let i = 1; i < size; i++) {
    if (at + i >= end) return 0;
    const next = bytes[at + i] as number;
    if (!isContinuation(next)) return -i;
    if (i === 1 && (next < (SECOND_MIN[first] as number) || next > (SECOND_MAX[first] as number))) return -1;
    point = (point << 6) | (next & 0x3f);
  }
  return point * 8 + size;
}
