/** Lists of hosts, the campaign's file, the table and the charts: all that needs no network. */
import { strict as assert } from "node:assert";
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { chartsOf } from "./charts.ts";
import { appendRows, openCsv, rowsOf } from "./csv-file.ts";
import { fitted } from "./live.ts";
import { Stream } from "./measurement.ts";
import { answered, failed, type Prober, type Result } from "./probing.ts";
import { aligned, formatMs, jsonOf, tableOf } from "./report.ts";
import { parseHosts, targetsOf } from "./targets.ts";

const folder = mkdtempSync(join(tmpdir(), "netlab-rtt-"));
after(() => rmSync(folder, { recursive: true }));

describe("a list of hosts", () => {
  const parse = (text: string) =>
    parseHosts(text, "hosts.txt").map(({ host, port }) => `${host}${port === undefined ? "" : ` ${port}`}`);

  test("is separated by ; or by line ends, with the port behind the host one way or the other", () => {
    assert.deepEqual(parse("192.0.2.1;192.0.2.2;localhost"), ["192.0.2.1", "192.0.2.2", "localhost"]);
    assert.deepEqual(parse("192.0.2.1;53;192.0.2.2:54\nlocalhost ; 55;\r\n\n"), [
      "192.0.2.1 53",
      "192.0.2.2 54",
      "localhost 55",
    ]);
    assert.deepEqual(parse("# all\n::1;[::1]:53;::2;54 # some\n"), ["::1", "::1 53", "::2 54"]);
    assert.deepEqual(parse(" ;;\n#\n"), []);
  });

  test("complains with file and line", () => {
    const complaint = { name: "UsageError", message: 'hosts.txt:2: "b:x" is not a port (0 to 65535)' };
    assert.throws(() => parse("a\nb:x"), complaint);
    assert.throws(() => parse("a;70000"), { message: /^hosts.txt:1: "70000" is not a port/ });
    assert.throws(() => parse("a b"), { message: /is not a host name or address/ });
  });

  test("costs a line for each that cannot be measured, and each is measured once", async () => {
    const lines: string[] = [];
    const hosts = ["127.0.0.1", "127.0.0.1:7", "127.0.0.1:0", "::1"].flatMap((text) => parseHosts(text, ""));
    const targets = await targetsOf(hosts, 7, (line) => lines.push(line));
    assert.deepEqual(
      targets.map(({ name, address }) => `${name} ${address}`),
      ["127.0.0.1:7 127.0.0.1", "[::1]:7 ::1"],
    );
    assert.deepEqual(lines, ["cannot measure 127.0.0.1:0: nobody answers at port 0; name another"]);
  });
});

test("what comes after the time-out is lost, also where this program alone was late to see it", () => {
  assert.deepEqual(answered(5, 100, 100), { outcome: "received", sentAtMs: 5, rttMs: 100 });
  assert.deepEqual(answered(5, 100.1, 100), { outcome: "lost", sentAtMs: 5, rttMs: Infinity });
  const error = Object.assign(new Error(), { code: "ECONNREFUSED" });
  assert.equal(failed(error, 5, 100, 100).outcome, "refused");
  assert.equal(failed(error, 5, 100.1, 100).outcome, "lost");
  assert.equal(failed(Object.assign(new Error(), { code: "EHOSTUNREACH" }), 5, 1, 100).outcome, "lost");
});

/** A stream whose probes, one a millisecond, had this fate. */
async function streamOf(name: string, fates: readonly Omit<Result, "sentAtMs">[]): Promise<Stream> {
  const prober: Prober = {
    strays: { late: 1, repeated: 0, unknown: 0 },
    send: (sequence, done) =>
      done({ sentAtMs: 1000 + sequence, ...(fates[sequence] ?? { outcome: "unsent", rttMs: Infinity }) }),
    close() {},
  };
  const stream = new Stream({ name, address: "192.0.2.1", port: 7 }, "udp", prober, () => {});
  const now = performance.now();
  await stream.run(
    [...fates.keys()].map((i) => now - fates.length + i).values(),
    1e9, // none is too late, however busy the machine is
    new AbortController().signal,
  );
  return stream;
}
const received = (rttMs: number) => ({ outcome: "received" as const, rttMs });
const FATES = [
  received(2),
  { outcome: "lost" as const, rttMs: Infinity },
  { outcome: "refused" as const, rttMs: 1 },
  received(4),
  { outcome: "unsent" as const, rttMs: Infinity },
];
const plan = {
  ...{ targets: [], transports: ["udp" as const], seconds: 1, intervalMs: 200, timeoutMs: 500 },
  ...{
    sampling: "periodic" as const,
    probe: { idBits: 1, request: () => Buffer.alloc(0), answered: () => 0n },
  },
};
const quality = { clockResolutionMs: 0.0001, own: { udp: { medianMs: 0.125, p95Ms: 0.25 } } };
const beginning = { begunAt: new Date(0), begunMs: 750 };

