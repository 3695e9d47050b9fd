/** The rules of a connection, one by one, in the simulator: what is acted upon, what keeps it alive, what makes it speak. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { CONGESTION } from "./congestion.ts";
import { Connection } from "./connection.ts";
import { Endpoint, NO_HASH } from "./endpoint.ts";
import { Flight } from "./flight.ts";
import { type ConnectionOptions, DEFAULTS } from "./options.ts";
import {
  type Incoming,
  keyOf,
  MAX_SEQUENCE,
  type Message,
  NO_TOKEN,
  type Open,
  seal,
  unseal,
} from "./protocol.ts";
import { Sending } from "./sending.ts";
import { type Passage, randomOf, Simulation, serveFrom, type Transfer } from "./simulator.ts";
import { send } from "./transfer.ts";

const FILE = Buffer.alloc(400_000, "reliable ");
const PATH = { delayMs: 20 };
const CLIENT_PORT = 5000;
const STRANGER = { address: "10.6.6.6", port: 6666 };
const OPEN: Open = {
  ...{ kind: "open", request: "get", name: "file", token: Buffer.alloc(8, 1), mtu: 1200, window: 100_000 },
  ...{ offset: 0n, size: 0n, sha256: NO_HASH, cookie: Buffer.alloc(0) },
};
const kindOf = (packet: Buffer) => unseal(Buffer.from(packet))?.message.kind;

/** A client that gets the file, and reads when it is told to. */
function reading(options: Partial<ConnectionOptions> = {}, onPassage?: (passage: Passage) => void) {
  const transfers = new Map<string, Transfer>();
  const of: Transfer = {
    ...{ client: undefined as unknown as Connection, server: undefined },
    ...{ received: [], receivedBytes: 0, ends: {} },
  };
  transfers.set("file", of);
  const connection = { ...DEFAULTS, ...options };
  const simulation = new Simulation(
    { seed: 1, toServer: PATH, toClient: PATH, connection, ...(onPassage ? { onPassage } : {}) },
    serveFrom(() => FILE, transfers),
  );
  const patient = { ...connection, timeoutMs: 1e9 };
  const client = simulation.connect({ request: "get", name: "file" }, CLIENT_PORT, patient);
  const received: Buffer[] = [];
  const read = () => {
    received.push(...client.take());
    if (client.input?.isComplete) client.finish();
  };
  return { simulation, client, of, received, read };
}

describe("a reader that takes nothing", () => {
  test("is asked after 200 ms, then ever more seldom, up to once in 2 s", () => {
    const probesMs: number[] = [];
    const { simulation } = reading({ windowBytes: 50_000 }, ({ atMs, toServer, packet }) => {
      if (!toServer && kindOf(packet) === "probe") probesMs.push(atMs);
    });
    simulation.run(20_000);
    const gaps = probesMs.slice(1).map((atMs, i) => atMs - (probesMs[i] ?? 0) - 2 * PATH.delayMs);
    const expected = [400, 800, 1600, 2000, 2000, 2000];
    for (const [i, ms] of expected.entries())
      assert.ok(Math.abs((gaps[i] ?? 0) - ms) < 20, `${gaps.map(Math.round)}`);
  });

  test("and takes something at last, then nothing again: is asked after 200 ms again", () => {
    const probesMs: number[] = [];
    const { simulation, client, read } = reading({ windowBytes: 50_000 }, ({ atMs, toServer, packet }) => {
      if (!toServer && kindOf(packet) === "probe") probesMs.push(atMs);
    });
    simulation.run(10_000);
    const readMs = simulation.nowMs;
    read();
    simulation.run(12_000);
    assert.ok((client.input?.received ?? 0) > 50_000, "it went on");
    const first = probesMs.find((atMs) => atMs > readMs + 2 * PATH.delayMs) ?? Infinity;
    assert.ok(first < readMs + 450, `${first - readMs} ms`);
  });

  test("is given up by the sender, though it acknowledges every probe and itself waits for ever", () => {
    const { simulation, of } = reading({ windowBytes: 50_000, timeoutMs: 5000 });
    simulation.run(60_000, () => of.ends.server !== undefined);
    assert.equal(of.ends.server, "no progress for 5 s");
    assert.ok(simulation.nowMs < 6500, `${simulation.nowMs} ms`);
  });

  test("and whose word that it reads again is lost: the next probe brings it", () => {
    const { simulation, client, received, read } = reading({ windowBytes: 50_000 });
    simulation.run(3000);
    Object.assign(simulation.links, { toServer: { ...PATH, loss: 1 } });
    read();
    simulation.run(3100);
    Object.assign(simulation.links, { toServer: PATH });
    client.handlers.onReadable = read;
    simulation.run(10_000, () => client.state === "ended");
    assert.ok(Buffer.concat(received).equals(FILE), `${Buffer.concat(received).length} bytes`);
  });
});

