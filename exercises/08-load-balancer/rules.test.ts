/** The rules without sockets: who is chosen, who is up, what goes on, what may be sent again. */
import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import fc from "fast-check";
import { parseRequest } from "../../shared/http.ts";
import { randomOf } from "../../shared/random.ts";
import { ALGORITHMS, type Algorithm, type Candidate, CHOOSE } from "./algorithms.ts";
import { readConfiguration } from "./configuration.ts";
import { afterCheck, afterRequest, DOWN, type Health, isInDoubt, UP } from "./health.ts";
import { LatencyHistogram } from "./latency.ts";
import { forwardedElement, mayRetry, plainAddress, requestForNode, wantedUpgrade } from "./protocol.ts";

const SEED = 8;
const property = <T>(arbitrary: fc.Arbitrary<T>, holds: (value: T) => void) =>
  fc.assert(fc.property(arbitrary, holds), { seed: SEED });

const candidate = (name: string, weight = 1, active = 0) => ({ name, weight, active, credit: 0 });
const weights = fc
  .array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 6 })
  .map((all) => all.map((weight, i) => candidate(`node${i}`, weight)));
const choose = (algorithm: Algorithm, all: readonly Candidate[], client = "a", random = randomOf(SEED)) =>
  CHOOSE[algorithm](all, client, random);

describe("round robin", () => {
  test("is smooth as nginx's: 5, 1, 1 gives A A B A C A A", () => {
    const all = [candidate("A", 5), candidate("B"), candidate("C")];
    const cycle = () => Array.from({ length: 7 }, () => choose("round-robin", all).name).join("");
    assert.equal(cycle(), "AABACAA");
    assert.equal(cycle(), "AABACAA");
  });

  test("is exact over any window of a cycle's length (property)", () => {
    property(fc.tuple(weights, fc.nat(40)), ([all, offset]) => {
      const total = all.reduce((sum, { weight }) => sum + weight, 0);
      for (let i = 0; i < offset; i++) choose("round-robin", all);
      const counts = new Map<string, number>();
      for (let i = 0; i < total; i++) {
        const { name } = choose("round-robin", all);
        counts.set(name, (counts.get(name) ?? 0) + 1);
      }
      for (const { name, weight } of all) assert.equal(counts.get(name), weight);
    });
  });

  test("with equal weights nobody comes twice before everybody has come (property)", () => {
    property(fc.integer({ min: 1, max: 9 }), (count) => {
      const all = Array.from({ length: count }, (_, i) => candidate(`node${i}`, 3));
      for (let round = 0; round < 3; round++) {
        assert.equal(new Set(Array.from({ length: count }, () => choose("round-robin", all))).size, count);
      }
    });
  });
});

describe("least connections", () => {
  test("the one chosen has the least to do for its weight (property)", () => {
    const loaded = fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.nat(50)), {
      minLength: 1,
      maxLength: 6,
    });
    property(loaded, (pairs) => {
      const all = pairs.map(([weight, active], i) => candidate(`node${i}`, weight, active));
      const { active, weight } = choose("least-connections", all);
      for (const other of all) assert.ok(active * other.weight <= other.active * weight);
    });
  });

  test("among equals it is round robin by weight", () => {
    const all = [candidate("A", 5), candidate("B"), candidate("C")];
    const names = Array.from({ length: 7 }, () => choose("least-connections", all).name).join("");
    assert.equal(names, "AABACAA");
  });
});