describe("the report", () => {
  test("has the refused and the unsent apart, and the lost as infinite", async () => {
    const streams = [await streamOf("a:7", FATES)];
    const text = tableOf({ plan, streams, quality, ...beginning });
    assert.match(text, /^a:7 +udp +4 +2 +1 +1 +2\.000 +4\.000 +3\.000 +∞ +4\.000 +-$/m);
    assert.match(text, /too long by at most about 0\.125 \(udp\) ms at median and 0\.250 \(udp\) ms at p95,/);
    assert.match(text, /^a:7 udp: 1 could not be sent; 1 replies came too late$/m);
    const { results } = JSON.parse(jsonOf({ plan, streams, quality, ...beginning }));
    const [{ meanLatenessMs, ...result }] = results;
    assert.ok(meanLatenessMs > 0);
    assert.deepEqual(result, {
      ...{ host: "a:7", address: "192.0.2.1", port: 7, transport: "udp" },
      ...{ sent: 4, received: 2, lost: 1, refused: 1, unsent: 1, skipped: 0 },
      ...{ minMs: 2, meanMs: 3, maxMs: 4, medianMs: 4, p95Ms: null, jitterMs: null },
      ...{ clockResolutionMs: 0.0001, ownDelayMs: 0.125, ownDelayP95Ms: 0.25 },
      ...{ lateReplies: 1, repeatedReplies: 0, unknownDatagrams: 0 },
    });
  });

  test("writes times with as many digits as mean something", () => {
    const texts = [0.04217, 42.1749, 421.749, 4217.49, NaN, Infinity].map(formatMs);
    assert.deepEqual(texts, ["0.042", "42.175", "421.75", "4217.5", "-", "∞"]);
    assert.deepEqual(
      aligned(
        [
          ["a", "b"],
          ["cc", "1000"],
        ],
        1,
      ),
      ["a      b", "cc  1000"],
    );
  });

  test("is cut to what a terminal can show", () => {
    const lines = Array.from({ length: 10 }, (_, i) => `${i}`.repeat(30));
    assert.deepEqual(
      fitted(lines, 11, 5),
      ["0", "1", "2"].map((digit) => digit.repeat(10)).concat("… 7 more"),
    );
    assert.deepEqual(fitted(["abc"], 80, 24), ["abc"]);
  });
});

describe("the charts", () => {
  test("have a gap for a lost probe, and a distribution that does not reach 1", async () => {
    const [overTime, shares] = chartsOf([await streamOf("a:7", FATES), await streamOf("b:7", [received(3)])]);
    assert.deepEqual(overTime?.series[0]?.points, [
      [0, 2],
      [0.001, null],
      [0.003, 4],
    ]);
    const third = 1 / 3;
    assert.deepEqual(shares?.series[0]?.points, [
      [2, 0],
      [2, third],
      [4, 2 * third],
    ]);
    assert.deepEqual(
      [overTime?.y.name, shares?.x.name, overTime?.y.scale],
      ["RTT (ms)", "RTT (ms)", undefined],
    );
  });

  test("are logarithmic where the times lie far apart, and show no more than can be told apart", async () => {
    const far = await streamOf("far:7", [received(0.1), received(40)]);
    const [overTime, shares] = chartsOf(Array.from({ length: 12 }, () => far));
    assert.deepEqual([overTime?.y.scale, shares?.x.scale, shares?.y.scale], ["log", "log", undefined]);
    assert.equal(overTime?.series.length, 8);
  });
});

describe("the campaign's file", () => {
  const COLUMNS = "measurement,sent_at,host,address,port,transport,outcome,rtt_ms\n";
  let files = 0;
  const path = () => join(folder, `${files++}.csv`);
  const opened = (file: string) => {
    const lines: string[] = [];
    openCsv(file, (line) => lines.push(line));
    return lines;
  };

  test("has a line for each probe of all streams, in the order of sending", async () => {
    const rows = rowsOf([await streamOf("a:7", FATES), await streamOf("b:7", FATES)], beginning);
    const cells = rows.map((row) => row.split(","));
    assert.equal(rows.length, 10);
    assert.deepEqual(
      cells.slice(0, 4).map((row) => [row[2], row[6], row[7]]),
      [
        ["a:7", "received", "2.0000"],
        ["b:7", "received", "2.0000"],
        ["a:7", "lost", ""],
        ["b:7", "lost", ""],
      ],
    );
    const wanted = ["1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00.250Z"]; // 1000 ms less 750
    assert.deepEqual(cells[0]?.slice(0, 2), wanted);
    assert.equal(cells[0]?.length, COLUMNS.split(",").length);
  });

  test("begins with its columns, and is appended to after a restart", () => {
    const file = path();
    assert.deepEqual(opened(file), []);
    appendRows(file, ["a", "b"]);
    assert.deepEqual(opened(file), []);
    appendRows(file, ["c"]);
    assert.equal(readFileSync(file, "utf8"), `${COLUMNS}a\nb\nc\n`);
  });

  test("loses nothing but a last line that a crash cut short, wherever that was", () => {
    const whole = `${COLUMNS}first,line\nsecond,line\n`;
    for (let size = 0; size <= whole.length; size++) {
      const file = path();
      writeFileSync(file, whole);
      truncateSync(file, size);
      const lines = opened(file);
      appendRows(file, ["next"]);
      const kept = whole.slice(0, whole.slice(0, size).lastIndexOf("\n") + 1) || COLUMNS;
      assert.equal(readFileSync(file, "utf8"), `${kept}next\n`);
      const wasCut = size > 0 && !whole.slice(0, size).endsWith("\n");
      assert.equal(lines.length, wasCut ? 1 : 0, `${size}`);
    }
  });

  test("is not somebody else's", () => {
    for (const content of ["my only copy", "a;b\n1;2\n"]) {
      const file = path();
      writeFileSync(file, content);
      assert.throws(() => opened(file), { name: "Failure", message: /^cannot write to .*\.csv$/ });
      assert.equal(readFileSync(file, "utf8"), content);
    }
    assert.throws(() => opened(folder), { name: "Failure" });
    if (existsSync("/dev/null")) assert.throws(() => opened("/dev/null"), { name: "Failure" });
    assert.throws(() => appendRows(folder, ["a"]), { name: "Failure" });
    const readable = path();
    opened(readable);
    appendFileSync(readable, "x,y\n");
    assert.deepEqual(opened(readable), []);
  });
});
