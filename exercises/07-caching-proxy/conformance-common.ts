/** What the tables of cases share. */
import type { Case, Lines, OriginAnswer } from "./conformance.ts";

export const FRESH = "Cache-Control: max-age=60";
/** Stale already when it comes. */
export const STALE: Lines = ["Cache-Control: max-age=60", "Age: 100"];
export const TAG = 'ETag: "v"';
export const stale = (directives: string, ...more: string[]): Lines => [
  `Cache-Control: max-age=60, ${directives}`,
  "Age: 100",
  ...more,
];

export const one = (rule: string, name: string, origin: Case["origin"], steps: Case["steps"]): Case => ({
  rule,
  name,
  origin,
  steps,
});
/** The second of two requests is answered from the cache, or not. */
export const twice = (
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
export const MODIFIED = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
export const OLD_TAG = [...STALE, TAG];
