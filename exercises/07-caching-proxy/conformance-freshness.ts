/** RFC 9111 §4.2 and §5: for how long a response is fresh, and how old it is, with every kind of malformed value. */
import type { Case, Lines } from "./conformance.ts";

const NOW = "{date:0}";
type Row = readonly [name: string, ...lines: string[]];

/** Each response is asked for twice: is the second answered from the cache? */
const rows = (rule: string, second: "hit" | "origin", table: readonly Row[]): Case[] =>
  table.map(([name, ...lines]) => ({ rule, name, origin: [lines], steps: ["origin", second] }));
const cc = (value: string) => `Cache-Control: ${value}`;

const LIFETIME = "RFC 9111 §4.2.1: freshness lifetime";
const AGE = "RFC 9111 §4.2.3: age";
const GUESS = "RFC 9111 §4.2.2: heuristic freshness";

const fresh = rows(LIFETIME, "hit", [
  ["max-age", cc("max-age=60")],
  ["max-age of 2^31 - 1", cc("max-age=2147483647")],
  ["max-age of 2^31", cc("max-age=2147483648")],
  ["max-age of 2^32", cc("max-age=4294967296")],
  ["max-age of 10^30", cc(`max-age=1${"0".repeat(30)}`)],
  ["max-age with leading zeros", cc("max-age=0000060")],
  ["max-age in quotes", cc('max-age="60"')],
  ["Max-Age", cc("Max-Age=60")],
  ["MAX-AGE", "CACHE-CONTROL: MAX-AGE=60"],
  ["blanks around commas", cc("  foo  ,  max-age=60  ,  bar")],
  ["a tab", cc("foo,\tmax-age=60")],
  ["empty members", cc(",, max-age=60,,")],
  ["unknown directives with arguments", cc('max-age=60, foo=1, bar="a, b", baz')],
  ["on the second line", cc("foo"), cc("max-age=60")],
  ["max-age before Expires", cc("max-age=60"), "Expires: {date:-60}"],
  ["max-age before a malformed Expires", cc("max-age=60"), "Expires: 0"],
  ["s-maxage", cc("s-maxage=60")],
  ["S-MaxAge", cc("S-MaxAge=60")],
  ["s-maxage before max-age", cc("max-age=0, s-maxage=60")],
  ["s-maxage before Expires", cc("s-maxage=60"), "Expires: {date:-60}"],
  ["s-maxage of 2^32", cc("s-maxage=4294967296")],
  ["Expires", "Expires: {date:60}"],
  ["Expires after the Date, both past", "Date: {date:-30}", "Expires: {date:60}"],
  ["Expires in small letters", "Expires: fri, 01 jan 2100 00:00:00 gmt"],
  ["Expires in capitals", "Expires: FRI, 01 JAN 2100 00:00:00 GMT"],
  ["Expires of RFC 850", "Expires: Wednesday, 01-Jan-70 00:00:00 GMT"],
  ["Expires of asctime()", "Expires: Fri Jan  1 00:00:00 2100"],
  [
    "Expires twice the same",
    "Expires: Fri, 01 Jan 2100 00:00:00 GMT",
    "Expires: Fri, 01 Jan 2100 00:00:00 GMT",
  ],
  ["Expires beyond 2^32", "Expires: Sat, 01 Jan 2500 00:00:00 GMT"],
  ["Pragma does not matter", cc("max-age=60"), "Pragma: no-cache"],
  ["Content-Disposition does not matter", cc("max-age=60"), "Content-Disposition: attachment"],
  ["immutable", cc("max-age=60, immutable")],
  ["public", cc("max-age=60, public")],
  ["a directive in quotes is none", cc('max-age=60, foo="no-store"')],
  ["an escaped quote in quotes", cc('foo="\\", no-store, \\"", max-age=60')],
]);

