/** The balancer on the wire, over nodes that do as they should. */
import { strict as assert } from "node:assert";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { Agent, request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { readResponse } from "../../shared/http.ts";
import { needs, Running, run, runTool, start, within, writeSplit } from "../../shared/testing.ts";
import {
  answersTo,
  ask,
  bodyOf,
  clientOf,
  type HttpNode,
  httpNode,
  OK,
  readAnswer,
  scriptedNode,
  startBalancer,
  statusOf,
  type TestNode,
  untilStatus,
} from "./test-nodes.ts";

const BALANCER = "exercises/08-load-balancer/balancer.ts";
const folder = mkdtempSync(join(tmpdir(), "netlab-balancer-"));
after(() => rmSync(folder, { recursive: true }));
const sha1 = (bytes: Buffer | string) => createHash("sha1").update(bytes).digest("hex");

/** Says what it got: the raw head, the body's hash, the trailers. */
const echo = () =>
  httpNode("echo", async (request, response) => {
    const body = await bodyOf(request).catch(() => undefined);
    if (body === undefined) return void response.destroy();
    const { method, url, rawHeaders, trailers } = request;
    response.end(JSON.stringify({ method, url, rawHeaders, trailers, size: body.length, hash: sha1(body) }));
  });
type Balancer = Awaited<ReturnType<typeof startBalancer>>;

describe("over one node that tells what it got", () => {
  let node: HttpNode;
  let balancer: Balancer;
  before(async () => {
    node = await echo();
    balancer = await startBalancer([node]);
  });
  after(async () => {
    await balancer[Symbol.asyncDispose]();
    await node[Symbol.asyncDispose]();
  });
  const heard = (body: string) =>
    JSON.parse(body) as {
      method: string;
      url: string;
      rawHeaders: string[];
      trailers: Record<string, string>;
      size: number;
      hash: string;
    };

  test("the node sees who asks; what the client says of itself is replaced; hop-by-hop fields stay behind", async () => {
    const lines = [
      "X-Forwarded-For: 6.6.6.6",
      "forwarded: for=6.6.6.6",
      "X-Hop: 1",
      "Connection: X-Hop, Keep-Alive",
      "X-End: 2",
    ];
    const { rawHeaders } = heard((await ask(balancer, "/a?b=c", lines)).body);
    const fields = new Map(
      rawHeaders.flatMap((name, i) => (i % 2 === 0 ? [[name, rawHeaders[i + 1] ?? ""]] : [])) as [
        string,
        string,
      ][],
    );
    assert.equal(fields.get("X-Forwarded-For"), "127.0.0.1");
    assert.equal(fields.get("X-Forwarded-Proto"), "http");
    assert.equal(fields.get("Forwarded"), "for=127.0.0.1;host=a;proto=http");
    assert.match(fields.get("Via") ?? "", /^1\.1 balancer-[0-9a-f]{8}$/);
    assert.deepEqual([fields.get("X-Hop"), fields.get("X-End"), fields.get("Host")], [undefined, "2", "a"]);
    assert.ok(!rawHeaders.includes("6.6.6.6"));
  });

  test("bodies of every framing and size arrive whole, in any pieces, and the next request after them", async () => {
    for (const size of [0, 1, 1000, 65_536, 65_537, 3_000_000]) {
      const body = randomBytes(size);
      const chunks = [body.subarray(0, size >> 1), body.subarray(size >> 1)].filter(
        ({ length }) => length > 0,
      );
      const chunked = chunks.map((chunk) =>
        Buffer.concat([Buffer.from(`${chunk.length.toString(16)};x=y\r\n`), chunk, Buffer.from("\r\n")]),
      );
      for (const [field, wire] of [
        [`Content-Length: ${size}`, body],
        ["Transfer-Encoding: chunked", Buffer.concat([...chunked, Buffer.from("0\r\nX-Sum: 7\r\n\r\n")])],
      ] as const) {
        const next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        const head = Buffer.from(`PUT /up HTTP/1.1\r\nHost: a\r\n${field}\r\n\r\n`);
        const answers = await answersTo(balancer, Buffer.concat([head, wire, Buffer.from(next)]));
        assert.deepEqual(
          answers.map(({ status, body }) => [status, heard(body).url]),
          [
            [200, "/up"],
            [200, "/next"],
          ],
          `${field}, ${size} bytes`,
        );
        const got = heard(answers[0]?.body ?? "");
        assert.deepEqual([got.method, got.size, got.hash], ["PUT", size, sha1(body)]);
        if (field.startsWith("T")) assert.deepEqual(got.trailers, { "x-sum": "7" });
      }
    }
  });

  test("requests split at every byte", async () => {
    await using client = await clientOf(balancer);
    const agent = new Agent({ keepAlive: true });
    agent.destroy();
    const wire = Buffer.from(
      "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    const { Socket } = await import("node:net");
    const socket = new Socket({ allowHalfOpen: true }).connect(balancer.port, "127.0.0.1");
    await once(socket, "connect");
    const received: Buffer[] = [];
    socket.on("data", (chunk) => received.push(chunk));
    await writeSplit(socket, wire);
    socket.end();
    await once(socket, "end");
    const text = Buffer.concat(received).toString();
    assert.deepEqual(text.match(/"url":"[^"]*"/g), ['"url":"/x"', '"url":"/y"']);
    assert.equal(text.match(/HTTP\/1\.1 200/g)?.length, 2);
    client.destroy();
  });

  test("100 pipelined requests are answered in order on one connection", async () => {
    const requests = Array.from({ length: 100 }, (_, i) => `GET /${i} HTTP/1.1\r\nHost: a\r\n\r\n`);
    const before = node.connections;
    const answers = await answersTo(balancer, requests.join(""));
    assert.deepEqual(
      answers.map(({ body }) => heard(body).url),
      requests.map((_, i) => `/${i}`),
    );
    assert.ok(node.connections - before <= 1, "the node's connection was kept");
  });

  test("what could be read in two ways is 400 and never reaches the node; so are other bad requests", async () => {
    const before = node.requests;
    for (const [request, status] of [
      ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400],
      ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400],
      ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd", 400],
      ["POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400],
      ["POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501],
      ["POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\n\r\n", 400],
      ["GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400],
      ["POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400],
      ["CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501],
      ["GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505],
      [`GET /${"x".repeat(9000)} HTTP/1.1\r\nHost: a\r\n\r\n`, 414],
      [`GET / HTTP/1.1\r\nHost: a\r\nX: ${"x".repeat(70_000)}\r\n\r\n`, 431],
      ["\x16\x03\x01\x02\x00\x01\r\n\r\n", 400],
    ] as const) {
      const answers = await answersTo(balancer, `${request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n`);
      assert.deepEqual(
        answers.map(({ status, fields }) => [status, fields.get("Connection")]),
        [[status, "close"]],
        JSON.stringify(request.slice(0, 80)),
      );
    }
    assert.equal(node.requests, before);
  });

  test("a chunk that lies about its length: 400, and the node gets no whole request of it", async () => {
    const before = node.requests;
    const [answer] = await answersTo(
      balancer,
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
    );
    assert.equal(answer?.status, 400);
    assert.ok(node.requests <= before + 1, "no second one was smuggled in");
    assert.equal((await ask(balancer)).status, 200);
  });

  test("HTTP/1.0: closes, or stays where it is asked to", async () => {
    const [first, ...others] = await answersTo(balancer, "GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.0\r\n\r\n");
    assert.deepEqual([first?.status, first?.fields.get("Connection"), others.length], [200, "close", 0]);
    const kept = await answersTo(
      balancer,
      "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
    );
    assert.deepEqual(
      kept.map(({ fields }) => fields.get("Connection")),
      ["keep-alive", "close"],
    );
  });

  test("Expect: 100-continue goes to the node and its answer comes back before the body", async () => {
    await using client = await clientOf(balancer);
    await client.write("POST /e HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert.equal((await readResponse(client))?.status, 100);
    await client.write("hello");
    assert.equal(heard((await readAnswer(client))?.body ?? "").hash, sha1("hello"));
  });

  test("the client's half-close is no reason not to answer", async () => {
    assert.equal((await ask(balancer, "/half")).status, 200);
  });
});

describe("responses", () => {
  /** Says what the target asks it to say, and no more. */
  let node: TestNode;
  let balancer: Balancer;
  before(async () => {
    node = await scriptedNode((socket, head) =>
      socket.end(Buffer.from(head.split(/[ /]/)[2] ?? "", "base64url")),
    );
    balancer = await startBalancer([node]);
  });
  after(async () => {
    await balancer[Symbol.asyncDispose]();
    await node[Symbol.asyncDispose]();
  });

  /** What a client of this version gets of what the node says, until the end. */
  async function through(response: string, minor = 1): Promise<string> {
    await using client = await clientOf(balancer);
    const target = Buffer.from(response).toString("base64url");
    await client.write(`GET /${target} HTTP/1.${minor}\r\nHost: a\r\nConnection: close\r\n\r\n`);
    const chunks: Buffer[] = [];
    for (let chunk = await client.read(); chunk !== undefined; chunk = await client.read())
      chunks.push(chunk);
    return Buffer.concat(chunks).toString("latin1");
  }

  test("an end told by closing is chunked for HTTP/1.1 and closes for HTTP/1.0; so does a chunked one", async () => {
    const closing = "HTTP/1.1 200 Fine\r\nX-A: b\r\nConnection: x-gone\r\nX-Gone: 1\r\n\r\nbody";
    assert.equal(
      await through(closing),
      "HTTP/1.1 200 Fine\r\nX-A: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    );
    assert.equal(await through(closing, 0), "HTTP/1.1 200 Fine\r\nX-A: b\r\nConnection: close\r\n\r\nbody");
    const chunked =
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x\r\ndy\r\n0\r\nX-Sum: 4\r\n\r\n";
    assert.equal(await through(chunked, 0), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody");
    assert.match(await through(chunked), /\r\n\r\n(2\r\nbo\r\n2\r\ndy|4\r\nbody)\r\n0\r\nX-Sum: 4\r\n\r\n$/);
  });

  test("interim responses pass; 204 and 304 have no body; repeated fields stay apart", async () => {
    const text = await through(
      "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
    );
    assert.equal(
      text,
      "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nConnection: close\r\n\r\n",
    );
    assert.match(
      await through("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
      /Content-Length: 9\r\nConnection: close\r\n\r\n$/,
    );
  });

  test("a length that no body follows does not go on with 1xx and 204", async () => {
    const text = await through(
      "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nHTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    );
    assert.ok(!/content-length/i.test(text), text);
  });

  test("a client of HTTP/1.0 gets no interim response", async () => {
    const text = await through(
      "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
      0,
    );
    assert.equal(text, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
  });

  test("a connection that the node does not want to keep is not used again", async () => {
    await using closing = await scriptedNode((socket) =>
      socket.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"),
    );
    await using balancer = await startBalancer([closing], ["--health-interval", 3600]);
    for (let i = 0; i < 3; i++) assert.equal((await ask(balancer)).body, "x");
    assert.equal((await statusOf(balancer))[0]?.idleConnections, 0);
    assert.ok(closing.connections >= 3);
  });

  test("a status of 500 is the node's answer, not its failure", async () => {
    assert.match(
      await through("HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno"),
      /^HTTP\/1\.1 500 Oops\r\n.*no$/s,
    );
  });

  test("HEAD has the length and no body", async () => {
    await using node = await httpNode("a");
    await using balancer = await startBalancer([node]);
    const answers = await answersTo(
      balancer,
      "HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
      ["HEAD", "GET"],
    );
    assert.deepEqual(
      answers.map(({ status, body }) => [status, body]),
      [
        [200, ""],
        [200, "a"],
      ],
    );
  });

  test("HEAD and GET with the very same head are not mistaken for each other", async () => {
    await using node = await scriptedNode((socket, head) =>
      socket.write(OK("x").slice(0, head.startsWith("HEAD") ? -1 : undefined)),
    );
    await using balancer = await startBalancer([node]);
    const methods = ["GET", "HEAD", "HEAD", "GET", "GET", "HEAD"];
    const requests = methods.map((method) => `${method} / HTTP/1.1\r\nHost: a\r\n\r\n`);
    const answers = await answersTo(balancer, requests.join(""), methods);
    assert.deepEqual(
      answers.map(({ body }) => body),
      ["x", "", "", "x", "x", ""],
    );
  });

  test("a stream of events arrives as it is sent", async () => {
    let send: (text: string) => void = () => {};
    await using node = await httpNode("events", (_, response) => {
      response.flushHeaders();
      send = (text) => response.write(text);
    });
    await using balancer = await startBalancer([node]);
    await using client = await clientOf(balancer);
    await client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert.equal((await readResponse(client))?.status, 200);
    for (const text of ["data: 1\n\n", "data: 2\n\n"]) {
      send(text);
      assert.match(String(await client.readExactly(text.length + 5)), new RegExp(`^9\r\n${text}\r\n$`));
    }
  });
});

describe("who gets it", () => {
  async function names(balancer: Balancer, count: number): Promise<string[]> {
    const found: string[] = [];
    for (let i = 0; i < count; i++) found.push((await ask(balancer)).body);
    return found;
  }

  test("round robin by weight is exact over a cycle, across clients and connections", async () => {
    await using a = await httpNode("a");
    await using b = await httpNode("b");
    const file = join(folder, "weights.ini");
    writeFileSync(
      file,
      `[n1]\nhost = 127.0.0.1\nport = ${a.port}\nweight = 3\n[n2]\nhost = 127.0.0.1\nport = ${b.port}\n`,
    );
    await using balancer = await startBalancer([], ["--config", file]);
    assert.equal((await names(balancer, 8)).join(""), "aabaaaba");
    await Promise.all(Array.from({ length: 40 }, () => ask(balancer)));
    assert.deepEqual([a.requests, b.requests], [36, 12]);
  });

  test("least connections leaves a node alone that is at work", async () => {
    let release: () => void = () => {};
    await using slow = await httpNode("slow", (_, response) => {
      release = () => response.end("slow");
    });
    await using fast = await httpNode("fast");
    await using balancer = await startBalancer([slow, fast], ["--algorithm", "least-connections"]);
    const waiting = ask(balancer);
    await untilStatus(balancer, "the slow one at work", ([node]) => node?.active === 1);
    assert.deepEqual(new Set(await names(balancer, 6)), new Set(["fast"]));
    release();
    assert.equal((await waiting).body, "slow");
    await untilStatus(balancer, "nobody at work", (nodes) => nodes.every(({ active }) => active === 0));
  });

  test("ip hash keeps a client at its node, also when another one goes", async () => {
    await using a = await httpNode("a");
    await using b = await httpNode("b");
    await using balancer = await startBalancer([a, b], ["--algorithm", "ip-hash"]);
    assert.equal(new Set(await names(balancer, 6)).size, 1);
  });

  test("random two reaches everybody", async () => {
    await using a = await httpNode("a");
    await using b = await httpNode("b");
    await using balancer = await startBalancer([a, b], ["--algorithm", "random-two"]);
    // Idle nodes are equal: each is chosen with chance one half, so forty times the same has a chance of 2^-39.
    assert.deepEqual(new Set(await names(balancer, 40)), new Set(["a", "b"]));
  });
});

describe("tunnel", () => {
  const upgrading = () =>
    scriptedNode((socket, head) => {
      if (!/upgrade: echo/i.test(head)) return void socket.write(OK("no upgrade"));
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nwelcome ",
      );
      socket.removeAllListeners("data").removeAllListeners("end").pipe(socket);
    });
  const UPGRADE = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

  test("an upgraded connection echoes any bytes both ways and ends by half-close", async () => {
    await using node = await upgrading();
    await using balancer = await startBalancer([node]);
    await using client = await clientOf(balancer);
    await client.write(`${UPGRADE}early `);
    const head = await readResponse(client);
    assert.deepEqual(
      [head?.status, head?.fields.get("Upgrade"), head?.fields.get("Connection")],
      [101, "echo", "upgrade"],
    );
    assert.equal(String(await client.readExactly(14)), "welcome early ");
    const bytes = randomBytes(2_000_000);
    const sending = client.write(bytes).then(() => client.end());
    assert.ok((await client.readExactly(bytes.length))?.equals(bytes));
    await sending;
    assert.equal(await client.read(), undefined);
    await untilStatus(balancer, "the tunnel's end", ([status]) => status?.active === 0);
  });

  test("a node that does not want it answers as ever, and the connection goes on", async () => {
    await using node = await scriptedNode((socket) => socket.write(OK("plain")));
    await using balancer = await startBalancer([node]);
    const answers = await answersTo(balancer, `${UPGRADE}GET / HTTP/1.1\r\nHost: a\r\n\r\n`);
    assert.deepEqual(
      answers.map(({ status, body }) => [status, body]),
      [
        [200, "plain"],
        [200, "plain"],
      ],
    );
  });

  test("101 without being asked is 502", async () => {
    await using node = await scriptedNode((socket) =>
      socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    );
    await using balancer = await startBalancer([node]);
    assert.equal((await ask(balancer)).status, 502);
  });
});

describe("the program", () => {
  test("the status page and its JSON tell of each node", async () => {
    await using node = await httpNode("<a>");
    await using balancer = await startBalancer([node, { port: 1 }], ["--retries", 1]);
    for (let i = 0; i < 6; i++) assert.equal((await ask(balancer)).status, 200);
    const [up, down] = await untilStatus(
      balancer,
      "the other node down",
      (nodes) => nodes[1]?.state === "down",
    );
    assert.deepEqual(
      [up?.state, up?.total, up?.failures, up?.active, up?.idleConnections],
      ["up", 6, 0, 0, 1],
    );
    assert.ok((up?.latencyMs.p50 ?? 0) > 0 && (up?.latencyMs.p99 ?? 0) >= (up?.latencyMs.p50 ?? 0));
    assert.equal(down?.latencyMs.p50, null);
    const page = await ask({ port: balancer.statusPort });
    assert.equal(page.fields.get("Content-Type"), "text/html; charset=utf-8");
    assert.match(page.body, new RegExp(`<td>127.0.0.1:${node.port}</td><td>1</td><td>up</td>`));
    assert.equal((await ask({ port: balancer.statusPort }, "/none")).status, 404);
    assert.equal((await ask({ port: balancer.statusPort }, "/", [], "DELETE")).status, 405);
    assert.equal((await answersTo({ port: balancer.statusPort }, "nonsense\r\n\r\n"))[0]?.status, 400);
    assert.deepEqual((await statusOf(balancer)).length, 2);
  });

  test("the status page stays on this machine, wherever clients are served", async () => {
    await using balancer = await startBalancer([{ port: 1 }], ["--host", "0.0.0.0"]);
    assert.match(balancer.urls.join(" "), /^tcp:\/\/0\.0\.0\.0:\d+ tcp:\/\/127\.0\.0\.1:\d+$/);
  });

  test("a name from the file cannot break the page", async () => {
    const file = join(folder, "names.ini");
    writeFileSync(file, "[<b>&]\nhost = 127.0.0.1\nport = 1\n");
    await using balancer = await startBalancer([], ["--config", file]);
    assert.match((await ask({ port: balancer.statusPort })).body, /<td>&#60;b&#62;&#38;<\/td>/);
  });

  test("an idle client is let go without a word", async () => {
    await using balancer = await startBalancer([{ port: 1 }], ["--keep-alive-timeout", 1, "--retries", 0]);
    await using client = await clientOf(balancer);
    await client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert.equal((await readAnswer(client))?.status, 503);
    assert.equal(await client.read(), undefined);
  });

  test("a bad configuration: one line with file, line and key, exit code 2", async () => {
    const file = join(folder, "bad.ini");
    writeFileSync(file, "[nodo1]\nhost = 127.0.0.1\nport = http\n");
    const { code, stdout, stderr } = await run(BALANCER, ["--config", file]);
    assert.deepEqual([code, stdout], [2, ""]);
    assert.equal(stderr, `error: ${file}:3: [nodo1] port "http" is not a port (1 to 65535)\n`);
    const missing = await run(BALANCER, ["--config", join(folder, "none.ini")]);
    assert.deepEqual([missing.code, /no such file/.test(missing.stderr)], [2, true]);
    assert.equal((await run(BALANCER, ["--backend", "a:b:c"])).code, 2);
  });

  test("SIGTERM: what is being answered is finished, exit code 0", async () => {
    let release: () => void = () => {};
    await using node = await httpNode("slow", (_, response) => {
      release = () => response.end("done");
    });
    await using balancer = await startBalancer([node]);
    const waiting = ask(balancer);
    await untilStatus(balancer, "the request at the node", ([status]) => status?.active === 1);
    const stopped = balancer.stop();
    while (
      await clientOf(balancer).then(
        (client) => client.close().then(() => true),
        () => false,
      )
    );
    release();
    const answer = await waiting;
    assert.deepEqual([answer.body, answer.fields.get("Connection")], ["done", "close"]);
    assert.equal(await stopped, 0);
  });

  test("a balancer that leads to itself: 508, not a storm", async () => {
    await using node = await httpNode("a");
    const file = join(folder, "loop.ini");
    writeFileSync(file, `[n]\nhost = 127.0.0.1\nport = ${node.port}\n`);
    await using balancer = await startBalancer([], ["--config", file]);
    writeFileSync(file, `[n]\nhost = 127.0.0.1\nport = ${balancer.port}\n`);
    balancer.kill("SIGHUP");
    await balancer.output(/read again/, "stderr");
    assert.equal((await ask(balancer)).status, 508);
  });
});

describe("real programs", () => {
  const SERVER = "exercises/06-http-server/server.ts";

  test("config/load-balancer.ini as it stands, over two servers of exercise 06", async (t) => {
    const nodes: Running[] = [];
    try {
      for (const port of [10_601, 10_602]) nodes.push(await start(SERVER, ["--port", port]));
    } catch (error) {
      for (const node of nodes) await node[Symbol.asyncDispose]();
      if (/EADDRINUSE/.test(String(error))) return t.skip("10601 or 10602 is in use");
      throw error;
    }
    await using _one = nodes[0];
    await using _two = nodes[1];
    await using balancer = await startBalancer([], []);
    for (const target of ["/", "/style.css", "/segment.svg", "/"])
      assert.equal((await ask(balancer, target)).status, 200);
    assert.equal((await ask(balancer, "/none")).status, 404);
    assert.deepEqual(
      (await statusOf(balancer)).map(({ name, total }) => [name, total]),
      [
        ["nodo1", 3],
        ["nodo2", 2],
      ],
    );
  });

  test("node:http as client, with an agent that keeps its connections", async () => {
    await using a = await httpNode("a");
    await using balancer = await startBalancer([a]);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    for (let i = 0; i < 3; i++) {
      const request = httpRequest({ port: balancer.port, host: "127.0.0.1", agent, method: "POST" }).end(
        "x".repeat(100_000),
      );
      const [response] = await within(once(request, "response"), "a response");
      assert.equal(String(await bodyOf(response)), "a");
    }
    agent.destroy();
  });

  test(
    "curl and wget: a download, an upload with Expect, HTTP/1.0, several on one connection",
    needs("curl", "wget"),
    async () => {
      const file = join(folder, "large.bin");
      const content = randomBytes(2_000_000);
      writeFileSync(file, content);
      await using node = await httpNode("tools", async (request, response) => {
        if (request.method === "GET") return void response.end(content);
        response.end(sha1(await bodyOf(request)));
      });
      await using balancer = await startBalancer([node]);
      const url = `http://127.0.0.1:${balancer.port}/`;
      assert.ok((await runTool("curl", ["-sS", url])).bytes.equals(content));
      assert.ok((await runTool("curl", ["-sS", "--http1.0", url])).bytes.equals(content));
      assert.ok((await runTool("wget", ["-qO-", url])).bytes.equals(content));
      const upload = ["-sS", "-H", "Expect: 100-continue", "-T", file, url];
      assert.equal((await runTool("curl", upload)).stdout, sha1(content));
      assert.equal(
        (await runTool("curl", ["-sS", "-H", "Transfer-Encoding: chunked", "-T", file, url])).stdout,
        sha1(content),
      );
      const two = await runTool("curl", [
        "-sS",
        "-o",
        "/dev/null",
        "-o",
        "/dev/null",
        "-w",
        "%{num_connects}\n",
        url,
        url,
      ]);
      assert.equal(two.stdout, "1\n0\n");
    },
  );

  test("nginx as a node", needs("nginx", "curl"), async () => {
    const root = mkdtempSync(join(folder, "nginx-"));
    const content = randomBytes(1_500_000);
    writeFileSync(join(root, "file.bin"), content);
    await runTool("chmod", ["-R", "755", folder]);
    await using free = await httpNode("free");
    const { port } = free;
    await free[Symbol.asyncDispose]();
    const config = join(root, "nginx.conf");
    const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
      (name) => `${name}_temp_path ${root}/${name};`,
    );
    writeFileSync(
      config,
      `daemon off; pid ${root}/pid; error_log ${root}/error.log; events {} http { access_log off; ${paths.join(" ")} server { listen 127.0.0.1:${port}; root ${root}; } }`,
    );
    await using nginx = new Running("nginx", ["-c", config], {});
    const isUp = async () =>
      (await runTool("curl", ["-s", `http://127.0.0.1:${port}/file.bin`, "-o", "/dev/null"])).code === 0;
    const until = performance.now() + 10_000;
    while (!(await isUp())) assert.ok(performance.now() < until, `nginx is up: ${nginx.stderr}`);
    await using balancer = await startBalancer([{ port }], ["--health-path", "/file.bin"]);
    const url = `http://127.0.0.1:${balancer.port}/file.bin`;
    assert.ok((await runTool("curl", ["-sS", url])).bytes.equals(content));
    assert.equal(
      (await runTool("curl", ["-sS", "-r", "5-9", url])).bytes.toString("hex"),
      content.subarray(5, 10).toString("hex"),
    );
    assert.match((await runTool("curl", ["-sSI", url])).stdout, /^HTTP\/1\.1 200 OK\r\nServer: nginx/);
    nginx.kill("SIGTERM");
    await nginx.exited;
  });
});
