/** RFC 9111 §4.2.4, §4.3, §4.4: what an origin's answers, or its silence, do to what is stored. */
import type { Case, Lines, OriginAnswer, Step } from "./conformance.ts";
import { FRESH, OLD_TAG, one, STALE, stale, TAG, twice } from "./conformance-common.ts";

const VALIDATION = "RFC 9111 §4.3: validation";
const confirm = (name: string, stored: Lines, update: Lines, then: Step): Case =>
  one(
    VALIDATION,
    name,
    [stored, { status: 304, lines: update }],
    ["origin", { is: "origin", status: 200, gets: 1 }, then],
  );
const OLD_DATE = [...STALE, "Last-Modified: {date:-100000}"];
const validation: Case[] = [
  one(
    VALIDATION,
    "by tag",
    [OLD_TAG, { status: 304, lines: [FRESH, TAG] }],
    [
      "origin",
      { is: "origin", gets: 1, status: 200, originGot: ['If-None-Match: "v"'] },
      { is: "hit", gets: 1 },
    ],
  ),
  one(
    VALIDATION,
    "by a weak tag",
    [[...STALE, 'ETag: W/"v"'], { status: 304, lines: [FRESH, 'ETag: W/"v"'] }],
    ["origin", { is: "origin", gets: 1, originGot: ['If-None-Match: W/"v"'] }, "hit"],
  ),
  one(
    VALIDATION,
    "by date",
    [OLD_DATE, { status: 304, lines: [FRESH] }],
    ["origin", { is: "origin", gets: 1, originGot: ["If-Modified-Since: *"] }, "hit"],
  ),
  one(
    VALIDATION,
    "no-cache: each time",
    [["Cache-Control: no-cache, max-age=60", TAG], { status: 304, lines: [TAG] }],
    ["origin", { is: "origin", gets: 1 }, { is: "origin", gets: 1 }],
  ),
  one(
    VALIDATION,
    "must-revalidate while fresh",
    [["Cache-Control: max-age=60, must-revalidate", TAG]],
    ["origin", "hit"],
  ),
  one(
    VALIDATION,
    "proxy-revalidate while fresh",
    [["Cache-Control: max-age=60, proxy-revalidate", TAG]],
    ["origin", "hit"],
  ),
  one(
    VALIDATION,
    "a changed one replaces the stored one",
    [OLD_TAG, [FRESH, 'ETag: "w"']],
    ["origin", { is: "origin", gets: 2 }, { is: "hit", gets: 2, has: ['ETag: "w"'] }],
  ),
  one(
    VALIDATION,
    "a 304 about another tag confirms nothing",
    [OLD_TAG, { status: 304, lines: ['ETag: "other"'] }, [FRESH]],
    ["origin", { is: "origin", status: 200, gets: 3 }, { is: "hit", gets: 3 }],
  ),
  confirm("a 304 brings new fields", OLD_TAG, [FRESH, TAG, "X-New: 1"], { is: "hit", has: ["X-New: 1"] }),
  confirm("a 304 replaces fields", [...OLD_TAG, "X-A: 1", "X-A: 2", "X-B: 1"], [FRESH, TAG, "X-A: 3"], {
    is: "hit",
    has: ["X-A: 3", "X-B: 1"],
  }),
  confirm("a 304 by date replaces fields", [...OLD_DATE, "X-A: 1"], [FRESH, "X-A: 3"], {
    is: "hit",
    has: ["X-A: 3"],
  }),
  confirm(
    "a 304 does not touch what tells about the content",
    [...OLD_TAG, "Content-Encoding: a"],
    [FRESH, TAG, "Content-Length: 99", "Content-Encoding: b", "Content-Range: bytes 0-0/9"],
    { is: "hit", gets: 1, has: ["Content-Length: 1", "Content-Encoding: a", "Content-Range:"] },
  ),
  confirm("a 304 ends the old age", OLD_TAG, [FRESH, TAG], { is: "hit", has: ["Age: 0"] }),
  confirm("a 304 brings its own age", OLD_TAG, [FRESH, TAG, "Age: 30"], { is: "hit", has: ["Age: 30"] }),
  confirm("a 304 brings its date", [...OLD_TAG, "Date: {date:-500}"], [FRESH, TAG, "Date: {date:-5}"], {
    is: "hit",
    has: ["Date: {date:-5}"],
  }),
  confirm("a 304 may say no-store: it stays usable, not fresh", OLD_TAG, ["Cache-Control: no-store", TAG], {
    is: "origin",
  }),
  confirm("fields of one hop in a 304", OLD_TAG, [FRESH, TAG, "Connection: X-Hop", "X-Hop: 1"], {
    is: "hit",
    has: ["X-Hop:"],
  }),
];

const HEAD = "RFC 9111 §4.3.5: HEAD";
const head = (name: string, answer: OriginAnswer, then: Step): Case =>
  one(
    HEAD,
    name,
    [[FRESH, TAG, "X-A: 1"], answer, [FRESH]],
    ["origin", { method: "HEAD", ask: ["Cache-Control: no-cache"], is: "origin" }, then],
  );
