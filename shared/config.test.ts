import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import {
  boolean,
  decimal,
  flag,
  host,
  hostPort,
  Ini,
  integer,
  kebabCase,
  many,
  oneOf,
  optional,
  type Parse,
  port,
  readSetting,
  type Setting,
  type Settings,
  type SettingsValue,
  setting,
  text,
} from "./config.ts";
import { explain, Failure, UsageError } from "./errors.ts";

const folder = mkdtempSync(join(tmpdir(), "netlab-config-"));
after(() => rmSync(folder, { recursive: true }));

let files = 0;
/** A configuration file with this content. */
function ini(content: string | Buffer): Ini {
  const path = join(folder, `${files++}.ini`);
  writeFileSync(path, content);
  return new Ini(path);
}

/** The line that the user reads, without the file's folder. */
function complaint(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    assert.ok(error instanceof UsageError, String(error));
    const line = explain(error);
    assert.ok(!line.includes("\n"));
    return line.replaceAll(`${folder}/`, "").replace(/\d+\.ini/, "x.ini");
  }
  return assert.fail("no complaint");
}

const PARSERS: readonly (readonly [
  name: string,
  parse: Parse<unknown>,
  good: readonly (readonly [string, unknown])[],
  bad: readonly string[],
  complaint: string,
])[] = [
  ["text", text, [["", ""], [" a ", " a "], ["true", "true"]], [], ""],
  [
    "integer(-5, 10)",
    integer(-5, 10),
    [["-5", -5], ["0", 0], ["10", 10], ["+7", 7], ["007", 7]],
    ["", " ", "-6", "11", "1.5", "1e1", "0x5", "5 ", " 5", "five", "NaN", "--5", "1_0", "٣", "Infinity"],
    "is not a whole number from -5 to 10",
  ],
  [
    "integer(1)",
    integer(1),
    [["1", 1], ["9007199254740991", Number.MAX_SAFE_INTEGER]],
    ["0", "9007199254740992", "1".repeat(400)],
    "is not a whole number from 1 up",
  ],
  [
    'decimal("ms", -1, 2)',
    decimal("ms", -1, 2),
    [["-1", -1], ["0.25", 0.25], ["+2.0", 2]],
    ["", "-1.1", "2.01", "1e0", ".5", "1.", "NaN", "1 "],
    "is not a number of ms from -1 to 2",
  ],
  ['decimal("ms", 0)', decimal("ms", 0), [["1000000.5", 1_000_000.5]], ["-0.1"], "is not a number of ms from 0 up"],
  [
    "port",
    port,
    [["0", 0], ["65535", 65_535], ["080", 80]],
    ["", "65536", "-1", "+1", "80 ", "http", "1.5", "8e1", "NaN", "99999999999999999999"],
    "is not a port (0 to 65535)",
  ],
  [
    "host",
    host,
    [
      ["localhost", "localhost"],
      ["example.org", "example.org"],
      ["127.0.0.1", "127.0.0.1"],
      ["::1", "::1"],
      ["[::1]", "::1"],
      ["::", "::"],
      ["[::ffff:127.0.0.1]", "::ffff:127.0.0.1"],
      ["ñandú.example", "ñandú.example"],
    ],
    ["", "[]", "[::1", "::1]", "a b", "a/b", "http://a", "a\n", "127.0.0.1:80", "localhost:80", "[::1]:80", "1:2"],
    "is not a host name or address",
  ],
  [
    "boolean",
    boolean,
    [["true", true], ["YES", true], ["on", true], ["1", true], ["False", false], ["no", false], ["off", false], ["0", false]],
    ["", "2", "y", "truee", "null", " true"],
    "is neither true nor false",
  ],
  ["oneOf", oneOf("tcp", "udp"), [["tcp", "tcp"], ["udp", "udp"]], ["", "TCP", "sctp", "constructor"], "is none of tcp, udp"],
]; // biome-ignore format: a table

