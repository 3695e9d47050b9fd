/** Real clients through the proxy, and a real server behind it. */
import { strict as assert } from "node:assert";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { inBrowser } from "../../shared/browser.ts";
import {
  freePort,
  needs,
  type Running,
  runTool,
  start,
  Running as Tool,
  within,
} from "../../shared/testing.ts";
import { ask, FRESH, how, pattern, TestOrigin } from "./test-origin.ts";

const PROXY = "exercises/07-caching-proxy/proxy.ts";
const folder = mkdtempSync(join(tmpdir(), "netlab-proxy-tools-"));
let origin: TestOrigin;
let proxy: Running;
const PICTURE = Buffer.from(
  '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><rect width="40" height="30" fill="teal"/></svg>',
);

before(async () => {
  origin = await TestOrigin.start();
  proxy = await start(PROXY, ["--port", 0, "--cache-dir", join(folder, "cache")]);
  origin.serves("/file.bin", pattern(2_000_000), FRESH, 'ETag: "f"');
  origin.serves("/picture.svg", PICTURE, FRESH, "Content-Type: image/svg+xml");
  const page =
    '<!DOCTYPE html><title>a page</title><img src="/picture.svg"><p id="p">text</p><a href="/two">two</a>';
  for (const path of ["/page", "/two"])
    origin.serves(path, page, "Content-Type: text/html", "Cache-Control: no-cache", 'ETag: "p"');
});
after(async () => {
  await proxy[Symbol.asyncDispose]();
  await origin[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

describe("clients", () => {
  test("curl: whole, in part, continued, with a body, through HTTP/1.0", needs("curl"), async () => {
    const curl = (...args: string[]) =>
      runTool("curl", ["-sS", "-f", "-x", `http://127.0.0.1:${proxy.port}`, ...args]);
    const file = pattern(2_000_000);
    for (const args of [[], [], ["--http1.0"], ["-H", "Cache-Control: no-cache"]])
      assert.ok((await curl(...args, origin.url("/file.bin"))).bytes.equals(file), args.join(" "));
    assert.ok(
      (await curl("-r", "1000-1999", origin.url("/file.bin"))).bytes.equals(file.subarray(1000, 2000)),
    );
    const part = join(folder, "part");
    writeFileSync(part, file.subarray(0, 700_000));
    assert.equal((await curl("-C", "-", "-o", part, origin.url("/file.bin"))).code, 0);
    assert.ok(readFileSync(part).equals(file));
    origin.on("/form", (connection, { body }) =>
      connection.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`),
    );
    assert.equal((await curl("-d", "a=b", origin.url("/form"))).stdout, "a=b");
  });

  test("wget: a page with what it needs", needs("wget"), async () => {
    const proxies = { http_proxy: `http://127.0.0.1:${proxy.port}`, no_proxy: "" };
    await using wget = new Tool(
      "wget",
      ["-q", "-p", "-nd", "-P", join(folder, "wget"), origin.url("/page")],
      { env: proxies },
    );
    assert.equal((await wget.exited).code, 0, wget.stderr);
    assert.ok(readFileSync(join(folder, "wget/picture.svg")).equals(PICTURE));
    assert.match(origin.requests.at(-1)?.fields.get("Via") ?? "", /netlab/);
  });

  test("Chromium: pages and a picture, from the cache in a fresh profile", needs("chromium"), async () => {
    const flags = [`--proxy-server=http://127.0.0.1:${proxy.port}`, "--proxy-bypass-list=<-loopback>"];
    const visit = () =>
      inBrowser(async (page) => {
        const statuses = new Map<string, string>();
        page.on("response", (response) =>
          statuses.set(new URL(response.url()).pathname, response.headers()["cache-status"] ?? ""),
        );
        await page.goto(origin.url("/page"));
        assert.equal(await page.title(), "a page");
        assert.deepEqual(
          await page.evaluate("[document.images[0].complete, document.images[0].naturalWidth]"),
          [true, 40],
        );
        await page.click("a");
        await page.waitForURL(origin.url("/two"));
        return statuses;
      }, flags);
    await within(visit(), "the first visit", 30_000);
    const before = origin.count("/picture.svg");
    const statuses = await within(visit(), "the second visit", 30_000);
    assert.match(statuses.get("/picture.svg") ?? "", /^netlab; hit/);
    assert.equal(origin.count("/picture.svg"), before);
  });
});

describe("nginx as the origin", () => {
  test("what it compresses by Vary, validates and cuts into ranges", needs("nginx"), async () => {
    const web = join(folder, "web");
    mkdirSync(web);
    const text = "nginx compresses this. ".repeat(200);
    writeFileSync(join(web, "text.html"), text);
    const port = await freePort();
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map((name) => `${name}_temp_path ${folder}/t-${name};`)
      .join(" ");
    writeFileSync(
      join(folder, "nginx.conf"),
      `daemon off; pid ${folder}/nginx.pid; error_log ${folder}/error.log; events {}
      http { access_log off; ${temporary} gzip on; gzip_vary on; gzip_min_length 0; gzip_proxied any;
      types { text/html html; } server { listen 127.0.0.1:${port}; root ${web}; location / { expires 1h; } location /stale/ { alias ${web}/; expires -1; } } }`,
    );
    await runTool("chmod", ["-R", "a+rX", folder]);
    const nginx = new Tool("nginx", ["-c", join(folder, "nginx.conf")], {});
    try {
      const url = `http://127.0.0.1:${port}/text.html`;
      for (let tries = 0; (await ask(proxy.port, `${url}?ready`)).status !== 200; tries++) {
        assert.ok(tries < 100, nginx.stderr);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      const gzip = ["Accept-Encoding: gzip"];
      assert.deepEqual(
        [
          how(await ask(proxy.port, url)),
          how(await ask(proxy.port, url, gzip)),
          how(await ask(proxy.port, url)),
          how(await ask(proxy.port, url, gzip)),
        ],
        ["fwd=uri-miss", "fwd=vary-miss", "hit", "hit"],
      );
      const zipped = await ask(proxy.port, url, gzip);
      assert.equal(zipped.fields.get("Content-Encoding"), "gzip");
      assert.ok(zipped.body.length < text.length / 2);
      assert.equal((await ask(proxy.port, url, ["Range: bytes=0-4"])).body.toString(), "nginx");
      const stale = `http://127.0.0.1:${port}/stale/text.html`;
      await ask(proxy.port, stale);
      const validated = await ask(proxy.port, stale);
      assert.match(validated.fields.get("Cache-Status") ?? "", /fwd=stale; fwd-status=304/);
      assert.equal(validated.body.toString(), text);
    } finally {
      await nginx.stop(); // killed outright, its worker would go on
    }
  });
});
