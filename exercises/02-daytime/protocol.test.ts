/** The PDUs byte by byte, the rules about them, and what zones and languages give. */
import { strict as assert } from "node:assert";
import { existsSync } from "node:fs";
import { describe, test } from "node:test";
import fc from "fast-check";
import { type Codec, decode, encode, PduError } from "../../shared/pdu.ts";
import { needs, runTool } from "../../shared/testing.ts";
import {
  classify,
  Daytime,
  isDaytimeLine,
  MAX_LINE_BYTES,
  NtpPacket,
  ntpReply,
  ntpTimestamp,
  offsetText,
  readReply,
  requestFor,
} from "./protocol.ts";
import { daytimeLineIn, isLocale, isoWeek, shortTag, strftimeLocale, zoneAt } from "./regional.ts";

const SEED = 867;
const REPLY: Daytime = {
  kind: "reply",
  status: "ok",
  synchronisation: "synchronised",
  stratum: 2,
  flags: { dst: true },
  utcOffsetMinutes: -150,
  id: 0xcafe0001,
  utcMs: 1_780_272_000_123n,
  zone: "America/St_Johns",
  locale: "en-CA",
};
const REPLY_HEX =
  "4e4c4454 01 02 00 01 02 80 ff6a cafe0001 0000019e807aec7b" +
  "416d65726963612f53745f4a6f686e7300000000000000000000000000000000 656e2d4341000000";
const QUERY: NtpPacket = {
  head: { leap: 0, version: 4, mode: 3 },
  stratum: 0,
  poll: 6,
  precision: -18,
  rootDelay: 0x00010000,
  rootDispersion: 0x00008000,
  referenceId: 0x7f000001,
  reference: 0xe94d6c00_80000000n,
  origin: 0n,
  receive: 0n,
  transmit: 0xee9c2b00_40000000n,
};
const QUERY_HEX =
  "23 00 06 ee 00010000 00008000 7f000001 e94d6c0080000000 0000000000000000 0000000000000000 ee9c2b0040000000";
const bytesOf = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

/** Whether it decodes or throws `PduError`, and nothing else. */
function decodes(codec: Codec<unknown>, bytes: Buffer): boolean {
  try {
    decode(codec, bytes);
    return true;
  } catch (error) {
    assert.ok(error instanceof PduError, `${bytes.toString("hex")}: ${error}`);
    return false;
  }
}

const golden: [string, Codec<unknown>, unknown, string, number][] = [
  ["Daytime", Daytime as Codec<unknown>, REPLY, REPLY_HEX, 64],
  ["NtpPacket", NtpPacket as Codec<unknown>, QUERY, QUERY_HEX, 48],
];
for (const [name, codec, value, hex, size] of golden) {
  describe(`${name}, byte by byte`, () => {
    test("is what the specification says", () => {
      assert.equal(codec.minSize, size);
      assert.equal(codec.fixed, true);
      assert.equal(encode(codec, value).toString("hex"), hex.replaceAll(" ", ""));
      assert.deepEqual(decode(codec, bytesOf(hex)), value);
    });

    test("cut short anywhere, or with bytes behind it, is refused", () => {
      for (let length = 0; length < size; length++) {
        assert.throws(() => decode(codec, bytesOf(hex).subarray(0, length)), PduError);
      }
      assert.throws(() => decode(codec, Buffer.concat([bytesOf(hex), Buffer.alloc(1)])), PduError);
    });

    test("with any one byte changed to anything, decodes or is refused", () => {
      for (let at = 0; at < size; at++) {
        for (let byte = 0; byte < 256; byte++) {
          const changed = bytesOf(hex);
          changed[at] = byte;
          decodes(codec, changed);
        }
      }
    });
  });
}

const zoneText = fc.string({ unit: "grapheme-ascii", maxLength: 32 });
const anyDaytime: fc.Arbitrary<Daytime> = fc.record(
  {
    kind: fc.constantFrom("request", "reply"),
    status: fc.constantFrom("ok", "unknown-zone", "bad-request"),
    synchronisation: fc.constantFrom("none", "synchronised", "holdover"),
    stratum: fc.nat(255),
    flags: fc.boolean().map((dst) => ({ dst })),
    utcOffsetMinutes: fc.integer({ min: -32768, max: 32767 }),
    id: fc.nat(0xffffffff),
    utcMs: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
    zone: zoneText,
    locale: fc.string({ unit: "grapheme-ascii", maxLength: 8 }),
  },
  { noNullPrototype: true },
);

