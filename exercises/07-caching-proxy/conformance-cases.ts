/** What RFC 9111 and its neighbours ask of a shared cache, requirement by requirement. */

import type { Case, Lines, OriginAnswer, Step } from "./conformance.ts";
import { FRESHNESS } from "./conformance-freshness.ts";

const FRESH = "Cache-Control: max-age=60";
/** Stale already when it comes. */
const STALE: Lines = ["Cache-Control: max-age=60", "Age: 100"];
const TAG = 'ETag: "v"';
const stale = (directives: string, ...more: string[]): Lines => [
  `Cache-Control: max-age=60, ${directives}`,
  "Age: 100",
  ...more,
];

const one = (rule: string, name: string, origin: Case["origin"], steps: Case["steps"]): Case => ({
  rule,
  name,
  origin,
  steps,
});
/** The second of two requests is answered from the cache, or not. */
const twice = (
  rule: string,
  name: string,
  lines: Lines | OriginAnswer,
  second: "hit" | "origin",
  ask: Lines = [],
  firstAsk: Lines = [],
) =>
  one(
    rule,
    name,
    [lines],
    [
      { ask: firstAsk, is: "origin" },
      { ask, is: second },
    ],
  );

const STORING = "RFC 9111 §3: storing";
const storing: Case[] = [
  twice(STORING, "no-store", ["Cache-Control: no-store, max-age=60"], "origin"),
  twice(STORING, "No-StOrE, in any case", ["Cache-Control: max-age=60, No-StOrE"], "origin"),
  twice(STORING, "no-store on a line of its own", [FRESH, "Cache-Control: no-store"], "origin"),
  twice(STORING, "private", ["Cache-Control: private, max-age=60"], "origin"),
  twice(
    STORING,
    "private with an argument that is no list of fields",
    ["Cache-Control: private=x, max-age=60"],
    "origin",
  ),
  twice(STORING, "no-store in the request", [FRESH], "origin", [], ["Cache-Control: no-store"]),
  twice(
    STORING,
    "an unknown directive does not matter",
    ['Cache-Control: max-age=60, foo="no-store, private", bar'],
    "hit",
  ),
  twice(STORING, "a cookie is stored as any field is", [FRESH, "Set-Cookie: a=b"], "hit"),
  twice(STORING, "nothing says that it may be reused", [], "origin"),
  twice(STORING, "a validator alone makes nothing fresh", [TAG], "origin"),
  twice(STORING, "Pragma in a response means nothing", [FRESH, "Pragma: no-cache"], "hit"),
  twice(STORING, "a target with a query", [FRESH], "hit"),
  one(
    STORING,
    "another query is another target",
    [[FRESH]],
    ["origin", { path: "?a", is: "origin" }, { path: "?b", is: "origin" }, { path: "?a", is: "hit" }],
  ),
  one(
    STORING,
    "a newer response that may not be stored ends the older",
    [[FRESH], ["Cache-Control: no-store"]],
    ["origin", "hit", { ask: ["Cache-Control: no-cache"], is: "origin", gets: 2 }, "origin"],
  ),
  one(
    STORING,
    "an answer to POST is not stored",
    [[FRESH]],
    [{ method: "POST", body: "x", is: "origin" }, "origin"],
  ),
  one(
    STORING,
    "an answer to an unknown method is not stored",
    [[FRESH]],
    [
      { method: "FROBNICATE", is: "origin" },
      { method: "FROBNICATE", is: "origin" },
    ],
  ),
  one(
    STORING,
    "an answer to HEAD does not answer GET",
    [[FRESH]],
    [
      { method: "HEAD", is: "origin", gets: "" },
      { is: "origin", gets: 2 },
    ],
  ),
  one(
    STORING,
    "a stored GET answers HEAD",
    [{ lines: [FRESH], body: "12345" }],
    ["origin", { method: "HEAD", is: "hit", gets: "", has: ["Content-Length: 5"] }],
  ),
  one(
    STORING,
    "a chunked body is stored",
    [{ lines: [FRESH], chunked: true, body: "chunks" }],
    [
      { is: "origin", gets: "chunks" },
      { is: "hit", gets: "chunks" },
    ],
  ),
  one(
    STORING,
    "trailers reach who asks first",
    [{ lines: [FRESH, "Trailer: X-Sum"], trailers: ["X-Sum: 5"] }],
    [{ is: "origin", trailers: ["X-Sum: 5"] }, { is: "hit" }],
  ),
  one(
    STORING,
    "an empty body is stored",
    [{ lines: [FRESH], body: "" }],
    ["origin", { is: "hit", gets: "", has: ["Content-Length: 0"] }],
  ),
];

