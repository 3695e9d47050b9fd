/** The proxy put to the conformance suite. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Running, start } from "../../shared/testing.ts";
import { type Origin, runCase, startOrigin } from "./conformance.ts";
import { CASES } from "./conformance-cases.ts";

const folder = mkdtempSync(join(tmpdir(), "netlab-cache-conformance-"));
let origin: Origin;
let proxy: Running;

before(async () => {
  origin = await startOrigin();
  proxy = await start("exercises/07-caching-proxy/proxy.ts", ["--port", 0, "--cache-dir", folder]);
});
after(async () => {
  await proxy[Symbol.asyncDispose]();
  await origin[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

for (const rule of new Set(CASES.map((one) => one.rule))) {
  describe(rule, () => {
    for (const one of CASES.filter((other) => other.rule === rule))
      test(one.name, () => runCase(one, origin, proxy.port));
  });
}
