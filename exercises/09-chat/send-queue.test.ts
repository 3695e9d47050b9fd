/** What is queued within a turn is written as one, shared by receivers of the same, in order, and bounded. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { SendQueue, Turn } from "./send-queue.ts";

/** A receiver that takes what is written, or, while it is blocked, does not. */
class Receiver {
  readonly writes: Buffer[] = [];
  overflows = 0;
  unsentBytes = 0;
  readonly queue: SendQueue;
  #isBlocked = false;
  #release = () => {};

  constructor(turn: Turn, limitBytes = 2 ** 20) {
    this.queue = new SendQueue(turn, this, limitBytes, () => this.overflows++);
  }
  write(bytes: Buffer | string): Promise<void> {
    this.writes.push(bytes as Buffer);
    if (!this.#isBlocked) return Promise.resolve();
    this.unsentBytes += bytes.length;
    return new Promise((resolve) => {
      this.#release = resolve;
    });
  }
  block(): void {
    this.#isBlocked = true;
  }
  async unblock(): Promise<void> {
    this.#isBlocked = false;
    this.unsentBytes = 0;
    this.#release();
    await nextTurn();
  }
  get lines(): string[] {
    return Buffer.concat(this.writes).toString("latin1").split("\r\n").slice(0, -1);
  }
}

describe("the send queue", () => {
  test("a turn's lines are one write, at its end, in order and byte by byte", async () => {
    const receiver = new Receiver(new Turn());
    for (const line of ["a", "", "\xff\x80", "b"]) receiver.queue.send(line);
    assert.equal(receiver.writes.length, 0);
    await nextTurn();
    assert.equal(receiver.writes.length, 1);
    assert.deepEqual(receiver.lines, ["a", "", "\xff\x80", "b"]);
    receiver.queue.send("c");
    await nextTurn();
    assert.equal(receiver.writes.length, 2);
  });

  test("receivers of the same lines share their bytes; others get their own", async () => {
    const turn = new Turn();
    const [a, b, c] = [new Receiver(turn), new Receiver(turn), new Receiver(turn)];
    for (const line of ["1", "2", "3"]) {
      for (const receiver of [a, b]) receiver.queue.send(line);
      if (line !== "2") c.queue.send(line);
    }
    await nextTurn();
    assert.equal(a.writes[0], b.writes[0], "the same buffer");
    assert.deepEqual(
      [a.lines, b.lines, c.lines],
      [
        ["1", "2", "3"],
        ["1", "2", "3"],
        ["1", "3"],
      ],
    );
  });

  test("interleaved in any way, each receiver gets its own lines in its order", async () => {
    const turn = new Turn();
    const receivers = Array.from({ length: 20 }, () => new Receiver(turn));
    const expected: string[][] = receivers.map(() => []);
    let random = 20_261_111;
    for (let i = 0; i < 5000; i++) {
      random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0;
      const line = `line ${random % 7}`;
      for (const [j, receiver] of receivers.entries()) {
        if ((random >> (j % 16)) % 3 === 0) continue;
        receiver.queue.send(line);
        expected[j]?.push(line);
      }
      if (random % 97 === 0) await nextTurn();
    }
    await nextTurn();
    for (const [j, receiver] of receivers.entries()) assert.deepEqual(receiver.lines, expected[j]);
  });

  test("a long turn is written in between; a slow receiver's lines wait and come as one", async () => {
    const receiver = new Receiver(new Turn());
    const line = "x".repeat(1000);
    for (let i = 0; i < 100; i++) receiver.queue.send(line);
    assert.equal(receiver.writes.length, 1, "64 KiB did not wait for the end");
    await nextTurn();
    assert.equal(receiver.lines.length, 100);
    receiver.block();
    receiver.queue.send("first");
    await nextTurn();
    const written = receiver.writes.length;
    for (let turn = 0; turn < 10; turn++) {
      receiver.queue.send(`later ${turn}`);
      await nextTurn();
    }
    assert.equal(receiver.writes.length, written, "nothing is written while it is blocked");
    await receiver.unblock();
    assert.equal(receiver.writes.length, written + 1);
    assert.deepEqual(receiver.lines.slice(-11), [
      "first",
      ...Array.from({ length: 10 }, (_, i) => `later ${i}`),
    ]);
  });

  test("over its limit: told once, at a turn's end, and nothing more is kept; the others have everything", async () => {
    const turn = new Turn();
    const [slow, quick] = [new Receiver(turn, 5000), new Receiver(turn, 5000)];
    slow.block();
    const line = "x".repeat(98);
    for (let i = 0; i < 60; i++) {
      for (const receiver of [slow, quick]) receiver.queue.send(line);
      assert.equal(slow.overflows, i > 50 ? 1 : 0, `after ${i} lines`);
      await nextTurn();
    }
    assert.equal(slow.overflows, 1);
    assert.equal(slow.lines.length, 1, "what was written before it was blocked");
    assert.equal(quick.lines.length, 60);
    assert.equal(quick.overflows, 0);
  });

  test("a receiver that reads is not cut off by one turn that is longer than its limit", async () => {
    const receiver = new Receiver(new Turn(), 100_000);
    const line = "x".repeat(998);
    for (let i = 0; i < 150; i++) {
      receiver.queue.send(line);
      if (i % 50 === 0) await Promise.resolve(); // the write has been taken
    }
    await nextTurn();
    assert.equal(receiver.overflows, 0);
    assert.equal(receiver.lines.length, 150);
  });

  test("the last words go out even to one that is blocked; a broken connection is not its business", async () => {
    const receiver = new Receiver(new Turn());
    receiver.block();
    receiver.queue.send("a");
    await nextTurn();
    receiver.queue.send("ERROR");
    receiver.queue.flush();
    assert.deepEqual(receiver.lines, ["a", "ERROR"]);
  });
});
