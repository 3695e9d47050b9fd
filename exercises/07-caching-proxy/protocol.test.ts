/** The pure rules, with values that no wire has brought yet. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { Fields, HttpError } from "../../shared/http.ts";
import { Directives, parseCacheDate, parseSeconds, splitList } from "./directives.ts";
import { formatCacheStatus, isPrivate, parseAuthority, parseTarget, wasHere, withVia } from "./protocol.ts";
import { isStorable, Policy } from "./rules.ts";
import { invalidated, isAbout, isVariant, variantOf, wantedRange } from "./selection.ts";

const SEED = 20261121;
const text = fc.string({ unit: fc.constantFrom(...'"\\,=; a1Z-*/:'.split("")), maxLength: 60 });

describe("targets", () => {
  test("an address is split, and written in one way", () => {
    assert.deepEqual(parseTarget("GET", "HTTP://Example.ORG:80/A?b#c"), {
      host: "example.org",
      port: 80,
      path: "/A?b",
      authority: "example.org",
      url: "http://example.org/A?b",
    });
    assert.deepEqual(parseTarget("GET", "http://[::1]:8080"), {
      host: "::1",
      port: 8080,
      path: "/",
      authority: "[::1]:8080",
      url: "http://[::1]:8080/",
    });
    assert.equal(parseTarget("OPTIONS", "http://a").path, "*");
    assert.equal(parseTarget("GET", "http://a?x").path, "/?x");
    assert.deepEqual(parseAuthority("[::1]:443"), { host: "::1", port: 443 });
  });

  test("anything is a target or a 400, and what is one stays the same when it is read again", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.webUrl(),
          text.map((rest) => `http://a${rest}`),
        ),
        (target) => {
          try {
            const { url } = parseTarget("GET", target);
            assert.equal(parseTarget("GET", url).url, url);
          } catch (error) {
            assert.ok(error instanceof HttpError && error.status === 400, String(error));
          }
        },
      ),
      { seed: SEED },
    );
  });

  test("which addresses are private", () => {
    const inside =
      "127.0.0.1 127.255.0.1 10.1.2.3 172.16.0.1 172.31.255.255 192.168.0.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1 255.255.255.255 ::1 :: fe80::1 fd00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 64:ff9b:1::a00:1 2002:7f00:1::1 2001::1 fec0::1 ::7f00:1 no-address";
    for (const address of inside.split(" ")) assert.ok(isPrivate(address), address);
    for (const address of "8.8.8.8 172.32.0.1 172.15.0.1 11.0.0.1 192.169.0.1 100.128.0.1 2001:4860::1 ::ffff:8.8.8.8".split(
      " ",
    ))
      assert.ok(!isPrivate(address), address);
  });
});

test("Via is added to, and one's own name found in it", () => {
  const [, value] = withVia(new Fields([["Via", "1.0 a, 1.1 b (x)"]]), 0, "me");
  assert.equal(value, "1.0 a, 1.1 b (x), 1.0 me");
  const fields = new Fields([
    ["Via", "1.1 a"],
    ["Via", `HTTP/1.1 me (x), 1.1 b`],
  ]);
  assert.deepEqual([wasHere(fields, "me"), wasHere(fields, "m"), wasHere(fields, "x")], [true, false, false]);
});

test("Cache-Status in the order of RFC 9211", () => {
  const all = { fwd: "stale", fwdStatus: 304, ttl: -5, stored: true, collapsed: true, detail: "x" } as const;
  assert.equal(
    formatCacheStatus({ hit: true, ...all }),
    "netlab; hit; fwd=stale; fwd-status=304; ttl=-5; stored; collapsed; detail=x",
  );
});

describe("values", () => {
  test("lists: commas in quotes are no separators", () => {
    assert.deepEqual(splitList('a, "b, c" , d="e\\",f",, '), ["a", '"b, c"', 'd="e\\",f"']);
    assert.deepEqual(splitList('a, "open, b'), ["a", '"open, b']);
  });

  test("a long value of quotes and backslashes is read at once", () => {
    const begin = performance.now();
    for (const value of [
      '\\"'.repeat(30_000),
      `"${'\\"'.repeat(30_000)}\\`,
      '"'.repeat(60_001),
      ",".repeat(60_000),
    ])
      splitList(value);
    assert.ok(performance.now() - begin < 2000);
  });

  test("whatever a directive is given, it is a number of seconds in its limits, or none", () => {
    fc.assert(
      fc.property(text, (value) => {
        const seconds = new Directives(`max-age=${value}`).seconds("max-age");
        assert.ok(seconds !== undefined && Number.isInteger(seconds) && seconds >= 0 && seconds <= 2 ** 31);
        new Directives(value).fields("private");
      }),
      { seed: SEED },
    );
    assert.deepEqual(["0", "007", "2147483649", "-1", "1.5", "", "1e3", " 1"].map(parseSeconds), [
      0,
      7,
      2 ** 31,
      ...Array(5).fill(undefined),
    ]);
  });

  test("a date of two digits is at most fifty years ahead", () => {
    const year = new Date().getUTCFullYear();
    for (const ahead of [-49, -1, 0, 1, 49]) {
      const digits = String((year + ahead) % 100).padStart(2, "0");
      const timeMs = parseCacheDate(`Sunday, 06-Nov-${digits} 08:49:37 GMT`);
      assert.equal(new Date(timeMs ?? 0).getUTCFullYear(), year + ahead);
    }
  });
});