describe("random two", () => {
  test("never the busiest of three, and each of the others", () => {
    const all = [candidate("A", 1, 9), candidate("B", 1, 1), candidate("C", 1, 0)];
    const random = randomOf(SEED);
    const names = new Set(Array.from({ length: 200 }, () => choose("random-two", all, "", random).name));
    assert.deepEqual([...names].sort(), ["B", "C"]);
  });

  test("draws by weight, the same again for the same seed", () => {
    const all = [candidate("A", 8), candidate("B", 1), candidate("C", 1)];
    const names = (random: () => number) =>
      Array.from({ length: 2000 }, () => choose("random-two", all, "", random).name).join("");
    assert.equal(names(randomOf(1)), names(randomOf(1)));
    assert.notEqual(names(randomOf(1)), names(randomOf(2)));
    const share = names(randomOf(1)).replaceAll(/[^A]/g, "").length / 2000;
    assert.ok(share > 0.75 && share < 0.85, `${share} for A`); // nothing is active: the first drawn stays
  });

  test("a single one is chosen, and so is the last where a number is 1 but for rounding", () => {
    const [only] = [candidate("A")];
    assert.equal(choose("random-two", [only]), only);
    const all = [candidate("A"), candidate("B", 1, 1)];
    assert.equal(choose("random-two", all, "", () => 1).name, "A");
  });
});

describe("ip hash", () => {
  const clients = Array.from({ length: 3000 }, (_, i) => `10.0.${i >> 8}.${i & 255}`);
  const shares = (all: readonly Candidate[]) => clients.map((client) => choose("ip-hash", all, client).name);

  test("the same client gets the same node; only the clients of a node that goes are moved", () => {
    const all = [candidate("A"), candidate("B"), candidate("C"), candidate("D")];
    const before = shares(all);
    assert.deepEqual(shares(all.toReversed()), before);
    const afterwards = shares(all.slice(0, 3));
    for (const [i, name] of before.entries()) {
      if (name !== "D") assert.equal(afterwards[i], name);
    }
    for (const name of "ABC") assert.ok(afterwards.some((other, i) => other === name && before[i] === "D"));
  });

  test("shares are as the weights", () => {
    const all = [candidate("A", 3), candidate("B", 1)];
    const share = shares(all).filter((name) => name === "A").length / clients.length;
    assert.ok(share > 0.72 && share < 0.78, `${share} for A`);
  });
});

test("every algorithm chooses one of those that it is given (property)", () => {
  property(
    fc.tuple(weights, fc.constantFrom(...ALGORITHMS), fc.string(), fc.integer()),
    ([all, algorithm, client, seed]) => {
      assert.ok(all.includes(choose(algorithm, all, client, randomOf(seed)) as (typeof all)[number]));
    },
  );
});

describe("health", () => {
  const rules = { failAfter: 3, passAfter: 2 };
  const afterChecks = (results: string, from: Health = UP) =>
    [...results].reduce((health, result) => afterCheck(health, result === "+", rules), from);

  test("three failed checks in a row make a node down, two passed ones make it up", () => {
    for (const [results, isUp] of [
      ["", true],
      ["--", true],
      ["--+--", true],
      ["---", false],
      ["---+", false],
      ["---+-+", false],
      ["---++", true],
      ["---++--", true],
    ] as const) {
      assert.equal(afterChecks(results).isUp, isUp, results);
    }
  });

  test("failed requests make it down, but none brings it back, and they do not mix with checks", () => {
    const afterRequests = (results: string, from: Health = UP) =>
      [...results].reduce((health, result) => afterRequest(health, result === "+", rules), from);
    assert.equal(afterRequests("--+--").isUp, true);
    assert.equal(afterRequests("---").isUp, false);
    assert.equal(afterRequests("+++++", DOWN).isUp, false);
    assert.equal(afterChecks("+", afterRequests("--")).isUp, true);
    assert.equal(
      afterRequests("-", afterChecks("+", afterRequests("--"))).isUp,
      false,
      "a passed check excuses no request",
    );
    assert.equal(
      afterChecks("-", afterRequests("+", afterChecks("--"))).isUp,
      false,
      "an answered request excuses no check",
    );
    assert.deepEqual(afterChecks("++", afterRequests("-----")), UP, "it begins anew");
  });

  test("is in doubt while checks speak against the state", () => {
    const doubts = ["", "-", "-+", "---", "---+"].map((results) => isInDoubt(afterChecks(results)));
    assert.deepEqual(doubts, [false, true, false, false, true]);
  });

  test("is down exactly after failAfter failures without a success between (property)", () => {
    property(fc.array(fc.boolean(), { maxLength: 30 }), (results) => {
      let health = UP;
      let [isUp, streak] = [true, 0];
      for (const passed of results) {
        health = afterCheck(health, passed, rules);
        streak = passed === isUp ? 0 : streak + 1;
        if (streak === (isUp ? 3 : 2)) [isUp, streak] = [!isUp, 0];
        assert.equal(health.isUp, isUp);
      }
    });
  });
});

