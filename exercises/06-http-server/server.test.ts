/** The program on the wire: what any HTTP/1.1 file server should pass. */
import { strict as assert } from "node:assert";
import { once } from "node:events";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { connect as connectSocket, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Page } from "playwright-core";
import { inBrowser } from "../../shared/browser.ts";
import type { Connection } from "../../shared/connection.ts";
import { type ResponseHead, readResponse } from "../../shared/http.ts";
import { readBody, responseFraming } from "../../shared/http-body.ts";
import { connect } from "../../shared/tcp.ts";
import { needs, Running, run, runTool, start, within, writeSplit } from "../../shared/testing.ts";

const SERVER = "exercises/06-http-server/server.ts";
const MEBIBYTE = 2 ** 20;
const GIBIBYTE = 2 ** 30;
const onLinux = process.platform === "linux" ? {} : { skip: "looks into /proc" };

const folder = mkdtempSync(join(tmpdir(), "netlab-http-"));
const root = join(folder, "root");
const put = (name: string, content: string | Buffer) => writeFileSync(join(root, name), content);
const PAGE = "<h1>index</h1>";
const LARGE = Buffer.from(Array.from({ length: 300_007 }, (_, i) => (i * 167 + (i >> 8) * 31) & 255));
let server: Running;

before(async () => {
  for (const name of ["", "sub", "empty", ".git"]) mkdirSync(join(root, name), { recursive: true });
  put("index.html", PAGE);
  put("404.html", "<h1>it is not here</h1>");
  put("digits.txt", "0123456789");
  put("nothing.txt", "");
  put("large.bin", LARGE);
  put("sub/index.html", "sub");
  put("a b.txt", "blank");
  put("été.txt", "summer");
  put("%41.txt", "percent");
  put(".hidden", "secret");
  put(".git/config", "secret");
  writeFileSync(join(folder, "outside.txt"), "secret");
  symlinkSync(join(folder, "outside.txt"), join(root, "link-out.txt"));
  symlinkSync(folder, join(root, "folder-out"));
  symlinkSync("digits.txt", join(root, "link-in.txt"));
  symlinkSync(".hidden", join(root, "link-hidden.txt"));
  symlinkSync("loop", join(root, "loop"));
  put("sparse.bin", "");
  truncateSync(join(root, "sparse.bin"), 4 * GIBIBYTE);
  await runTool("mkfifo", [join(root, "pipe")]).catch(() => {});
  server = await start(SERVER, ["--root", root, "--port", 0, "--header-timeout", 5]);
});
after(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const GET = "GET /digits.txt HTTP/1.1\r\nHost: a\r\n\r\n";

interface Answer extends ResponseHead {
  body: string;
}
const client = (port = server.port) => connect({ host: "127.0.0.1", port, timeoutMs: 10_000 });

async function readAnswer(connection: Connection, method = "GET"): Promise<Answer | undefined> {
  const head = await readResponse(connection);
  if (head === undefined) return undefined;
  const chunks: Buffer[] = [];
  for await (const chunk of readBody(connection, responseFraming(head, method))) chunks.push(chunk);
  return { ...head, body: Buffer.concat(chunks).toString("latin1") };
}

/** All answers to these bytes, until the server closes; methods in their order, for HEAD. */
async function answersTo(bytes: string, methods: string[] = [], port = server.port): Promise<Answer[]> {
  await using connection = await client(port);
  await connection.write(Buffer.from(bytes, "latin1"));
  connection.end();
  const answers: Answer[] = [];
  for (let i = 0; ; i++) {
    const answer = await readAnswer(connection, methods[i]);
    if (answer === undefined) return answers;
    answers.push(answer);
  }
}

async function ask(target: string, lines: readonly string[] = [], method = "GET"): Promise<Answer> {
  const [answer, ...others] = await answersTo(
    [`${method} ${target} HTTP/1.1`, "Host: a", ...lines, "", ""].join("\r\n"),
    [method],
  );
  assert.ok(answer !== undefined && others.length === 0, `${method} ${target}: one answer`);
  return answer;
}
/** What the server sends back for these bytes, until it closes. */
async function raw(bytes: string): Promise<Buffer[]> {
  const socket = connectSocket({ host: "127.0.0.1", port: server.port });
  const received = socket.toArray();
  socket.write(bytes);
  return await within(received, "the end");
}
const statuses = (answers: readonly Answer[]) => answers.map(({ status }) => status);

describe("what is served", () => {
  test("an index, a file, an empty one, names in any script; type, length and date are right", async () => {
    const answer = await ask("/");
    assert.deepEqual([answer.status, answer.reason, answer.body], [200, "OK", PAGE]);
    assert.equal(answer.fields.get("content-type"), "text/html; charset=utf-8");
    assert.equal(answer.fields.get("content-length"), String(PAGE.length));
    const ageMs = Date.now() - Date.parse(answer.fields.get("date") ?? "");
    assert.ok(ageMs > -1000 && ageMs < 60_000, `Date: ${answer.fields.get("date")}`);
    for (const [target, body] of [
      ["/digits.txt?any=query", "0123456789"],
      ["/nothing.txt", ""],
      ["/sub/", "sub"],
      ["/a%20b.txt", "blank"],
      ["/%C3%A9t%C3%A9.txt", "summer"],
      ["/%2541.txt", "percent"],
      ["/link-in.txt", "0123456789"],
      ["http://any.host/digits.txt", "0123456789"],
    ] as const) {
      assert.deepEqual([(await ask(target)).body], [body], target);
    }
    const large = await ask("/large.bin");
    assert.ok(Buffer.from(large.body, "latin1").equals(LARGE));
    assert.equal(large.fields.get("content-type"), "application/octet-stream");
  });

  test("the Date goes on, also for a file that is asked for again and again", async () => {
    const dates = new Set<string>();
    await within(
      (async () => {
        while (dates.size < 2) dates.add((await ask("/digits.txt")).fields.get("date") ?? "");
      })(),
      "another second",
    );
    const [first = "", second = ""] = dates;
    assert.ok(Date.parse(second) > Date.parse(first), `${first}, ${second}`);
  });

  test("HEAD: the same fields and no body, whatever the status", async () => {
    for (const target of ["/", "/large.bin", "/none", "/sub", "/%zz"]) {
      const [get, head] = [await ask(target), await ask(target, [], "HEAD")];
      const lines = ({ fields }: Answer) => [...fields.replace(["Date"])];
      assert.deepEqual([head.status, lines(head), head.body], [get.status, lines(get), ""], target);
      assert.ok(Number(get.fields.get("content-length")) > 0);
    }
    for (const [line, status] of [
      ["Expect: magic", 417],
      ["Content-Length: 9999999", 413],
      ["Transfer-Encoding: gzip", 501],
    ] as const) {
      const head = await ask("/", [line], "HEAD");
      assert.deepEqual([head.status, head.body], [status, ""]);
      const text = Buffer.concat(await raw(`HEAD / HTTP/1.1\r\nHost: a\r\n${line}\r\n\r\n`)).toString();
      assert.ok(text.endsWith("\r\n\r\n"), text);
    }
  });

  test("a folder without its slash is redirected to the one with it, and never to another host", async () => {
    const answer = await ask("/sub?x=1");
    assert.deepEqual([answer.status, answer.fields.get("location")], [301, "/sub/?x=1"]);
    assert.equal((await ask("//sub")).status, 404);
    assert.equal((await ask("/digits.txt/")).status, 404);
    assert.equal((await ask("/empty/")).status, 404);
  });

  test("404 carries the page of the root", async () => {
    const answer = await ask("/none");
    assert.deepEqual([answer.status, answer.body], [404, "<h1>it is not here</h1>"]);
    assert.equal(answer.fields.get("content-type"), "text/html; charset=utf-8");
    assert.equal(answer.fields.get("etag"), undefined);
  });

  test("nothing outside the root, nothing hidden, no pipe: 404 in every spelling", async () => {
    const targets = [
      ..."/../outside.txt /sub/../../outside.txt /%2e%2e/outside.txt /..%2foutside.txt /.%2e%2Foutside.txt".split(
        " ",
      ),
      ..."/..%5coutside.txt /..\\outside.txt //outside.txt /%2fetc/passwd //etc/passwd /sub/..%00/x".split(
        " ",
      ),
      ..."/index.html%00 /index.html%00.txt /.hidden /%2ehidden /.git/config /sub/../.hidden /./index.html".split(
        " ",
      ),
      ..."/link-out.txt /folder-out/outside.txt /folder-out /folder-out/ /link-hidden.txt /loop /pipe".split(
        " ",
      ),
      ..."/..%c0%afoutside.txt /%c0%ae%c0%ae/outside.txt /%252e%252e/outside.txt /....//outside.txt".split(
        " ",
      ),
      `/${"a".repeat(5000)}`,
      "http://a/../outside.txt",
    ];
    for (const target of targets) {
      const { status, body } = await ask(target);
      assert.deepEqual([status, body.includes("secret")], [404, false], target);
    }
  });

  test("a file that changes is served as it is, also with the same size; a link that is turned outward is not followed", async () => {
    await using connection = await client();
    // Fast enough that many of the changes fall into one tick of the clock that stamps the file.
    for (let i = 100; i < 400; i++) {
      put("changing.txt", String(i));
      await connection.write("GET /changing.txt HTTP/1.1\r\nHost: a\r\n\r\n");
      assert.equal((await readAnswer(connection))?.body, String(i));
    }
    for (const content of ["one", "two"]) {
      put("backdated.txt", content);
      utimesSync(join(root, "backdated.txt"), 1e9, 1e9);
      // Long enough to be kept in memory; only ctime tells the second from the first.
      for (const end = performance.now() + 200; performance.now() < end; )
        assert.equal((await ask("/backdated.txt")).body, content);
    }
    symlinkSync("digits.txt", join(root, "turning.txt"));
    assert.equal((await ask("/turning.txt")).body, "0123456789");
    rmSync(join(root, "turning.txt"));
    assert.equal((await ask("/turning.txt")).status, 404);
    symlinkSync("../outside.txt", join(root, "turning.txt"));
    assert.equal((await ask("/turning.txt")).status, 404);
  });
});

/** Runs this text as a program beside the test. */
const beside = (text: string, ...args: string[]) =>
  new Running(process.execPath, ["-e", `const fs = require("node:fs");\n${text}`, ...args], {});

describe("files that change meanwhile", () => {
  test(
    "a folder that becomes a link between the check and the opening does not lead outside",
    onLinux,
    async () => {
      for (const name of ["turn/d", "elsewhere"]) mkdirSync(join(folder, name), { recursive: true });
      writeFileSync(join(folder, "turn/d/x.txt"), "inside");
      writeFileSync(join(folder, "elsewhere/x.txt"), "secret");
      symlinkSync("../elsewhere", join(folder, "turn/.link"));
      await using own = await start(SERVER, ["--root", join(folder, "turn"), "--port", 0]);
      await using turner = beside(
        `process.chdir(process.argv[1]);
      console.log("begins");
      while (true) {
        for (const [from, to] of [["d", ".d"], [".link", "d"], ["d", ".link"], [".d", "d"]]) fs.renameSync(from, to);
      }`,
        join(folder, "turn"),
      );
      await turner.output(/begins/);
      const bodies: Record<string, number> = {};
      for (let i = 0; i < 100; i++) {
        for (const { body } of await answersTo(`${GET.replace("digits", "d/x")}`.repeat(100), [], own.port))
          bodies[body] = (bodies[body] ?? 0) + 1;
      }
      assert.ok((bodies["inside"] ?? 0) > 100, JSON.stringify(bodies));
      assert.equal(bodies["secret"], undefined, JSON.stringify(bodies));
    },
  );

  test("--file-cache: what was looked at is served for so long without another look, and not for longer", async () => {
    await using own = await start(SERVER, ["--root", root, "--port", 0, "--file-cache", 1]);
    const bodyNow = async () => (await answersTo(GET.replace("digits", "cached"), [], own.port))[0]?.body;
    put("cached.txt", "old");
    utimesSync(join(root, "cached.txt"), 1e9, 1e9);
    for (const [last, next] of [
      ["old", "new"],
      ["new", "old"],
    ] as const) {
      // What has just changed is not kept yet, so several tries may be needed to see an old one.
      let sawLast = false;
      await within(
        (async () => {
          while (!sawLast) {
            put("cached.txt", last);
            while ((await bodyNow()) !== last);
            for (const end = performance.now() + 300; performance.now() < end; ) await bodyNow();
            put("cached.txt", next);
            sawLast = (await bodyNow()) === last;
          }
          while ((await bodyNow()) !== next);
        })(),
        "the old one, then the new one",
      );
    }
  });

  test("a file that grows all the time is served as far as it was when it was asked for", async () => {
    put("growing.log", Buffer.alloc(100_000, "x"));
    await using writer = beside(
      `const fd = fs.openSync(process.argv[1], "a");
      console.log("begins");
      for (const end = Date.now() + 30_000; Date.now() < end; ) fs.writeSync(fd, "x");`,
      join(root, "growing.log"),
    );
    await writer.output(/begins/);
    const range = "GET /growing.log HTTP/1.1\r\nHost: a\r\nRange: bytes=0-9\r\n\r\n";
    const answers = await answersTo(range.repeat(3000));
    assert.equal(answers.length, 3000);
    assert.ok(answers.every(({ status, body }) => status === 206 && body === "xxxxxxxxxx"));
  });

  test("a file that is replaced all the time is one or the other, never the tag of one with the bytes of the other", async () => {
    const replaced = join(root, "replaced.bin");
    writeFileSync(replaced, Buffer.alloc(100_000, "a"));
    await using writer = beside(
      `console.log("begins");
      const [path] = process.argv.slice(1);
      for (let i = 0, end = Date.now() + 30_000; Date.now() < end; i ^= 1) {
        fs.writeFileSync(path + ".new", Buffer.alloc(100_000 + i, "ab"[i]));
        fs.renameSync(path + ".new", path);
      }`,
      replaced,
    );
    await writer.output(/begins/);
    const seen = new Set<string>();
    for (let i = 0; i < 500; i++) {
      const [answer] = await answersTo(GET.replace("digits.txt", "replaced.bin"));
      if (answer?.status === 500) continue; // replaced between the look at it and its opening
      assert.ok(answer);
      const { body } = answer;
      seen.add(`${body.length} ${body[0]}`);
      assert.equal(body, (body[0] ?? "").repeat(body.length));
    }
    assert.deepEqual([...seen].sort(), ["100000 a", "100001 b"]);
  });

  test("no descriptor left: 500, and 200 when there is one again", onLinux, async () => {
    const limited = ["sh", "-c", 'ulimit -n 50 && exec "$@"', "sh"];
    await using own = await start(SERVER, ["--root", root, "--port", 0], { wrapper: limited });
    const clients: Connection[] = [];
    const isServed = async () => {
      const one = await client(own.port);
      clients.push(one);
      await one.write(GET).catch(() => {});
      return (await readAnswer(one).catch(() => undefined)) !== undefined;
    };
    while (await isServed());
    await clients[0]?.write(GET.replace("digits.txt", "large.bin"));
    assert.equal((await readAnswer(clients[0] as Connection))?.status, 500);
    await own.output(/cannot read .*large\.bin: too many open files/, "stderr");
    for (const one of clients) one.destroy();
    await within(
      (async () => {
        while ((await answersTo(GET, [], own.port).catch(() => [])).length === 0);
      })(),
      "a free descriptor",
    );
  });
});

describe("conditions and ranges", () => {
  test("304 by tag and by date, without a body; 412", async () => {
    const { fields } = await ask("/digits.txt");
    const [etag = "", modified = ""] = [fields.get("etag"), fields.get("last-modified")];
    assert.match(etag, /^"[^"]+"$/);
    for (const line of [
      `If-None-Match: ${etag}`,
      `If-None-Match: "x", W/${etag}`,
      `If-Modified-Since: ${modified}`,
    ]) {
      const answer = await ask("/digits.txt", [line]);
      assert.deepEqual([answer.status, answer.body, answer.fields.get("etag")], [304, "", etag], line);
      const names = [...answer.fields].map(([name]) => name).filter((name) => name !== "Connection");
      assert.deepEqual(names.sort(), ["Date", "ETag", "Last-Modified"]);
    }
    assert.equal(
      (await ask("/digits.txt", ['If-None-Match: "x"', `If-Modified-Since: ${modified}`])).status,
      200,
    );
    assert.equal((await ask("/digits.txt", ['If-Match: "x"'])).status, 412);
    put("from-tomorrow.txt", "x");
    utimesSync(join(root, "from-tomorrow.txt"), 4e9, 4e9);
    // Until it is kept in memory, and its date with it.
    const tomorrow = async () => {
      const date = (await ask("/from-tomorrow.txt")).fields.get("last-modified") ?? "";
      assert.ok(Date.parse(date) <= Date.now(), date);
      return (await ask("/from-tomorrow.txt", [`If-Modified-Since: ${date}`])).status;
    };
    await within(
      (async () => {
        while ((await tomorrow()) !== 304);
      })(),
      "a 304",
    );
    put("retagged.txt", "one");
    const before = (await ask("/retagged.txt")).fields.get("etag");
    put("retagged.txt", "two!");
    assert.notEqual((await ask("/retagged.txt")).fields.get("etag"), before);
  });

  test("206 for one range, from memory and from disk; 416; If-Range", async () => {
    for (const [range, contentRange, body] of [
      ["bytes=2-4", "bytes 2-4/10", "234"],
      ["bytes=8-", "bytes 8-9/10", "89"],
      ["bytes=-1", "bytes 9-9/10", "9"],
    ] as const) {
      const answer = await ask("/digits.txt", [`Range: ${range}`]);
      assert.deepEqual(
        [answer.status, answer.fields.get("content-range"), answer.body],
        [206, contentRange, body],
      );
      assert.equal(answer.fields.get("content-length"), String(body.length));
    }
    const far = await ask("/digits.txt", ["Range: bytes=10-"]);
    assert.deepEqual([far.status, far.fields.get("content-range")], [416, "bytes */10"]);
    const large = await ask("/large.bin", ["Range: bytes=100000-299999"]);
    assert.ok(Buffer.from(large.body, "latin1").equals(LARGE.subarray(100_000, 300_000)));
    const etag = (await ask("/digits.txt")).fields.get("etag");
    assert.equal((await ask("/digits.txt", ["Range: bytes=0-0", `If-Range: ${etag}`])).status, 206);
    assert.equal((await ask("/digits.txt", ["Range: bytes=0-0", 'If-Range: "x"'])).status, 200);
    assert.equal((await ask("/digits.txt", ["Range: lines=0-0"])).status, 200);
  });

  test("several ranges are parts, each with its own range", async () => {
    for (const target of ["/digits.txt", "/large.bin"]) {
      const content = target === "/digits.txt" ? "0123456789" : LARGE.toString("latin1");
      const { status, fields, body } = await ask(target, ["Range: bytes=0-1,5-5,-2"]);
      assert.equal(status, 206);
      const boundary = /^multipart\/byteranges; boundary=(\S+)$/.exec(fields.get("content-type") ?? "")?.[1];
      const parts = body.split(`--${boundary}`);
      assert.equal(parts.at(-1), "--\r\n");
      const bodies = parts
        .slice(1, -1)
        .map((part) =>
          /^\r\nContent-Type: .*\r\nContent-Range: (.*)\r\n\r\n([\s\S]*)\r\n$/.exec(part)?.slice(1),
        );
      const size = content.length;
      assert.deepEqual(bodies, [
        [`bytes 0-1/${size}`, content.slice(0, 2)],
        [`bytes 5-5/${size}`, content.slice(5, 6)],
        [`bytes ${size - 2}-${size - 1}/${size}`, content.slice(-2)],
      ]);
    }
  });

  test("curl: ranges, conditions, HEAD, 100-continue, a resumed download", needs("curl"), async () => {
    const url = `http://127.0.0.1:${server.port}`;
    const curl = (...args: string[]) =>
      runTool("curl", ["--silent", "--show-error", "--max-time", "10", ...args]);
    assert.equal((await curl("--range", "2-4", `${url}/digits.txt`)).stdout, "234");
    assert.match(
      (await curl("--range", "0-1,5-5", `${url}/digits.txt`)).stdout,
      /Content-Range: bytes 5-5\/10/,
    );
    assert.match(
      (await curl("--head", `${url}/`)).stdout,
      /^HTTP\/1.1 200 OK\r\n[\s\S]*Content-Length: 14\r\n/,
    );
    const tags = join(folder, "tags");
    const status = ["--write-out", "%{http_code}", "--output", join(folder, "out")];
    assert.equal((await curl("--etag-save", tags, ...status, `${url}/digits.txt`)).stdout, "200");
    assert.equal((await curl("--etag-compare", tags, ...status, `${url}/digits.txt`)).stdout, "304");
    writeFileSync(join(folder, "half"), LARGE.subarray(0, 1000));
    await curl("--continue-at", "-", "--output", join(folder, "half"), `${url}/large.bin`);
    assert.ok(readFileSync(join(folder, "half")).equals(LARGE));
    const body = ["--data-binary", "@-", "--header", "Expect: 100-continue"];
    const continued = await runTool(
      "curl",
      ["-sv", "-X", "GET", ...body, `${url}/digits.txt`],
      "x".repeat(5000),
    );
    assert.match(continued.stderr, /< HTTP\/1.1 100 Continue[\s\S]*< HTTP\/1.1 200 OK/);
    const refused = await runTool("curl", ["-sv", ...body, `${url}/digits.txt`], "x".repeat(5000));
    assert.match(refused.stderr, /< HTTP\/1.1 405 Method Not Allowed[\s\S]*< Allow: GET, HEAD/);
    assert.doesNotMatch(refused.stderr, /100 Continue/);
  });
});

describe("connections", () => {
  test("pipelined requests are answered in order, however they are split", async () => {
    const mixed = `${GET}HEAD / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc${GET}GET /none HTTP/1.1\r\nHost: a\r\n\r\nGET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n${GET}`;
    const methods = ["GET", "HEAD", "POST"];
    const expected = [200, 200, 405, 200, 404, 200, 200];
    assert.deepEqual(statuses(await answersTo(mixed, methods)), expected);
    const socket = connectSocket({ host: "127.0.0.1", port: server.port });
    const received = socket.toArray();
    await writeSplit(socket, Buffer.from(mixed));
    socket.end();
    const text = Buffer.concat(await within(received, "all answers")).toString("latin1");
    assert.deepEqual(
      [...text.matchAll(/HTTP\/1\.1 (\d+) /g)].map(([, status]) => Number(status)),
      expected,
    );
    const many = await answersTo(GET.repeat(2000));
    assert.equal(many.length, 2000);
    assert.ok(many.every(({ status, body }) => status === 200 && body === "0123456789"));
  });

  test("persistence: by version and by what the client wants", async () => {
    const cases: [head: string, answers: number, option: string | undefined][] = [
      ["GET / HTTP/1.1\r\nHost: a", 2, undefined],
      ["GET / HTTP/1.1\r\nHost: a\r\nConnection: close", 1, "close"],
      ["GET / HTTP/1.0", 1, "close"],
      ["GET / HTTP/1.0\r\nConnection: keep-alive", 2, "keep-alive"],
    ];
    for (const [head, count, option] of cases) {
      const answers = await answersTo(`${head}\r\n\r\n`.repeat(2));
      assert.equal(answers.length, count, head);
      assert.equal(answers[0]?.fields.get("connection"), option, head);
      assert.equal(answers[0]?.body, PAGE);
    }
  });

  test("Expect: 100-continue is answered before the body comes; another expectation is 417", async () => {
    await using connection = await client();
    const head = "GET /digits.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n";
    for (let i = 0; i < 2; i++) {
      await connection.write(head);
      assert.equal((await readResponse(connection))?.status, 100);
      await connection.write("hello");
      assert.equal((await readAnswer(connection))?.body, "0123456789");
    }
    // A refused one is told at once, and need not send its body: what would follow could not be told from it.
    await using refused = await client();
    await refused.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    const refusal = await readAnswer(refused);
    assert.deepEqual([refusal?.status, refusal?.fields.get("connection")], [405, "close"]);
    assert.equal(await refused.read(), undefined);
    // With the body there already, the 100 is left out (RFC 9110 §10.1.1).
    assert.deepEqual(statuses(await answersTo(`${head}hello`)), [200]);
    assert.equal((await ask("/", ["Expect: magic"])).status, 417);
    assert.equal((await ask("/", ["Expect: 100-continue"])).status, 200);
    assert.deepEqual(statuses(await answersTo("GET / HTTP/1.0\r\nExpect: magic\r\n\r\n")), [200]);
  });

  test("a body is read and dropped, within a limit", async () => {
    const chunked = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert.deepEqual(statuses(await answersTo(chunked + GET)), [200, 200]);
    const large = `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${MEBIBYTE}\r\n\r\n${"x".repeat(MEBIBYTE)}`;
    assert.deepEqual(statuses(await answersTo(large + GET)), [405, 200]);
    const tooLarge = `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${MEBIBYTE + 1}\r\n\r\nxxx`;
    assert.deepEqual(statuses(await answersTo(tooLarge)), [413]);
    const chunks = `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${`10000\r\n${"x".repeat(65_536)}\r\n`.repeat(17)}`;
    assert.deepEqual(statuses(await answersTo(chunks)), [413]);
  });

  test("what is no request, or could be read in two ways, is refused and the connection closed", async () => {
    const cases: [bytes: string, status: number][] = [
      ["nonsense\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400],
      ["GET / HTTP/1.1\nHost: a\n\r\n\r\n", 400],
      ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400],
      ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400],
      ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd", 400],
      ["POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400],
      ["POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400],
      ["POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501],
      ["GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505],
      [`GET /${"a".repeat(9000)} HTTP/1.1\r\nHost: a\r\n\r\n`, 414],
      [`GET /${"a".repeat(70_000)} HTTP/1.1\r\nHost: a\r\n\r\n`, 414],
      [`GET / HTTP/1.1\r\nHost: a\r\nX: ${"a".repeat(70_000)}\r\n\r\n`, 431],
      ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400],
    ];
    for (const [bytes, status] of cases) {
      const answers = await answersTo(bytes + GET);
      assert.deepEqual(statuses(answers), [status], bytes.slice(0, 90));
      assert.equal(answers[0]?.fields.get("connection"), "close");
      assert.ok(answers[0]?.fields.get("date"));
    }
    assert.deepEqual(statuses(await answersTo(`GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n${GET}`)), [400]);
    for (const [method, status] of [
      ["DELETE", 405],
      ["TRACE", 405],
      ["BREW", 501],
      ["get", 501],
    ] as const) {
      const answer = await ask("/", [], method);
      assert.deepEqual(
        [answer.status, answer.fields.get("allow")],
        [status, status === 405 ? "GET, HEAD" : undefined],
      );
    }
  });

  test("a check of framing catches a server that lies about the length", async () => {
    const liar = createServer((socket) => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nshort"));
    liar.listen(0, "127.0.0.1");
    await once(liar, "listening");
    await assert.rejects(answersTo(GET, [], (liar.address() as { port: number }).port), {
      name: "UnexpectedEndError",
    });
    liar.close();
  });

  test("a small file and its head are one write: they arrive in one piece", async () => {
    const socket = connectSocket({ host: "127.0.0.1", port: server.port, noDelay: true });
    for (const [target, size] of [
      ["/digits.txt", 10],
      ["/sub/", 3],
    ] as const) {
      for (const extra of ["", "Range: bytes=0-99\r\n"]) {
        socket.write(`GET ${target} HTTP/1.1\r\nHost: a\r\n${extra}\r\n`);
        const [piece] = (await within(once(socket, "data"), "a response")) as [Buffer];
        assert.equal(piece.length - piece.indexOf("\r\n\r\n") - 4, size);
      }
    }
    socket.destroy();
  });

  test("resets and garbage cost their own connection only; 500 clients at once", async () => {
    for (let i = 0; i < 20; i++) {
      const socket = connectSocket({ host: "127.0.0.1", port: server.port });
      socket.on("error", () => {});
      socket.write("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20));
      await within(once(socket, "data"), "the beginning");
      socket.resetAndDestroy();
    }
    const answers = await Promise.all(Array.from({ length: 500 }, () => ask("/digits.txt")));
    assert.ok(answers.every(({ body }) => body === "0123456789"));
  });
});

const memoryBytes = ({ child }: Running, which = "VmRSS") =>
  1024 *
  Number(new RegExp(`${which}:\\s+(\\d+)`).exec(readFileSync(`/proc/${child.pid}/status`, "latin1"))?.[1]);

describe("large files", () => {
  test("4 GiB: the end of it, and its middle as it comes, with flat memory", onLinux, async () => {
    const end = await ask("/sparse.bin", [`Range: bytes=${4 * GIBIBYTE - 5}-`]);
    assert.deepEqual([end.status, end.body], [206, "\0".repeat(5)]);
    assert.equal(
      end.fields.get("content-range"),
      `bytes ${4 * GIBIBYTE - 5}-${4 * GIBIBYTE - 1}/${4 * GIBIBYTE}`,
    );
    const before = memoryBytes(server);
    await using connection = await client();
    await connection.write("GET /sparse.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    const head = await readResponse(connection);
    assert.equal(head?.fields.get("content-length"), String(4 * GIBIBYTE));
    for (let left = 256 * MEBIBYTE; left > 0; ) left -= (await connection.read())?.length ?? left + 1;
    const grown = memoryBytes(server) - before;
    assert.ok(grown < 64 * MEBIBYTE, `${Math.round(grown / MEBIBYTE)} MiB more`);
    connection.destroy();
  });

  test("a client that stops reading stops the reading of the file", onLinux, async () => {
    const sockets = await Promise.all(
      Array.from({ length: 30 }, async () => {
        const socket = connectSocket({ host: "127.0.0.1", port: server.port });
        socket.on("error", () => {});
        socket.write("GET /sparse.bin HTTP/1.1\r\nHost: a\r\n\r\n");
        await within(once(socket, "data"), "the beginning");
        socket.pause();
        return socket;
      }),
    );
    assert.equal((await ask("/digits.txt")).status, 200);
    assert.ok(memoryBytes(server) < 400 * MEBIBYTE, `${memoryBytes(server) / MEBIBYTE} MiB`);
    for (const socket of sockets) socket.destroy();
  });

  test("a client that reads late gets what it asked for: no buffer is filled again before it has gone", async () => {
    const starts = Array.from({ length: 4000 }, (_, i) => (i * 61) % 290_000);
    const socket = connectSocket({ host: "127.0.0.1", port: server.port });
    const asked = starts.map(
      (from) => `GET /large.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=${from}-${from + 2999}\r\n\r\n`,
    );
    socket.end(asked.join(""));
    await within(once(socket, "readable"), "the beginning");
    for (let i = 0; i < 20; i++) await ask("/large.bin"); // meanwhile, others are served
    const received = Buffer.concat(await within(socket.toArray(), "all parts"));
    let at = 0;
    for (const from of starts) {
      at = received.indexOf("\r\n\r\n", at) + 4;
      assert.ok(received.subarray(at, at + 3000).equals(LARGE.subarray(from, from + 3000)), `from ${from}`);
      at += 3000;
    }
    assert.equal(at, received.length);
  });

  test("what is opened for a request is closed after it, however it ends", onLinux, async () => {
    const open = () => readdirSync(`/proc/${server.child.pid}/fd`).length;
    await ask("/digits.txt");
    const before = open();
    for (let i = 0; i < 30; i++) {
      await ask("/large.bin");
      await ask("/none");
      const socket = connectSocket({ host: "127.0.0.1", port: server.port });
      socket.write("GET /sparse.bin HTTP/1.1\r\nHost: a\r\n\r\n");
      await within(once(socket, "data"), "the beginning");
      socket.resetAndDestroy();
    }
    await within(
      (async () => {
        while (open() > before + 5) await ask("/digits.txt");
      })(),
      "the end of what was opened",
    );
  });

  test("a file that shrinks while it is served: the connection ends before the length that was said", async () => {
    put("shrinking.bin", Buffer.alloc(64 * MEBIBYTE));
    await using connection = await client();
    await connection.write("GET /shrinking.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    const head = await readResponse(connection);
    assert.equal(head?.fields.get("content-length"), String(64 * MEBIBYTE));
    truncateSync(join(root, "shrinking.bin"), 1000);
    let received = 0;
    const reading = (async () => {
      for (let chunk = await connection.read(); chunk !== undefined; chunk = await connection.read())
        received += chunk.length;
    })();
    await reading.catch((error: unknown) => assert.match(`${error}`, /reset|ECONNRESET/));
    assert.ok(received < 64 * MEBIBYTE, `${received} bytes`);
    await server.output(/a file shrank while it was sent/, "stderr");
    assert.equal((await ask("/digits.txt")).status, 200);
  });
});

describe("slow and many clients", () => {
  test("1,000 clients that send a byte at a time are cut off with 408, and a normal one beside them is not harmed", async () => {
    await using own = await start(SERVER, ["--root", root, "--port", 0, "--header-timeout", 3]);
    const slow: { socket: Socket; received: Promise<Buffer[]> }[] = [];
    for (let i = 0; i < 1000; i++) {
      const socket = connectSocket({ host: "127.0.0.1", port: own.port });
      socket.on("error", () => {});
      slow.push({ socket, received: socket.toArray().catch(() => []) });
    }
    await Promise.all(slow.map(({ socket }) => once(socket, "connect")));
    for (const { socket } of slow) socket.write("GET / HTTP/1.1\r\n");
    const drip = setInterval(() => {
      for (const { socket } of slow) if (socket.writable) socket.write("X");
    }, 400);
    await using normal = await client(own.port);
    let asked = 0;
    const ends = Promise.all(slow.map(({ received }) => received));
    const all = ends.then(() => true);
    let finished = false;
    void all.then(() => {
      finished = true;
    });
    while (!finished) {
      await normal.write(GET);
      assert.equal((await readAnswer(normal))?.status, 200);
      asked++;
    }
    clearInterval(drip);
    assert.ok(asked > 100, `${asked} requests of the normal client`);
    const answered = (await ends).filter((chunks) =>
      /^HTTP\/1.1 408 /.test(Buffer.concat(chunks).toString()),
    );
    assert.ok(answered.length > 900, `${answered.length} of 1,000 were told 408`);
  });

  test("an idle connection is closed without a word after --keep-alive-timeout, a silent one after --header-timeout", async () => {
    await using own = await start(SERVER, [
      "--root",
      root,
      "--port",
      0,
      "--header-timeout",
      1,
      "--keep-alive-timeout",
      1,
    ]);
    await using silent = await client(own.port);
    await using idle = await client(own.port);
    await idle.write(GET);
    assert.equal((await readAnswer(idle))?.status, 200);
    assert.equal(await idle.read(), undefined);
    assert.equal(await silent.read(), undefined);
    await using half = await client(own.port);
    await half.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert.equal((await readAnswer(half))?.status, 408);
    // However busily: what is sent drop by drop stands in the body, between its chunks, or behind them.
    const chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (const start of ["ff\r\n", "3;", "0\r\nX: "]) {
      await using dripping = await client(own.port);
      await dripping.write(chunked + start);
      const drip = setInterval(() => void dripping.write("a").catch(() => {}), 50);
      assert.equal((await within(readAnswer(dripping), `a 408 for ${start}`))?.status, 408);
      clearInterval(drip);
    }
  });

  test("after a request with a body, a connection may be idle for --keep-alive-timeout, not --header-timeout", async () => {
    await using own = await start(SERVER, ["--root", root, "--port", 0, "--header-timeout", 1]);
    await using one = await client(own.port);
    for (const request of [
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
      "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
      GET,
    ]) {
      await one.write(request);
      assert.ok((await readAnswer(one, request.split(" ")[0])) !== undefined, request);
      for (const end = performance.now() + 1300; performance.now() < end; )
        await answersTo(GET, [], own.port);
    }
    await one.write(GET);
    assert.equal((await readAnswer(one))?.status, 200);
  });

  test("--max-connections: one more is closed, and there is room again when one has gone", async () => {
    await using own = await start(SERVER, ["--root", root, "--port", 0, "--max-connections", 2]);
    const clients = [await client(own.port), await client(own.port)];
    for (const one of clients) {
      await one.write(GET);
      assert.equal((await readAnswer(one))?.status, 200);
    }
    await using third = await client(own.port);
    await assert.rejects(async () => {
      await third.write(GET);
      assert.ok((await third.read()) !== undefined, "closed");
    });
    await own.output(/refused, 2 clients are connected/, "stderr");
    await clients[0]?.close();
    await within(
      (async () => {
        while ((await answersTo(GET, [], own.port).catch(() => [])).length === 0);
      })(),
      "room for one more",
    );
    clients[1]?.destroy();
  });
});

describe("the program", () => {
  test("--access-log: a line for each request, in the Combined Log Format", async () => {
    const path = join(folder, "access.log");
    await using own = await start(SERVER, ["--root", root, "--port", 0, "--access-log", path]);
    await answersTo(
      `${GET}GET /none HTTP/1.1\r\nHost: a\r\nReferer: http://r/\r\nUser-Agent: U "2"\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\n\r\nbad\r\n\r\n`,
      ["GET", "GET", "HEAD"],
      own.port,
    );
    assert.equal(await own.stop(), 0);
    const lines = readFileSync(path, "utf8").trim().split("\n");
    const time = "\\[\\d\\d/\\w{3}/\\d{4}:\\d\\d:\\d\\d:\\d\\d \\+0000\\]";
    const expected = [
      '"GET /digits.txt HTTP/1.1" 200 10 "-" "-"',
      '"GET /none HTTP/1.1" 404 23 "http://r/" "U \\\\x222\\\\x22"',
      '"HEAD / HTTP/1.1" 200 - "-" "-"',
      '"-" 400 \\d+ "-" "-"',
    ];
    for (const [i, line] of expected.entries())
      assert.match(lines[i] ?? "", new RegExp(`^127\\.0\\.0\\.1 - - ${time} ${line}$`));
    assert.equal(lines.length, expected.length);
  });

  test("--access-log: a download that was broken off has its line, too, with what was sent", async () => {
    const path = join(folder, "broken.log");
    await using own = await start(SERVER, ["--root", root, "--port", 0, "--access-log", path]);
    await using broken = await client(own.port);
    await broken.write(GET.replace("digits.txt", "sparse.bin"));
    for (let left = 2 * MEBIBYTE; left > 0; ) left -= (await broken.read())?.length ?? left;
    broken.destroy();
    await own.output(/reset|closed/, "stderr");
    assert.equal(await own.stop(), 0);
    const line = /"GET \/sparse.bin HTTP\/1.1" 200 (\d+) "-" "-"\n$/.exec(readFileSync(path, "utf8"));
    const sentBytes = Number(line?.[1]);
    assert.ok(sentBytes > MEBIBYTE && sentBytes < GIBIBYTE, `${sentBytes} bytes`);
  });

  test(
    "--workers: several processes behind one port, one ready line, one end; one that dies is replaced",
    onLinux,
    async () => {
      await using own = await start(SERVER, ["--root", root, "--port", 0, "--workers", 2, "--verbose"]);
      const pids = () => [...own.stderr.matchAll(/^worker (\d+) serves$/gm)].map(([, pid]) => Number(pid));
      const isServed = async () => {
        const answers = await Promise.all(Array.from({ length: 50 }, () => answersTo(GET, [], own.port)));
        return answers.every(([answer]) => answer?.body === "0123456789");
      };
      assert.ok(await isServed());
      assert.equal(own.urls.length, 1);
      const [victim = 0] = pids();
      process.kill(victim, "SIGKILL");
      await own.output(
        new RegExp(`^worker ${victim} has ended \\(SIGKILL\\), another takes its place$`, "m"),
        "stderr",
      );
      await own.output(/(?:^worker \d+ serves\n(?:.*\n)*?){3}/m, "stderr");
      assert.ok(await isServed());
      assert.equal(own.urls.length, 1);
      assert.equal(await own.stop(), 0);
      for (const pid of pids()) assert.throws(() => process.kill(pid, 0), /ESRCH/);
      const { code, stderr } = await run(SERVER, ["--root", root, "--port", server.port, "--workers", 2]);
      assert.equal(code, 1);
      assert.match(stderr, /^error: a worker could not start \(exit code 1\)$/m);
    },
  );

  test("SIGTERM: what was asked for is still answered, an idle client sees the end, exit code 0", async () => {
    await using own = await start(SERVER, ["--root", root, "--port", 0]);
    await using idle = await client(own.port);
    await idle.write(GET);
    assert.equal((await readAnswer(idle))?.status, 200);
    await using busy = await client(own.port);
    await busy.write("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    const head = await readResponse(busy);
    own.kill("SIGTERM");
    let received = 0;
    for await (const chunk of readBody(busy, responseFraming(head as ResponseHead, "GET")))
      received += chunk.length;
    assert.equal(received, LARGE.length);
    assert.equal(await idle.read(), undefined);
    assert.equal(await busy.read(), undefined);
    for (const one of [idle, busy]) await one.close();
    assert.equal((await within(own.exited, "the end")).code, 0);
    await using stuck = await start(SERVER, ["--root", root, "--port", 0]);
    const socket = connectSocket({ host: "127.0.0.1", port: stuck.port });
    socket.on("error", () => {});
    socket.write("GET /sparse.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    await within(once(socket, "data"), "the beginning");
    socket.pause();
    assert.equal(await stuck.stop(), 0);
    socket.destroy();
  });

  test("errors of use are one line", async () => {
    for (const [args, code, line] of [
      [
        ["--root", join(folder, "nowhere")],
        1,
        /^error: cannot serve .*nowhere: no such file or directory \(ENOENT\)$/m,
      ],
      [["--root", join(root, "digits.txt")], 1, /^error: cannot serve .*: it is not a directory$/m],
      [["--access-log", join(folder, "no", "log")], 1, /^error: cannot write .*: no such file/m],
      [["--workers", "0"], 2, /^error: --workers "0" is not a whole number/m],
      [["--port", "x"], 2, /^error: --port "x" is not a port/m],
      [["--port", String(server.port)], 1, /^error: cannot listen on .* address already in use/m],
    ] as const) {
      const { code: actual, stderr } = await run(SERVER, ["--port", 0, ...args]);
      assert.equal(actual, code, stderr);
      assert.match(stderr, line);
    }
  });
});

describe("a real browser", needs("chromium"), () => {
  const PUBLIC = join(import.meta.dirname, "public");
  const styleOf = (page: Page, selector: string, property: string) =>
    page.evaluate<string>(`getComputedStyle(document.querySelector("${selector}")).${property}`);

  test("the page, its style, its image and the page for 404 are rendered; a reload is a 304", async () => {
    const path = join(folder, "browser.log");
    await using own = await start(SERVER, ["--root", PUBLIC, "--port", 0, "--access-log", path]);
    const url = `http://127.0.0.1:${own.port}`;
    await inBrowser(async (page) => {
      const problems: string[] = [];
      page.on("requestfailed", (request) => problems.push(request.url()));
      page.on("pageerror", (error) => problems.push(`${error}`));
      assert.equal((await page.goto(`${url}/`))?.status(), 200);
      assert.equal(await page.textContent("h1"), "It works");
      assert.equal(await styleOf(page, "main", "borderTopColor"), "rgb(42, 127, 142)");
      assert.ok((await page.evaluate<number>(`document.querySelector("img").naturalWidth`)) > 0, "the image");
      await page.reload();
      await page.click("a");
      await page.waitForURL(`${url}/nothing-here`);
      assert.equal(await page.textContent("h1"), "404: not found");
      assert.equal(await styleOf(page, "main", "borderTopColor"), "rgb(181, 69, 44)");
      // Its style is found from any depth.
      assert.equal((await page.goto(`${url}/no/such/page`))?.status(), 404);
      assert.equal(await styleOf(page, "main", "borderTopColor"), "rgb(181, 69, 44)");
      assert.deepEqual(problems, []);
    });
    assert.equal(await own.stop(), 0);
    const log = readFileSync(path, "utf8");
    for (const request of [
      '"GET / HTTP/1.1" 200',
      '"GET /style.css HTTP/1.1" 200',
      '"GET /segment.svg HTTP/1.1" 200',
      '"GET / HTTP/1.1" 304',
      '"GET /nothing-here HTTP/1.1" 404',
    ]) {
      assert.ok(log.includes(request), `${request} in\n${log}`);
    }
  });
});
