/** What arrives in chunks, however small they are. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { ByteQueue } from "./byte-queue.ts";

test("single bytes do not stay a chunk each: that would take 100 times their memory", () => {
  const queue = new ByteQueue();
  const sent = Buffer.from(Array.from({ length: 5000 }, (_, i) => i % 251));
  for (const byte of sent) {
    queue.push(Buffer.of(byte));
    assert.ok(
      queue.sizeBytes <= 257 || queue.firstBytes >= queue.sizeBytes - 257,
      `after ${queue.sizeBytes} bytes`,
    );
  }
  const taken: Buffer[] = [];
  while (queue.sizeBytes > 0) taken.push(queue.take(Math.min(7, queue.sizeBytes)));
  assert.deepEqual(Buffer.concat(taken), sent);
});

test("large chunks are left as they came, without a copy", () => {
  const queue = new ByteQueue();
  const chunks = Array.from({ length: 300 }, () => Buffer.alloc(2000));
  for (const chunk of chunks) queue.push(chunk);
  for (const chunk of chunks) assert.equal(queue.take(queue.firstBytes), chunk);
});
