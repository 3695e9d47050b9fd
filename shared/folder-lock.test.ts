import { strict as assert } from "node:assert";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
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
    assert.equal(readFileSync(path, "utf8"), String(process.pid));
  }
  assert.deepEqual(readdirSync(folder), ["lock"], "nothing is left beside it");
  writeFileSync(path, String(process.ppid));
  unlock(folder);
  assert.ok(existsSync(path), "another's is not given back");
  rmSync(folder, { recursive: true });
});

test("a dead one's lock is not taken while another takes it over", () => {
  const folder = mkdtempSync(join(tmpdir(), "netlab-lock-"));
  const path = join(folder, "lock");
  writeFileSync(path, "999999999");
  const claim = `${path}.of-${statSync(path, { bigint: true }).ino}`;
  writeFileSync(claim, String(process.ppid));
  assert.throws(() => lock(folder, "?"), new RegExp(`process ${process.ppid} uses it`));
  writeFileSync(claim, "999999999"); // that one has died meanwhile, too
  lock(folder, "?");
  assert.deepEqual(readdirSync(folder), ["lock"]);
  rmSync(folder, { recursive: true });
});
