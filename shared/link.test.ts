import { strict as assert } from "node:assert";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { test } from "node:test";
import { type Fate, type LinkProfile, NEW_LINK, type PacketReport, pass, udpLink } from "./link.ts";

/** Sends `count` packets of 100 bytes, one every `everyMs`, through a link. */
function send(profile: LinkProfile, seed: number, count: number, everyMs = 1): Fate[] {
  let state = NEW_LINK;
  return Array.from({ length: count }, (_, i) => {
    const [next, fate] = pass(profile, seed, state, i * everyMs, 100);
    state = next;
    return fate;
  });
}
const share = (fates: Fate[], outcome: Fate["outcome"]) =>
  fates.filter((fate) => fate.outcome === outcome).length / fates.length;

test("a link without a profile delivers at once, whole and once", () => {
  for (const [i, fate] of send({}, 1, 100).entries()) {
    assert.deepEqual(fate, { outcome: "delivered", arrivals: [{ atMs: i }] });
  }
});

test("the same seed gives the same fates, another seed others", () => {
  const bad = { delayMs: 20, jitterMs: 5, loss: 0.1, duplication: 0.1, reordering: 0.1, corruption: 0.1 };
  assert.deepEqual(send(bad, 42, 1000), send(bad, 42, 1000));
  assert.notDeepEqual(send(bad, 42, 1000), send(bad, 43, 1000));
});

test("faults come as often as the profile says, and independently of one another", () => {
  for (const seed of [1, 2, 3]) {
    const fates = send({ loss: 0.2, duplication: 0.1, corruption: 0.3 }, seed, 20_000);
    assert.ok(Math.abs(share(fates, "lost") - 0.2) < 0.01);
    assert.ok(Math.abs(share(fates, "duplicated") - 0.8 * 0.1) < 0.01);
    const corrupted = fates.filter(({ arrivals }) => arrivals[0]?.flippedBit !== undefined).length;
    assert.ok(Math.abs(corrupted / fates.length - 0.8 * 0.3) < 0.01);
    const bits = new Set(fates.flatMap(({ arrivals }) => arrivals[0]?.flippedBit ?? []));
    assert.ok(bits.size > 750 && Math.max(...bits) < 800, "every bit of a packet can be hit, none beyond");
  }
});

test("jitter stays within its bounds and keeps the order", () => {
  const arrivals = send({ delayMs: 20, jitterMs: 5 }, 7, 5000).map(({ arrivals }) => arrivals[0]?.atMs ?? 0);
  for (const [i, atMs] of arrivals.entries()) {
    assert.ok(atMs >= i + 15 && atMs <= i + 25);
    assert.ok(i === 0 || atMs >= (arrivals[i - 1] ?? 0));
  }
  assert.ok(Math.max(...arrivals.map((atMs, i) => atMs - i)) > 24);
});

test("a reordered packet is overtaken, the others keep their order", () => {
  const arrivals = send({ delayMs: 10, reordering: 0.1 }, 7, 1000).map(
    ({ arrivals }) => arrivals[0]?.atMs ?? 0,
  );
  const late = arrivals.filter((atMs, i) => atMs === i + 20).length;
  assert.equal(arrivals.filter((atMs, i) => atMs === i + 10).length + late, 1000);
  assert.ok(late > 70 && late < 130);
});

test("the rate spaces packets out, the queue drops what does not fit", () => {
  // 100 bytes take 10 ms at 10,000 B/s; ten times as much is offered.
  const fates = send({ rateBytesPerSecond: 10_000, queueBytes: 500 }, 1, 1000);
  const arrivals = fates.flatMap((fate) => fate.arrivals);
  for (const [i, { atMs }] of arrivals.entries()) assert.ok(Math.abs(atMs - 10 * (i + 1)) < 1e-6);
  assert.ok(Math.abs(share(fates, "queue full") - 0.9) < 0.02);
  const waits = fates.flatMap((fate, i) => fate.arrivals.map(({ atMs }) => atMs - i));
  assert.ok(Math.max(...waits) <= 60, "no packet waits longer than a full queue takes, and its own time");
});

test("the relay does to real datagrams what the function says, and the same again with the same seed", async () => {
  const profile = { loss: 0.3, duplication: 0.2, corruption: 0.2 };
  const runs = [await relayed(profile, 42), await relayed(profile, 42)];
  assert.deepEqual(runs[0], runs[1]);
  assert.ok(runs[0]?.reports.some(({ fate }) => fate.outcome === "lost"));
});

/** 50 datagrams through a relay to a socket that counts what comes. */
async function relayed(
  profile: LinkProfile,
  seed: number,
): Promise<{ reports: PacketReport[]; got: string[] }> {
  const server = createSocket("udp4");
  const client = createSocket("udp4");
  server.bind(0, "127.0.0.1");
  await once(server, "listening");
  const reports: PacketReport[] = [];
  const to = { host: "127.0.0.1", port: server.address().port };
  {
    await using link = await udpLink({
      to,
      toServer: profile,
      toClient: {},
      seed,
      onPacket: (r) => reports.push(r),
    });
    const got: string[] = [];
    const done = new Promise<void>((resolve) => {
      server.on("message", (packet) => {
        got.push(packet.toString("hex"));
        const due = reports.reduce((sum, { fate }) => sum + fate.arrivals.length, 0);
        if (reports.length === 50 && got.length === due) resolve();
      });
    });
    for (let i = 0; i < 50; i++) {
      client.send(Buffer.alloc(8, i), link.port, "127.0.0.1");
      while (reports.length <= i) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await done;
    for (const socket of [server, client]) socket.close();
    const timeless = reports.map(({ fate, enteredMs: _, ...report }) => ({
      ...report,
      fate: {
        ...fate,
        arrivals: fate.arrivals.map(({ flippedBit }) => ({ atMs: 0, flippedBit: flippedBit ?? -1 })),
      },
    }));
    const flipped = reports.flatMap(({ fate, index }) =>
      fate.arrivals.map(({ flippedBit }) => {
        const bytes = Buffer.alloc(8, index);
        if (flippedBit !== undefined)
          bytes.writeUInt8(bytes.readUInt8(flippedBit >> 3) ^ (0x80 >> (flippedBit & 7)), flippedBit >> 3);
        return bytes.toString("hex");
      }),
    );
    assert.deepEqual(got.toSorted(), flipped.toSorted());
    return { reports: timeless as PacketReport[], got: got.toSorted() };
  }
}

test("the relay keeps the order unless it is told to reorder, in bursts too", async () => {
  const server = createSocket("udp4");
  const client = createSocket("udp4");
  server.bind(0, "127.0.0.1");
  await once(server, "listening");
  const to = { host: "127.0.0.1", port: server.address().port };
  for (const toServer of [
    { delayMs: 10 },
    { delayMs: 10, jitterMs: 5 },
    { rateBytesPerSecond: 1e6, delayMs: 7 },
  ]) {
    await using link = await udpLink({ to, toServer, toClient: {}, seed: 1 });
    const got: number[] = [];
    for (let burst = 0; burst < 20; burst++) {
      for (let i = 0; i < 20; i++) client.send(Buffer.from([burst, i]), link.port, "127.0.0.1");
      while (got.length < 20 * (burst + 1)) {
        const [packet] = (await once(server, "message")) as [Buffer];
        got.push(packet.readUInt16BE(0));
      }
    }
    assert.deepEqual(
      got,
      got.toSorted((a, b) => a - b),
    );
  }
  for (const socket of [server, client]) socket.close();
});
