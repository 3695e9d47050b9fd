/** What RFC 9111 and its neighbours ask of a shared cache, requirement by requirement. */
import type { Case } from "./conformance.ts";
import { CHANGING } from "./conformance-changing.ts";
import { FRESHNESS } from "./conformance-freshness.ts";
import { STORING } from "./conformance-storing.ts";
import { USING } from "./conformance-using.ts";

export const CASES: readonly Case[] = [...FRESHNESS, ...STORING, ...USING, ...CHANGING];
