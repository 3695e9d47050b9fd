/** The pure rules: lines, names, masks, modes, floods, and the reader that cuts bytes into lines. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { bucket } from "./flood.ts";
import { DROPPED, lineReader, TOO_LONG } from "./line-reader.ts";
import { formatModes, parseModes } from "./modes.ts";
import { NUMERICS } from "./numerics.ts";
import {
  completeMask,
  fold,
  formatLine,
  isChannel,
  isKey,
  isNick,
  LIMITS,
  MAX_LINE_BYTES,
  matchesMask,
  parseLine,
  shown,
  withText,
} from "./protocol.ts";

const SEED = 20_261_109;
const check = (property: fc.IRawProperty<unknown>) =>
  fc.assert(property as never, { seed: SEED, numRuns: 500 });
/** Bytes, as characters. */
const bytes = (options: { exclude?: string; minLength?: number; maxLength?: number } = {}) =>
  fc
    .array(
      fc
        .integer({ min: 1, max: 255 })
        .filter((byte) => !`\r\n\0${options.exclude ?? ""}`.includes(String.fromCharCode(byte))),
      { minLength: options.minLength ?? 0, maxLength: options.maxLength ?? 40 },
    )
    .map((array) => String.fromCharCode(...array));

describe(`lines (seed ${SEED})`, () => {
  test("source, command and parameters", () => {
    const cases: [string, ReturnType<typeof parseLine>][] = [
      ["PING", { source: "", command: "PING", params: [] }],
      ["ping :a b", { source: "", command: "PING", params: ["a b"] }],
      [":a!b@c PRIVMSG #d :e: f ", { source: "a!b@c", command: "PRIVMSG", params: ["#d", "e: f "] }],
      ["NICK  a   b", { source: "", command: "NICK", params: ["a", "b"] }],
      ["NICK a ", { source: "", command: "NICK", params: ["a"] }],
      ["TOPIC #a :", { source: "", command: "TOPIC", params: ["#a", ""] }],
      ["X a:b ::c", { source: "", command: "X", params: ["a:b", ":c"] }],
      ["@id=1;x :s 001 me :Hi", { source: "s", command: "001", params: ["me", "Hi"] }],
      ["  JOIN #a", { source: "", command: "JOIN", params: ["#a"] }],
    ];
    for (const [line, message] of cases) assert.deepEqual(parseLine(line), message, line);
    for (const line of ["", "   ", ":only", ":source ", "12", "1234 a", "\u00e9 a", "@tags"])
      assert.equal(parseLine(line), undefined, JSON.stringify(line));
    const blanks = " ".repeat(200_000);
    assert.equal(parseLine(`@a${blanks}!`), undefined, "at once: in quadratic time it would be minutes");
    assert.equal(parseLine(`@a${blanks}:s${blanks}X`)?.command, "X");
    const many = Array.from({ length: 20 }, (_, i) => `p${i}`);
    const { params = [] } = parseLine(`X ${many.join(" ")}`) ?? {};
    assert.deepEqual(
      params,
      [...many.slice(0, 14), many.slice(14).join(" ")],
      "the fifteenth has all the rest",
    );
  });

  test("what is formatted is parsed as the same", () => {
    const word = bytes({ exclude: " ", minLength: 1, maxLength: 12 }).filter((text) => !text.startsWith(":"));
    check(
      fc.property(fc.array(word, { maxLength: 10 }), bytes({ maxLength: 60 }), (words, last) => {
        const line = formatLine("nick!user@host", "PRIVMSG", ...words, last);
        assert.deepEqual(parseLine(line), {
          source: "nick!user@host",
          command: "PRIVMSG",
          params: [...words, last],
        });
      }),
    );
  });

  test("no parameter can begin a line or become two, and no line is longer than 512 bytes", () => {
    for (const param of ["a\rQUIT", "a\nQUIT", "a\r\nQUIT", "a\0b"]) {
      assert.throws(() => formatLine("s", "PRIVMSG", "a", param), RangeError);
      assert.throws(() => withText("s", param), RangeError);
    }
    for (const middle of ["a b", "", ":a"])
      assert.throws(() => formatLine("s", "MODE", middle, "x"), RangeError, middle);
    const long = formatLine("s", "PRIVMSG", "#a", "x".repeat(600));
    assert.equal(long.length, MAX_LINE_BYTES - 2);
    assert.equal(withText("s", "x".repeat(600)).length, MAX_LINE_BYTES - 2);
    for (const size of [509, 510, 511, 512, 513])
      assert.equal(withText("s", "x".repeat(size - 3)).length, Math.min(size, MAX_LINE_BYTES - 2));
    check(
      fc.property(bytes({ maxLength: 600 }), (text) => {
        assert.ok(formatLine("", "X", shown(text), text).length <= MAX_LINE_BYTES - 2);
        assert.equal(
          parseLine(formatLine("", "X", shown(text), "end"))?.params[1],
          "end",
          "what is shown is one word",
        );
      }),
    );
  });
});

