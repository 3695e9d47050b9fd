/** Through proxies, and over TLS with certificates made for the occasion. */
import { strict as assert } from "node:assert";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { createServer as createTlsServer } from "node:tls";
import type { RequestHead } from "../../shared/http.ts";
import { needs, run, runTool } from "../../shared/testing.ts";
import { fetchHere, newFolder } from "./in-process.ts";
import { httpUrl } from "./protocol.ts";
import { ok, redirect, ScriptedServer } from "./scripted-server.ts";
import { testProxy } from "./test-proxy.ts";

const WGET = "exercises/03-wget/wget.ts";
const NO_PROXIES = { http_proxy: "", https_proxy: "", HTTPS_PROXY: "", no_proxy: "", NO_PROXY: "" };
const folder = mkdtempSync(join(tmpdir(), "netlab-wget-"));
after(() => rmSync(folder, { recursive: true }));

/** A proxy that ends with its test, and what it was asked. */
async function proxied(refuse?: number) {
  const asked: RequestHead[] = [];
  const stop = new AbortController();
  const server = await testProxy(0, stop.signal, (head) => {
    asked.push(head);
    return refuse ?? 200;
  });
  const url = `http://us%40er:pw@127.0.0.1:${server.port}`;
  const [host, port] = ["127.0.0.1", String(server.port)];
  return {
    asked,
    url,
    host,
    port,
    [Symbol.asyncDispose]: () => {
      stop.abort();
      return server.closed;
    },
  };
}
const CREDENTIALS = `Basic ${Buffer.from("us@er:pw").toString("base64")}`;

describe("through a proxy", { concurrency: true }, () => {
  test("in absolute form, with its password for it alone", async () => {
    await using server = await ScriptedServer.start(({ target }) =>
      target === "/a?b" ? redirect("/c") : ok("x"),
    );
    await using proxy = await proxied();
    const got = await fetchHere(`${server.url}/a?b#c`, { proxyFor: () => httpUrl(proxy.url) });
    assert.deepEqual([got.code, got.body], [0, "x"], got.said);
    assert.deepEqual(
      proxy.asked.map(({ method, target, fields }) => [
        method,
        target,
        fields.get("Host"),
        fields.get("Proxy-Authorization"),
      ]),
      ["/a?b", "/c"].map((path) => ["GET", server.url + path, `127.0.0.1:${server.port}`, CREDENTIALS]),
    );
    assert.deepEqual(
      server.asked.map(({ target, fields }) => [target, fields.get("Proxy-Authorization")]),
      [
        ["/a?b", undefined],
        ["/c", undefined],
      ],
    );
  });

  test("--proxy URL, --proxy HOST --port PORT, http_proxy; no_proxy goes round it, but not round --proxy", async () => {
    await using server = await ScriptedServer.start(() => ok("x"));
    await using proxy = await proxied();
    const wget = (args: string[], env: Record<string, string>) =>
      run(WGET, [server.url, "-q", "-O", "-", "--headers-log", join(folder, "log"), ...args], {
        env: { ...NO_PROXIES, ...env },
      });
    const results = await Promise.all([
      wget(["--proxy", proxy.url], { no_proxy: "127.0.0.1" }),
      wget(["--proxy", proxy.host, "--port", proxy.port], {}),
      wget([], { http_proxy: proxy.url }),
      wget([], { http_proxy: proxy.url, no_proxy: "10.0.0.0/8,127.0.0.1" }),
    ]);
    for (const { code, stdout, stderr } of results) assert.deepEqual([code, stdout, stderr], [0, "x", ""]);
    assert.equal(proxy.asked.length, 3);
    const log = readFileSync(join(folder, "log"), "utf8");
    assert.match(log, /> Proxy-Authorization: Basic \[redacted\]\n/);
    assert.doesNotMatch(log, /pw@|dXNAZXI6cHc=/);
  });

  test("one that refuses, and one that is not there", async () => {
    await using server = await ScriptedServer.start(() => ok("x"));
    await using proxy = await proxied(407);
    const refused = await fetchHere(server.url, { proxyFor: () => httpUrl(proxy.url) });
    assert.deepEqual([refused.code, server.asked.length], [8, 0]);
    const noTunnel = await fetchHere("https://localhost/", { proxyFor: () => httpUrl(proxy.url) });
    assert.equal(noTunnel.code, 8);
    assert.match(noTunnel.said, /the proxy 127\.0\.0\.1:\d+ makes no tunnel to localhost:443: 407 No$/);
    const nobody = await fetchHere(server.url, { proxyFor: () => httpUrl("http://127.0.0.1:1") });
    assert.deepEqual([nobody.code, server.asked.length], [4, 0]);
  });
});

interface Certificate {
  key: string;
  cert: string;
  path: string;
}
async function certificate(name: string, names: string): Promise<Certificate> {
  const [key, path] = [join(folder, `${name}.key`), join(folder, `${name}.pem`)];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key];
  const { code, stderr } = await runTool("openssl", [
    "req",
    "-x509",
    ...curve,
    "-out",
    path,
    "-days",
    "2",
    "-subj",
    `/CN=${name}`,
    "-addext",
    `subjectAltName=${names}`,
  ]);
  assert.equal(code, 0, stderr);
  return { key: readFileSync(key, "utf8"), cert: readFileSync(path, "utf8"), path };
}

