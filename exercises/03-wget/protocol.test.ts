/** The rules, without sockets. */
import { strict as assert } from "node:assert";
import { isAbsolute, join, resolve, sep } from "node:path";
import { describe, test } from "node:test";
import fc from "fast-check";
import { Fields, type ResponseHead } from "../../shared/http.ts";
import { Cookies } from "./cookies.ts";
import { nameFromDisposition, nameFromUrl, safeName } from "./names.ts";
import {
  authority,
  basicCredentials,
  endpoint,
  httpUrl,
  isSameVersion,
  nextHop,
  parseContentRange,
  redirection,
  requestTarget,
  versionOf,
} from "./protocol.ts";
import { isExempt, proxyFromEnvironment, proxyUrl } from "./proxy.ts";

const SEED = 20_260_303;
const head = (status: number, ...lines: [string, string][]): ResponseHead => ({
  minor: 1,
  status,
  reason: "",
  fields: new Fields(lines),
});

describe("URLs", () => {
  test("without a scheme it is http; others are refused", () => {
    assert.equal(httpUrl("localhost:8080/x").href, "http://localhost:8080/x");
    assert.equal(httpUrl("HTTPS://Example.ORG").href, "https://example.org/");
    assert.equal(httpUrl("[::1]:81/a").href, "http://[::1]:81/a");
    for (const text of ["ftp://a", "file:///etc/passwd", "http://", "http://a:99999", ""])
      assert.throws(() => httpUrl(text), { message: "is not an http or https URL" }, text);
  });

  test("where to connect, what to ask for", () => {
    assert.deepEqual(endpoint(httpUrl("http://[::1]")), { host: "::1", port: 80 });
    assert.deepEqual(endpoint(httpUrl("https://a.b")), { host: "a.b", port: 443 });
    assert.deepEqual(endpoint(httpUrl("https://a.b:8443")), { host: "a.b", port: 8443 });
    const url = httpUrl("http://user:pw@h:81/a b/ü?q=1 2#part");
    assert.equal(requestTarget(url, "origin"), "/a%20b/%C3%BC?q=1%202");
    assert.equal(requestTarget(url, "absolute"), "http://h:81/a%20b/%C3%BC?q=1%202");
    assert.equal(authority(httpUrl("https://h/x")), "h:443");
    assert.equal(authority(httpUrl("https://[::1]/x")), "[::1]:443");
    assert.equal(authority(httpUrl("https://h:8443/x")), "h:8443");
  });

  test("user and password, percent-decoded", () => {
    assert.equal(basicCredentials(httpUrl("http://h")), undefined);
    const field = basicCredentials(httpUrl("http://al:p%40s%3Aé@h"));
    assert.equal(Buffer.from(field?.replace("Basic ", "") ?? "", "base64").toString(), "al:p@s:é");
    assert.match(basicCredentials(httpUrl("http://a%zz:b@h")) ?? "", /^Basic /);
  });
});