describe("names", () => {
  test("case mapping rfc1459: A-Z, and []\\~ are the capitals of {}|^", () => {
    assert.equal(fold("Nick[]\\~-_`"), "nick{}|^-_`");
    assert.equal(fold("\u00c9\u00df@Z"), "\u00c9\u00df@z", "nothing beyond ASCII");
  });

  test("nicks", () => {
    for (const nick of ["a", "Z9", "[x]", "\\`_^{|}", "a-1", "n".repeat(LIMITS.nick)])
      assert.ok(isNick(nick), nick);
    for (const nick of [
      "",
      "1a",
      "-a",
      "a b",
      "a!",
      "a@b",
      "#a",
      "~a",
      "a.b",
      "\u00e9",
      "a\u00e9",
      "n".repeat(LIMITS.nick + 1),
    ])
      assert.ok(!isNick(nick), nick);
  });

  test("channels and keys: no blank, comma, colon or control; other scripts' bytes, 0xa0 among them, may be there", () => {
    for (const name of [
      "#a",
      "##",
      "#caf\u00c3\u00a9",
      "#\u00c3\u00a0",
      "#\u0085",
      `#${"c".repeat(LIMITS.channel - 1)}`,
    ])
      assert.ok(isChannel(name), name);
    for (const name of [
      "",
      "#",
      "a",
      "&a",
      "#a b",
      "#a,b",
      "#a:b",
      "#a\x07",
      "#a\x7f",
      `#${"c".repeat(LIMITS.channel)}`,
    ])
      assert.ok(!isChannel(name), JSON.stringify(name));
    for (const key of ["k", "\u00e9!", "k".repeat(LIMITS.key)]) assert.ok(isKey(key), key);
    for (const key of ["", ":k", "a b", "a,b", "a\x01", "k".repeat(LIMITS.key + 1)])
      assert.ok(!isKey(key), key);
  });

  test("masks are completed", () => {
    for (const [mask, whole] of [
      ["a", "a!*@*"],
      ["a!b", "a!b@*"],
      ["b@c", "*!b@c"],
      ["a!b@c", "a!b@c"],
      ["@c", "*!*@c"],
      ["!b@", "*!b@*"],
      ["*", "*!*@*"],
    ] as const)
      assert.equal(completeMask(mask), whole, mask);
  });

  test("masks match as regular expressions would, and in no time that is long", () => {
    const text = fc.array(fc.constantFrom("a", "b"), { maxLength: 12 }).map((all) => all.join(""));
    const mask = fc.array(fc.constantFrom("a", "b", "*", "?"), { maxLength: 8 }).map((all) => all.join(""));
    check(
      fc.property(mask, text, (mask, text) => {
        const expression = new RegExp(`^${mask.replaceAll("*", ".*").replaceAll("?", ".")}$`);
        assert.equal(matchesMask(mask, text), expression.test(text), `${mask} ${text}`);
      }),
    );
    const begin = performance.now();
    assert.equal(matchesMask(`${"*a".repeat(100)}b`, "a".repeat(400)), false);
    assert.ok(performance.now() - begin < 1000, "no exponential search");
  });
});

describe("modes", () => {
  test("each letter takes its parameter", () => {
    assert.deepEqual(parseModes("+ok-l+b", ["bob", "key", "*!*@x"]), [
      { letter: "o", set: true, parameter: "bob" },
      { letter: "k", set: true, parameter: "key" },
      { letter: "l", set: false, parameter: undefined },
      { letter: "b", set: true, parameter: "*!*@x" },
    ]);
    assert.deepEqual(parseModes("nl-k", ["5"]), [
      { letter: "n", set: true, parameter: undefined },
      { letter: "l", set: true, parameter: "5" },
      { letter: "k", set: false, parameter: undefined },
    ]);
    assert.deepEqual(parseModes("", []), []);
  });

  test("signs are written where they change", () => {
    const changes = parseModes("+o+i-n-t+b", ["bob", "m"]);
    assert.deepEqual(formatModes(changes), ["+oi-nt+b", "bob", "m"]);
  });

  test("numbers are what they should be: three digits, each once", () => {
    const codes = Object.values(NUMERICS).map(([code]) => code);
    assert.equal(new Set(codes).size, codes.length);
    for (const code of codes) assert.match(code, /^\d{3}$/);
  });
});

