/** Jobs with nodes in this process, and with nodes that are broken on purpose in every phase of the protocol. */
import { strict as assert } from "node:assert";
import { once } from "node:events";
import { truncateSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Connection } from "../../shared/connection.ts";
import { explain } from "../../shared/errors.ts";
import { connect } from "../../shared/tcp.ts";
import { tcpRelay, within } from "../../shared/testing.ts";
import type { Address } from "./job.ts";
import { addLines, linesOf, sorted } from "./lines.ts";
import { countHere as countJob, NodeHere } from "./nodes-here.ts";
import { countedIn } from "./oracle.ts";
import { firstMessage, Peer } from "./peer.ts";
import type { MessageOf } from "./protocol.ts";
import { gatheredText } from "./sample-text.ts";
import { TermTable } from "./term-table.ts";
import { Tokenizer } from "./tokenizer.ts";

const SILENCE_MS = 3000;
const LONG_MS = 60_000;

let folder = "";
let path = "";
let text: Buffer;
let expected = "";
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "netlab-jobs-"));
  path = join(folder, "text.txt");
  text = Buffer.concat([
    gatheredText(1_000_000).bytes,
    Buffer.from("ca\xf1\xf3n ", "latin1"),
    Buffer.from("Y cafe\u0301 CAFÉ"),
  ]);
  await writeFile(path, text);
  expected = countedIn(text);
});
after(() => rm(folder, { recursive: true }));
/** Those of the tests' own making: open ones would keep this process running for ever. */
const ownPeers = new Set<Peer>();
after(() => {
  for (const peer of ownPeers) {
    peer[Symbol.dispose]();
    peer.connection.destroy();
  }
});

/** Its errors are what a user sees of them. */
const countHere: typeof countJob = (...args) =>
  countJob(...args).catch((error) => {
    throw new Error(explain(error));
  });

/** A peer that talks the protocol as a test says, and gives signs of life. */
type Script = (peer: Peer, job: MessageOf<"job">) => Promise<void>;
const scripted = (script: Script, silenceMs = SILENCE_MS) =>
  NodeHere.of(async (connection, _, killed) => {
    const job = await firstMessage(connection);
    const end = once(killed, "abort");
    if (job?.type !== "job") return void (await end); // a mapper, with its result for what is no reducer: it waits in vain
    using peer = new Peer(connection, silenceMs);
    connection.timeoutMs = LONG_MS;
    await Promise.race([script(peer, job), end]);
  });

/** The part that a master gives: all of its text. */
async function partFrom(master: Peer, isFirst = true): Promise<Tokenizer & { part: number }> {
  if (isFirst) await master.send({ type: "ready", role: "mapper" });
  const { part, sizeBytes } = await master.expect("part");
  const tokenizer = Object.assign(new Tokenizer(), { part });
  for (let missing = Number(sizeBytes); missing > 0; ) {
    const { data } = await master.expect("chunk");
    tokenizer.push(data);
    missing -= data.length;
  }
  tokenizer.end();
  return tokenizer;
}

/** A connection to the reducer on which a part was announced, and its answer. */
async function announced(job: MessageOf<"job">, part: number, silenceMs = SILENCE_MS) {
  const connection = await connect({ host: job.reducerHost, port: job.reducerPort });
  const peer = new Peer(connection, silenceMs);
  ownPeers.add(peer);
  connection.timeoutMs = LONG_MS;
  await peer.send({ type: "announce", job: job.job, part });
  return { connection, peer, answer: await peer.expect("grant", "refuse") };
}

const endOf = ({ table, invalidBytes, longTerms }: Tokenizer): MessageOf<"resultEnd"> => ({
  type: "resultEnd",
  terms: table.size,
  words: BigInt(table.words),
  invalidBytes: BigInt(invalidBytes),
  longTerms: BigInt(longTerms),
});
const never = () => new Promise<never>(() => {});

