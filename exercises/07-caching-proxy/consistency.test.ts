/** Many clients on objects that change, break off, are evicted and validated: whatever comes, it is what the origin said, and whole. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { randomOf } from "../../shared/random.ts";
import { start } from "../../shared/testing.ts";
import { type Answer, ask, client, pattern, requestFor, TestOrigin } from "./test-origin.ts";

const OBJECTS = 30;
const CLIENTS = 12;
const ROUNDS = 40;
const SIZES = [10, 1000, 70_000, 300_000, 900_000];
const DIRECTIVES = [
  "max-age=600",
  "max-age=0",
  "no-store",
  "no-cache",
  "max-age=0, stale-while-revalidate=60",
];
const sizeOf = (i: number) => SIZES[i % SIZES.length] ?? 0;

/** A number below so many. */
function diceOf(seed: number): (below: number) => number {
  const random = randomOf(seed);
  return (below) => Math.floor(random() * below);
}

/** Serves object `i` in its present version, some in chunks, and of those some not to their end. */
function serveObject(
  origin: TestOrigin,
  versions: number[],
  i: number,
  dice: (below: number) => number,
): void {
  origin.on(`/o${i}`, async (connection, { fields }) => {
    const version = versions[i] ?? 0;
    const own = `X-Version: ${version}\r\nETag: "${version}"\r\nCache-Control: ${DIRECTIVES[i % DIRECTIVES.length]}\r\n`;
    if (fields.get("If-None-Match") === `"${version}"`)
      return connection.write(`HTTP/1.1 304 Not Modified\r\n${own}\r\n`);
    const body = pattern(sizeOf(i), i * 1000 + version);
    if (i % 3 > 0) {
      const head = `HTTP/1.1 200 OK\r\n${own}Content-Length: ${body.length}\r\n\r\n`;
      return connection.write(Buffer.concat([Buffer.from(head), body]));
    }
    await connection.write(`HTTP/1.1 200 OK\r\n${own}Transfer-Encoding: chunked\r\n\r\n`);
    for (let at = 0; at < body.length; at += 40_000) {
      if (dice(40) === 0) return false;
      const piece = body.subarray(at, at + 40_000);
      await connection.write(
        Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from("\r\n")]),
      );
    }
    return connection.write("0\r\n\r\n");
  });
}

test("what is answered is some version of the object, byte for byte, or the part of it that was asked for", async (t) => {
  const seed = 20261121;
  t.diagnostic(`seed ${seed}`);
  const dice = diceOf(seed);
  await using origin = await TestOrigin.start();
  await using proxy = await start("exercises/07-caching-proxy/proxy.ts", [
    "--port",
    0,
    "--cache-size",
    "3MiB",
    "--memory",
    "300KiB",
  ]);
  const versions = Array.from({ length: OBJECTS }, () => 0);
  for (const i of versions.keys()) serveObject(origin, versions, i, dice);
  let whole = 0;
  let cut = 0;
  const statuses = new Set<string>();
  const visit = async () => {
    const i = dice(OBJECTS);
    if (dice(20) === 0) versions[i] = (versions[i] ?? 0) + 1;
    const url = origin.url(`/o${i}`);
    if (dice(25) === 0) {
      const leaver = await client(proxy.port);
      await leaver.write(requestFor(url));
      await leaver.read().catch(() => {});
      return leaver.destroy();
    }
    const first = dice(sizeOf(i));
    const last = first + dice(5000);
    const answer = await ask(proxy.port, url, dice(4) === 0 ? [`Range: bytes=${first}-${last}`] : []).catch(
      () => undefined,
    );
    if (answer === undefined) return void cut++;
    checkAnswer(answer, i, first, last);
    statuses.add(`${answer.status} ${answer.fields.get("Cache-Status")?.split(";")[1]}`);
    whole++;
  };
  const work = async () => {
    for (let round = 0; round < ROUNDS; round++) await visit();
  };
  await Promise.all(Array.from({ length: CLIENTS }, work));
  assert.ok(whole > 0.7 * CLIENTS * ROUNDS && cut > 0, `${whole} whole, ${cut} cut off`);
  for (const how of ["200  hit", "200  fwd=uri-miss", "200  fwd=stale", "206  hit"])
    assert.ok(statuses.has(how), how);
  assert.doesNotMatch(proxy.stderr, /damaged/);
  assert.equal(await proxy.stop(), 0);
});

function checkAnswer(answer: Answer, i: number, first: number, last: number): void {
  if (answer.status === 502) return;
  const body = pattern(sizeOf(i), i * 1000 + Number(answer.fields.get("X-Version")));
  const expected = answer.status === 206 ? body.subarray(first, last + 1) : body;
  assert.ok(answer.body.equals(expected), `/o${i}: ${answer.status} ${answer.fields}`);
}