const notFresh = rows(LIFETIME, "origin", [
  ["max-age=0", cc("max-age=0")],
  ["a negative max-age", cc("max-age=-60")],
  ["max-age with a plus", cc("max-age=+60")],
  ["max-age with a fraction", cc("max-age=60.5")],
  ["max-age with letters behind", cc("max-age=60a")],
  ["max-age with letters in front", cc("max-age=a60")],
  ["max-age in single quotes", cc("max-age='60'")],
  ["max-age without a value", cc("max-age")],
  ["max-age with an empty value", cc("max-age=")],
  ["a blank before the equals sign", cc("max-age =60")],
  ["a blank behind the equals sign", cc("max-age= 60")],
  ["max-age in hexadecimal", cc("max-age=0x60")],
  ["max-age with an exponent", cc("max-age=1e3")],
  ["two max-age, the first 0", cc("max-age=0, max-age=60")],
  ["two max-age on two lines, the first 0", cc("max-age=0"), cc("max-age=60")],
  ["a directive in quotes is none", cc('foo="max-age=60"')],
  ["a directive in quotes among others", cc('foo="a, max-age=60, b", bar')],
  ["an open quote", cc('foo="a, max-age=60')],
  ["a longer name", cc("xmax-age=60")],
  ["a shorter name", cc("max-ag=60")],
  ["a semicolon is no comma", cc("foo;max-age=60")],
  ["s-maxage=0 before max-age", cc("max-age=60, s-maxage=0")],
  ["a malformed s-maxage", cc("max-age=60, s-maxage=x")],
  ["no-cache", cc("max-age=60, no-cache")],
  ["No-Cache", cc("max-age=60, No-Cache")],
  ["Expires in the past", "Expires: {date:-60}"],
  ["Expires now", `Expires: ${NOW}`, `Date: ${NOW}`],
  ["Expires as the Date, both future", "Date: {date:60}", "Expires: {date:60}"],
  ["Expires: 0", "Expires: 0"],
  ["Expires: -1", "Expires: -1"],
  ["an empty Expires", "Expires:"],
  ["Expires without a day of the week", "Expires: 01 Jan 2100 00:00:00 GMT"],
  ["Expires without a comma", "Expires: Fri 01 Jan 2100 00:00:00 GMT"],
  ["Expires in UTC", "Expires: Fri, 01 Jan 2100 00:00:00 UTC"],
  ["Expires in another zone", "Expires: Fri, 01 Jan 2100 00:00:00 AEST"],
  ["Expires with an offset", "Expires: Fri, 01 Jan 2100 00:00:00 +0000"],
  ["Expires without a zone", "Expires: Fri, 01 Jan 2100 00:00:00"],
  ["Expires with blanks", "Expires: Fri,  01  Jan  2100  00:00:00  GMT"],
  ["Expires with a day of one digit", "Expires: Fri, 1 Jan 2100 00:00:00 GMT"],
  ["Expires with a year of two digits", "Expires: Fri, 01 Jan 99 00:00:00 GMT"],
  ["Expires with dots in the time", "Expires: Fri, 01 Jan 2100 00.00.00 GMT"],
  ["Expires by ISO 8601", "Expires: 2100-01-01T00:00:00Z"],
  ["Expires of RFC 850, long past", "Expires: Sunday, 06-Nov-94 08:49:37 GMT"],
  ["Expires twice, the first past", "Expires: {date:-60}", "Expires: Fri, 01 Jan 2100 00:00:00 GMT"],
  ["max-age=0 before Expires", cc("max-age=0"), "Expires: {date:60}"],
  ["a malformed max-age before Expires", cc("max-age=x"), "Expires: {date:60}"],
]);

