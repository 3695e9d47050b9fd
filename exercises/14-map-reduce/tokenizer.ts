/**
 * Text in chunks of any size, cut anywhere, into a table of its terms: maximal runs of letters, marks and digits, in lower
 * case and NFC. This is the map function, of the nodes and of `map.ts`.
 *
 * The fast path is `#scan`: it hashes a term while it reads it, and writes it in lower case where the table would keep it.
 * It takes ASCII and the characters of two bytes (Latin, Greek, Cyrillic …) that stand for themselves in NFC. A term with
 * any other goes the slow path, `#countSlowly`, which leaves lower case and NFC to the runtime's strings. On 53 MB of Spanish
 * the fast path takes less than a quarter of the CPU time of a regular expression with a Map; the slow path about as much as that.
 */
import { ASCII, isInTerm, SEPARATOR, SLOW, sequenceAt, TWO_BYTES } from "./characters.ts";
import { HASH_FACTOR, HASH_START, TermTable } from "./term-table.ts";

/** A term of more bytes in the text is not counted, but reported: memory is for terms that somebody can read. */
export const MAX_TERM_BYTES = 65_536;
/** Bytes that the beginning of a sequence has at most. */
const MAX_UNFINISHED_BYTES = 3;

const NOTHING = Buffer.alloc(0);
const LINE_END = Buffer.from("\n");

/** The bytes up to and with the first that is a separator by itself; 0 where there is none. */
function headOf(chunk: Buffer): number {
  return chunk.findIndex((byte) => ASCII[byte] === SEPARATOR) + 1;
}

export class Tokenizer {
  readonly table = new TermTable();
  /** Bytes that are no UTF-8; they separate. */
  invalidBytes = 0;
  /** Terms over MAX_TERM_BYTES. */
  longTerms = 0;
  /** The term, or the character, that the last chunk has begun and not ended. */
  #rest: Buffer = NOTHING;
  /** What came behind it and is not yet looked at: a long rest is read again only when as much has come, or a term in single bytes would take hours. */
  #gathered: Buffer[] = [];
  #gatheredBytes = 0;
  /** Are we in a term that is too long already? */
  #isSkipping = false;

  /** What was pushed may be overwritten afterwards. */
  push(chunk: Buffer): void {
    if (this.#gatheredBytes + chunk.length >= this.#rest.length) return this.#read(chunk);
    this.#gathered.push(Buffer.from(chunk));
    this.#gatheredBytes += chunk.length;
  }

  #read(chunk: Buffer): void {
    const head = this.#rest.length > 0 && this.#gatheredBytes === 0 && !this.#isSkipping ? headOf(chunk) : 0;
    if (head > 0) {
      // Only what belongs together is put together: copying all would take as long as a tenth of the scanning.
      this.#scan(Buffer.concat([this.#rest, chunk.subarray(0, head)]), 0);
      this.#rest = NOTHING;
      chunk = chunk.subarray(head);
    }
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, ...this.#gathered, chunk]);
    this.#gathered = [];
    this.#gatheredBytes = 0;
    let done = this.#isSkipping ? this.#skip(bytes, 0) : 0;
    if (!this.#isSkipping) done = this.#scan(bytes, done);
    if (bytes.length - done > MAX_TERM_BYTES + MAX_UNFINISHED_BYTES) {
      this.#isSkipping = true;
      done = this.#skip(bytes, done);
    }
    this.#rest = Buffer.from(bytes.subarray(done));
  }

  /** There is no more: what the last chunk has begun ends here. */
  end(): void {
    this.#read(LINE_END);
  }

  /** Counts the terms that end in these bytes, from `at` on. Returns where the one begins that does not, or the end. */
  #scan(bytes: Buffer, at: number): number {
    const { table } = this;
    const ascii = ASCII; // what is imported is looked up each time
    const end = bytes.length;
    table.reserve(end);
    let arena = table.arena;
    while (at < end) {
      const start = at;
      let to = table.used;
      let hash = HASH_START;
      let separatorBytes = 1;
      for (;;) {
        let lower = SLOW;
        for (; at < end; at++) {
          lower = ascii[bytes[at] as number] as number;
          if (lower <= SLOW) break;
          arena[to++] = lower;
          hash = Math.imul(hash ^ lower, HASH_FACTOR);
        }
        if (at === end) return start;
        if (lower === SEPARATOR) break;
        const byte = bytes[at] as number;
        let point = SLOW;
        if (byte >= 0xc2 && byte < 0xe0 && at + 1 < end) {
          const next = bytes[at + 1] as number;
          if ((next & 0xc0) === 0x80) point = TWO_BYTES[((byte & 0x1f) << 6) | (next & 0x3f)] as number;
        }
        if (point > SLOW) {
          const first = 0xc0 | (point >> 6);
          const second = 0x80 | (point & 0x3f);
          arena[to++] = first;
          arena[to++] = second;
          hash = Math.imul(Math.imul(hash ^ first, HASH_FACTOR) ^ second, HASH_FACTOR);
          at += 2;
          continue;
        }
        separatorBytes = point === SEPARATOR ? 2 : this.#separatorAt(bytes, at);
        break;
      }
      if (separatorBytes > 0) {
        if (at - start > MAX_TERM_BYTES) this.longTerms++;
        else if (at > start) table.count(to - table.used, hash, 1);
        at += separatorBytes;
        continue;
      }
      at = this.#termEnd(bytes, at);
      if (at < 0) return start;
      this.#countSlowly(bytes.subarray(start, at));
      table.reserve(end - at);
      arena = table.arena;
    }
    return end;
  }

  /** The bytes that separate here; 0 where a term goes on, or where the end comes too early to tell. */
  #separatorAt(bytes: Buffer, at: number): number {
    const sequence = sequenceAt(bytes, at, bytes.length);
    if (sequence < 0) {
      this.invalidBytes -= sequence;
      return -sequence;
    }
    return sequence === 0 || isInTerm(sequence >> 3) ? 0 : sequence & 7;
  }

  /** Where the term that goes on at `at` ends, or -1 where that is not in these bytes. */
  #termEnd(bytes: Buffer, at: number): number {
    for (let sequence = 1; ; at += sequence & 7) {
      if (at >= bytes.length) return -1;
      sequence = sequenceAt(bytes, at, bytes.length);
      if (sequence === 0) return -1;
      if (sequence < 0 || !isInTerm(sequence >> 3)) return at;
    }
  }

  #countSlowly(term: Buffer): void {
    if (term.length > MAX_TERM_BYTES) {
      this.longTerms++;
      return;
    }
    const bytes = Buffer.from(term.toString().toLowerCase().normalize("NFC"));
    this.table.add(bytes, 0, bytes.length, 1);
  }

  /** Goes on in a term that is too long. Returns where it ends, or where the character begins that is not all there. */
  #skip(bytes: Buffer, at: number): number {
    for (let sequence = 1; at < bytes.length; at += sequence & 7) {
      sequence = sequenceAt(bytes, at, bytes.length);
      if (sequence === 0) return at;
      if (sequence > 0 && isInTerm(sequence >> 3)) continue;
      this.longTerms++;
      this.#isSkipping = false;
      return at;
    }
    return at;
  }
}