describe("a client that waits and hears nothing asks after a second", () => {
  /** A get of which everything that goes to the client within 100 ms is lost, and what else happens then. */
  function interrupted(happens: (of: ReturnType<typeof reading>) => void) {
    const path = { ...PATH, rateBytesPerSecond: 400_000, queueBytes: 20_000 };
    const all = reading();
    const { simulation, client, read } = all;
    let end: string | undefined;
    client.handlers.onReadable = read;
    client.handlers.onEnd = (error) => {
      end = error?.message ?? "ok";
    };
    Object.assign(simulation.links, { toClient: path });
    simulation.run(500);
    assert.equal(client.state, "open");
    Object.assign(simulation.links, { toClient: { ...path, loss: 1 } });
    simulation.run(600);
    happens(all);
    simulation.run(700);
    Object.assign(simulation.links, { toClient: path });
    return { simulation, end: () => end, received: all.received };
  }

  test("and so hears why the server ended it, though that was lost", () => {
    const { simulation, end } = interrupted(({ of }) => of.server?.fail("failed", "the disk is broken"));
    simulation.run(2000);
    assert.equal(end(), "the disk is broken");
  });

  test("and so is followed to an address of which the server has heard nothing", () => {
    const { simulation, end, received } = interrupted(({ simulation }) => simulation.move(CLIENT_PORT, 6000));
    simulation.run(10_000);
    assert.equal(end(), "ok");
    assert.ok(Buffer.concat(received).equals(FILE), "the bytes");
  });

  test("and so gets done for what it has put, though its address has changed since", () => {
    const simulation = new Simulation(
      { seed: 1, toServer: PATH, toClient: PATH, connection: DEFAULTS },
      (connection, token) => {
        connection.accept(token, FILE.length, NO_HASH);
        simulation.at(3000, () => connection.finish());
      },
    );
    const client = simulation.connect({ request: "put", name: "file", size: FILE.length }, CLIENT_PORT);
    client.handlers.onAccepted = () => client.write(FILE);
    simulation.at(2900, () => simulation.move(CLIENT_PORT, 6000));
    simulation.run(5000);
    assert.equal(client.state, "ended");
  });

  test("and gives up after the time limit, though a server that has nothing to send acknowledges what it asks", () => {
    const simulation = new Simulation(
      { seed: 1, toServer: PATH, toClient: PATH, connection: { ...DEFAULTS, timeoutMs: 100_000 } },
      (connection, token) => connection.accept(token, FILE.length, NO_HASH),
    );
    const options = { ...DEFAULTS, timeoutMs: 5000 };
    const client = simulation.connect({ request: "get", name: "file" }, CLIENT_PORT, options);
    simulation.run(60_000, () => client.state === "ended");
    assert.ok(simulation.nowMs > 5000 && simulation.nowMs < 5200, `${simulation.nowMs} ms`);
  });
});

