/** The program from outside: its arguments, what it prints and writes, its exit codes, campaigns and their end. */
import { strict as assert } from "node:assert";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { GRACE_MS } from "../../shared/tcp.ts";
import { becomes, freePort, needs, Running, run, start, within } from "../../shared/testing.ts";

const RTT = "exercises/04-rtt/rtt.ts";
const ADDRESS = "127.0.0.1";
const folder = mkdtempSync(join(tmpdir(), "netlab-rtt-"));
after(() => rmSync(folder, { recursive: true }));
const file = (name: string) => join(folder, name);

/** Echo over TCP and UDP at one port, in this process. */
let port = 0;
let probes = 0;
const tcp = createServer((socket) => socket.on("error", () => {}).resume());
const udp = createSocket("udp4");
before(async () => {
  udp.on("message", (datagram, from) => {
    probes++;
    udp.send(datagram, from.port, from.address);
  });
  port = await freePort();
  udp.bind(port, ADDRESS);
  tcp.listen(port, ADDRESS);
  await Promise.all([once(udp, "listening"), once(tcp, "listening")]);
});
after(() => {
  tcp.close();
  udp.close();
});

interface Row {
  host: string;
  transport: string;
  [figure: string]: unknown;
}

describe("one measurement", () => {
  test("of hosts that answer, refuse and do not exist, into JSON, CSV and a picture", async () => {
    const closed = await freePort();
    const hosts = [
      `${ADDRESS}:${port}`,
      `localhost:${port}`,
      `${ADDRESS}:${closed}`,
      "no.such.host.invalid",
      "localhost:0",
    ];
    const [csv, plot] = [file("one.csv"), file("one.svg")];
    const { code, stdout, stderr } = await run(RTT, [
      ...hosts,
      ...["--segundos", 1, "--interval", 50, "--json", "--csv", csv, "--plot", plot],
    ]);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^cannot resolve no\.such\.host\.invalid: /m);
    assert.match(stderr, /^cannot measure localhost:0: nobody answers at port 0; name another$/m);
    assert.match(stderr, new RegExp(`^${ADDRESS}:${closed} tcp: refused: connection refused`, "m"));

    const { results, ...settings } = JSON.parse(stdout) as { results: Row[]; begunAt: string };
    const { begunAt } = settings;
    assert.deepEqual(settings, {
      begunAt,
      seconds: 1,
      intervalMs: 50,
      timeoutMs: 1000,
      sampling: "periodic",
    });
    assert.deepEqual(
      results.map(({ host, transport }) => `${host} ${transport}`),
      hosts.slice(0, 3).flatMap((host) => [`${host} tcp`, `${host} udp`]),
    );
    for (const row of results) {
      assert.equal(Number(row["sent"]) + Number(row["skipped"]), 20, JSON.stringify(row));
      const isRefused = row.host === hosts[2];
      const answered = Number(row[isRefused ? "refused" : "received"]);
      assert.ok(answered > 0, JSON.stringify(row));
      assert.equal(answered + Number(row["lost"]), row["sent"]);
      assert.equal(Number(row[isRefused ? "received" : "refused"]), 0);
      assert.equal(row["minMs"] === null, isRefused);
      assert.ok(Number(row["clockResolutionMs"]) > 0 && Number(row["ownDelayMs"]) > 0);
    }
    const lines = readFileSync(csv, "utf8").trimEnd().split("\n");
    const sent = results.reduce((sum, row) => sum + Number(row["sent"]), 0);
    assert.equal(lines.length, 1 + sent);
    assert.ok(lines.slice(1).every((line) => line.startsWith(`${begunAt},`)));
    const svg = readFileSync(plot, "utf8");
    for (const text of ["RTT (ms)", "time (s)", "Distribution", `localhost:${port} tcp`])
      assert.ok(svg.includes(text));
    assert.ok(!existsSync(`${plot}.part`));
  });

  test("of hosts in a configuration and a file, at random times, in a table, with lines in the pipe meanwhile", async () => {
    writeFileSync(file("hosts.txt"), `# the assignment's form\nlocalhost;${port}\n`);
    writeFileSync(file("rtt.ini"), `[rtt]\nhosts[] = ${ADDRESS}\nudp = true\nport = ${port}\nseconds = 2\n`);
    const args = ["--hosts-file", file("hosts.txt"), "--config", file("rtt.ini")];
    const { code, stdout, stderr } = await run(RTT, [...args, "--interval", 30, "--sampling", "poisson"]);
    assert.equal(code, 0, stderr);
    const [head = "", ...rows] = stdout.split("\n");
    assert.match(head, /^host +by +sent +received +lost +refused +min +median +mean +p95 +max +jitter$/);
    for (const [i, name] of [`${ADDRESS}:${port}`, `localhost:${port}`].entries())
      assert.match(rows[i] ?? "", new RegExp(`^${name} +udp +\\d+ +[1-9]\\d* +\\d+ +0 +\\d+\\.\\d{3} `));
    assert.match(stdout, /2 s, every 30 ms \(poisson\)/);
    assert.match(
      stdout,
      /too long by at most about \d+\.\d+ \(udp\) ms at median and \d+\.\d+ \(udp\) ms at p95,\n/,
    );
    assert.match(
      stdout,
      /^ {2}as round trips to itself took meanwhile\. Clock: monotonic, in steps of \d+ ns\.$/m,
    );
    assert.match(stderr, new RegExp(`^1 s: ${ADDRESS}:${port} udp: \\d+ sent, `, "m"));
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
    assert.doesNotMatch(stdout + stderr, /\u001b/);
  });

  test("ends at Ctrl-C with what it has", async () => {
    const before = probes;
    await using running = await start(RTT, [`${ADDRESS}:${port}`, "--udp", "--seconds", 3600], {
      servers: 0,
    });
    await becomes(() => probes >= before + 3, "three probes");
    running.kill("SIGINT");
    assert.deepEqual(await within(running.exited, "its end"), { code: 0, signal: null });
    assert.match(running.stdout, new RegExp(`^${ADDRESS}:${port} +udp +[1-9]`, "m"));
  });

  test("asks a real DNS server", needs("dnsmasq"), async () => {
    const dnsPort = await freePort();
    const options = [
      "--no-daemon",
      "--no-resolv",
      "--no-hosts",
      "--conf-file=/dev/null",
      "--bind-interfaces",
    ];
    const where = [
      `--port=${dnsPort}`,
      `--listen-address=${ADDRESS}`,
      `--user=${userInfo().username}`,
      "--pid-file=",
    ];
    await using server = new Running("dnsmasq", [...options, ...where, "--address=/lab.test/192.0.2.1"], {});
    await server.output(/started/, "stderr");
    const { code, stdout, stderr } = await run(RTT, [
      ...[`${ADDRESS}:${dnsPort}`, "--udp", "--udp-probe", "dns", "--dns-name", "www.lab.test"],
      ...["--seconds", 1, "--interval", 100, "--json"],
    ]);
    assert.equal(code, 0, stderr);
    const [row] = (JSON.parse(stdout) as { results: Row[] }).results;
    assert.ok(Number(row?.["received"]) > 0);
    assert.equal(row?.["unknownDatagrams"], 0);
  });
});

