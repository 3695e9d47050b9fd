/** The real programs: a job from file to file, the streaming pair as Hadoop calls it, deaths, and peers that talk nonsense. */
import { strict as assert } from "node:assert";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { connect as connectSocket, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { freePort } from "../../shared/free-port.ts";
import { encode } from "../../shared/pdu.ts";
import { needs, Running, run, runTool, start, within, writeSplit } from "../../shared/testing.ts";
import { readNodes } from "./configuration.ts";
import { HERE, LocalCluster } from "./local-cluster.ts";
import { countHere } from "./nodes-here.ts";
import { countedIn } from "./oracle.ts";
import { Message } from "./protocol.ts";
import { gatheredText, sampleText } from "./sample-text.ts";

const ROOT = join(import.meta.dirname, "../..");
let cluster: LocalCluster;
let path = "";
let expected = "";
before(async () => {
  cluster = await LocalCluster.of({ mappers: 2, args: ["--verbose"] });
  path = cluster.file("text.txt");
  await writeFile(path, gatheredText(1_000_000).bytes);
  expected = countedIn(await readFile(path));
});
after(() => cluster[Symbol.asyncDispose]());

/** No test here is about silence, and on a busy machine there may be a lot of it. */
const PATIENCE_MS = 60_000;
const PATIENT = ["--silence", PATIENCE_MS] as const;

/** A whole job of master.ts. */
async function master(out: string) {
  const running = await cluster.master(path, out, PATIENT);
  const { code } = await within(running.exited, "the master's end", 60_000);
  return { code, stderr: running.stderr, stdout: running.stdout };
}
/** A job of a master in this process, on the same nodes. */
async function outputOf(text: string): Promise<string> {
  const mappers = { mapper1: cluster.address("mapper1"), mapper2: cluster.address("mapper2") };
  return (await countHere(text, cluster.address("reducer"), mappers, { silenceMs: PATIENCE_MS })).output;
}
const leftOvers = (of = "") =>
  readdirSync(cluster.folder).filter((file) => file.startsWith(of) && file.endsWith(".part"));

describe("master.ts", () => {
  test("counts a file into a file, and says how much it was", async () => {
    const out = cluster.file("counted.txt");
    const { code, stderr, stdout } = await master(out);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^\d+ words, \d+ distinct terms, in .*counted\.txt after \d+\.\d s\n$/);
    assert.equal(stdout, "");
    assert.equal(await readFile(out, "utf8"), expected);
    assert.deepEqual(leftOvers(), []);
  });

  const tools = needs("grep", "sed", "sort", "uniq", "awk");
  test("its output is what the system's own tools make of the text", tools, async (t) => {
    const ascii = cluster.file("ascii.txt");
    const text = sampleText(500_000).bytes.toString();
    await writeFile(ascii, text.normalize("NFD").replace(/[^\n -~]/g, ""));
    const pipeline =
      "tr -cs 'A-Za-z0-9' '\\n' < \"$0\" | tr A-Z a-z | sed '/^$/d' | sort | uniq -c | sort -k1,1nr -k2,2 | awk '{ print $2 \"\\t\" $1 }'";
    const { stdout } = await runTool("env", ["LC_ALL=C", "sh", "-c", pipeline, ascii]);
    t.diagnostic(`${stdout.length} bytes`);
    assert.ok(stdout.length > 10_000);
    assert.equal(await outputOf(ascii), stdout);
  });

  test("what cannot be read or written is said before anything is counted, and nothing is left over", async () => {
    const folder = cluster.file("folder");
    await mkdir(folder);
    const device = cluster.file("device");
    await symlink("/dev/null", device);
    const cases = [
      [
        [cluster.file("nowhere.txt"), "out"],
        /^error: cannot read .*nowhere\.txt: no such file or directory \(ENOENT\)\n$/,
      ],
      [[folder, "out"], /^error: cannot read .*folder: it is not a file/],
      [[path, folder], /^error: cannot write .*folder: it is a directory\n$/],
      [[path, path], /^error: cannot write .*text\.txt: it is the text itself\n$/],
      [[path, device], /^error: cannot write .*device: it is no file that could be replaced\n$/],
    ] as const;
    await Promise.all(
      cases.map(async ([args, message]) => {
        const { code, stderr } = await run(`${HERE}/master.ts`, [...args, "--config", cluster.config]);
        assert.equal(code, 1);
        assert.match(stderr, message);
      }),
    );
    assert.deepEqual(leftOvers(), []);
  });

  test("a configuration that is wrong is usage, exit code 2, with its line", async () => {
    const config = cluster.file("wrong.ini");
    for (const [content, message] of [
      ["[reducer]\n", /has no mapper; add a section \[mapper1\]$/],
      ["[reducer]\n[mapper]\n", /wrong\.ini:2: \[mapper\] is not \[reducer\], \[mapper1\]/],
      [
        "[reducer]\n[mapper1]\nport = 11400\n",
        /wrong\.ini:2: \[mapper1\] has the address of \[reducer\], 127\.0\.0\.1:11400$/,
      ],
      ["[reducer]\n[mapper1]\nport = 0\n", /wrong\.ini:3: \[mapper1\] port "0" is not a port/],
      ["[mapper1]\n", /wrong\.ini: has no \[reducer\]$/],
    ] as const) {
      await writeFile(config, content);
      assert.throws(() => readNodes(config), { name: "UsageError", message });
    }
    const { code, stderr } = await run(`${HERE}/master.ts`, [path, cluster.file("out"), "--config", config]);
    assert.deepEqual([code, stderr], [2, `error: ${config}: has no [reducer]\n`]);
  });
});