describe("redirections", () => {
  const from = httpUrl("http://a.org/x/y?z#frag");
  const to = (location: string, status = 302) =>
    redirection(head(status, ["Location", location]), from)?.href;

  test("relative and absolute, with the old fragment unless there is a new one", () => {
    assert.equal(to("/q"), "http://a.org/q#frag");
    assert.equal(to("q?w"), "http://a.org/x/q?w#frag");
    assert.equal(to("../q#new"), "http://a.org/q#new");
    assert.equal(to("//b.org/q"), "http://b.org/q#frag");
    assert.equal(to("?w"), "http://a.org/x/y?w#frag");
    assert.equal(to("https://u:p@b.org/"), "https://b.org/#frag");
    assert.equal(to("/\xc3\xa9"), "http://a.org/%C3%A9#frag");
    for (const status of [301, 302, 303, 307, 308]) assert.equal(to("/q", status), "http://a.org/q#frag");
    for (const status of [200, 300, 304, 305, 404]) assert.equal(to("/q", status), undefined);
  });

  test("to nowhere, to two places, to another protocol: the server's failure", () => {
    for (const lines of [
      [],
      ["/a", "/b"],
      ["ftp://a/"],
      ["http://["],
      ["file:///etc/passwd"],
      ["javascript:1"],
    ]) {
      const fields = lines.map((location) => ["Location", location] as [string, string]);
      assert.throws(
        () => redirection(head(302, ...fields), from),
        { name: "ServerFailure" },
        lines.join(" "),
      );
    }
    assert.equal(redirection(head(302, ["Location", "/a"], ["location", "/a"]), from)?.pathname, "/a");
  });

  test("the method rules of RFC 9110 §15.4", () => {
    const rules: [status: number, method: string, then: string][] = [
      [301, "GET", "GET"],
      [301, "HEAD", "HEAD"],
      [301, "POST", "GET"],
      [302, "POST", "GET"],
      [302, "PUT", "PUT"],
      [303, "GET", "GET"],
      [303, "HEAD", "HEAD"],
      [303, "POST", "GET"],
      [303, "PUT", "GET"],
      [307, "POST", "POST"],
      [308, "POST", "POST"],
      [308, "PUT", "PUT"],
    ];
    for (const [status, method, then] of rules) {
      const body = Buffer.from("x");
      const fields = new Fields([["Content-Type", "text/plain"]]);
      const next = nextHop({ method, url: from, fields, body }, status, httpUrl("http://a.org/2"));
      assert.equal(next.method, then, `${method} ${status}`);
      const keepsBody = then === method && !(status === 303 && then === "GET");
      assert.equal(next.body, keepsBody ? body : undefined, `${method} ${status}`);
      assert.equal(next.fields.get("Content-Type"), keepsBody ? "text/plain" : undefined);
    }
  });

  test("what may be a credential stays with its origin: scheme, host and port", () => {
    const lines: [string, string][] = [
      ["Authorization", "Basic x"],
      ["cookie", "a=b"],
      ["X-Api-Key", "secret"],
      ["Host", "virtual"],
      ["Accept-Language", "es"],
    ];
    const hop = { method: "GET", url: from, fields: new Fields(lines), body: undefined };
    const kept = (url: string) => [...nextHop(hop, 302, httpUrl(url)).fields].map(([name]) => name);
    assert.equal(kept("http://a.org/2").length, 5);
    for (const url of ["http://b.org/", "https://a.org/", "http://a.org:81/", "http://x.a.org/"])
      assert.deepEqual(kept(url), ["Accept-Language"], url);
  });
});

describe("names", () => {
  test("from URLs", () => {
    for (const [url, name] of [
      ["http://h/a/b.txt?x=/y/z", "b.txt"],
      ["http://h/a/", "index.html"],
      ["http://h", "index.html"],
      ["http://h/a%20b.txt", "a b.txt"],
      ["http://h/%C3%A9.txt", "é.txt"],
      ["http://h/..%2f..%2fetc%2fpasswd", "passwd"],
      ["http://h/a%5c..%5cb", "b"],
      ["http://h/%2e%2e", "index.html"],
      ["http://h/x%2f..", "index.html"],
      ["http://h/.bashrc", "_bashrc"],
      ["http://h/-rf", "_rf"],
      ["http://h/a%00b%1b[1m%0a", "a_b_[1m_"],
      ["http://h/%zz", "%zz"],
      ["http://h/con.txt", "_con.txt"],
      ["http://h/a.", "a"],
    ] as const)
      assert.equal(nameFromUrl(httpUrl(url)), name, url);
  });

  test("from Content-Disposition (RFC 6266), the extended form first", () => {
    for (const [value, name] of [
      ['attachment; filename="a b.txt"', "a b.txt"],
      ["attachment; filename=a.txt", "a.txt"],
      ["attachment;FileName = a.txt ; size=3", "a.txt"],
      ["attachment; filename=\"a.txt\"; filename*=UTF-8''%c3%a9.txt", "é.txt"],
      ["attachment; filename*=iso-8859-1'en'%E9.txt", "é.txt"],
      ['attachment; filename="\xc3\xa9.txt"', "é.txt"],
      ['attachment; filename="../../.ssh/authorized_keys"', "authorized_keys"],
      ['attachment; filename="a\\"b.txt"', "a_b.txt"],
      ["attachment; filename*=UTF-8''..%2f..%2fx", "x"],
      ['attachment; filename="/etc/passwd"', "passwd"],
      ['attachment; filename=".."', "index.html"],
      ['attachment; name="; filename=no"; filename=yes', "yes"],
      ['attachment; filename="x.part"', "x.part_"],
      ["attachment; filename*=UTF-8''x.part.JSON", "x.part.JSON_"],
      ["attachment", undefined],
      ['attachment; filename=""', "index.html"],
      ["", undefined],
    ] as const)
      assert.equal(nameFromDisposition(value), name, value);
  });

  test("a name of many dots or blanks costs no more than another of its length", () => {
    const cpuMs = (text: string) => {
      const begin = process.cpuUsage();
      safeName(text);
      return process.cpuUsage(begin).user / 1000;
    };
    // Seconds where the cost is the square of the length; the other machine's speed cannot make up for that.
    for (const odd of [`${".".repeat(60_000)}x`, `a${". ".repeat(30_000)}x`])
      assert.ok(cpuMs(odd) < 10 * cpuMs("é".repeat(60_000)) + 300, odd.slice(0, 5));
  });

  test("never another directory, whatever the text", () => {
    const piece = fc.constantFrom(
      "..",
      "/",
      "\\",
      ".",
      "%2f",
      "%2e",
      "\0",
      "a",
      "é",
      "\u202e",
      "~",
      "C:",
      "-",
      " ",
      "\n",
    );
    const texts = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.array(piece).map((pieces) => pieces.join("")),
      fc.string({ minLength: 300, maxLength: 600 }),
    );
    fc.assert(
      fc.property(texts, (text) => {
        for (const name of [safeName(text), nameFromDisposition(`attachment; filename="${text}"`) ?? "x"]) {
          assert.ok(!isAbsolute(name) && resolve("/base", name) === join("/base", name), name);
          assert.ok(!name.includes(sep) && !/[\\/\p{Cc}\p{Cf}]|^[.-]|^$/u.test(name), JSON.stringify(name));
          assert.ok(Buffer.byteLength(name) <= 210);
        }
      }),
      { seed: SEED },
    );
    assert.equal(safeName(`${"é".repeat(300)}.tar`).endsWith("é.tar"), true);
  });
});

