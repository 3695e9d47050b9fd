/** The same bytes as curl and wget, from servers of every kind; and broken bodies, which nobody may take for whole. */
import { strict as assert } from "node:assert";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from "node:zlib";
import { connect } from "../../shared/tcp.ts";
import {
  freePort,
  needs,
  PATIENCE_MS,
  Running,
  run,
  runTool,
  splitAt,
  start,
  tcpRelay,
} from "../../shared/testing.ts";
import { fetchHere } from "./in-process.ts";
import { ok, redirect, type Script, ScriptedServer } from "./scripted-server.ts";

const folder = mkdtempSync(join(tmpdir(), "netlab-wget-"));
after(() => rmSync(folder, { recursive: true }));
const BIG = Buffer.from(Array.from({ length: 1_500_000 }, (_, i) => (i * 167 + (i >> 8) * 31) & 255));
const TEXT = "En un lugar de la Mancha, de cuyo nombre no quiero acordarme. ".repeat(400);
const root = join(folder, "root");

before(() => {
  for (const name of [root, join(root, "sub")]) mkdirSync(name);
  for (const [name, content] of [
    ["index.html", "<h1>index</h1>"],
    ["sub/index.html", "sub"],
    ["big.bin", BIG],
    ["empty", ""],
    ["a b.txt", TEXT],
  ] as const)
    writeFileSync(join(root, name), content);
});

/** What each client gets; `undefined` where it says that it failed. */
interface Client {
  name: string;
  get: (url: string, compressed: boolean) => Promise<Buffer | undefined>;
}
const tool =
  (name: string, args: string[], compressedArgs: string[]): Client["get"] =>
  async (url, compressed) => {
    const { code, bytes } = await runTool(name, [...args, ...(compressed ? compressedArgs : []), url]);
    return code === 0 ? bytes : undefined;
  };
const ours: Client = {
  name: "ours",
  get: async (url, compressed) => {
    const { code, body } = await fetchHere(url, { compressed });
    return code === 0 ? Buffer.from(body ?? "", "latin1") : undefined;
  },
};
const curl: Client = {
  name: "curl",
  get: tool("curl", ["-sSLf", "--noproxy", "*", "--max-time", "10"], ["--compressed"]),
};
const wget: Client = {
  name: "wget",
  get: tool(
    "wget",
    ["-q", "-O", "-", "--no-proxy", "--tries=1", "--timeout=10", "--no-config"],
    ["--compression=auto"],
  ),
};

/** All get `expected`, which is `undefined` where they should fail. */
async function agree(
  clients: Client[],
  url: string,
  expected: string | Buffer | undefined,
  compressed = false,
): Promise<void> {
  const wanted = expected === undefined ? undefined : Buffer.from(expected as string, "latin1");
  for (const { name, get } of clients) {
    const got = await get(url, compressed);
    const isRight = got === undefined || wanted === undefined ? got === wanted : got.equals(wanted);
    assert.ok(isRight, `${name}, ${url}: ${got?.length} bytes rather than ${wanted?.length}`);
  }
}

const FILES = [
  ["/", "<h1>index</h1>"],
  ["/sub", "sub"],
  ["/sub/", "sub"],
  ["/big.bin", BIG],
  ["/empty", ""],
  ["/a%20b.txt?x#y", TEXT],
  ["/missing", undefined],
] as const;