/** Waits until a node says so on stderr, after what it has said. */
async function willSay(name: string, what: string, act: () => unknown): Promise<void> {
  const { length } = cluster.node(name).stderr;
  await act();
  await cluster.node(name).output(new RegExp(`^[^]{${length}}[^]*?${what}`), "stderr");
}
const MAPPERS = ["mapper1", "mapper2"] as const;
const toMappers = (signal: NodeJS.Signals) => {
  for (const name of MAPPERS) cluster.node(name).kill(signal);
};

/** A job that the reducer has begun, and that cannot end as both mappers are stopped. */
async function jobUnderWay(out: string): Promise<Running> {
  toMappers("SIGSTOP");
  let job: Running | undefined;
  await willSay("reducer", "job [0-9a-f]+: begun", async () => {
    job = await cluster.master(path, out, PATIENT);
  });
  return job as Running;
}

describe("deaths", () => {
  test("of the reducer in a job: the master says so, no output; mappers and a new reducer serve the next", async () => {
    const out = cluster.file("unborn.txt");
    const job = await jobUnderWay(out);
    cluster.node("reducer").kill("SIGKILL");
    const { code } = await within(job.exited, "the master's end");
    assert.equal(code, 1);
    assert.match(job.stderr, /^error: lost the reducer at 127\.0\.0\.1:\d+: /m);
    assert.ok(!existsSync(out));
    assert.deepEqual(leftOvers(), []);
    toMappers("SIGCONT");
    await cluster.start("reducer");
    await countsStill();
  });

  test("of the master in a job, when its part is being counted: the others drop it and serve the next", async () => {
    const out = cluster.file("orphaned.txt");
    const job = await jobUnderWay(out);
    const reducer = cluster.node("reducer");
    reducer.kill("SIGSTOP"); // so that no result is taken
    await willSay("mapper2", "part 0: begun", () => toMappers("SIGCONT"));
    job.kill("SIGKILL");
    await job.exited;
    await willSay("reducer", "(?:its master has left|the peer reset the connection)", () =>
      reducer.kill("SIGCONT"),
    );
    assert.ok(!existsSync(out));
    await countsStill();
  });

  test("Ctrl-C at the master ends the job: no output, exit code 0", async () => {
    const out = cluster.file("interrupted.txt");
    const job = await jobUnderWay(out);
    job.kill("SIGINT");
    assert.equal((await within(job.exited, "the master's end")).code, 0);
    assert.ok(!existsSync(out));
    toMappers("SIGCONT");
  });

  test("of room on the disk, in the last piece of the output: the master says so, and there is none", async () => {
    const [from, out] = [cluster.file("terms.txt"), cluster.file("cut-off.txt")];
    await writeFile(from, Array.from({ length: 4000 }, (_, i) => `term${i} `).join(""));
    const args = [join(ROOT, HERE, "master.ts"), from, out, "--config", cluster.config, ...PATIENT];
    const limited = "trap '' XFSZ; ulimit -f 16; exec \"$@\"";
    const node = [process.execPath, "--import", import.meta.resolve("tsx")];
    const { code, stderr } = await runTool("sh", ["-c", limited, "sh", ...node, ...args.map(String)]);
    assert.equal(code, 1, stderr);
    assert.match(stderr, /^error: cannot write the output: .*EFBIG/);
    assert.ok(!existsSync(out));
    assert.deepEqual(leftOvers("cut-off"), []);
  });
});