const heads: Case[] = [
  head(
    "updates a stored GET",
    { lines: [FRESH, TAG, "X-A: 2", "Content-Length: 1"] },
    { is: "hit", gets: 1, has: ["X-A: 2"] },
  ),
  head("with another tag, ends it", { lines: [FRESH, 'ETag: "w"'] }, { is: "origin" }),
  head("with another length, ends it", { lines: [FRESH, TAG, "Content-Length: 77"] }, { is: "origin" }),
  head("with another status, ends it", { status: 410, lines: [FRESH] }, { is: "origin" }),
  head("with a failure of the origin, changes nothing", { status: 503 }, { is: "hit", gets: 1 }),
];

const INVALIDATION = "RFC 9111 §4.4: invalidation";
const ends = (name: string, method: string, answer: OriginAnswer, is: "hit" | "origin", path = ""): Case =>
  one(
    INVALIDATION,
    name,
    [[FRESH], answer, [FRESH]],
    [
      { is: "origin", path },
      { method, body: "x", is: "origin" },
      { is, path },
    ],
  );
const invalidation: Case[] = [
  ...["POST", "PUT", "DELETE", "PATCH", "FROBNICATE"].map((method) =>
    ends(`${method} that succeeds`, method, { status: 200 }, "origin"),
  ),
  ends("POST that redirects", "POST", { status: 303 }, "origin"),
  ends("POST that creates", "POST", { status: 201 }, "origin"),
  ends("POST that is refused", "POST", { status: 403 }, "hit"),
  ends("POST that fails", "POST", { status: 500 }, "hit"),
  ends("OPTIONS is safe", "OPTIONS", { status: 200 }, "hit"),
  ends("what Location names", "POST", { status: 201, lines: ["Location: {path}?new"] }, "origin", "?new"),
  ends("what Content-Location names", "PUT", { lines: ["Content-Location: {path}?new"] }, "origin", "?new"),
  ends(
    "a Location at another origin means nothing",
    "POST",
    { lines: ["Location: http://127.0.0.2{path}?new"] },
    "hit",
    "?new",
  ),
  ends(
    "a Location in a refusal means nothing",
    "POST",
    { status: 403, lines: ["Location: {path}?new"] },
    "hit",
    "?new",
  ),
  one(
    INVALIDATION,
    "all variants",
    [[FRESH, "Vary: Foo"], [FRESH, "Vary: Foo"], [], [FRESH]],
    [
      { ask: ["Foo: 1"], is: "origin" },
      { ask: ["Foo: 2"], is: "origin" },
      { method: "POST", body: "x", is: "origin" },
      { ask: ["Foo: 1"], is: "origin" },
    ],
  ),
];

const LATE = "RFC 9111 §4.2.4, RFC 5861: stale responses";
const gone = (
  name: string,
  lines: Lines,
  is: "stale" | number,
  answer: OriginAnswer = { hangUp: true },
  ask: Lines = [],
): Case =>
  one(
    LATE,
    name,
    [lines, answer],
    [
      "origin",
      is === "stale" ? { ask, is: "origin", status: 200, gets: 1 } : { ask, is: "origin", status: is },
    ],
  );
const late: Case[] = [
  gone("the origin hangs up", STALE, "stale"),
  gone("the origin hangs up: must-revalidate", stale("must-revalidate"), 502),
  gone("the origin hangs up: proxy-revalidate", stale("proxy-revalidate"), 502),
  gone("the origin hangs up: s-maxage", ["Cache-Control: s-maxage=60", "Age: 100"], 502),
  gone("the origin hangs up: no-cache", ["Cache-Control: no-cache", TAG], 502),
  gone("the origin hangs up: no-cache in the request", STALE, 502, { hangUp: true }, [
    "Cache-Control: no-cache",
  ]),
  gone("503 without stale-if-error", STALE, 503, { status: 503 }),
  ...[500, 502, 503, 504].map((code) =>
    gone(`${code} with stale-if-error`, stale("stale-if-error=60"), "stale", { status: code }),
  ),
  gone("503 beyond stale-if-error", stale("stale-if-error=10"), 503, { status: 503 }),
  gone("503 with stale-if-error and must-revalidate", stale("stale-if-error=60, must-revalidate"), 503, {
    status: 503,
  }),
  gone("503 with stale-if-error in the request", STALE, "stale", { status: 503 }, [
    "Cache-Control: stale-if-error=60",
  ]),
  gone("404 with stale-if-error is an answer", stale("stale-if-error=60"), 404, { status: 404 }),
  one(
    LATE,
    "stale-while-revalidate: stale now, fresh then",
    [stale("stale-while-revalidate=60"), [FRESH]],
    ["origin", { gets: 1, thenOriginCount: 2 }, { is: "hit", gets: 2 }],
  ),
  one(
    LATE,
    "stale-while-revalidate: confirmed behind the client's back",
    [stale("stale-while-revalidate=60", TAG), { status: 304, lines: [FRESH] }],
    ["origin", { gets: 1, thenOriginCount: 2 }, { is: "hit", gets: 1, has: ["Age: 0"] }],
  ),
  twice(LATE, "beyond stale-while-revalidate", stale("stale-while-revalidate=10"), "origin"),
  twice(
    LATE,
    "stale-while-revalidate with must-revalidate",
    stale("stale-while-revalidate=60, must-revalidate"),
    "origin",
  ),
  twice(
    LATE,
    "stale-while-revalidate with s-maxage",
    ["Cache-Control: s-maxage=60, stale-while-revalidate=60", "Age: 100"],
    "origin",
  ),
];

export const CHANGING: readonly Case[] = [...validation, ...heads, ...invalidation, ...late];
