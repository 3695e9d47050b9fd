import { strict as assert } from "node:assert";
import { test } from "node:test";
import fc from "fast-check";
import { Fields, HttpError } from "../../shared/http.ts";
import { formatDate } from "../../shared/http-serving.ts";
import {
  checkMethod,
  evaluateConditions,
  folderLocation,
  MAX_RANGES,
  mediaType,
  parseRanges,
  parseTarget,
  wantedRanges,
} from "./protocol.ts";

const SEED = 9110; // of every property below
const statusOf = (work: () => unknown): number => {
  try {
    work();
    return 200;
  } catch (error) {
    assert.ok(error instanceof HttpError, `${error}`);
    return error.status;
  }
};

test("targets: decoded once, split before", () => {
  assert.deepEqual(parseTarget("/"), { path: "", isFolder: true, query: "" });
  assert.deepEqual(parseTarget("/a/b%20c/?x=/../y"), { path: "a/b c", isFolder: true, query: "?x=/../y" });
  assert.deepEqual(parseTarget("/%C3%A9t%c3%a9.html"), { path: "été.html", isFolder: false, query: "" });
  assert.deepEqual(parseTarget("/%2541"), { path: "%41", isFolder: false, query: "" });
  assert.deepEqual(parseTarget("http://host:80/a"), { path: "a", isFolder: false, query: "" });
  assert.deepEqual(parseTarget("http://host?x"), { path: "", isFolder: true, query: "?x" });
  assert.equal(folderLocation(parseTarget("/a%20b/%3f?q")), "/a%20b/%3F/?q");
});

const OUTSIDE = [
  ..."/.. /../ /../x /a/../../x /a/.. /. /./x /a/./b //x /a//b ///etc/passwd".split(" "),
  ..."/%2e%2e/x /%2E%2e/x /.%2e/x /%2e./x /%2e /..%2fx /..%2Fx /a%2fb /%2fetc/passwd /..%5cx /..\\x /a\\b".split(
    " ",
  ),
  ..."/%00 /index.html%00 /index.html%00.png /.git/config /a/.hidden /.htaccess /%2egit /..%c0%afx /%ff /%c0%ae%c0%ae/x".split(
    " ",
  ),
  "/..;/x",
];

test("no spelling leads outside or to a hidden file: 404; what is no target is 400", () => {
  for (const target of OUTSIDE)
    assert.equal(
      statusOf(() => parseTarget(target)),
      404,
      target,
    );
  for (const target of ["*", "", "a", "/%", "/%4", "/%zz", "/a#b", "ftp://a/b", "http:///a"]) {
    assert.equal(
      statusOf(() => parseTarget(target)),
      400,
      target,
    );
  }
  // Decoded once: %252e is the name "%2e".
  assert.equal(parseTarget("/%252e%252e/x").path, "%2e%2e/x");
});

test(`whatever the target, the path has no segment that could lead out (seed ${SEED})`, () => {
  const piece = fc.constantFrom<string>(
    "/",
    ".",
    "..",
    "%2e",
    "%2f",
    "%5c",
    "\\",
    "%00",
    "a",
    "%25",
    "?",
    "#",
    "http://h",
    "%c0%ae",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 10 }), (pieces) => {
      let path: string;
      try {
        ({ path } = parseTarget(`/${pieces.join("")}`));
      } catch (error) {
        assert.ok(error instanceof HttpError);
        return;
      }
      if (path === "") return;
      for (const segment of path.split("/")) assert.match(segment, /^[^./\\\0][^/\\\0]*$/);
    }),
    { seed: SEED, numRuns: 3000 },
  );
});

test("methods: two allowed, the known ones 405, others 501, lower case is another method", () => {
  for (const [method, status] of [
    ["GET", 200],
    ["HEAD", 200],
    ["POST", 405],
    ["OPTIONS", 405],
    ["CONNECT", 405],
    ["BREW", 501],
    ["get", 501],
  ] as const) {
    assert.equal(
      statusOf(() => checkMethod(method)),
      status,
      method,
    );
  }
});

test("media types", () => {
  assert.equal(mediaType("/a/index.HTML"), "text/html; charset=utf-8");
  assert.equal(mediaType("a.tar.gz"), "application/gzip");
  assert.equal(mediaType("README"), "application/octet-stream");
});

const modifiedMs = Date.UTC(2026, 0, 2, 3, 4, 5, 678);
const validators = { etag: '"e"', modifiedMs };
const at = (seconds: number) => formatDate(modifiedMs + seconds * 1000);

