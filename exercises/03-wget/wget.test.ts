/** The program as a user runs it, against servers that do right and wrong: files, exit codes, what it says. */
import { strict as assert } from "node:assert";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import {
  type Result,
  resetAfter,
  run,
  type StartOptions,
  start,
  tcpRelay,
  within,
} from "../../shared/testing.ts";
import { fetchHere } from "./in-process.ts";
import { ok, redirect, type Script, ScriptedServer } from "./scripted-server.ts";

const WGET = "exercises/03-wget/wget.ts";
const NO_PROXIES = { http_proxy: "", https_proxy: "", HTTPS_PROXY: "", no_proxy: "", NO_PROXY: "" };
const folder = mkdtempSync(join(tmpdir(), "netlab-wget-"));
after(() => rmSync(folder, { recursive: true }));

interface Outcome extends Result {
  /** The directory that it ran in. */
  at: string;
  files: string[];
  read: (name: string) => string;
}

/** Runs it in a directory of its own, or again in the one that is given. */
async function wget(
  args: (string | number)[],
  at = mkdtempSync(join(folder, "cwd-")),
  env: StartOptions["env"] = {},
): Promise<Outcome> {
  const result = await run(WGET, args, { cwd: at, env: { ...NO_PROXIES, ...env } });
  const read = (name: string) => readFileSync(join(at, name), "latin1");
  return { ...result, at, files: readdirSync(at).toSorted(), read };
}

const serve = (script: Script) => ScriptedServer.start(script);
const BIG = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 167 + (i >> 8) * 31) & 255)).toString(
  "latin1",
);
const ETAG = 'ETag: "v1"\r\n';