describe("the same bytes as curl and wget", { concurrency: true }, () => {
  test("from our own server", needs("curl", "wget"), async () => {
    await using server = await start("exercises/06-http-server/server.ts", ["--root", root, "--port", 0]);
    for (const [path, body] of FILES)
      await agree([ours, curl, wget], `http://127.0.0.1:${server.port}${path}`, body);
  });

  test("from nginx", needs("curl", "wget", "nginx"), async () => {
    const port = await freePort();
    const config = `daemon off; master_process off; pid ${folder}/nginx.pid; error_log ${folder}/error.log;
      events {} http { access_log off; types { text/plain txt; } gzip on; gzip_min_length 10; gzip_types text/plain;
      client_body_temp_path ${folder}/1; proxy_temp_path ${folder}/2; fastcgi_temp_path ${folder}/3; uwsgi_temp_path ${folder}/4;
      scgi_temp_path ${folder}/5; server { listen 127.0.0.1:${port}; root ${root}; } }`;
    writeFileSync(join(folder, "nginx.conf"), config);
    await using nginx = new Running("nginx", ["-c", join(folder, "nginx.conf")], {});
    const isUp = () =>
      connect({ host: "127.0.0.1", port }).then(
        (connection) => connection.close().then(() => true),
        () => false,
      );
    for (const endMs = Date.now() + PATIENCE_MS; !(await isUp()); )
      assert.ok(Date.now() < endMs && nginx.child.exitCode === null, nginx.stderr);
    for (const [path, body] of FILES)
      await agree([ours, curl, wget], `http://127.0.0.1:${port}${path}`, body);
    await agree([ours, curl, wget], `http://127.0.0.1:${port}/a%20b.txt`, TEXT, true);
  });

  test(
    "from node:http: lengths, chunks, codings, redirections, HTTP/1.0",
    needs("curl", "wget"),
    async () => {
      const server = createServer((request, response) => {
        const { pathname } = new URL(request.url ?? "", "http://a");
        const [, kind, status] = /^\/(\w+)\/?(\d*)/.exec(pathname) ?? [];
        if (kind === "chunks") {
          for (let at = 0; at < BIG.length; at += 99_999) response.write(BIG.subarray(at, at + 99_999));
          return response.end();
        }
        if (kind === "close") return response.writeHead(200, { Connection: "close" }).end(TEXT);
        if (kind === "to")
          return response.writeHead(Number(status), { Location: "../chunks" }).end("elsewhere");
        const coders = {
          gzip: gzipSync,
          deflate: deflateSync,
          rawdeflate: deflateRawSync,
          br: brotliCompressSync,
        };
        const coder = coders[kind as keyof typeof coders];
        if (coder === undefined) return response.writeHead(404).end("no");
        return response.writeHead(200, { "Content-Encoding": kind?.replace("raw", "") }).end(coder(TEXT));
      }).listen(0, "127.0.0.1");
      await once(server, "listening");
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      await agree([ours, curl, wget], `${url}/chunks`, BIG);
      await agree([ours, curl, wget], `${url}/close`, TEXT);
      await agree([ours, curl, wget], `${url}/missing`, undefined);
      for (const status of [301, 302, 303, 307, 308])
        await agree([ours, curl, wget], `${url}/to/${status}`, BIG);
      for (const [coding, encoded] of [
        ["gzip", gzipSync(TEXT)],
        ["deflate", deflateSync(TEXT)],
        ["br", brotliCompressSync(TEXT)],
      ] as const) {
        await agree([ours, curl, wget], `${url}/${coding}`, encoded);
        await agree(coding === "gzip" ? [ours, curl, wget] : [ours, curl], `${url}/${coding}`, TEXT, true);
      }
      await agree([ours, curl], `${url}/rawdeflate`, TEXT, true);
      server.close();
      server.closeAllConnections();
    },
  );

  test("from a server that goes to the limits of what is allowed", needs("curl", "wget"), async () => {
    const answers: Record<string, [bytes: string | Buffer, body: string]> = {
      "/old": [`HTTP/1.0 200 OK\r\n\r\n${TEXT}`, TEXT],
      "/old-length": ["HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"],
      "/no-reason": ["HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc", "abc"],
      "/interim": [
        "HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "abc",
      ],
      "/chunked": [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n03;a=b\r\nabc\r\n1\r\nd\r\n0\r\nX: y\r\n\r\n",
        "abcd",
      ],
      "/until-close": ["HTTP/1.1 200 OK\r\n\r\nabc", "abc"],
      "/more-than-said": ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", "abc"],
      "/folded": ["HTTP/1.1 200 OK\r\nX: a\r\n  b\r\nContent-Length: 3\r\n\r\nabc", "abc"],
      "/relative": [redirect("./a/../old", 302, "Connection: close\r\n"), TEXT],
      "/absolute": [redirect("/old", 308, "Connection: close\r\n"), TEXT],
    };
    await using server = await ScriptedServer.start(({ target }) => ({
      bytes: answers[target]?.[0] ?? ok("", "", "404 No"),
      after: "end",
    }));
    for (const [path, [, body]] of Object.entries(answers))
      await agree([ours, curl, wget], server.url + path, body);
    for (const path of ["/old", "/until-close"])
      assert.match(
        (await fetchHere(server.url + path)).said,
        /no length was said: the connection's end is taken for/,
      );
    await using bytewise = await tcpRelay(server.port, splitAt(1));
    for (const path of ["/old-length", "/interim", "/chunked", "/folded", "/more-than-said"])
      await agree([ours], `http://127.0.0.1:${bytewise.port}${path}`, answers[path]?.[1]);
  });
});