describe("jobs", { concurrency: 8 }, () => {
  for (const [mappers, copies] of [
    [1, 1],
    [1, 2],
    [2, 2],
    [5, 2],
    [8, 3],
  ] as const) {
    test(`mappers: ${mappers}, copies: ${copies}: the same count`, async () => {
      await using reducer = await NodeHere.reducer();
      const nodes = await Promise.all(Array.from({ length: mappers }, () => NodeHere.mapper()));
      const addresses = Object.fromEntries(nodes.map(({ address }, i) => [`mapper${i + 1}`, address]));
      const { output, totals } = await countHere(path, reducer.address, addresses, { copies });
      assert.equal(output, expected);
      assert.equal(totals.terms, expected.split("\n").length - 1);
      assert.equal(totals.invalidBytes, 2n);
      for (const node of nodes) await node.kill();
    });
  }

  test("one job after the other, and two at once", async () => {
    await using reducer = await NodeHere.reducer();
    await using one = await NodeHere.mapper();
    await using two = await NodeHere.mapper();
    const mappers = { mapper1: one.address, mapper2: two.address };
    const count = () => countHere(path, reducer.address, mappers);
    assert.equal((await count()).output, expected);
    const both = await Promise.all([count(), count()]);
    assert.deepEqual(
      both.map(({ output }) => output),
      [expected, expected],
    );
  });

  test("an empty text has an empty count", async () => {
    await using reducer = await NodeHere.reducer();
    await using mapper = await NodeHere.mapper();
    const empty = join(folder, "empty.txt");
    await writeFile(empty, "");
    const { output, totals } = await countHere(empty, reducer.address, { mapper1: mapper.address });
    assert.deepEqual([output, totals.words], ["", 0n]);
  });

  test("who announces a part that another is sending, that is there already, or of a job that is over, is refused", async () => {
    await using reducer = await NodeHere.reducer();
    const refusal = async (job: MessageOf<"job">, part: number) => {
      const { answer, connection } = await announced(job, part);
      connection.destroy();
      return answer.type === "refuse" ? answer.reason : answer.type;
    };
    let theJob: MessageOf<"job"> | undefined;
    const answers: string[] = [];
    const send = async (job: MessageOf<"job">, part: number, meanwhile: () => Promise<void>) => {
      theJob = job;
      const { peer, answer } = await announced(job, part);
      assert.equal(answer.type, "grant");
      await meanwhile();
      await peer.send({ type: "result", lines: Buffer.from("only\t7\n") });
      await peer.send({ type: "resultEnd", terms: 1, words: 7n, invalidBytes: 0n, longTerms: 0n });
      await peer.expect("received");
      peer[Symbol.dispose]();
    };
    await using mapper = await scripted(async (master, job) => {
      const first = await partFrom(master);
      await send(job, first.part, async () => void answers.push(await refusal(job, first.part)));
      answers.push(await refusal(job, first.part));
      await master.send({ type: "partDone", part: first.part, outcome: "delivered", reason: "" });
      const { part } = await partFrom(master, false);
      await send(job, part, async () => {});
      await never();
    });
    const options = { partCount: 2, copies: 1 };
    const { output } = await countHere(path, reducer.address, { mapper1: mapper.address }, options);
    assert.ok(theJob !== undefined);
    answers.push(await refusal(theJob, 0));
    assert.deepEqual(answers, ["taken", "received", "unknownJob"]);
    assert.equal(output, "only\t14\n");
  });

  test("a text that becomes shorter while it is read fails the job, and no mapper is blamed", async () => {
    await using reducer = await NodeHere.reducer();
    const shrinking = join(folder, "shrinking.txt");
    await writeFile(shrinking, "");
    truncateSync(shrinking, 50_000_000); // more than is read before its end is cut off
    await using mapper = await scripted(async (master) => {
      await master.send({ type: "ready", role: "mapper" });
      await master.expect("part");
      truncateSync(shrinking, 1000);
      for (;;) await master.expect("chunk");
    });
    await assert.rejects(countHere(shrinking, reducer.address, { mapper1: mapper.address }), {
      message: "cannot read the text: it has become shorter",
    });
  });

  test("a mapper that is no use is given up; with no other, the job fails and says why", async () => {
    await using reducer = await NodeHere.reducer();
    let times = 0;
    await using mapper = await scripted(async (master) => {
      times++;
      const { part } = await partFrom(master);
      await master.send({ type: "partDone", part, outcome: "failed", reason: "no way to the reducer" });
      await never();
    });
    await assert.rejects(countHere(path, reducer.address, { mapper1: mapper.address }), {
      message: "cannot count: no mapper is left; start one with mapper.ts",
    });
    assert.equal(times, 10);
  });

  test("without a mapper the job fails and says so; without a reducer at once", async () => {
    await using reducer = await NodeHere.reducer();
    const gone = await NodeHere.mapper();
    await gone.kill();
    await assert.rejects(countHere(path, reducer.address, { mapper1: gone.address }, { silenceMs: 2000 }), {
      message: "cannot count: no mapper is left; start one with mapper.ts",
    });
    await assert.rejects(countHere(path, gone.address, { mapper1: gone.address }), {
      message: /^cannot reach the reducer: cannot connect to /,
    });
  });
});

