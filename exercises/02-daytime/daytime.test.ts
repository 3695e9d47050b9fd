/** The programs on the wire: the server against clients of every kind, the client against servers of every kind. */
import { strict as assert } from "node:assert";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, connect as connectTcp, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import fc from "fast-check";
import { decode, encode } from "../../shared/pdu.ts";
import { needs, type Running, run, runTool, start, within } from "../../shared/testing.ts";
import { bind, request } from "../../shared/udp.ts";
import { Daytime, readReply, requestFor } from "./protocol.ts";

const SERVER = "exercises/02-daytime/server.ts";
const CLIENT = "exercises/02-daytime/client.ts";
const SEED = 867;
const BUENOS_AIRES = ["--zone", "America/Argentina/Buenos_Aires", "--locale", "es-AR"];
/** RFC 867's line in Buenos Aires. */
const LINE = /^[a-z]+, \d+ de [a-z]+ de 20\d\d \d\d:\d\d:\d\d-03:00\r\n$/;

const startServer = (args: readonly (string | number)[] = [], options = {}) =>
  start(SERVER, ["--port", 0, ...args], { servers: 2, ...options });

/** A client's socket: what comes is kept in order. */
class Asker implements AsyncDisposable {
  readonly socket: Socket;
  readonly #port: number;
  readonly #host: string;
  readonly #arrived: Buffer[] = [];
  #wake: () => void = () => {};

  constructor(port: number, host = "127.0.0.1") {
    this.#port = port;
    this.#host = host;
    this.socket = createSocket(host.includes(":") ? "udp6" : "udp4");
    this.socket.on("message", (datagram) => {
      this.#arrived.push(datagram);
      this.#wake();
    });
  }