for (const [name, parse, good, bad, message] of PARSERS) {
  test(`${name}: what it takes and what it refuses`, () => {
    for (const [given, expected] of good) assert.deepEqual(parse(given), expected, given);
    for (const given of bad) {
      assert.throws(
        () => parse(given),
        (error) => error instanceof Failure && error.message === message,
        given,
      );
    }
  });
}

test("host and port", () => {
  const parse = hostPort(123);
  for (const [given, name, number] of [
    ["localhost", "localhost", 123],
    ["localhost:80", "localhost", 80],
    ["127.0.0.1:0", "127.0.0.1", 0],
    ["::1", "::1", 123],
    ["2001:db8::1", "2001:db8::1", 123],
    ["[::1]", "::1", 123],
    ["[::1]:8080", "::1", 8080],
  ] as const) {
    assert.deepEqual(parse(given), { host: name, port: number }, given);
  }
  for (const [given, message] of [
    ["", "is not a host name or address"],
    [":80", "is not a host name or address"],
    ["localhost:", "is not a port (0 to 65535)"],
    ["localhost:http", "is not a port (0 to 65535)"],
    ["[::1]:", "is not a port (0 to 65535)"],
    ["[::1]:65536", "is not a port (0 to 65535)"],
    ["localhost:80:90", "is not a host name or address"],
    ["[]:80", "is not a host name or address"],
    ["[::1]80", "is not a host name or address"],
    ["a b:80", "is not a host name or address"],
  ] as const) {
    assert.throws(() => parse(given), { name: "Failure", message }, given);
  }
});

test("the type of the settings follows from their declaration", () => {
  const settings = {
    port: setting(port, "", 80),
    name: optional(text, ""),
    tags: many(integer(0), ""),
    quiet: flag(""),
    mode: setting(oneOf("a", "b"), "", "a"),
    to: setting(hostPort(1), ""),
  };
  type Value = {
    port: number;
    name: string | undefined;
    tags: number[];
    quiet: boolean;
    mode: "a" | "b";
    to: { host: string; port: number };
  };
  type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
  const same: Equal<SettingsValue<typeof settings>, Value> = true;
  assert.ok(same);
});

test("a setting: given, last of several, a list, its default, missing", () => {
  const read = <T>(of: Setting<T>, ...texts: string[]) =>
    readSetting(of, texts, (text) => `here${text ?? ""}`);
  const count = setting(integer(0), "how many", 7);
  assert.equal(read(count, "1"), 1);
  assert.equal(read(count, "1", "2"), 2);
  assert.equal(read(count), 7);
  assert.equal(read(setting(integer(0), "", 0)), 0);
  assert.equal(read(setting(text, "", "")), "");
  assert.equal(read(flag("")), false);
  assert.equal(read(flag(""), "true"), true);
  assert.equal(read(optional(text, "")), undefined);
  assert.deepEqual(read(many(integer(0), ""), "1", "2"), [1, 2]);
  assert.deepEqual(read(many(integer(0), "")), []);
  assert.equal(
    complaint(() => read(setting(integer(0), "how many"))),
    "here is missing: how many",
  );
  assert.equal(
    complaint(() => read(count, "1", 'x"y', "2")),
    'herex"y "x\\"y" is not a whole number from 0 up',
  );
  const buggy = setting<string>(() => {
    throw new TypeError("a bug");
  }, "");
  assert.throws(() => read(buggy, "x"), TypeError);
});

test("names with hyphens", () => {
  for (const [name, kebab] of [
    ["port", "port"],
    ["ntpServer", "ntp-server"],
    ["idDst", "id-dst"],
    ["a1B", "a1-b"],
  ]) {
    assert.equal(kebabCase(name ?? ""), kebab);
  }
});

const SETTINGS = {
  host: setting(host, "where", "127.0.0.1"),
  port: setting(port, "which"),
  ntpServer: many(text, "who knows"),
  idDst: optional(integer(0), "to whom", { alias: ["id_dst", "destino"] }),
  quiet: flag("say less"),
} satisfies Settings;

