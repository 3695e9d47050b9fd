/** The link to the successor: what waits for one, and who is tried in which order. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { encode } from "../../shared/pdu.ts";
import { serve } from "../../shared/tcp.ts";
import { within } from "../../shared/testing.ts";
import { type LinksOptions, predecessorLink, successorLink } from "./links.ts";
import { freePorts, loopback } from "./local-ring.ts";
import { Frame, MAX_FRAME_BYTES, type Meaning } from "./protocol.ts";

/** Stations on loopback: the link of 1, whose first successor is 2, and honest ones that are to be started. */
async function stations(...ids: number[]) {
  const members = loopback(ids, await freePorts(ids.length));
  const closing = new AbortController();
  const options = (id: number): LinksOptions => ({
    id,
    first: 2,
    members,
    signal: closing.signal,
    log: () => {},
    debug: () => {},
    newest: new Map(),
    generation: () => 1,
    mayBypass: () => true,
    isLeaving: () => false,
    onHeard: () => {},
    onSuccessor: () => {},
  });
  const listen = (id: number, session: Parameters<typeof serve>[1]) =>
    serve(
      { host: "127.0.0.1", port: members.get(id)?.port ?? 0, signal: closing.signal, log: () => {} },
      session,
    );
  return {
    listen,
    honest: (id: number, onFrame: (meaning: Meaning) => void) =>
      listen(id, (connection) => predecessorLink(connection, options(id), onFrame)),
    link: (rest: Partial<LinksOptions> = {}) => successorLink({ ...options(1), ...rest }),
    [Symbol.dispose]: () => closing.abort(),
  };
}
const finish = (idSource: number): Meaning => ({ kind: "finish", idSource, idDestination: 0 });

test("2.7: what is sent while there is no successor waits for one: the last 64 frames, in order", async () => {
  using ring = await stations(1, 2);
  const link = ring.link({ mayBypass: () => false });
  for (let i = 1; i <= 100; i++) link.send(finish(i));
  const got: number[] = [];
  const all = new Promise<void>((resolve) => {
    void ring.honest(2, ({ idSource }) => {
      got.push(idSource);
      if (idSource === 100) resolve();
    });
  });
  await within(all, "the last frame");
  assert.deepEqual(
    got,
    Array.from({ length: 64 }, (_, i) => 37 + i),
  );
});

test("2.3: a successor that has fallen silent is not tried again before the others", async () => {
  using ring = await stations(1, 2, 3);
  let links = 0;
  await ring.listen(2, async (connection) => {
    links++;
    const probe = await connection.readPdu(Frame, MAX_FRAME_BYTES);
    if (links === 1 && probe)
      await connection.write(encode(Frame, { ...probe, idSource: 2, idDestination: 1 }));
    while (await connection.read()); // and says nothing more
  });
  const linksBefore = new Promise<number>((resolve) => {
    void ring.listen(3, async (connection) => {
      await connection.read();
      resolve(links);
    });
  });
  ring.link();
  assert.equal(await within(linksBefore, "a probe to station 3"), 1);
});
