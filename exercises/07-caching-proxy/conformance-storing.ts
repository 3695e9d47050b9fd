/** RFC 9111 §3 and §4.1: what may be stored, and for which requests. */
import type { Case, Lines } from "./conformance.ts";
import { FRESH, one, STALE, TAG, twice } from "./conformance-common.ts";

const STORED = "RFC 9111 §3: storing";
const storing: Case[] = [
  twice(STORED, "no-store", ["Cache-Control: no-store, max-age=60"], "origin"),
  twice(STORED, "No-StOrE, in any case", ["Cache-Control: max-age=60, No-StOrE"], "origin"),
  twice(STORED, "no-store on a line of its own", [FRESH, "Cache-Control: no-store"], "origin"),
  twice(STORED, "private", ["Cache-Control: private, max-age=60"], "origin"),
  twice(
    STORED,
    "private with an argument that is no list of fields",
    ["Cache-Control: private=x, max-age=60"],
    "origin",
  ),
  twice(STORED, "no-store in the request", [FRESH], "origin", [], ["Cache-Control: no-store"]),
  twice(
    STORED,
    "an unknown directive does not matter",
    ['Cache-Control: max-age=60, foo="no-store, private", bar'],
    "hit",
  ),
  twice(STORED, "a cookie is stored as any field is", [FRESH, "Set-Cookie: a=b"], "hit"),
  twice(STORED, "nothing says that it may be reused", [], "origin"),
  twice(STORED, "a validator alone makes nothing fresh", [TAG], "origin"),
  twice(STORED, "Pragma in a response means nothing", [FRESH, "Pragma: no-cache"], "hit"),
  twice(STORED, "a target with a query", [FRESH], "hit"),
  one(
    STORED,
    "another query is another target",
    [[FRESH]],
    ["origin", { path: "?a", is: "origin" }, { path: "?b", is: "origin" }, { path: "?a", is: "hit" }],
  ),
  one(
    STORED,
    "a newer response that may not be stored ends the older",
    [[FRESH], ["Cache-Control: no-store"]],
    ["origin", "hit", { ask: ["Cache-Control: no-cache"], is: "origin", gets: 2 }, "origin"],
  ),
  one(
    STORED,
    "an answer to POST is not stored",
    [[FRESH]],
    [{ method: "POST", body: "x", is: "origin" }, "origin"],
  ),
  one(
    STORED,
    "an answer to an unknown method is not stored",
    [[FRESH]],
    [
      { method: "FROBNICATE", is: "origin" },
      { method: "FROBNICATE", is: "origin" },
    ],
  ),
  one(
    STORED,
    "an answer to HEAD does not answer GET",
    [[FRESH]],
    [
      { method: "HEAD", is: "origin", gets: "" },
      { is: "origin", gets: 2 },
    ],
  ),
  one(
    STORED,
    "a stored GET answers HEAD",
    [{ lines: [FRESH], body: "12345" }],
    ["origin", { method: "HEAD", is: "hit", gets: "", has: ["Content-Length: 5"] }],
  ),
  one(
    STORED,
    "a chunked body is stored",
    [{ lines: [FRESH], chunked: true, body: "chunks" }],
    [
      { is: "origin", gets: "chunks" },
      { is: "hit", gets: "chunks" },
    ],
  ),
  one(
    STORED,
    "trailers reach who asks first",
    [{ lines: [FRESH, "Trailer: X-Sum"], trailers: ["X-Sum: 5"] }],
    [{ is: "origin", trailers: ["X-Sum: 5"] }, { is: "hit" }],
  ),
  one(
    STORED,
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

export const STORING: readonly Case[] = [...storing, ...fields, ...authorization, ...status, ...variants];