describe("latency", () => {
  test("no value, no percentile; a percentile is within 6 % of the true one (property)", () => {
    assert.equal(new LatencyHistogram().percentile(0.5), undefined);
    const durations = fc.array(fc.double({ min: 0.02, max: 60_000, noNaN: true }), {
      minLength: 1,
      maxLength: 300,
    });
    property(fc.tuple(durations, fc.constantFrom(0.5, 0.9, 0.99, 1)), ([all, share]) => {
      const histogram = new LatencyHistogram();
      for (const duration of all) histogram.record(duration);
      const sorted = all.toSorted((a, b) => a - b);
      const exact = sorted[Math.ceil(share * sorted.length) - 1] ?? Number.NaN;
      const got = histogram.percentile(share) ?? Number.NaN;
      assert.ok(Math.abs(got / exact - 1) < 0.06, `${got} for ${exact}`);
    });
  });

  test("what is too short or too long is counted at the ends", () => {
    const histogram = new LatencyHistogram();
    for (const duration of [-1, 0]) histogram.record(duration);
    assert.equal(histogram.percentile(1), 0.0005);
    histogram.record(1e9);
    assert.ok((histogram.percentile(1) ?? 0) > 100_000);
  });

  test("what is long ago weighs little", () => {
    const histogram = new LatencyHistogram();
    for (let i = 0; i < 10_000; i++) histogram.record(1);
    for (let i = 0; i < 25_000; i++) histogram.record(100);
    assert.ok((histogram.percentile(0.2) ?? 0) > 90);
  });
});