describe("versions and ranges", () => {
  test("only a strong validator goes into If-Range", () => {
    const date = "Sat, 21 Nov 2026 10:00:00 GMT";
    const later = "Sat, 21 Nov 2026 10:00:01 GMT";
    const nowMs = Date.parse(later);
    const validator = (...lines: [string, string][]) => versionOf(head(200, ...lines), nowMs).validator;
    assert.equal(validator(["ETag", '"a"'], ["Last-Modified", date]), '"a"');
    assert.equal(validator(["ETag", 'W/"a"'], ["Last-Modified", date]), undefined);
    assert.equal(validator(["ETag", "a"]), undefined);
    assert.equal(validator(["Last-Modified", date], ["Date", later]), date);
    assert.equal(validator(["Last-Modified", date]), date);
    assert.equal(validator(["Last-Modified", date], ["Date", date]), undefined);
    assert.equal(validator(), undefined);
    assert.equal(
      versionOf(head(206, ["Content-Length", "5"], ["Content-Range", "bytes 5-9/10"]), 0).totalBytes,
      10,
    );
    assert.equal(versionOf(head(200, ["Content-Length", "5"]), 0).totalBytes, 5);
    assert.ok(isSameVersion({ etag: "a", totalBytes: 3 }, { etag: "a" }));
    for (const other of [{ etag: "b" }, { etag: "a", totalBytes: 4 }])
      assert.ok(!isSameVersion({ etag: "a", totalBytes: 3 }, other));
  });

  test("Content-Range", () => {
    assert.deepEqual(parseContentRange("bytes 5-9/10"), { start: 5, end: 10, totalBytes: 10 });
    assert.deepEqual(parseContentRange("bytes 5-9/*"), { start: 5, end: 10, totalBytes: undefined });
    assert.deepEqual(parseContentRange("bytes */10"), { start: undefined, end: undefined, totalBytes: 10 });
    for (const value of [
      "",
      "bytes 9-5/10",
      "bytes 5-10/10",
      "lines 1-2/3",
      "bytes 5-/10",
      "bytes -5/10",
      "bytes=5-9/10",
    ])
      assert.equal(parseContentRange(value), undefined, value);
  });
});