test("a packet that comes again is not acted upon, whatever it says then", () => {
  const connection = new Connection(OPEN, { ...DEFAULTS, timeoutMs: 1000 }, 0);
  const acks = { ack: 0, ackBitfield: 0, token: keyOf(OPEN.token) };
  const accept: Message = {
    ...{ kind: "accept", token: Buffer.alloc(8, 2), mtu: 1200, window: 100_000 },
    ...{ size: 1000n, sha256: NO_HASH },
  };
  const data = (offset: number): Incoming => ({ kind: "data", offset, bytes: Buffer.alloc(100) });
  connection.receive({ sequence: 1, ...acks, message: accept }, 1);
  connection.receive({ sequence: 2, ...acks, message: data(0) }, 2);
  connection.receive({ sequence: 2, ...acks, message: data(100) }, 3);
  assert.equal(connection.input?.received, 100);
  connection.receive({ sequence: 3, ...acks, message: data(100) }, 4);
  assert.equal(connection.input?.received, 200);
});

test("done is the receiver's word: a client that gets a file does not take it from the server for the end", () => {
  const { simulation, client, of } = reading();
  let end: string | undefined;
  client.handlers.onEnd = (error) => {
    end = error?.message ?? "ok";
  };
  simulation.at(70, () => of.server?.finish());
  simulation.run(500);
  assert.match(end ?? "", /says, but has not/);
});

test("a file is read in whole packets, whatever their size: what is left of a read would leave in a smaller one", async () => {
  for (const mtu of [1200, 600, 0]) {
    const server = new Connection({ ...OPEN, mtu }, DEFAULTS, 0, OPEN.token);
    const reads: number[] = [];
    const read = async (_: number, most: number) => {
      reads.push(most);
      return Buffer.alloc(most);
    };
    server.accept(Buffer.alloc(8, 2), 1e9, NO_HASH);
    send(server, { size: 1e9, read }, 0);
    await nextTurn();
    assert.ok(reads.length > 0);
    for (const size of reads) assert.equal(size % server.pieceBytes, 0, `${size} of packets of ${mtu}`);
  }
});

test("the challenge acknowledges the open: the client has a round-trip time before anything is accepted", () => {
  const { simulation, client } = reading();
  simulation.run(2 * PATH.delayMs + 1);
  assert.equal(client.state, "opening");
  assert.equal(client.flight.rtt.smoothedMs, 2 * PATH.delayMs);
});

test("an accept that was lost comes again when the open does, not only after the second that a server waits which knows no round trip", () => {
  const { simulation, client } = reading();
  const losing = { ...PATH, loss: 1 };
  simulation.at(3 * PATH.delayMs - 1, () => Object.assign(simulation.links, { toClient: losing }));
  simulation.at(3 * PATH.delayMs + 1, () => Object.assign(simulation.links, { toClient: PATH }));
  simulation.run(5 * PATH.delayMs);
  assert.equal(client.state, "opening");
  simulation.run(400);
  assert.equal(client.state, "open");
});

test("an accept that was lost comes again though all that was sent after it has come, and acknowledges the open", () => {
  const { simulation, client } = reading();
  const next = simulation.server.next.bind(simulation.server);
  let isLost = false;
  simulation.server.next = (nowMs) => {
    const out = next(nowMs);
    if (isLost || out === undefined || kindOf(Buffer.concat(out.packet)) !== "accept") return out;
    isLost = true;
    return next(nowMs);
  };
  simulation.run(4 * PATH.delayMs + 1);
  assert.deepEqual([isLost, client.state], [true, "opening"]);
  simulation.run(400);
  assert.equal(client.state, "open");
});

test("a connection that has ended while its file was looked for is not accepted any more", () => {
  const connection = new Connection(OPEN, { ...DEFAULTS, timeoutMs: 1000 }, 0, OPEN.token);
  while (connection.next(1001));
  assert.equal(connection.state, "ended");
  assert.throws(() => connection.accept(Buffer.alloc(8, 2), 1000, NO_HASH), /has gone/);
  assert.equal(connection.state, "ended");
});