describe("the request on its way", () => {
  const forNode = (head: string, address = "192.0.2.7") =>
    requestForNode(parseRequest(head.replaceAll("\n", "\r\n")), address, "here");
  const lines = (head: string, address?: string) =>
    [...forNode(head, address).fields].map(([name, value]) => `${name}: ${value}`);
  const OURS = [
    "Via: 1.1 here",
    "Forwarded: for=192.0.2.7;host=a;proto=http",
    "X-Forwarded-For: 192.0.2.7",
    "X-Forwarded-Proto: http",
  ];

  test("says where it comes from; what the client says of that is replaced, in any spelling", () => {
    const forged = [
      "Forwarded: for=1.1.1.1",
      "x-forwarded-for: 1.1.1.1",
      "X-FORWARDED-PROTO: https",
      "X_Forwarded_For: 1",
      "X-Forwarded: for=1.1.1.1",
    ];
    const more = ["X-Real-IP: 1.1.1.1", "X-Forwarded-Host: evil", "X-Forwarded-For: 2.2.2.2"];
    assert.deepEqual(lines(["GET / HTTP/1.1", "Host: a", ...forged, "X-Mine: 1", ...more].join("\n")), [
      "Host: a",
      "X-Mine: 1",
      ...OURS,
    ]);
  });

  test("naming our fields in Connection does not remove them", () => {
    const head =
      "GET / HTTP/1.1\nHost: a\nConnection: x-forwarded-for, forwarded, via, host, x-mine\nX-Mine: 1";
    assert.deepEqual(lines(head), ["Host: a", ...OURS]);
  });

  test("Forwarded quotes what is no token (RFC 7239)", () => {
    assert.equal(forwardedElement("::1", "a:80"), 'for="[::1]";host="a:80";proto=http');
    assert.equal(forwardedElement("10.0.0.1", undefined), "for=10.0.0.1;proto=http");
    assert.equal(forwardedElement("10.0.0.1", 'a"b'), 'for=10.0.0.1;host="a\\"b";proto=http');
  });

  test("an address of IPv4 is one, whichever socket it came in on", () => {
    assert.deepEqual(["::ffff:192.0.2.7", "192.0.2.7", "2001:db8::1", "::ffff:c000:207"].map(plainAddress), [
      "192.0.2.7",
      "192.0.2.7",
      "2001:db8::1",
      "::ffff:c000:207",
    ]);
  });

  test("an absolute target is said to the node as its own, with its host", () => {
    for (const [target, expected, host] of [
      ["http://other:81/a?b", "/a?b", "other:81"],
      ["http://other", "/", "other"],
      ["http://other?x", "/?x", "other"],
      ["/a", "/a", "a"],
    ]) {
      const request = forNode(`GET ${target} HTTP/1.1\nHost: a`);
      assert.deepEqual([request.target, request.fields.get("Host")], [expected, host], target);
    }
    assert.equal(forNode("OPTIONS http://other HTTP/1.1\nHost: a").target, "*");
    assert.equal(forNode("OPTIONS * HTTP/1.1\nHost: a").target, "*");
    assert.deepEqual(lines("GET / HTTP/1.0").slice(0, 2), ["Host: ", "Via: 1.0 here"]);
    assert.throws(() => forNode("GET http://u@h/ HTTP/1.1\nHost: a"), { status: 400 });
  });

  test("CONNECT is refused, and so is a request that has been here", () => {
    assert.throws(() => forNode("CONNECT a:80 HTTP/1.1\nHost: a"), { status: 501 });
    assert.throws(() => forNode("GET / HTTP/1.1\nHost: a\nVia: 1.1 x, 1.1 here"), { status: 508 });
    assert.ok(lines("GET / HTTP/1.1\nHost: a\nVia: 1.1 x").includes("Via: 1.1 x"));
  });

  test("an upgrade goes on with its two fields, but not to HTTP/2", () => {
    const head = "GET / HTTP/1.1\nHost: a\nConnection: keep-alive, Upgrade\nUpgrade: websocket";
    assert.deepEqual(lines(head).slice(1, 3), ["Connection: upgrade", "Upgrade: websocket"]);
    for (const other of [
      head.replace("websocket", "h2c"),
      head.replace("websocket", "websocket, H2C"),
      head.replace("websocket", "HTTP/2.0"),
      head.replace("GET", "POST"),
      head.replace("HTTP/1.1", "HTTP/1.0"),
      head.replace("keep-alive, Upgrade", "keep-alive"),
      head.replace("\nUpgrade: websocket", ""),
    ]) {
      const request = parseRequest(other.replaceAll("\n", "\r\n"));
      assert.equal(wantedUpgrade(request), undefined, other);
      assert.ok(!/upgrade/i.test(`${requestForNode(request, "a", "v").fields}`), other);
    }
  });

  test("a chunked body stays chunked", () => {
    const head = "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked";
    assert.deepEqual(lines(head).slice(1, 2), ["Transfer-Encoding: chunked"]);
  });
});

test("what may be sent again (RFC 9110 §9.2.2)", () => {
  const failed = { method: "GET", isSent: true, isAnswered: false, isBodyGone: false, isLate: false };
  for (const [change, expected] of [
    [{}, true],
    [{ method: "PUT" }, true],
    [{ method: "POST" }, false],
    [{ method: "POST", isSent: false }, true],
    [{ method: "PATCH" }, false],
    [{ isAnswered: true }, false],
    [{ isAnswered: true, isSent: false }, false],
    [{ isBodyGone: true }, false],
    [{ isLate: true }, false],
    [{ isLate: true, isSent: false }, true],
  ] as const) {
    assert.equal(mayRetry({ ...failed, ...change }), expected, JSON.stringify(change));
  }
});

