/** The caching proxy in one terminal: two pages from a slow origin, hit and miss side by side, and what happens when things go wrong. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { port, setting } from "../../shared/config.ts";
import { expect, say } from "../../shared/demo.ts";
import { Failure } from "../../shared/errors.ts";
import { type ResponseHead, readResponse, requestReader } from "../../shared/http.ts";
import { readBody, responseFraming } from "../../shared/http-body.ts";
import { median } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { type Running, start } from "../../shared/running.ts";
import { connect, serve } from "../../shared/tcp.ts";
import { ORIGIN_PORT } from "./protocol.ts";

/** What an origin at some distance takes for an answer. */
const ORIGIN_MS = 80;
const AT_ONCE = 100;
/** Small, so that the capture of it is, too. */
const PHOTO_BYTES = 400;
/** Lines of the response and its body, by path. */
const SITE: Readonly<Record<string, readonly [body: string, ...lines: string[]]>> = {
  "/first.html": ["<h1>first</h1>", "Cache-Control: no-cache", 'ETag: "1"'],
  "/second.html": ["<h1>second</h1>", "Cache-Control: no-cache", 'ETag: "2"'],
  "/logo.png": ["P".repeat(800), "Cache-Control: max-age=3600"],
  "/style.css": ["body { color: teal }", "Cache-Control: max-age=60", "Vary: Accept-Encoding"],
  "/photo.jpg": ["J".repeat(PHOTO_BYTES), "Cache-Control: max-age=3600"],
  "/news.html": ["<h1>news</h1>", "Cache-Control: max-age=0, stale-while-revalidate=60"],
};
const PAGES = [
  ["/first.html", "/style.css", "/logo.png"],
  ["/second.html", "/style.css", "/logo.png"],
];

interface Origin {
  url: (path: string) => string;
  asked: string[];
  stop: () => Promise<void>;
}

async function startOrigin(originPort: number): Promise<Origin> {
  const stop = new AbortController();
  const asked: string[] = [];
  const options = { host: "127.0.0.1", port: originPort, signal: stop.signal, log: () => {} };
  const server = await serve(options, async (connection) => {
    const reader = requestReader(connection);
    for (let head = await reader.next(); head !== undefined; head = await reader.next()) {
      asked.push(head.target);
      await sleep(ORIGIN_MS);
      const [body = "", ...lines] = SITE[head.target] ?? [];
      const tag = head.fields.get("If-None-Match");
      const isSame = tag !== undefined && lines.includes(`ETag: ${tag}`);
      const first = isSame ? "HTTP/1.1 304 Not Modified" : "HTTP/1.1 200 OK";
      const length = isSame ? [] : [`Content-Length: ${body.length}`];
      await connection.write(`${[first, ...length, ...lines].join("\r\n")}\r\n\r\n${isSame ? "" : body}`);
    }
  });
  const end = async () => {
    stop.abort();
    await server.closed;
  };
  return { url: (path) => `http://127.0.0.1:${server.port}${path}`, asked, stop: end };
}

interface Answer extends ResponseHead {
  sizeBytes: number;
  ms: number;
  how: string;
}

async function ask(proxy: Running, url: string): Promise<Answer> {
  await using connection = await connect({ host: "127.0.0.1", port: proxy.port });
  const begin = performance.now();
  await connection.write(`GET ${url} HTTP/1.1\r\nHost: ${new URL(url).host}\r\nConnection: close\r\n\r\n`);
  const head = await readResponse(connection);
  if (head === undefined) throw new Failure("the proxy closed the connection without an answer");
  let sizeBytes = 0;
  for await (const chunk of readBody(connection, responseFraming(head, "GET"))) sizeBytes += chunk.length;
  const how = (head.fields.get("Cache-Status") ?? "").replace("netlab; ", "");
  return { ...head, sizeBytes, ms: performance.now() - begin, how };
}

const milliseconds = (ms: number) => `${ms.toFixed(1).padStart(6)} ms`;