/** The nodes have outlived what was before. */
async function countsStill(): Promise<void> {
  assert.equal(await outputOf(path), expected);
}

describe("the streaming pair", () => {
  test("as Hadoop Streaming calls it: mappers over splits, partitioned and sorted input to several reducers", async () => {
    const REDUCERS = 2;
    const lines = readFileSync(path, "utf8").split("\n");
    const splits = [0, 1].map((i) =>
      lines
        .slice((lines.length * i) / 2, (lines.length * (i + 1)) / 2)
        .map((line) => `${line}\n`)
        .join(""),
    );
    const mapped = await Promise.all(splits.map((stdin) => run(`${HERE}/map.ts`, [], { stdin })));
    assert.deepEqual(
      mapped.map(({ code, stderr }) => [code, stderr]),
      [
        [0, ""],
        [0, ""],
      ],
    );
    const pairs = mapped.flatMap(({ stdout }) => stdout.split("\n").slice(0, -1));
    const partitions = Array.from({ length: REDUCERS }, () => [] as string[]);
    for (const pair of pairs) {
      const [term = ""] = pair.split("\t");
      partitions[[...term].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % REDUCERS]?.push(
        `${pair}\n`,
      );
    }
    const reduced = await Promise.all(
      partitions.map((pairs) => run(`${HERE}/reduce.ts`, [], { stdin: pairs.sort().join("") })),
    );
    const rows = (text: string) => text.split("\n").slice(0, -1).sort();
    assert.deepEqual(rows(reduced.map(({ stdout }) => stdout).join("")), rows(expected));
    for (const { stdout } of reduced) {
      const counts =
        rows(stdout).length > 1
          ? stdout
              .split("\n")
              .slice(0, -1)
              .map((line) => Number(line.split("\t")[1]))
          : [];
      assert.deepEqual(
        counts,
        counts.toSorted((a, b) => b - a),
        "the most frequent first",
      );
    }
  });

  test("map < text | sort | reduce, as a shell runs it, is what the nodes make of it; what is no UTF-8 is said", async () => {
    const text = Buffer.concat([await readFile(path), Buffer.from("ca\xf1\xf3n", "latin1")]);
    const node = `'${process.execPath}' --import '${import.meta.resolve("tsx")}'`;
    const pipeline = `${node} ${ROOT}/${HERE}/map.ts | sort | ${node} ${ROOT}/${HERE}/reduce.ts`;
    const [piped, wrong] = await Promise.all([
      runTool("sh", ["-c", pipeline], text),
      run(`${HERE}/reduce.ts`, [], { stdin: "a\t1\nb 2\n" }),
    ]);
    assert.equal(piped.stderr, "warning: bytes that are not UTF-8 were taken for separators: 2\n");
    assert.equal(piped.stdout, countedIn(text));
    assert.deepEqual([wrong.code, wrong.stdout], [1, ""]);
    assert.equal(wrong.stderr, 'error: not a term, a tab and a count: "b 2"\n');
  });
});