  send(bytes: Buffer | string): void {
    this.socket.send(bytes, this.#port, this.#host);
  }

  async next(what = "an answer"): Promise<Buffer> {
    const arrival = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    if (this.#arrived.length === 0) await within(arrival, what);
    return this.#arrived.shift() ?? Buffer.alloc(0);
  }

  ask(bytes: Buffer | string): Promise<Buffer> {
    this.send(bytes);
    return this.next(`an answer to ${bytes.length} bytes`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.close();
    await once(this.socket, "close");
  }
}

/** Offset in minutes by another way than the server's: what Intl calls the zone in its "long offset" style. */
function offsetOf(zone: string, utcMs: number): number {
  const style = new Intl.DateTimeFormat("en-US", { timeZone: zone, timeZoneName: "longOffset" });
  const [, sign, hours, minutes] = /GMT(?:([+-])(\d\d):(\d\d))?$/.exec(style.format(utcMs)) ?? [];
  return hours === undefined ? 0 : (sign === "-" ? -1 : 1) * (Number(hours) * 60 + Number(minutes));
}

/** The check of every zone: asks for each and compares. */
async function checkZones(port: number, zones: readonly string[]): Promise<void> {
  await using asker = new Asker(port);
  for (const [id, zone] of zones.entries()) {
    const reply = readReply(await asker.ask(requestFor(id, zone)), id);
    assert.deepEqual([reply.zone, reply.status], [zone, "ok"]);
    assert.deepEqual([zone, reply.utcOffsetMinutes], [zone, offsetOf(zone, reply.utcMs)]);
    assert.ok(Math.abs(reply.utcMs - Date.now()) < 1000, `${zone}: ${new Date(reply.utcMs).toISOString()}`);
  }
}

/** Backward names of the tz database, which `supportedValuesOf` leaves out. */
const ALIASES =
  "UTC GMT GMT0 Etc/GMT Etc/GMT+12 Etc/GMT-14 Etc/UTC Zulu Universal Greenwich UCT US/Eastern US/Pacific US/Hawaii " +
  "Asia/Kolkata Asia/Calcutta Asia/Kathmandu Asia/Katmandu Asia/Saigon Asia/Rangoon Europe/Kiev Europe/Kyiv " +
  "America/Buenos_Aires America/Argentina/ComodRivadavia America/Indianapolis Australia/LHI Australia/ACT NZ NZ-CHAT " +
  "GB GB-Eire Eire Portugal Poland Turkey PRC ROC ROK Japan Singapore Hongkong Iran Israel Jamaica Cuba Egypt Libya " +
  "Navajo W-SU Brazil/East Canada/Newfoundland Chile/EasterIsland Mexico/BajaNorte Pacific/Samoa Arctic/Longyearbyen " +
  "CET CST6CDT EET EST EST5EDT HST MET MST MST7MDT PST8PDT WET";
const ZONES = [...new Set([...Intl.supportedValuesOf("timeZone"), ...ALIASES.split(" ")])];

describe("the server", () => {
  let server: Running;
  before(async () => {
    server = await startServer(BUENOS_AIRES);
  });
  after(async () => {
    assert.equal(server.child.exitCode, null, `it ended: ${server.stderr}`);
    assert.equal(await server.stop(), 0);
  });

  test("answers for every zone and alias, with the right offset", async () => {
    assert.ok(ZONES.length > 470);
    await checkZones(server.port, ZONES);
  });

  test("is told from one that knows no time zones by that same check", async (t) => {
    const broken = await daytimeServer(t, (request) => ({
      ...request,
      kind: "reply",
      utcMs: BigInt(Date.now()),
    }));
    await assert.rejects(checkZones(broken.port, ZONES), /'Africa\/Addis_Ababa',\n\+ +0\n- +180/);
  });

  test("gives its own zone and language where none is asked for", async () => {
    await using asker = new Asker(server.port);
    const { utcMs: _, ...rest } = readReply(await asker.ask(requestFor(0xffffffff, "")), 0xffffffff);
    assert.deepEqual(rest, {
      status: "ok",
      synchronisation: "none",
      stratum: 0,
      dst: false,
      utcOffsetMinutes: -180,
      id: 0xffffffff,
      zone: "America/Argentina/Buenos_Aires",
      locale: "es-AR",
    });
  });

  test("says so, and repeats the name, where there is no such zone", async () => {
    await using asker = new Asker(server.port);
    for (const zone of ["Mars/Olympus", "x".repeat(32), "../../etc/passwd", "+03:00", "Ελλάδα", "%s%n"]) {
      const { status, zone: echoed, id } = decode(Daytime, await asker.ask(requestFor(5, zone)));
      assert.deepEqual({ status, echoed, id }, { status: "unknown-zone", echoed: zone, id: 5 });
    }
  });

  test("calls a request bad that is not as it should be, under the same id", async () => {
    await using asker = new Asker(server.port);
    // Version, kind, status, synchronisation, no UTF-8 in the zone, something behind its end and the locale's.
    const changes = [
      [4, 2],
      [5, 0],
      [5, 3],
      [6, 9],
      [7, 9],
      [24, 0xff],
      [40, 1],
      [63, 1],
    ] as const;
    for (const [at, byte] of changes) {
      const broken = requestFor(0x01020304, "");
      broken[at] = byte;
      const { kind, status, id } = decode(Daytime, await asker.ask(broken));
      const expected = { at, kind: "reply", status: "bad-request", id: 0x01020304 };
      assert.deepEqual({ at, kind, status, id }, expected);
    }
  });

  test("takes everything else, cut or empty or garbage, for RFC 867, and is never longer than that line", async () => {
    await using asker = new Asker(server.port);
    const request = requestFor(1, "UTC");
    const others = Array.from({ length: 64 }, (_, length) => request.subarray(0, length));
    others.push(Buffer.concat([request, Buffer.alloc(1)]), Buffer.alloc(64), Buffer.alloc(65_507, 0x55));
    for (const other of others) assert.match((await asker.ask(other)).toString("latin1"), LINE);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        assert.match((await asker.ask(Buffer.from(bytes))).toString("latin1"), LINE);
      }),
      { seed: SEED, numRuns: 300 },
    );
  });

  test("gives the time of this second in that line, and of the next in the next", async () => {
    await using asker = new Asker(server.port);
    const check = async () => {
      const line = (await asker.ask("")).toString("latin1");
      const agoMs =
        Date.now() - Date.parse(`${new Date().toISOString().slice(0, 10)}T${line.trim().slice(-14)}`);
      const dayMs = 86_400_000; // the date there may be yesterday's
      const sinceMs = ((agoMs % dayMs) + dayMs) % dayMs;
      assert.ok(sinceMs < 1500, `${line} is of ${sinceMs} ms ago`);
      return line;
    };
    const first = await check();
    while ((await check()) === first);
  });

  test("gives one answer of its own size to a request with any one byte changed", async () => {
    await using asker = new Asker(server.port);
    for (let at = 0; at < 64; at++) {
      const changed = requestFor(1, "UTC");
      changed[at] = (changed[at] ?? 0) ^ 0xff;
      const answer = await asker.ask(changed);
      if (at < 4) assert.match(answer.toString("latin1"), LINE);
      else assert.equal(answer.length, 64);
    }
  });

  test("drops what may itself be an answer, so that an echo of its own words ends there", async () => {
    await using asker = new Asker(server.port);
    const line = await asker.ask("");
    const reply = await asker.ask(requestFor(1, "UTC"));
    const brokenReply = Buffer.from(reply);
    brokenReply[4] = 99;
    for (const own of [line, reply, brokenReply]) asker.send(own);
    assert.equal(
      readReply(await asker.ask(requestFor(2, "UTC")), 2).id,
      2,
      "the first that comes is for the last",
    );
    await server.output(/dropped, as the datagram is itself a daytime line/, "stderr");
    for (const own of [line, reply]) asker.send(own);
    await asker.ask("");
    assert.equal(server.stderr.match(/is itself a reply/g)?.length, 1, "each reason is said once");
  });

  test(
    "drops what comes from a small service, or from port 0, where none can be answered",
    needs("python3"),
    async (t) => {
      for (const [port, reason] of [
        [0, /from port 0, nobody's/],
        [19, /from port 19, character generator/],
      ] as const) {
        const { code, stderr } = await runTool("python3", ["-c", FORGE, `${port}`, `${server.port}`]);
        if (code !== 0) return t.skip(`no raw sockets: ${stderr.trim().split("\n").at(-1)}`);
        await server.output(reason, "stderr");
      }
    },
  );

  test("answers 500 clients at once, each its own", async () => {
    const clients = Array.from({ length: 500 }, async (_, id) => {
      const zone = ZONES[id % ZONES.length] ?? "";
      // A burst is more than a socket's buffer holds: those that are lost ask again, as the client does.
      const reply = await request({
        ...{ host: "127.0.0.1", port: server.port, timeoutMs: 500, retries: 20 },
        request: requestFor(id, zone),
        accept: (datagram) => readReply(datagram, id),
      });
      assert.equal(reply.zone, zone);
    });
    await Promise.all(clients);
  });

  test("gives its line over TCP on the same number, and finishes", async () => {
    assert.deepEqual(server.urls, [`udp://127.0.0.1:${server.port}`, `tcp://127.0.0.1:${server.port}`]);
    for (const words of ["", "what time is it?\r\n", "x".repeat(100_000)]) {
      assert.match(await lineOverTcp(server.port, words), LINE);
    }
  });

  test("does not wait for TCP clients that stall, reset, or never finish; 500 at once have their line", async () => {
    const stalling = Array.from({ length: 20 }, () => connectTcp({ port: server.port, allowHalfOpen: true }));
    const resetting = Array.from({ length: 20 }, () => connectTcp({ port: server.port }));
    for (const socket of resetting) socket.once("connect", () => socket.resetAndDestroy());
    for (const socket of [...stalling, ...resetting]) socket.on("error", () => {});
    const lines = await Promise.all(Array.from({ length: 500 }, () => lineOverTcp(server.port, "")));
    for (const line of lines) assert.match(line, LINE);
    // Their half is never closed: the server cuts them off.
    await within(Promise.all(stalling.map((socket) => once(socket.resume(), "end"))), "the end of its half");
    for (const socket of stalling) socket.destroy();
  });
});

/** Sends an empty datagram as if from a port, without having it. */
const FORGE = `
import socket, struct, sys
source, destination = map(int, sys.argv[1:])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
raw.sendto(struct.pack(">HHHH", source, destination, 8, 0), ("127.0.0.1", 0))`;

function lineOverTcp(port: number, words: string): Promise<string> {
  const socket = connectTcp({ port, host: "127.0.0.1" });
  let line = "";
  socket.on("data", (bytes) => {
    line += bytes.toString("latin1");
  });
  socket.on("error", () => {}); // what it was sent beyond its line may be answered with a reset
  socket.end(words);
  return within(
    new Promise((resolve) => socket.once("close", () => resolve(line))),
    "the end of the connection",
  );
}

// Most of it is programs that start: two at a time.
describe("the server's start and end", { concurrency: 2 }, () => {
  test("IPv6, and the machine's own zone and language", async () => {
    const env = { TZ: "Asia/Kathmandu", LANG: "de_DE.UTF-8", LC_ALL: "de_DE.UTF-8" };
    await using server = await startServer(["--host", "::1"], { env });
    assert.deepEqual(server.urls, [`udp://[::1]:${server.port}`, `tcp://[::1]:${server.port}`]);
    await using asker = new Asker(server.port, "::1");
    const { zone, utcOffsetMinutes, locale } = readReply(await asker.ask(requestFor(1, "")), 1);
    assert.deepEqual([zone, utcOffsetMinutes, locale], ["Asia/Katmandu", 345, "de-DE"]);
    assert.match(
      (await asker.ask("")).toString("latin1"),
      /^[A-Z][a-z]+tag, \d+\. \w+ 20\d\d [\d:]+\+05:45\r\n$/,
    );
  });

  test("a configuration file gives what the command line does not", async (t) => {
    const folder = await mkdtemp(join(tmpdir(), "daytime-"));
    t.after(() => rm(folder, { recursive: true }));
    const file = join(folder, "daytime.ini");
    const lines = [
      "[server]",
      "zone = Pacific/Chatham",
      "locale = fr-FR",
      "ntp-server[] = 127.0.0.1:1",
      "ntp-server[] = [::1]:1",
    ];
    await writeFile(file, lines.join("\n"));
    await using server = await startServer(["--config", file, "--zone", "Asia/Kolkata"]);
    await using asker = new Asker(server.port);
    const { zone, locale } = readReply(await asker.ask(requestFor(1, "")), 1);
    assert.deepEqual([zone, locale], ["Asia/Kolkata", "fr-FR"]);
    await server.output(/^none: .*127\.0\.0\.1:1.*\[::1\]:1/m, "stderr");
    await writeFile(file, "[server]\nlocale = fr-FR\nzone = Mars/Olympus\n");
    const refused = await run(SERVER, ["--config", file]);
    assert.equal(refused.code, 2);
    assert.match(
      refused.stderr,
      /^error: .*daytime\.ini:3: \[server\] zone "Mars\/Olympus" is not a time zone/,
    );
  });

  test("what cannot be is refused in one line, exit code 2; a port that is taken, 1", async () => {
    await using server = await startServer();
    const cases: [
      args: (string | number)[],
      code: number,
      complaint: RegExp,
      env?: Record<string, string>,
    ][] = [
      [["--zone", "Mars/Olympus"], 2, /--zone "Mars\/Olympus" is not a time zone of the tz database/],
      [["--locale", "xx-YY"], 2, /--locale "xx-YY" is not a language tag/],
      [["--sync-cron", "every minute"], 2, /--sync-cron "every minute" is not a schedule/],
      [["--ntp-server", "127.0.0.1:0"], 2, /--ntp-server "127.0.0.1:0" has no port that can be asked/],
      [
        [],
        2,
        /cannot tell this machine's time zone \(TZ is "Foo\/Bar"\); name one with --zone/,
        { TZ: "Foo/Bar" },
      ],
      [["--port", server.port], 1, /cannot listen on 127\.0\.0\.1:\d+: address already in use/],
    ];
    const check = async ([args, code, complaint, env = {}]: (typeof cases)[number]) => {
      const ended = await run(SERVER, args.includes("--port") ? args : ["--port", 0, ...args], { env });
      assert.equal(ended.code, code, ended.stderr);
      assert.match(ended.stderr, complaint);
      assert.match(ended.stderr.trim(), /^(none: .*\n)?error: .*$/);
      assert.equal(ended.stdout, "");
    };
    for (let i = 0; i < cases.length; i += 2) await Promise.all(cases.slice(i, i + 2).map(check));
  });

  test("a signal ends it at once, with a TCP client that never finishes and a time server that keeps silent", async (t) => {
    const silent = await daytimeServer(t, () => undefined);
    await using server = await startServer(["--ntp-server", `127.0.0.1:${silent.port}`]);
    const socket = connectTcp({ port: server.port, allowHalfOpen: true });
    socket.on("error", () => {});
    await once(socket, "data");
    assert.equal(await server.stop(), 0);
    socket.destroy();
  });
});

/** A server of ours for the client to talk to: what it makes of a request, and what it sends before that. */
async function daytimeServer(
  t: TestContext,
  answer: (request: Daytime) => Daytime | undefined,
  first: (request: Daytime) => readonly (Buffer | Daytime)[] = () => [],
) {
  const stop = new AbortController();
  t.after(() => stop.abort());
  const options = { host: "127.0.0.1", port: 0, signal: stop.signal, log: () => {} };
  return await bind(options, (datagram, from, server) => {
    if (datagram.length !== 64) return;
    const request = decode(Daytime, datagram);
    for (const bytes of first(request))
      server.send(bytes instanceof Buffer ? bytes : encode(Daytime, bytes), from);
    const reply = answer(request);
    if (reply !== undefined) server.send(encode(Daytime, reply), from);
  });
}

const answered = (request: Daytime, change: Partial<Daytime> = {}): Daytime => ({
  ...request,
  kind: "reply",
  synchronisation: "synchronised",
  stratum: 2,
  utcMs: BigInt(Date.parse("2026-03-08T02:30:05.250Z")),
  ...change,
});

describe("the client", { concurrency: 2 }, () => {
  const ask = (port: number, ...args: string[]) => run(CLIENT, ["--port", port, ...args]);

  test("shows what it is told in the server's language or its own, by strftime, or as JSON", async (t) => {
    const { port } = await daytimeServer(t, (request) =>
      answered(request, { utcOffsetMinutes: -180, zone: "America/Argentina/Buenos_Aires", locale: "es-AR" }),
    );
    const cases: [args: string[], line: string][] = [
      [[], "sábado, 7 de marzo de 2026, 11:30:05 p. m. (America/Argentina/Buenos_Aires, UTC-03:00)"],
      [
        ["--locale", "en-GB"],
        "Saturday, 7 March 2026 at 23:30:05 (America/Argentina/Buenos_Aires, UTC-03:00)",
      ],
      [
        ["--format", "%A %d de %B, %H:%M %z %Z %%Z"],
        "sábado 07 de marzo, 23:30 -0300 America/Argentina/Buenos_Aires %Z",
      ],
      [["--format", "%c", "--locale", "en-US"], "Sat, Mar 07, 2026 11:30:05 PM -0300"],
      [["--format", "%x %X", "--locale", "de"], "07.03.2026 23:30:05"],
      [["--format", "%G-W%V %g"], "2026-W10 26"],
      [
        ["--json"],
        '{"zone":"America/Argentina/Buenos_Aires","local":"2026-03-07T23:30:05.250-03:00","utc":"2026-03-08T02:30:05.250Z",' +
          '"utcMs":1772937005250,"utcOffsetMinutes":-180,"dst":false,"synchronisation":"synchronised","stratum":2,"locale":"es-AR"}',
      ],
    ];
    const check = async ([args, line]: (typeof cases)[number]) => {
      const { code, stdout, stderr } = await ask(port, ...args);
      assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: `${line}\n`, stderr: "" });
    };
    for (let i = 0; i < cases.length; i += 2) await Promise.all(cases.slice(i, i + 2).map(check));
  });

