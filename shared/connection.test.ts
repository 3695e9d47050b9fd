import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  type AddressInfo,
  connect as connectSocket,
  createServer,
  type Socket,
  type TcpNetConnectOpts,
} from "node:net";
import { after, before, test } from "node:test";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { Connection, formatAddress, TimeoutError, TooLongError, UnexpectedEndError } from "./connection.ts";
import { Failure, isFailure } from "./errors.ts";
import { bytes, encode, PduError, restBytes, struct, text, u8, u16, u32, union } from "./pdu.ts";
import { PATIENCE_MS, within } from "./testing.ts";

const SEED = 20_250_302;
const MIB = 1024 * 1024;

const server = createServer({ allowHalfOpen: true, noDelay: true });
before(() => once(server.listen(0, "127.0.0.1"), "listening"));
after(() => void server.close());

/** Two ends of a TCP connection: one is ours, the other a plain socket whose data nobody takes yet. */
class Pair implements AsyncDisposable {
  readonly ours: Connection;
  readonly socket: Socket;
  readonly peer: Socket;
  #sentBytes = 0;
  constructor(socket: Socket, peer: Socket) {
    this.socket = socket;
    this.ours = new Connection(socket, PATIENCE_MS);
    this.peer = peer;
    peer.on("error", () => {});
  }
  static async open(options: Partial<TcpNetConnectOpts> = {}): Promise<Pair> {
    const accepted = once(server, "connection") as Promise<[Socket]>;
    const { port } = server.address() as AddressInfo;
    const peer = connectSocket({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true, ...options });
    peer.pause();
    const [[socket]] = await Promise.all([accepted, once(peer, "connect")]);
    return new Pair(socket, peer);
  }
  /** Sends from the peer, and waits until it has arrived: so that it is a chunk of its own. */
  async arrive(data: Buffer | string): Promise<void> {
    const chunk = Buffer.from(data);
    this.#sentBytes += chunk.length;
    this.peer.write(chunk);
    while (this.socket.bytesRead < this.#sentBytes) await nextTurn();
  }
  /** All that the peer gets until our FIN; throws where a reset comes instead. */
  async received(): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for await (const chunk of this.peer.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.peer.destroy();
    this.socket.destroy();
  }
}

/** Bytes that are the same every time and nowhere the same. */
function pattern(sizeBytes: number, seed = SEED): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  let state = seed;
  for (let i = 0; i < sizeBytes; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}
const sha1 = (bytes: Buffer) => createHash("sha1").update(bytes).digest("hex");

/** Does it settle while nothing else is to be done? Asks the event loop, not the clock. */
async function settles(promise: Promise<unknown>): Promise<boolean> {
  let done = false;
  promise.then(
    () => {
      done = true;
    },
    () => {
      done = true;
    },
  );
  for (let i = 0; i < 20; i++) await nextTurn();
  return done;
}

const Note = struct("Note", { number: [u16, ""], note: [text(u8), ""] });
const Event = union("Event", "kind", u8, {
  ping: [1, {}, ""],
  data: [2, { name: [text(u8), ""], body: [bytes(u16), ""] }, ""],
});

const SCRIPT = Buffer.concat([
  Buffer.from("hello\r\n\nñandú\n"),
  encode(Note, { number: 258, note: "añ\n" }),
  Buffer.from("\r\n12345"),
  encode(Event, { kind: "ping" }),
  encode(Event, { kind: "data", name: "b", body: Buffer.from("\r\n\0") }),
  Buffer.from("end\n"),
]);
const SCRIPT_READ = [
  "hello",
  "",
  "ñandú",
  { number: 258, note: "añ\n" },
  "",
  "12345",
  { kind: "ping" },
  { kind: "data", name: "b", body: Buffer.from("\r\n\0") },
  "end",
  undefined,
];
async function readScript(connection: Connection): Promise<unknown[]> {
  return [
    await connection.readLine(100),
    await connection.readLine(100),
    await connection.readLine(100),
    await connection.readPdu(Note, 100),
    await connection.readLine(100),
    (await connection.readExactly(5))?.toString(),
    await connection.readPdu(Event, 100),
    await connection.readPdu(Event, 100),
    await connection.readLine(100),
    await connection.readLine(100),
  ];
}
async function assertReadsScript(pieces: readonly Buffer[]): Promise<void> {
  await using pair = await Pair.open();
  const reading = readScript(pair.ours);
  for (const piece of pieces) await pair.arrive(piece);
  pair.peer.end();
  assert.deepEqual(await reading, SCRIPT_READ);
}
const splitAt = (...offsets: number[]) =>
  [0, ...offsets].map((offset, i) => SCRIPT.subarray(offset, offsets[i] ?? SCRIPT.length));

test("lines, PDUs and bytes, read the same however they are cut", async (t) => {
  await t.test("in one piece", () => assertReadsScript([SCRIPT]));
  await t.test("byte by byte", () => assertReadsScript([...SCRIPT].map((byte) => Buffer.of(byte))));
  await t.test("at every byte and at every two", async () => {
    for (let first = 1; first < SCRIPT.length; first++) {
      await assertReadsScript(splitAt(first));
      for (let second = first + 1; second < SCRIPT.length; second++)
        await assertReadsScript(splitAt(first, second));
    }
  });
  await t.test("all there before the first read", async () => {
    await using pair = await Pair.open();
    await pair.arrive(SCRIPT);
    pair.peer.end();
    assert.deepEqual(await readScript(pair.ours), SCRIPT_READ);
  });
});

const LINES: readonly (readonly [input: string, limitBytes: number, expected: readonly unknown[]])[] = [
  ["a\nb\n", 10, ["a", "b", undefined]],
  ["a\r\nb\r\n", 10, ["a", "b", undefined]],
  ["\n\r\n\n", 10, ["", "", "", undefined]],
  ["a\rb\r\r\n", 10, ["a\rb\r", undefined]],
  ["\r", 10, [UnexpectedEndError]],
  ["a\nb", 10, ["a", UnexpectedEndError]],
  ["", 10, [undefined]],
  ["1234\n", 5, ["1234", undefined]],
  ["123\r\n", 5, ["123", undefined]],
  ["12345\n", 5, [TooLongError]],
  ["1234\r\n", 5, [TooLongError]],
  ["123456", 5, [TooLongError]],
  ["\n", 0, [TooLongError]],
  ["a\n1234567890", 5, ["a", TooLongError]],
  ["\ufeffbom \0 nul\n", 20, ["\ufeffbom \0 nul", undefined]],
];
for (const [input, limitBytes, expected] of LINES) {
  for (const pieceBytes of [1, 4, 100]) {
    test(`lines of at most ${limitBytes} bytes in ${JSON.stringify(input)}, ${pieceBytes} at a time`, async () => {
      await using pair = await Pair.open();
      const reading = (async () => {
        for (const line of expected) {
          const read = pair.ours.readLine(limitBytes);
          if (typeof line === "function") await assert.rejects(read, line as typeof Failure);
          else assert.equal(await read, line);
        }
      })();
      const whole = Buffer.from(input);
      for (let at = 0; at < whole.length; at += pieceBytes)
        await pair.arrive(whole.subarray(at, at + pieceBytes));
      pair.peer.end();
      await reading;
    });
  }
}

test("a line in another encoding; bytes that are no UTF-8 become U+FFFD", async () => {
  await using pair = await Pair.open();
  await pair.arrive(Buffer.from("61f1ff0a61ff620a", "hex"));
  assert.equal(await pair.ours.readLine(10, "latin1"), "añÿ");
  assert.equal(await pair.ours.readLine(10), "a\ufffdb");
});

test("up to a delimiter, wherever it is cut, and no byte beyond", async () => {
  const delimiter = Buffer.from("\r\n\r\n");
  const head = Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\r\n\r\n");
  const body = Buffer.from("\r\n\r\nbody");
  const stream = Buffer.concat([head, body]);
  for (let cut = 1; cut < stream.length; cut++) {
    await using pair = await Pair.open();
    const reading = pair.ours.readUntil(delimiter, head.length, "a head");
    await pair.arrive(stream.subarray(0, cut));
    await pair.arrive(stream.subarray(cut));
    assert.deepEqual(await reading, head);
    assert.deepEqual(await pair.ours.readUntil(delimiter, 4, "a head"), delimiter);
    assert.deepEqual(await pair.ours.readExactly(4), Buffer.from("body"));
  }
  for (const [bytes, error] of [
    [head, { name: "TooLongError", message: `a head is longer than ${head.length - 1} bytes` }],
    [
      "GET",
      { name: "UnexpectedEndError", message: "the peer finished in the middle of a head, after 3 bytes" },
    ],
  ] as const) {
    await using pair = await Pair.open();
    pair.peer.end(bytes);
    await assert.rejects(pair.ours.readUntil(delimiter, head.length - 1, "a head"), error);
  }
});

test("a read of at most so many bytes leaves the rest", async () => {
  await using pair = await Pair.open();
  await pair.arrive("abcdef");
  await pair.arrive("gh");
  const read = async (maxBytes?: number) => (await pair.ours.read(maxBytes))?.toString();
  assert.equal(await read(2), "ab");
  assert.equal(await read(1), "c");
  assert.equal(await read(100), "def", "a chunk at a time");
  assert.equal(await read(), "gh");
});

test("what is too long is refused before the rest of it comes, and takes no memory", async () => {
  await using pair = await Pair.open();
  await pair.arrive("x".repeat(101));
  await assert.rejects(pair.ours.readLine(100), {
    name: "TooLongError",
    message: "a line is longer than 100 bytes",
  });
  await using other = await Pair.open();
  const before = process.memoryUsage().arrayBuffers;
  await other.arrive(Buffer.from("ffffffff", "hex"));
  await assert.rejects(other.ours.readPdu(struct("Blob", { data: [bytes(u32), ""] }), 1000), {
    name: "TooLongError",
    message: "a PDU of at least 4294967299 bytes came, the limit is 1000",
  });
  await assert.rejects(pair.ours.readPdu(struct("Big", { data: [bytes(u32, 10), ""] }), 1000), PduError);
  assert.ok(process.memoryUsage().arrayBuffers - before < MIB);
  // A limit below the smallest PDU is met before a byte is there.
  await using third = await Pair.open();
  await assert.rejects(third.ours.readPdu(Note, 2), TooLongError);
});

test("a PDU of exactly the limit passes, one byte more does not", async () => {
  const note = encode(Note, { number: 1, note: "abc" });
  for (const [limitBytes, passes] of [
    [note.length, true],
    [note.length - 1, false],
  ] as const) {
    await using pair = await Pair.open();
    await pair.arrive(note);
    const read = pair.ours.readPdu(Note, limitBytes);
    if (passes) assert.deepEqual(await read, { number: 1, note: "abc" });
    else await assert.rejects(read, TooLongError);
  }
});

test("garbage where a PDU should be is refused at once", async () => {
  await using pair = await Pair.open();
  await pair.arrive(Buffer.of(9));
  await assert.rejects(pair.ours.readPdu(Event, 100), { message: "Event.kind at byte 0: unknown code 9" });
});

test("an end on a boundary is a value, in the middle an error that says of what", async () => {
  const reads: readonly (readonly [string, (connection: Connection) => Promise<unknown>])[] = [
    ["10 bytes", (connection) => connection.readExactly(10)],
    ["a line", (connection) => connection.readLine(100)],
    ["a PDU", (connection) => connection.readPdu(Note, 100)],
  ];
  for (const [what, read] of reads) {
    await using pair = await Pair.open();
    pair.peer.end();
    assert.equal(await read(pair.ours), undefined);
    assert.equal(await read(pair.ours), undefined, "and again");
    assert.equal(await pair.ours.read(), undefined);
    await using half = await Pair.open();
    half.peer.end("\x00\x01\x05ab");
    await assert.rejects(read(half.ours), {
      name: "UnexpectedEndError",
      message: `the peer finished in the middle of ${what}, after 5 bytes`,
    });
    assert.equal((await half.ours.read())?.toString(), "\x00\x01\x05ab", "what came is still there");
  }
});

test("nothing asked for is nothing read", async () => {
  await using pair = await Pair.open();
  const Empty = struct("Empty", {});
  assert.deepEqual(await pair.ours.readExactly(0), Buffer.alloc(0));
  assert.deepEqual(await pair.ours.readPdu(Empty, 0), {});
  const reading = pair.ours.read();
  assert.ok(!(await settles(reading)), "no empty chunk");
  await pair.arrive("ab");
  assert.equal((await reading)?.toString(), "ab");
  await pair.arrive("cd");
  assert.deepEqual(await pair.ours.readPdu(Empty, 0), {});
  assert.deepEqual(await pair.ours.readExactly(0), Buffer.alloc(0));
  assert.equal((await pair.ours.readExactly(2))?.toString(), "cd");
});

test("10,000 PDUs in chunks of many sizes come out in order", async (t) => {
  t.diagnostic(`seed ${SEED}`);
  await using pair = await Pair.open();
  const notes = Array.from({ length: 10_000 }, (_, i) => ({ number: i, note: "n".repeat(i % 200) }));
  const stream = Buffer.concat(notes.map((note) => encode(Note, note)));
  const sizes = pattern(1000);
  void (async () => {
    for (let at = 0, i = 0; at < stream.length; i++) {
      const size = 1 + (sizes[i % sizes.length] ?? 0) ** 2;
      if (!pair.peer.write(stream.subarray(at, at + size))) await once(pair.peer, "drain");
      at += size;
    }
    pair.peer.end();
  })();
  for (const note of notes) assert.deepEqual(await pair.ours.readPdu(Note, 300), note);
  assert.equal(await pair.ours.readPdu(Note, 300), undefined);
});

test("one piece of 8 MiB, far beyond what may lie unread", async () => {
  await using pair = await Pair.open();
  const sent = pattern(8 * MIB);
  pair.peer.end(sent);
  assert.equal(sha1((await pair.ours.readExactly(sent.length)) ?? Buffer.alloc(0)), sha1(sent));
  assert.equal(await pair.ours.read(), undefined);
});

test("a reply after the peer's FIN arrives", async () => {
  await using pair = await Pair.open();
  pair.peer.end("question");
  assert.equal((await pair.ours.read())?.toString(), "question");
  assert.equal(await pair.ours.read(), undefined);
  await pair.ours.write("answer");
  const received = pair.received();
  await pair.ours.close();
  assert.equal((await received).toString(), "answer");
});

test("after our FIN the peer's words still arrive", async () => {
  await using pair = await Pair.open();
  await pair.ours.write("question");
  pair.ours.end();
  pair.ours.end();
  assert.equal((await pair.received()).toString(), "question");
  pair.peer.end("answer");
  assert.equal((await pair.ours.readExactly(6))?.toString(), "answer");
  assert.equal(await pair.ours.read(), undefined);
});

test("a peer that resets in the middle: what waits fails, and so does all that follows", async () => {
  await using pair = await Pair.open();
  await pair.arrive("half a li");
  const reading = pair.ours.readLine(100);
  reading.catch(() => {});
  const closed = new Promise((resolve) => pair.socket.once("close", resolve));
  pair.peer.resetAndDestroy();
  await assert.rejects(reading, (error) => isFailure(error) && /ECONNRESET/.test(String(error)));
  await closed;
  assert.equal((await pair.ours.readExactly(4))?.toString(), "half", "what had come is there");
  await assert.rejects(pair.ours.readExactly(6), /ECONNRESET/);
  await assert.rejects(pair.ours.write("x"), /ECONNRESET/);
  assert.ok(pair.ours.closed);
  await pair.ours.close();
});

test("a peer that stalls: every kind of read gives up in time, and can go on later", async () => {
  await using pair = await Pair.open();
  pair.ours.timeoutMs = 20;
  await pair.arrive("\x00");
  for (const read of [
    () => pair.ours.readLine(100),
    () => pair.ours.readExactly(5),
    () => pair.ours.readPdu(Note, 100),
  ]) {
    await assert.rejects(read(), { name: "TimeoutError", message: "the peer sent nothing for 20 ms" });
  }
  pair.ours.timeoutMs = PATIENCE_MS;
  const reading = pair.ours.readPdu(Note, 100);
  await pair.arrive("\x05\x01a");
  assert.deepEqual(await reading, { number: 5, note: "a" });
  pair.ours.timeoutMs = 20;
  await assert.rejects(pair.ours.read(), TimeoutError);
  pair.ours.timeoutMs = 0;
  const patient = pair.ours.read();
  await sleep(50);
  assert.ok(!(await settles(patient)), "0 is for ever");
  await pair.arrive("x");
  assert.equal((await patient)?.toString(), "x");
});

test("a peer that never reads: write waits, memory stays bounded, and gives up in time", async () => {
  await using pair = await Pair.open();
  pair.ours.timeoutMs = 100;
  const chunk = Buffer.alloc(64 * 1024);
  let written = 0;
  await assert.rejects(
    async () => {
      for (; written < 1024 * MIB; written += chunk.length) await pair.ours.write(chunk);
    },
    { name: "TimeoutError", message: "the peer took nothing for 100 ms" },
  );
  assert.ok(written < 64 * MIB, `${written} bytes were taken for a peer that reads none`);
  assert.ok(
    pair.socket.writableLength <= 2 * chunk.length,
    `${pair.socket.writableLength} bytes lie in memory`,
  );
});

test("a reader that comes back gets everything", async () => {
  await using pair = await Pair.open();
  const sent = pattern(16 * MIB);
  const writing = (async () => {
    for (let at = 0; at < sent.length; at += 50_000) {
      await pair.ours.write(sent.subarray(at, at + 50_000));
      assert.ok(pair.socket.writableLength < 200_000);
    }
    await pair.ours.close();
  })();
  assert.ok(!(await settles(writing)));
  assert.equal(sha1(await pair.received()), sha1(sent));
  pair.peer.end();
  await writing;
});

test("what nobody asks for stays with the peer: TCP's window closes", async () => {
  await using pair = await Pair.open();
  const sent = pattern(32 * MIB);
  pair.peer.end(sent);
  let last = -1;
  for (let stable = 0; stable < 20; stable = pair.socket.bytesRead === last ? stable + 1 : 0) {
    last = pair.socket.bytesRead;
    await sleep(2);
  }
  assert.ok(
    pair.socket.bytesRead > 0 && pair.socket.bytesRead < 256 * 1024,
    `${pair.socket.bytesRead} bytes`,
  );
  const chunks: Buffer[] = [];
  for (let chunk = await pair.ours.read(); chunk !== undefined; chunk = await pair.ours.read()) {
    assert.ok(chunk.length > 0);
    chunks.push(chunk);
    if (chunks.length % 100 === 0) await nextTurn();
  }
  assert.equal(sha1(Buffer.concat(chunks)), sha1(sent));
});

test("reading and writing at once do not wait for each other", async () => {
  await using pair = await Pair.open();
  const sent = pattern(4 * MIB);
  let readBytes = 0;
  const hash = createHash("sha1");
  const readLoop = (async () => {
    for (let chunk = await pair.ours.read(); chunk !== undefined; chunk = await pair.ours.read()) {
      readBytes += chunk.length;
      hash.update(chunk);
    }
  })();
  const writeLoop = (async () => {
    for (let at = 0; at < sent.length; at += 1000) await pair.ours.write(sent.subarray(at, at + 1000));
    pair.ours.end();
  })();
  pair.peer.end(sent);
  assert.equal(sha1(await pair.received()), sha1(sent));
  await Promise.all([readLoop, writeLoop]);
  assert.equal(readBytes, sent.length);
  assert.equal(hash.digest("hex"), sha1(sent));
});

test("several writers wait side by side: all go on when the peer reads", async () => {
  await using pair = await Pair.open();
  const big = Buffer.alloc(8 * MIB, "a");
  const writers = ["a", "b", "c"].map((letter) => pair.ours.write(Buffer.alloc(big.length, letter)));
  assert.ok(!(await settles(Promise.any(writers))));
  pair.peer.resume();
  await within(Promise.all(writers), "three writers");
});

test("several writers wait side by side: all fail when the peer resets", async () => {
  await using pair = await Pair.open();
  const writers = [1, 2, 3].map(() => pair.ours.write(Buffer.alloc(8 * MIB)));
  assert.ok(!(await settles(Promise.any(writers))));
  pair.peer.resetAndDestroy();
  const outcomes = await within(Promise.allSettled(writers), "three writers");
  for (const outcome of outcomes) {
    assert.equal(outcome.status, "rejected", "a write whose bytes were lost has not succeeded");
    assert.match(String(outcome.status === "rejected" && outcome.reason), /ECONNRESET|EPIPE|closed/);
  }
});

test("a writer that waits is not kept waiting by what the peer sends", async () => {
  await using pair = await Pair.open();
  pair.ours.timeoutMs = 150;
  const reading = (async () => {
    while ((await pair.ours.read()) !== undefined);
  })();
  reading.catch(() => {});
  const chatter = setInterval(() => pair.peer.write("x"), 5);
  try {
    await assert.rejects(within(pair.ours.write(Buffer.alloc(16 * MIB)), "the time-out"), TimeoutError);
  } finally {
    clearInterval(chatter);
  }
});

test("a writer that waits while the connection is closed succeeds when all is taken", async () => {
  await using pair = await Pair.open();
  const writing = pair.ours.write(Buffer.alloc(8 * MIB));
  const closing = pair.ours.close();
  assert.ok(!(await settles(writing)));
  assert.equal((await pair.received()).length, 8 * MIB);
  await within(writing, "the writer");
  pair.peer.end();
  await closing;
});

test("a server that stops: the reader gets what has arrived, then an end", async () => {
  await using pair = await Pair.open();
  await pair.arrive("one\ntwo\n");
  assert.equal(await pair.ours.readLine(100), "one");
  pair.ours.stopReading();
  await pair.arrive("three\n");
  assert.equal(await pair.ours.readLine(100), "two");
  assert.equal(await pair.ours.readLine(100), undefined, "what came later is no matter");
  await pair.ours.write("bye");
  const received = pair.received();
  await pair.ours.close();
  assert.equal((await received).toString(), "bye");
});

test("a server that stops: a reader that waits is woken, in the middle of a message with an error", async () => {
  await using pair = await Pair.open();
  const reading = pair.ours.read();
  pair.ours.stopReading();
  assert.equal(await reading, undefined);
  await using half = await Pair.open();
  await half.arrive("hal");
  const line = half.ours.readLine(100);
  half.ours.stopReading();
  await assert.rejects(line, UnexpectedEndError);
});

test("closing with bytes unread does not cost the peer our last words", async () => {
  await using pair = await Pair.open();
  const taken = new Promise<unknown>((resolve) => pair.peer.write(pattern(16 * MIB), resolve));
  await pair.ours.readExactly(10);
  await pair.ours.write("last words");
  const closing = pair.ours.close();
  // This peer does not read before it has said everything.
  assert.equal(await within(taken, "the peer to have said everything"), null);
  assert.equal((await pair.received()).toString(), "last words");
  pair.peer.end();
  await closing;
  assert.ok(pair.ours.closed);
});

test("closing waits for the peer's FIN, but not for ever", async () => {
  await using pair = await Pair.open();
  pair.peer.resume();
  const closing = pair.ours.close(10 * PATIENCE_MS);
  await once(pair.peer, "end");
  assert.ok(!(await settles(closing)) && !pair.ours.closed);
  pair.peer.end();
  await within(closing, "the end after the peer's FIN");
  await using silent = await Pair.open();
  silent.peer.resume();
  await silent.ours.close(30);
  assert.ok(silent.ours.closed);
});

/** Fills what the system takes for a peer that does not read, until something lies in our memory as well. */
async function fill({ ours, socket }: Pair): Promise<number> {
  let written = 0;
  for (; socket.writableLength === 0; written += 1000) await ours.write(Buffer.alloc(1000, "x"));
  return written;
}

test("closing while the peer is slow to read: it gets all of it, however long it takes", async () => {
  await using pair = await Pair.open();
  const written = await fill(pair);
  const closing = pair.ours.close(20);
  await sleep(150);
  const received = await pair.received();
  assert.equal(received.length, written);
  pair.peer.end();
  await closing;
});

test("closing while the peer never reads: given up in time, and the peer cannot take it for a whole", async () => {
  // libuv makes an end of a reset that it meets behind a buffer half filled: so the peer's has one byte.
  const onread = { buffer: Buffer.alloc(1), callback: () => true };
  for (const cut of [(ours: Connection) => ours.close(20), async (ours: Connection) => ours.destroy()]) {
    await using pair = await Pair.open({ onread });
    await fill(pair);
    pair.ours.timeoutMs = 50;
    await within(cut(pair.ours), "the end of waiting");
    assert.ok(pair.ours.closed);
    const ended = once(pair.peer, "end");
    pair.peer.resume();
    await assert.rejects(within(ended, "a reset"), { code: "ECONNRESET" });
  }
});

test("a reset is seen as one, though all that was sent had arrived", async () => {
  await using pair = await Pair.open();
  await pair.ours.write("half");
  const [chunk] = (await once(pair.peer.resume(), "data")) as [Buffer];
  assert.equal(chunk.toString(), "half");
  const failed = once(pair.peer, "error");
  pair.ours.reset();
  const [error] = await within(failed, "a reset");
  assert.equal((error as NodeJS.ErrnoException).code, "ECONNRESET");
  await assert.rejects(pair.ours.write("x"), { name: "Failure", message: "the connection is closed" });
});

test("use after the end fails, and says so", async () => {
  for (const finish of [
    async (ours: Connection) => ours.destroy(),
    async (ours: Connection) => ours.close(20),
    async (ours: Connection) => void ours.close(20),
  ]) {
    await using pair = await Pair.open();
    pair.peer.resume();
    await finish(pair.ours);
    await assert.rejects(pair.ours.write("x"), { name: "Failure", message: /connection is closed$/ });
    await within(
      assert.rejects(pair.ours.readExactly(1), { name: "Failure", message: "the connection is closed" }),
      "a read of a closed connection",
    );
    await pair.ours.close();
    pair.ours.end();
    pair.ours.destroy();
    pair.ours.stopReading();
  }
});

test("writing after our FIN fails, and takes nothing of what was sent before", async () => {
  await using pair = await Pair.open();
  await pair.ours.write("before");
  pair.ours.end();
  await assert.rejects(pair.ours.write("after"), Failure);
  assert.equal((await pair.received()).toString(), "before");
  pair.peer.end("reply");
  assert.equal((await pair.ours.read())?.toString(), "reply");
});

test("a session cut off while it waits is woken", async () => {
  await using pair = await Pair.open();
  const reading = pair.ours.read();
  const writing = pair.ours.write(Buffer.alloc(16 * MIB));
  reading.catch(() => {});
  writing.catch(() => {});
  assert.ok(!(await settles(Promise.any([reading, writing]))));
  pair.ours.destroy();
  const closed = { name: "Failure", message: "the connection is closed" };
  await assert.rejects(within(reading, "the reader"), closed);
  await assert.rejects(within(writing, "the writer"), closed);
});

test("disposing closes in order", async () => {
  await using pair = await Pair.open();
  pair.peer.end();
  const received = pair.received();
  {
    await using ours = pair.ours;
    await ours.write("bye");
  }
  assert.ok(pair.ours.closed);
  assert.equal((await received).toString(), "bye");
});

test("looking before taking: peek, more, take; and what is not yet sent", async () => {
  await using pair = await Pair.open();
  assert.equal(pair.ours.unreadBytes, 0);
  assert.deepEqual(pair.ours.peek(), Buffer.alloc(0));
  const more = pair.ours.more();
  await pair.arrive("abc");
  assert.equal(await more, true);
  assert.equal(pair.ours.peek(2).toString(), "ab");
  const evenMore = pair.ours.more();
  await pair.arrive("def");
  assert.equal(await evenMore, true);
  assert.deepEqual([pair.ours.peek().toString(), pair.ours.unreadBytes], ["abcdef", 6]);
  assert.equal(pair.ours.take(4).toString(), "abcd");
  assert.equal(pair.ours.peek().toString(), "ef");
  await assert.rejects(pair.ours.more(10), {
    name: "TimeoutError",
    message: "the peer sent nothing for 10 ms",
  });
  const none = pair.ours.more();
  pair.peer.end();
  assert.equal(await none, false);
  assert.equal(await pair.ours.more(), false);
  assert.equal(pair.ours.take(2).toString(), "ef");
  const writing = pair.ours.write(Buffer.alloc(16 * MIB));
  assert.ok(pair.ours.unsentBytes > 0);
  pair.peer.resume();
  await writing;
  assert.equal(pair.ours.unsentBytes, 0);
});

test("a deadline ends every wait, however busily the peer sends", async () => {
  await using pair = await Pair.open();
  pair.ours.deadline = performance.now() + 100;
  const drip = setInterval(() => pair.peer.write("x"), 10);
  await assert
    .rejects(within(pair.ours.readLine(1_000_000), "the deadline"), TimeoutError)
    .finally(() => clearInterval(drip));
  pair.ours.deadline = Number.POSITIVE_INFINITY;
  await pair.arrive("\n");
  assert.match((await pair.ours.readLine(1_000_000)) ?? "", /^x+$/);
});

test("a deadline that has passed ends a wait at once, and Node has nothing to warn of", async (t) => {
  await using pair = await Pair.open();
  const warnings: Error[] = [];
  const note = (warning: Error) => void warnings.push(warning);
  process.on("warning", note);
  t.after(() => process.off("warning", note));
  pair.ours.deadline = performance.now() - 5;
  const error = { name: "TimeoutError", message: "the peer sent nothing for 0 ms" };
  await assert.rejects(within(pair.ours.read(), "the deadline"), error);
  assert.deepEqual(warnings, []);
});

test("waits of different lengths on one connection each end in their own time", async () => {
  await using pair = await Pair.open();
  await assert.rejects(pair.ours.more(30), { message: "the peer sent nothing for 30 ms" });
  const long = pair.ours.more(60_000);
  await pair.arrive("x");
  assert.equal(await long, true); // its alarm is still set, the next one is due earlier
  await assert.rejects(pair.ours.more(20), { message: "the peer sent nothing for 20 ms" });
  const short = pair.ours.more(20);
  await pair.arrive("y");
  assert.equal(await short, true); // its alarm rings while the next one waits, and must not end it
  const later = pair.ours.more(60_000);
  await assert.rejects(Promise.race([later, pair.ours.more(60)]), {
    message: "the peer sent nothing for 60 ms",
  });
  await pair.arrive("z");
  assert.equal(await later, true);
});

test("waiting leaves no listeners behind, a timer for each direction at most, and none when the connection has gone", async () => {
  await using pair = await Pair.open();
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  const names = ["data", "end", "error", "close", "drain"];
  const listeners = () => names.map((name) => pair.socket.listenerCount(name));
  const before = { timers: timers(), listeners: listeners() };
  for (let i = 0; i < 50; i++) {
    const reading = pair.ours.readExactly(1);
    await pair.arrive("x");
    await reading;
    await pair.ours.write("x");
  }
  const writing = pair.ours.write(Buffer.alloc(16 * MIB));
  pair.peer.resume();
  await writing;
  assert.deepEqual(listeners(), before.listeners);
  assert.ok(timers() <= before.timers + 2, `${timers()} timers`);
  pair.ours.destroy();
  assert.equal(timers(), before.timers);
});

test("addresses are written as in a URL", () => {
  assert.equal(formatAddress("127.0.0.1", 80), "127.0.0.1:80");
  assert.equal(formatAddress("::1", 80), "[::1]:80");
  assert.equal(formatAddress("example.org", 0), "example.org:0");
});

test("the peer's address", async () => {
  await using pair = await Pair.open();
  assert.equal(pair.ours.peer, `127.0.0.1:${pair.peer.localPort}`);
});

test("a codec that takes the rest of a datagram is no codec for a stream: a mistake of the program", async () => {
  await using pair = await Pair.open();
  await pair.arrive("x");
  await assert.rejects(pair.ours.readPdu(struct("Rest", { rest: [restBytes, ""] }), 100), TypeError);
});

test("a connection knows the addresses of both ends, when it is closed too", async () => {
  await using pair = await Pair.open();
  pair.socket.destroy();
  await once(pair.socket, "close");
  const { peer, peerHost, localHost } = pair.ours;
  assert.deepEqual([peerHost, localHost], ["127.0.0.1", "127.0.0.1"]);
  assert.equal(peer, formatAddress(peerHost, pair.peer.localPort ?? 0));
});