describe("peers that talk nonsense to a mapper or the reducer", () => {
  const ends = ["mapper1", "reducer"] as const;
  async function peer(name: string): Promise<Socket> {
    const socket = connectSocket(cluster.address(name));
    socket.on("error", () => {});
    await once(socket, "connect");
    return socket;
  }
  const job = (change: Partial<{ parts: number; silenceMs: number }> = {}) =>
    encode(Message, {
      type: "job",
      job: 99n,
      parts: 1,
      silenceMs: 30_000,
      reducerHost: "127.0.0.1",
      reducerPort: cluster.address("reducer").port,
      ...change,
    });
  const of = (message: Message) => encode(Message, message);

  /** Sends the bytes. The node says why in one line, closes, and goes on serving. */
  async function costs(name: string, bytes: Buffer, reason: RegExp): Promise<void> {
    const socket = await peer(name);
    const from = `127\\.0\\.0\\.1:${socket.localPort}`;
    socket.resume().write(bytes);
    const [, line = ""] = await cluster.node(name).output(new RegExp(`^${from}: (.*)\\n`, "m"), "stderr");
    assert.match(line, reason);
    if (!socket.closed) await within(once(socket, "close"), "the connection's end");
  }

  test("each costs its own connection and one line", async () => {
    for (const name of ends) {
      await costs(name, Buffer.from("GET / HTTP/1.1\r\n\r\n"), /^NLMR\.type at byte 0: unknown code 71$/);
      await costs(name, Buffer.from(`01${"00".repeat(40)}`, "hex"), /^NLMR\.job\.magic/);
      await costs(name, of({ type: "grant" }), /^a message grant came first$/);
      await costs(name, job({ parts: 0 }), /^a job without parts$/);
      await costs(name, job({ silenceMs: 1 }), /^a silence of 1 ms; it must be from 300 to 600000$/);
      await costs(
        name,
        Buffer.concat([job(), of({ type: "received" })]),
        /^a message received came from a master$/,
      );
      await costs(name, Buffer.concat([job(), of({ type: "error", reason: "no" })]), /^it says: no$/);
    }
    const announce = of({ type: "announce", job: 1n, part: 0 });
    await costs("mapper1", announce, /^this is a mapper: only masters connect to it$/);
    const part = of({ type: "part", part: 0, sizeBytes: 5n });
    const chunk = of({ type: "chunk", data: Buffer.from("too long") });
    await costs("mapper1", Buffer.concat([job(), part, chunk]), /^more came than the part has$/);
    await costs("mapper1", Buffer.concat([job(), chunk]), /^more came than the part has$/);
    await costs("mapper1", Buffer.concat([job(), part, part]), /^a part came before the last was done$/);
    await costs(
      "mapper1",
      Buffer.concat([job(), of({ type: "part", part: 1, sizeBytes: 5n })]),
      /^part 1 of 1$/,
    );
  });

  test("a job in single bytes; a second one of the same number; a part that there is not", async () => {
    const first = await peer("reducer");
    await writeSplit(first, job());
    const [ready] = (await once(first, "data")) as [Buffer];
    assert.equal(ready.subarray(0, 2).toString("hex"), "0202");
    await costs("reducer", job(), /^there is a job of that number already$/);
    await costs("reducer", of({ type: "announce", job: 99n, part: 7 }), /^part 7 of 1$/);
    first.destroy();
  });

  test("cut at every byte of a message: a line each, and the job after it is counted", async () => {
    const bytes = job();
    for (const name of ends)
      for (let size = 1; size < bytes.length; size += 3) {
        const socket = await peer(name);
        const from = `127\\.0\\.0\\.1:${socket.localPort}`;
        socket.resume().end(bytes.subarray(0, size));
        await cluster
          .node(name)
          .output(
            new RegExp(`^${from}: the peer finished in the middle of a PDU, after ${size} bytes\\n`, "m"),
            "stderr",
          );
      }
    const crowd = await Promise.all(Array.from({ length: 500 }, (_, i) => peer(ends[i % 2] ?? "reducer")));
    await countsStill();
    for (const socket of crowd) socket.destroy();
  });
});

test("mapper.ts refuses two different HOST PORT", async () => {
  const { code, stderr } = await run(`${HERE}/mapper.ts`, ["127.0.0.1", 11401, "--port", 11402]);
  assert.deepEqual([code, stderr], [2, "error: HOST and PORT are given twice, and differently\n"]);
});

test("reducer.ts listens where its section says", async () => {
  const config = cluster.file("reducer.ini");
  const port = await freePort();
  await writeFile(config, `[reducer]\nport = ${port}\n[mapper1]\n`);
  await using running = await start(`${HERE}/reducer.ts`, ["--config", config]);
  assert.equal(running.urls[0], `tcp://127.0.0.1:${port}`);
});

test("on a terminal the master shows a bar for each part", needs("script"), async () => {
  const command = `'${process.execPath}' --import '${import.meta.resolve("tsx")}' ${HERE}/master.ts '${path}' '${cluster.file("tty.txt")}' --config '${cluster.config}' ${PATIENT.join(" ")}`;
  await using running = new Running("script", ["-qec", command, "/dev/null"], {});
  const { code } = await within(running.exited, "the master's end", 60_000);
  assert.equal(code, 0, running.stdout);
  assert.match(running.stdout, /part 0 .*100% of \d\.\d MB \| received/);
});

test("nodes stop on SIGTERM, with exit code 0", async () => {
  assert.deepEqual(await Promise.all(cluster.names.map((name) => cluster.node(name).stop())), [0, 0, 0]);
});