  test("shows an hour that does not exist on its own machine, DST, and an unknown language", async (t) => {
    const change = { flags: { dst: true }, locale: "??", synchronisation: "holdover" } as const;
    const { port } = await daytimeServer(t, (request) => answered(request, change));
    const env = { TZ: "America/New_York" }; // there, 02:30 on 8 March 2026 is skipped
    const [format, plain] = await Promise.all([
      run(CLIENT, ["--port", port, "--zone", "UTC", "--format", "%H:%M:%S %z"], { env }),
      run(CLIENT, ["--port", port, "--zone", "UTC"], { env }),
    ]);
    assert.equal(format.stdout, "02:30:05 +0000\n");
    assert.equal(plain.stdout, "Sunday, March 8, 2026 at 2:30:05 AM (UTC, UTC+00:00, DST)\n");
    assert.match(plain.stderr, /^the server has lost its time server/);
  });

  test("is not misled by what comes before the reply to its own request", async (t) => {
    const { port } = await daytimeServer(
      t,
      (request) => answered(request),
      (request) => [
        answered(request, { id: (request.id ^ 1) >>> 0, utcMs: 0n }), // late: to an earlier request
        request, // an echo
        encode(Daytime, answered(request)).subarray(0, 63),
        Buffer.from("Saturday, November 21, 2026 01:37:04-03:00\r\n"),
        Buffer.alloc(0),
        answered(request, { utcOffsetMinutes: 32_767 }),
        answered(request, { utcMs: 2n ** 63n - 1n }),
        answered(request, { zone: "\u001b]0;x\u0007" }),
      ],
    );
    const { code, stdout, stderr } = await ask(port, "--zone", "UTC", "--format", "%F %T");
    assert.deepEqual({ code, stdout }, { code: 0, stdout: "2026-03-08 02:30:05\n" });
    assert.equal(stderr.match(/^ignored \d+ bytes that are no reply to this request: /gm)?.length, 8, stderr);
  });

