/** The client's pure rules: offers of calls, what is shown, what is typed. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { ctcp, ctcpOf, formatOffer, isRejection, parseOffer, REJECTION, whyRefused } from "./dcc.ts";
import { describeMessage, formatSaid, fromWire, hostOf, nickOf } from "./display.ts";
import { INPUT_COMMANDS, parseInput, piecesFor } from "./input.ts";
import { formatLine, MAX_LINE_BYTES, parseLine, toWire } from "./protocol.ts";

const SEED = 20_261_112;
const check = (property: fc.IRawProperty<unknown>) =>
  fc.assert(property as never, { seed: SEED, numRuns: 500 });
const bytes = fc
  .array(fc.integer({ min: 0, max: 255 }), { maxLength: 60 })
  .map((codes) => String.fromCharCode(...codes));

describe(`offers of calls (seed ${SEED})`, () => {
  test("what is formatted is parsed as the same", () => {
    assert.equal(formatOffer({ host: "127.0.0.1", port: 40_123 }), "\x01DCC CHAT chat 2130706433 40123\x01");
    check(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), fc.integer({ min: 0, max: 65_535 }), (host, port) => {
        assert.deepEqual(parseOffer(ctcpOf(formatOffer({ host, port })) ?? ""), { host, port });
      }),
    );
  });

  test("others' spellings", () => {
    assert.deepEqual(parseOffer("dcc  chat CHAT 10.0.0.1 5000"), { host: "10.0.0.1", port: 5000 });
    assert.deepEqual(parseOffer("DCC CHAT chat 167772161 5000 token"), { host: "10.0.0.1", port: 5000 });
    assert.equal(parseOffer("DCC SEND file 1 2 3"), undefined);
    assert.equal(parseOffer("VERSION"), undefined);
    assert.ok(isRejection(ctcpOf(REJECTION) ?? ""));
    assert.equal(ctcpOf("plain"), undefined);
    assert.equal(ctcpOf("\x01open"), "open");
    assert.equal(ctcpOf("\x01"), "");
  });

  test("what cannot be understood, names among it, which would have to be looked up", () => {
    for (const rest of [
      "",
      "chat",
      "chat 1",
      "chat 4294967296 5000",
      "chat example.org 5000",
      "chat 1.2.3 5",
      "chat 1 65536",
      "chat 1 x",
      "chat -1 5000",
      "chat 1 123456",
    ])
      assert.equal(parseOffer(`DCC CHAT ${rest}`.trim()), null, rest);
  });

  test("refused: privileged ports, other services' ones, no machine's addresses, this machine from afar", () => {
    const [here, afar] = [
      { host: "127.0.0.1", port: 10_900 },
      { host: "192.0.2.1", port: 10_900 },
    ];
    const refused = (host: string, port: number, server = here) => whyRefused({ host, port }, server);
    for (const port of [
      0, 1, 22, 80, 1023, 1080, 2375, 3306, 5432, 5905, 6000, 6063, 6379, 6660, 6667, 6669, 6697, 8080,
      11_211, 27_017, 10_900,
    ])
      assert.ok(refused("127.0.0.1", port), `port ${port}`);
    for (const port of [1024, 5911, 5999, 6064, 6659, 6670, 40_000, 65_535])
      assert.equal(refused("127.0.0.1", port), undefined, `port ${port}`);
    for (const host of [
      "0.0.0.0",
      "224.0.0.1",
      "239.1.2.3",
      "255.255.255.255",
      "::",
      "ff02::1",
      "::ffff:127.0.0.1",
      "0::0",
      "0:0:0:0:0:ffff:7f00:1",
      "::127.0.0.1",
    ])
      assert.ok(refused(host, 40_000), host);
    for (const host of ["127.0.0.1", "127.8.9.10", "::1", "0::1", "0:0:0:0:0:0:0:1", "::1%lo"]) {
      assert.equal(refused(host, 40_000), undefined, `${host} on one machine`);
      assert.match(refused(host, 40_000, afar) ?? "", /this machine itself/);
    }
    for (const host of ["198.51.100.7", "2001:db8::1", "fe80::1%eth0", "2001::2:1"])
      assert.equal(refused(host, 40_000, afar), undefined, host);
  });
});

describe("what is shown", () => {
  const show = (line: string, me = "me") => {
    const message = parseLine(line);
    return message && describeMessage(message, me);
  };

  test("texts go to the window that they belong to", () => {
    for (const [line, shown] of [
      [":ana!~a@h PRIVMSG #lab :hi there", "[#lab] <ana> hi there"],
      [":ana!~a@h PRIVMSG me :psst", "[ana] <ana> psst"],
      [":me!~m@h PRIVMSG ana :from another window", "[ana] <me> from another window"],
      [":ana!~a@h PRIVMSG #lab :\x01ACTION waves\x01", "[#lab] * ana waves"],
      [":ana!~a@h NOTICE me :note", "[ana] -ana- note"],
      [":srv NOTICE me :be warned", "-- be warned"],
      [":ana!~a@h PRIVMSG me :\x01VERSION\x01", "[ana] -- ana sent a CTCP request: VERSION"],
      [":ana!~a@h NOTICE me :\x01PING 1\x01", "[ana] -- ana sent a CTCP answer: PING"],
      [":ana!~a@h JOIN #lab", "[#lab] --> ana has joined"],
      [":ana!~a@h PART #lab :bye", "[#lab] <-- ana has left (bye)"],
      [":ana!~a@h PART #lab", "[#lab] <-- ana has left"],
      [":ana!~a@h QUIT :Quit: x", "<-- ana is gone (Quit: x)"],
      [":op!~a@h KICK #lab ana :out", "[#lab] <-- ana was kicked by op (out)"],
      [":ana!~a@h NICK eva", "-- ana is now eva"],
      [":ana!~a@h TOPIC #lab :new", "[#lab] -- ana has set the topic: new"],
      [":ana!~a@h MODE #lab +o-k bob *", "[#lab] -- ana has set +o-k bob *"],
      [":ana!~a@h INVITE me #lab", "-- ana invites me to #lab"],
      ["ERROR :Closing Link: h (x)", "-- the server: Closing Link: h (x)"],
      [":s 401 me bob :No such nick/channel", "-- bob No such nick/channel"],
      [":s 301 me bob :at lunch", "[bob] -- bob is away: at lunch"],
      [":s 332 me #lab :topic", "[#lab] -- topic: topic"],
      [":s 353 me = #lab :@ana bob", "[#lab] -- here: @ana bob"],
      [":s 352 me #lab ~a h s ana H@ :0 Ana B", "-- ana (~a@h) #lab H@ Ana B"],
      [":s 366 me #lab :End of /NAMES list", undefined],
      [":s FROB me", undefined],
    ] as const)
      assert.equal(show(line), shown, line);
    assert.equal(nickOf("ana!b@c"), "ana");
    assert.equal(hostOf("ana!b@c"), "c");
    assert.equal(hostOf("srv"), "");
  });

  test("nothing that a peer sends is a control character on the terminal", () => {
    assert.equal(fromWire("a\x1b[2Jb\x07\x9b31m\x0fc"), "a[2Jb31mc");
    assert.equal(fromWire(toWire("\u202eevil\u2066 \u2028x\u0085y")), "evil xy");
    assert.equal(fromWire("\x0304,01red\x03 \x02bold\x02"), "red bold");
    assert.equal(fromWire(toWire("caf\u00e9 \u{1f600}")), "caf\u00e9 \u{1f600}");
    assert.equal(fromWire("caf\xe9"), "caf\u00e9", "what is no UTF-8 is latin1");
    check(
      fc.property(bytes, bytes, bytes, (a, b, c) => {
        for (const text of [
          fromWire(a),
          formatSaid(a, b, c),
          show(`:${a} PRIVMSG ${b} :${c}`) ?? "",
          show(`:s ${a} ${b} :${c}`) ?? "",
        ])
          assert.doesNotMatch(text, /[\p{Cc}\u202a-\u202e\u2066-\u2069]/u);
      }),
    );
  });
});

describe("what is typed", () => {
  test("commands with their words and the rest as one text; plain texts; what is wrong is said", () => {
    for (const [line, expected] of [
      ["hello  there ", { command: "say", args: ["hello  there "] }],
      ["//etc is a folder", { command: "say", args: ["/etc is a folder"] }],
      ["/msg bob  two  words", { command: "msg", args: ["bob", "two  words"] }],
      ["/MSG :bob :x", { command: "msg", args: ["bob", ":x"] }],
      ["/join #a key", { command: "join", args: ["#a", "key"] }],
      ["/quit", { command: "quit", args: [] }],
      ["/quit so long", { command: "quit", args: ["so long"] }],
      ["/me waves", { command: "me", args: ["waves"] }],
      ["", undefined],
      ["   ", undefined],
      ["/msg bob", "usage: /msg NICK TEXT"],
      ["/frob x", "there is no /frob; /help says what there is"],
      ["/constructor", "there is no /constructor; /help says what there is"],
      ["a\r\nQUIT\0", { command: "say", args: ["aQUIT"] }],
    ] as const)
      assert.deepEqual(parseInput(line), expected, line);
  });

  test("whatever is typed can be put in a line", () => {
    const command = fc.constantFrom(...Object.keys(INPUT_COMMANDS));
    check(
      fc.property(command, bytes, (command, text) => {
        const input = parseInput(`/${command} ${text}`);
        if (typeof input !== "object") return;
        const words = INPUT_COMMANDS[command]?.words ?? 0;
        for (const word of input.args.slice(0, words))
          assert.doesNotThrow(() => formatLine("", "X", word, "end"));
        assert.doesNotThrow(() => formatLine("", "X", ...input.args.slice(words)));
      }),
    );
  });

  test("a long text goes in pieces that arrive whole, and no character is cut", () => {
    const source = `${"n".repeat(16)}!~${"u".repeat(9)}@${"1234:".repeat(7)}1234:255.255.255.255`;
    const text = toWire("\u00e9\u{1f600}x".repeat(500));
    const pieces = piecesFor("#channel", text);
    assert.equal(pieces.join(""), text);
    for (const piece of pieces) {
      const line = formatLine(source, "PRIVMSG", "#channel", `\x01ACTION ${piece}\x01`);
      assert.ok(line.length < MAX_LINE_BYTES - 2, "it was not cut");
      assert.doesNotMatch(Buffer.from(piece, "latin1").toString(), /\ufffd/);
    }
    assert.deepEqual(piecesFor("a", "short"), ["short"]);
    assert.equal(
      piecesFor("n".repeat(600), "x".repeat(120)).length,
      3,
      "a target of any length comes to an end",
    );
    assert.equal(
      piecesFor("a", "\x80".repeat(1000)).join("").length,
      1000,
      "no UTF-8: cut anywhere, but to an end",
    );
    assert.equal(ctcp("x"), "\x01x\x01");
  });
});