const FIELDS = "RFC 9111 §3.1: storing fields";
const fields: Case[] = [
  one(
    FIELDS,
    "fields are stored as they came",
    [[FRESH, "X-A: 1", "X-A: 2", 'Content-Type: text/x; y="z"', "Content-Language: x"]],
    ["origin", { is: "hit", has: ["X-A: 1, 2", 'Content-Type: text/x; y="z"', "Content-Language: x"] }],
  ),
  ...[
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "Proxy-Authenticate: Basic",
    "Proxy-Authentication-Info: x",
    "Proxy-Authorization: x",
    "TE: trailers",
    "Upgrade: foo",
  ].map((line) =>
    one(
      FIELDS,
      `${line.split(":")[0]} is for one hop`,
      [[FRESH, line]],
      [
        { is: "origin", has: [`${line.split(":")[0]}:`] },
        { is: "hit", has: [`${line.split(":")[0]}:`] },
      ],
    ),
  ),
  one(
    FIELDS,
    "what Connection names is for one hop",
    [[FRESH, "Connection: X-Hop, keep-alive", "X-Hop: 1", "X-End: 1"]],
    [
      { is: "origin", has: ["X-Hop:", "X-End: 1"] },
      { is: "hit", has: ["X-Hop:", "X-End: 1", "Connection:"] },
    ],
  ),
  one(
    FIELDS,
    "no-cache with fields: they are not used again",
    [['Cache-Control: max-age=60, no-cache="X-A, x-b"', "X-A: 1", "X-B: 1", "X-C: 1"]],
    [
      { is: "origin", has: ["X-A: 1"] },
      { is: "hit", has: ["X-A:", "X-B:", "X-C: 1"] },
    ],
  ),
  one(
    FIELDS,
    "private with fields: they are not stored",
    [['Cache-Control: max-age=60, private="set-cookie"', "Set-Cookie: 1", "X-C: 1"]],
    [
      { is: "origin", has: ["Set-Cookie: 1"] },
      { is: "hit", has: ["Set-Cookie:", "X-C: 1"] },
    ],
  ),
  one(
    FIELDS,
    "request fields for this hop do not go on",
    [[]],
    [
      {
        ask: [
          "Connection: X-Hop",
          "X-Hop: 1",
          "TE: trailers",
          "Proxy-Authorization: x",
          "Keep-Alive: 1",
          "X-End: 1",
        ],
        originGot: ["X-Hop:", "TE:", "Proxy-Authorization:", "Keep-Alive:", "Connection:", "X-End: 1"],
      },
    ],
  ),
  one(
    FIELDS,
    "Via is added both ways",
    [["Via: 1.1 before"]],
    [{ ask: ["Via: 1.0 before"], originGot: ["Via: *"], has: ["Via: *"] }],
  ),
];

const AUTH = "RFC 9111 §3.5: Authorization";
const authorization: Case[] = [
  ...(
    [
      ["max-age=60", "origin"],
      ["max-age=60, public", "hit"],
      ["s-maxage=60", "hit"],
      ["max-age=60, must-revalidate", "hit"],
      ["max-age=60, proxy-revalidate", "origin"],
    ] as const
  ).map(([directives, second]) =>
    twice(
      AUTH,
      directives,
      [`Cache-Control: ${directives}`],
      second,
      ["Authorization: a"],
      ["Authorization: a"],
    ),
  ),
];

const STATUS = "RFC 9111 §3: status codes";
const FINAL = [
  200, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 410, 414, 418, 451, 499, 500,
  501, 502, 503, 504, 599,
];
const HEURISTIC = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
const status: Case[] = [
  ...FINAL.map((code) =>
    one(
      STATUS,
      `${code} with max-age`,
      [{ status: code, lines: [FRESH] }],
      [
        { is: "origin", status: code },
        { is: "hit", status: code },
      ],
    ),
  ),
  ...FINAL.map((code) =>
    one(
      STATUS,
      `${code} that is stale`,
      [{ status: code, lines: STALE }],
      [
        { is: "origin", status: code },
        { is: "origin", status: code },
      ],
    ),
  ),
  ...FINAL.map((code) =>
    twice(
      STATUS,
      `${code} by a guess`,
      { status: code, lines: ["Last-Modified: {date:-100000}"] },
      HEURISTIC.includes(code) ? "hit" : "origin",
    ),
  ),
  twice(
    STATUS,
    "599 with public by a guess",
    { status: 599, lines: ["Cache-Control: public", "Last-Modified: {date:-100000}"] },
    "hit",
  ),
  twice(
    STATUS,
    "must-understand and a known code: no-store does not count",
    ["Cache-Control: max-age=60, no-store, must-understand"],
    "hit",
  ),
  twice(
    STATUS,
    "must-understand and an unknown code",
    { status: 299, lines: ["Cache-Control: max-age=60, must-understand"] },
    "origin",
  ),
  twice(STATUS, "206 is no whole", { status: 206, lines: [FRESH, "Content-Range: bytes 0-0/5"] }, "origin"),
];

