/**
 * A conformance suite for shared HTTP caches that are asked as a proxy: a case says what the origin answers, what the client
 * asks, and what it must get. Cases use only the wire, so any proxy can be put to them.
 */
import { strict as assert } from "node:assert";
import type { Connection } from "../../shared/connection.ts";
import {
  Fields,
  parseFields,
  type RequestHead,
  type ResponseHead,
  readResponse,
  requestReader,
} from "../../shared/http.ts";
import {
  encodeChunk,
  encodeLastChunk,
  readBody,
  requestFraming,
  responseFraming,
} from "../../shared/http-body.ts";
import { formatDate } from "../../shared/http-serving.ts";
import { connect, serve } from "../../shared/tcp.ts";

/** `Name: value` lines. */
export type Lines = readonly string[];

/** What the origin does with a request; a list of lines is a 200 with them. `{date:-60}` in a line is the time a minute ago, `{path}` the case's path. */
export interface OriginAnswer {
  status?: number;
  lines?: Lines;
  /** Else the number of the request that it answers, from 1. */
  body?: string;
  /** Heads before the answer. */
  interim?: readonly { status: number; lines: Lines }[];
  trailers?: Lines;
  /** Sent in chunks. */
  chunked?: boolean;
  /** Hangs up instead. */
  hangUp?: boolean;
  /** Takes so long. */
  delayMs?: number;
}

/** A request, and what must come of it. */
export interface Step {
  method?: string;
  ask?: Lines;
  /** Added to the case's path. */
  path?: string;
  body?: string;
  /** Is the origin asked for it? Without it, either will do. */
  is?: "hit" | "origin";
  status?: number;
  /** The response's body; a number: that of the origin's answer to the request of this number. */
  gets?: string | number;
  /** Lines that the response must have (`Name: value`, `Name: /pattern/`, `Name: *` for any value) or must not have (`Name:`). */
  has?: Lines;
  /** The same of the request that the origin got. */
  originGot?: Lines;
  /** The status codes that came before the response. */
  interim?: readonly number[];
  /** Done after the step, until it holds: for what happens behind the client's back. */
  thenOriginCount?: number;
  trailers?: Lines;
}

export interface Case {
  /** RFC and section. */
  rule: string;
  name: string;
  origin: readonly (Lines | OriginAnswer)[];
  steps: readonly ("hit" | "origin" | Step)[];
}

/** All of a case's dates count from the same moment. */
const fill = (line: string, { nowMs, path }: Script) =>
  line
    .replaceAll("{path}", path)
    .replace(/\{date:(-?\d+)\}/g, (_, seconds) => formatDate(nowMs + Number(seconds) * 1000));
const isAnswer = (answer: Lines | OriginAnswer): answer is OriginAnswer => !Array.isArray(answer);

interface Script {
  answers: readonly (Lines | OriginAnswer)[];
  got: RequestHead[];
  nowMs: number;
  path: string;
}

export interface Origin extends AsyncDisposable {
  port: number;
  scripts: Map<string, Script>;
}

/** An origin server that answers each path by its script, the last answer again and again. */
export async function startOrigin(): Promise<Origin> {
  const stop = new AbortController();
  const scripts = new Map<string, Script>();
  const server = await serve(
    { host: "127.0.0.1", port: 0, signal: stop.signal, log: () => {} },
    async (connection) => {
      const reader = requestReader(connection);
      for (let head = await reader.next(); head !== undefined; head = await reader.next()) {
        for await (const _ of readBody(connection, requestFraming(head)));
        const script = scripts.get(/^\/\d+/.exec(head.target)?.[0] ?? "");
        if (script === undefined) return;
        script.got.push(head);
        if (!(await sendAnswer(connection, head, script))) return;
      }
    },
  );
  return {
    port: server.port,
    scripts,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await server.closed;
    },
  };
}

async function sendAnswer(connection: Connection, { method }: RequestHead, script: Script): Promise<boolean> {
  const number = script.got.length;
  const given = script.answers[Math.min(number, script.answers.length) - 1] ?? [];
  const answer = isAnswer(given) ? given : { lines: given };
  if (answer.hangUp) return false;
  if (answer.delayMs) await new Promise((resolve) => setTimeout(resolve, answer.delayMs));
  for (const { status, lines } of answer.interim ?? [])
    await connection.write(`HTTP/1.1 ${status} Wait\r\n${lines.map((line) => `${line}\r\n`).join("")}\r\n`);
  const { status = 200, lines = [], trailers = [] } = answer;
  const hasBody = status !== 204 && status !== 304 && method !== "HEAD";
  const body = Buffer.from(answer.body ?? String(number));
  const isChunked = answer.chunked || trailers.length > 0;
  const own = lines.map((line) => fill(line, script));
  if (!own.some((line) => /^date:/i.test(line))) own.push(`Date: ${formatDate(Date.now())}`);
  if (isChunked) own.push("Transfer-Encoding: chunked");
  else if (status !== 204 && status !== 304 && !own.some((line) => /^content-length:/i.test(line)))
    own.push(`Content-Length: ${body.length}`);
  const head = `HTTP/1.1 ${status} Whatever\r\n${own.filter((line) => line !== "Date:").join("\r\n")}\r\n\r\n`;
  const whole = isChunked ? [encodeChunk(body), Buffer.from(encodeLastChunk(parseFields(trailers)))] : [body];
  await connection.write(Buffer.concat([Buffer.from(head, "latin1"), ...(hasBody ? whole : [])]));
  return true;
}

