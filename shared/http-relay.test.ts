import { strict as assert } from "node:assert";
import { once } from "node:events";
import { type AddressInfo, connect as connectSocket, createServer, type Socket } from "node:net";
import { describe, test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import fc from "fast-check";
import { Connection, TimeoutError, UnexpectedEndError } from "./connection.ts";
import { Fields, HttpError } from "./http.ts";
import { encodeChunk, encodeLastChunk, type Framing, readBody } from "./http-body.ts";
import {
  endToEnd,
  isIdempotent,
  onwardFields,
  onwardFraming,
  ReceiverError,
  relayMessage,
  tunnel,
  UpstreamPool,
} from "./http-relay.ts";
import { within, writeSplit } from "./testing.ts";

/** A server that keeps what connects to it. */
async function listen() {
  const server = createServer({ allowHalfOpen: true, noDelay: true });
  const accepted: Socket[] = [];
  const all: Socket[] = [];
  server.on("connection", (socket) => {
    accepted.push(socket);
    all.push(socket);
    socket.on("error", () => {});
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    host: "127.0.0.1",
    port: (server.address() as AddressInfo).port,
    accepted,
    async next(): Promise<Socket> {
      if (accepted.length === 0) await once(server, "connection");
      return accepted.shift() as Socket;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of all) socket.resetAndDestroy();
      server.close();
    },
  };
}

/** Both ends of a TCP connection: the far one a socket, the near one a connection. */
async function pair(timeoutMs = 5000) {
  const server = await listen();
  const far = connectSocket({ port: server.port, host: server.host, allowHalfOpen: true, noDelay: true });
  far.on("error", () => {});
  const near = new Connection(await server.next(), timeoutMs);
  return {
    far,
    near,
    async [Symbol.asyncDispose]() {
      far.destroy();
      near.destroy();
      await server[Symbol.asyncDispose]();
    },
  };
}

async function allFrom(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("latin1");
}

const fieldsOf = (...lines: string[]) =>
  new Fields(lines.map((line) => line.split(": ") as [string, string]));

describe("fields", () => {
  test("those for one hop stay behind, with those that Connection names, in any case and spread over lines", () => {
    const fields = fieldsOf(
      "Host: a",
      "connection: close, X-One",
      "X-Two: 2",
      "CONNECTION: x-two,, content-length, HOST",
      "x-one: 1",
      "Keep-Alive: timeout=5",
      "Proxy-Connection: close",
      "TE: trailers",
      "Transfer-Encoding: chunked",
      "Upgrade: h2c",
      "Content-Length: 3",
      "Trailer: X-Sum",
      "Cache-Control: no-store",
    );
    assert.deepEqual(
      [...endToEnd(fields)].map((line) => line.join(": ")),
      ["Host: a", "Content-Length: 3", "Trailer: X-Sum", "Cache-Control: no-store"],
    );
  });

  test("a body goes on chunked where HTTP/1.1 lets it, and its field says so", () => {
    const length: Framing = { kind: "length", bytes: 3 };
    for (const [framing, minor, onward] of [
      [{ kind: "chunked" }, 1, "chunked"],
      [{ kind: "chunked" }, 0, "close"],
      [{ kind: "close" }, 1, "chunked"],
      [{ kind: "close" }, 0, "close"],
      [{ kind: "none" }, 1, "none"],
      [{ kind: "none" }, 0, "none"],
    ] as const) {
      assert.equal(onwardFraming(framing, minor).kind, onward, `${framing.kind} to 1.${minor}`);
    }
    assert.deepEqual(onwardFraming(length, 0), length);
    assert.deepEqual(onwardFraming(length, 1), length);
    const fields = fieldsOf("Transfer-Encoding: chunked", "A: b");
    assert.equal(`${onwardFields(fields, { kind: "chunked" })}`, "A: b\r\nTransfer-Encoding: chunked\r\n");
    assert.equal(`${onwardFields(fields, { kind: "close" })}`, "A: b\r\n");
    assert.equal(`${onwardFields(fieldsOf("Content-Length: 3"), length)}`, "Content-Length: 3\r\n");
  });

  test("what may be sent twice", () => {
    const methods = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "CONNECT", "get"];
    assert.deepEqual(
      methods.filter((method) => isIdempotent(method)),
      methods.slice(0, 6),
    );
  });
});