  test("fails, naming the zone or saying what is missing", async (t) => {
    await using server = await startServer();
    const never = await daytimeServer(t, () => undefined);
    const lost = { asked: 0 };
    const once = await daytimeServer(t, (request) => (lost.asked++ === 0 ? undefined : answered(request)));
    const cases: [port: number, args: string[], code: number, complaint: RegExp][] = [
      [server.port, ["--zone", "Mars/Olympus"], 1, /^error: the server knows no time zone "Mars\/Olympus"$/],
      [
        server.port,
        ["--zone", "America/New York"],
        1,
        /^error: the server knows no time zone "America\/New York"$/,
      ],
      [server.port, ["--zone", "x".repeat(33)], 1, /^error: the server knows no time zone "x{33}"$/],
      [never.port, ["--timeout", "50", "--retries", "1"], 1, /nothing came within 50 ms \(tries: 2\)$/],
      [1, [], 1, /^error: .*udp:\/\/127\.0\.0\.1:1: connection refused \(ECONNREFUSED\)/],
      [once.port, ["--timeout", "100"], 0, /^$/],
      [1, ["--tcp"], 2, /--tcp goes with --rfc867 only/],
      [1, ["--rfc867", "--zone", "UTC"], 2, /--rfc867 gives the server's own line/],
      [1, ["--locale", "klingon"], 2, /--locale "klingon" is not a language tag/],
    ];
    const check = async ([port, args, code, complaint]: (typeof cases)[number]) => {
      const ended = await ask(port, ...args);
      assert.equal(ended.code, code, ended.stderr);
      assert.match(ended.stderr.trim(), complaint);
    };
    for (let i = 0; i < cases.length; i += 2) await Promise.all(cases.slice(i, i + 2).map(check));
    assert.ok(lost.asked >= 2, `asked ${lost.asked} times`);
  });

  test("gets RFC 867's line over UDP and TCP, from any server, and shows nothing that a terminal would obey", async (t) => {
    await using server = await startServer(BUENOS_AIRES);
    const stop = new AbortController();
    t.after(() => stop.abort());
    const hostile = await bind(
      { host: "127.0.0.1", port: 0, signal: stop.signal, log: () => {} },
      (_, from, { send }) => send(Buffer.from("\u001b[2J12:00:00\u0007 \u00e9\n"), from),
    );
    const silent = createServer().listen(0, "127.0.0.1");
    t.after(() => silent.close());
    await once(silent, "listening");
    const { port: silentPort } = silent.address() as AddressInfo;
    const [udp, tcp, bare, stalled] = await Promise.all([
      ask(server.port, "--rfc867"),
      ask(server.port, "--rfc867", "--tcp"),
      ask(hostile.port, "--rfc867"),
      ask(silentPort, "--rfc867", "--tcp", "--timeout", "100"),
    ]);
    assert.equal(stalled.code, 1);
    assert.match(
      stalled.stderr,
      /^error: .*tcp:\/\/127\.0\.0\.1:\d+: .*(sent nothing for|no answer within) 100 ms$/m,
    );
    for (const { code, stdout } of [udp, tcp]) {
      assert.equal(code, 0);
      assert.match(stdout.replace("\n", "\r\n"), LINE);
    }
    assert.equal(bare.stdout, "?[2J12:00:00? ??\n");
  });

  test("stops waiting for a line at Ctrl-C", async (t) => {
    const silent = createServer().listen(0, "127.0.0.1");
    t.after(() => silent.close());
    await once(silent, "listening");
    const connected = once(silent, "connection");
    const args = [
      "--port",
      (silent.address() as AddressInfo).port,
      "--rfc867",
      "--tcp",
      "--timeout",
      600_000,
    ];
    await using client = await start("exercises/02-daytime/client.ts", args, { servers: 0 });
    await within(connected, "the client");
    client.kill("SIGINT");
    assert.deepEqual(await within(client.exited, "its end"), { code: 0, signal: null });
    assert.equal(client.stderr, "");
  });
});
