/** Terms and where a text may be cut: the tokenizer, the table, the lines and the parts, beside a regular expression. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { isInTerm, sequenceAt } from "./characters.ts";
import { addLines, LineReader, linesOf, MAX_LINE_BYTES, mergeInto, sorted } from "./lines.ts";
import { countedIn, termsOf } from "./oracle.ts";
import { CutFinder, divide } from "./parts.ts";
import { warnings } from "./streaming.ts";
import { TermTable } from "./term-table.ts";
import { MAX_TERM_BYTES, Tokenizer } from "./tokenizer.ts";

const SEED = 14;
const RUNS = 1000;

function tokenized(chunks: readonly Buffer[]): Tokenizer {
  const tokenizer = new Tokenizer();
  for (const chunk of chunks) {
    const lent = Buffer.from(chunk);
    tokenizer.push(lent);
    lent.fill("x"); // it may be used for something else now
  }
  tokenizer.end();
  return tokenizer;
}

async function output(table: TermTable): Promise<string> {
  return Buffer.concat([...linesOf(table, await sorted(table))]).toString();
}

function cutAt(bytes: Buffer, places: readonly number[]): Buffer[] {
  const cuts = [0, ...places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return cuts.slice(1).map((end, i) => bytes.subarray(cuts[i], end));
}

/** Every kind of character that a path of the tokenizer is for. */
const CHARACTERS = [
  ..."aZé09 .,\n\t_-'",
  "e\u0301", // é, decomposed
  "\u0301",
  "\u0345\u0301", // marks that change their order
  "ſ", // s with another form
  "ÁÑΑΒΓДЖ",
  "Σ",
  "ΟΔΟΣ", // its last letter becomes ς
  "İ", // becomes longer
  "ß",
  "ǅ", // title case
  "K", // KELVIN SIGN: k in lower case
  "Å", // ANGSTROM SIGN: å in NFC
  "ﬁ",
  "가", // Hangul, and the same from its parts
  "\u1100\u1161",
  "漢字かな",
  "एक", // with a vowel sign, a mark
  "١٢٣", // digits
  "Ⅷ½",
  "𝐀", // four bytes
  "𐐀", // four bytes, with a small letter
  "😀",
  "“”—…", // separators of three bytes
  "«»¡¿", // of two
  "\u00ad", // soft hyphen
  "\ufeff",
  "\u200d",
  "\0",
];
const text = fc.string({ unit: fc.constantFrom(...CHARACTERS), maxLength: 40 });
/** Text in which some bytes are none. */
const damaged = fc
  .array(
    fc.oneof(
      text.map((part) => Buffer.from(part)),
      fc.uint8Array({ maxLength: 4 }).map(Buffer.from),
    ),
    { maxLength: 6 },
  )
  .map((parts) => Buffer.concat(parts));
const places = fc.array(fc.nat(), { maxLength: 8 });