/** Passes on what `bytes` hold behind a head, and returns what came out until the near side finished. */
async function relayed(bytes: Buffer, framing: Framing, onward: Framing, pieceBytes?: number) {
  await using from = await pair();
  await using to = await pair();
  const out = allFrom(to.far);
  out.catch(() => {}); // where the relay fails, that is what counts
  const sent = writeSplit(from.far, bytes, pieceBytes ?? Math.max(1, bytes.length)).then(() =>
    from.far.end(),
  );
  await relayMessage(from.near, framing, to.near, onward, Buffer.from("HEAD\r\n\r\n"));
  to.near.end();
  await sent;
  return { text: await out, left: (await from.near.read())?.toString() ?? "" };
}

describe("messages", () => {
  test("a body of a length, and not a byte of what follows it", async () => {
    const { text, left } = await relayed(
      Buffer.from("bodyNEXT"),
      { kind: "length", bytes: 4 },
      { kind: "length", bytes: 4 },
    );
    assert.deepEqual([text, left], ["HEAD\r\n\r\nbody", "NEXT"]);
  });

  test("no body: the head alone", async () => {
    const { text, left } = await relayed(Buffer.from("NEXT"), { kind: "none" }, { kind: "none" });
    assert.deepEqual([text, left], ["HEAD\r\n\r\n", "NEXT"]);
  });

  test("any chunks, in any pieces, with trailers, come out as the same body (property)", async () => {
    const chunk = fc.uint8Array({ minLength: 1, maxLength: 40 }).map((bytes) => Buffer.from(bytes));
    await fc.assert(
      fc.asyncProperty(
        fc.array(chunk, { maxLength: 5 }),
        fc.integer({ min: 1, max: 60 }),
        async (chunks, size) => {
          const trailers = fieldsOf("X-Sum: 1", "Content-Length: 9", "Transfer-Encoding: x");
          const wire = Buffer.concat([
            ...chunks.map(encodeChunk),
            Buffer.from(`${encodeLastChunk(trailers)}NEXT`),
          ]);
          const chunked = await relayed(wire, { kind: "chunked" }, { kind: "chunked" }, size);
          assert.equal(chunked.left.slice(0, 4), "NEXT".slice(0, chunked.left.length));
          assert.ok(chunked.text.startsWith("HEAD\r\n\r\n"));
          await using copy = await pair();
          copy.far.end(Buffer.from(chunked.text.slice(8), "latin1"));
          const body = readBody(copy.near, { kind: "chunked" });
          const read: Buffer[] = [];
          for await (const data of body) read.push(data);
          assert.ok(Buffer.concat(read).equals(Buffer.concat(chunks)));
          assert.deepEqual([...body.trailers], [["X-Sum", "1"]]);
          assert.equal(await copy.near.read(), undefined);
          const closing = await relayed(wire, { kind: "chunked" }, { kind: "close" }, size);
          assert.equal(closing.text, `HEAD\r\n\r\n${Buffer.concat(chunks).toString("latin1")}`);
        },
      ),
      { seed: 8, numRuns: 60 },
    );
  });

  test("trailers that would say who sends, what it may and what it is stay behind", async () => {
    const forged = [
      "Forwarded: for=6.6.6.6",
      "x-forwarded-for: 6.6.6.6",
      "X_Forwarded_For: 6.6.6.6",
      "X-Real-IP: 6.6.6.6",
      "Authorization: Basic YTpi",
      "Cookie: a=b",
      "Content-Type: text/html",
    ];
    const wire = Buffer.from(encodeLastChunk(fieldsOf("X-Sum: 1", ...forged, "X-End: 2")));
    const { text } = await relayed(wire, { kind: "chunked" }, { kind: "chunked" });
    assert.equal(text, "HEAD\r\n\r\n0\r\nX-Sum: 1\r\nX-End: 2\r\n\r\n");
  });

  test("an end that is told by closing becomes a last chunk", async () => {
    const { text } = await relayed(Buffer.from("body"), { kind: "close" }, { kind: "chunked" });
    assert.match(text, /^HEAD\r\n\r\n(?:4\r\nbody\r\n)0\r\n\r\n$/);
  });

  test("a body that is late does not hold the head up, and one that is here goes with it", async () => {
    await using from = await pair();
    await using to = await pair();
    const length: Framing = { kind: "length", bytes: 4 };
    const done = relayMessage(from.near, length, to.near, length, Buffer.from("HEAD"));
    const [first] = (await once(to.far, "data")) as [Buffer];
    assert.equal(first.toString(), "HEAD");
    from.far.write("body");
    const [[body]] = (await Promise.all([once(to.far, "data"), done])) as [[Buffer], unknown];
    assert.equal(body.toString(), "body");
    from.far.write("body");
    await from.near.more();
    await relayMessage(from.near, length, to.near, length, Buffer.from("HEAD"));
    const [whole] = (await once(to.far, "data")) as [Buffer];
    assert.equal(whole.toString(), "HEADbody");
  });

  test("a sender that ends early, a broken chunk and a receiver that is gone can be told from each other", async () => {
    const length: Framing = { kind: "length", bytes: 9 };
    await assert.rejects(relayed(Buffer.from("body"), length, length), UnexpectedEndError);
    const chunked: Framing = { kind: "chunked" };
    await assert.rejects(relayed(Buffer.from("zz\r\n"), chunked, chunked), HttpError);
    await using from = await pair();
    await using to = await pair();
    to.near.destroy();
    from.far.write("body");
    await assert.rejects(relayMessage(from.near, length, to.near, length, Buffer.from("H")), (error) => {
      assert.ok(error instanceof ReceiverError);
      assert.match(error.message, /^cannot pass on to 127\.0\.0\.1:\d+$/);
      return true;
    });
  });

  test("a receiver that does not read holds the sender back, and is given up", async () => {
    await using from = await pair(30_000);
    await using to = await pair(300);
    to.far.pause();
    const total = 64 * 2 ** 20;
    const length: Framing = { kind: "length", bytes: total };
    const relaying = relayMessage(from.near, length, to.near, length, Buffer.from("H"));
    const block = Buffer.alloc(2 ** 20);
    let sent = 0;
    const send = () => {
      while (sent < total && from.far.write(block)) sent += block.length;
    };
    from.far.on("drain", send);
    send();
    await assert.rejects(relaying, (error) => (error as Error).cause instanceof TimeoutError);
    assert.ok(to.near.unsentBytes < 2 ** 20 && from.near.unreadBytes < 2 ** 20);
    assert.ok(sent < total / 2, `${sent} bytes were taken from the sender`);
  });
});

