import { strict as assert } from "node:assert";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { lock, unlock } from "./folder-lock.ts";

test("one process a folder: a living one's lock is respected, a dead one's or a torn one is not", () => {
  const folder = mkdtempSync(join(tmpdir(), "netlab-lock-"));
  const path = join(folder, "lock");
  lock(folder, "?");
  lock(folder, "?"); // it is our own
  unlock(folder);
  assert.ok(!existsSync(path));
  writeFileSync(path, String(process.ppid));
  assert.throws(
    () => lock(folder, "take another"),
    /^Failure: process \d+ uses it; take another, or remove /,
  );
  for (const stale of ["999999999", "", "-1", "x"]) {
    writeFileSync(path, stale);
    lock(folder, "?");
  }
  rmSync(folder, { recursive: true });
});
