/** RFC 9111 §4, §5.2.1 and RFC 9110 §13, §14: what requests, conditions and ranges get of what is stored. */
import type { Case, Lines, OriginAnswer, Step } from "./conformance.ts";
import { FRESH, MODIFIED, OLD_TAG, one, STALE, stale, TAG, twice } from "./conformance-common.ts";

const REQUEST = "RFC 9111 §5.2.1: what a request may ask";
const asked = (directive: string, lines: Lines, is: "hit" | "origin") =>
  twice(REQUEST, `${directive}: ${lines.join(", ")}`, lines, is, [`Cache-Control: ${directive}`]);
const requests: Case[] = [
  asked("max-age=0", [FRESH, "Age: 1"], "origin"),
  asked("max-age=10", [FRESH, "Age: 20"], "origin"),
  asked("max-age=30", [FRESH, "Age: 20"], "hit"),
  asked("MAX-AGE=10", [FRESH, "Age: 20"], "origin"),
  asked("min-fresh=50", [FRESH, "Age: 20"], "origin"),
  asked("min-fresh=10", [FRESH, "Age: 20"], "hit"),
  asked("max-stale", STALE, "hit"),
  asked("max-stale=50", STALE, "hit"),
  asked("max-stale=10", STALE, "origin"),
  asked("max-stale", stale("must-revalidate"), "origin"),
  asked("max-stale", stale("proxy-revalidate"), "origin"),
  asked("max-stale", ["Cache-Control: s-maxage=60", "Age: 100"], "origin"),
  asked("max-stale", ["Cache-Control: no-cache", TAG], "origin"),
  asked("no-cache", [FRESH], "origin"),
  asked("No-Cache", [FRESH], "origin"),
  asked('foo="no-cache"', [FRESH], "hit"),
  twice(REQUEST, "Pragma: no-cache", [FRESH], "origin", ["Pragma: no-cache"]),
  twice(REQUEST, "Pragma with Cache-Control does not count", [FRESH], "hit", [
    "Pragma: no-cache",
    "Cache-Control: max-age=50",
  ]),
  one(
    REQUEST,
    "no-cache validates what is there",
    [[FRESH, TAG], { status: 304, lines: [FRESH, TAG] }],
    [
      "origin",
      {
        ask: ["Cache-Control: no-cache"],
        is: "origin",
        status: 200,
        gets: 1,
        originGot: ['If-None-Match: "v"'],
      },
    ],
  ),
  one(
    REQUEST,
    "only-if-cached without a copy",
    [[FRESH]],
    [{ ask: ["Cache-Control: only-if-cached"], is: "hit", status: 504 }],
  ),
  one(
    REQUEST,
    "only-if-cached with a stale copy",
    [STALE],
    ["origin", { ask: ["Cache-Control: only-if-cached"], is: "hit", status: 504 }],
  ),
  one(
    REQUEST,
    "only-if-cached with a copy",
    [[FRESH]],
    ["origin", { ask: ["Cache-Control: only-if-cached"], is: "hit", status: 200 }],
  ),
];

const CLIENT = "RFC 9111 §4.3.2: conditions of the client";
const client = (name: string, lines: Lines, ask: Lines, expected: 200 | 304): Case =>
  one(
    CLIENT,
    name,
    [[FRESH, ...lines]],
    ["origin", { ask, is: "hit", status: expected, gets: expected === 304 ? "" : "1" }],
  );