describe("a mapper that is lost, in whatever phase, is replaced", { concurrency: 8 }, () => {
  type Broken = (master: Peer, job: MessageOf<"job">, onPart: () => void) => Promise<void>;
  const ready = (master: Peer) => master.send({ type: "ready", role: "mapper" });
  /** A result of which the reducer has some, and its end has not come. */
  const halfDelivered = async (master: Peer, job: MessageOf<"job">) => {
    const { part } = await partFrom(master);
    const { peer, connection, answer } = await announced(job, part);
    assert.equal(answer.type, "grant");
    await peer.send({ type: "result", lines: Buffer.from("nonsense\t1000\n") });
    return { peer, connection, part };
  };

  const cases: [what: string, broken: Broken, note: RegExp][] = [
    [
      "it goes before it has all of its part",
      async (master, _, onPart) => {
        await ready(master);
        await master.expect("part");
        await master.expect("chunk");
        onPart();
        master.connection.reset();
      },
      /^mapper1: lost, /,
    ],
    [
      "it stops in the middle of its part",
      async (master, _, onPart) => {
        await ready(master);
        await master.expect("part");
        onPart();
        master[Symbol.dispose](); // no sign of life from now on
        await never();
      },
      /^mapper1: lost, the peer (took|sent) nothing for 3000 ms/,
    ],
    [
      "it finishes in order, with its part",
      async (master, _, onPart) => {
        await partFrom(master);
        onPart();
        master.connection.end();
      },
      /^mapper1: lost, it finished instead of partDone$/,
    ],
    [
      "it dies in the middle of its result",
      async (master, job, onPart) => {
        const { connection } = await halfDelivered(master, job);
        onPart();
        connection.reset();
        master.connection.reset();
      },
      /^part 0: its result was lost on the way$/,
    ],
    [
      "it stops in the middle of its result, though its master hears from it",
      async (master, job, onPart) => {
        const { peer } = await halfDelivered(master, job);
        onPart();
        peer[Symbol.dispose]();
        await never();
      },
      /^part 0: its result was lost on the way$/,
    ],
    [
      "it finishes before its result has",
      async (master, job, onPart) => {
        const { connection } = await halfDelivered(master, job);
        onPart();
        connection.end();
        await never();
      },
      /^part 0: its result was lost on the way$/,
    ],
    [
      "its result is not what its end says",
      async (master, job, onPart) => {
        const { peer, part } = await halfDelivered(master, job);
        onPart();
        await peer.send({ type: "resultEnd", terms: 1, words: 999n, invalidBytes: 0n, longTerms: 0n });
        await assert.rejects(peer.next(), /the result is not what its end says/);
        await master.send({ type: "partDone", part, outcome: "failed", reason: "" });
        await never();
      },
      /^part 0: its result was lost on the way$/,
    ],
    [
      "its result is no result",
      async (master, job, onPart) => {
        const { peer } = await halfDelivered(master, job);
        onPart();
        await peer.send({ type: "result", lines: Buffer.from("nonsense") });
        await assert.rejects(peer.next(), /it says: not a term, a tab and a count: "nonsense"/);
        await never();
      },
      /^part 0: its result was lost on the way$/,
    ],
    [
      "it says that another part is done",
      async (master, _, onPart) => {
        await partFrom(master);
        onPart();
        await master.send({ type: "partDone", part: 1, outcome: "delivered", reason: "" });
        await never();
      },
      /^mapper1: lost, part 1 was not its$/,
    ],
    [
      "it says what is wrong with it",
      async (master, _, onPart) => {
        await partFrom(master);
        onPart();
        await master.send({ type: "error", reason: "I am tired" });
        await never();
      },
      /^mapper1: lost, it says: I am tired$/,
    ],
    [
      "it talks nonsense",
      async (master, _, onPart) => {
        await partFrom(master);
        onPart();
        await master.connection.write("nonsense");
        await never();
      },
      /^mapper1: lost, NLMR/,
    ],
  ];
  for (const [what, broken, note] of cases)
    test(what, async () => {
      const { notes, reducer } = await replaced(broken);
      assert.ok(
        notes.some((line) => note.test(line)),
        `none of ${JSON.stringify(notes)}: ${reducer.join("; ")}`,
      );
    });

  test("it dies when its result is there, but it has not said so: nothing is counted again", async () => {
    await using reducer = await NodeHere.reducer();
    let parts = 0;
    await using mapper = await scripted(async (master, job) => {
      parts++;
      const tokenizer = await partFrom(master);
      const { peer } = await announced(job, tokenizer.part);
      for (const lines of linesOf(tokenizer.table)) await peer.send({ type: "result", lines });
      await peer.send(endOf(tokenizer));
      await peer.expect("received");
      peer.connection.reset();
      master.connection.reset();
    });
    const { output } = await countHere(path, reducer.address, { mapper1: mapper.address });
    assert.equal(output, expected);
    assert.equal(parts, 1);
  });
});