test("a head that comes a byte at a time is given as long as anything else", async () => {
  const server = createTcpServer((socket) => {
    const drip = setInterval(() => socket.write("A"), 20);
    socket.on("error", () => {}).on("close", () => clearInterval(drip));
    socket.write("HTTP/1.1 200 OK\r\n");
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const got = await fetchHere(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`, {
    timeoutMs: 500,
  });
  server.close();
  assert.deepEqual([got.code, got.files], [4, []], got.said);
  assert.match(got.said, / (?:took longer than|sent nothing for) \d+(?:\.\d+)? ms$/);
});

describe("a body that is not whole is nobody's file", { concurrency: true }, () => {
  const CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  const broken: Record<string, [bytes: string, reason: RegExp, hasPart: boolean]> = {
    "/short": [
      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
      /^the body ended 7 of 10 bytes early$/m,
      true,
    ],
    "/short-chunk": [`${CHUNKED}a\r\nabc`, /ended 7 of 10 bytes early/, true],
    "/no-last-chunk": [`${CHUNKED}3\r\nabc\r\n`, /ended before its last chunk/, true],
    "/no-size": [`${CHUNKED}3\r\nabc\r\nxyz\r\n`, /a malformed chunk size: "xyz"/, true],
    "/long-chunk": [`${CHUNKED}3\r\nabcd\r\n0\r\n\r\n`, / is longer than /, true],
    "/two-lengths": [
      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
      /Content-Length: 3, 4/,
      false,
    ],
    "/length-and-chunks": [
      CHUNKED.replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
      /both /,
      false,
    ],
    "/no-number": ["HTTP/1.1 200 OK\r\nContent-Length: 3x\r\n\r\nabc", /Content-Length: 3x/, false],
    "/other-coding": [
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
      /Transfer-Encoding: gzip/,
      false,
    ],
    "/half-head": ["HTTP/1.1 200 OK\r\nA: b", /in the middle of a head/, false],
    "/large-head": [`HTTP/1.1 200 OK\r\nA: ${"b".repeat(70_000)}\r\n\r\n`, /more than 65536 bytes/, false],
    "/endless-head": [`HTTP/1.1 200 OK\r\n${"A: b\r\n".repeat(20_000)}`, /more than 65536 bytes/, false],
    "/endless-interim": ["HTTP/1.1 103 Early\r\n\r\n".repeat(200), /more than 100 interim responses/, false],
    "/no-http": ["SSH-2.0-OpenSSH_9.2\r\n\r\n", /a malformed status line: "SSH/, false],
    "/http2": ["HTTP/2.0 200 OK\r\n\r\n", /HTTP version 2\.0/, false],
    "/no-colon": ["HTTP/1.1 200 OK\r\nabc\r\n\r\n", /a malformed field line: "abc"/, false],
    "/bare-cr": ["HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", /a bare CR or LF/, false],
  };
  const script: Script = ({ target }) => ({ bytes: broken[target]?.[0] ?? "", after: "end" });

  test("exit code 1 with the reason; what came is kept in .part", async () => {
    await using server = await ScriptedServer.start(script);
    for (const [path, [, reason, hasPart]] of Object.entries(broken)) {
      const got = await fetchHere(server.url + path);
      assert.deepEqual(
        [got.code, got.files],
        [1, hasPart ? ["a.part", "a.part.json"] : []],
        `${path}: ${got.said}`,
      );
      assert.match(got.said, reason, path);
      if (hasPart) assert.equal(readFileSync(join(got.at, "a.part"), "latin1"), "abc");
    }
  });

  test("as curl says of them, too", needs("curl"), async () => {
    await using server = await ScriptedServer.start(script);
    for (const path of ["/short", "/short-chunk", "/no-last-chunk", "/no-size", "/no-http"])
      await agree([ours, curl], server.url + path, undefined);
  });

  test("a broken compressed body, an unknown coding; nothing at all is nothing", async () => {
    const gzip = gzipSync(TEXT);
    const bodies: Record<string, [bytes: Buffer, coding: string]> = {
      "/cut": [gzip.subarray(0, 50), "gzip"],
      "/garbage": [Buffer.from("this is no gzip"), "gzip"],
      "/br-garbage": [Buffer.from("\xff\xff\xff\xff", "latin1"), "br"],
      "/unknown": [gzip, "zstd"],
      "/layers": [gzip, Array(1000).fill("gzip").join(", ")],
    };
    await using server = await ScriptedServer.start(({ target }) => {
      if (target === "/empty") return ok("", "Content-Encoding: gzip\r\n");
      if (target === "/large") return ok(gzipSync(BIG, { level: 0 }), "Content-Encoding: gzip\r\n");
      if (target === "/twice") return ok(brotliCompressSync(gzip), "Content-Encoding: gzip, br\r\n");
      return ok(
        ...(
          (([bytes, coding]) => [bytes, `Content-Encoding: ${coding}\r\n`]) as (
            b: [Buffer, string],
          ) => [Buffer, string]
        )(bodies[target] ?? [gzip, "gzip"]),
      );
    });
    for (const path of Object.keys(bodies)) {
      const got = await fetchHere(server.url + path, { compressed: true });
      assert.deepEqual([got.code, got.body], [1, undefined], `${path}: ${got.said}`);
      assert.match(got.said, /the body is (?:no proper (?:gzip|br): |coded with zstd|coded 1000 times)/);
    }
    const empty = await fetchHere(`${server.url}/empty`, { compressed: true });
    assert.deepEqual([empty.code, empty.body], [0, ""]);
    assert.equal((await fetchHere(`${server.url}/twice`, { compressed: true })).body, TEXT);
    const large = await fetchHere(`${server.url}/large`, { compressed: true });
    assert.ok(large.body === BIG.toString("latin1"), "more than the receive buffer holds");
    const asked = server.asked[0]?.fields;
    assert.equal(asked?.get("Accept-Encoding"), "gzip, deflate, br");
  });
});

const hasIpv6 = Object.values(networkInterfaces()).some((addresses) =>
  addresses?.some(({ address }) => address === "::1"),
);
test("an IPv6 literal", hasIpv6 ? {} : { skip: "no ::1 on this machine" }, async () => {
  await using server = await ScriptedServer.start(() => ok("six"), { host: "::1" });
  assert.equal((await fetchHere(`http://[::1]:${server.port}/`)).body, "six");
  assert.equal(server.asked[0]?.fields.get("Host"), `[::1]:${server.port}`);
});

test("exit codes as wget's", needs("wget"), async () => {
  await using server = await ScriptedServer.start(({ target }) =>
    ok("x", target === "/401" ? 'WWW-Authenticate: Basic realm="a"\r\n' : "", `${target.slice(1)} No`),
  );
  for (const status of [401, 403, 404, 500]) {
    const theirs = await runTool("wget", [
      "-q",
      "-O",
      "/dev/null",
      "--no-proxy",
      "--tries=1",
      `${server.url}/${status}`,
    ]);
    assert.equal((await fetchHere(`${server.url}/${status}`)).code, theirs.code, String(status));
  }
  const theirs = await runTool("wget", [
    "-q",
    "-O",
    "/dev/null",
    "--no-proxy",
    "--tries=1",
    "http://127.0.0.1:1/",
  ]);
  assert.equal((await fetchHere("http://127.0.0.1:1/")).code, theirs.code);
});

test(
  "memory stays flat while 64 MiB pass, with a length and in chunks",
  process.platform === "linux" ? {} : { skip: "looks into /proc" },
  async () => {
    const zeros = Buffer.alloc(64 * 2 ** 20);
    const frame = (length: number) => `${length.toString(16)}\r\n`;
    const chunk = Buffer.concat([Buffer.from(frame(2 ** 20)), Buffer.alloc(2 ** 20), Buffer.from("\r\n")]);
    const chunked = Buffer.concat([
      Buffer.from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
      ...Array<Buffer>(64).fill(chunk),
      Buffer.from("0\r\n\r\n"),
    ]);
    await using server = await ScriptedServer.start(({ target }) =>
      target === "/chunked" ? chunked : target === "/small" ? ok("x") : ok(zeros),
    );
    const peak = async (path: string) => {
      // Its last act is to tell its peak.
      const code =
        'process.on("exit", () => console.error(require("fs").readFileSync("/proc/self/status", "utf8").match(/VmHWM:.*/)[0]))';
      const preload = join(folder, "peak.cjs");
      writeFileSync(preload, code);
      const { stderr } = await run(
        "exercises/03-wget/wget.ts",
        [server.url + path, "--output", join(folder, "zeros"), "--force", "--quiet"],
        { env: { NODE_OPTIONS: `--require ${preload}`, http_proxy: "" } },
      );
      return Number(/VmHWM:\s+(\d+) kB/.exec(stderr)?.[1]);
    };
    const [small, large, inChunks] = [await peak("/small"), await peak("/large"), await peak("/chunked")];
    for (const kilobytes of [large, inChunks])
      assert.ok(kilobytes > 0 && kilobytes < small + 24_000, `${kilobytes} kB, ${small} kB for one byte`);
  },
);