describe("a download", { concurrency: true }, () => {
  test("is saved under the URL's name, with the server's time; only that is said", async () => {
    await using server = await serve(() => ok(BIG, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
    const got = await wget([`${server.url}/a/b%20c.txt?d#e`]);
    assert.deepEqual([got.code, got.stdout, got.files], [0, "", ["b c.txt"]]);
    assert.equal(got.read("b c.txt"), BIG);
    assert.equal(statSync(join(got.at, "b c.txt")).mtimeMs, 784_111_777_000);
    assert.match(
      got.stderr,
      /^GET http:\S+\/a\/b%20c\.txt\?d#e\nsaved b c\.txt: 300,000 bytes in \d+\.\d\d s, .*B\/s\n$/,
    );
    const [asked] = server.asked;
    assert.deepEqual([asked?.method, asked?.target], ["GET", "/a/b%20c.txt?d"]);
    assert.deepEqual(
      [...(asked?.fields ?? [])].map(([name]) => name),
      ["Host", "User-Agent", "Accept", "Accept-Encoding"],
    );
  });

  test("to stdout, with --url, --quiet: the body and nothing else", async () => {
    await using server = await serve(() => ok(BIG));
    const got = await wget(["--url", server.url, "--output", "-", "--quiet"]);
    assert.deepEqual([got.code, got.stderr, got.files], [0, "", []]);
    assert.ok(got.bytes.equals(Buffer.from(BIG, "latin1")));
  });

  test("does not overwrite: .1, .2; with --force it does; never a link's target", async () => {
    await using server = await serve((_, number) => ok(`body ${number}`));
    const first = await wget([`${server.url}/a.txt`]);
    await wget([`${server.url}/a.txt`], first.at);
    const third = await wget([`${server.url}/a.txt`, "--output", "a.txt"], first.at);
    assert.deepEqual(third.files, ["a.txt", "a.txt.1", "a.txt.2"]);
    assert.match(third.stderr, /^saved a\.txt\.2: /m);
    const fourth = await wget([`${server.url}/a.txt`, "--force"], first.at);
    assert.deepEqual(third.files, fourth.files);
    assert.deepEqual(["a.txt", "a.txt.1", "a.txt.2"].map(fourth.read), ["body 4", "body 2", "body 3"]);
  });

  test("a server's name stays in this directory, and on its line of the terminal", async () => {
    const value = 'attachment; filename="../../\\x1b[2J.evil"';
    await using server = await serve(() => ok("x", `Content-Disposition: ${value}\r\n`));
    const got = await wget([`${server.url}/a`]);
    assert.deepEqual([got.code, got.files], [0, ["x1b[2J.evil"]]);
    await using percent = await serve(() =>
      ok("x", "Content-Disposition: attachment; filename*=UTF-8''..%2f%1b[2J.evil\r\n"),
    );
    const escaped = await wget([`${percent.url}/a`]);
    assert.deepEqual(escaped.files, ["_[2J.evil"]);
    assert.ok(!escaped.stderr.includes("\x1b"));
  });

  test("--output into a folder that there is not, onto a folder, to /dev/null", async () => {
    await using server = await serve(() => ok("x"));
    const missing = await wget([server.url, "--output", "no/such/file"]);
    assert.deepEqual([missing.code, missing.files], [3, []]);
    assert.match(
      missing.stderr,
      /^error: cannot fetch http\S+: cannot write no\/such\/file\.part: no such file or directory \(ENOENT\)$/m,
    );
    const onto = await wget([server.url, "--output", missing.at, "--force"]);
    assert.deepEqual([onto.code, (await wget([server.url, "--output", missing.at])).code], [3, 3]);
    assert.equal((await wget([server.url, "--output", "/dev/null"])).code, 0);
    const log = await wget([server.url, "--headers-log", "/no/such/log"]);
    assert.deepEqual([log.code, log.files], [3, []]);
  });

  test("nothing is saved where there is no body", async () => {
    await using server = await serve(({ method }) =>
      method === "HEAD" ? "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" : "HTTP/1.1 204 No Content\r\n\r\n",
    );
    const none = await wget([server.url]);
    assert.deepEqual([none.code, none.files], [0, []]);
    const headed = await wget([server.url, "--method", "HEAD", "--output", "-"]);
    assert.deepEqual([headed.code, headed.stdout], [0, ""]);
  });
});

describe("what is sent", { concurrency: true }, () => {
  test("--method, --data, --header, --user-agent", async () => {
    await using server = await serve(() => ok("x"));
    await wget([
      server.url,
      "--data",
      "ä=1",
      "--header",
      "X-A: é",
      "--header",
      "Accept: text/*",
      "--user-agent",
      "me/1",
      "-O",
      "-",
    ]);
    await wget([
      server.url,
      "--method",
      "PUT",
      "--header",
      "Host: virtual",
      "--user-agent",
      "",
      "--output",
      "-",
    ]);
    const [post, put] = server.asked;
    assert.deepEqual(
      [post?.method, post?.body, post?.fields.get("Content-Type")],
      ["POST", "ä=1", "application/x-www-form-urlencoded"],
    );
    assert.deepEqual(
      [post?.fields.get("x-a"), post?.fields.all("Accept"), post?.fields.get("User-Agent")],
      ["Ã©", ["text/*"], "me/1"],
    );
    assert.deepEqual(
      [put?.method, put?.fields.get("Content-Length"), put?.fields.all("Host")],
      ["PUT", "0", ["virtual"]],
    );
    assert.equal(put?.fields.get("User-Agent"), undefined);
  });

  test("a command line that makes no sense: exit code 2, one line, no request", async () => {
    await using server = await serve(() => ok("x"));
    const commands: string[][] = [
      [],
      ["ftp://a/"],
      [server.url, "--port", "1"],
      [server.url, "--header", "no colon"],
      [server.url, "--header", "A: b\r\nC: d"],
      [server.url, "--header", "Content-Length: 3"],
      [server.url, "--method", "GE T"],
      [server.url, "--continue", "--data", "x"],
      [server.url, "--continue", "--output", "-"],
      [server.url, "--proxy", "socks5://x"],
      [server.url, "--ca", "/dev/null"],
    ];
    const results = await Promise.all(commands.map((command) => wget(command)));
    for (const [i, { code, stdout, stderr, files }] of results.entries()) {
      assert.deepEqual([code, stdout, files], [2, "", []], commands[i]?.join(" "));
      assert.match(stderr, /^error: [^\n]+\n$/);
    }
    assert.equal(server.asked.length, 0);
  });
});

describe("exit codes", { concurrency: true }, () => {
  test("8 the server's no, 6 a password is missing, 4 no server, no answer, too late", async () => {
    await using server = await serve(({ target }) => {
      if (target === "/stall")
        return { bytes: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", after: "stall" };
      if (target === "/escape") return "HTTP/1.1 200 \x1b[31m\x9b2J\r\n\r\n";
      if (target === "/silence") return { bytes: "", after: "stall" };
      if (target === "/nothing") return { bytes: "", after: "end" };
      if (target === "/reset") return { bytes: "", after: "reset" };
      return ok("<h1>no</h1>", "", target.slice(1).replaceAll("_", " "));
    });
    const cases: [path: string, code: number, reason: RegExp][] = [
      ["escape", 1, /a malformed status line: "HTTP\/1\.1 200 \\u001b\[31m.2J"$/m],
      ["404_Not_Here", 8, /the server answered 404 Not Here$/m],
      ["500_", 8, /the server answered 500$/m],
      ["304_Not_Modified", 8, /the server answered 304/],
      ["401_Who", 6, /the server answered 401 Who; give /],
      ["206_Part", 1, /though all was asked for/],
      ["101_Other", 1, /a protocol that nobody asked for/],
      ["nothing", 4, /closed the connection without an answer/],
      ["silence", 4, /sent nothing for 300 ms/],
      ["stall", 4, /sent nothing for 300 ms/],
      ["reset", 4, /the connection broke: the peer reset the connection \(ECONNRESET\)/],
    ];
    const waitMs = (path: string) => (path === "silence" || path === "stall" ? 300 : 30_000);
    // All within this process, and some of them as a user would.
    for (const [path, code, reason] of cases) {
      const got = await fetchHere(`${server.url}/${path}`, { timeoutMs: waitMs(path) });
      assert.equal(got.code, code, `${path}: ${got.said}`);
      assert.match(got.said, reason, path);
      assert.deepEqual(got.files, path === "stall" ? ["a.part", "a.part.json"] : [], path);
    }
    const asUser = cases.filter(([path]) => ["escape", "404_Not_Here", "401_Who", "stall"].includes(path));
    const results = await Promise.all(
      asUser.map(([path]) => wget([`${server.url}/${path}`, "--timeout", waitMs(path)])),
    );
    for (const [i, [path, code, reason]] of asUser.entries()) {
      assert.equal(results[i]?.code, code, path);
      assert.match(results[i]?.stderr ?? "", /^[ -~\n]*$/, "nothing moves the cursor");
      assert.match(results[i]?.stderr ?? "", reason, path);
      assert.match(results[i]?.stderr ?? "", /\nerror: cannot fetch http:\/\/127[^\n]*\n$/, path);
      assert.deepEqual(results[i]?.files, path === "stall" ? ["stall.part", "stall.part.json"] : [], path);
    }
    const refused = await wget(["http://127.0.0.1:1/"]);
    assert.deepEqual([refused.code, refused.files], [4, []]);
    assert.match(refused.stderr, /cannot connect to 127\.0\.0\.1:1: connection refused \(ECONNREFUSED\)/);
    assert.equal((await fetchHere("http://no-such-host.invalid/")).code, 4);
  });

  test("Ctrl-C: what is there stays, and the exit code is no success", async () => {
    await using server = await serve(() => ({
      bytes: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",
      after: "stall",
    }));
    const at = mkdtempSync(join(folder, "cwd-"));
    await using running = await start(WGET, [`${server.url}/a`], { servers: 0, cwd: at, env: NO_PROXIES });
    const isThere = () => existsSync(join(at, "a.part")) && statSync(join(at, "a.part")).size === 2;
    const wait = async () => {
      while (!isThere()) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    await within(wait(), "the first bytes");
    running.kill("SIGINT");
    const { code } = await within(running.exited, "its end");
    assert.equal(code, 130);
    assert.match(running.stderr, /a\.part has 2 bytes; go on with --continue\nstopped\n$/);
    assert.equal(readFileSync(join(at, "a.part"), "utf8"), "ab");
  });
});

describe("redirections", { concurrency: true }, () => {
  test("are followed, on one connection where that is kept; POST becomes GET; the first name counts", async () => {
    await using server = await serve(({ target }) =>
      target === "/end" ? ok("x") : redirect(target === "/start" ? "middle" : "/end", 302),
    );
    const got = await wget([`${server.url}/start`, "--data", "secret"]);
    assert.deepEqual([got.code, got.files], [0, ["start"]]);
    assert.deepEqual(
      server.asked.map(({ method, target, body, connection }) => [method, target, body, connection]),
      [
        ["POST", "/start", "secret", 1],
        ["GET", "/middle", "", 1],
        ["GET", "/end", "", 1],
      ],
    );
    assert.match(
      got.stderr,
      /^302 Moved: to http:\S+\/middle\nGET http:\S+\/middle\n302 Moved: to http:\S+\/end\nGET /m,
    );
  });

  test("a circle, too many, and none of them allowed: exit code 8", async () => {
    await using server = await serve(({ target }) =>
      redirect(target === "/a" ? "/b" : target === "/b" ? "/a" : `${target}1`),
    );
    const circle = await wget([`${server.url}/a`]);
    assert.deepEqual([circle.code, server.asked.length], [8, 2]);
    assert.match(circle.stderr, /: the redirections go in a circle: http:\S+\/a again$/m);
    const many = await wget([`${server.url}/1`]);
    assert.deepEqual([many.code, server.asked.length], [8, 23]);
    assert.match(many.stderr, /: more than 20 redirections \(--max-redirects\)$/m);
    const none = await wget([`${server.url}/1`, "--max-redirects", 0]);
    assert.deepEqual([none.code, server.asked.length], [8, 24]);
  });

  test("a kept connection that was closed meanwhile is made anew", async () => {
    await using server = await serve(({ target }) =>
      target === "/a" ? { bytes: redirect("/b"), after: "end" } : ok("x"),
    );
    const got = await wget([`${server.url}/a`, "--output", "-"]);
    assert.deepEqual([got.code, got.stdout, server.asked[1]?.connection], [0, "x", 2], got.stderr);
  });

  test("what is no GET is not risked on a kept connection, as it could not be sent again", async () => {
    await using server = await serve(({ target }) => (target === "/a" ? redirect("/b", 307) : ok("x")));
    const got = await fetchHere(`${server.url}/a`, { method: "POST", body: Buffer.from("once") });
    assert.deepEqual(
      [got.code, ...server.asked.map(({ method, body, connection }) => `${method} ${body} ${connection}`)],
      [0, "POST once 1", "POST once 2"],
    );
  });

  test("credentials and cookies stay with their origin; a cookie comes back to its own", async () => {
    await using other = await serve(() => ok("x"));
    await using server = await serve(({ target, fields }) => {
      if (target !== "/a") return redirect(`${other.url}/c`);
      return fields.get("Cookie")?.includes("sid=1")
        ? redirect("/b")
        : redirect("/a", 302, "Set-Cookie: sid=1; HttpOnly\r\n");
    });
    const url = server.url.replace("//", "//user:pw@");
    const got = await wget([
      `${url}/a`,
      "--header",
      "Cookie: own=2",
      "--header",
      "X-Token: t",
      "--output",
      "-",
      "--headers-log",
      "log",
    ]);
    assert.deepEqual([got.code, got.stdout], [0, "x"], got.stderr);
    const basic = `Basic ${Buffer.from("user:pw").toString("base64")}`;
    assert.deepEqual(
      server.asked.map(({ fields }) =>
        ["Authorization", "Cookie", "X-Token"].map((name) => fields.get(name)),
      ),
      [
        [basic, "own=2", "t"],
        [basic, "own=2; sid=1", "t"],
        [basic, "own=2; sid=1", "t"],
      ],
    );
    for (const name of ["Authorization", "Cookie", "X-Token"])
      assert.equal(other.asked[0]?.fields.get(name), undefined, name);
    for (const text of [got.stderr, got.read("log").replace(/< Set-Cookie: .*/g, "")])
      assert.doesNotMatch(text, /pw@|own=2|sid=1|dXNlcjpwdw/);
    assert.match(got.read("log"), /> Authorization: Basic \[redacted\]\n/);
    assert.match(got.read("log"), /> Cookie: own=\[redacted\]; sid=\[redacted\]\n/);
  });
});

test(
  "a full disk is exit code 3, and which file it was is said",
  existsSync("/dev/full") ? {} : { skip: "no /dev/full" },
  async () => {
    await using server = await serve(() => ok("abc"));
    const log = await wget([server.url, "--output", "a", "--headers-log", "/dev/full"]);
    assert.equal(log.code, 3);
    assert.match(log.stderr, /cannot write the headers log \/dev\/full: the disk is full/);
    const device = await wget([server.url, "--output", "/dev/full"]);
    assert.equal(device.code, 3);
    assert.match(device.stderr, /cannot write \/dev\/full: the disk is full/);
  },
);

describe("the headers log", { concurrency: true }, () => {
  test("has every line of every hop, interim responses and trailers, and is its owner's", async () => {
    await using server = await serve(({ target }) =>
      target === "/a"
        ? redirect("/b", 301, "X-Odd: \x9b\xe9\r\n")
        : "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    const got = await wget([
      `${server.url}/a`,
      "--headers-log",
      "log",
      "--output",
      "-",
      "--header",
      "Authorization: Bearer t0k",
      "--log-secrets",
    ]);
    assert.deepEqual([got.code, got.stdout], [0, "abc"], got.stderr);
    const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /gm;
    assert.equal(got.read("log").match(time)?.length, got.read("log").split("\n").length - 1);
    const common = [
      `> Host: 127.0.0.1:${server.port}`,
      "> User-Agent: netlab-wget/0.1",
      "> Accept: */*",
      "> Accept-Encoding: identity",
    ];
    const rest = "> Authorization: Bearer t0k";
    assert.deepEqual(got.read("log").replace(time, "").trimEnd().split("\n"), [
      `* connected to 127.0.0.1:${server.port}`,
      "> GET /a HTTP/1.1",
      ...common,
      rest,
      "< HTTP/1.1 301 Moved",
      "< Content-Length: 5",
      "< Location: /b",
      "< X-Odd: \\x9B\\xE9",
      "> GET /b HTTP/1.1",
      ...common,
      rest,
      "< HTTP/1.1 103 Early Hints",
      "< Link: </x>",
      "< HTTP/1.1 200 OK",
      "< Transfer-Encoding: chunked",
      "< X-Sum: 7",
    ]);
    assert.equal(statSync(join(got.at, "log")).mode & 0o777, 0o600);
    const again = await wget([`${server.url}/404`, "--headers-log", "log"], got.at);
    assert.equal(again.read("log").startsWith(got.read("log").slice(0, 200)), true);
  });
});

// Where the reset comes together with data, libuv takes it for an orderly end: then the body is too short, 1.
test("a relay that resets in the middle: exit code 4 or 1, and --continue ends what was begun", async () => {
  await using server = await serve((asked) => {
    const at = Number(/=(\d+)-/.exec(asked.fields.get("Range") ?? "")?.[1] ?? 0);
    if (at === 0) return ok(BIG, ETAG);
    return ok(BIG.slice(at), `${ETAG}Content-Range: bytes ${at}-299999/300000\r\n`, "206 Part");
  });
  await using relay = await tcpRelay(server.port, resetAfter(150_000));
  const at = mkdtempSync(join(folder, "cwd-"));
  let got = await wget([`http://127.0.0.1:${relay.port}/a`], at);
  for (let i = 0; i < 5 && (got.code === 4 || got.code === 1); i++)
    got = await wget([`http://127.0.0.1:${relay.port}/a`, "--continue"], at);
  assert.deepEqual([got.code, got.files], [0, ["a"]], got.stderr);
  assert.ok(got.read("a") === BIG && server.asked.length > 1);
});