describe("what cannot be measured", { concurrency: 2 }, () => {
  const cases: [args: (string | number)[], code: number, message: RegExp][] = [
    [[], 1, /^error: no host to measure; name some, or list them in --hosts-file or config\/rtt.ini$/m],
    [["localhost:0"], 1, /^cannot measure localhost:0: .*\nerror: none of the hosts can be measured$/m],
    [["localhost", "--cron", "* * * * *"], 2, /^error: --cron needs --csv/m],
    [
      ["localhost", "--seconds", 1, "--interval", 1001],
      2,
      /^error: --interval 1001 is longer than the measure/m,
    ],
    [["localhost", "--dns-name", "a..b"], 2, /^error: --dns-name "a\.\.b" is not a domain name$/m],
    [
      ["localhost", "--seconds", 86_400, "--interval", 1],
      2,
      /^error: 172800000 probes are more than 2000000; /m,
    ],
    [
      ["--hosts-file", "/no/such/file"],
      2,
      /^error: cannot read the hosts file \/no\/such\/file: no such file/m,
    ],
  ];
  for (const [args, code, message] of cases) {
    test(`${args.join(" ") || "nothing"}: exit code ${code}`, async () => {
      const result = await run(RTT, args);
      assert.equal(result.code, code, result.stderr);
      assert.match(result.stderr, message);
      assert.equal(result.stdout, "");
    });
  }

  test("a host that is there but silent: exit code 1", async () => {
    const silent = createSocket("udp4").bind(0, ADDRESS);
    await once(silent, "listening");
    const args = [`${ADDRESS}:${silent.address().port}`, "--udp", "--seconds", 1, "--timeout", 100, "--json"];
    const { code, stdout, stderr } = await run(RTT, args);
    silent.close();
    assert.equal(code, 1);
    assert.match(stderr, /^error: no host answered/m);
    const [row] = (JSON.parse(stdout) as { results: Row[] }).results;
    assert.deepEqual([row?.["received"], row?.["medianMs"], row?.["p95Ms"]], [0, null, null]);
    assert.equal(row?.["lost"], row?.["sent"]);
  });
});