test("a file: comments, spaces, quotes, lists, and every spelling of sections and keys", () => {
  const file = ini(
    [
      "; a comment",
      "# another",
      "",
      "[Server]   ; the first",
      "  Host = example.org ; behind a value",
      'PORT="80"',
      "ntp-server[] = a",
      "ntp-server[]=b = c",
      "NtpServer[] = 'd ; e'",
      "quiet",
      "[ other ]",
      "port = 1",
      "id_DST = 5",
      "quiet = off",
    ].join("\n"),
  );
  assert.deepEqual(file.sections, ["server", "other"]);
  assert.deepEqual(file.section("server", SETTINGS), {
    host: "example.org",
    port: 80,
    ntpServer: ["a", "b = c", "d ; e"],
    idDst: undefined,
    quiet: true,
  });
  assert.deepEqual(file.section("Other", SETTINGS), {
    host: "127.0.0.1",
    port: 1,
    ntpServer: [],
    idDst: 5,
    quiet: false,
  });
  assert.equal(
    file.section("other", { ...SETTINGS, idDst: setting(integer(0), "", 1, { alias: ["ID_DST"] }) }).idDst,
    5,
  );
});

test("the same file with a byte order mark, with CRLF, and indented", () => {
  const lines = ["[server]", "port = 80", "host = ::1", ""];
  for (const content of [
    `\ufeff${lines.join("\n")}`,
    lines.join("\r\n"),
    `\ufeff${lines.join("\r\n")}`,
    lines.join("\n\n\n"),
    lines.map((line) => `\t ${line} \t`).join("\n"),
    lines.join("\n").trimEnd(),
  ]) {
    const { host, port } = ini(content).section("server", SETTINGS);
    assert.deepEqual({ host, port }, { host: "::1", port: 80 }, JSON.stringify(content));
  }
});

test("values come as they stand: what looks like another type is a text", () => {
  const names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] as const;
  const texts = Object.fromEntries(names.map((name) => [name, optional(text, "")]));
  const file = ini(
    '[s]\na = true\nb = null\nc = 1.10\nd = 0x10\ne =\nf = "  spaced  "\ng = a\\;b\\#c\nh = {"x": 1}\ni = 1e3\nj = \'it is\'',
  );
  assert.deepEqual(file.section("s", texts), {
    a: "true",
    b: "null",
    c: "1.10",
    d: "0x10",
    e: "",
    f: "  spaced  ",
    g: "a;b#c",
    h: '{"x": 1}',
    i: "1e3",
    j: "it is",
  });
});

test("a section given twice is one", () => {
  const file = ini("[a]\nport = 2\n[b]\nport = 3\n[A]\nhost = two");
  assert.deepEqual(file.sections, ["a", "b"]);
  const { host, port } = file.section("a", SETTINGS);
  assert.deepEqual({ host, port }, { host: "two", port: 2 });
});

test("sections with dots, and sections and keys that every object has", () => {
  const file = ini(
    "[a.b]\nport = 1\n[a]\nport = 2\n[a.b.c]\nport = 3\n[constructor]\nport = 4\n[node.1] ; a.b\nport = 5\n" +
      "[__proto__]\nport = 6\n[toString]\nhasOwnProperty = x",
  );
  for (const [name, port] of [
    ["a.b", 1],
    ["a", 2],
    ["a.b.c", 3],
    ["constructor", 4],
    ["node.1", 5],
  ] as const) {
    assert.equal(file.section(name, SETTINGS).port, port, name);
  }
  assert.equal(file.section("toString", { hasOwnProperty: setting(text, "") }).hasOwnProperty, "x");
  assert.equal((Object.prototype as Record<string, unknown>)["port"], undefined);
  assert.match(
    complaint(() => file.section("valueOf", SETTINGS)),
    /port is missing/,
  );
});

