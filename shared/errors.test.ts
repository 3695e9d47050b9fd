import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { explain, Failure, isFailure, UsageError } from "./errors.ts";

function thrown(call: () => unknown): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  return assert.fail("nothing was thrown");
}
const systemError = (code: string, syscall?: string) =>
  Object.assign(new Error(`${syscall} ${code}: as Node says it`), {
    code,
    ...(syscall ? { syscall } : { errors: [] }),
  });

test("an error and its causes, in one line", () => {
  assert.equal(explain(new Failure("cannot do it")), "cannot do it");
  const cause = new UsageError("the middle", { cause: systemError("ENOENT", "open") });
  assert.equal(
    explain(new Failure("cannot do it", { cause })),
    "cannot do it: the middle: no such file or directory (ENOENT)",
  );
  assert.equal(explain(new Failure("cannot do it", { cause: "a text" })), "cannot do it: a text");
  assert.equal(explain("a text"), "a text");
  assert.equal(explain(undefined), "undefined");
});

test("what the system says, in words that say what to do; by the call that failed where it matters", () => {
  const missing = thrown(() => readFileSync("/nowhere/at/all"));
  assert.equal(explain(missing), "no such file or directory (ENOENT)");
  assert.match(
    explain(systemError("EACCES", "bind")),
    /^permission denied \(EACCES\); ports below 1024 .* --port$/,
  );
  assert.match(explain(systemError("EACCES", "listen")), /--port$/);
  assert.equal(explain(systemError("EACCES", "open")), "permission denied (EACCES)");
  assert.match(explain(systemError("ENOSPC", "watch")), /fs\.inotify\.max_user_watches$/);
  assert.equal(explain(systemError("ENOSPC", "write")), "the disk is full (ENOSPC)");
  assert.equal(explain(systemError("EXDEV", "rename")), "rename EXDEV: as Node says it");
  // Several addresses were tried (AggregateError): there is a code, but no call.
  assert.match(explain(systemError("ECONNREFUSED")), /^connection refused \(ECONNREFUSED\)/);
});

test("the world's faults are failures, bugs are not", () => {
  for (const failure of [
    new Failure(""),
    new UsageError(""),
    systemError("EPIPE", "write"),
    systemError("ECONNREFUSED"),
  ]) {
    assert.ok(isFailure(failure));
  }
  const badArgument = thrown(() => Buffer.alloc(-1)); // it has a code, but the system had no part in it
  for (const bug of [
    new Error(""),
    new TypeError(""),
    badArgument,
    "a text",
    undefined,
    null,
    { code: "EPIPE", syscall: "write" },
  ]) {
    assert.ok(!isFailure(bug));
  }
});
