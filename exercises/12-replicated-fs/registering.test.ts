/** A replica that registers, at a master that is made up. */
import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { decode, encode } from "../../shared/pdu.ts";
import { serve } from "../../shared/tcp.ts";
import { start } from "../../shared/testing.ts";
import { admit, dial, nextFrame } from "./link.ts";
import { HERE } from "./local-cluster.ts";
import { frame, NOTHING, Registration, Result } from "./protocol.ts";

test("who calls a replica before it has its number waits, and is answered", async () => {
  const folder = mkdtempSync(join(tmpdir(), "netlab-registering-"));
  const over = new AbortController();
  let caller: Promise<number> | undefined;
  const options = { host: "127.0.0.1", port: 0, signal: over.signal, log: () => {} };
  const master = await serve(options, async (connection) => {
    await admit(connection, NOTHING, 1, Buffer.alloc(16, 1));
    const { data } = await nextFrame(connection);
    const { host, port } = decode(Registration, data);
    caller ??= dial({ host, port, secret: NOTHING, id: 0, timeoutMs: 60_000 }).then(({ id, connection }) => {
      connection.destroy();
      return id;
    });
    await Promise.race([caller, delay(300)]).catch(() => {}); // refused, it would have been by now
    await connection.write(frame(1, "result", "", encode(Result, { outcome: "done", text: "2" })));
  });
  const args = ["--dir", join(folder, "dir"), "--master", `127.0.0.1:${master.port}`, "--port", 0];
  const replica = await start(`${HERE}/replica.ts`, args);
  assert.equal(await caller, 2);
  await replica[Symbol.asyncDispose]();
  over.abort();
  await master.closed;
  rmSync(folder, { recursive: true });
});