describe("https", { concurrency: true, ...needs("openssl") }, () => {
  test("a certificate is verified: its authority, its name; --ca, --insecure; exit code 5", async () => {
    const tls = await certificate("localhost", "DNS:localhost,IP:127.0.0.1");
    await using server = await ScriptedServer.start(() => ok("secret"), { tls, host: "0.0.0.0" });
    const url = `https://localhost:${server.port}/`;
    const wget = (args: string[]) => run(WGET, ["-O", "-", ...args], { env: NO_PROXIES });
    const [unknown, trusted, insecure, otherName] = await Promise.all([
      wget([url]),
      wget([url, "--ca", tls.path, "-q"]),
      wget([url, "--insecure", "-q"]),
      wget([`https://127.0.0.2:${server.port}/`, "--ca", tls.path, "--timeout", "3000"]),
    ]);
    assert.deepEqual([unknown.code, unknown.stdout], [5, ""]);
    assert.match(
      unknown.stderr,
      /^error: cannot fetch https:\S+: no trusted TLS connection \(its authority can be given with --ca, .*\): self-signed certificate$/m,
    );
    assert.deepEqual([trusted.code, trusted.stdout, trusted.stderr], [0, "secret", ""]);
    assert.deepEqual([insecure.code, insecure.stdout], [0, "secret"]);
    assert.match(insecure.stderr, /^warning: certificates are not verified/);
    assert.deepEqual(
      [otherName.code, otherName.stdout],
      [process.platform === "linux" ? 5 : otherName.code, ""],
    );
    assert.equal(server.asked.length, 2, "nothing is asked of a server that is not trusted");
  });

  test("large bodies, kept connections, addresses; through CONNECT, where the proxy learns the host only", async () => {
    const tls = await certificate("address", "IP:127.0.0.1,IP:::1");
    const body = Buffer.alloc(1_000_000, "0123456789");
    await using server = await ScriptedServer.start(
      ({ target }) => (target === "/a" ? redirect("/b") : ok(body)),
      { tls },
    );
    const url = `https://127.0.0.1:${server.port}/a`;
    const authorities = [tls.cert];
    const direct = await fetchHere(url, { authorities });
    assert.deepEqual(
      [direct.code, direct.body?.length, server.asked[1]?.connection],
      [0, body.length, 1],
      direct.said,
    );
    await using proxy = await proxied();
    const tunnelled = await fetchHere(url, { authorities, proxyFor: () => httpUrl(proxy.url) });
    assert.deepEqual([tunnelled.code, tunnelled.body === body.toString("latin1")], [0, true], tunnelled.said);
    const [connect] = proxy.asked;
    assert.deepEqual(
      [connect?.method, connect?.target, proxy.asked.length],
      ["CONNECT", `127.0.0.1:${server.port}`, 1],
    );
    assert.equal(connect?.fields.get("Proxy-Authorization"), CREDENTIALS);
    assert.equal(server.asked[2]?.fields.get("Proxy-Authorization"), undefined);
    assert.equal(server.asked[2]?.target, "/a");
  });

  test("a peer that takes nothing is given up", async () => {
    const tls = await certificate("deaf", "IP:127.0.0.1");
    const sockets = new Set<Socket>();
    const deaf = createTlsServer(
      tls,
      (socket) => void sockets.add(socket.on("error", () => {}).pause()),
    ).listen(0);
    await once(deaf, "listening");
    const url = `https://127.0.0.1:${(deaf.address() as AddressInfo).port}/`;
    const body = Buffer.alloc(20_000_000);
    const got = await fetchHere(url, { authorities: [tls.cert], method: "POST", body, timeoutMs: 1000 });
    assert.equal(got.code, 4, got.said);
    assert.match(got.said, /took nothing for 1000 ms$/);
    for (const socket of sockets) socket.destroy();
    deaf.close();
  });

  test("the way down to http is said; a peer without TLS is exit code 5, a silent one 4", async () => {
    const tls = await certificate("down", "IP:127.0.0.1");
    await using plain = await ScriptedServer.start(({ target }) =>
      target === "/down" ? ok("x") : "HTTP/1.1 400 No\r\n\r\n",
    );
    await using server = await ScriptedServer.start(() => redirect(`${plain.url}/down`), { tls });
    const down = await fetchHere(`https://127.0.0.1:${server.port}/`, { authorities: [tls.cert] });
    assert.deepEqual([down.code, down.body], [0, "x"]);
    assert.match(down.said, /^warning: from https to http:\/\/\S+: what follows is not encrypted$/m);
    const up = await fetchHere(`http://127.0.0.1:${server.port}/`);
    assert.equal(up.code, 4);
    const answers = createServer((socket) =>
      socket.on("error", () => {}).end("HTTP/1.1 400 Bad Request\r\n\r\n"),
    ).listen(0);
    const silent = createServer((socket) => socket.on("error", () => {})).listen(0);
    const portOf = (one: typeof silent) => (one.address() as { port: number }).port;
    const noTls = await fetchHere(`https://127.0.0.1:${portOf(answers)}/`);
    assert.equal(noTls.code, 5);
    assert.match(noTls.said, /no trusted TLS connection: wrong version number$/);
    const late = await fetchHere(`https://127.0.0.1:${portOf(silent)}/`, { timeoutMs: 200 });
    assert.equal(late.code, 4);
    assert.match(late.said, /the TLS handshake took longer than 200 ms$/);
    answers.close();
    silent.close();
  });
});

test("a bar on a terminal, and none with --quiet", needs("script"), async () => {
  await using server = await ScriptedServer.start(() => ok(Buffer.alloc(3_000_000)));
  const at = newFolder();
  const command = (more: string) =>
    `${process.execPath} --import ${import.meta.resolve("tsx")} ${join(import.meta.dirname, "wget.ts")} ${server.url}/big ${more} --output ${at}/big`;
  const { stdout } = await runTool("script", ["-qec", command(""), "/dev/null"]);
  assert.match(stdout, /█+ 100% \| 3\.0 MB \| [\d.]+ [kMG]?B\/s \| \S+ left/);
  const quiet = await runTool("script", ["-qec", command("--quiet"), "/dev/null"]);
  assert.equal(quiet.stdout, "");
});
