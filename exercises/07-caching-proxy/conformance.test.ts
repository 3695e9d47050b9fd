/** The proxy put to the conformance suite. */
import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { requestReader } from "../../shared/http.ts";
import { connect, serve } from "../../shared/tcp.ts";
import { type Running, start } from "../../shared/testing.ts";
import { type Case, type Origin, runCase, startOrigin } from "./conformance.ts";
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

/** Keeps every answer for ever, by its address alone: what one might write in an hour. */
async function startNaiveCache(signal: AbortSignal): Promise<number> {
  const stored = new Map<string, Buffer>();
  const server = await serve({ host: "127.0.0.1", port: 0, signal, log: () => {} }, async (connection) => {
    const reader = requestReader(connection);
    for (let head = await reader.next(); head !== undefined; head = await reader.next()) {
      const { host, port, pathname, search } = new URL(head.target);
      if (!stored.has(head.target)) {
        await using origin = await connect({
          host: host.split(":")[0] ?? "",
          port: Number(port),
          timeoutMs: 2000,
        });
        await origin.write(`GET ${pathname}${search} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
        const answer = await origin.read();
        if (answer === undefined) return;
        stored.set(head.target, answer);
      }
      await connection.write(stored.get(head.target) ?? "");
    }
  });
  return server.port;
}

const isPlain = ({ origin, steps, rule }: Case) =>
  /RFC 9111/.test(rule) &&
  origin.length === 1 &&
  steps.length === 2 &&
  steps.every((step) => typeof step === "string" || step.method === undefined);

test("a naive cache does not pass: the suite can fail", async () => {
  const stop = new AbortController();
  const port = await startNaiveCache(stop.signal);
  const failed = new Set<string>();
  // One of each rule that needs no more than a GET to be broken.
  for (const one of CASES.filter(isPlain))
    await runCase(one, origin, port, 1000).catch(() => failed.add(`${one.rule}: ${one.name}`));
  for (const name of [
    "§3: storing: no-store",
    "§4.2.1: freshness lifetime: max-age=0",
    "§4.2.3: age: older than max-age",
  ])
    assert.ok(failed.has(`RFC 9111 ${name}`), name);
  assert.ok(failed.size > 60, `${failed.size} failed`);
  stop.abort();
});