describe("the tokenizer", () => {
  test(`whatever the text and its chunks, the counts are those of the regular expression (seed ${SEED})`, async () => {
    await fc.assert(
      fc.asyncProperty(damaged, places, async (bytes, places) => {
        assert.equal(await output(tokenized(cutAt(bytes, places)).table), countedIn(bytes));
      }),
      { seed: SEED, numRuns: RUNS },
    );
  });

  test("a text of all kinds of characters in chunks of 1, 2, 3 … bytes", async () => {
    const bytes = Buffer.from(`${CHARACTERS.join("")} ${CHARACTERS.join(" x")}`);
    const expected = countedIn(bytes);
    for (let size = 1; size <= 16; size++) {
      const cuts = Array.from({ length: Math.floor(bytes.length / size) }, (_, i) => i * size);
      assert.equal(await output(tokenized(cutAt(bytes, cuts)).table), expected, `chunks of ${size}`);
    }
  });

  test("every character of Unicode, alone and behind a letter, is taken as the regular expression takes it", async () => {
    const characters: string[] = [];
    for (let point = 0; point < 0x110000; point++) {
      if (point >= 0xd800 && point < 0xe000) continue;
      if (point > 0x30000 && point < 0xe0000 && point % 97 !== 0) continue; // hardly anything is assigned there
      characters.push(String.fromCodePoint(point));
    }
    const text = characters.map((character) => `a${character} ${character}b`).join("\n");
    const tokenizer = tokenized([Buffer.from(text)]);
    const expected = termsOf(text);
    assert.equal(tokenizer.table.words, expected.length);
    assert.equal(tokenizer.table.size, new Set(expected).size);
    const lines = (await output(tokenizer.table)).split("\n").slice(0, -1);
    assert.deepEqual(new Set(lines.map((line) => line.split("\t")[0])), new Set(expected));
  });

  test("one term, whether composed or not, in capitals or not, and however it is cut", async () => {
    const bytes = Buffer.from("CAFÉ cafe\u0301 Café CAFE\u0301 café");
    for (let at = 0; at <= bytes.length; at++)
      assert.equal(await output(tokenized(cutAt(bytes, [at])).table), "café\t5\n");
  });

  for (const [what, hex, expected, invalid] of [
    ["a byte that begins nothing", "61 ff 62", "a\t1\nb\t1\n", 1],
    ["a byte that continues nothing", "61 80 62", "a\t1\nb\t1\n", 1],
    ["a sequence that is cut by a letter", "61 e2 82 62", "a\t1\nb\t1\n", 2],
    ["a sequence that is cut by the end", "61 f0 9f 98", "a\t1\n", 3],
    ["more bytes than needed (c0 af)", "61 c0 af 62", "a\t1\nb\t1\n", 2],
    ["a surrogate", "61 ed a0 80 62", "a\t1\nb\t1\n", 3],
    ["beyond Unicode", "61 f4 90 80 80 62", "a\t1\nb\t1\n", 4],
    ["Latin-1", "61 f1 6f", "a\t1\no\t1\n", 1],
    ["in the slow path", "65 cc 81 ff 65", "e\t1\né\t1\n", 1],
  ] as const) {
    test(`${what} separates, and is counted as invalid`, async () => {
      const bytes = Buffer.from(hex.replaceAll(" ", ""), "hex");
      for (let at = 0; at <= bytes.length; at++) {
        const tokenizer = tokenized(cutAt(bytes, [at]));
        assert.equal(await output(tokenizer.table), expected);
        assert.equal(tokenizer.invalidBytes, invalid, `cut at ${at}`);
      }
      assert.equal(expected, countedIn(bytes));
    });
  }

  test("a term is counted up to its limit, and beyond it reported, whatever the chunks", async () => {
    for (const [letter, separator] of [
      ["x", " "],
      ["é", "—"],
      ["e\u0301", "\u2028"],
      ["漢", "。"],
    ] as const) {
      const size = Buffer.byteLength(letter);
      const most = Math.floor(MAX_TERM_BYTES / size);
      for (const count of [most, most + 1]) {
        const bytes = Buffer.from(`one${separator}${letter.repeat(count)}${separator}two`);
        const isLong = count * size > MAX_TERM_BYTES;
        // Cut in the separator behind the term, too: what has come of that is not the term's.
        const behind = MAX_TERM_BYTES + Buffer.byteLength(`one${separator}`);
        for (const chunk of [bytes.length, 1000, behind + 1, behind + 2, behind + 4]) {
          const cuts = Array.from({ length: Math.floor(bytes.length / chunk) }, (_, i) => i * chunk);
          const { table, longTerms, invalidBytes } = tokenized(cutAt(bytes, cuts));
          assert.deepEqual([table.words, longTerms, invalidBytes], isLong ? [2, 1, 0] : [3, 0, 0]);
        }
      }
    }
    const endless = tokenized(Array.from({ length: 40 }, () => Buffer.alloc(10_000, "y")));
    assert.deepEqual([endless.table.words, endless.longTerms], [0, 1]);
  });

  test("long terms in single bytes are not read again for each byte", async () => {
    const terms = Buffer.from(`${"x".repeat(60_000)} ${"e\u0301".repeat(20_000)} `.repeat(3));
    const tokenizer = new Tokenizer();
    const beganMs = process.cpuUsage().user / 1000;
    for (let at = 0; at < terms.length; at++) tokenizer.push(terms.subarray(at, at + 1));
    tokenizer.end();
    const tookMs = process.cpuUsage().user / 1000 - beganMs;
    assert.deepEqual([tokenizer.table.words, tokenizer.table.size], [6, 2]);
    assert.ok(tookMs < 5000, `${tookMs} ms; for each byte anew it would be over 10 s`);
  });

  test("what a user is told", () => {
    assert.deepEqual(warnings({ invalidBytes: 0, longTerms: 0 }), []);
    assert.equal(warnings({ invalidBytes: 3n, longTerms: 1n }).length, 2);
  });
});