describe("a break between mapper and reducer", { concurrency: 2 }, () => {
  const ANNOUNCE = 6;

  test("for less than the silence: the result is offered again, and nothing is counted anew", async () => {
    await using reducer = await NodeHere.reducer();
    await using mapper = await NodeHere.mapper();
    let announcements = 0;
    await using link = await tcpRelay(reducer.address.port, (chunk, offset, toServer) => {
      const isCut = toServer && offset === 0 && chunk[0] === ANNOUNCE && ++announcements <= 12;
      return isCut ? { pieces: [], outcome: "reset" } : { pieces: [chunk] };
    });
    const address = { host: "127.0.0.1", port: link.port };
    const { output } = await countHere(path, address, { mapper1: mapper.address }, { silenceMs: LONG_MS });
    assert.equal(output, expected);
    assert.equal(announcements, 13);
    assert.equal(mapper.notes.filter((note) => note.startsWith("part 0: begun")).length, 1);
  });

  test("for longer: the master is told, and may give the part to others", async () => {
    const gone = await NodeHere.reducer();
    await gone.kill();
    await using mapper = await NodeHere.mapper();
    await using connection = await connect(mapper.address);
    using master = new Peer(connection, SILENCE_MS);
    connection.timeoutMs = LONG_MS;
    const reducerPort = gone.address.port;
    const job = { job: 1n, parts: 1, silenceMs: SILENCE_MS, reducerHost: "127.0.0.1", reducerPort };
    await master.send({ type: "job", ...job });
    await master.expect("ready");
    await master.send({ type: "part", part: 0, sizeBytes: 0n });
    const { outcome, reason } = await master.expect("partDone");
    assert.equal(outcome, "failed");
    assert.match(reason, /^cannot connect to /);
    assert.ok(mapper.notes.filter((note) => note.endsWith("; trying again")).length > 0);
  });
});