describe("tunnel", () => {
  test("carries any bytes both ways; each side finishes on its own", async () => {
    await using a = await pair();
    await using b = await pair();
    const done = tunnel(a.near, b.near);
    const [atA, atB] = [allFrom(a.far), allFrom(b.far)];
    const large = Buffer.alloc(3_000_000, "x").toString();
    a.far.end(large);
    assert.equal(await atB, large);
    b.far.write("late ");
    await nextTurn();
    b.far.end("answer");
    assert.equal(await atA, "late answer");
    await done;
  });

  test("what had already arrived goes first", async () => {
    await using a = await pair();
    await using b = await pair();
    a.far.write("early");
    await a.near.more();
    const done = tunnel(a.near, b.near);
    a.far.end();
    b.far.end();
    assert.equal(await allFrom(b.far), "early");
    await done;
  });

  test("a reset on one side cuts the other", async () => {
    await using a = await pair();
    await using b = await pair();
    const done = tunnel(a.near, b.near);
    const closed = once(b.far.resume(), "close");
    a.far.resetAndDestroy();
    await assert.rejects(done);
    b.far.end();
    await within(closed, "the other side's end");
  });

  test("is idle only when neither side speaks", async () => {
    await using a = await pair(0);
    await using b = await pair(0);
    const begin = performance.now();
    let last = begin;
    const done = tunnel(a.near, b.near, 200);
    const speaking = setInterval(() => {
      last = performance.now();
      if (last - begin > 700) clearInterval(speaking);
      else a.far.write("x");
    }, 50);
    await assert.rejects(done, TimeoutError);
    assert.ok(performance.now() - begin > 700, "one side spoke for 700 ms");
  });

  test("a side that does not read holds the other back", async () => {
    await using a = await pair(0);
    await using b = await pair(0);
    const done = tunnel(a.near, b.near).catch(() => {});
    b.far.pause();
    const block = Buffer.alloc(2 ** 20);
    while (a.far.writableLength < 8 * block.length) {
      a.far.write(block);
      await nextTurn();
    }
    assert.ok(b.near.unsentBytes < 2 ** 20);
    b.far.resetAndDestroy();
    await done;
    assert.ok(a.near.closed);
  });
});

