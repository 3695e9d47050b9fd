/** Texts of peers that would command a terminal. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { printable } from "./printable.ts";

test("nothing printable moves the cursor, turns the direction or ends the line", () => {
  assert.equal(printable("a\x1b[31m\r\n\x9b\u202e\u2028é"), "a?[31m?????é");
});