describe("the rules of the protocol", () => {
  test("every value comes back as it went", () => {
    fc.assert(
      fc.property(anyDaytime, (value) => {
        const bytes = encode(Daytime, value);
        assert.equal(bytes.length, 64);
        assert.deepEqual(decode(Daytime, bytes), value);
      }),
      { seed: SEED },
    );
  });

  test("a request is all zero but for magic, version, kind, id and zone", () => {
    const zone = Buffer.from("UTC").toString("hex");
    const expected = `4e4c4454 01 01 00 00 00 00 0000 00000007 ${"00".repeat(8)} ${zone}${"00".repeat(29)} ${"00".repeat(8)}`;
    assert.equal(requestFor(7, "UTC").toString("hex"), expected.replaceAll(" ", ""));
    assert.throws(() => requestFor(7, "x".repeat(33)), /Daytime.zone at byte 24: is 33 bytes, the field 32/);
  });

  test("what a datagram is: of the PDU's size with its magic, a request; else one by RFC 867", () => {
    const request = requestFor(7, "UTC");
    assert.deepEqual(classify(request, 40_000), { kind: "request", id: 7, zone: "UTC" });
    const others = [
      Buffer.alloc(0),
      Buffer.from("what time is it?\r\n"),
      Buffer.alloc(64),
      Buffer.alloc(65_507, 0xff),
    ];
    for (const other of others) assert.equal(classify(other, 40_000).kind, "daytime request");
    for (let length = 0; length < 64; length++) {
      assert.equal(classify(request.subarray(0, length), 40_000).kind, "daytime request");
    }
    assert.equal(classify(Buffer.concat([request, Buffer.alloc(1)]), 40_000).kind, "daytime request");
  });

  test("a request with one byte changed is never taken for another client's, nor for a reply by mistake", () => {
    const request = requestFor(7, "UTC");
    for (let at = 0; at < 64; at++) {
      for (let byte = 0; byte < 256; byte++) {
        const changed = Buffer.from(request);
        changed[at] = byte;
        const { kind } = classify(changed, 40_000);
        if (at < 4) assert.equal(kind, byte === request[at] ? "request" : "daytime request");
        else if (at === 5 && byte === 2) assert.equal(kind, "dropped");
        else assert.ok(kind === "request" || kind === "bad request", `${at}: ${byte}: ${kind}`);
      }
    }
  });

  test("what may be an answer is not answered: replies, broken ones too, small services, daytime lines", () => {
    const reply = encode(Daytime, REPLY);
    assert.equal(classify(reply, 40_000).kind, "dropped");
    for (let at = 4; at < 64; at++) {
      const broken = Buffer.from(reply);
      broken[at] = 0xfe;
      assert.equal(classify(broken, 40_000).kind, at === 5 ? "bad request" : "dropped");
    }
    for (const port of [0, 7, 13, 17, 19, 37]) {
      assert.equal(classify(Buffer.alloc(0), port).kind, "dropped");
      assert.equal(classify(requestFor(7, ""), port).kind, "dropped");
    }
    const lines = [
      "Tuesday, February 22, 1982 17:37:43-PST\r\n",
      "02 FEB 82 07:59:01 PST\r\n",
      "Sat Nov 21 01:37:04 2026\r\n",
    ];
    for (const line of lines) assert.equal(classify(Buffer.from(line), 40_000).kind, "dropped");
    assert.equal(isDaytimeLine(Buffer.from("at 12:30 or 12:31\r\n")), false);
    assert.equal(isDaytimeLine(Buffer.from(`${"x".repeat(MAX_LINE_BYTES)} 01:37:04\r\n`)), false);
  });

  test("a client takes the reply to its own request, and none that no clock can show", () => {
    const changed = (change: Partial<Daytime>) => encode(Daytime, { ...REPLY, ...change });
    assert.equal(readReply(changed({}), REPLY.id).utcMs, 1_780_272_000_123);
    assert.throws(() => readReply(changed({}), REPLY.id + 1), /answers request 3405643777, not 3405643778/);
    assert.throws(() => readReply(changed({ kind: "request" }), REPLY.id), /is a request/);
    assert.throws(() => readReply(changed({ utcOffsetMinutes: 1441 }), REPLY.id), /more than a day/);
    assert.throws(() => readReply(changed({ utcMs: 2n ** 62n }), REPLY.id), /beyond all calendars/);
    assert.throws(() => readReply(changed({ utcMs: -(2n ** 63n) }), REPLY.id), /beyond all calendars/);
    assert.throws(() => readReply(changed({ zone: "\u001b[2J" }), REPLY.id), /not printable/);
  });

  test("a time server's reply repeats the query's transmit time as its origin", () => {
    const query = encode(NtpPacket, QUERY);
    const reply = ntpReply(query, 1_795_224_600_500, 3);
    assert.equal(reply?.origin, QUERY.transmit);
    assert.deepEqual(reply?.head, { leap: 0, version: 4, mode: 4 });
    assert.equal(reply?.receive, 0xeeab_7298_8000_0000n);
    assert.equal(ntpReply(query.subarray(0, 47), 0), undefined);
    assert.equal(
      ntpReply(encode(NtpPacket, { ...QUERY, head: { leap: 0, version: 4, mode: 4 } }), 0),
      undefined,
    );
    assert.equal(ntpTimestamp(0), 2_208_988_800n << 32n);
    assert.equal(ntpTimestamp(2_085_978_496_000), 0n, "the era ends on 7 February 2036 at 06:28:16 UTC");
  });

  test("offsets are written with sign, hours and minutes", () => {
    assert.deepEqual([0, -180, 345, -150, 840, -570].map(offsetText), [
      "+00:00",
      "-03:00",
      "+05:45",
      "-02:30",
      "+14:00",
      "-09:30",
    ]);
  });
});