describe("reducers that are broken", { concurrency: 8 }, () => {
  /** A job with an honest mapper and this reducer. */
  async function countWith(script: Script): Promise<string> {
    await using reducer = await scripted(script);
    await using mapper = await NodeHere.mapper();
    const mappers = { mapper1: mapper.address, mapper2: mapper.address };
    return (await countHere(path, reducer.address, mappers, { silenceMs: SILENCE_MS })).output;
  }
  const ready = (master: Peer) => master.send({ type: "ready", role: "reducer" });

  const broken: [what: string, script: Script, message: RegExp][] = [
    [
      "goes",
      async (master) => {
        await ready(master);
        master.connection.reset();
      },
      /^lost the reducer at /,
    ],
    ["finishes early", ready, /^lost the reducer at .*: it finished instead of partState/],
    [
      "says nothing any more",
      async (master) => {
        await ready(master);
        master[Symbol.dispose]();
        await never();
      },
      /^lost the reducer at .*: the peer sent nothing for 3000 ms$/,
    ],
    [
      "ends the job before it has all parts",
      async (master) => {
        await ready(master);
        await master.send({ type: "jobDone", terms: 0, words: 0n, invalidBytes: 0n, longTerms: 0n });
        await never();
      },
      /^lost the reducer at .*: it ended the job before it had all parts$/,
    ],
    [
      "is a mapper",
      async (master) => {
        await master.send({ type: "ready", role: "mapper" });
        await never();
      },
      /^lost the reducer at .*: a mapper answers there$/,
    ],
  ];
  for (const [what, script, message] of broken)
    test(`a reducer that ${what}: the job fails`, async () => {
      await assert.rejects(within(countWith(script), "the end of the job"), { message });
    });

  test("a reducer that counts the second copy too: the comparison with the regular expression catches it", async () => {
    const total = new TermTable();
    let parts = 0;
    const twice = async (connection: Connection) => {
      const first = await firstMessage(connection);
      using peer = new Peer(connection, SILENCE_MS);
      if (first?.type === "announce") {
        await peer.send({ type: "grant" });
        for (;;) {
          const message = await peer.expect("result", "resultEnd");
          if (message.type === "resultEnd") break;
          addLines(total, message.lines);
        }
        parts++;
        await peer.send({ type: "received" });
        onBoth(parts === 2);
        return;
      }
      await ready(peer);
      await both;
      await peer.send({ type: "partState", part: 0, state: "received" });
      for (const lines of linesOf(total, await sorted(total))) await peer.send({ type: "result", lines });
      await peer.send({ type: "jobDone", terms: total.size, words: 0n, invalidBytes: 0n, longTerms: 0n });
      connection.timeoutMs = LONG_MS;
      await peer.next();
    };
    let onBoth: (isSo: boolean) => void = () => {};
    const both = new Promise<void>((resolve) => {
      onBoth = (isSo) => isSo && resolve();
    });
    await using reducer = await NodeHere.of(twice);
    await using one = await NodeHere.mapper();
    await using two = await NodeHere.mapper();
    const { output } = await countHere(path, reducer.address, { mapper1: one.address, mapper2: two.address });
    assert.notEqual(output, expected);
    assert.equal(output.split("\n").length, expected.split("\n").length, "all terms, each twice as often");
  });
});

/** A job whose one part a broken mapper gets; the honest one can be reached only when that has it. */
async function replaced(
  broken: (master: Peer, job: MessageOf<"job">, hasIt: () => void) => Promise<void>,
  options = {},
) {
  await using reducer = await NodeHere.reducer();
  await using honest = await NodeHere.mapper();
  let isCut = true;
  await using link = await tcpRelay(honest.address.port, (chunk) =>
    isCut ? { pieces: [], outcome: "reset" } : { pieces: [chunk] },
  );
  let isFirst = true;
  await using other = await scripted(async (master, job) => {
    if (!isFirst) return; // it does not come back
    isFirst = false;
    await broken(master, job, () => {
      isCut = false;
    });
  });
  const mappers: Record<string, Address> = {
    mapper1: other.address,
    mapper2: { host: "127.0.0.1", port: link.port },
  };
  const counted = await within(
    countHere(path, reducer.address, mappers, { copies: 1, silenceMs: SILENCE_MS, ...options }),
    "the end of the job",
  );
  assert.equal(counted.output, expected);
  return { ...counted, reducer: reducer.notes };
}