describe("a campaign", () => {
  test("that is ended in the middle of a measurement keeps what it has measured", async () => {
    const [csv, plot, before] = [file("ended.csv"), file("ended.svg"), probes];
    const args = [`${ADDRESS}:${port}`, "--udp", "--seconds", 3600, "--interval", 50, "--csv", csv];
    await using running = await start(RTT, [...args, "--plot", plot, "--cron", "* * * * * *"], {
      servers: 0,
    });
    await running.output(/is not over yet/, "stderr");
    await becomes(() => probes >= before + 5, "five probes");
    const askedMs = performance.now();
    running.kill("SIGTERM");
    assert.deepEqual(await within(running.exited, "its end"), { code: 0, signal: null });
    const tookMs = performance.now() - askedMs;
    assert.match(running.stderr, /^the measurement before is not over yet: this one is left out$/m);
    assert.ok(readFileSync(csv, "utf8").split("\n").length > 4, readFileSync(csv, "utf8"));
    // To draw takes longest: the end waits for that, unless the machine is too busy for it.
    assert.ok(existsSync(plot) || tookMs >= GRACE_MS, `it ended after ${tookMs} ms without`);
  });

  test("appends, survives kill -9 and a restart, and stops cleanly", async () => {
    const csv = file("campaign.csv");
    const rows = () => (existsSync(csv) ? readFileSync(csv, "utf8") : "").split("\n").slice(1, -1);
    const measurements = () => new Set(rows().map((row) => row.split(",")[0])).size;
    const args = [
      `${ADDRESS}:${port}`,
      "--seconds",
      1,
      "--interval",
      100,
      "--csv",
      csv,
      "--cron",
      "* * * * * *",
    ];
    const measured = async (running: Running, count: number) => {
      for (let i = 0; measurements() < count; i++) {
        assert.ok(i < 1500 && running.child.exitCode === null, running.stderr);
        await sleep(20);
      }
    };
    {
      await using first = await start(RTT, args, { servers: 0 });
      await measured(first, 1);
    } // kill -9
    const before = rows();
    writeFileSync(csv, `${readFileSync(csv, "utf8")}2026-01-01T00:00:00.000Z,cut sho`);
    await using second = await start(RTT, args, { servers: 0 });
    await measured(second, 2);
    second.kill("SIGTERM");
    assert.deepEqual(await within(second.exited, "its end"), { code: 0, signal: null });
    assert.match(second.stderr, /the last line was cut short, 32 bytes are taken off/);
    assert.deepEqual(rows().slice(0, before.length), before, "nothing that was there is lost");
    for (const row of rows())
      assert.match(row, /^20\S+Z,20\S+Z,127\.0\.0\.1:\d+,127\.0\.0\.1,\d+,(tcp|udp),\w+,[\d.]*$/);
    assert.equal(readFileSync(csv, "utf8").split("measurement,").length, 2, "one line of column names");
  });
});
