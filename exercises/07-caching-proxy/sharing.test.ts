/** What one client must never get of another's, and what nobody may make others get. */
import { strict as assert } from "node:assert";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { becomes, type Running, run, start, within } from "../../shared/testing.ts";
import { ask, client, FRESH, how, readAnswer, requestFor, TestOrigin } from "./test-origin.ts";

const PROXY = "exercises/07-caching-proxy/proxy.ts";
const folder = mkdtempSync(join(tmpdir(), "netlab-proxy-sharing-"));
const log = join(folder, "access.log");
let origin: TestOrigin;
let proxy: Running;

before(async () => {
  origin = await TestOrigin.start();
  const cacheDir = join(folder, "cache");
  proxy = await start(PROXY, ["--port", 0, "--cache-dir", cacheDir, "--forwarded-for", "--access-log", log]);
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
    assert.equal(
      (await ask(proxy.port, url, ["Content-Length: 6"], "GET", "poison")).body.toString(),
      "poison",
    );
    const next = await ask(proxy.port, url);
    assert.deepEqual([next.body.toString(), how(next)], ["", "fwd=uri-miss"]);
    await ask(proxy.port, url, ["Content-Length: 6"], "GET", "poison");
    assert.equal(how(await ask(proxy.port, url)), "hit");
  });

  test("a field that Connection names does not reach the origin, so its answer is stored for none that has it", async () => {
    const url = origin.on("/language", (connection, { fields }) => {
      const body = fields.get("Accept-Language") ?? "default";
      return connection.write(
        `HTTP/1.1 200 OK\r\n${FRESH}\r\nVary: Accept-Language\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
    });
    await ask(proxy.port, url, ["Accept-Language: de", "Connection: Accept-Language"]);
    assert.equal((await ask(proxy.port, url, ["Accept-Language: de"])).body.toString(), "de");
    assert.equal((await ask(proxy.port, url)).body.toString(), "default");
  });

  test("nobody hides the client's address by naming X-Forwarded-For in Connection", async () => {
    await ask(proxy.port, origin.serves("/whose", "x"), ["Connection: X-Forwarded-For"]);
    assert.equal(origin.requests.at(-1)?.fields.get("X-Forwarded-For"), "127.0.0.1");
  });
});

describe("what a confirmation brings", () => {
  /** Stored for all, then confirmed with these lines; then the origin fails. Gives the second and the third answer. */
  async function confirmed(path: string, lines: string[], request: string[] = [], method = "GET") {
    let count = 0;
    const url = origin.on(path, (connection) => {
      count++;
      if (count === 1)
        return connection.write(
          'HTTP/1.1 200 OK\r\nCache-Control: max-age=0\r\nETag: "a"\r\nContent-Length: 1\r\n\r\nx',
        );
      const start = method === "HEAD" ? "200 OK\r\nContent-Length: 1" : "304 Not Modified";
      if (count === 2) return connection.write(`HTTP/1.1 ${start}\r\n${lines.join("\r\n")}\r\n\r\n`);
      return Promise.resolve(false);
    });
    await ask(proxy.port, url);
    const second = await ask(proxy.port, url, request, method);
    return [second, await ask(proxy.port, url, ["Cache-Control: max-stale"])] as const;
  }
  const SECRET = "Set-Cookie: user=ana";

  for (const [name, lines, request, method] of [
    ["private", ["Cache-Control: private, max-age=60", SECRET], [], "GET"],
    ["no-store", ["Cache-Control: no-store", SECRET], [], "GET"],
    ["Vary star", ["Vary: *", SECRET], [], "GET"],
    ["to a request with Authorization", [SECRET], ["Authorization: Basic YTpi"], "GET"],
    ["private, to a HEAD", ["Cache-Control: private, max-age=60", SECRET], [], "HEAD"],
  ] as const)
    test(`${name}: for this client alone`, async () => {
      const path = `/confirmed-${name.replaceAll(/\W/g, "-")}`;
      const [second, third] = await confirmed(path, [...lines], [...request], method);
      assert.deepEqual([second.status, second.fields.get("Set-Cookie")], [200, "user=ana"]);
      if (method === "GET") assert.equal(second.body.toString(), "x");
      assert.deepEqual([third.status, third.fields.get("Set-Cookie")], [502, undefined]);
    });

  test("a Vary that was not there before: the next with another value asks for itself", async () => {
    const lines = ["Vary: X-Who", "Cache-Control: max-age=60"];
    const [second, third] = await confirmed("/confirmed-vary", lines, ["X-Who: ana"]);
    assert.deepEqual([second.status, third.status], [200, 502]);
    const url = origin.url("/confirmed-vary");
    assert.equal(how(await ask(proxy.port, url, ["X-Who: ana"])), "hit");
  });
});

describe("a cookie that nobody said is for all", () => {
  const LAST_WEEK = `Last-Modified: ${new Date(Date.now() - 7 * 86_400_000).toUTCString()}`;
  for (const [name, ...lines] of [
    ["with freshness that would be guessed", LAST_WEEK],
    ["with no-cache", "Cache-Control: no-cache", 'ETag: "a"'],
    ["with max-age=0", "Cache-Control: max-age=0", 'ETag: "a"'],
  ] as const)
    test(`${name}: not stored`, async () => {
      const path = `/cookie-${name.replaceAll(/\W/g, "-")}`;
      const url = origin.serves(path, "x", "Set-Cookie: user=ana", ...lines);
      for (let i = 0; i < 2; i++) assert.equal(how(await ask(proxy.port, url)), "fwd=uri-miss");
    });
});

test("a string that is not closed hides no directive", async () => {
  const url = origin.serves("/unclosed", "x", 'Cache-Control: max-age=60, x="a, private');
  for (let i = 0; i < 2; i++) assert.equal(how(await ask(proxy.port, url)), "fwd=uri-miss");
});

test("a trailer cannot be what changes the message behind its end", async () => {
  const url = origin.on("/trailers", (connection) =>
    connection.write(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nContent-Length: 5\r\nX-Sum: 1\r\n\r\n",
    ),
  );
  const { trailers } = await ask(proxy.port, url);
  assert.deepEqual([trailers.get("Content-Length"), trailers.get("X-Sum")], [undefined, "1"]);
});

test("what is no request is logged as itself, not as the one before it", async () => {
  const url = origin.serves("/logged", "x", FRESH);
  await using connection = await client(proxy.port);
  await connection.write(`${requestFor(url, [], "HEAD")}nonsense\r\n\r\n`);
  assert.equal((await readAnswer(connection, "HEAD")).status, 200);
  const refused = await readAnswer(connection);
  assert.equal(refused.status, 400);
  assert.match(refused.body.toString(), /malformed request line/);
  const lines = () => readFileSync(log, "utf8");
  await becomes(() => / 400 \d+ /.test(lines()), "the line of the refused one");
  assert.equal(lines().match(/\/logged HTTP/g)?.length, 1);
});

test(
  "a folder in the temporary directory that others can write to is not used",
  process.getuid === undefined ? { skip: "no users here" } : {},
  async () => {
    const tmp = join(folder, "tmp");
    const port = origin.port; // not free, and not reached
    const planted = join(tmp, `netlab-cache-${process.getuid?.()}-${port}`);
    mkdirSync(planted, { recursive: true });
    chmodSync(planted, 0o777);
    const { code, stderr } = await run(PROXY, ["--port", port], { env: { ...process.env, TMPDIR: tmp } });
    assert.equal(code, 1);
    assert.match(stderr, /others can write to it/);
  },
);

test("a head full of directives costs no more than another: the next client does not wait", async () => {
  const url = origin.serves("/many-directives", "x", FRESH);
  const many = `Cache-Control: ${"a,".repeat(30_000)}`;
  const asking = Promise.all([1, 2, 3].map(() => ask(proxy.port, url, [many])));
  const answers = await within(asking, "three answers, of which each once took 20 s", 15_000);
  assert.ok(answers.every(({ status }) => status === 200));
});

test("a 204 announces no content, whatever the origin says", async () => {
  const url = origin.on("/204", (connection) =>
    connection.write(`HTTP/1.1 204 No Content\r\n${FRESH}\r\nContent-Length: 5\r\n\r\n`),
  );
  for (const expected of ["fwd=uri-miss", "hit"]) {
    const answer = await ask(proxy.port, url);
    assert.deepEqual([how(answer), answer.fields.get("Content-Length")], [expected, undefined]);
  }
});