describe("configuration", () => {
  const folder = mkdtempSync(join(tmpdir(), "netlab-balancer-rules-"));
  const file = join(folder, "balancer.ini");
  after(() => rmSync(folder, { recursive: true }));
  const NONE = {
    algorithm: undefined,
    healthPath: undefined,
    healthInterval: undefined,
    failAfter: undefined,
    passAfter: undefined,
    timeout: undefined,
    retries: undefined,
    backend: [],
  };
  const read = (text: string, options = {}) => {
    writeFileSync(file, text);
    return readConfiguration(file, { ...NONE, ...options });
  };
  const NODE = "[nodo1]\nhost = 127.0.0.1\nport = 10601\n";

  test("the assignment's form is enough", () => {
    const { policy, nodes } = read(`${NODE}[nodo2]\nhost = ::1\nport = 10602\nweight = 3\n`);
    assert.deepEqual(nodes, [
      { name: "nodo1", host: "127.0.0.1", port: 10601, weight: 1 },
      { name: "nodo2", host: "::1", port: 10602, weight: 3 },
    ]);
    assert.deepEqual(policy, {
      algorithm: "round-robin",
      healthPath: "/",
      healthInterval: 2,
      failAfter: 3,
      passAfter: 2,
      timeout: 30,
      retries: 2,
    });
  });

  test("the command line goes first; with --backend there is no file", () => {
    const text = `[balancer]\nalgorithm = ip-hash\ntimeout = 0.5\nretries = 0\n${NODE}`;
    const { policy } = read(text, { algorithm: "random-two" });
    assert.deepEqual([policy.algorithm, policy.timeout, policy.retries], ["random-two", 0.5, 0]);
    const backend = [
      { host: "a", port: 1 },
      { host: "b", port: 2 },
    ];
    const { nodes, policy: defaults } = readConfiguration("/none", { ...NONE, backend, failAfter: 9 });
    assert.deepEqual(
      nodes.map(({ name, host, weight }) => `${name} ${host} ${weight}`),
      ["node1 a 1", "node2 b 1"],
    );
    assert.deepEqual([defaults.failAfter, defaults.algorithm], [9, "round-robin"]);
  });

  test("what is wrong is said with file, line, section and key", () => {
    for (const [text, message] of [
      [`${NODE}weight = 0\n`, ':4: [nodo1] weight "0" is not a whole number from 1 to 1000'],
      ["[nodo1]\nhost = a\nport = 0\n", ':3: [nodo1] port "0" is not a port (1 to 65535)'],
      ["[nodo1]\nhost = a\n", ":1: [nodo1] port is missing: its port"],
      ["[nodo1]\nport = 1\n", ":1: [nodo1] host is missing: name or address of the node"],
      [`${NODE}wieght = 2\n`, ":4: [nodo1] wieght is unknown; known are host, port, weight"],
      [
        `[balancer]\nalgorithm = fastest\n${NODE}`,
        ':2: [balancer] algorithm "fastest" is none of round-robin, least-connections, random-two, ip-hash',
      ],
      [
        `[balancer]\ntimeout = -1\n${NODE}`,
        ':2: [balancer] timeout "-1" is not a number of seconds from 0.001 to 86400',
      ],
      [`[balancer]\nhealth-path = x\n${NODE}`, ':2: [balancer] health-path "x" is not a path (/…)'],
      [`${NODE}[b]\nhost = 127.0.0.1\nport = 10601\n`, ":6: [b] port: 127.0.0.1:10601 is [nodo1] already"],
      ["[balancer]\n", ": has no node; add a section [node1] with host and port"],
    ]) {
      assert.throws(() => read(text ?? ""), { name: "UsageError", message: `${file}${message}` });
    }
  });
});