test("an accept that was lost after the file was hashed comes again within the second: nothing older is said instead", () => {
  const simulation = new Simulation(
    { seed: 1, toServer: PATH, toClient: PATH, connection: DEFAULTS },
    (connection, token) => {
      for (const atMs of [250, 500, 750]) simulation.at(atMs, () => connection.prepare(atMs));
      simulation.at(1000, () => connection.accept(token, FILE.length, NO_HASH));
    },
  );
  const client = simulation.connect({ request: "get", name: "file" }, CLIENT_PORT);
  simulation.at(999, () => Object.assign(simulation.links, { toClient: { ...PATH, loss: 1 } }));
  simulation.at(1001, () => Object.assign(simulation.links, { toClient: PATH }));
  simulation.run(1900);
  assert.equal(client.state, "opening");
  simulation.run(2100);
  assert.equal(client.state, "open");
});

test("into silence go two packets at a time, after ever longer, but at least every 2 s", () => {
  const sentMs: number[] = [];
  const { simulation, client, read } = reading({}, ({ atMs, toServer }) => {
    if (!toServer && atMs > 100) sentMs.push(atMs);
  });
  client.handlers.onReadable = read;
  simulation.run(100);
  Object.assign(simulation.links, { toClient: { loss: 1 }, toServer: { loss: 1 } });
  simulation.run(20_000);
  const times = [...new Set(sentMs.filter((atMs) => atMs > 200))];
  for (const atMs of times) assert.equal(sentMs.filter((other) => other === atMs).length, 2, `at ${atMs} ms`);
  const gaps = times.slice(1).map((atMs, i) => Math.round(atMs - (times[i] ?? 0)));
  assert.ok(gaps.length > 8 && Math.max(...gaps) === 2000, `${gaps}`);
  for (const [i, gap] of gaps.entries()) assert.ok(gap >= (gaps[i - 1] ?? 0), `${gaps}`);
});

test("when the numbers are used up the transfer ends, and says so in one of those kept for it", (t) => {
  const { simulation, client, of, read } = reading();
  client.handlers.onReadable = read;
  simulation.run(70);
  let last = 0;
  Object.assign(simulation.links, { toServer: PATH });
  t.mock.getter(Sending.prototype, "isExhausted", function (this: Sending) {
    return this.output !== undefined && this.sentPackets >= 20;
  });
  const next = simulation.server.next.bind(simulation.server);
  simulation.server.next = (nowMs) => {
    const out = next(nowMs);
    if (out) last = Math.max(last, unseal(Buffer.concat(out.packet))?.sequence ?? 0);
    return out;
  };
  simulation.run(60_000);
  assert.deepEqual(of.ends, { server: "all sequence numbers are used up" });
  assert.equal(client.state, "ended");
  assert.ok(last <= 30, `${last}`);
});

test("ten numbers of the 32 bits are kept for that", () => {
  const sending = new Sending(new Flight(CONGESTION.newreno(1200), { onAcked() {}, onLost() {} }), NO_TOKEN);
  sending.sentPackets = MAX_SEQUENCE - 11;
  assert.equal(sending.isExhausted, false);
  for (let sequence = MAX_SEQUENCE - 10; sequence <= MAX_SEQUENCE; sequence++) {
    sending.say({ kind: "done" });
    const packet = sending.next(0) ?? [];
    assert.equal(unseal(Buffer.concat(packet))?.sequence, sequence);
    assert.equal(sending.isExhausted, true);
  }
});

test("an acknowledgement that a process which stood still sends after hours says as long a delay as can be said", () => {
  const sending = new Sending(new Flight(CONGESTION.newreno(1200), { onAcked() {}, onLost() {} }), NO_TOKEN);
  sending.acks.note(1, true, 0);
  const message = unseal(Buffer.concat(sending.next(5 * 3_600_000) ?? []))?.message;
  assert.deepEqual([message?.kind, message?.kind === "window" && message.delayUs], ["window", 2 ** 32 - 1]);
});