/** The median times of a miss and of a hit. */
async function browse(proxy: Running, { url }: Origin): Promise<{ missMs: number; hitMs: number }> {
  say("Two pages with the same style sheet and picture, visited twice; the origin takes");
  say(`${ORIGIN_MS} ms an answer (from Cache-Status: what each answer is):`);
  say();
  say(`  ${"".padEnd(14)}${"first visit".padEnd(30)}second visit`);
  const totals = [0, 0];
  const visits: Answer[][] = [];
  for (const total of totals.keys()) {
    const answers: Answer[] = [];
    for (const path of PAGES.flat()) answers.push(await ask(proxy, url(path)));
    totals[total] = answers.reduce((sum, { ms }) => sum + ms, 0);
    visits.push(answers);
  }
  for (const [i, path] of PAGES.flat().entries()) {
    const cells = visits
      .map((answers) => answers[i])
      .map((answer) => answer && `${milliseconds(answer.ms)}  ${answer.how.replace(/fwd=|; ttl=\d+/g, "")}`);
    say(`  ${path.padEnd(14)}${cells[0]?.padEnd(30)}${cells[1]}`);
  }
  const [first = 0, second = 0] = totals;
  say(`  ${"together".padEnd(14)}${milliseconds(first).padEnd(42)}${milliseconds(second)}`);
  say();
  const statuses = visits.map((answers) => answers.map(({ how }) => how.split(";")[0]));
  const miss = "fwd=uri-miss";
  expect(
    String(statuses[0]) === String([miss, miss, miss, miss, "hit", "hit"]),
    `the first visit: ${statuses[0]}`,
  );
  expect(
    String(statuses[1]) === String(["fwd=stale", "hit", "hit", "fwd=stale", "hit", "hit"]),
    `the second: ${statuses[1]}`,
  );
  say(
    "The pages say no-cache: the proxy keeps them, and asks each time whether they still hold (304, no body).",
  );
  say();
  const timesOf = (kind: string) =>
    median(
      visits
        .flat()
        .filter(({ how }) => how.startsWith(kind))
        .map(({ ms }) => ms),
    );
  return { missMs: timesOf("fwd=uri-miss"), hitMs: timesOf("hit") };
}

async function together(proxy: Running, origin: Origin): Promise<void> {
  say(`${AT_ONCE} clients ask for the same picture at the same time:`);
  const answers = await Promise.all(
    Array.from({ length: AT_ONCE }, () => ask(proxy, origin.url("/photo.jpg"))),
  );
  const count = origin.asked.filter((path) => path === "/photo.jpg").length;
  const collapsed = answers.filter(({ how }) => how.includes("collapsed")).length;
  say(`  requests to the origin: ${count}; answered together with the first: ${collapsed}`);
  expect(count === 1 && answers.every(({ sizeBytes }) => sizeBytes === PHOTO_BYTES), "one request for all");
  say();
}

async function news(proxy: Running, origin: Origin): Promise<void> {
  say("Stale, but it may be shown while it is being renewed (stale-while-revalidate):");
  await ask(proxy, origin.url("/news.html"));
  const answer = await ask(proxy, origin.url("/news.html"));
  say(`  ${milliseconds(answer.ms)}  ${answer.how}`);
  expect(answer.how.startsWith("hit") && answer.ms < ORIGIN_MS, "it does not wait for the origin");
  await sleep(2 * ORIGIN_MS);
  expect(origin.asked.filter((path) => path === "/news.html").length === 2, "it was renewed");
  say();
}

async function afterwards(proxy: Running, origin: Origin): Promise<void> {
  say("kill -9, and a new start: the index is read again from the files.");
  const photo = await ask(proxy, origin.url("/photo.jpg"));
  say(`  /photo.jpg     ${milliseconds(photo.ms)}  ${photo.how}`);
  expect(photo.how.startsWith("hit"), "it is still there");
  await origin.stop();
  say(
    "The origin has gone. What is fresh is served, what is stale by leave, and what is not there cannot be:",
  );
  for (const [path, status] of [
    ["/photo.jpg", 200],
    ["/news.html", 200],
    ["/never.html", 502],
    ["/first.html", 502],
  ] as const) {
    const answer = await ask(proxy, origin.url(path));
    say(`  ${path.padEnd(14)}${answer.status}  ${answer.how}`);
    expect(answer.status === status, `${path}: ${answer.status}`);
  }
  say("  (first.html said no-cache: without asking, it may not be used.)");
  say();
}

await program({
  summary: "Shows the caching proxy from end to end, in one terminal.",
  example: "",
  settings: { port: setting(port, "port of the proxy (0 = any free one)", 0) },
  async run({ port }) {
    const folder = mkdtempSync(join(tmpdir(), "netlab-proxy-demo-"));
    const origin = await startOrigin(port === 0 ? 0 : ORIGIN_PORT);
    const startProxy = () =>
      start("exercises/07-caching-proxy/proxy.ts", ["--port", port, "--cache-dir", folder]);
    try {
      let times = { missMs: 0, hitMs: 0 };
      {
        await using proxy = await startProxy();
        say(`The proxy listens on ${proxy.urls[0]}, the origin on ${origin.url("")}`);
        say();
        times = await browse(proxy, origin);
        await together(proxy, origin);
        await news(proxy, origin);
      } // disposing of it is kill -9
      await using again = await startProxy();
      await afterwards(again, origin);
      expect((await again.stop()) === 0, "the proxy's end");
      const { missMs, hitMs } = times;
      say(`result: hit, 304, 100 in 1, kill -9 | hit ${hitMs.toFixed(1)}, miss ${missMs.toFixed(0)} ms`);
    } finally {
      await origin.stop();
      rmSync(folder, { recursive: true });
    }
  },
});
