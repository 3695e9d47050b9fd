/** What one client must never get of another's, and what nobody may make others get. */
import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Running, start } from "../../shared/testing.ts";
import { ask, FRESH, how, TestOrigin } from "./test-origin.ts";

const PROXY = "exercises/07-caching-proxy/proxy.ts";
const folder = mkdtempSync(join(tmpdir(), "netlab-proxy-sharing-"));
let origin: TestOrigin;
let proxy: Running;

before(async () => {
  origin = await TestOrigin.start();
  const cacheDir = join(folder, "cache");
  proxy = await start(PROXY, ["--port", 0, "--cache-dir", cacheDir, "--forwarded-for"]);
});
after(async () => {
  await proxy[Symbol.asyncDispose]();
  await origin[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

describe("what a client puts into its request", () => {
  test("the answer to a GET with a body is for that body only", async () => {
    const url = origin.on("/fat", (connection, { body }) =>
      connection.write(`HTTP/1.1 200 OK\r\n${FRESH}\r\nContent-Length: ${body.length}\r\n\r\n${body}`),
    );
    assert.equal((await ask(proxy.port, url, ["Content-Length: 6"], "GET", "poison")).body.toString(), "poison");
    const next = await ask(proxy.port, url);
    assert.deepEqual([next.body.toString(), how(next)], ["", "fwd=uri-miss"]);
    await ask(proxy.port, url, ["Content-Length: 6"], "GET", "poison");
    assert.equal(how(await ask(proxy.port, url)), "hit");
  });
});
