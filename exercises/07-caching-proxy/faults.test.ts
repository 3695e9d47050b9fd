/** The proxy among faulty neighbours: origins that die, stall and babble, clients that leave and stall, and many at once. */
import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Connection } from "../../shared/connection.ts";
import { readResponse } from "../../shared/http.ts";
import { peakMebibytes } from "../../shared/measure.ts";
import { type Running, start, within } from "../../shared/testing.ts";
import {
  type Answer,
  ask,
  client,
  FRESH,
  how,
  pattern,
  readAnswer,
  requestFor,
  TestOrigin,
} from "./test-origin.ts";

const PROXY = "exercises/07-caching-proxy/proxy.ts";
const folder = mkdtempSync(join(tmpdir(), "netlab-proxy-faults-"));
const MEBIBYTE = 2 ** 20;
let origin: TestOrigin;
let proxy: Running;

before(async () => {
  origin = await TestOrigin.start();
  proxy = await start(PROXY, [
    "--port",
    0,
    "--cache-dir",
    folder,
    "--upstream-timeout",
    1,
    "--header-timeout",
    2,
  ]);
});
after(async () => {
  assert.equal(await proxy.stop(), 0, "and after all this it ends in order");
  await origin[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

/** A switch that tests turn: what waits for it goes on. */
function gate(): { open: () => void; opened: Promise<void> } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

describe("origins", () => {
  test("that die in mid-body: the client can tell, and nothing is stored", async () => {
    const half = pattern(50_000);
    for (const [name, head, body] of [
      ["length", "Content-Length: 100000", half],
      ["chunks", "Transfer-Encoding: chunked", Buffer.concat([Buffer.from("186a0\r\n"), half])],
      [
        "between-chunks",
        "Transfer-Encoding: chunked",
        Buffer.concat([Buffer.from("c350\r\n"), half, Buffer.from("\r\n")]),
      ],
    ] as const) {
      for (const isReset of [false, true]) {
        const url = origin.on(`/die-${name}-${isReset}`, async (connection) => {
          await connection.write(
            Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\n${FRESH}\r\n${head}\r\n\r\n`), body]),
          );
          if (isReset) connection.destroy();
          return false;
        });
        await assert.rejects(ask(proxy.port, url), name);
        await assert.rejects(ask(proxy.port, url), `${name}, again: the half was not stored`);
        assert.equal(origin.count(new URL(url).pathname), 2);
      }
    }
  });

  test("whose body ends by closing: passed on whole, and not stored, since it could be cut off", async () => {
    const url = origin.on("/close", async (connection) => {
      await connection.write(`HTTP/1.1 200 OK\r\n${FRESH}\r\n\r\nto the end`);
      return false;
    });
    for (let i = 0; i < 2; i++) assert.equal((await ask(proxy.port, url)).body.toString(), "to the end");
    assert.equal(origin.count("/close"), 2);
  });

  test("that never answer, or a byte a time: 504", async () => {
    const silent = origin.on("/silent", () => new Promise(() => {}));
    const slow = origin.on("/slow", async (connection) => {
      for (const byte of `HTTP/1.1 200 OK\r\nX-Long: ${"x".repeat(100_000)}`) {
        if (connection.closed) return false;
        await connection.write(byte);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      return false;
    });
    for (const answer of await Promise.all([ask(proxy.port, silent), ask(proxy.port, slow)])) {
      assert.equal(answer.status, 504);
      assert.match(answer.body.toString(), /504 Gateway Timeout/);
    }
  });

  test("that stop in mid-body: the client is cut off in time", async () => {
    const url = origin.on("/stall", async (connection) => {
      await connection.write(`HTTP/1.1 200 OK\r\n${FRESH}\r\nContent-Length: 10\r\n\r\n12345`);
      await connection.more(0);
      return false;
    });
    await within(assert.rejects(ask(proxy.port, url)), "the end of a stalled body", 5000);
  });

  test("that answer with garbage: 502", async () => {
    const garbage = [
      "garbage\r\n\r\n",
      "HTTP/2.0 200 OK\r\n\r\n",
      "HTTP/1.1 999999 OK\r\n\r\n",
      "HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
      "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
      "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
      `${"HTTP/1.1 102 Processing\r\n\r\n".repeat(100)}`,
      `HTTP/1.1 200 OK\r\nX: ${"x".repeat(70_000)}\r\n\r\n`,
      "\0\x01\x02\r\n\r\n",
      "",
    ];
    for (const [i, bytes] of garbage.entries()) {
      const url = origin.on(`/garbage${i}`, async (connection) => {
        await connection.write(Buffer.from(bytes, "latin1"));
        return false;
      });
      assert.equal((await ask(proxy.port, url)).status, 502, JSON.stringify(bytes.slice(0, 50)));
    }
    assert.match(origin.requests.at(-1)?.fields.get("Via") ?? "", /^1\.1 netlab-/);
  });

  test("that say more than the response: it is not the next one's", async () => {
    const url = origin.on("/more", (connection) =>
      connection.write(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
      ),
    );
    for (let i = 0; i < 5; i++) assert.equal((await ask(proxy.port, url)).body.toString(), "ok");
  });

  test("that break a chunk: cut off, not stored", async () => {
    const url = origin.on("/chunk", async (connection) => {
      await connection.write(
        `HTTP/1.1 200 OK\r\n${FRESH}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nxyz\r\n`,
      );
      return false;
    });
    for (let i = 0; i < 2; i++) await assert.rejects(ask(proxy.port, url));
    assert.equal(origin.count("/chunk"), 2);
  });
});

test("a response that breaks off while it is being confirmed for somebody else is asked for anew, by whoever wants a part or the head as well", async () => {
  const whole = pattern(1000);
  for (const [name, lines, method, expected] of [
    ["whole", [], "GET", [200, "1000", whole]],
    ["range", ["Range: bytes=10-19"], "GET", [200, "1000", whole]], // passed on as it comes
    ["head", [], "HEAD", [200, "1000", Buffer.alloc(0)]],
  ] as const) {
    const [asked, broken] = [gate(), gate()];
    const own = 'ETag: "1"\r\nCache-Control: no-cache\r\n';
    const url = origin.on(`/breaks-off-${name}`, async (connection, { fields }) => {
      if (fields.get("If-None-Match") !== undefined) {
        asked.open();
        await broken.opened;
        return connection.write(`HTTP/1.1 304 Not Modified\r\n${own}\r\n`);
      }
      const isFirst = origin.count(`/breaks-off-${name}`) === 1;
      const framing = isFirst
        ? "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        : "Content-Length: 1000\r\n\r\n";
      await connection.write(`HTTP/1.1 200 OK\r\n${own}${framing}`);
      if (!isFirst) return connection.write(whole);
      await asked.opened;
      return false;
    });
    const first = await client(proxy.port);
    await first.write(requestFor(url));
    await readResponse(first);
    const second = ask(proxy.port, url, lines, method);
    while ((await first.read().catch(() => undefined)) !== undefined); // until it is cut off
    broken.open();
    const { status, fields, body } = await second;
    assert.deepEqual([status, fields.get("Content-Length"), body], expected, name);
  }
});

describe("a hundred at once for one address", () => {
  /** Sends its first half, and the second when told. */
  function inHalves(path: string, body: Buffer, ...lines: string[]): { url: string; open: () => void } {
    const second = gate();
    const url = origin.on(path, async (connection) => {
      const half = body.length >> 1;
      const head = `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n${lines.join("\r\n")}\r\n\r\n`;
      await connection.write(Buffer.concat([Buffer.from(head), body.subarray(0, half)]));
      await second.opened;
      await connection.write(body.subarray(half));
    });
    return { url, open: second.open };
  }

  test("one request to the origin, and each has the first half before the second is there", async () => {
    const body = pattern(200_000);
    const { url, open } = inHalves("/hundred", body, FRESH);
    const clients = await Promise.all(Array.from({ length: 100 }, () => client(proxy.port)));
    await Promise.all(clients.map((connection) => connection.write(requestFor(url))));
    const statuses = await Promise.all(
      clients.map(async (connection) => {
        const head = await readResponse(connection);
        assert.ok((await connection.readExactly(100_000))?.equals(body.subarray(0, 100_000)));
        return how({ ...head, body, trailers: head?.fields } as Answer);
      }),
    );
    open();
    for (const connection of clients) {
      assert.ok((await connection.readExactly(100_000))?.equals(body.subarray(100_000)));
      await connection.close();
    }
    assert.equal(origin.count("/hundred"), 1);
    assert.deepEqual([...new Set(statuses)].sort(), ["fwd=uri-miss", "hit"].slice(0, new Set(statuses).size));
    assert.equal(how(await ask(proxy.port, url)), "hit");
  });

  test("that wait for the head: one request, and the others are told that they were collapsed", async () => {
    const begin = gate();
    const url = origin.on("/head", async (connection) => {
      await begin.opened;
      await connection.write(`HTTP/1.1 200 OK\r\n${FRESH}\r\nContent-Length: 2\r\n\r\nok`);
    });
    const clients = await Promise.all(Array.from({ length: 100 }, () => client(proxy.port)));
    await Promise.all(clients.map((connection) => connection.write(requestFor(url))));
    // The proxy has read all of them when it has answered one that came later.
    for (let i = 0; i < 3; i++) await ask(proxy.port, `http://127.0.0.1:${proxy.port}/`);
    begin.open();
    const answers = await Promise.all(clients.map((connection) => readAnswer(connection)));
    assert.equal(origin.count("/head"), 1);
    assert.ok(answers.every(({ body }) => body.toString() === "ok"));
    const collapsed = answers.filter(({ fields }) => fields.get("Cache-Status")?.includes("; collapsed"));
    assert.equal(collapsed.length, 99);
    for (const connection of clients) await connection.close();
  });

  test("whose origin dies: all are told at once, and it is not asked a hundred times", async () => {
    const end = gate();
    const url = origin.on("/doomed", async () => {
      await end.opened;
      return false;
    });
    const clients = await Promise.all(Array.from({ length: 100 }, () => client(proxy.port)));
    await Promise.all(clients.map((connection) => connection.write(requestFor(url))));
    for (let i = 0; i < 3; i++) await ask(proxy.port, `http://127.0.0.1:${proxy.port}/`);
    end.open();
    const answers = await Promise.all(clients.map((connection) => readAnswer(connection)));
    assert.deepEqual([...new Set(answers.map(({ status }) => status))], [502]);
    assert.ok(origin.count("/doomed") <= 2, `asked ${origin.count("/doomed")} times`);
    for (const connection of clients) await connection.close();
  });

  test("what may not be shared is asked for by each", async () => {
    const begin = gate();
    const url = origin.on("/private", async (connection) => {
      await begin.opened;
      await connection.write("HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 2\r\n\r\nok");
    });
    const asking = Array.from({ length: 10 }, () => ask(proxy.port, url));
    while (origin.count("/private") === 0) await new Promise((resolve) => setImmediate(resolve));
    begin.open();
    for (const answer of await Promise.all(asking)) assert.equal(answer.body.toString(), "ok");
    assert.equal(origin.count("/private"), 10);
  });

  test("when the first one leaves, the others get theirs, and it is stored", async () => {
    const body = pattern(3 * MEBIBYTE);
    const { url, open } = inHalves("/leaver", body, FRESH);
    const first = await client(proxy.port);
    await first.write(requestFor(url));
    assert.equal((await readResponse(first))?.status, 200);
    const others = [ask(proxy.port, url), ask(proxy.port, url)];
    first.destroy();
    open();
    for (const answer of await Promise.all(others)) assert.ok(answer.body.equals(body));
    assert.equal(origin.count("/leaver"), 1);
    assert.ok((await ask(proxy.port, url)).body.equals(body));
  });

  test("when the origin dies, all are cut off, and the next one asks again", async () => {
    const begin = gate();
    const url = origin.on("/dies", async (connection) => {
      await connection.write(`HTTP/1.1 200 OK\r\n${FRESH}\r\nContent-Length: 100\r\n\r\nabc`);
      await begin.opened;
      return false;
    });
    const asking = Array.from({ length: 20 }, () => assert.rejects(ask(proxy.port, url)));
    while (origin.count("/dies") === 0) await new Promise((resolve) => setImmediate(resolve));
    begin.open();
    await Promise.all(asking);
    origin.serves("/dies", "alive", FRESH);
    assert.equal((await ask(proxy.port, url)).body.toString(), "alive");
  });
});

describe("clients", () => {
  /** Asks and then reads nothing. */
  async function staller(url: string): Promise<Connection> {
    const connection = await client(proxy.port);
    await connection.write(requestFor(url));
    await connection.more();
    return connection;
  }

  test("that stall hold up nobody else, and cost no memory", {
    skip: process.platform === "linux" ? false : "looks into /proc",
  }, async () => {
    const body = pattern(30 * MEBIBYTE);
    const url = origin.serves("/stalled", body, FRESH);
    const stallers = await Promise.all(Array.from({ length: 20 }, () => staller(url)));
    assert.ok((await ask(proxy.port, url)).body.equals(body));
    const peakKb = peakMebibytes(proxy.child.pid) * 1024;
    assert.ok(peakKb < 300_000, `peak memory ${peakKb} kB`);
    for (const connection of stallers) connection.destroy();
  });

  test("that stall on what is not stored hold up the origin, not the memory", async () => {
    let writtenBytes = 0;
    const piece = pattern(MEBIBYTE);
    const url = origin.on("/firehose", async (connection) => {
      await connection.write(
        "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n",
      );
      connection.timeoutMs = 300; // nobody takes any more
      for (let i = 0; i < 200; i++) {
        await connection.write(Buffer.concat([Buffer.from("100000\r\n"), piece, Buffer.from("\r\n")]));
        writtenBytes += MEBIBYTE;
      }
    });
    const connection = await staller(url);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    assert.ok(writtenBytes < 50 * MEBIBYTE, `${writtenBytes} bytes went into it`);
    connection.destroy();
  });

  test("that leave while an endless answer comes: the origin is let go", async () => {
    const gone = gate();
    const url = origin.on("/endless", async (connection) => {
      await connection.write(
        "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n",
      );
      try {
        for (;;) {
          await connection.write("5\r\nabcde\r\n");
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
      } catch {
        gone.open();
      }
      return false;
    });
    const connection = await staller(url);
    connection.destroy();
    await within(gone.opened, "the end of the connection to the origin");
  });

  test("that send half a request, and a body that breaks off", async () => {
    const url = origin.serves("/half", "x");
    const before = origin.count("/half");
    await using half = await client(proxy.port);
    await half.write(`GET ${url} HTTP/1.1\r\nHost:`);
    assert.equal((await readAnswer(half)).status, 408);
    const broken = await client(proxy.port);
    await broken.write(`${requestFor(url, ["Content-Length: 10"], "POST")}12345`);
    broken.end();
    await broken.read().catch(() => {});
    broken.destroy();
    await using garbled = await client(proxy.port);
    await garbled.write(`${requestFor(url, ["Transfer-Encoding: chunked"], "POST")}xyz\r\n`);
    assert.equal((await readAnswer(garbled)).status, 400);
    assert.equal(origin.count("/half"), before, "the origin has seen no whole request");
    assert.equal((await ask(proxy.port, url)).body.toString(), "x");
  });

  test("500 at once, beside 500 who say nothing", async () => {
    const url = origin.serves("/many", pattern(1000), FRESH);
    await ask(proxy.port, url);
    const idle = await Promise.all(Array.from({ length: 500 }, () => client(proxy.port)));
    const answers = await Promise.all(Array.from({ length: 500 }, () => ask(proxy.port, url)));
    assert.ok(answers.every((answer) => answer.body.equals(pattern(1000)) && how(answer) === "hit"));
    for (const connection of idle) connection.destroy();
  });
});