const VARY = "RFC 9111 §4.1: Vary";
const vary = (name: string, value: string, first: Lines, second: Lines, is: "hit" | "origin") =>
  twice(VARY, name, [FRESH, `Vary: ${value}`], is, second, first);
const variants: Case[] = [
  vary("the same value", "Foo", ["Foo: 1"], ["Foo: 1"], "hit"),
  vary("another value", "Foo", ["Foo: 1"], ["Foo: 2"], "origin"),
  vary("absent both times", "Foo", [], [], "hit"),
  vary("absent later", "Foo", ["Foo: 1"], [], "origin"),
  vary("absent first", "Foo", [], ["Foo: 1"], "origin"),
  vary("empty is not absent", "Foo", [], ["Foo:"], "origin"),
  vary("names in any case", "fOO", ["Foo: 1"], ["foO: 1"], "hit"),
  vary("values by case", "Foo", ["Foo: a"], ["Foo: A"], "origin"),
  vary("other fields do not matter", "Foo", ["Foo: 1", "Bar: 1"], ["Foo: 1", "Bar: 2"], "hit"),
  vary("two fields, one differs", "Foo, Bar", ["Foo: 1", "Bar: 1"], ["Foo: 1", "Bar: 2"], "origin"),
  vary("two fields, the same", "Foo, Bar", ["Foo: 1", "Bar: 1"], ["Bar: 1", "Foo: 1"], "hit"),
  vary("empty members", ", ,Foo ,", ["Foo: 1"], ["Foo: 1"], "hit"),
  vary("several lines are one list", "Foo", ["Foo: 1, 2"], ["Foo: 1", "Foo: 2"], "hit"),
  vary("blanks around commas", "Foo", ["Foo: 1,2"], ["Foo: 1  ,   2"], "hit"),
  vary(
    "the order of languages",
    "Accept-Language",
    ["Accept-Language: en, de"],
    ["Accept-Language: de, en"],
    "hit",
  ),
  vary(
    "the case of languages",
    "Accept-Language",
    ["Accept-Language: en, de"],
    ["Accept-Language: EN, De"],
    "hit",
  ),
  vary(
    "blanks in languages",
    "Accept-Language",
    ["Accept-Language: en;q=0.5"],
    ["Accept-Language: en ; q=0.5"],
    "hit",
  ),
  vary("*", "*", [], [], "origin"),
  vary("* in a list", "Foo, *", ["Foo: 1"], ["Foo: 1"], "origin"),
  twice(
    VARY,
    "on two lines",
    [FRESH, "Vary: Foo", "Vary: Bar"],
    "origin",
    ["Foo: 1", "Bar: 2"],
    ["Foo: 1", "Bar: 1"],
  ),
  one(
    VARY,
    "several variants beside each other",
    [[FRESH, "Vary: Foo"]],
    [
      { ask: ["Foo: 1"], is: "origin" },
      { ask: ["Foo: 2"], is: "origin" },
      { ask: ["Foo: 1"], is: "hit", gets: 1 },
      { ask: ["Foo: 2"], is: "hit", gets: 2 },
    ],
  ),
];

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

const VALIDATION = "RFC 9111 §4.3: validation";
const OLD_TAG = [...STALE, TAG];
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

const CLIENT = "RFC 9111 §4.3.2: conditions of the client";
const client = (name: string, lines: Lines, ask: Lines, expected: 200 | 304): Case =>
  one(
    CLIENT,
    name,
    [[FRESH, ...lines]],
    ["origin", { ask, is: "hit", status: expected, gets: expected === 304 ? "" : "1" }],
  );
const MODIFIED = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
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

export const CASES: readonly Case[] = [
  ...FRESHNESS,
  ...storing,
  ...fields,
  ...authorization,
  ...status,
  ...variants,
  ...requests,
  ...validation,
  ...conditions,
  ...heads,
  ...ranges,
  ...invalidation,
  ...late,
  ...interim,
  ...cacheStatus,
];
