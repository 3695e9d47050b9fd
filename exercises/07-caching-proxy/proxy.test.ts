/** The proxy on the wire: what it is asked, what it passes on, what it refuses. */
import { strict as assert } from "node:assert";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { encodeChunk, encodeLastChunk } from "../../shared/http-body.ts";
import { serve } from "../../shared/tcp.ts";
import { becomes, type Running, run, start } from "../../shared/testing.ts";
import { ask, client, FRESH, how, pattern, readAnswer, requestFor, TestOrigin } from "./test-origin.ts";

const PROXY = "exercises/07-caching-proxy/proxy.ts";
const folder = mkdtempSync(join(tmpdir(), "netlab-proxy-"));
const log = join(folder, "access.log");
let origin: TestOrigin;
let proxy: Running;

before(async () => {
  origin = await TestOrigin.start();
  const tunnelPorts = `443, ${origin.port}`;
  proxy = await start(PROXY, [
    "--port",
    0,
    "--cache-dir",
    join(folder, "cache"),
    "--access-log",
    log,
    "--connect-ports",
    tunnelPorts,
  ]);
});
after(async () => {
  await proxy[Symbol.asyncDispose]();
  await origin[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

describe("targets", () => {
  test("an absolute target goes on in origin form, its authority as Host", async () => {
    origin.serves("/a?b=c", "x");
    await ask(proxy.port, origin.url("/a?b=c#d"), ["Host: elsewhere"].slice(1));
    const got = origin.requests.at(-1);
    assert.deepEqual(
      [got?.method, got?.target, got?.fields.get("Host")],
      ["GET", "/a?b=c", `127.0.0.1:${origin.port}`],
    );
    await using connection = await client(proxy.port);
    await connection.write(`GET ${origin.url("")} HTTP/1.1\r\nHost: elsewhere\r\n\r\n`);
    await readAnswer(connection);
    assert.deepEqual(
      [origin.requests.at(-1)?.target, origin.requests.at(-1)?.fields.all("Host")],
      ["/", [`127.0.0.1:${origin.port}`]],
    );
  });

  test("the same address in other spellings is the same object", async () => {
    origin.serves("/same", "x", FRESH);
    await ask(proxy.port, origin.url("/same"));
    assert.equal(how(await ask(proxy.port, origin.url("/same").replace("http:", "HTTP:"))), "hit");
  });

  test("its own page, and nothing else of its own", async () => {
    const page = await ask(
      proxy.port,
      `http://127.0.0.1:${proxy.port}/`.replace(/^http:..[^/]+/, "http://x"),
    ).catch(() => undefined);
    assert.notEqual(page?.status, 200);
    await using connection = await client(proxy.port);
    for (const [line, status] of [
      ["GET / HTTP/1.1", 200],
      ["HEAD / HTTP/1.1", 200],
      ["GET /x HTTP/1.1", 404],
      ["DELETE / HTTP/1.1", 405],
      ["OPTIONS * HTTP/1.1", 404],
    ] as const) {
      await connection.write(`${line}\r\nHost: proxy\r\n\r\n`);
      const answer = await readAnswer(connection, line.split(" ")[0]);
      assert.equal(answer.status, status, line);
      assert.match(answer.fields.get("Cache-Status") ?? "", /^netlab; /);
      if (line === "GET / HTTP/1.1") assert.match(answer.body.toString(), /hit ratio.*<form/s);
    }
  });

  test("what is no request to a proxy: 400", async () => {
    for (const line of [
      "GET https://127.0.0.1/ HTTP/1.1",
      "GET ftp://127.0.0.1/ HTTP/1.1",
      "GET x HTTP/1.1",
      "GET http://a:b@127.0.0.1/ HTTP/1.1",
      "GET http://127.0.0.1:0/ HTTP/1.1",
      "GET http://127.0.0.1:65536/ HTTP/1.1",
      "GET http:/// HTTP/1.1",
      "CONNECT /x HTTP/1.1",
      "CONNECT 127.0.0.1:0 HTTP/1.1",
      "nonsense",
    ]) {
      await using connection = await client(proxy.port);
      await connection.write(`${line}\r\nHost: a\r\n\r\n`);
      const answer = await readAnswer(connection);
      assert.equal(answer.status, 400, line);
      assert.match(answer.fields.get("Cache-Status") ?? "", /^netlab; /);
      assert.equal(await connection.read(), undefined, "and the connection is closed");
    }
  });

  test("what could be read in two ways is not passed on", async () => {
    const before = origin.requests.length;
    await using connection = await client(proxy.port);
    await connection.write(
      `POST ${origin.url("/x")} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    );
    assert.equal((await readAnswer(connection)).status, 400);
    assert.equal(origin.requests.length, before);
  });
});

describe("what is passed on", () => {
  test("any method with its body, by length and in chunks, and large ones both ways", async () => {
    for (const sizeBytes of [0, 1, 100_000, 3_000_000]) {
      const body = pattern(sizeBytes);
      origin.on("/echo", async (connection, request) => {
        await connection.write(
          `HTTP/1.1 200 OK\r\nX-Method: ${request.method}\r\nTransfer-Encoding: chunked\r\n\r\n`,
        );
        await connection.write(Buffer.concat([encodeChunk(request.body), Buffer.from(encodeLastChunk())]));
      });
      const chunked = Buffer.concat([encodeChunk(body), Buffer.from(encodeLastChunk())]);
      for (const [lines, sent] of [
        [[`Content-Length: ${sizeBytes}`], body],
        [["Transfer-Encoding: chunked"], chunked],
      ] as const) {
        for (const method of ["POST", "PUT", "FROB"]) {
          const answer = await ask(proxy.port, origin.url("/echo"), lines, method, sent);
          assert.deepEqual(
            [answer.status, answer.fields.get("X-Method"), answer.body.equals(body)],
            [200, method, true],
            `${method} ${sizeBytes}`,
          );
        }
      }
    }
  });

  test("Expect: 100-continue is the origin's to answer; another expectation is refused", async () => {
    origin.serves("/expect", "done");
    await using connection = await client(proxy.port);
    await connection.write(
      requestFor(origin.url("/expect"), ["Expect: 100-continue", "Content-Length: 4"], "POST"),
    );
    assert.equal(await connection.readLine(100), "HTTP/1.1 100 Continue");
    assert.equal(await connection.readLine(100), "");
    await connection.write("body");
    assert.equal((await readAnswer(connection)).body.toString(), "done");
    assert.equal(origin.requests.at(-1)?.body.toString(), "body");
    assert.equal((await ask(proxy.port, origin.url("/expect"), ["Expect: a-miracle"])).status, 417);
  });

  test("an answer before the body is all there ends the connection, not the proxy", async () => {
    origin.on("/early", async () => true);
    const refusing = new AbortController();
    const early = await serve(
      { host: "127.0.0.1", port: 0, signal: refusing.signal, log: () => {} },
      async (connection) => {
        await connection.readUntil(Buffer.from("\r\n\r\n"), 10_000, "a head");
        await connection.write("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
        await connection.more();
      },
    );
    await using connection = await client(proxy.port);
    await connection.write(
      requestFor(`http://127.0.0.1:${early.port}/`, ["Content-Length: 1000000"], "POST"),
    );
    const answer = await readAnswer(connection);
    assert.deepEqual([answer.status, answer.body.toString()], [413, "no"]);
    assert.equal(await connection.read(), undefined);
    refusing.abort();
    await early.closed;
  });

  test("X-Forwarded-For is as the client had it, unless asked for", async () => {
    origin.serves("/xff", "x");
    await ask(proxy.port, origin.url("/xff"));
    assert.equal(origin.requests.at(-1)?.fields.get("X-Forwarded-For"), undefined);
    await using other = await start(PROXY, ["--port", 0, "--forwarded-for"]);
    await ask(other.port, origin.url("/xff"), ["X-Forwarded-For: 10.1.2.3"]);
    assert.equal(origin.requests.at(-1)?.fields.get("X-Forwarded-For"), "10.1.2.3, 127.0.0.1");
  });

  test("an HTTP/1.0 client gets no chunks and no interim responses, and may keep its connection", async () => {
    origin.on("/chunks", (connection) =>
      connection.write(
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
      ),
    );
    await using connection = await client(proxy.port);
    await connection.write(`GET ${origin.url("/chunks")} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n`);
    const answer = await readAnswer(connection);
    assert.deepEqual(
      [answer.status, answer.body.toString(), answer.fields.get("Transfer-Encoding")],
      [200, "abc", undefined],
    );
    origin.serves("/ten", "x");
    await using keeping = await client(proxy.port);
    for (let i = 0; i < 3; i++) {
      await keeping.write(`GET ${origin.url("/ten")} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n`);
      assert.equal((await readAnswer(keeping)).fields.get("Connection"), "keep-alive");
    }
  });

  test("pipelined requests are answered in order, hits and misses mixed", async () => {
    const bodies = Array.from({ length: 40 }, (_, i) => `body ${i % 7}`);
    for (let i = 0; i < 7; i++) origin.serves(`/pipe${i}`, `body ${i}`, ...(i % 2 ? [FRESH] : []));
    await using connection = await client(proxy.port);
    await connection.write(bodies.map((_, i) => requestFor(origin.url(`/pipe${i % 7}`))).join(""));
    for (const body of bodies) assert.equal((await readAnswer(connection)).body.toString(), body);
  });

  test("split at every byte, on both sides", async () => {
    const response =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n4\r\nabcd\r\n3\r\nefg\r\n0\r\nX-T: 1\r\n\r\n";
    origin.on("/split", async (connection) => {
      for (const byte of response) {
        await connection.write(byte);
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
    await using connection = await client(proxy.port);
    for (const byte of requestFor(origin.url("/split"))) {
      await connection.write(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const answer = await readAnswer(connection);
    assert.deepEqual([answer.body.toString(), answer.trailers.get("X-T")], ["abcdefg", "1"]);
  });

  test("connections to the origin are used again; one that closed meanwhile is no error", async () => {
    origin.on("/again", async (connection, request) => {
      const body = String(request.connectionNumber);
      await connection.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
      return request.fields.get("X-Close") === undefined;
    });
    const ask1 = async (...lines: string[]) =>
      (await ask(proxy.port, origin.url("/again"), lines)).body.toString();
    const first = await ask1();
    assert.equal(await ask1(), first);
    for (let i = 0; i < 20; i++) await ask1("X-Close: 1");
    const seen = new Set<number>();
    origin.on("/once", async (connection, { connectionNumber }) => {
      if (seen.has(connectionNumber)) return false; // as if it had closed just before the request came
      seen.add(connectionNumber);
      return connection.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    for (let i = 0; i < 5; i++)
      assert.equal((await ask(proxy.port, origin.url("/once"))).body.toString(), "ok");
  });

  test("TRACE and OPTIONS go as far as Max-Forwards lets them", async () => {
    origin.serves("/far", "x");
    const before = origin.requests.length;
    assert.equal((await ask(proxy.port, origin.url("/far"), ["Max-Forwards: 0"], "OPTIONS")).status, 200);
    assert.equal(origin.requests.length, before);
    await ask(proxy.port, origin.url("/far"), ["Max-Forwards: 2"], "OPTIONS");
    assert.equal(origin.requests.at(-1)?.fields.get("Max-Forwards"), "1");
  });
});

describe("tunnels", () => {
  test("bytes both ways, those sent too early included, and each side may finish on its own", async () => {
    const stop = new AbortController();
    const echo = await serve(
      { host: "127.0.0.1", port: 0, signal: stop.signal, log: () => {} },
      async (connection) => {
        for (let bytes = await connection.read(); bytes !== undefined; bytes = await connection.read())
          await connection.write(bytes);
        await connection.write("end");
      },
    );
    await using tunnelling = await start(PROXY, ["--port", 0, "--connect-ports", echo.port]);
    await using connection = await client(tunnelling.port);
    await connection.write(`CONNECT 127.0.0.1:${echo.port} HTTP/1.1\r\nHost: a\r\n\r\nearly`);
    assert.match((await connection.readLine(100)) ?? "", /^HTTP\/1\.1 200 /);
    while ((await connection.readLine(1000)) !== "");
    assert.equal((await connection.readExactly(5))?.toString(), "early");
    const large = pattern(1_000_000);
    const sending = connection.write(large).then(() => connection.end());
    assert.ok((await connection.readExactly(large.length))?.equals(large));
    assert.equal((await connection.readExactly(3))?.toString(), "end");
    assert.equal(await connection.read(), undefined);
    await sending;
    stop.abort();
    await echo.closed;
  });

  test("only to allowed ports; 502 where nobody listens", async () => {
    await using other = await start(PROXY, ["--port", 0, "--connect-ports", "1"]);
    for (const [port, to, status] of [
      [proxy.port, "127.0.0.1:22", 403],
      [proxy.port, "127.0.0.1:25", 403],
      [other.port, "127.0.0.1:1", 502],
    ] as const) {
      await using connection = await client(port);
      await connection.write(`CONNECT ${to} HTTP/1.1\r\nHost: a\r\n\r\n`);
      assert.equal((await readAnswer(connection)).status, status, to);
    }
  });
});

describe("what it refuses", () => {
  test("a request that has been here before: 508", async () => {
    const loop = await ask(proxy.port, `http://127.0.0.1:${proxy.port}/`);
    assert.equal(loop.status, 508);
    assert.match(loop.body.toString(), /has been at this proxy/);
    const via = loop.fields.get("Via")?.split(" ")[1] ?? "";
    assert.equal((await ask(proxy.port, origin.url("/x"), [`Via: 1.0 a, 1.1 ${via} (x)`])).status, 508);
  });

  test("private targets, when told so or when not on loopback, in every spelling", async () => {
    await using careful = await start(PROXY, ["--port", 0, "--deny-private"]);
    await using open = await start(PROXY, ["--port", 0, "--host", "0.0.0.0"]);
    const { port } = origin;
    const before = origin.requests.length;
    for (const host of [
      "127.0.0.1",
      "localhost",
      "[::1]",
      "[::ffff:127.0.0.1]",
      "0.0.0.0",
      "2130706433",
      "0x7f.1",
      "127.1",
      "10.0.0.1",
      "192.168.1.1",
      "169.254.169.254",
      "[fe80::1]",
      "[fd00::1]",
    ]) {
      const { status } = await ask(
        careful.port,
        `http://${host}:${port}/`.replace(/\/$/, "/"),
        [],
        "GET",
      ).catch(() => ({ status: 400 }));
      assert.ok(status === 403 || status === 400 || status === 502, `${host}: ${status}`);
    }
    assert.equal((await ask(open.port, origin.url("/"))).status, 403);
    await using connection = await client(careful.port);
    await connection.write("CONNECT localhost:443 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert.equal((await readAnswer(connection)).status, 403);
    assert.equal(origin.requests.length, before, "nothing reached it");
    await using allowed = await start(PROXY, ["--port", 0, "--host", "0.0.0.0", "--allow-private"]);
    assert.equal((await ask(allowed.port, origin.url("/"))).status, 404);
  });

  test("502 with a page where nobody listens; the client's connection goes on", async () => {
    await using connection = await client(proxy.port);
    for (const url of ["http://127.0.0.1:1/", "http://no-such-host.invalid/"]) {
      await connection.write(requestFor(url));
      const answer = await readAnswer(connection);
      assert.equal(answer.status, 502);
      assert.match(answer.body.toString(), /<h1>502 Bad Gateway<\/h1>/);
      assert.match(answer.fields.get("Cache-Status") ?? "", /^netlab; fwd=/);
    }
  });
});

describe("purging", () => {
  const purge = (url: string, lines: string[] = [], host = `127.0.0.1:${proxy.port}`) => {
    const body = `url=${encodeURIComponent(url)}`;
    const own = `http://127.0.0.1:${proxy.port}`;
    return client(proxy.port).then(async (connection) => {
      await connection.write(
        [
          "POST /purge HTTP/1.1",
          `Host: ${host}`,
          `Content-Length: ${body.length}`,
          ...lines.map((line) => line.replace("OWN", own)),
          "",
          body,
        ].join("\r\n"),
      );
      const answer = await readAnswer(connection);
      await connection.close();
      return answer;
    });
  };

  test("one address, or everything; by our own page only", async () => {
    for (const path of ["/p1", "/p2"]) {
      origin.serves(path, "x", FRESH);
      await ask(proxy.port, origin.url(path));
    }
    assert.equal((await purge(origin.url("/p1"), ["Origin: http://evil.example"])).status, 403);
    const rebound = `evil.example:${proxy.port}`;
    assert.equal((await purge(origin.url("/p1"), [`Origin: http://${rebound}`], rebound)).status, 403);
    assert.equal(how(await ask(proxy.port, origin.url("/p1"))), "hit");
    assert.match((await purge(origin.url("/p1"), ["Origin: OWN"])).body.toString(), /removed: 1/);
    assert.equal(how(await ask(proxy.port, origin.url("/p1"))), "fwd=uri-miss");
    assert.equal(how(await ask(proxy.port, origin.url("/p2"))), "hit");
    assert.equal((await purge("")).status, 200);
    assert.equal(how(await ask(proxy.port, origin.url("/p2"))), "fwd=uri-miss");
    assert.equal((await purge("no address")).status, 400);
  });
});

describe("the program", () => {
  test("a line in the log for each request", async () => {
    origin.serves("/logged", "12345", FRESH);
    for (let i = 0; i < 3; i++) await ask(proxy.port, origin.url("/logged"));
    await ask(proxy.port, `http://127.0.0.1:${proxy.port}/`);
    const logged = () =>
      readFileSync(log, "utf8")
        .split("\n")
        .filter((line) => line.includes("/logged"));
    await becomes(() => logged().length >= 3, "the lines");
    const lines = logged();
    assert.equal(lines.length, 3);
    for (const line of lines)
      assert.match(line, /^127\.0\.0\.1 - - \[.*\] "GET http:\S+\/logged HTTP\/1\.1" 200 5 "-" "-"$/);
  });

  test("wrong options are refused in one line", async () => {
    for (const [args, message] of [
      [["--cache-size", "lots"], /--cache-size "lots" is no size/],
      [["--connect-ports", "443,x"], /--connect-ports/],
      [["--cache-dir", "/dev/null/x"], /cannot use \/dev\/null\/x for the cache/],
    ] as const) {
      const { code, stderr } = await run(PROXY, ["--port", 0, ...args]);
      assert.match(stderr, new RegExp(`^error: .*${message.source}.*\\n$`));
      assert.notEqual(code, 0);
    }
  });

  test("SIGTERM: exit code 0, also with a client that is idle", async () => {
    const other = await start(PROXY, ["--port", 0]);
    await using _ = await client(other.port);
    assert.equal(await other.stop(), 0);
  });
});