/** Waits until the pool has dropped what it should: an event on another socket, so there is no one to wait for. */
async function settles(holds: () => boolean): Promise<void> {
  const until = performance.now() + 5000;
  while (!holds()) {
    assert.ok(performance.now() < until, "the pool drops it");
    await nextTurn();
  }
}

describe("pool", () => {
  test("the connection that was released last is used first, and said to be used again", async () => {
    await using server = await listen();
    using pool = new UpstreamPool();
    const [one, two] = [await pool.acquire(server), await pool.acquire(server)];
    assert.deepEqual([one.reused, two.reused], [false, false]);
    pool.release(server, one.connection);
    pool.release(server, two.connection);
    assert.equal(pool.idleCount(server), 2);
    const again = await pool.acquire({ ...server, timeoutMs: 77 });
    assert.deepEqual([again.connection === two.connection, again.reused], [true, true]);
    assert.equal(again.connection.timeoutMs, 77);
    assert.equal(pool.reuse(server), one.connection);
    assert.equal(pool.reuse(server), undefined);
    assert.equal(pool.reuse({ host: "127.0.0.1", port: 1 }), undefined);
  });

  test("one that the peer closes, resets, or that speaks unasked is dropped", async () => {
    for (const fault of ["end", "resetAndDestroy", "speak"] as const) {
      await using server = await listen();
      using pool = new UpstreamPool();
      const { connection } = await pool.acquire(server);
      pool.release(server, connection);
      const peer = await server.next();
      if (fault === "speak") peer.write("HTTP/1.1 408 Too late\r\n\r\n");
      else peer[fault]();
      await settles(() => pool.idleCount(server) === 0);
      assert.ok(connection.closed, fault);
    }
  });

  test("one with bytes left over is not kept, nor one that is closed", async () => {
    await using server = await listen();
    using pool = new UpstreamPool();
    const { connection } = await pool.acquire(server);
    (await server.next()).write("more than was asked for");
    await connection.more();
    pool.release(server, connection);
    assert.equal(pool.idleCount(server), 0);
    assert.ok(connection.closed);
    pool.release(server, connection);
    assert.equal(pool.idleCount(server), 0);
  });

  test("an answer on a connection in use is not taken for unasked bytes, however often it is used", async () => {
    await using server = await listen();
    using pool = new UpstreamPool();
    const { connection } = await pool.acquire(server);
    const peer = await server.next();
    for (let i = 0; i < 3; i++) {
      pool.release(server, connection);
      assert.equal(pool.reuse(server), connection);
      peer.write("answer");
      assert.equal((await connection.readExactly(6))?.toString(), "answer");
    }
    assert.ok(!connection.closed);
    connection.destroy();
  });

  test("beyond the limit the oldest goes; after their time all go", async () => {
    await using server = await listen();
    using pool = new UpstreamPool({ idleLimit: 2, idleMs: 100 });
    const connections = [];
    for (let i = 0; i < 4; i++) connections.push((await pool.acquire(server)).connection);
    for (const connection of connections) pool.release(server, connection);
    await settles(() => pool.idleCount(server) === 2);
    assert.deepEqual(
      connections.map(({ closed }) => closed),
      [true, true, false, false],
    );
    await settles(() => pool.idleCount(server) === 0);
    assert.ok(connections.every(({ closed }) => closed));
  });

  test("dropped addresses and a disposed pool keep nothing", async () => {
    await using server = await listen();
    const pool = new UpstreamPool();
    const [one, two] = [(await pool.acquire(server)).connection, (await pool.acquire(server)).connection];
    pool.release(server, one);
    pool.drop(server);
    assert.equal(pool.reuse(server), undefined, "a closed one is never handed out");
    assert.ok(one.closed);
    const idle = (await pool.acquire(server)).connection;
    pool.release(server, idle);
    pool[Symbol.dispose]();
    pool.release(server, two);
    assert.ok(idle.closed && two.closed);
  });

  test("no server: the failure of the connection", async () => {
    const { port } = await (async () => {
      await using server = await listen();
      return server;
    })();
    using pool = new UpstreamPool();
    await assert.rejects(pool.acquire({ host: "127.0.0.1", port }), { message: /^cannot connect to/ });
  });
});