describe("proxies", () => {
  test("by the environment; HTTP_PROXY is not trusted", () => {
    const plain = httpUrl("http://a.org/");
    const secure = httpUrl("https://a.org/");
    assert.equal(proxyFromEnvironment(plain, { http_proxy: "p:3128" })?.href, "http://p:3128/");
    assert.equal(proxyFromEnvironment(secure, { http_proxy: "p:3128" }), undefined);
    assert.equal(proxyFromEnvironment(secure, { https_proxy: "http://p" })?.host, "p");
    assert.equal(proxyFromEnvironment(secure, { HTTPS_PROXY: "http://p" })?.host, "p");
    assert.equal(proxyFromEnvironment(plain, { HTTP_PROXY: "http://p" }), undefined);
    assert.equal(proxyFromEnvironment(plain, { http_proxy: "p", no_proxy: "a.org" }), undefined);
    assert.equal(proxyFromEnvironment(plain, { http_proxy: "p", NO_PROXY: "*" }), undefined);
    assert.throws(() => proxyFromEnvironment(plain, { http_proxy: "socks5://p" }), {
      name: "UsageError",
      message: /http_proxy/,
    });
    assert.throws(() => proxyUrl("https://p", "--proxy"), { name: "UsageError" });
  });

  test("no_proxy", () => {
    for (const [url, list, exempt] of [
      ["http://a.org", "a.org", true],
      ["http://a.org", ".a.org", true],
      ["http://x.a.org", "a.org", true],
      ["http://x.a.org", "*.a.org", true],
      ["http://ba.org", "a.org", false],
      ["http://a.org", "b.org, a.org", true],
      ["http://A.org", "a.ORG", true],
      ["http://a.org:81", "a.org:81", true],
      ["http://a.org:82", "a.org:81", false],
      ["http://a.org", "a.org:80", true],
      ["http://127.0.0.1", "127.0.0.1", true],
      ["http://127.0.0.1", "127.0.0.0/8", true],
      ["http://128.0.0.1", "127.0.0.0/8", false],
      ["http://127.0.0.1", "0.0.1", false],
      ["http://[::1]", "::1", true],
      ["http://[::1]:81", "[::1]:81", true],
      ["http://[::1]", "[::1]", true],
      ["http://[fe80::2]", "fe80::/16", true],
      ["http://[::1]", "127.0.0.1", false],
      ["http://a.org", "", false],
      ["http://a.org", ",", false],
      ["http://a.org", "10.0.0.0/99", false],
      ["http://10.0.0.1", "10.0.0.0/99", false],
    ] as const)
      assert.equal(isExempt(httpUrl(url), list), exempt, `${url} in ${list}`);
  });
});

describe("cookies", () => {
  const url = httpUrl("http://a.org/x/y");
  const NOW = Date.parse("Sat, 21 Nov 2026 10:00:00 GMT");
  const stored = (...lines: string[]) => {
    const cookies = new Cookies();
    cookies.store(url, lines, NOW);
    return cookies;
  };

  test("go back to the origin that set them, under their path", () => {
    const cookies = stored("a=1", "b=2; Path=/", "c=3; path=/x/y/z", "d=x=y; HttpOnly");
    assert.equal(cookies.for(url), "a=1; d=x=y; b=2");
    assert.equal(cookies.for(httpUrl("http://a.org/xy")), "b=2");
    assert.equal(cookies.for(httpUrl("http://a.org/x/y/z")), "c=3; a=1; d=x=y; b=2");
    for (const other of [
      "http://b.org/x/y",
      "https://a.org/x/y",
      "http://a.org:81/x/y",
      "http://s.a.org/x/y",
    ])
      assert.equal(cookies.for(httpUrl(other)), undefined, other);
  });

  test("are replaced, expire, and some are not taken at all", () => {
    const cookies = stored("a=1", "a=2");
    assert.equal(cookies.for(url), "a=2");
    cookies.store(url, ["a=3; Max-Age=0"], NOW);
    assert.equal(cookies.for(url), undefined);
    assert.equal(stored("a=1; Expires=Thu, 01-Jan-1970 00:00:00 GMT").for(url), undefined);
    assert.equal(stored("a=1; Expires=Sat, 21 Nov 2026 11:00:00 GMT").for(url), "a=1");
    assert.equal(stored("a=1; Max-Age=9; Expires=Thu, 01 Jan 1970 00:00:00 GMT").for(url), "a=1");
    assert.equal(stored("a=1; Secure", "=2", "no pair", `b=${"x".repeat(5000)}`).for(url), undefined);
    assert.equal(
      stored(...Array.from({ length: 60 }, (_, i) => `c${i}=1`))
        .for(url)
        ?.split(";").length,
      50,
    );
  });
});
