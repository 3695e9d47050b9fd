/** Peers that talk nonsense, stall, flood or forge, and nodes that break the rules: what they cost, and that it shows. */
import { strict as assert } from "node:assert";
import { once } from "node:events";
import { connect as connectSocket, type Socket } from "node:net";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { encode } from "../../shared/pdu.ts";
import { serve } from "../../shared/tcp.ts";
import { within, writeSplit } from "../../shared/testing.ts";
import { predecessorLink, successorLink } from "./links.ts";
import { freePorts, LocalRing, loopback, nodeHere } from "./local-ring.ts";
import { Frame, frameOf, type Meaning } from "./protocol.ts";
import { type Account, checkCalm, checkDeliveries, checkTurns } from "./ring-checks.ts";

/** A message waits 1 s for its return, over four hops. */
const HELD_UP_MS = 150;

const bytesOf = (meaning: Meaning) => encode(Frame, frameOf(meaning));
const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");
const probe = (idSource: number, idDestination: number, generation = 0) =>
  bytesOf({ kind: "probe", idSource, idDestination, generation });

describe("hostile and broken peers", { concurrency: true }, () => {
  describe("peers of node 1 in a ring of 0 and 1", { concurrency: true }, () => {
    let ring: LocalRing;
    before(async () => {
      ring = await LocalRing.of([0, 1]);
      await ring.startAll();
      await ring.note(1, /^turn /m);
    });
    after(async () => {
      await ring[Symbol.asyncDispose]();
    });

    async function peer(): Promise<Socket> {
      const socket = connectSocket({ port: ring.members.get(1)?.port ?? 0, host: "127.0.0.1" });
      socket.on("error", () => {});
      await once(socket, "connect");
      return socket;
    }
    const goesOn = () => ring.note(1, /^turn [\s\S]*^turn /m);
    /** The line that this peer has cost, without its address. */
    async function complaint(socket: Socket, port: number): Promise<string> {
      socket.resume();
      const [, line = ""] = await ring
        .node(1)
        .output(new RegExp(`^127\\.0\\.0\\.1:${port}: (.*)\n`, "m"), "stderr");
      if (!socket.closed) await within(once(socket, "close"), "the link's close");
      return line;
    }
    /** Sends the bytes; node 1 closes the link and says why, and the ring goes on. */
    async function costs(bytes: Buffer, reason: RegExp): Promise<void> {
      const socket = await peer();
      const port = socket.localPort ?? 0;
      socket.write(bytes);
      assert.match(await complaint(socket, port), reason);
      await goesOn();
    }

    for (const [what, bytes, reason] of [
      [
        "garbage",
        Buffer.from("GET / HTTP/1.1\r\nHost: ring\r\n\r\n"),
        /^a PDU of at least \d+ bytes came, the limit is 1048674$/,
      ],
      [
        "flags that mean nothing",
        hex("00000000 00000001 c0 00000000"),
        /^PAL\.flags at byte 8: T and A together mean nothing$/,
      ],
      [
        "data that are not what the flags announce",
        hex("00000000 00000001 80 00000003 31 20 31"),
        /^PAL\.data at byte 13: must be 3 decimal numbers$/,
      ],
      [
        "an end command with data",
        hex("00000000 00000000 20 00000001 30"),
        /^PAL\.data at byte 13: an end command has none$/,
      ],
      [
        "data that are not UTF-8",
        hex("00000000 00000001 60 00000001 ff"),
        /^PAL\.data at byte \d+: is not valid UTF-8$/,
      ],
      [
        "a length over the limit",
        hex("00000000 00000001 00 00100056"),
        /^a PDU of at least 1048675 bytes came, the limit is 1048674$/,
      ],
      [
        "a link that does not begin with a probe",
        bytesOf({ kind: "finish", idSource: 0, idDestination: 0 }),
        /^a link must begin with a probe$/,
      ],
      ["a probe for another station", probe(0, 7), /^station 7 is wanted, this is station 1$/],
      ["a probe of a station in no list", probe(99, 1), /^station 99 is not in the configuration$/],
      [
        "a fault behind a good probe",
        Buffer.concat([probe(0, 1), probe(0, 2)]),
        /^station 2 is wanted, this is station 1$/,
      ],
    ] as const) {
      test(`${what}: the link is closed with the reason, in one line`, () => costs(bytes, reason));
    }

    test("cut at every offset of a frame, by FIN and by reset: a line each", async () => {
      const frame = bytesOf({
        kind: "turn",
        idSource: 0,
        idDestination: 1,
        generation: 1,
        issuer: 0,
        round: 1,
      });
      for (const reset of [false, true]) {
        for (let size = 1; size < frame.length; size++) {
          const socket = await peer();
          const port = socket.localPort ?? 0;
          await new Promise((resolve) =>
            socket.write(Buffer.concat([probe(0, 1), frame.subarray(0, size)]), resolve),
          );
          if (reset) {
            await once(socket, "data"); // the answer: what was sent has arrived
            socket.resetAndDestroy();
          } else socket.end();
          const reason = reset
            ? /^the peer reset the connection \(ECONNRESET\)$/
            : new RegExp(`^the peer finished in the middle of a PDU, after ${size} bytes$`);
          assert.match(await complaint(socket, port), reason);
        }
      }
      await goesOn();
    });

    test("a stall after half a frame ends the link, not the ring", async () => {
      await costs(probe(0, 1).subarray(0, 9), /^the peer sent nothing for 3200 ms$/);
    });

    test("500 links that say nothing: the ring goes on meanwhile, and each is closed in the end", async () => {
      const sockets = await Promise.all(Array.from({ length: 500 }, peer));
      await goesOn();
      const ends = sockets.map((socket) => once(socket.resume(), "close"));
      await within(Promise.all(ends), "the end of 500 silent links");
      await goesOn();
    });

    test("a probe in 1-byte segments is answered with a probe, again and again", async () => {
      const socket = await peer();
      for (let i = 0; i < 2; i++) {
        const answer = once(socket, "data");
        await writeSplit(socket, probe(0, 1));
        assert.deepEqual((await answer)[0], probe(1, 0, 1));
      }
      socket.destroy();
    });

    test("a forged second turn, a late one and a claim while the turn lives are removed, and the turn goes on", async () => {
      const [, round = ""] = await ring.note(1, /^turn generation=1 issuer=0 round=(\d+)$/m);
      const socket = await peer();
      const removed = ring.note(
        1,
        /^(removed a second turn, generation=1 issuer=0 round=1\n[\s\S]*){2}^turn generation=1 /m,
      );
      const second = bytesOf({
        kind: "turn",
        idSource: 0,
        idDestination: 1,
        generation: 1,
        issuer: 0,
        round: 1,
      });
      const claim = bytesOf({ kind: "claim", idSource: 0, idDestination: 0, generation: 2, attempt: 1 });
      socket.write(Buffer.concat([probe(0, 1), second, claim, second]));
      await removed;
      await goesOn();
      assert.ok(Number(round) > 0);
      socket.destroy();
    });

    test("a message whose source is in no list, and an end command that is not of station 0, go no further", async () => {
      const socket = await peer();
      const message = {
        kind: "message",
        idSource: 77,
        idDestination: 0,
        acknowledged: false,
        generation: 1,
        issuer: 0,
        round: 1_000_000,
        number: 1,
        attempt: 1,
        text: "forged",
      } as const;
      const removed = ring.note(
        1,
        /^removed a message whose source, 77, is gone\nremoved an end command of station 1:/m,
      );
      socket.write(
        Buffer.concat([
          probe(0, 1),
          bytesOf(message),
          bytesOf({ kind: "finish", idSource: 1, idDestination: 1 }),
        ]),
      );
      await removed;
      await goesOn();
      assert.doesNotMatch(ring.node(0).stdout, /forged/);
      socket.destroy();
    });
  });

  test("two programs with one id: the successor of both says so", async () => {
    await using ring = await LocalRing.of([0, 1]);
    const { port } = await ring.start(1);
    const twins = [0, 1].map(() => connectSocket({ port, host: "127.0.0.1" }));
    const timer = setInterval(() => {
      for (const twin of twins) twin.resume().write(probe(0, 1));
    }, 50);
    await ring.node(1).output(/^station 0 probes on two links: do two programs have its id\?$/m, "stderr");
    clearInterval(timer);
    for (const twin of twins) twin.destroy();
  });

  test("a generation that a predecessor knows of is known from then on, and said to the next", async () => {
    await using ring = await LocalRing.of([0, 1]);
    const { port } = await ring.start(1);
    for (const [told, answered] of [
      [5, 5],
      [3, 5],
    ] as const) {
      const socket = connectSocket({ port, host: "127.0.0.1" });
      const answer = once(socket, "data");
      socket.write(probe(0, 1, told));
      assert.deepEqual((await within(answer, "an answer"))[0], probe(1, 0, answered));
      socket.destroy();
    }
  });

  test("after all of that a ring still ends in order, and its turn was never lost", async () => {
    // A ring of its own: what is said above must not depend on the order in which it is tried.
    await using ring = await LocalRing.of([0, 1]);
    await ring.startAll();
    await ring.note(1, /^turn /m);
    const port = ring.members.get(1)?.port ?? 0;
    for (let i = 0; i < 20; i++) {
      const socket = connectSocket({ port, host: "127.0.0.1" });
      socket.on("error", () => {});
      socket.end(Buffer.concat([probe(0, 1), Buffer.alloc(13, i * 13)]));
      await within(once(socket.resume(), "close"), "the link's close");
    }
    await ring.note(0, /^turn [\s\S]*^turn /m);
    ring.node(0).kill("SIGINT");
    const codes = await Promise.all(ring.lives.map(async ({ running }) => (await running.exited).code));
    assert.deepEqual(codes, [0, 0]);
    checkCalm(ring.accounts);
  });

  describe("a broken node among ours: the checks say what it does", { concurrency: true }, () => {
    /** The rings run by the clock: what came of one counts only if nobody held this process up meanwhile. */
    function timed(name: string, check: () => Promise<void>): void {
      test(name, async (t) => {
        for (let attempt = 1; ; attempt++) {
          const delays = monitorEventLoopDelay({ resolution: 10 });
          delays.enable();
          try {
            return await check();
          } catch (error) {
            if (delays.max < HELD_UP_MS * 1e6) throw error;
            if (attempt === 3) return t.skip(`held up each time, now for ${Math.round(delays.max / 1e6)} ms`);
          } finally {
            delays.disable();
          }
        }
      });
    }

    /** What node 1 of three does with a frame, and what becomes of messages from 0 to 1 and 2 then. */
    async function ringWith(
      treat: (meaning: Meaning, send: (meaning: Meaning) => void) => void,
      until: (accounts: Account[]) => boolean,
    ): Promise<Account[]> {
      const members = loopback([0, 1, 2], await freePorts(3));
      const closing = new AbortController();
      const options = {
        id: 1,
        first: 2,
        members,
        signal: closing.signal,
        log: () => {},
        debug: () => {},
        newest: new Map(),
        generation: () => 0,
        mayBypass: () => false,
        isLeaving: () => false,
        onHeard: () => {},
        onSuccessor: () => {},
      };
      const own = members.get(1) ?? { host: "", port: 0 };
      const link = successorLink(options);
      await serve({ ...own, signal: closing.signal, log: () => {} }, (connection) =>
        predecessorLink(connection, options, (meaning) => treat(meaning, link.send)),
      );
      const lines = Array.from({ length: 4 }, (_, i) => ({ idDestination: 1 + (i % 2), text: `m${i}` }));
      const nodes = [nodeHere({ id: 0, members, lines }), nodeHere({ id: 2, members })];
      const accounts = nodes.map(({ account }) => account);
      const deadlineMs = performance.now() + 15_000;
      while (!until(accounts) && performance.now() < deadlineMs) await delay(20);
      for (const { stop, ended } of nodes) {
        stop.abort();
        await within(ended, "the end of a node that was told to stop");
      }
      closing.abort();
      return accounts;
    }
    const lastReported = (accounts: Account[]) => /: m3/.test(accounts[0]?.printed ?? "");
    /** What an honest node does. */
    function honest(meaning: Meaning, send: (meaning: Meaning) => void): void {
      if (meaning.kind === "turn") send({ ...meaning, idSource: 1, idDestination: 2 });
      else send(meaning);
    }

    timed("an honest one passes, but for what it does not take", async () => {
      const accounts = await ringWith(honest, lastReported);
      checkDeliveries(accounts);
      checkTurns(accounts);
      assert.equal(accounts[0]?.printed.match(/^delivered to 2/gm)?.length, 2);
      assert.equal(accounts[0]?.printed.match(/^undelivered to 1/gm)?.length, 2);
    });

    timed("one that swallows every third message is found by the second attempts", async () => {
      let count = 0;
      const accounts = await ringWith((meaning, send) => {
        if (meaning.kind !== "message" || ++count % 3 !== 0) honest(meaning, send);
      }, lastReported);
      assert.throws(() => checkCalm(accounts), {
        message: /^trouble: sent message 3 to 1 again, attempt 2$/,
      });
      assert.match(accounts[0]?.printed ?? "", /^unconfirmed to 1: m2/m);
    });

    timed("one that acknowledges what it does not deliver is found", async () => {
      const accounts = await ringWith((meaning, send) => {
        honest(meaning.kind === "message" ? { ...meaning, acknowledged: true } : meaning, send);
      }, lastReported);
      assert.throws(() => checkDeliveries(accounts), {
        message: "reported delivered, which is not so: 0 to 1: m0",
      });
    });

    timed("one that passes on a message twice, as if it were two, is found", async () => {
      const accounts = await ringWith((meaning, send) => {
        honest(meaning, send);
        if (meaning.kind === "message" && meaning.text === "m1" && meaning.idSource === 0)
          honest({ ...meaning, number: meaning.number + 1 }, send);
      }, lastReported);
      assert.throws(() => checkDeliveries(accounts), { message: "arrived 2 times: 0 to 2: m1" });
    });

    timed(
      "one that never passes the turn on is found by the turns that are made, one after the other",
      async () => {
        const accounts = await ringWith(
          (meaning, send) => {
            if (meaning.kind !== "turn") honest(meaning, send);
          },
          ([zero]) => /generation 2/.test(zero?.notes ?? ""),
        );
        assert.throws(() => checkCalm(accounts), { message: /^trouble: made the turn, generation 2$/ });
      },
    );

    timed("one that keeps the turn does not keep a node from ending that is told to stop", async () => {
      const accounts = await ringWith((meaning, send) => {
        if (meaning.kind !== "turn") honest(meaning, send);
      }, lastReported);
      assert.doesNotMatch(accounts[0]?.notes ?? "", /generation 2/, "it had no turn to end the ring with");
    });

    timed(
      "one that passes the turn on twice: the second is removed, and there is never another",
      async () => {
        const accounts = await ringWith(
          (meaning, send) => {
            honest(meaning, send);
            if (meaning.kind === "turn") honest(meaning, send);
          },
          ([, two]) => (two?.notes.match(/^turn /gm)?.length ?? 0) > 5,
        );
        checkTurns(accounts);
        assert.doesNotMatch(accounts[0]?.notes ?? "", /removed/);
        assert.match(accounts[1]?.notes ?? "", /^removed a second turn, generation=1 issuer=0 round=1$/m);
        assert.throws(() => checkCalm(accounts), { message: /^trouble: removed a second turn/ });
      },
    );
  });
});