const ageIs = (rule: string, name: string, lines: Lines, age: string): Case => ({
  rule,
  name,
  origin: [lines],
  steps: ["origin", { is: "hit", has: [`Age: ${age}`] }],
});
const LONG = cc("max-age=100000");
const ages: Case[] = [
  ...rows(AGE, "origin", [
    ["older than max-age", cc("max-age=60"), "Age: 61"],
    ["as old as max-age", cc("max-age=60"), "Age: 60"],
    ["older than s-maxage", cc("s-maxage=60"), "Age: 61"],
    ["older than Expires allows", "Age: 100", "Expires: {date:60}"],
    ["by its Date", cc("max-age=60"), "Date: {date:-61}"],
    ["the larger of Age and Date", cc("max-age=60"), "Date: {date:-61}", "Age: 5"],
    ["an Age of 2^31", cc("max-age=100000"), "Age: 2147483648"],
    ["an Age of 10^30", cc("max-age=100000"), `Age: 1${"0".repeat(30)}`],
    ["both beyond 2^31", cc("max-age=99999999999"), "Age: 99999999999"],
    ["of two the first", cc("max-age=60"), "Age: 100, 1"],
    ["of two lines the first", cc("max-age=60"), "Age: 100", "Age: 1"],
  ]),
  ...rows(AGE, "hit", [
    ["a Date in the future", cc("max-age=60"), "Date: {date:100}"],
    ["no Date", cc("max-age=60"), "Date:"],
    ["a malformed Date", cc("max-age=60"), "Date: yesterday"],
    ["a malformed Age", cc("max-age=60"), "Age: abc"],
    ["a negative Age", cc("max-age=60"), "Age: -100"],
    ["an Age with a fraction", cc("max-age=60"), "Age: 100.5"],
    ["an empty Age", cc("max-age=60"), "Age:"],
    ["an Age in quotes", cc("max-age=60"), 'Age: "100"'],
    ["of two the first", cc("max-age=60"), "Age: 1, 100"],
  ]),
  ageIs(AGE, "a hit tells its age", [LONG], "0"),
  ageIs(AGE, "a hit tells the age that it came with", [LONG, "Age: 30"], "30"),
  ageIs(AGE, "a hit tells the age by its Date", [LONG, "Date: {date:-3000}"], "3000"),
  ageIs(AGE, "the Age when it is larger than by Date", [LONG, "Date: {date:-30}", "Age: 5000"], "5000"),
  {
    rule: AGE,
    name: "the time that the answer took counts",
    origin: [{ lines: [LONG, "Age: 30"], delayMs: 1050 }],
    steps: ["origin", { is: "hit", has: ["Age: 31"] }],
  },
  {
    rule: AGE,
    name: "a hit keeps its Date and Expires",
    origin: [
      [
        LONG,
        "Date: Sun, 06 Nov 1994 08:49:37 GMT",
        "Expires: Fri, 01 Jan 2100 00:00:00 GMT",
        "Cache-Control: max-age=2000000000",
      ],
    ],
    steps: [
      "origin",
      { has: ["Date: Sun, 06 Nov 1994 08:49:37 GMT", "Expires: Fri, 01 Jan 2100 00:00:00 GMT"] },
    ],
  },
];

const guesses: Case[] = [
  ...rows(GUESS, "hit", [
    ["10 % of the time since Last-Modified", "Last-Modified: {date:-1000}"],
    ["Last-Modified of RFC 850", "Last-Modified: Sunday, 06-Nov-94 08:49:37 GMT"],
    ["with public", cc("public"), "Last-Modified: {date:-1000}"],
    ["with unknown directives", cc("foo, bar=1"), "Last-Modified: {date:-1000}"],
  ]),
  ...rows(GUESS, "origin", [
    ["older than that", "Last-Modified: {date:-1000}", "Age: 101"],
    ["never for more than a day", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "Age: 86401"],
    ["Last-Modified now", `Last-Modified: ${NOW}`, `Date: ${NOW}`],
    ["Last-Modified in the future", "Last-Modified: {date:1000}"],
    ["a malformed Last-Modified", "Last-Modified: long ago"],
    ["not with no-cache", cc("no-cache"), "Last-Modified: {date:-1000}"],
    ["not with a malformed Expires", "Expires: 0", "Last-Modified: {date:-1000}"],
    ["not with a malformed max-age", cc("max-age=x"), "Last-Modified: {date:-1000}"],
  ]),
];

export const FRESHNESS: readonly Case[] = [...fresh, ...notFresh, ...ages, ...guesses];