describe("rules", () => {
  const request = { method: "GET", target: "/", minor: 1, fields: new Fields() };
  const received = (...lines: [string, string][]) => ({
    status: 200,
    fields: new Fields(lines),
    requestTimeMs: 0,
    responseTimeMs: 1000,
  });

  test("time goes on: fresh to the millisecond, then stale", () => {
    const policy = new Policy(
      received(["Cache-Control", "max-age=60, stale-if-error=10"], ["Date", new Date(1000).toUTCString()]),
    );
    const judge = (nowMs: number) => policy.judge(new Fields(), nowMs);
    // Its second on the way counts.
    assert.deepEqual(
      [judge(1001), judge(59_999), judge(60_000), judge(60_001)],
      ["fresh", "fresh", "expired", "expired"],
    );
    assert.deepEqual(
      [policy.ageS(1000), policy.ageS(1999), policy.ageS(2000), policy.ageS(500)],
      [1, 1, 2, 1],
    );
    assert.deepEqual(
      [policy.outlives("error", new Fields(), 70_000), policy.outlives("error", new Fields(), 70_001)],
      [true, false],
    );
  });

  test("whatever a response says, it is stored only if it may be, and judged without an error", () => {
    const name = fc.constantFrom(
      "Cache-Control",
      "Expires",
      "Date",
      "Age",
      "Vary",
      "ETag",
      "Last-Modified",
      "Pragma",
    );
    const value = fc.oneof(
      text,
      fc.constantFrom("no-store", "private", "max-age=5", "public", "s-maxage=9", 'no-cache="a"', "*", "0"),
    );
    fc.assert(
      fc.property(
        fc.array(fc.tuple(name, value), { maxLength: 8 }),
        fc.constantFrom(200, 206, 304, 404, 500, 599),
        (lines, status) => {
          const response = { ...received(...lines), status };
          const directives = new Directives(response.fields.get("Cache-Control"));
          const mayBe = isStorable(request, response);
          if (directives.has("no-store") && !directives.has("must-understand")) assert.ok(!mayBe);
          if (directives.isUnqualified("private") || status === 206 || status === 304) assert.ok(!mayBe);
          const verdict = new Policy(response).judge(new Fields([["Cache-Control", "no-cache"]]), 5000);
          assert.ok(verdict === "expired" || verdict === "request");
        },
      ),
      { seed: SEED, numRuns: 500 },
    );
  });

  test("a variant is found by the request that made it", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom("A", "B", "Accept-Language"), text)), (lines) => {
        const fields = new Fields(lines);
        assert.ok(isVariant(variantOf(new Fields([["Vary", "a, B, accept-language"]]), fields), fields));
      }),
      { seed: SEED },
    );
  });

  test("a 304 is about the one whose tag it has: a strong one to the letter, a weak one without its mark", () => {
    const about = (update: string, stored: string) =>
      isAbout(new Fields([["ETag", update]]), new Fields([["ETag", stored]]));
    assert.deepEqual(
      [
        about('"a"', '"a"'),
        about('"a"', 'W/"a"'),
        about('W/"a"', '"a"'),
        about('W/"a"', 'W/"a"'),
        about('W/"a"', 'W/"b"'),
      ],
      [true, false, true, true, false],
    );
    const dated = (update: string) =>
      isAbout(new Fields([["Last-Modified", update]]), new Fields([["Last-Modified", "x"]]));
    assert.deepEqual(
      [dated("x"), dated("y"), isAbout(new Fields(), new Fields([["ETag", '"a"']]))],
      [true, false, true],
    );
  });

  test("a range lies in the content", () => {
    fc.assert(
      fc.property(fc.nat(20), fc.option(fc.nat(30)), fc.option(fc.nat(30)), (sizeBytes, first, last) => {
        const range = wantedRange(
          new Fields([["Range", `bytes=${first ?? ""}-${last ?? ""}`]]),
          new Fields(),
          sizeBytes,
        );
        if (typeof range === "object")
          assert.ok(range.start >= 0 && range.start < range.end && range.end <= sizeBytes);
      }),
      { seed: SEED },
    );
  });

  test("what a POST ends is at the same origin", () => {
    const post = { ...request, method: "POST" };
    const ended = (location: string) =>
      invalidated(post, "http://a/x", 200, new Fields([["Location", location]]));
    assert.deepEqual(ended("/y#z"), ["http://a/x", "http://a/y"]);
    for (const other of ["http://b/y", "https://a/y", "http://a:81/y", "//b/y", "http://[bad/", "mailto:a@b"])
      assert.deepEqual(ended(other), ["http://a/x"], other);
  });
});