let lastCase = 0;

/** Puts the proxy at `proxyPort` to a case. Throws an `AssertionError` that says which step failed how. */
export async function runCase(
  { origin: answers, steps }: Case,
  origin: Origin,
  proxyPort: number,
  patienceMs = 10_000,
): Promise<void> {
  const path = `/${++lastCase}`;
  const script: Script = { answers, got: [], nowMs: Date.now(), path };
  origin.scripts.set(path, script);
  await using connection = await connect({ host: "127.0.0.1", port: proxyPort, timeoutMs: patienceMs });
  for (const [index, given] of steps.entries()) {
    const step: Step = typeof given === "string" ? { is: given } : given;
    const before = script.got.length;
    const { method = "GET", ask = [], body } = step;
    const lines = [`Host: 127.0.0.1:${origin.port}`, ...ask.map((line) => fill(line, script))];
    if (body !== undefined) lines.push(`Content-Length: ${body.length}`);
    const url = `http://127.0.0.1:${origin.port}${path}${step.path ?? ""}`;
    await connection.write(`${method} ${url} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n${body ?? ""}`);
    const got = await readAnswer(connection, method);
    const where = `step ${index + 1} (${got.status}; ${[...got.fields].map((line) => line.join(": ")).join("; ")})`;
    if (step.is !== undefined)
      assert.equal(script.got.length > before ? "origin" : "hit", step.is, `${where}: answered by`);
    if (step.status !== undefined) assert.equal(got.status, step.status, where);
    if (step.gets !== undefined) assert.equal(got.body, String(step.gets), where);
    if (step.interim !== undefined) assert.deepEqual(got.interim, step.interim, where);
    checkLines(got.fields, step.has ?? [], script, where);
    checkLines(got.trailers, step.trailers ?? [], script, `${where}: trailers`);
    const request = script.got.at(-1);
    if (step.originGot !== undefined)
      checkLines(
        request?.fields ?? new Fields(),
        step.originGot,
        script,
        `${where}: the origin got ${request?.fields}`,
      );
    if (step.thenOriginCount !== undefined) await untilCount(script, step.thenOriginCount, where);
  }
}

/** Once the origin has answered, the proxy needs a moment to take note: it has when another request through it is answered. */
async function untilCount(script: Script, count: number, where: string): Promise<void> {
  for (let tries = 0; script.got.length < count; tries++) {
    assert.ok(tries < 1000, `${where}: the origin was asked ${script.got.length} times, not ${count}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
}

function checkLines(fields: Fields, expected: Lines, script: Script, where: string): void {
  for (const given of expected) {
    const line = fill(given, script);
    const [, name = "", value = ""] = /^([^:]+):\s*(.*)$/.exec(line) ?? [];
    const actual = fields.get(name);
    if (value === "") assert.equal(actual, undefined, `${where}: ${name}`);
    else if (value === "*") assert.notEqual(actual, undefined, `${where}: ${name}`);
    else if (name === "Age") assertAge(actual, Number(value), where);
    else if (value.startsWith("/"))
      assert.match(actual ?? "", new RegExp(value.slice(1, -1)), `${where}: ${name}`);
    else assert.equal(actual, value, `${where}: ${name}`);
  }
}

/** On a busy machine a case takes its time, and it counts. */
function assertAge(actual: string | undefined, expected: number, where: string): void {
  assert.match(actual ?? "", /^\d+$/, `${where}: Age`);
  const late = Number(actual) - expected;
  assert.ok(late >= 0 && late <= 3, `${where}: Age`);
}

interface Answer extends ResponseHead {
  body: string;
  trailers: Fields;
  interim: number[];
}

async function readAnswer(connection: Connection, method: string): Promise<Answer> {
  const interim: number[] = [];
  for (;;) {
    const head = await readResponse(connection);
    assert.ok(head !== undefined, "the proxy closed the connection without an answer");
    if (head.status < 200) {
      interim.push(head.status);
      continue;
    }
    const body = readBody(connection, responseFraming(head, method));
    const chunks: Buffer[] = [];
    for await (const chunk of body) chunks.push(chunk);
    return { ...head, body: Buffer.concat(chunks).toString("latin1"), trailers: body.trailers, interim };
  }
}