test("a server that has as many connections as it takes lets in nobody until one has ended, and then at once", () => {
  const opened: Connection[] = [];
  const server = new Endpoint({
    ...{ connection: DEFAULTS, random: randomOf(1), maxConnections: 2 },
    onOpen: (connection) => opened.push(connection),
  });
  /** Sends an open, and once more with the cookie that comes for it. */
  const knock = (port: number) => {
    const open: Open = { ...OPEN, token: Buffer.alloc(8, port) };
    const from = { address: "10.0.0.3", port };
    for (const sequence of [1, 2]) {
      server.receive(seal(sequence, { ack: 0, ackBitfield: 0 }, NO_TOKEN, open), from, sequence);
      const { packet = [] } = server.next(sequence) ?? {};
      const answer = unseal(Buffer.concat(packet))?.message;
      if (answer?.kind === "challenge") open.cookie = Buffer.from(answer.cookie);
    }
  };
  for (const port of [1, 2, 3]) knock(port);
  assert.deepEqual([opened.length, server.connections], [2, 2]);
  opened[0]?.fail("failed", "the end");
  knock(3);
  assert.deepEqual([opened.length, server.connections], [3, 2]);
});

test("the simulator's turns never lead back in time, however a division is rounded", () => {
  const turnMs = 0.3;
  const roundedDown = (atMs: number) => Math.ceil(atMs / turnMs) * turnMs < atMs;
  const candidates = Array.from({ length: 10_000 }, (_, i) => i / 10);
  let tried = 0;
  for (const startMs of candidates) {
    const nobody = { delayMs: 1, loss: 1 };
    const simulation = new Simulation(
      { seed: 1, toServer: nobody, toClient: nobody, connection: DEFAULTS, turnMs, startMs },
      () => {},
    );
    const client = simulation.connect({ request: "get", name: "file" }, CLIENT_PORT);
    simulation.run(startMs);
    if (!roundedDown(client.wakeAtMs)) continue;
    let looks = 0;
    const isStuck = () => ++looks > 1000;
    simulation.run(startMs + 5000, isStuck);
    assert.ok(looks <= 1000, `stands still at ${simulation.nowMs}`);
    if (++tried === 20) return;
  }
  assert.fail("no such time");
});

test("an error is said again to who still asks, eight times, and after 3 s the connection is forgotten", () => {
  const server = new Connection(OPEN, DEFAULTS, 0, OPEN.token);
  server.fail("failed", "the disk is broken");
  const said = [server.next(0)];
  for (let sequence = 1; sequence <= 20; sequence++) {
    const message = { kind: "probe", padding: Buffer.alloc(0) } as const;
    server.receive({ sequence, ack: 0, ackBitfield: 0, token: "", message }, 10);
    said.push(server.next(10));
  }
  assert.equal(said.filter((packet) => packet && kindOf(Buffer.concat(packet)) === "error").length, 1 + 8);
  assert.equal(server.forgetAtMs, 3000);
});

test("done that nobody acknowledges is repeated at five timeouts, and that is the end of it", () => {
  let dones = 0;
  const { simulation, client, read } = reading({}, ({ toServer, packet }) => {
    if (toServer && kindOf(packet) === "done") dones++;
  });
  client.handlers.onReadable = () => {
    read();
    if (client.state === "finishing") Object.assign(simulation.links, { toServer: { loss: 1 } });
  };
  simulation.run(60_000, () => client.state === "ended");
  assert.equal(dones, 1 + 5 * 2);
});

test("a file that is in place is no failure, though done does not arrive and the server is stopped", () => {
  const { simulation, client, of, read } = reading();
  client.handlers.onReadable = () => {
    read();
    if (client.state === "finishing") Object.assign(simulation.links, { toServer: { loss: 1 } });
  };
  let end: string | undefined;
  client.handlers.onEnd = (error) => {
    end = error?.message ?? "ok";
  };
  simulation.run(60_000, () => client.state === "finishing");
  simulation.server.stop("the server was stopped");
  simulation.run(60_000, () => client.state === "ended");
  assert.deepEqual([of.ends.server, end], ["the server was stopped", "ok"]);
});