describe("the table", () => {
  test(`adds up as a Map does, and so do the tables of two halves (seed ${SEED})`, async () => {
    const words = fc.array(
      fc.tuple(fc.string({ minLength: 1, maxLength: 3 }), fc.integer({ min: 1, max: 2 ** 40 })),
      { maxLength: 3000 },
    );
    await fc.assert(
      fc.asyncProperty(words, words, async (first, second) => {
        const [table, other] = [new TermTable(), new TermTable()];
        const expected = new Map<string, number>();
        for (const [to, words] of [
          [table, first],
          [other, second],
        ] as const)
          for (const [word, times] of words) {
            const bytes = Buffer.from(word.toWellFormed());
            to.add(bytes, 0, bytes.length, times);
            expected.set(word.toWellFormed(), (expected.get(word.toWellFormed()) ?? 0) + times);
          }
        await mergeInto(table, other);
        const found = new Map<string, number>();
        for (let term = 0; term < table.size; term++) {
          const bytes = table.arena.subarray(table.starts[term], table.starts[term + 1]);
          found.set(Buffer.from(bytes).toString(), table.counts[term] ?? 0);
        }
        assert.deepEqual(found, expected);
        assert.equal(
          table.words,
          [...expected.values()].reduce((sum, count) => sum + count, 0),
        );
      }),
      { seed: SEED, numRuns: 50 },
    );
  });

  test("a hundred thousand terms: all there, in order, and read back from their lines in pieces of any size", async () => {
    const table = new TermTable();
    for (let i = 0; i < 100_000; i++) {
      const bytes = Buffer.from(`t${(i * 7919) % 100_000}`);
      table.add(bytes, 0, bytes.length, 1 + (i % 5));
    }
    const lines = await output(table);
    const rows = lines
      .split("\n")
      .slice(0, -1)
      .map((line) => line.split("\t") as [string, string]);
    assert.equal(rows.length, 100_000);
    const expected = rows.toSorted(
      ([a, countA], [b, countB]) => Number(countB) - Number(countA) || (a < b ? -1 : 1),
    );
    assert.deepEqual(rows, expected);
    const again = new TermTable();
    const reader = new LineReader(again);
    const bytes = Buffer.from(lines);
    for (let at = 0; at < bytes.length; at += 4099) reader.push(bytes.subarray(at, at + 4099));
    reader.end();
    assert.equal(await output(again), lines);
  });
});

describe("lines", () => {
  const lines = (text: string | Buffer) => () => addLines(new TermTable(), Buffer.from(text as string));

  for (const wrong of [
    "a\n",
    "\t1\n",
    "a\t\n",
    "a\t0\n",
    "a\t1",
    "a\t1x\n",
    "a\t-1\n",
    "a\t1\t1\n",
    "a 1\n",
    "\n",
    "a\t1234567890123456\n",
    "a\nb\t1\n",
  ]) {
    test(`${JSON.stringify(wrong)} is refused`, () => {
      assert.throws(lines(`fine\t1\n${wrong}`), {
        name: "Failure",
        message: /^not a term, a tab and a count: "/,
      });
    });
  }
  test("what is not UTF-8 is refused", () => {
    assert.throws(lines(Buffer.from("ff0931 0a".replaceAll(" ", ""), "hex")), /not UTF-8/);
  });
  test("a line without an end is refused before it fills the memory", () => {
    const reader = new LineReader(new TermTable());
    assert.throws(() => {
      for (let i = 0; i < MAX_LINE_BYTES; i++) reader.push(Buffer.alloc(1000, "x"));
    }, /a line is longer than/);
  });
  test("counts are summed exactly, or refused", () => {
    const table = new TermTable();
    for (let i = 0; i < 9; i++) addLines(table, Buffer.from("a\t999999999999999\n"));
    assert.equal(table.words, 8_999_999_999_999_991);
    assert.throws(() => addLines(table, Buffer.from("b\t999999999999999\n")), /counted exactly/);
  });
});