test("what is wrong in a file is said with file, line, section and key", () => {
  const COMPLAINTS: readonly (readonly [content: string, complaint: string])[] = [
    ["[s]\nport = 99999", 'x.ini:2: [s] port "99999" is not a port (0 to 65535)'],
    [
      "; port = 1\n\n[t]\nport = x\n[s]\n\n# port\nport = y",
      'x.ini:8: [s] port "y" is not a port (0 to 65535)',
    ],
    ["[s]\r\nhost=a b\r\nport=1\r\n", 'x.ini:2: [s] host "a b" is not a host name or address'],
    ["\ufeff[s]\nport = -1", 'x.ini:2: [s] port "-1" is not a port (0 to 65535)'],
    ["[s]\nport = 1\nport = 2", "x.ini:3: [s] port stands in line 2 too; a list is written port[] = …"],
    [
      "[s]\nport = 1\n[t]\n[S]\nPORT = x",
      "x.ini:5: [s] port stands in line 2 too; a list is written PORT[] = …",
    ],
    ["[s]\nport[] = 1\nport[] = 2", "x.ini:3: [s] port is given 2 times, and is no list"],
    ["[s]\nport = 1\ndestino = 1\nid-dst = 2", "x.ini:3: [s] destino is given 2 times, and is no list"],
    ["[s]\nport = 1\ndestino = x", 'x.ini:3: [s] destino "x" is not a whole number from 0 up'],
    ["[s]\nport = 1\nId-Dst = x", 'x.ini:3: [s] id-dst "x" is not a whole number from 0 up'],
    ["[s]\nport = 1\niddst = x", 'x.ini:3: [s] iddst "x" is not a whole number from 0 up'],
    ["[s]\nport = 1\nquiet = perhaps", 'x.ini:3: [s] quiet "perhaps" is neither true nor false'],
    ["[s]\nhost = a", "x.ini:1: [s] port is missing: which"],
    ["\n\n[t]\n[s] ; here\nhost = a", "x.ini:4: [s] port is missing: which"],
    ["", "x.ini: [s] port is missing: which"],
    ["[t]\nport = 1", "x.ini: [s] port is missing: which"],
    [
      "[s]\nport = 1\nprot = 2",
      "x.ini:3: [s] prot is unknown; known are host, port, ntp-server, id-dst, quiet",
    ],
    [
      "[s]\nport = 1\nconstructor = 2",
      "x.ini:3: [s] constructor is unknown; known are host, port, ntp-server, id-dst, quiet",
    ],
    ["port = 1\n[s]\nport = 2", "x.ini:1: port: stands outside of any [section]"],
    ["; so\n[s\nport = 2", "x.ini:2: [s: stands outside of any [section]"],
    ["[t]\na = 1\n[s] port = 1", "x.ini:3: [t] [s] port is no [section]"],
  ];
  for (const [content, expected] of COMPLAINTS) {
    assert.equal(
      complaint(() => ini(content).section("s", SETTINGS)),
      expected,
      JSON.stringify(content),
    );
  }
  const lists = "[s]\nport = 1\nn[] = 1\nn[] = x\nn[] = 3";
  assert.equal(
    complaint(() => ini(lists).section("s", { port: SETTINGS.port, n: many(integer(0), "") })),
    'x.ini:4: [s] n "x" is not a whole number from 0 up',
  );
});

test("a file that cannot be read", () => {
  assert.equal(
    complaint(() => new Ini(join(folder, "nowhere.ini"))),
    "cannot read the configuration nowhere.ini: no such file or directory (ENOENT)",
  );
  assert.equal(
    complaint(() => new Ini(folder)).replace(folder, "FOLDER"),
    "cannot read the configuration FOLDER: it is a directory (EISDIR)",
  );
});

test("garbage is a complaint or a configuration, nothing else", () => {
  let state = 1;
  const alphabet = "[]=;#\"'\\.\n\r\t ab0\u0000\ufeffé{}";
  for (let round = 0; round < 1000; round++) {
    let content = "";
    for (let i = 0; i < 40; i++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      content += alphabet[(state >>> 8) % alphabet.length];
    }
    const path = join(folder, "garbage.ini");
    writeFileSync(path, content);
    try {
      const file = new Ini(path);
      for (const section of file.sections) file.section(section, SETTINGS);
    } catch (error) {
      assert.ok(
        error instanceof UsageError,
        `${JSON.stringify(content)}: ${error instanceof Error ? error.stack : error}`,
      );
    }
  }
});