test("done that comes again because its acknowledgement was lost is acknowledged at once", () => {
  const server = new Connection(OPEN, DEFAULTS, 0, OPEN.token);
  server.accept(Buffer.alloc(8, 2), 0, NO_HASH);
  for (const sequence of [1, 2, 3]) {
    const nowMs = 100 * sequence;
    while (server.next(nowMs - 1)) {} // what it has to say besides
    server.receive({ sequence, ack: 0, ackBitfield: 0, token: "", message: { kind: "done" } }, nowMs);
    assert.equal(kindOf(Buffer.concat(server.next(nowMs) ?? [])), "window", `done in packet ${sequence}`);
  }
});

describe("packets with the right token from another address", () => {
  /** Sends the server these from a stranger in mid-transfer; `cookie` is the one that the stranger was challenged with. */
  function strange(...messages: ((cookie: Buffer) => Message)[]) {
    let token = "";
    const { simulation, client, of, received, read } = reading({}, ({ toServer, packet }) => {
      const arrived = unseal(Buffer.from(packet));
      if (toServer && arrived && arrived.message.kind !== "open") token = arrived.token;
    });
    client.handlers.onReadable = read;
    Object.assign(simulation.links, {
      toClient: { ...PATH, rateBytesPerSecond: 400_000, queueBytes: 50_000 },
    });
    simulation.run(500);
    const toStranger: string[] = [];
    let cookie = Buffer.alloc(16);
    const next = simulation.server.next.bind(simulation.server);
    simulation.server.next = (nowMs) => {
      const out = next(nowMs);
      if (out?.to.port !== STRANGER.port) return out;
      const arrived = unseal(Buffer.concat(out.packet));
      toStranger.push(arrived?.message.kind ?? "");
      if (arrived?.message.kind === "challenge") cookie = Buffer.from(arrived.message.cookie);
      return out;
    };
    for (const message of messages) {
      const packet = seal(5000, { ack: 0, ackBitfield: 0 }, Buffer.from(token, "latin1"), message(cookie));
      simulation.server.receive(packet, STRANGER, simulation.nowMs);
      simulation.run(simulation.nowMs + 20);
    }
    const seen = [...toStranger];
    simulation.run(60_000, () => of.ends.server !== undefined);
    return { seen, isWhole: Buffer.concat(received).equals(FILE), end: of.ends.server };
  }

  test("cannot end the transfer: they are answered with a challenge, and no more", () => {
    const { seen, isWhole, end } = strange(
      () => ({ kind: "error", code: "stopped", reason: "a stranger's word" }),
      () => ({ kind: "done" }),
    );
    assert.deepEqual([...new Set(seen)], ["challenge"]);
    assert.deepEqual({ isWhole, end }, { isWhole: true, end: "ok" });
  });

  test("are nothing to a client: servers do not move", () => {
    const endpoint = new Endpoint({ connection: DEFAULTS, random: randomOf(1) });
    const client = endpoint.connect({ request: "get", name: "file" }, { address: "10.0.0.1", port: 1 }, 0);
    assert.ok(endpoint.next(0), "an open");
    const error: Message = { kind: "error", code: "stopped", reason: "a stranger's word" };
    endpoint.receive(seal(1, { ack: 1, ackBitfield: 0 }, client.open.token, error), STRANGER, 1);
    assert.deepEqual([endpoint.next(1), client.state], [undefined, "opening"]);
  });

  test("cannot draw it away with a cookie that is another's", () => {
    const { seen, isWhole, end } = strange(() => ({ kind: "echo", cookie: Buffer.alloc(16) }));
    assert.deepEqual({ seen, isWhole, end }, { seen: [], isWhole: true, end: "ok" });
  });

  test("can, with the cookie that went to that address", () => {
    const { seen } = strange(
      () => ({ kind: "probe", padding: Buffer.alloc(0) }),
      (cookie) => ({ kind: "echo", cookie }),
    );
    assert.equal(seen[0], "challenge");
    assert.ok(
      seen.some((kind) => kind !== "challenge"),
      `${seen}`,
    );
  });
});
