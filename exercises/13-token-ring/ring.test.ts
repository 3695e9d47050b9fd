/** Rings of the real program over real sockets: how they start, carry, lose nodes, get them back, and end. */
import { strict as assert } from "node:assert";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { needs, Running, run, within } from "../../shared/testing.ts";
import { freePorts, LocalRing, loopback, nodeHere } from "./local-ring.ts";
import type { Line } from "./protocol.ts";
import { checkCalm, checkDeliveries, checkTurns } from "./ring-checks.ts";

/** What the specification promises, and what a busy machine may add. */
const MARGIN_MS = 3000;
const BYPASS_MS = 2000 + MARGIN_MS;
const NEW_TURN_MS = 5000 + MARGIN_MS;

const printedBy = (ring: LocalRing, id: number) =>
  ring
    .node(id)
    .stdout.split("\n")
    .filter((line) => line !== "" && !line.startsWith("listening"));
/** The exit codes of all that run. */
const endOf = (ring: LocalRing) =>
  within(
    Promise.all(ring.lives.map(async ({ running }) => (await running.exited).code)),
    "the end of the ring",
  );
const zeros = (count: number) => Array.from({ length: count }, () => 0);

describe("rings of the real program", { concurrency: 4 }, () => {
  test("nodes die, stop, leave and return: by-passed, replaced, taken back; two turns never", async (t) => {
    await using ring = await LocalRing.of([0, 1, 2, 3]);
    // Node 3 keeps an idle turn so long that one can tell who has it.
    const launch = (id: number) => ring.start(id, ["--idle-hold", id === 3 ? 300 : 5]);
    await Promise.all([0, 1, 2, 3].map(launch));
    await ring.node(0).output(/^made the turn/m, "stderr");
    const made = () =>
      ring.accounts.flatMap(({ id, notes }) => (notes.match(/^made the turn/gm) ?? []).map(() => id));

    /** What a fault does, and how many turns were made because of it: none or one. */
    async function fault(victim: number, signal: "SIGKILL" | "SIGSTOP"): Promise<number> {
      const [before, next] = [victim - 1, (victim + 1) % 4];
      const generation = made().length;
      await ring.note(3, /^turn /m);
      const startMs = performance.now();
      ring.node(victim).kill(signal);
      await ring.note(before, new RegExp(`^successor ${next}$`, "m"), BYPASS_MS);
      const bypassedMs = performance.now();
      await ring.note(0, /^turn /m, NEW_TURN_MS);
      const count = made().length - generation;
      t.diagnostic(
        `${signal} of node ${victim}: by-passed after ${Math.round(bypassedMs - startMs)} ms` +
          (count > 0 ? `, a new turn after ${Math.round(performance.now() - startMs)} ms` : ""),
      );
      const back = ring.note(before, new RegExp(`^successor ${victim}$`, "m"));
      if (signal === "SIGSTOP") ring.node(victim).kill("SIGCONT");
      else await launch(victim);
      await back;
      await ring.note(victim, new RegExp(`^turn generation=${generation + count} `, "m"));
      assert.deepEqual(new Set(made()), new Set([0]), "the smallest live id makes turns, no other");
      return count;
    }
    /** On a busy machine the turn may be elsewhere by the time that the signal arrives. */
    async function faultThatMakes(
      count: number,
      victim: number,
      signal: "SIGKILL" | "SIGSTOP",
    ): Promise<void> {
      for (let tries = 3; (await fault(victim, signal)) !== count; tries--) assert.ok(tries > 1);
    }

    await faultThatMakes(1, 3, "SIGKILL");
    await faultThatMakes(1, 3, "SIGSTOP");
    await faultThatMakes(0, 1, "SIGKILL");

    const generation = made().length;
    const bypassed = ring.note(1, /^successor 3$/m, BYPASS_MS);
    assert.equal(await ring.node(2).stop(), 0);
    await bypassed;
    await ring.note(0, new RegExp(`^turn generation=${generation} `, "m"));
    checkTurns(ring.accounts);
    ring.node(0).kill("SIGINT");
    const codes = await endOf(ring);
    assert.deepEqual(new Set(codes), new Set([0, null]), "the killed ones have none");
  });

  test("nodes leave a ring that turns as fast as it can, and return: the turn is never lost", async () => {
    await using ring = await LocalRing.of([0, 1, 2, 3]);
    const launch = (id: number) => ring.start(id, ["--idle-hold", 0]);
    await Promise.all([0, 1, 2, 3].map(launch));
    for (const leaver of [1, 2, 3, 1, 2, 3]) {
      await ring.note(leaver, /^turn /m);
      const bypassed = ring.note(leaver - 1, new RegExp(`^successor ${(leaver + 1) % 4}$`, "m"));
      assert.equal(await ring.node(leaver).stop(), 0);
      await bypassed;
      await ring.note(0, /^turn generation=1 /m);
      await launch(leaver);
    }
    await ring.note(3, /^turn generation=1 /m);
    ring.node(0).kill("SIGINT");
    await endOf(ring);
    checkCalm(ring.accounts);
  });

  test("Ctrl-C at node 0 while the turn is lost ends the ring all the same", async () => {
    await using ring = await LocalRing.of([0, 1, 2]);
    await Promise.all([0, 1, 2].map((id) => ring.start(id, ["--idle-hold", id === 2 ? 400 : 5])));
    await ring.note(2, /^turn /m);
    ring.node(2).kill("SIGKILL");
    ring.node(0).kill("SIGINT");
    await endOf(ring);
    assert.deepEqual(
      [0, 1, 2].map((id) => ring.node(id).child.exitCode),
      [0, 0, null],
    );
  });

  test("a node that waits for others says so", async () => {
    await using ring = await LocalRing.of([0, 1, 2]);
    const quiet = (id: number) => ring.start(id, id === 0 ? ["--finish-after-idle", 1] : [], [], false);
    await quiet(0);
    const port = ring.members.get(1)?.port;
    await ring
      .node(0)
      .output(
        new RegExp(`^waiting for station 1, which should be at 127\\.0\\.0\\.1:${port}$`, "m"),
        "stderr",
      );
    await quiet(1);
    await quiet(2);
    assert.deepEqual(await endOf(ring), zeros(3));
  });

  test("messages all the while: none arrives twice, none that was reported delivered is lost", async (t) => {
    const seed = Number(process.env["NETLAB_SEED"] ?? randomInt(2 ** 31));
    t.diagnostic(`NETLAB_SEED=${seed}`);
    let state = seed;
    const random = (below: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
      return (state >>> 8) % below;
    };
    await using ring = await LocalRing.of([0, 1, 2, 3]);
    let batch = 0;
    const launch = (id: number) => {
      batch++;
      const lines = Array.from({ length: 20_000 }, (_, i) => ({
        idDestination: random(4),
        text: `${batch}.${i}`,
      }));
      return ring.start(id, ["--hold-limit", 3], lines);
    };
    await Promise.all([0, 1, 2, 3].map(launch));
    await ring.note(3, /^turn /m);
    const goesOn = () => Promise.all([0, 1, 2, 3].map((id) => ring.note(id, /^turn [\s\S]*^turn /m)));
    for (const signal of ["SIGKILL", "SIGSTOP", "SIGKILL"] as const) {
      await goesOn();
      const victim = 1 + random(3);
      t.diagnostic(`${signal} of node ${victim}`);
      ring.node(victim).kill(signal);
      await ring.note(0, /^turn [\s\S]*^turn /m, NEW_TURN_MS);
      if (signal === "SIGSTOP") ring.node(victim).kill("SIGCONT");
      else await launch(victim);
    }
    await goesOn();
    ring.node(0).kill("SIGINT");
    await endOf(ring);
    const accounts = ring.accounts;
    checkDeliveries(accounts);
    checkTurns(accounts);
    const count = (pattern: RegExp) => accounts.flatMap(({ printed }) => printed.match(pattern) ?? []).length;
    t.diagnostic(`${count(/^delivered/gm)} delivered, ${count(/^unconfirmed/gm)} unconfirmed`);
    assert.ok(count(/^delivered/gm) > 100, "messages were going round");
    assert.ok(count(/^unconfirmed/gm) <= 20, "few are in doubt: the one that was out at a fault");
  });

  test(
    "a node in Python, written from the specification alone, lives in a ring of ours",
    needs("python3"),
    async () => {
      await using ring = await LocalRing.of([0, 1, 2, 3]);
      const text = `hola, 你好 😀 ${"ñ".repeat(100_000)}`;
      const fromTwo = [0, 1, 2, 3, 77].map((idDestination) => ({
        idDestination,
        text: `${text} ${idDestination}`,
      }));
      const script = join(import.meta.dirname, "node.py");
      await using python = new Running(
        "python3",
        [script, "--id", "2", "--config", ring.config, "--messages", await ring.messages(fromTwo)],
        { env: { PYTHONUTF8: "1" } },
      );
      await Promise.all([
        ring.start(0, ["--finish-after-idle", 100]),
        ring.start(1, [], [{ idDestination: 2, text: "to Python" }]),
        ring.start(3, [], [{ idDestination: 2, text: "to Python, too" }]),
      ]);
      await python.output(/undelivered/);
      const malformed = connect({ port: ring.members.get(2)?.port ?? 0, host: "127.0.0.1" });
      const bytes = Buffer.from(
        "0000000000000002600000000130" + "000000000000000280000000063120302031" + "0a",
        "hex",
      );
      malformed.on("error", () => {}).write(bytes);
      await within(once(malformed.resume(), "close"), "the end of a link with a turn that ends in a newline");
      await ring.note(0, /^turn /m);
      ring.node(3).kill("SIGKILL"); // Python's successor
      await python.output(/^successor 0$/m, "stderr", BYPASS_MS);
      assert.deepEqual(
        [(await within(python.exited, "Python's end")).code, await ring.node(0).exited],
        [0, { code: 0, signal: null }],
      );
      const accounts = [...ring.accounts, { id: 2, printed: python.stdout, notes: python.stderr }];
      checkDeliveries(accounts);
      checkTurns(accounts);
      assert.deepEqual(
        python.stdout.match(/^(?:un)?(?:delivered|received|confirmed|sent) (?:from|to) \d+/gm)?.toSorted(),
        [
          "delivered to 0",
          "delivered to 1",
          "delivered to 2",
          "delivered to 3",
          "received from 1",
          "received from 2",
          "received from 3",
          "undelivered to 77",
        ],
      );
      assert.ok(ring.node(1).stdout.includes(`\nreceived from 2: ${text} 1\n`));
    },
  );

  test("a ring of four: whatever the order of start they wait for each other; every kind of text arrives as it was", async () => {
    await using ring = await LocalRing.of([0, 1, 2, 3]);
    const long = "Ñandú, 你好, 😀! ".repeat(45_000).slice(0, 500_000);
    const longest = long + "x".repeat(1024 * 1024 - Buffer.byteLength(long));
    const control = "\u001b[2J\u001b]0;title\u0007 \u0000 \r \u009b31m \u202e \u007f end";
    const fromThree: Line[] = [
      { idDestination: 1, text: longest },
      { idDestination: 0, text: control },
      { idDestination: 3, text: "" },
      { idDestination: 9, text: "nobody" },
    ];
    await Promise.all([
      ring.start(3, [], fromThree),
      ring.start(1, [], [{ idDestination: 2, text: "uno" }]),
      ring.start(0, ["--finish-after-idle", 2], [{ idDestination: 3, text: "cero" }]),
    ]);
    await ring.node(0).output(/claimed the turn[\s\S]*claimed the turn/, "stderr");
    const early = ring.accounts.map(({ notes }) => notes);
    assert.doesNotMatch(early.join(), /turn generation/, "no turn before the ring is complete");
    await ring.start(2);
    assert.deepEqual(await endOf(ring), zeros(4));
    assert.deepEqual(printedBy(ring, 0), [
      "delivered to 3: cero",
      "received from 3: \\x1b[2J\\x1b]0;title\\x07 \\x00 \\x0d \\x9b31m \\u{202e} \\x7f end",
    ]);
    assert.deepEqual(printedBy(ring, 1), ["delivered to 2: uno", `received from 3: ${longest}`]);
    assert.deepEqual(printedBy(ring, 2), ["received from 1: uno"]);
    assert.deepEqual(
      printedBy(ring, 3).map((line) => line.slice(0, 41)),
      [
        "received from 0: cero",
        `delivered to 1: ${longest}`.slice(0, 41),
        "delivered to 0: \\x1b[2J\\x1b]0;title\\x07 \\",
        "received from 3: ",
        "delivered to 3: ",
        "undelivered to 9: nobody (nobody took it)",
      ],
    );
    checkTurns(ring.accounts);
    assert.doesNotMatch(ring.accounts.map(({ notes }) => notes).join(), /again|removed/);
  });

  test("a ring of one: a message to itself arrives, one to another id does not, and it ends", async () => {
    await using ring = await LocalRing.of([0]);
    const toSend = [
      { idDestination: 0, text: "to myself" },
      { idDestination: 1, text: "to nobody" },
    ];
    const running = await ring.start(0, ["--finish-after-idle", 2, "--port", 0], toSend);
    assert.ok(running.port > 0, "any free one, instead of the configuration's");
    assert.deepEqual(await endOf(ring), [0]);
    assert.deepEqual(printedBy(ring, 0), [
      "received from 0: to myself",
      "delivered to 0: to myself",
      "undelivered to 1: to nobody (nobody took it)",
    ]);
    checkTurns(ring.accounts);
  });

  test("a ring of two, whose ids are the first and the last there are, under the assignment's spelling", async () => {
    const last = 4294967295;
    await using ring = await LocalRing.of([0, last]);
    const [one, other] = [...ring.members.values()];
    const messages = await ring.messages([{ idDestination: 0, text: "hola" }]);
    const running = await ring.start(last, ["--id_dst", 0, "--messages", messages]);
    assert.deepEqual(running.urls, [`tcp://127.0.0.1:${other?.port}`]);
    await ring.start(0, ["--finish-after-idle", 1, "--port", one?.port ?? 0]);
    assert.deepEqual(await endOf(ring), [0, 0]);
    assert.deepEqual(printedBy(ring, 0), [`received from ${last}: hola`]);
    assert.deepEqual(printedBy(ring, last), ["delivered to 0: hola"]);
    checkCalm(ring.accounts);
  });

  test("a ring of 64, in one process: every message arrives once and all end", async (t) => {
    const ids = Array.from({ length: 64 }, (_, id) => id);
    const members = loopback(ids, await freePorts(64));
    const destinations = (id: number) => [id, (id + 1) % 64, (id + 63) % 64, (id * 7) % 64];
    const startMs = performance.now();
    const nodes = ids.map((id) =>
      nodeHere({
        id,
        members,
        lines: destinations(id).map((idDestination, i) => ({ idDestination, text: `${id}.${i}` })),
        holdLimit: 3,
        finishAfterIdle: id === 0 ? 1 : undefined,
      }),
    );
    await within(Promise.all(nodes.map(({ ended }) => ended)), "the end of the ring", 90_000);
    t.diagnostic(`${Math.round(performance.now() - startMs)} ms`);
    // On a busy machine a round takes longer than a message waits: it is sent again, and must still arrive once.
    const accounts = nodes.map(({ account }) => account);
    checkDeliveries(accounts);
    checkTurns(accounts);
    const received = accounts.flatMap(({ printed }) => printed.match(/^received/gm) ?? []);
    assert.equal(received.length, 64 * 4);
  });

  describe("what is wrong on the command line or in a file is said, with exit code 2", {
    concurrency: 2,
  }, () => {
    const node = (...args: (string | number)[]) => run("exercises/13-token-ring/node.ts", args);
    const refused = async (args: (string | number)[], complaint: RegExp) => {
      const { code, stdout, stderr } = await node(...args);
      assert.match(stderr, complaint);
      assert.deepEqual([code, stdout, stderr.trim().split("\n").length], [2, "", 1]);
    };
    async function withFiles(
      files: Record<string, string>,
      use: (path: (name: string) => string) => Promise<void>,
    ) {
      const folder = await mkdtemp(join(tmpdir(), "netlab-ring-"));
      for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), content);
      await use((name) => join(folder, name));
      await rm(folder, { recursive: true });
    }

    test("the configuration", () =>
      withFiles(
        {
          "two.ini": "[node0]\n[nodo1]\nport = 9\n",
          "port.ini": "[node0]\n\n[node1]\nport = 0\n",
          "name.ini": "[node0]\n[nodex]\n",
          "twice.ini": "[node1]\n[nodo1]\n",
          "same.ini": "[node0]\nport = 9\n[node1]\n[node2]\nport = 9\n",
          "large.ini": "[node0]\n[node54236]\n",
        },
        async (path) => {
          await refused(["--id", 5, "--config", path("two.ini")], /^error: .*two\.ini: has no \[node5\]$/m);
          await refused(
            ["--id", 0, "--id-dst", 7, "--config", path("two.ini")],
            /two\.ini: has no \[node7\], the successor of node 0$/m,
          );
          await refused(
            ["--id", 0, "--config", path("port.ini")],
            /port\.ini:4: \[node1\] port "0" is not a port \(1 to 65535\)/,
          );
          await refused(["--id", 0, "--config", path("name.ini")], /name\.ini:2: \[nodex\] is not \[node0\]/);
          await refused(
            ["--id", 1, "--config", path("twice.ini")],
            /twice\.ini:2: \[nodo1\] is node 1 a second time/,
          );
          await refused(
            ["--id", 1, "--config", path("same.ini")],
            /same\.ini:4: \[node2\] has the address of node 0, 127\.0\.0\.1:9$/m,
          );
          await refused(
            ["--id", 0, "--config", path("large.ini")],
            /large\.ini:2: \[node54236\] port is missing/,
          );
          await refused(
            ["--id", 1, "--config", path("none.ini")],
            /none\.ini: no such file or directory \(ENOENT\)/,
          );
        },
      ));

    test("the messages, by line", () =>
      withFiles({ "bad.txt": "1 fine\n# fine\n\nto nobody\n", "latin1.txt": "" }, async (path) => {
        await writeFile(path("latin1.txt"), Buffer.from("1 a\xf1o\n", "latin1"));
        const messages = (name: string) => ["--id", 0, "--messages", path(name)];
        await refused(
          messages("bad.txt"),
          /^error: cannot read the messages of .*bad\.txt: line 4: must be a destination/,
        );
        await refused(messages("latin1.txt"), /latin1\.txt: is not UTF-8/);
      }));

    test("the settings", async () => {
      await refused([], /--id is missing/);
      await refused(["--id", 1, "--finish-after-idle", 3], /--finish-after-idle is for node 0 only/);
      await refused(
        ["--id", 1, "--idle-hold", 400],
        /--idle-hold 400 makes 4 nodes take an idle turn for lost/,
      );
    });

    test("a port that is taken: exit code 1", async () => {
      const taken = createServer().listen(0, "127.0.0.1");
      await once(taken, "listening");
      const { port } = taken.address() as AddressInfo;
      const { code, stderr } = await node("--id", 0, "--port", port);
      taken.close();
      assert.match(
        stderr,
        /^error: cannot listen on 127\.0\.0\.1:\d+: address already in use \(EADDRINUSE\)/,
      );
      assert.equal(code, 1);
    });
  });
});
