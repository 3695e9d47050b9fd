/** The web server in one terminal: what goes over the wire for a page, and what it refuses. */
import { closeSync, mkdtempSync, openSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { port, setting } from "../../shared/config.ts";
import type { Connection } from "../../shared/connection.ts";
import { expect, say } from "../../shared/demo.ts";
import { Failure } from "../../shared/errors.ts";
import { type ResponseHead, readResponse } from "../../shared/http.ts";
import { readBody, responseFraming } from "../../shared/http-body.ts";
import { program } from "../../shared/program.ts";
import { type Running, start } from "../../shared/running.ts";
import { connect } from "../../shared/tcp.ts";

const HERE = "exercises/06-http-server";
const GIBIBYTE = 2 ** 30;
const PIPELINED = 1000;
interface Answer extends ResponseHead {
  body: Buffer;
}

async function answer(connection: Connection, method = "GET"): Promise<Answer> {
  const head = await readResponse(connection);
  if (head === undefined) throw new Failure("the server closed the connection without an answer");
  const chunks: Buffer[] = [];
  for await (const chunk of readBody(connection, responseFraming(head, method))) chunks.push(chunk);
  return { ...head, body: Buffer.concat(chunks) };
}

/** Sends these lines, the empty one and the body, shows them and the head that comes back, and checks its status. */
async function show(
  connection: Connection,
  lines: readonly string[],
  status: number,
  body = "",
): Promise<Answer> {
  for (const line of lines) say(`  > ${line.length > 70 ? `${line.slice(0, 67)}...` : line}`);
  if (body !== "") say(`    and the body ${JSON.stringify(body)}`);
  await connection.write(`${lines.join("\r\n")}\r\n\r\n${body}`);
  const got = await answer(connection, lines[0]?.split(" ")[0]);
  say(`  < HTTP/1.1 ${got.status} ${got.reason}`);
  for (const [name, value] of got.fields) say(`  < ${name}: ${value}`);
  say(`    (${got.body.length} bytes of body)`);
  expect(got.status === status, `status ${got.status} for ${lines[0]}`);
  say();
  return got;
}

async function page({ port }: Running): Promise<void> {
  await using connection = await connect({ host: "127.0.0.1", port });
  say("What a browser asks for, one request after the other on one connection:");
  say();
  const index = await show(connection, ["GET / HTTP/1.1", "Host: localhost"], 200);
  const etag = index.fields.get("ETag") ?? "";
  for (const target of ["/style.css", "/segment.svg"]) {
    await connection.write(`GET ${target} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    const { status, fields, body } = await answer(connection);
    say(`  > GET ${target} HTTP/1.1`);
    say(`  < ${status}, ${fields.get("Content-Type")}, ${body.length} bytes`);
    expect(status === 200 && body.length > 0, target);
  }
  say();
  say("A reload: the browser says what it has, and gets no body if that still holds.");
  await show(connection, ["GET / HTTP/1.1", "Host: localhost", `If-None-Match: ${etag}`], 304);
  say("Part of a file:");
  const range = ["GET /style.css HTTP/1.1", "Host: localhost", "Range: bytes=0-3"];
  expect((await show(connection, range, 206)).body.toString() === "body", "the range");
  say("What does not exist gets the page 404.html with the status 404:");
  const missing = await show(connection, ["GET /nothing-here HTTP/1.1", "Host: localhost"], 404);
  expect(missing.body.includes("not found"), "the page of the 404");
}

async function attacks({ port }: Running): Promise<void> {
  say("What it does not give away: a target, and its status.");
  const targets = [
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/link.txt",
    "/.git",
    "/index.html%00",
  ];
  for (const target of targets) {
    await using connection = await connect({ host: "127.0.0.1", port });
    await connection.write(`GET ${target} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    const { status } = await answer(connection);
    say(`  ${target.padEnd(20)} ${status}`);
    expect(status === 404, target);
  }
  say();
  say("Two lengths could be read in two ways, so the connection is closed:");
  await using connection = await connect({ host: "127.0.0.1", port });
  await show(
    connection,
    ["POST / HTTP/1.1", "Host: localhost", "Content-Length: 4", "Transfer-Encoding: chunked"],
    400,
    "0\r\n\r\n", // all of it by its chunks, one byte too many by its length
  );
}

async function pipelining({ port }: Running): Promise<number> {
  say(`${PIPELINED} requests in one write, without waiting; the answers keep their order:`);
  await using connection = await connect({ host: "127.0.0.1", port });
  const begin = performance.now();
  const targets = Array.from({ length: PIPELINED }, (_, i) => (i % 10 === 9 ? `/none-${i}` : "/digits.txt"));
  await connection.write(targets.map((target) => `GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`).join(""));
  for (const target of targets) {
    const { status } = await answer(connection);
    expect(status === (target === "/digits.txt" ? 200 : 404), `${status} for ${target}`);
  }
  const perSecond = Math.round(PIPELINED / ((performance.now() - begin) / 1000));
  say(`  answered in order, ${perSecond.toLocaleString("en")} a second (the client's pace)`);
  say();
  return perSecond;
}

async function large({ port }: Running): Promise<void> {
  say("A file of 4 GiB: its last bytes, without reading the others.");
  await using connection = await connect({ host: "127.0.0.1", port });
  const got = await show(connection, ["GET /large.bin HTTP/1.1", "Host: localhost", "Range: bytes=-5"], 206);
  expect(
    got.fields.get("Content-Range") === `bytes ${4 * GIBIBYTE - 5}-${4 * GIBIBYTE - 1}/${4 * GIBIBYTE}`,
    "its range",
  );
}

/** A root with what should be served and what should not. */
function makeRoot(folder: string): string {
  const root = mkdtempSync(join(folder, "root-"));
  writeFileSync(join(folder, "secret.txt"), "secret");
  try {
    symlinkSync(join(folder, "secret.txt"), join(root, "link.txt"));
  } catch {
    // Windows asks for a right that few have: then there is nothing under that name, and the answer is the same
  }
  writeFileSync(join(root, "index.html"), "x");
  writeFileSync(join(root, "digits.txt"), "0123456789");
  closeSync(openSync(join(root, "large.bin"), "w"));
  truncateSync(join(root, "large.bin"), 4 * GIBIBYTE); // sparse: it takes no room on the disk
  return root;
}

await program({
  summary: "Shows the web server from end to end, in one terminal.",
  example: "",
  settings: { port: setting(port, "port of the first server (0 = any free one)", 0) },
  async run({ port }) {
    const folder = mkdtempSync(join(tmpdir(), "netlab-http-demo-"));
    try {
      await using site = await start(`${HERE}/server.ts`, ["--port", port]);
      say(`The server of public/ listens on ${site.urls[0]}`);
      await page(site);
      expect((await site.stop()) === 0, "the server's end");
      const root = makeRoot(folder);
      // On the same port, so that a capture has it, too.
      await using own = await start(`${HERE}/server.ts`, ["--port", port, "--root", root]);
      await attacks(own);
      await large(own);
      expect((await own.stop()) === 0, "the server's end");
      await using busy = await start(`${HERE}/server.ts`, ["--port", 0, "--root", root]);
      const perSecond = await pipelining(busy);
      expect((await busy.stop()) === 0, "the server's end");
      say(`result: a page, 304, 206, 404, traversal | ${perSecond.toLocaleString("en")} req/s`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
});