const at = (zone: string, instant: string) => {
  const reading = zoneAt(zone, Date.parse(instant));
  return reading && `${offsetText(reading.utcOffsetMinutes)}${reading.dst ? " DST" : ""}`;
};

describe("time zones", () => {
  test("the offset on both sides of a change, to the second", () => {
    const changes: [
      zone: string,
      before: string,
      after: string,
      offsetBefore: string,
      offsetAfter: string,
    ][] = [
      ["America/New_York", "2026-03-08T06:59:59Z", "2026-03-08T07:00:00Z", "-05:00", "-04:00 DST"],
      ["US/Eastern", "2026-11-01T05:59:59Z", "2026-11-01T06:00:00Z", "-04:00 DST", "-05:00"],
      ["Europe/Madrid", "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "+01:00", "+02:00 DST"],
      ["Europe/London", "2026-10-25T00:59:59Z", "2026-10-25T01:00:00Z", "+01:00 DST", "+00:00"],
      ["Europe/Jersey", "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "+00:00", "+01:00 DST"],
      ["Europe/Dublin", "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "+00:00", "+01:00 DST"],
      ["America/St_Johns", "2026-03-08T05:29:59Z", "2026-03-08T05:30:00Z", "-03:30", "-02:30 DST"],
      ["Australia/Lord_Howe", "2026-04-04T14:59:59Z", "2026-04-04T15:00:00Z", "+11:00 DST", "+10:30"],
      ["Australia/Lord_Howe", "2026-10-03T15:29:59Z", "2026-10-03T15:30:00Z", "+10:30", "+11:00 DST"],
      ["Pacific/Chatham", "2026-04-04T13:59:59Z", "2026-04-04T14:00:00Z", "+13:45 DST", "+12:45"],
      ["Antarctica/Troll", "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "+00:00", "+02:00 DST"],
      ["America/Santiago", "2026-04-05T02:59:59Z", "2026-04-05T03:00:00Z", "-03:00 DST", "-04:00"],
      ["Asia/Almaty", "2024-02-29T17:59:59Z", "2024-02-29T18:00:00Z", "+06:00", "+05:00"],
    ];
    for (const [zone, before, after, offsetBefore, offsetAfter] of changes) {
      assert.deepEqual([zone, at(zone, before), at(zone, after)], [zone, offsetBefore, offsetAfter]);
    }
  });

  test("half and quarter hours, aliases, any case, and what is no name", () => {
    const summer = "2026-07-01T00:00:00Z";
    const expected = {
      "Asia/Kolkata": "+05:30",
      "Asia/Calcutta": "+05:30",
      "asia/KATHMANDU": "+05:45",
      "Australia/Eucla": "+08:45",
      "Pacific/Marquesas": "-09:30",
      "America/Argentina/ComodRivadavia": "-03:00",
      "Etc/GMT+12": "-12:00",
      "Pacific/Kiritimati": "+14:00",
      GMT: "+00:00",
      UTC: "+00:00",
      Zulu: "+00:00",
      EST5EDT: "-04:00 DST",
    };
    for (const [zone, reading] of Object.entries(expected))
      assert.deepEqual([zone, at(zone, summer)], [zone, reading]);
    const none = [
      "",
      "Mars/Olympus",
      "+03:00",
      "UTC\u0000",
      "../etc/passwd",
      "Asia/\u212Aolkata",
      "Europe /Madrid",
    ];
    for (const name of none) assert.deepEqual([name, at(name, summer)], [name, undefined]);
  });

  test("the zone field holds every name that the runtime knows", () => {
    for (const zone of Intl.supportedValuesOf("timeZone")) assert.equal(requestFor(0, zone).length, 64);
  });

  const hasDatabase = existsSync("/usr/share/zoneinfo/tzdata.zi")
    ? {}
    : { skip: "no tz database in /usr/share/zoneinfo" };
  test("every name of the system's tz database: python3 sees the same offset a second before and after each change", {
    ...needs("python3"),
    ...hasDatabase,
  }, async () => {
    const asked = await runTool("python3", ["-c", LIST_ZONES]);
    const names: string[] = JSON.parse(asked.stdout);
    assert.ok(names.length > 590, `${names.length} names`);
    assert.equal(Math.max(...names.map((name) => name.length)), 32);
    const questions = names.flatMap((zone) => instantsAround(zone).map((second) => [zone, second] as const));
    const { stdout, stderr, code } = await runTool("python3", ["-c", READ_ZONES], JSON.stringify(questions));
    assert.equal(code, 0, stderr);
    const readings: [offsetMinutes: number, dst: boolean][] = JSON.parse(stdout);
    assert.ok(readings.length > 4 * names.length, `${readings.length} readings`);
    // The runtime's copy of the database and the system's may be of different years: then a few zones differ.
    const differing = new Set<string>();
    for (const [i, [zone, second]] of questions.entries()) {
      const ours = zoneAt(zone, second * 1000);
      const [utcOffsetMinutes, dst] = readings[i] ?? [];
      // The database calls Irish winter time and Morocco's Ramadan "negative DST"; people do not.
      const isSameDst = ours?.dst === dst || /Dublin|Eire|Casablanca|El_Aaiun/.test(zone);
      if (ours?.utcOffsetMinutes !== utcOffsetMinutes || !isSameDst) differing.add(zone);
    }
    assert.ok(differing.size <= 5, `differing zones: ${[...differing].join(", ")}`);
  });
});

const LIST_ZONES = `
import json, zoneinfo
print(json.dumps([name for name in zoneinfo.available_timezones() if name not in ("Factory", "localtime")]))`;
const READ_ZONES = `
import datetime, json, sys, zoneinfo
def read(zone, second):
    time = datetime.datetime.fromtimestamp(second, zoneinfo.ZoneInfo(zone))
    return [time.utcoffset().total_seconds() / 60, bool(time.dst())]
print(json.dumps([read(*question) for question in json.load(sys.stdin)]))`;

/** Seconds on both sides of each change of 2023 and 2024 (settled past), and a January and a July. */
function instantsAround(zone: string): number[] {
  const offsetAt = (second: number) => zoneAt(zone, second * 1000)?.utcOffsetMinutes;
  const [start, end, step] = [Date.UTC(2023, 0, 1) / 1000, Date.UTC(2025, 0, 1) / 1000, 7 * 86_400];
  const instants = [start, start + 26 * step, end - 26 * step, end];
  for (let week = start; week < end; week += step) {
    let [low, high] = [week, week + step];
    if (offsetAt(low) === offsetAt(high)) continue;
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (offsetAt(middle) === offsetAt(low)) low = middle;
      else high = middle;
    }
    instants.push(low, high);
  }
  return instants;
}

describe("languages", () => {
  const instant = Date.parse("2026-11-21T04:37:04.999Z");
  const lineIn = (locale: string) => daytimeLineIn(locale)(instant, -180).toString("latin1");

  test("the daytime line is the locale's date in ASCII, or English where that cannot be", () => {
    const expected = {
      "en-US": "Saturday, November 21, 2026 01:37:04-03:00\r\n",
      "en-GB": "Saturday, 21 November 2026 01:37:04-03:00\r\n",
      "es-AR": "sabado, 21 de noviembre de 2026 01:37:04-03:00\r\n",
      "de-DE": "Samstag, 21. November 2026 01:37:04-03:00\r\n",
      "da-DK": "lordag den 21. november 2026 01:37:04-03:00\r\n",
      "tr-TR": "21 Kasim 2026 Cumartesi 01:37:04-03:00\r\n",
      "ru-RU": "Saturday, November 21, 2026 01:37:04-03:00\r\n",
      "ja-JP": "Saturday, November 21, 2026 01:37:04-03:00\r\n",
      "fa-IR": "Saturday, November 21, 2026 01:37:04-03:00\r\n",
      "th-TH": "Saturday, November 21, 2026 01:37:04-03:00\r\n",
    };
    for (const [locale, line] of Object.entries(expected))
      assert.deepEqual([locale, lineIn(locale)], [locale, line]);
  });

  test("it is one line of ASCII on every day in every language, and known for what it is", () => {
    const languages = fc.constantFrom(...twoLetterLanguages());
    fc.assert(
      fc.property(
        languages,
        fc.nat(4_000_000_000),
        fc.integer({ min: -720, max: 840 }),
        (locale, second, offset) => {
          const line = daytimeLineIn(locale)(second * 1000, offset);
          assert.match(line.toString("latin1"), /^[\x20-\x7e]+ \d\d:\d\d:\d\d[+-]\d\d:\d\d\r\n$/);
          assert.ok(line.length <= MAX_LINE_BYTES && isDaytimeLine(line));
        },
      ),
      { seed: SEED, numRuns: 100 },
    );
  });

  test("a language tag is cut down to what fits and still means the same", () => {
    const expected = {
      "es-AR": "es-AR",
      "en-US-u-hc-h12": "en-US",
      "zh-Hant-TW": "zh-TW",
      "uz-Cyrl-UZ": "uz-Cyrl",
      "sr-Latn-BA": "sr-Latn",
      "ca-ES-valencia": "ca",
      "yue-Hant-HK": "yue",
    };
    for (const [tag, short] of Object.entries(expected)) assert.deepEqual([tag, shortTag(tag)], [tag, short]);
    assert.deepEqual(["es-AR", "xx-YY", "not a tag", ""].map(isLocale), [true, false, false, false]);
  });

  test("weeks of ISO 8601, as date(1) has them", needs("date"), async () => {
    const days = Array.from({ length: 40 * 366 }, (_, day) => Date.UTC(1999, 11, 25, 23) + day * 86_400_000);
    const input = days.map((day) => `@${day / 1000}\n`).join("");
    const { stdout } = await runTool("date", ["-u", "-f", "-", "+%V %G"], input);
    const ours = days.map((day) => isoWeek(new Date(day))).map(({ week, year }) => `${week} ${year}\n`);
    assert.equal(ours.join(""), stdout);
  });

  test("the weeks of a year below 100 are that year's", () => {
    assert.deepEqual(isoWeek(new Date("0050-07-01T00:00:00Z")), { week: "26", year: "50" });
  });

  test("strftime gets the names and forms that a language uses", () => {
    const spanish = strftimeLocale("es-AR");
    assert.equal(spanish.days?.[6], "sábado");
    assert.equal(spanish.months?.[10], "noviembre");
    assert.equal(spanish.formats.x, "%d/%m/%Y");
    assert.equal(strftimeLocale("ru").months?.[10], "ноября", "as it is beside a day");
    assert.equal(strftimeLocale("ja").months?.[10], "11月");
    const american = strftimeLocale("en-US");
    assert.deepEqual([american.formats.c, american.formats.X], ["%a, %b %d, %Y %X %z", "%I:%M:%S %p"]);
    assert.deepEqual([american.AM, american.pm], ["AM", "pm"]);
    assert.equal(strftimeLocale("de").formats.X, "%H:%M:%S");
  });
});

function twoLetterLanguages(): string[] {
  const letters = "abcdefghijklmnopqrstuvwxyz";
  return [...letters].flatMap((a) => [...letters].map((b) => a + b)).filter(isLocale);
}
