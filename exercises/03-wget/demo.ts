/** A site of exercise 06, fetched through a redirection, with and without a proxy, and continued after a cut; with the log of headers. */
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { integer, setting } from "../../shared/config.ts";
import { expect, say } from "../../shared/demo.ts";
import { program } from "../../shared/program.ts";
import { type Result, type Running, run, start } from "../../shared/running.ts";

const WGET = "exercises/03-wget/wget.ts";
const SITE = "exercises/06-http-server/server.ts";
const PROXY = "exercises/07-caching-proxy/proxy.ts";
const LARGE_BYTES = 64 * 2 ** 20;
const NO_PROXIES = { http_proxy: "", https_proxy: "", no_proxy: "" };
/** Runs it in the folder, and shows the command and what it says. */
async function wget(cwd: string, args: readonly string[], code = 0): Promise<Result> {
  say(`$ wget.ts ${args.join(" ")}`);
  const result = await run(WGET, args, { cwd, env: NO_PROXIES });
  for (const line of result.stderr.trimEnd().split("\n")) say(`  ${line}`);
  expect(result.code === code, `exit code ${result.code} rather than ${code}`);
  return result;
}

/** Shows what the log has got since the last time, without the dates, and empties it. */
function showLog(path: string): string {
  const lines = readFileSync(path, "utf8").trimEnd().split("\n");
  for (const line of lines) say(`  ${line.replace(/^[^T]*T/, "")}`);
  say();
  writeFileSync(path, "");
  return lines.map((line) => line.slice(25)).join("\n");
}

async function redirection(cwd: string, site: string): Promise<void> {
  say("A folder without its slash: the server sends us on, on the same connection.");
  await wget(cwd, [`${site}/docs`, "--output", "page.html", "--headers-log", "log"]);
  const log = showLog(join(cwd, "log"));
  expect(
    /^> GET \/docs HTTP[\s\S]*^< HTTP\/1.1 301 [\s\S]*^> GET \/docs\/ HTTP[\s\S]*^< HTTP\/1.1 200 /m.test(
      log,
    ),
    "the log",
  );
  expect(log.match(/^\* connected/gm)?.length === 1, "one connection");
  expect(readFileSync(join(cwd, "page.html"), "utf8") === "<h1>docs</h1>\n", "the page");
}

async function throughProxy(cwd: string, site: string, port: number): Promise<void> {
  await using proxy = await start(PROXY, ["--port", port, "--cache-dir", join(cwd, "cache")]);
  say("The same through the proxy of exercise 07: it is told the whole URL, not only the path.");
  await wget(cwd, [
    `${site}/docs`,
    "--output",
    "proxied.html",
    "--headers-log",
    "log",
    "--proxy",
    "127.0.0.1",
    "--port",
    String(proxy.port),
  ]);
  const log = showLog(join(cwd, "log"));
  expect(log.includes(`> GET ${site}/docs HTTP/1.1`), "the absolute form");
  expect(/^< Cache-Status: .*fwd=uri-miss/m.test(log), "the proxy's word for it");
  expect(
    readFileSync(join(cwd, "proxied.html")).equals(readFileSync(join(cwd, "page.html"))),
    "the same page",
  );
}

async function names(cwd: string, site: string): Promise<void> {
  say("What is there is not overwritten; what there is not is exit code 8:");
  await wget(cwd, [`${site}/docs/`, "--output", "page.html"]);
  expect(existsSync(join(cwd, "page.html.1")), "page.html.1");
  await wget(cwd, [`${site}/nothing-here`], 8);
  say();
}

/** On a port that is not captured. Returns the bytes a second. */
async function large(cwd: string, site: Running): Promise<string> {
  const content = randomBytes(LARGE_BYTES);
  writeFileSync(join(cwd, "site", "large.bin"), content);
  const url = `http://127.0.0.1:${site.port}/large.bin`;
  say(
    "A part of a large file is there already. With If-Range, the rest comes only if the file is still the same:",
  );
  const etag =
    (await run(WGET, [url, "--method", "HEAD", "--headers-log", "head"], { cwd, env: NO_PROXIES })) &&
    /< ETag: (.*)/.exec(readFileSync(join(cwd, "head"), "utf8"))?.[1];
  writeFileSync(join(cwd, "large.bin.part"), content.subarray(0, LARGE_BYTES / 4));
  writeFileSync(join(cwd, "large.bin.part.json"), JSON.stringify({ url, etag, validator: etag }));
  const { stderr } = await wget(cwd, [url, "--continue", "--headers-log", "log"]);
  expect(/^> If-Range: "/m.test(showLog(join(cwd, "log"))), "If-Range");
  const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
  expect(sha256(readFileSync(join(cwd, "large.bin"))) === sha256(content), "the whole file");
  const [, rate = "no rate"] = /, ([\d.]+ [kMGT]?B\/s)$/m.exec(stderr) ?? [];
  return rate;
}

await program({
  summary: "Shows the downloader from end to end, in one terminal.",
  example: "",
  settings: {
    port: setting(integer(0, 65_534), "port of the site, the proxy's follows it (0 = any free ones)", 0),
  },
  async run({ port }) {
    const cwd = mkdtempSync(join(tmpdir(), "netlab-wget-demo-"));
    try {
      mkdirSync(join(cwd, "site", "docs"), { recursive: true });
      writeFileSync(join(cwd, "site", "docs", "index.html"), "<h1>docs</h1>\n");
      await using site = await start(SITE, ["--port", port, "--root", join(cwd, "site")]);
      const url = `http://127.0.0.1:${site.port}`;
      say(`A site of exercise 06 listens on ${site.urls[0]}\n`);
      await redirection(cwd, url);
      await throughProxy(cwd, url, port && port + 1);
      await names(cwd, url);
      await using other = await start(SITE, ["--port", 0, "--root", join(cwd, "site")]);
      const rate = await large(cwd, other);
      say(`result: redirect, proxy, 206, names | ${rate}`);
    } finally {
      rmSync(cwd, { recursive: true });
    }
  },
});
