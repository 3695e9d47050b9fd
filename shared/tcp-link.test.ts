/** The link for TCP between a real client and server: late, in pieces, stalled, reset, and nothing lost. */
import { strict as assert } from "node:assert";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { after, before, test } from "node:test";
import { type TcpFault, type TcpLinkOptions, tcpLink } from "./tcp-link.ts";
import { becomes, within } from "./testing.ts";

const BYTES = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 31 + (i >> 8)) % 251));

/** Sends back what it gets, and then its end; notes how it came. */
let echo: Server;
let chunks: Buffer[] = [];
before(async () => {
  echo = createServer({ allowHalfOpen: true }, (socket) => {
    chunks = [];
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("error", () => {});
    socket.pipe(socket);
  }).listen(0, "127.0.0.1");
  await once(echo, "listening");
});
after(() => void echo.close());

const linkWith = (options: Partial<TcpLinkOptions>) =>
  tcpLink({
    to: { host: "127.0.0.1", port: (echo.address() as AddressInfo).port },
    toServer: {},
    toClient: {},
    seed: 1,
    ...options,
  });

/** What comes back of the bytes until the other side has finished, or cut off. */
async function echoed(socket: Socket, bytes: Buffer): Promise<{ got: Buffer; error?: string }> {
  const got: Buffer[] = [];
  let error: NodeJS.ErrnoException | undefined;
  socket.on("data", (chunk) => got.push(chunk));
  socket.on("error", (problem) => {
    error = problem;
  });
  socket.end(bytes);
  await within(new Promise((resolve) => socket.once("close", resolve)), "the end of the connection");
  return { got: Buffer.concat(got), ...(error?.code && { error: error.code }) };
}

test("all that is sent comes, in order and with its end, over a path with delay, jitter, rate and small pieces", async () => {
  for (const profile of [
    {},
    { delayMs: 5, jitterMs: 5 },
    { splitBytes: 1000 },
    { rateBytesPerSecond: 5e6, delayMs: 1 },
  ]) {
    await using link = await linkWith({ toServer: profile, toClient: profile });
    const { got, error } = await echoed(connect(link.port, "127.0.0.1"), BYTES);
    assert.equal(error, undefined);
    assert.ok(got.equals(BYTES), `${JSON.stringify(profile)}: ${got.length} bytes`);
  }
});

test("what is split comes in pieces", async () => {
  await using link = await linkWith({ toServer: { splitBytes: 1 } });
  await echoed(connect(link.port, "127.0.0.1"), Buffer.from("what is split comes in pieces"));
  assert.ok(chunks.length > 5, `${chunks.length} pieces`);
});

test("an answer takes the delays of both ways", async () => {
  await using link = await linkWith({ toServer: { delayMs: 30 }, toClient: { delayMs: 50 } });
  const socket = connect(link.port, "127.0.0.1");
  await once(socket, "connect");
  const startMs = performance.now();
  socket.write("x");
  await within(once(socket, "data"), "the echo");
  assert.ok(performance.now() - startMs >= 79.9);
  socket.destroy();
});

test("a stall is silence, a reset a reset, after exactly so many bytes, and both are told", async () => {
  for (const direction of ["toServer", "toClient"] as const) {
    const faults: TcpFault[] = [];
    const onFault = (fault: TcpFault) => faults.push(fault);
    await using resetting = await linkWith({ [direction]: { resetAfterBytes: 1000, delayMs: 2 }, onFault });
    const client = connect({ port: resetting.port, host: "127.0.0.1" });
    let got = 0;
    client.on("data", (chunk) => {
      got += chunk.length;
    });
    client.on("error", () => {});
    client.write(BYTES);
    await within(new Promise((resolve) => client.once("close", resolve)), "the cut");
    assert.ok(got <= 1000);
    await using stalling = await linkWith({ [direction]: { stallAfterBytes: 1000 }, onFault });
    const socket = connect(stalling.port, "127.0.0.1");
    let count = 0;
    const enough = new Promise<void>((resolve) =>
      socket.on("data", (chunk) => {
        count += chunk.length;
        if (count >= 1000) resolve();
      }),
    );
    socket.on("error", () => {});
    socket.write(BYTES);
    await within(enough, "the first 1000 bytes");
    await becomes(() => faults.length === 2, "the stall");
    socket.destroy();
    assert.equal(count, 1000);
    const way = direction === "toServer" ? "to server" : "to client";
    assert.deepEqual(faults, [
      { fault: "reset", direction: way, afterBytes: 1000 },
      { fault: "stall", direction: way, afterBytes: 1000 },
    ]);
  }
});

test("a reset is ECONNRESET, and no end in order before it", async () => {
  for (const direction of ["toServer", "toClient"] as const) {
    const bytes = BYTES.subarray(0, 1000);
    const sayings: string[] = [];
    const fate = (socket: Socket) => {
      socket.on("end", () => sayings.push("end"));
      socket.on("error", ({ code }: NodeJS.ErrnoException) => sayings.push(`${code}`));
      return new Promise((resolve) => socket.once("close", resolve));
    };
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => {}).resume();
      if (direction === "toClient") socket.write(bytes);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const to = { host: "127.0.0.1", port: (server.address() as AddressInfo).port };
    await using link = await linkWith({ to, [direction]: { resetAfterBytes: 1000 } });
    let got = 0;
    const client = connect({ port: link.port, host: "127.0.0.1" });
    client.on("data", (chunk) => {
      got += chunk.length;
    });
    const closed = fate(client);
    if (direction === "toServer") client.write(bytes);
    await within(closed, "the reset").finally(() => server.close());
    assert.deepEqual(sayings, ["ECONNRESET"], direction);
    assert.equal(got, direction === "toClient" ? 1000 : 0);
  }
});

test("a reader that stops makes the writer wait", async () => {
  const stuck = createServer((socket) => void socket.pause()).listen(0, "127.0.0.1");
  await once(stuck, "listening");
  await using link = await linkWith({
    to: { host: "127.0.0.1", port: (stuck.address() as AddressInfo).port },
  });
  const socket = connect(link.port, "127.0.0.1");
  await once(socket, "connect");
  let written = 0;
  const chunk = Buffer.alloc(1024 * 1024);
  const full = async () => {
    while (written < 200) {
      const taken = new Promise<boolean>((resolve) => {
        socket.write(chunk, () => resolve(true));
        setTimeout(() => resolve(false), 1000);
      });
      if (!(await taken)) return;
      written++;
    }
  };
  await full();
  assert.ok(written < 100, `${written} MiB were taken from the writer`);
  socket.destroy();
  stuck.close();
});

test("a server that is not there resets its client", async () => {
  await using link = await linkWith({ to: { host: "127.0.0.1", port: 1 } });
  const { got } = await echoed(connect(link.port, "127.0.0.1"), Buffer.from("x"));
  assert.equal(got.length, 0);
});
