/** The balancer between bad nodes and bad clients; nodes that die and come back; a configuration that changes. */
import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectSocket, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { UnexpectedEndError } from "../../shared/connection.ts";
import { readResponse } from "../../shared/http.ts";
import { readBody, responseFraming } from "../../shared/http-body.ts";
import {
  needs,
  type Running,
  resetAfter,
  splitAt,
  start,
  tcpRelay,
  within,
  writeSplit,
} from "../../shared/testing.ts";
import {
  answersTo,
  ask,
  bodyOf,
  clientOf,
  type HttpNode,
  httpNode,
  OK,
  rawNode,
  readAnswer,
  scriptedNode,
  startBalancer,
  statusOf,
  untilStatus,
} from "./test-nodes.ts";

const folder = mkdtempSync(join(tmpdir(), "netlab-balancer-faults-"));
after(() => rmSync(folder, { recursive: true }));
type Balancer = Awaited<ReturnType<typeof startBalancer>>;
/** A node never becomes down by requests alone here, so that each of them meets it. */
const PATIENT = ["--fail-after", 1000];

describe("a bad node beside a good one", () => {
  let good: HttpNode;
  before(async () => {
    good = await httpNode("good");
  });
  after(() => good[Symbol.asyncDispose]());

  /** Ways to fail before anything of a response. */
  const faults: Record<string, (socket: Socket, head: string) => void> = {
    "closes at once": (socket) => socket.end(),
    "resets at once": (socket) => socket.resetAndDestroy(),
    "answers with garbage": (socket) => socket.write("\x00\x01 garbage\r\n\r\n"),
    "ends in the middle of its head": (socket) => socket.end("HTTP/1.1 200 OK\r\nContent-Le"),
    "says both lengths": (socket) =>
      socket.end("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nno"),
    "sends a head without an end": (socket) => socket.write(`HTTP/1.1 200 OK\r\nX: ${"x".repeat(100_000)}`),
    "is HTTP/2": (socket) => socket.write("HTTP/2.0 200 OK\r\n\r\n"),
  };

  test("what is idempotent goes to the other one; a POST is 502 and not sent twice", async () => {
    let fault = "";
    const heads: string[] = [];
    await using bad = await scriptedNode((socket, head) => {
      heads.push(head);
      faults[fault]?.(socket, head);
    });
    await using balancer = await startBalancer([bad, good], PATIENT);
    for (fault of Object.keys(faults)) {
      for (const method of ["GET", "PUT", "DELETE"]) {
        for (let i = 0; i < 2; i++) {
          const answer = await ask(balancer, "/", ["Content-Length: 2", "", "xy"], method).catch(
            (error) => error,
          );
          assert.deepEqual([answer.status, answer.body], [200, "good"], `${fault}, ${method}`);
        }
      }
      heads.length = 0;
      const before = good.requests;
      const statuses: number[] = [];
      for (let i = 0; i < 2; i++)
        statuses.push((await ask(balancer, "/", ["Content-Length: 0"], "POST")).status);
      assert.deepEqual(statuses.sort(), [200, 502], `${fault}: one of two is for the bad node`);
      assert.deepEqual([heads.length, good.requests - before], [1, 1], `${fault}: sent once each`);
    }
    const [status] = await statusOf(balancer);
    assert.equal(status?.failures, Object.keys(faults).length * 4);
    assert.equal(status?.active, 0);
  });

  test("a connection that is refused takes nothing along: a POST goes to the other one", async () => {
    await using balancer = await startBalancer([{ port: 1 }, good], PATIENT);
    for (let i = 0; i < 4; i++)
      assert.equal((await ask(balancer, "/", ["Content-Length: 0"], "POST")).status, 200);
    const chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    for (let i = 0; i < 4; i++) assert.equal((await answersTo(balancer, chunked))[0]?.status, 200);
  });

  test("a large PUT that has begun cannot be sent again: 502, and the connection closes", async () => {
    await using bad = await scriptedNode((socket) => socket.resetAndDestroy());
    await using balancer = await startBalancer([bad, good], PATIENT);
    await using client = await clientOf(balancer);
    await client.write("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    void client.write(Buffer.alloc(900_000)).catch(() => {});
    const answer = await readAnswer(client);
    assert.deepEqual([answer?.status, answer?.fields.get("Connection")], [502, "close"]);
  });

  test("no retry where there is nobody else, and none with --retries 0", async () => {
    await using bad = await scriptedNode((socket) => socket.end());
    await using alone = await startBalancer([bad], PATIENT);
    const answers = await answersTo(
      alone,
      "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert.deepEqual(
      answers.map(({ status }) => status),
      [502, 502],
      "the client's connection goes on",
    );
    assert.match(answers[0]?.body ?? "", /<h1>502 Bad Gateway<\/h1>/);
    await using strict = await startBalancer([bad, good], [...PATIENT, "--retries", 0]);
    const statuses = [(await ask(strict)).status, (await ask(strict)).status];
    assert.deepEqual(statuses.sort(), [200, 502]);
  });

  test("an idle connection that the node has closed costs nobody anything", async () => {
    let served = 0;
    // It keeps each connection for one answer more than it says.
    await using closing = await scriptedNode((socket) => {
      served++;
      if (served % 2 === 1) socket.write(OK("kept"));
      else socket.resetAndDestroy();
    });
    await using balancer = await startBalancer([closing], PATIENT);
    for (let i = 0; i < 6; i++) assert.equal((await ask(balancer)).body, "kept");
    const [status] = await statusOf(balancer);
    assert.deepEqual([status?.failures, status?.total], [0, 6]);
  });

  test("a POST is never sent on a connection that was idle", async () => {
    const used = new Set<Socket>();
    let posts = 0;
    await using node = await scriptedNode((socket, head) => {
      if (head.startsWith("POST")) posts++;
      if (used.has(socket)) return void socket.resetAndDestroy();
      used.add(socket);
      socket.write(OK("first on its connection"));
    });
    await using balancer = await startBalancer([node], PATIENT);
    for (let i = 0; i < 3; i++) {
      assert.equal((await ask(balancer)).status, 200);
      assert.equal((await ask(balancer, "/", ["Content-Length: 0"], "POST")).status, 200);
    }
    assert.equal(posts, 3, "each was sent once");
  });

  test("no node up: 503 with a page", async () => {
    await using sick = await scriptedNode(
      (socket) => socket.end("HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n"),
      { sick: true },
    );
    await using balancer = await startBalancer([sick, { port: 1 }], ["--health-interval", 0.1]);
    await untilStatus(balancer, "both down", (nodes) => nodes.every(({ state }) => state === "down"));
    assert.match(balancer.stderr, /^node1 \(127\.0\.0\.1:\d+\) is down: status 500 for \/$/m);
    assert.match(balancer.stderr, /^node2 \(127\.0\.0\.1:1\) is down: cannot connect to .*refused.*$/m);
    const answer = await ask(balancer);
    assert.deepEqual([answer.status, answer.fields.get("Content-Type")], [503, "text/html; charset=utf-8"]);
    assert.match(answer.body, /<h1>503 Service Unavailable<\/h1>/);
    assert.equal((await ask(balancer, "/", [], "HEAD")).body, "");
  });
});

describe("a late node", () => {
  const late = ["--timeout", 0.4, ...PATIENT];

  test("that never answers: 504, and nobody else is asked", async () => {
    await using silent = await scriptedNode(() => {});
    await using good = await httpNode("good");
    await using balancer = await startBalancer([silent, good], late);
    const answers = [await ask(balancer), await ask(balancer)];
    assert.deepEqual(
      answers.map(({ status }) => status),
      [504, 200],
    );
    assert.match(answers[0]?.body ?? "", /<h1>504 Gateway Timeout<\/h1>/);
    assert.equal(good.requests, 1);
    await untilStatus(balancer, "nobody at work", (nodes) => nodes.every(({ active }) => active === 0));
  });

  test("that sends its head bit by bit: 504 all the same", async () => {
    await using slow = await scriptedNode((socket) => {
      const timer = setInterval(() => (socket.destroyed ? clearInterval(timer) : socket.write("H")), 50);
    });
    await using balancer = await startBalancer([slow], late);
    assert.equal((await ask(balancer)).status, 504);
  });

  test("that stops in mid-body: the client is cut off, not left in the belief that it has all", async () => {
    await using stalling = await scriptedNode((socket) =>
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
    );
    await using balancer = await startBalancer([stalling], late);
    await assert.rejects(ask(balancer), { name: /UnexpectedEndError|Error/ });
    const [status] = await untilStatus(balancer, "a failure", ([node]) => node?.failures === 1);
    assert.equal(status?.active, 0);
  });

  test("a slow upload is not the node's fault", async () => {
    await using node = await httpNode("up", async (request, response) =>
      response.end(String((await bodyOf(request)).length)),
    );
    await using balancer = await startBalancer([node], late);
    await using client = await clientOf(balancer);
    await client.write("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    const begin = performance.now();
    for (let i = 0; i < 10; i++) {
      await new Promise((resolve) => setTimeout(resolve, 80)); // it is the pace that is tested
      await client.write(Buffer.alloc(10_000));
    }
    assert.ok(performance.now() - begin > 400);
    assert.deepEqual((await readAnswer(client))?.body, "100000");
  });
});

describe("a node that dies in mid-body", () => {
  test("the client can tell, whatever the framing; the balancer goes on", async () => {
    let die: () => void = () => {};
    const framings: Record<string, string> = {
      "/chunked": "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
      "/length": "Content-Length: 100\r\n\r\nhalf",
      "/close": "X: y\r\n\r\nhalf",
    };
    await using dying = await scriptedNode((socket, head) => {
      die = () => socket.resetAndDestroy();
      socket.write(`HTTP/1.1 200 OK\r\n${framings[head.split(" ")[1] ?? ""]}`);
    });
    await using balancer = await startBalancer([dying], PATIENT);
    for (const target of Object.keys(framings)) {
      for (const minor of [0, 1]) {
        await using client = await clientOf(balancer);
        await client.write(`GET ${target} HTTP/1.${minor}\r\nHost: a\r\n\r\n`);
        await client.readUntil(Buffer.from("half"), 1000, "half");
        die();
        const length = { kind: "length", bytes: 96 } as const;
        const rest = readBody(
          client,
          target === "/length" ? length : { kind: minor === 0 ? "close" : "chunked" },
        );
        await assert.rejects(async () => {
          for await (const _ of rest);
        }, `${target} for HTTP/1.${minor}`);
      }
    }
    assert.equal((await statusOf(balancer))[0]?.failures, 6);
  });

  test("at every byte of a response, by a relay: a whole answer, another node's, or a cut", async () => {
    await using good = await httpNode("good");
    const wire = OK("from the relay");
    await using node = await scriptedNode((socket) => socket.write(wire));
    const relays = await Promise.all(
      Array.from({ length: wire.length + 1 }, (_, at) =>
        tcpRelay(node.port, (chunk, offset, toServer) =>
          (toServer ? splitAt(1e6) : resetAfter(at))(chunk, offset, toServer),
        ),
      ),
    );
    await using balancer = await startBalancer(
      [...relays, good],
      ["--fail-after", 1000, "--retries", 99, "--health-interval", 3600],
    );
    const outcomes = new Set<string>();
    const bodyAt = wire.length - "from the relay".length;
    for (let i = 0; i <= relays.length; i++) {
      const outcome = await ask(balancer).then(
        ({ body }) => body,
        () => "cut",
      );
      outcomes.add(outcome);
      assert.ok(["good", "cut", "from the relay"].includes(outcome), outcome);
    }
    assert.ok(outcomes.has("cut") && outcomes.has("good"), [...outcomes].join());
    assert.ok(bodyAt > 0);
    for (const relay of relays) await relay[Symbol.asyncDispose]();
  });
});

describe("bad clients", () => {
  let node: HttpNode;
  let balancer: Balancer;
  const LARGE = 50_000_000;
  before(async () => {
    node = await httpNode("node", (request, response) => {
      if (request.url === "/large") response.end(Buffer.alloc(LARGE));
      else request.resume().on("end", () => response.end("node"));
    });
    balancer = await startBalancer([node], ["--header-timeout", 1, "--timeout", 2]);
  });
  after(async () => {
    await balancer[Symbol.asyncDispose]();
    await node[Symbol.asyncDispose]();
  });
  const idle = () => untilStatus(balancer, "nobody at work", ([status]) => status?.active === 0);

  test("half a request, then silence: 408, and the node hears nothing of it", async () => {
    const before = node.requests;
    await using client = await clientOf(balancer);
    await client.write("GET / HTTP/1.1\r\nHost:");
    const answer = await readAnswer(client);
    assert.deepEqual(
      [answer?.status, answer?.fields.get("Connection"), node.requests - before],
      [408, "close", 0],
    );
  });

  test("a head byte by byte, without end: 408 in time", async () => {
    const socket = connectSocket(balancer.port, "127.0.0.1");
    socket.on("error", () => {});
    const timer = setInterval(() => socket.write("X"), 30);
    socket.write("GET / HTTP/1.1\r\nX: ");
    const [chunk] = (await within(once(socket, "data"), "408")) as [Buffer];
    clearInterval(timer);
    assert.match(chunk.toString(), /^HTTP\/1\.1 408 /);
    socket.destroy();
  });

  test("half a small body, then the end: the node hears nothing of it", async () => {
    const before = node.requests;
    await using client = await clientOf(balancer);
    await client.write("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    client.end();
    assert.equal(await client.read().catch(() => undefined), undefined);
    assert.equal(node.requests, before);
  });

  test("half a large body, then the end: the node gets no whole request", async () => {
    await using client = await clientOf(balancer);
    await client.write("PUT /half HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhalf");
    client.end();
    assert.equal(await client.read().catch(() => undefined), undefined);
    const [status] = await idle();
    assert.equal(status?.failures, 0, "it is not the node's fault");
  });

  test("a client that leaves in mid-response, or resets: the node's connection is given up, nothing else", async () => {
    for (const how of ["destroy", "resetAndDestroy"] as const) {
      const socket = connectSocket(balancer.port, "127.0.0.1");
      socket.write("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
      await once(socket, "data");
      socket[how]();
      const [status] = await idle();
      assert.equal(status?.failures, 0);
    }
    assert.equal((await ask(balancer)).body, "node");
  });

  test("a client that does not read holds the node back, not the balancer's memory", {
    skip: process.platform !== "linux",
  }, async () => {
    const socket = connectSocket(balancer.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.pause();
    const { readFileSync } = await import("node:fs");
    const rss = () =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${balancer.child.pid}/status`, "utf8"))?.[1]) * 1024;
    const before = rss();
    for (let i = 0; i < 4; i++) socket.write("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    await untilStatus(balancer, "the node at work", ([status]) => status?.active === 1);
    for (let i = 0; i < 20; i++) assert.equal((await ask(balancer)).body, "node", "others are served");
    assert.ok(rss() - before < LARGE, `${rss() - before} bytes more`);
    socket.destroy();
    await idle();
  });

  test("500 connections that say nothing, and one that is served", async () => {
    const sockets = Array.from({ length: 500 }, () =>
      connectSocket(balancer.port, "127.0.0.1").on("error", () => {}),
    );
    await Promise.all(sockets.map((socket) => once(socket, "connect")));
    assert.equal((await ask(balancer)).body, "node");
    for (const socket of sockets) socket.destroy();
  });

  test("one-byte writes of a body that is streamed", async () => {
    const socket = connectSocket(balancer.port, "127.0.0.1");
    const chunks: Buffer[] = [];
    socket.on("data", (chunk) => chunks.push(chunk));
    await writeSplit(
      socket,
      Buffer.from(
        `PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
      ),
    );
    await once(socket, "end");
    assert.match(Buffer.concat(chunks).toString(), /^HTTP\/1\.1 200 .*node/s);
  });

  test("garbage of any kind: the balancer still stands", async () => {
    for (let seed = 0; seed < 40; seed++) {
      const bytes = Buffer.from(
        Array.from({ length: 200 }, (_, i) => (seed * 7919 + i * i * 31 + (i >> 3) * seed) & 255),
      );
      await using client = await clientOf(balancer);
      await client.write(Buffer.concat([bytes, Buffer.from("\r\n\r\n")])).catch(() => {});
      client.end();
      while ((await client.read().catch(() => undefined)) !== undefined);
    }
    assert.equal((await ask(balancer)).body, "node");
  });
});

test("an answer that comes before the body is whole goes to the client, and the connection ends", async () => {
  await using early = await scriptedNode((socket) =>
    socket.write("HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno"),
  );
  await using balancer = await startBalancer([early]);
  await using client = await clientOf(balancer);
  await client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst bytes");
  const answer = await readAnswer(client);
  assert.deepEqual([answer?.status, answer?.body, answer?.fields.get("Connection")], [413, "no", "close"]);
  assert.equal(await client.read().catch(() => undefined), undefined);
});

test("a client whose body breaks off while the node already answers: not the node's failure, and no second response", async () => {
  await using talks = await scriptedNode((socket) =>
    socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"),
  );
  await using balancer = await startBalancer([talks], ["--fail-after", 2]);
  for (const how of ["resets", "ends", "nonsense", "resets"]) {
    const client = connectSocket(balancer.port, "127.0.0.1").on("error", () => {});
    let received = "";
    client.setEncoding("latin1").on("data", (text: string) => {
      received += text;
    });
    client.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    await once(client, "data");
    if (how === "resets") client.resetAndDestroy();
    else if (how === "ends") client.end();
    else client.write("no chunk\r\n");
    if (!client.destroyed) await within(once(client, "close"), "the end");
    const [node] = await untilStatus(balancer, "the end of it", (nodes) => nodes[0]?.active === 0);
    assert.deepEqual([node?.state, node?.failures], ["up", 0], how);
    assert.equal(received.split("HTTP/1.1").length, 2, received);
  }
});

test("a client that resets while the node is at work: the node's connection is closed at once, nobody failed", async () => {
  const gone: Promise<unknown>[] = [];
  await using slow = await scriptedNode((socket) => void gone.push(once(socket, "end")));
  await using balancer = await startBalancer([slow], ["--fail-after", 1]);
  for (let i = 0; i < 2; i++) {
    const client = connectSocket(balancer.port, "127.0.0.1").on("error", () => {});
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    while (gone.length <= i) await nextTurn();
    client.resetAndDestroy();
    await within(gone[i] as Promise<unknown>, "the end of the node's connection");
  }
  const [status] = await untilStatus(balancer, "nothing to do", (nodes) => nodes[0]?.active === 0);
  assert.deepEqual([status?.state, status?.failures, status?.total], ["up", 0, 2]);
});

/** Clients that ask without a pause until told to stop; every answer that is not 200 and whole is a failure. */
function load({ port }: { port: number }, clients: number) {
  const failures: string[] = [];
  let isOver = false;
  let answers = 0;
  const one = async () => {
    while (!isOver) {
      await using client = await clientOf({ port });
      try {
        while (!isOver) {
          await client.write("GET /style.css HTTP/1.1\r\nHost: a\r\n\r\n");
          const head = await readResponse(client);
          if (head?.status !== 200) throw new Error(`status ${head?.status}`);
          for await (const _ of readBody(client, responseFraming(head, "GET")));
          answers++;
        }
      } catch (error) {
        failures.push(String(error));
      }
    }
  };
  const all = Promise.all(Array.from({ length: clients }, one));
  return {
    failures,
    get answers() {
      return answers;
    },
    /** Waits for so many answers more. */
    async more(count: number) {
      const wanted = answers + count;
      while (answers < wanted) await new Promise((resolve) => setImmediate(resolve));
    },
    async end() {
      isOver = true;
      await all;
    },
  };
}

const SERVER = "exercises/06-http-server/server.ts";

test("kill -9 of one of two nodes under 64 clients: no request fails, and it is back within two intervals", async () => {
  await using stays = await start(SERVER, ["--port", 0]);
  const dies = await start(SERVER, ["--port", 0]);
  const { port } = dies;
  const intervalS = 1;
  await using balancer = await startBalancer([stays, dies], ["--health-interval", intervalS]);
  const clients = load(balancer, 64);
  let back: Running | undefined;
  try {
    for (let round = 0; round < 2; round++) {
      await clients.more(400);
      await (round === 0 ? dies : back)?.[Symbol.asyncDispose](); // SIGKILL
      await clients.more(400);
      await untilStatus(balancer, "the node down", ([, node]) => node?.state === "down");
      await clients.more(200);
      back = await start(SERVER, ["--port", port]);
      const begin = performance.now();
      const before = (await statusOf(balancer))[1]?.total ?? 0;
      await untilStatus(balancer, "traffic at the node", ([, node]) => (node?.total ?? 0) > before);
      const tookMs = performance.now() - begin;
      assert.ok(tookMs < 2 * intervalS * 1000, `back after ${tookMs} ms`);
    }
  } finally {
    await clients.end();
    await back?.[Symbol.asyncDispose]();
  }
  assert.deepEqual(clients.failures, []);
  assert.match(balancer.stderr, /node2 .* is down: .*\nnode2 .* is up\n/);
});

test("no descriptors left: that is our own trouble, and no node is down for it", {
  ...needs("prlimit"),
  timeout: 30_000,
}, async () => {
  await using node = await httpNode("node");
  // A check that ends would give a descriptor back.
  await using balancer = await startBalancer([node], ["--fail-after", 1, "--health-interval", 3600]);
  await using client = await clientOf(balancer);
  const { pid } = balancer.child;
  const used = () => readdirSync(`/proc/${pid}/fd`).map(Number);
  const limit = used().length + 10;
  execFileSync("prlimit", ["--pid", String(pid), `--nofile=${limit}:${limit}`]);
  const silent: Socket[] = [];
  for (let i = 0; i < 3; i++) {
    while (used().filter((fd) => fd < limit).length < limit) {
      silent.push(connectSocket(balancer.port, "127.0.0.1").on("error", () => {}));
      await nextTurn();
    }
    await client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert.equal((await readAnswer(client))?.status, 503);
  }
  for (const socket of silent) socket.destroy();
  await client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  while ((await readAnswer(client))?.status !== 200) await client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  const [status] = await statusOf(balancer);
  assert.deepEqual([status?.state, status?.failures], ["up", 0]);
});

describe("SIGHUP", () => {
  const file = join(folder, "reload.ini");
  const section = (name: string, { port }: { port: number }) =>
    `[${name}]\nhost = 127.0.0.1\nport = ${port}\n`;

  test("under load: nodes come and go without a failed request", async () => {
    await using a = await httpNode("a");
    await using b = await httpNode("b");
    await using c = await httpNode("c");
    writeFileSync(file, section("a", a) + section("b", b));
    await using balancer = await startBalancer([], ["--config", file]);
    const clients = load(balancer, 64);
    for (const nodes of [{ b, c }, { c }, { a, b, c }, { a }, { a, b }, { c, a }]) {
      await clients.more(300);
      writeFileSync(
        file,
        Object.entries(nodes)
          .map(([name, node]) => section(name, node))
          .join(""),
      );
      balancer.kill("SIGHUP");
      await untilStatus(
        balancer,
        "the new nodes",
        (status) => status.map(({ name }) => name).join() === Object.keys(nodes).join(),
      );
      await clients.more(300);
    }
    await clients.end();
    assert.deepEqual(clients.failures, []);
    assert.ok(a.requests > 0 && b.requests > 0 && c.requests > 0);
    const [left, right] = await statusOf(balancer);
    assert.ok((right?.total ?? 0) > (left?.total ?? 0), "one that stays keeps its counts");
  });

  test("a removed node's idle connections are closed, and it is checked no more", async () => {
    let checks = 0;
    let ended: () => void = () => {};
    const closed = new Promise<void>((resolve) => {
      ended = resolve;
    });
    await using gone = await rawNode((socket) => {
      socket.on("data", (chunk) => {
        const isCheck = chunk.includes("netlab-balancer");
        if (isCheck) checks++;
        else socket.on("end", ended);
        socket.write(OK("gone"));
      });
    });
    await using stays = await httpNode("stays");
    writeFileSync(file, section("gone", gone));
    await using balancer = await startBalancer([], ["--config", file, "--health-interval", 0.05]);
    assert.equal((await ask(balancer)).body, "gone");
    writeFileSync(file, section("stays", stays));
    balancer.kill("SIGHUP");
    await within(closed, "the end of the idle connection");
    const before = checks;
    const { connections } = stays;
    await untilStatus(balancer, "more checks of the other", () => stays.connections > connections + 4);
    assert.equal(checks, before);
  });

  test("what a removed node has begun, it finishes", async () => {
    let release: () => void = () => {};
    await using slow = await httpNode("slow", (_, response) => {
      release = () => response.end("slow");
    });
    await using fast = await httpNode("fast");
    writeFileSync(file, section("slow", slow));
    await using balancer = await startBalancer([], ["--config", file]);
    const waiting = ask(balancer);
    await untilStatus(balancer, "the request at the node", ([node]) => node?.active === 1);
    writeFileSync(file, section("fast", fast));
    balancer.kill("SIGHUP");
    await balancer.output(/^configuration read again: fast$/m, "stderr");
    assert.equal((await ask(balancer)).body, "fast");
    release();
    assert.equal((await waiting).body, "slow");
  });

  test("a bad file: one line, and the old configuration stays in force", async () => {
    await using node = await httpNode("node");
    writeFileSync(file, section("node", node));
    await using balancer = await startBalancer([], ["--config", file]);
    writeFileSync(file, `${section("node", node)}weight = none\n`);
    balancer.kill("SIGHUP");
    const [line] = await balancer.output(/^error: .*$/m, "stderr");
    assert.equal(
      line,
      `error: ${file}:4: [node] weight "none" is not a whole number from 1 to 1000; the old configuration stays in force`,
    );
    assert.equal((await ask(balancer)).body, "node");
    rmSync(file);
    balancer.kill("SIGHUP");
    await balancer.output(/no such file.*the old configuration/, "stderr");
    assert.equal((await ask(balancer)).body, "node");
  });
});

test("these checks would notice: a cut body is seen, and a load that fails is counted", async () => {
  await using liar = await rawNode((socket) => {
    socket.on("data", () => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"));
  });
  await assert.rejects(ask(liar), UnexpectedEndError);
  const clients = load(liar, 1);
  while (clients.failures.length === 0) await new Promise((resolve) => setImmediate(resolve));
  await clients.end();
  assert.match(clients.failures[0] ?? "", /UnexpectedEndError/);
});