describe("parts", () => {
  const reading = (bytes: Buffer) => async (buffer: Buffer, offset: number) => bytes.copy(buffer, 0, offset);

  test(`whatever the text and the number of parts, each part by itself has the counts of the whole (seed ${SEED})`, async () => {
    await fc.assert(
      fc.asyncProperty(damaged, fc.integer({ min: 1, max: 9 }), async (bytes, count) => {
        const parts = await divide(bytes.length, count, reading(bytes));
        assert.ok(parts.length <= count);
        const table = new TermTable();
        let invalid = 0;
        let offset = 0;
        for (const part of parts) {
          assert.equal(part.offset, offset);
          offset += part.sizeBytes;
          assert.ok(part.sizeBytes > 0 || bytes.length === 0);
          const tokenizer = tokenized([bytes.subarray(part.offset, offset)]);
          invalid += tokenizer.invalidBytes;
          await mergeInto(table, tokenizer.table);
        }
        assert.equal(offset, bytes.length);
        assert.equal(await output(table), countedIn(bytes));
        assert.equal(invalid, tokenized([bytes]).invalidBytes);
      }),
      { seed: SEED, numRuns: RUNS },
    );
  });

  test(`a cut is found in the same place whatever the chunks, and is near (seed ${SEED})`, () => {
    fc.assert(
      fc.property(damaged, places, (bytes, places) => {
        const whole = new CutFinder().push(bytes);
        const finder = new CutFinder();
        let found: number | undefined;
        for (const chunk of cutAt(bytes, places)) found ??= finder.push(chunk);
        assert.equal(found, whole);
      }),
      { seed: SEED, numRuns: RUNS },
    );
    assert.equal(new CutFinder().push(Buffer.from("lugar de la Mancha")), 6);
    assert.equal(new CutFinder().push(Buffer.from("ño—de").subarray(1)), 5, "from the middle of a letter");
    assert.equal(new CutFinder().push(Buffer.from("e\u0301")), undefined, "not before a mark");
  });

  test("parts of a text of spaces are of one size; a text without separators is one part", async () => {
    const spaces = Buffer.alloc(1000, " ");
    assert.deepEqual(
      (await divide(1000, 4, reading(spaces))).map((part) => part.sizeBytes),
      [251, 250, 250, 249],
    );
    const letters = Buffer.alloc(200_000, "a");
    assert.deepEqual(await divide(200_000, 4, reading(letters)), [{ offset: 0, sizeBytes: 200_000 }]);
    assert.deepEqual(await divide(0, 4, reading(Buffer.alloc(0))), [{ offset: 0, sizeBytes: 0 }]);
  });
});

test("UTF-8 is read as TextDecoder reads it, for every two bytes and their neighbours", () => {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  for (let first = 0x80; first < 0x100; first++)
    for (let second = 0; second < 0x100; second++)
      for (const tail of [[], [0x80], [0x80, 0x80], [0xbf, 0x41]]) {
        const bytes = Buffer.from([first, second, ...tail, 0x0a]);
        const points: number[] = [];
        for (let at = 0; at < bytes.length; ) {
          const sequence = sequenceAt(bytes, at, bytes.length);
          points.push(sequence < 0 ? 0xfffd : sequence >> 3);
          at += sequence < 0 ? -sequence : sequence & 7;
        }
        assert.equal(String.fromCodePoint(...points), decoder.decode(bytes));
      }
  assert.ok(isInTerm(0x301) && !isInTerm(0xfffd));
});