test("conditions and their precedence (RFC 9110 §13.2.2)", () => {
  const cases: [lines: [string, string][], expected: number][] = [
    [[], 200],
    [[["If-None-Match", '"e"']], 304],
    [[["If-None-Match", '"x", W/"e"']], 304],
    [[["If-None-Match", "*"]], 304],
    [[["If-None-Match", '"x"']], 200],
    [[["If-None-Match", "e"]], 200],
    [[["If-Modified-Since", at(0)]], 304],
    [[["If-Modified-Since", at(1)]], 304],
    [[["If-Modified-Since", at(-1)]], 200],
    [[["If-Modified-Since", "nonsense"]], 200],
    [
      [
        ["If-None-Match", '"x"'],
        ["If-Modified-Since", at(0)],
      ],
      200,
    ],
    [
      [
        ["If-None-Match", '"e"'],
        ["If-Modified-Since", at(-1)],
      ],
      304,
    ],
    [[["If-Match", '"e"']], 200],
    [[["If-Match", 'W/"e"']], 412],
    [[["If-Match", "*"]], 200],
    [
      [
        ["If-Match", '"x"'],
        ["If-None-Match", '"e"'],
      ],
      412,
    ],
    [[["If-Unmodified-Since", at(0)]], 200],
    [[["If-Unmodified-Since", at(-1)]], 412],
    [
      [
        ["If-Match", '"e"'],
        ["If-Unmodified-Since", at(-1)],
      ],
      200,
    ],
  ];
  for (const [lines, expected] of cases) {
    assert.equal(evaluateConditions(new Fields(lines), validators), expected, JSON.stringify(lines));
  }
});

test("ranges", () => {
  const cases: [value: string, expected: [number, number][] | undefined][] = [
    ["bytes=0-0", [[0, 1]]],
    ["bytes=0-99", [[0, 10]]],
    ["bytes=5-", [[5, 10]]],
    ["bytes=-3", [[7, 10]]],
    ["bytes=-99", [[0, 10]]],
    [
      "BYTES=0-1, 8-9",
      [
        [0, 2],
        [8, 10],
      ],
    ],
    ["bytes=0-1,20-30", [[0, 2]]],
    ["bytes=10-", []],
    ["bytes=-0", []],
    ["bytes=99999999999999999999-", []],
    ["bytes=2-1", undefined],
    ["bytes=", undefined],
    ["bytes=-", undefined],
    ["bytes=a-b", undefined],
    [
      "bytes=,0-1, ,8-9,",
      [
        [0, 2],
        [8, 10],
      ],
    ],
    ["bytes=,", undefined],
    ["bytes 0-1", undefined],
    ["lines=0-1", undefined],
    ["bytes=0-,0-", undefined],
    [`bytes=${Array.from({ length: MAX_RANGES + 1 }, () => "0-0").join(",")}`, undefined],
  ];
  for (const [value, expected] of cases) {
    assert.deepEqual(
      parseRanges(value, 10),
      expected?.map(([start, end]) => ({ start, end })),
      value,
    );
  }
  for (const value of ["bytes=0-", "bytes=-1", "bytes=0-5"]) assert.equal(parseRanges(value, 0), undefined);
  const wanted = (lines: [string, string][], method = "GET") =>
    wantedRanges(
      { method, target: "/", minor: 1, fields: new Fields([["Range", "bytes=0-1"], ...lines]) },
      10,
      validators,
    );
  assert.deepEqual(wanted([]), [{ start: 0, end: 2 }]);
  assert.equal(wanted([], "HEAD"), undefined);
  assert.deepEqual(wanted([["If-Range", '"e"']]), [{ start: 0, end: 2 }]);
  assert.deepEqual(wanted([["If-Range", at(0)]]), [{ start: 0, end: 2 }]);
  for (const other of ['"x"', 'W/"e"', at(1), "nonsense"])
    assert.equal(wanted([["If-Range", other]]), undefined, other);
});

test(`ranges lie in the file, and are together no larger than it (seed ${SEED})`, () => {
  const number = fc.oneof(fc.constant(""), fc.nat(40).map(String));
  const spec = fc.tuple(number, number).map(([a, b]) => `${a}-${b}`);
  fc.assert(
    fc.property(fc.array(spec, { minLength: 1, maxLength: 20 }), fc.nat(30), (specs, size) => {
      const ranges = parseRanges(`bytes=${specs.join(",")}`, size) ?? [];
      for (const { start, end } of ranges) assert.ok(0 <= start && start < end && end <= size);
      assert.ok(ranges.reduce((sum, { start, end }) => sum + end - start, 0) <= size);
    }),
    { seed: SEED, numRuns: 1000 },
  );
});