const conditions: Case[] = [
  client("the same tag", [TAG], ['If-None-Match: "v"'], 304),
  client("another tag", [TAG], ['If-None-Match: "w"'], 200),
  client("a list of tags", [TAG], ['If-None-Match: "a", "v"'], 304),
  client("a list on two lines", [TAG], ['If-None-Match: "a"', 'If-None-Match: "v"'], 304),
  client("a tag with a comma", ['ETag: "a,v"'], ['If-None-Match: "a,v"'], 304),
  client("part of a tag with a comma", [TAG], ['If-None-Match: "a,v"'], 200),
  client("*", [TAG], ["If-None-Match: *"], 304),
  client("weak there, strong here", ['ETag: W/"v"'], ['If-None-Match: "v"'], 304),
  client("strong there, weak here", [TAG], ['If-None-Match: W/"v"'], 304),
  client("weak both", ['ETag: W/"v"'], ['If-None-Match: W/"v"'], 304),
  client("no tag is stored", [MODIFIED], ['If-None-Match: "v"'], 200),
  client("the same date", [MODIFIED], ["If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], 304),
  client("a later date", [MODIFIED], ["If-Modified-Since: Sun, 06 Nov 1994 09:49:37 GMT"], 304),
  client("an earlier date", [MODIFIED], ["If-Modified-Since: Sun, 06 Nov 1994 07:49:37 GMT"], 200),
  client("a date of RFC 850", [MODIFIED], ["If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT"], 304),
  client("a date of asctime()", [MODIFIED], ["If-Modified-Since: Sun Nov  6 08:49:37 1994"], 304),
  client("no date at all", [MODIFIED], ["If-Modified-Since: yesterday"], 200),
  client(
    "the tag counts before the date",
    [TAG, MODIFIED],
    ['If-None-Match: "w"', "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"],
    200,
  ),
  client(
    "a matching tag with an early date",
    [TAG, MODIFIED],
    ['If-None-Match: "v"', "If-Modified-Since: Sun, 06 Nov 1993 08:49:37 GMT"],
    304,
  ),
  client("without Last-Modified, the Date", ["Date: {date:-5}"], ["If-Modified-Since: {date:0}"], 304),
  client(
    "without Last-Modified, an earlier Date",
    ["Date: {date:-5}"],
    ["If-Modified-Since: {date:-50}"],
    200,
  ),
  one(
    CLIENT,
    "what a 304 says",
    [
      [
        FRESH,
        TAG,
        MODIFIED,
        "Vary: Foo",
        "Content-Type: text/x",
        "Content-Location: /x",
        "Expires: {date:60}",
      ],
    ],
    [
      "origin",
      {
        ask: ['If-None-Match: "v"'],
        status: 304,
        has: [
          TAG,
          "Vary: Foo",
          FRESH,
          "Date: *",
          "Age: *",
          "Content-Location: /x",
          "Expires: *",
          "Content-Type:",
        ],
      },
    ],
  ),
  one(
    CLIENT,
    "with nothing stored, it is the origin's to judge",
    [{ status: 304, lines: [TAG] }],
    [{ ask: ['If-None-Match: "v"'], is: "origin", status: 304, originGot: ['If-None-Match: "v"'] }],
  ),
  one(
    CLIENT,
    "a 304 to the client's own condition is not stored",
    [{ status: 304, lines: [FRESH, TAG] }, [FRESH]],
    [
      { ask: ['If-None-Match: "v"'], is: "origin", status: 304 },
      { is: "origin", status: 200 },
    ],
  ),
  one(
    CLIENT,
    "a stale one is validated with its own tag",
    [OLD_TAG, { status: 304, lines: [FRESH, TAG] }],
    [
      "origin",
      {
        ask: ['If-None-Match: "mine"'],
        is: "origin",
        status: 200,
        gets: 1,
        originGot: ['If-None-Match: "v"'],
      },
    ],
  ),
  one(
    CLIENT,
    "validated, and the client has it",
    [OLD_TAG, { status: 304, lines: [FRESH, TAG] }],
    ["origin", { ask: ['If-None-Match: "v"'], is: "origin", status: 304 }],
  ),
  one(
    CLIENT,
    "If-Match goes to the origin",
    [[FRESH, TAG]],
    ["origin", { ask: ['If-Match: "v"'], is: "origin" }],
  ),
  one(
    CLIENT,
    "If-Unmodified-Since goes to the origin",
    [[FRESH, TAG]],
    ["origin", { ask: ["If-Unmodified-Since: {date:0}"], is: "origin" }],
  ),
];

const RANGE = "RFC 9110 §14: ranges of what is stored";
const ten: OriginAnswer = { lines: [FRESH, TAG, MODIFIED], body: "0123456789" };
const range = (ask: Lines, expected: string, more: Step = {}): Case =>
  one(RANGE, ask.join(", "), [ten], ["origin", { ask, is: "hit", gets: expected, status: 206, ...more }]);
const ranges: Case[] = [
  range(["Range: bytes=2-4"], "234", { has: ["Content-Range: bytes 2-4/10", "Content-Length: 3"] }),
  range(["Range: bytes=0-0"], "0", { has: ["Content-Range: bytes 0-0/10"] }),
  range(["Range: bytes=7-"], "789"),
  range(["Range: bytes=-2"], "89", { has: ["Content-Range: bytes 8-9/10"] }),
  range(["Range: bytes=5-99"], "56789", { has: ["Content-Range: bytes 5-9/10"] }),
  range(["Range: bytes=-99"], "0123456789"),
  range(["Range: BYTES=1-1"], "1"),
  one(
    RANGE,
    "beyond the end",
    [ten],
    ["origin", { ask: ["Range: bytes=10-"], is: "hit", status: 416, has: ["Content-Range: bytes */10"] }],
  ),
  range(["Range: bytes=5-4"], "0123456789", { status: 200 }),
  range(["Range: lines=1-2"], "0123456789", { status: 200 }),
  range(["Range: bytes=0-1", 'If-Range: "v"'], "01"),
  range(["Range: bytes=0-1", 'If-Range: "w"'], "0123456789", { status: 200 }),
  range(["Range: bytes=0-1", 'If-Range: W/"v"'], "0123456789", { status: 200 }),
  range(["Range: bytes=0-1", "If-Range: Sun, 06 Nov 1994 08:49:37 GMT"], "01"),
  range(["Range: bytes=0-1", "If-Range: Sun, 06 Nov 1995 08:49:37 GMT"], "0123456789", { status: 200 }),
  one(
    RANGE,
    "a HEAD has no ranges",
    [ten],
    ["origin", { method: "HEAD", ask: ["Range: bytes=0-1"], is: "hit", status: 200 }],
  ),
  one(
    RANGE,
    "a part is passed on and not stored as the whole",
    [{ status: 206, lines: [FRESH, "Content-Range: bytes 0-1/10"], body: "01" }, ten],
    [
      { ask: ["Range: bytes=0-1"], is: "origin", status: 206, gets: "01" },
      { is: "origin", gets: "0123456789" },
      { ask: ["Range: bytes=1-2"], is: "hit", gets: "12" },
    ],
  ),
  one(
    RANGE,
    "a whole that answers a range is stored",
    [ten],
    [{ ask: ["Range: bytes=0-1"], is: "origin", status: 200 }, "hit"],
  ),
];

const INTERIM = "RFC 9110 §15.2: interim responses";
const interim: Case[] = [
  one(
    INTERIM,
    "103 is passed on, and not stored",
    [{ interim: [{ status: 103, lines: ["Link: </x>", FRESH] }], lines: [FRESH] }],
    [
      { is: "origin", interim: [103], has: ["Link:"] },
      { is: "hit", interim: [], has: ["Link:"] },
    ],
  ),
  one(
    INTERIM,
    "several",
    [
      {
        interim: [
          { status: 102, lines: [] },
          { status: 103, lines: [] },
        ],
      },
    ],
    [{ interim: [102, 103], status: 200 }],
  ),
  one(
    INTERIM,
    "its fields are not those of the response",
    [{ interim: [{ status: 103, lines: [FRESH] }] }],
    ["origin", "origin"],
  ),
];

const CACHE_STATUS = "RFC 9211: Cache-Status";
const says = (name: string, origin: Case["origin"], steps: Case["steps"]) =>
  one(CACHE_STATUS, name, origin, steps);
const cacheStatus: Case[] = [
  says(
    "miss, hit",
    [["Cache-Control: max-age=600", "Age: 100"]],
    [
      { has: ["Cache-Status: /^netlab; fwd=uri-miss; ttl=(500|49\\d); stored$/"] },
      { is: "hit", has: ["Age: 100"] },
    ],
  ),
  says("not stored", [["Cache-Control: no-store"]], [{ has: ["Cache-Status: netlab; fwd=uri-miss"] }]),
  says(
    "another variant",
    [["Cache-Control: no-store", "Vary: Foo"]],
    [{ has: ["Cache-Status: netlab; fwd=uri-miss"] }],
  ),
  says("a method", [[]], [{ method: "POST", body: "x", has: ["Cache-Status: netlab; fwd=method"] }]),
  says(
    "after that of a cache before",
    [["Cache-Status: before; hit"]],
    [{ has: ["Cache-Status: before; hit, netlab; fwd=uri-miss"] }],
  ),
];

export const USING: readonly Case[] = [...requests, ...conditions, ...ranges, ...interim, ...cacheStatus];
