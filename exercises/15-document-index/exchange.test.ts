/** What is asked of a peer over TCP, of one that is made up; and what a node answers. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { Connection } from "../../shared/connection.ts";
import { Failure, TooLongError } from "../../shared/errors.ts";
import { encode } from "../../shared/pdu.ts";
import { within } from "../../shared/running.ts";
import { connect, serve } from "../../shared/tcp.ts";
import { OwnIndex } from "./document-index.ts";
import { answer, fetchContent, fetchIndex } from "./exchange.ts";
import { newIdentity } from "./identity.ts";
import { indexProof, LieError, MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES, Message } from "./protocol.ts";

const NOTHING = Buffer.alloc(0);
const NEVER = new AbortController().signal;
const content = (size: number) => encode(Message, { type: "content", size: BigInt(size) });
const chunk = (text: string) => encode(Message, { type: "chunk", data: Buffer.from(text) });

/** Somebody who does this with each connection, for as long as `use` runs. */
async function withPeer<T>(
  session: (connection: Connection) => Promise<void>,
  use: (at: { address: string; port: number }) => Promise<T>,
): Promise<T> {
  const over = new AbortController();
  const server = await serve({ host: "127.0.0.1", port: 0, signal: over.signal, log: () => {} }, session);
  try {
    return await use({ address: "127.0.0.1", port: server.port });
  } finally {
    over.abort();
    await server.closed;
  }
}

/** The four bytes of a content that a peer answers for so. */
const fetched = (...answers: Buffer[]) =>
  withPeer(
    async (connection) => {
      await connection.readPdu(Message, MAX_MESSAGE_BYTES);
      await connection.write(Buffer.concat(answers));
    },
    async (at) => {
      let text = "";
      for await (const piece of fetchContent(at, { sha256: "00".repeat(32), size: 4 }, 0, NEVER))
        text += piece;
      return text;
    },
  );

test("a content's chunks: none empty, none too many, nothing between them; one that breaks off is no lie", async () => {
  assert.equal(await fetched(content(4), chunk("ab"), chunk("cd")), "abcd");
  await assert.rejects(fetched(content(4), chunk("ab"), chunk("cde")), LieError);
  await assert.rejects(fetched(content(4), chunk(""), chunk("abcd")), LieError);
  await assert.rejects(fetched(content(4), chunk("ab"), content(4), chunk("cd")), LieError);
  await assert.rejects(fetched(content(5), chunk("abcd"), chunk("e")), LieError);
  const isFailure = (error: unknown) => error instanceof Failure && !(error instanceof LieError);
  await assert.rejects(fetched(content(4), chunk("ab")), isFailure);
});

test("who stops waits for no answer", async () => {
  const stop = new AbortController();
  const session = async (connection: Connection) => {
    await connection.readPdu(Message, MAX_MESSAGE_BYTES);
    stop.abort();
    await connection.readPdu(Message, MAX_MESSAGE_BYTES); // up to its end
  };
  const error = await withPeer(session, async (at) => {
    const pieces = fetchContent(at, { sha256: "00".repeat(32), size: 4 }, 0, stop.signal);
    return pieces.next().then(
      () => assert.fail(),
      (error: unknown) => error,
    );
  });
  assert.doesNotMatch(String(error), /sent nothing/);
});

test("an index of more than one batch comes whole; a request of more than 64 bytes ends the connection", async () => {
  const [identity, index] = [newIdentity(), new OwnIndex()];
  for (let i = 0; i < 1003; i++)
    index.set({ path: `p${i}`, size: i, modifiedMs: i, sha256: "ab".repeat(32) });
  let why: unknown;
  await withPeer(
    (connection) =>
      answer(connection, { identity, index, folder: undefined }).catch((error) => {
        why = error;
        throw error;
      }),
    async (at) => {
      const { changes } = await fetchIndex(at, identity.key, 0, NEVER);
      assert.deepEqual(
        changes.map(({ path }) => path),
        index.documents.map(({ path }) => path),
      );
      await using connection = await connect({ host: at.address, port: at.port });
      const long = encode(Message, { type: "chunk", data: Buffer.alloc(MAX_CHUNK_BYTES) });
      await connection.write(long.subarray(0, 100)); // the rest need not come
      await within(
        connection.readPdu(Message, MAX_MESSAGE_BYTES).catch(() => undefined),
        "its end",
        120_000,
      );
      assert.ok(why instanceof TooLongError, String(why));
    },
  );
});

test("an index is believed that its node has signed, of this request, and that is one", async () => {
  const [identity, other] = [newIdentity(), newIdentity()];
  const lies = { count: 0, flip: 0, garbage: NOTHING };
  const session = async (connection: Connection) => {
    const request = await connection.readPdu(Message, MAX_MESSAGE_BYTES);
    if (request?.type !== "indexRequest") return;
    const digest = Buffer.alloc(16);
    const signature = identity.sign(indexProof(request.nonce, identity.key, 7, digest));
    const head = { version: 7 + lies.flip, digest, flags: { whole: true }, count: lies.count, signature };
    await connection.write(Buffer.concat([encode(Message, { type: "index", ...head }), lies.garbage]));
  };
  await withPeer(session, async (at) => {
    const fetch = (key = identity.key) => fetchIndex(at, key, 0, NEVER);
    assert.equal((await fetch()).version, 7);
    await assert.rejects(fetch(other.key), /cannot prove/);
    lies.flip = 1;
    await assert.rejects(fetch(), /cannot prove/);
    lies.flip = 0;
    lies.count = 200_000;
    await assert.rejects(fetch(), LieError);
    lies.count = 1;
    lies.garbage = Buffer.alloc(8, 0xff);
    await assert.rejects(fetch(), LieError, "what is no message is as bad as a lie");
  });
});