/** What a reader makes of chunks, but for what it drops. */
const read = (chunks: readonly string[]) => readAll(chunks).filter((line) => line !== DROPPED);
function readAll(chunks: readonly string[]): (string | symbol)[] {
  let pending = Buffer.alloc(0);
  const source = {
    get unreadBytes() {
      return pending.length;
    },
    peek: (size = pending.length) => pending.subarray(0, size),
    take(size: number) {
      const taken = pending.subarray(0, size);
      pending = pending.subarray(size);
      return taken;
    },
  };
  const reader = lineReader(source, MAX_LINE_BYTES);
  const lines: (string | symbol)[] = [];
  for (const chunk of chunks) {
    pending = Buffer.concat([pending, Buffer.from(chunk, "latin1")]);
    for (let line = reader.next(); line !== undefined; line = reader.next()) lines.push(line);
    assert.ok(pending.length < MAX_LINE_BYTES, "nothing is gathered");
  }
  return lines;
}

describe("the line reader", () => {
  test("CRLF, LF and CR end a line; empty ones do not count; NULs go; bytes stay", () => {
    assert.deepEqual(read(["a\r\nb\n\n\r\nc\rd\xff\xfe\0e\n", "rest"]), ["a", "b", "c", "d\xff\xfee"]);
  });

  test("512 bytes with the end and no more; what follows a line that is too long is read again", () => {
    const line = (size: number) => "x".repeat(size);
    assert.deepEqual(read([`${line(510)}\r\na\n`]), [line(510), "a"]);
    assert.deepEqual(read([`${line(511)}\na\n`]), [line(511), "a"]);
    assert.deepEqual(read([`${line(511)}\r\na\n`]), [TOO_LONG, "a"]);
    assert.deepEqual(read([`${line(512)}\na\n`]), [TOO_LONG, "a"]);
    assert.deepEqual(read([`${line(5000)}\na\n${line(600)}\nb\n`]), [TOO_LONG, "a", TOO_LONG, "b"]);
    assert.deepEqual(read([line(700), line(700), "\nb\n"]), [TOO_LONG, "b"]);
    assert.deepEqual(read([`${line(512)}`, "\n", "b\n"]), [TOO_LONG, "b"]);
  });

  test("what is no line is counted by the line's worth; the LF of a CRLF is not", () => {
    const dropped = (text: string) => readAll([text]).filter((line) => line === DROPPED).length;
    assert.equal(dropped("x".repeat(5 * MAX_LINE_BYTES)), 4, "and one that is TOO_LONG");
    assert.equal(dropped("\n".repeat(5 * MAX_LINE_BYTES)), 5);
    assert.equal(dropped("x\r\n".repeat(2 * MAX_LINE_BYTES)), 0);
  });

  test("the same, however the bytes are cut", () => {
    const stream = `a\r\n${"y".repeat(511)}\n${"x".repeat(1300)}\r\nb\rc\n`;
    const whole = read([stream]);
    assert.equal(whole.length, 5);
    check(
      fc.property(fc.array(fc.integer({ min: 0, max: stream.length }), { maxLength: 6 }), (cuts) => {
        const at = [0, ...cuts.toSorted((a, b) => a - b), stream.length];
        const pieces = at.slice(1).map((end, i) => stream.slice(at[i], end));
        assert.deepEqual(read(pieces), whole);
      }),
    );
    assert.deepEqual(read([...stream]), whole, "one by one");
  });
});

test("the bucket: a burst, then the rate, and never more than a burst saved up", () => {
  const allowance = bucket({ burst: 3, rate: 2 }, 1000);
  const taken = (nowMs: number) => {
    let count = 0;
    while (allowance.take(nowMs)) count++;
    return count;
  };
  assert.equal(taken(1000), 3);
  assert.equal(allowance.waitMs(1000), 500);
  assert.equal(taken(1499), 0);
  assert.equal(taken(1500), 1);
  assert.equal(allowance.waitMs(1600), 400);
  assert.equal(taken(3500), 3, "two seconds are four lines, but the bucket holds three");
  const open = bucket({ burst: 1, rate: 0 }, 0);
  for (let i = 0; i < 100; i++) assert.ok(open.take(0));
  assert.equal(open.waitMs(0), 0);
});
