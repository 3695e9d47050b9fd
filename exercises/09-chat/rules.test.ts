/** The server's rules without a network: who says what, and who then hears what, in whole lines. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { runLine } from "./commands.ts";
import { LIMITS, MAX_LINE_BYTES } from "./protocol.ts";
import { type ChatOptions, connectUser, createChat, quit, shutDown, type User } from "./state.ts";

const SEED = 20_261_110;

/** A chat in which the named ones are registered. What is heard comes back as `nick< line`, the server being `s`. */
function room(nicks: readonly string[], options: Partial<ChatOptions> = {}) {
  const clock = { nowMs: 1_000_000 };
  const chat = createChat({ name: "s", nowMs: () => clock.nowMs, ...options });
  const heard: string[] = [];
  const users = new Map<string, User>();
  const closed = new Set<string>();

  function connect(id: string, address = "h"): User {
    const link = {
      send: (line: string) => void heard.push(`${id}< ${line}`),
      close: () => void closed.add(id),
    };
    const user = connectUser(chat, address, link);
    users.set(id, user);
    return user;
  }
  /** What is heard, by anybody, after these lines of one of them. */
  function say(id: string, ...lines: readonly string[]): string[] {
    heard.length = 0;
    for (const line of lines) runLine(chat, users.get(id) ?? connect(id), line);
    return [...heard];
  }
  for (const nick of nicks) say(nick, `NICK ${nick}`, `USER ${nick} 0 * :${nick}'s name`);
  return {
    chat,
    clock,
    heard,
    closed,
    connect,
    say,
    user: (id: string) => users.get(id) as User,
    /** Only the numbers of the replies to the one who speaks. */
    codes: (id: string, ...lines: string[]) =>
      say(id, ...lines).map((line) => /^(\S+)< (?::s )?(\S+)/.exec(line)?.slice(1).join(" ")),
  };
}
const source = (nick: string) => `${nick}!~${nick}@h`;

describe("registration", () => {
  test("NICK and USER in either order; the welcome is 001 to 005, LUSERS and MOTD", () => {
    for (const order of [
      ["NICK ana", "USER ana 0 * :Ana"],
      ["USER ana 0 * :Ana", "NICK ana"],
    ]) {
      const { say } = room([]);
      const heard = say("x", ...order);
      assert.equal(heard[0], "x< :s 001 ana :Welcome to the netlab network, ana!~ana@h");
      const codes = heard.map((line) => /^x< :s (\d{3}) ana /.exec(line)?.[1]);
      assert.deepEqual(codes, "001 002 003 004 005 005 251 252 255 265 266 422".split(" "));
    }
  });

  test("CAP LS holds the registration until CAP END; there are no capabilities", () => {
    const { say, codes } = room([]);
    assert.deepEqual(say("x", "CAP LS 302", "NICK ana", "USER ana 0 * :Ana"), ["x< :s CAP * LS :"]);
    assert.deepEqual(say("x", "CAP REQ :sasl batch"), ["x< :s CAP ana NAK :sasl batch"]);
    assert.deepEqual(say("x", "CAP FROB"), ["x< :s 410 ana FROB :Invalid CAP command"]);
    assert.equal(codes("x", "CAP END")[0], "x 001");
    assert.deepEqual(say("x", "CAP LIST", "CAP END"), ["x< :s CAP ana LIST :"]);
    assert.equal(codes("y", "CAP REQ :a", "NICK y", "USER y 0 * :y").at(-1), "y CAP", "REQ holds it too");
  });

  test("PASS: the right one, a wrong one and none", () => {
    const { say, codes, closed } = room([], { password: "s\u00e9same" });
    const register = (id: string) => [`NICK ${id}`, `USER ${id} 0 * :x`];
    assert.equal(codes("a", "PASS :s\u00e9same", ...register("a"))[0], "a 001");
    for (const [id, lines] of [
      ["b", ["PASS sesame"]],
      ["c", []],
    ] as const) {
      assert.deepEqual(say(id, ...lines, ...register(id)), [
        `${id}< :s 464 ${id} :Password incorrect`,
        `${id}< ERROR :Closing Link: h (Bad password)`,
      ]);
      assert.ok(closed.has(id));
    }
    assert.deepEqual(say("a", "PASS x", "USER a 0 * :a"), [
      "a< :s 462 a :You may not reregister",
      "a< :s 462 a :You may not reregister",
    ]);
  });

  test("before it only what registers is heard; what is no line is nothing", () => {
    const { say } = room([]);
    for (const line of ["JOIN #a", "PRIVMSG a :b", "FROB", "WHOIS a"])
      assert.deepEqual(say("x", line), ["x< :s 451 * :You have not registered"], line);
    assert.deepEqual(say("x", "", " ", ":a", "\u00ff\u00fe"), []);
    assert.deepEqual(say("x", "PING 1", "NICK", "USER a", "NICK 1a"), [
      "x< :s PONG s 1",
      "x< :s 431 * :No nickname given",
      "x< :s 461 * USER :Not enough parameters",
      "x< :s 432 * 1a :Erroneous nickname",
    ]);
  });

  test("a user's name keeps what is harmless, and is cut; an IPv6 address cannot be a last parameter", () => {
    const { say, connect } = room([]);
    connect("x", "::1");
    assert.match(say("x", "NICK x", "USER a!b@c*d0123456 0 * :r")[0] ?? "", /, x!~abcd01234@0::1$/);
    connect("z", "::ffff:192.0.2.1");
    assert.match(say("z", "NICK z", "USER z 0 * :r")[0] ?? "", /, z!~z@192\.0\.2\.1$/);
    assert.match(say("y", "NICK y", "USER !@ 0 * :")[0] ?? "", /, y!~@h$/);
  });

  test("nicks: one each, whatever the spelling; a change is heard once by each who shares a channel", () => {
    const { say } = room(["ana[1]", "bob", "eva"]);
    assert.deepEqual(say("bob", "NICK ANA{1}"), ["bob< :s 433 bob ANA{1} :Nickname is already in use"]);
    assert.deepEqual(say("bob", `NICK ${"n".repeat(17)}`), [
      `bob< :s 432 bob ${"n".repeat(17)} :Erroneous nickname`,
    ]);
    say("bob", "JOIN #a,#b");
    say("eva", "JOIN #a,#b");
    assert.deepEqual(say("bob", "NICK Bob"), [
      `bob< :${source("bob")} NICK Bob`,
      `eva< :${source("bob")} NICK Bob`,
    ]);
    assert.deepEqual(say("bob", "NICK Bob"), [], "nothing has changed");
    assert.equal(say("eva", "NICK bob")[0], "eva< :s 433 eva bob :Nickname is already in use");
    say("bob", "NICK rob");
    assert.equal(say("eva", "NICK BOB").length, 2, "the old one is free");
  });

  test("a nick is taken from NICK on, and free when its owner has gone", () => {
    const { say, user, chat } = room([]);
    say("x", "NICK ana");
    assert.equal(say("y", "NICK Ana")[0], "y< :s 433 * Ana :Nickname is already in use");
    say("z", "NICK eva", "USER eva 0 * :Eva");
    assert.deepEqual(
      say("z", "PRIVMSG ana :x", "ISON ana", "USERHOST ana"),
      ["z< :s 401 eva ana :No such nick/channel", "z< :s 303 eva :", "z< :s 302 eva :"],
      "who is not registered yet is not there",
    );
    quit(chat, user("x"), "gone");
    assert.deepEqual(say("y", "NICK Ana"), []);
  });

  test("the message of the day, with its bytes", () => {
    const { say } = room(["ana"], { motd: ["caf\u00c3\u00a9", "", "\u00ff"] });
    assert.deepEqual(say("ana", "MOTD"), [
      "ana< :s 375 ana :- s Message of the day - ",
      "ana< :s 372 ana :- caf\u00c3\u00a9",
      "ana< :s 372 ana :- ",
      "ana< :s 372 ana :- \u00ff",
      "ana< :s 376 ana :End of /MOTD command.",
    ]);
    assert.deepEqual(say("ana", "MOTD other.example"), ["ana< :s 402 ana other.example :No such server"]);
    assert.equal(say("ana", "MOTD s").length, 5);
  });
});

describe("messages", () => {
  test("to a user, with any bytes; the target's spelling is its own", () => {
    const { say } = room(["ana", "bob"]);
    assert.deepEqual(say("ana", "PRIVMSG BOB :h\u00e9 \u00ff:x "), [
      `bob< :${source("ana")} PRIVMSG bob :h\u00e9 \u00ff:x `,
    ]);
    assert.deepEqual(say("ana", "PRIVMSG bob one"), [`bob< :${source("ana")} PRIVMSG bob one`]);
    assert.deepEqual(say("ana", "PRIVMSG ana :me"), [`ana< :${source("ana")} PRIVMSG ana me`]);
    assert.deepEqual(say("ana", ":bob!x@y PRIVMSG bob :forged"), [
      `bob< :${source("ana")} PRIVMSG bob forged`,
    ]);
  });

  test("to a channel: everybody but the speaker", () => {
    const { say } = room(["ana", "bob", "eva", "out"]);
    for (const nick of ["ana", "bob", "eva"]) say(nick, "JOIN #Lab");
    const line = `:${source("ana")} PRIVMSG #Lab hi`;
    assert.deepEqual(say("ana", "PRIVMSG #lab hi"), [`bob< ${line}`, `eva< ${line}`]);
    assert.deepEqual(say("out", "PRIVMSG #lab hi"), ["out< :s 404 out #Lab :Cannot send to channel"]);
    say("ana", "MODE #lab -n");
    assert.equal(say("out", "PRIVMSG #lab hi").length, 3, "without +n everybody may speak");
  });

  test("several targets, up to the limit that ISUPPORT tells", () => {
    const { say } = room(["a", "b", "c", "d", "e"]);
    assert.deepEqual(
      say("a", "PRIVMSG b,c,d,e :x").map((line) => line[0]),
      ["b", "c", "d", "e"],
    );
    assert.deepEqual(say("a", "PRIVMSG b,B,b,b,b :x"), [`b< :${source("a")} PRIVMSG b x`], "once each");
    assert.deepEqual(say("a", "PRIVMSG b,c,d,e,a :x"), ["a< :s 407 a b,c,d,e,a :Too many targets"]);
  });

  test("what cannot be sent is told for PRIVMSG, and never for NOTICE", () => {
    const { say } = room(["ana", "bob"]);
    const cases: [string, string][] = [
      ["", "411 ana :No recipient given (PRIVMSG)"],
      [" bob", "412 ana :No text to send"],
      [" bob :", "412 ana :No text to send"],
      [" none :x", "401 ana none :No such nick/channel"],
      [" #none :x", "403 ana #none :No such channel"],
    ];
    for (const [rest, reply] of cases) {
      assert.deepEqual(say("ana", `PRIVMSG${rest}`), [`ana< :s ${reply}`]);
      assert.deepEqual(say("ana", `NOTICE${rest}`), [], rest);
    }
    assert.deepEqual(say("ana", "NOTICE bob :x y"), [`bob< :${source("ana")} NOTICE bob :x y`]);
  });

  test("away: told to who writes, in WHO, WHOIS and USERHOST, until one is back", () => {
    const { say } = room(["ana", "bob"]);
    assert.deepEqual(say("bob", "AWAY :at lunch"), ["bob< :s 306 bob :You have been marked as being away"]);
    assert.deepEqual(say("ana", "PRIVMSG bob :x"), [
      `bob< :${source("ana")} PRIVMSG bob x`,
      "ana< :s 301 ana bob :at lunch",
    ]);
    assert.equal(say("ana", "NOTICE bob :x").length, 1);
    assert.ok(say("ana", "WHOIS bob").includes("ana< :s 301 ana bob :at lunch"));
    assert.ok(say("ana", "WHO bob")[0]?.includes(" bob G :0 "));
    assert.deepEqual(say("ana", "USERHOST bob ANA x"), ["ana< :s 302 ana :bob=-~bob@h ana=+~ana@h"]);
    assert.deepEqual(say("bob", "AWAY"), ["bob< :s 305 bob :You are no longer marked as being away"]);
    assert.equal(say("ana", "PRIVMSG bob :x").length, 1);
  });

  test("a relayed line is cut to 512 bytes", () => {
    const { say } = room(["ana", "bob"]);
    const [line = ""] = say("ana", `PRIVMSG bob :${"x".repeat(490)}`);
    assert.equal(line.length, "bob< ".length + MAX_LINE_BYTES - 2);
  });
});

describe("channels", () => {
  test("the first is operator; a name keeps its spelling; everybody sees who comes, goes and is thrown out", () => {
    const { say } = room(["ana", "bob"]);
    assert.deepEqual(say("ana", "JOIN #Lab"), [
      `ana< :${source("ana")} JOIN #Lab`,
      "ana< :s 353 ana = #Lab :@ana",
      "ana< :s 366 ana #Lab :End of /NAMES list",
    ]);
    assert.deepEqual(say("bob", "JOIN #lab"), [
      `ana< :${source("bob")} JOIN #Lab`,
      `bob< :${source("bob")} JOIN #Lab`,
      "bob< :s 353 bob = #Lab :@ana bob",
      "bob< :s 366 bob #Lab :End of /NAMES list",
    ]);
    assert.deepEqual(say("bob", "JOIN #LAB"), [], "is there already");
    const parted = `:${source("bob")} PART #Lab :so long`;
    assert.deepEqual(say("bob", "PART #lab :so long"), [`ana< ${parted}`, `bob< ${parted}`]);
    assert.deepEqual(say("bob", "PART #lab"), ["bob< :s 442 bob #Lab :You're not on that channel"]);
    assert.deepEqual(say("bob", "PART #none"), ["bob< :s 403 bob #none :No such channel"]);
    say("bob", "JOIN #lab");
    assert.deepEqual(say("bob", "KICK #lab ana"), ["bob< :s 482 bob #Lab :You're not channel operator"]);
    const kicked = `:${source("ana")} KICK #Lab bob :out with you`;
    assert.deepEqual(say("ana", "KICK #lab bob :out with you"), [`ana< ${kicked}`, `bob< ${kicked}`]);
    assert.deepEqual(say("ana", "KICK #lab bob,nobody"), [
      "ana< :s 441 ana bob #Lab :They aren't on that channel",
      "ana< :s 401 ana nobody :No such nick/channel",
    ]);
    say("ana", "PART #lab");
    assert.deepEqual(say("ana", "LIST").length, 2, "a channel ends with its last member");
  });

  test("JOIN 0 leaves all; several at once with their keys; wrong names and too many", () => {
    const { say, codes } = room(["ana", "bob"]);
    say("ana", "JOIN #a,#b", "MODE #b +k sesame");
    assert.deepEqual(
      codes("bob", "JOIN #a,#b,x x,sesame").filter((code) => code?.startsWith("bob ")),
      [
        `bob :${source("bob")}`,
        "bob 353",
        "bob 366",
        `bob :${source("bob")}`,
        "bob 353",
        "bob 366",
        "bob 476",
      ],
    );
    assert.equal(say("bob", "JOIN 0").filter((line) => line.startsWith("bob< ")).length, 2);
    for (let i = 0; i < LIMITS.channels; i++) say("bob", `JOIN #c${i}`);
    assert.deepEqual(say("bob", "JOIN #more"), ["bob< :s 405 bob #more :You have joined too many channels"]);
    const names = [`#${"c".repeat(LIMITS.channel)}`, "#a:b", "nochannel"];
    for (const name of names)
      assert.deepEqual(say("ana", `JOIN ${name}`), [
        `ana< :s 476 ana ${name.slice(0, 50)} :Bad Channel Mask`,
      ]);
  });

  test("QUIT is heard once by each who shares a channel; then the nick is free and ERROR ends the link", () => {
    const { say, closed, chat } = room(["ana", "bob", "eva", "out"]);
    for (const nick of ["ana", "bob", "eva"]) say(nick, "JOIN #a,#b");
    const line = `:${source("bob")} QUIT :Quit: see you`;
    assert.deepEqual(say("bob", "QUIT :see you", "PRIVMSG ana :ghost"), [
      `ana< ${line}`,
      `eva< ${line}`,
      "bob< ERROR :Closing Link: h (Quit: see you)",
    ]);
    assert.ok(closed.has("bob"));
    assert.equal(chat.users.has("bob"), false);
    assert.deepEqual(say("ana", "NAMES #a")[0], "ana< :s 353 ana = #a :@ana eva");
  });

  test("topic: locked for operators (+t), cut at its limit, shown to who comes", () => {
    const { say, clock } = room(["ana", "bob", "out"]);
    say("ana", "JOIN #a");
    say("bob", "JOIN #a");
    assert.deepEqual(say("ana", "TOPIC #a"), ["ana< :s 331 ana #a :No topic is set"]);
    assert.deepEqual(say("bob", "TOPIC #a :x"), ["bob< :s 482 bob #a :You're not channel operator"]);
    assert.deepEqual(say("out", "TOPIC #a"), ["out< :s 442 out #a :You're not on that channel"]);
    clock.nowMs = 5_000_999;
    const line = `:${source("ana")} TOPIC #a :two words`;
    assert.deepEqual(say("ana", "TOPIC #a :two words"), [`ana< ${line}`, `bob< ${line}`]);
    assert.deepEqual(say("out", "JOIN #a").slice(3, 5), [
      "out< :s 332 out #a :two words",
      `out< :s 333 out #a ${source("ana")} 5000`,
    ]);
    say("ana", "MODE #a -t");
    const [long = ""] = say("bob", `TOPIC #a :${"t".repeat(400)}`);
    assert.equal(/t+$/.exec(long)?.[0].length, LIMITS.topic);
    say("bob", "TOPIC #a :");
    assert.deepEqual(say("bob", "TOPIC #a"), ["bob< :s 331 bob #a :No topic is set"]);
  });

  test("invitations open +i, +l and a ban, but not a key; once", () => {
    const { say, codes } = room(["ana", "bob", "eva"]);
    say("ana", "JOIN #a", "MODE #a +i");
    say("eva", "JOIN #e");
    assert.deepEqual(say("bob", "JOIN #a"), ["bob< :s 473 bob #a :Cannot join channel (+i)"]);
    assert.deepEqual(say("ana", "INVITE bob #a"), [
      "ana< :s 341 ana bob #a",
      `bob< :${source("ana")} INVITE bob #a`,
    ]);
    assert.equal(codes("bob", "JOIN #a")[0], `ana :${source("bob")}`);
    assert.deepEqual(say("bob", "INVITE eva #a"), ["bob< :s 482 bob #a :You're not channel operator"]);
    assert.deepEqual(say("ana", "INVITE bob #a"), ["ana< :s 443 ana bob #a :is already on channel"]);
    assert.deepEqual(say("ana", "INVITE eva #e"), ["ana< :s 442 ana #e :You're not on that channel"]);
    assert.deepEqual(say("ana", "INVITE none #a"), ["ana< :s 401 ana none :No such nick/channel"]);
    say("bob", "PART #a");
    assert.equal(codes("bob", "JOIN #a")[0], "bob 473", "an invitation is good for once");
    say("ana", "MODE #a +lb 1 bob", "INVITE bob #a", "MODE #a +k x");
    assert.equal(codes("bob", "JOIN #a")[0], "bob 475");
    assert.equal(codes("bob", "JOIN #a x")[0], `ana :${source("bob")}`);
  });

  test("an invitation of one who is no operator is a message, and opens nothing", () => {
    const { say, codes } = room(["ana", "bob", "eva"]);
    say("ana", "JOIN #a", "MODE #a +b eva");
    say("bob", "JOIN #a");
    assert.deepEqual(say("bob", "INVITE eva #a"), [
      "bob< :s 341 bob eva #a",
      `eva< :${source("bob")} INVITE eva #a`,
    ]);
    assert.equal(codes("eva", "JOIN #a")[0], "eva 474");
    say("ana", "MODE #a -b+i eva");
    assert.equal(codes("eva", "JOIN #a")[0], "eva 473");
  });

  test("LIST and NAMES answer once about a channel, however often it is named", () => {
    const { say, codes } = room(["ana"]);
    say("ana", "JOIN #a");
    assert.deepEqual(codes("ana", "NAMES #a,#A,#a,#none,#none"), ["ana 353", "ana 366", "ana 366"]);
    assert.deepEqual(codes("ana", "LIST #a,#A,#a"), ["ana 321", "ana 322", "ana 323"]);
  });

  test("LIST and NAMES; invisible ones are seen by members only", () => {
    const { say } = room(["ana", "bob", "out"]);
    say("ana", "JOIN #a,#b", "TOPIC #a :here");
    say("bob", "JOIN #a");
    assert.deepEqual(say("bob", "MODE bob +i"), [`bob< :${source("bob")} MODE bob +i`]);
    assert.deepEqual(say("out", "LIST"), [
      "out< :s 321 out Channel :Users  Name",
      "out< :s 322 out #a 1 :here",
      "out< :s 322 out #b 1 :",
      "out< :s 323 out :End of /LIST",
    ]);
    assert.deepEqual(say("ana", "LIST #a,#none")[1], "ana< :s 322 ana #a 2 :here");
    assert.equal(say("out", "NAMES #a")[0], "out< :s 353 out = #a :@ana");
    assert.equal(say("ana", "NAMES #a")[0], "ana< :s 353 ana = #a :@ana bob");
    assert.deepEqual(say("ana", "NAMES"), ["ana< :s 366 ana * :End of /NAMES list"]);
    assert.deepEqual(say("ana", "NAMES #x"), ["ana< :s 366 ana #x :End of /NAMES list"]);
    assert.deepEqual(say("out", "WHO b*"), ["out< :s 315 out b* :End of WHO list"]);
    assert.equal(say("out", "WHO BOB").length, 2, "but the whole nick is known already");
    assert.equal(say("ana", "WHO b*").length, 2);
    assert.ok(!say("out", "WHOIS bob").some((line) => line.includes(" 319 ")), "nor where they are");
    assert.equal(say("out", "LUSERS")[0], "out< :s 251 out :There are 2 users and 1 invisible on 1 servers");
  });

  test("500 names come in lines of at most 512 bytes, each once", () => {
    const nicks = Array.from({ length: 500 }, (_, i) => `member-${i}`);
    const { say } = room(nicks);
    for (const nick of nicks) say(nick, "JOIN #all");
    const lines = say("member-7", "NAMES #all").slice(0, -1);
    for (const line of lines) assert.ok(line.length - "member-7< ".length <= MAX_LINE_BYTES - 2);
    const listed = lines.flatMap((line) => line.split(" :")[2]?.split(" ") ?? []);
    assert.deepEqual(listed, ["@member-0", ...nicks.slice(1)]);
    assert.ok(lines.length < 20, "and the lines are full");
  });
});

describe("modes", () => {
  const trio = () => {
    const all = room(["ana", "bob", "out"]);
    all.say("ana", "JOIN #a");
    all.say("bob", "JOIN #a");
    return all;
  };

  test("queries: what a channel is set to, its bans, a user's own", () => {
    const { say } = trio();
    assert.deepEqual(say("ana", "MODE #a"), ["ana< :s 324 ana #a +nt", "ana< :s 329 ana #a 1000"]);
    say("ana", "MODE #a -nt");
    assert.equal(say("ana", "MODE #a")[0], "ana< :s 324 ana #a +");
    say("ana", "MODE #a +lki 9 key");
    assert.equal(say("bob", "MODE #a")[0], "bob< :s 324 bob #a +ilk 9 key");
    assert.equal(say("out", "MODE #a")[0], "out< :s 324 out #a +ilk 9 *", "the key is the members' own");
    assert.deepEqual(say("bob", "MODE bob"), ["bob< :s 221 bob +"]);
    assert.deepEqual(say("bob", "MODE ana +i", "MODE none"), [
      "bob< :s 502 bob :Cant change mode for other users",
      "bob< :s 401 bob none :No such nick/channel",
    ]);
    assert.deepEqual(say("bob", "MODE bob +ix-w", "MODE bob"), [
      `bob< :${source("bob")} MODE bob +i`,
      "bob< :s 501 bob :Unknown MODE flag",
      "bob< :s 221 bob +i",
    ]);
    assert.deepEqual(say("bob", "MODE #x"), ["bob< :s 403 bob #x :No such channel"]);
  });

  test("only operators change, and only what changes is told, to all", () => {
    const { say } = trio();
    assert.deepEqual(say("bob", "MODE #a +ik x"), ["bob< :s 482 bob #a :You're not channel operator"]);
    assert.equal(say("out", "MODE #a +o out")[0], "out< :s 482 out #a :You're not channel operator");
    const line = `:${source("ana")} MODE #a +o-t bob`;
    assert.deepEqual(say("ana", "MODE #a +no-t BOB"), [`ana< ${line}`, `bob< ${line}`]);
    assert.equal(say("bob", "NAMES #a")[0], "bob< :s 353 bob = #a :@ana @bob");
    assert.deepEqual(say("bob", "MODE #a -o ana", "MODE #a -o ana").length, 2);
    assert.deepEqual(say("ana", "MODE #a -i"), ["ana< :s 482 ana #a :You're not channel operator"]);
  });

  test("keys and limits, right and wrong ones", () => {
    const { say, codes } = trio();
    say("ana", "MODE #a +k sesame");
    assert.deepEqual(say("out", "JOIN #a wrong"), ["out< :s 475 out #a :Cannot join channel (+k)"]);
    assert.equal(say("ana", "MODE #a -k any")[0], `ana< :${source("ana")} MODE #a -k *`);
    assert.deepEqual(codes("ana", "MODE #a +k :a b", "MODE #a +k a,b", "MODE #a +k"), ["ana 525", "ana 525"]);
    assert.equal(say("ana", "MODE #a +l 2")[0], `ana< :${source("ana")} MODE #a +l 2`);
    assert.deepEqual(say("out", "JOIN #a"), ["out< :s 471 out #a :Cannot join channel (+l)"]);
    assert.deepEqual(say("ana", "MODE #a +l 2"), []);
    for (const limit of ["0", "-1", "x", "1e3"])
      assert.deepEqual(say("ana", `MODE #a +l ${limit}`), [
        `ana< :s 696 ana #a l ${limit} :Not a number from 1 up`,
      ]);
    assert.equal(say("ana", "MODE #a -l")[0], `ana< :${source("ana")} MODE #a -l`);
    assert.equal(say("out", "JOIN #a").length, 5);
  });

  test("bans: completed, listed to all, they keep out and silence; operators speak anyway", () => {
    const { say } = trio();
    assert.equal(say("ana", "MODE #a +b O*T")[0], `ana< :${source("ana")} MODE #a +b O*T!*@*`);
    assert.deepEqual(say("ana", "MODE #a +b o*t!*@*"), [], "it is there");
    assert.deepEqual(say("out", "JOIN #a"), ["out< :s 474 out #a :Cannot join channel (+b)"]);
    assert.deepEqual(say("bob", "MODE #a +b"), [
      `bob< :s 367 bob #a O*T!*@* ${source("ana")} 1000`,
      "bob< :s 368 bob #a :End of channel ban list",
    ]);
    say("ana", "MODE #a +b *!*@h");
    assert.deepEqual(say("bob", "PRIVMSG #a :x"), ["bob< :s 404 bob #a :Cannot send to channel"]);
    assert.deepEqual(say("ana", "PRIVMSG #a :x"), [`bob< :${source("ana")} PRIVMSG #a x`]);
    say("ana", "MODE #a -b o*t");
    assert.equal(
      say("out", "JOIN #a")[0],
      "out< :s 474 out #a :Cannot join channel (+b)",
      "by the other one",
    );
    for (const mask of [":", ":x", ":a b"]) say("ana", `MODE #a +b ${mask}`);
    assert.ok(!say("ana", "MODE #a b").some((line) => line.includes("*!*@* ")), "an empty mask is none");
  });

  test("the list of bans is shown once, however often a line asks for it", () => {
    const { codes } = trio();
    codes("ana", "MODE #a +bb x y");
    assert.deepEqual(codes("bob", `MODE #a ${"b".repeat(400)}`), ["bob 367", "bob 367", "bob 368"]);
  });

  test("changes that one line has no room for are told in two, none of them cut", () => {
    const { say } = trio();
    const masks = ["a", "b", "c", "d"].map((letter) => letter.repeat(121));
    const heard = say("ana", `MODE #a +bbbb ${masks.join(" ")}`).filter((line) => line.startsWith("bob"));
    assert.equal(`MODE #a +bbbb ${masks.join(" ")}\r\n`.length <= MAX_LINE_BYTES, true);
    assert.deepEqual(
      heard,
      [masks.slice(0, 2), masks.slice(2)].map(
        (two) => `bob< :${source("ana")} MODE #a +bb ${two.map((mask) => `${mask}!*@*`).join(" ")}`,
      ),
    );
  });

  test("limits of one MODE and of the list", () => {
    const { say } = trio();
    assert.equal(
      say("ana", "MODE #a +bbbbb a b c d e")[0],
      `ana< :${source("ana")} MODE #a +bbbb a!*@* b!*@* c!*@* d!*@*`,
    );
    for (let i = 4; i < LIMITS.bans; i++) say("ana", `MODE #a +b m${i}`);
    assert.deepEqual(say("ana", "MODE #a +b more"), ["ana< :s 478 ana #a b :Channel ban list is full"]);
    assert.deepEqual(say("ana", "MODE #a +x"), ["ana< :s 472 ana x :is unknown mode char to me"]);
    assert.deepEqual(say("ana", "MODE #a +o none", "MODE #a +o out", "MODE #a +o"), [
      "ana< :s 401 ana none :No such nick/channel",
      "ana< :s 441 ana out #a :They aren't on that channel",
    ]);
  });
});

describe("questions", () => {
  test("WHO: a channel, a mask, operators of the server, everybody", () => {
    const { say } = room(["ana", "bob"]);
    say("ana", "JOIN #a");
    assert.deepEqual(say("bob", "WHO #A"), [
      "bob< :s 352 bob #a ~ana h s ana H@ :0 ana's name",
      "bob< :s 315 bob #A :End of WHO list",
    ]);
    assert.equal(say("bob", "WHO a?a")[0], "bob< :s 352 bob * ~ana h s ana H :0 ana's name");
    assert.equal(say("bob", "WHO 0").length, 3);
    assert.equal(say("bob", "WHO").length, 3);
    assert.equal(say("bob", "WHO * o").length, 1);
    assert.equal(say("bob", "WHO #none").length, 1);
  });

  test("WHOIS", () => {
    const { say, clock } = room(["ana", "bob"]);
    say("ana", "JOIN #a,#b");
    clock.nowMs += 65_000;
    const whois = [
      "bob< :s 311 bob ana ~ana h * :ana's name",
      "bob< :s 319 bob ana :@#a @#b",
      "bob< :s 312 bob ana s :netlab's chat, a server for lessons",
      "bob< :s 317 bob ana 65 1000 :seconds idle, signon time",
      "bob< :s 318 bob ana :End of /WHOIS list",
    ];
    assert.deepEqual(say("bob", "WHOIS ana"), whois);
    assert.deepEqual(say("bob", "WHOIS s ANA"), whois);
    assert.deepEqual(say("bob", "WHOIS none"), [
      "bob< :s 401 bob none :No such nick/channel",
      "bob< :s 318 bob none :End of /WHOIS list",
    ]);
    assert.deepEqual(say("bob", "WHOIS"), ["bob< :s 431 bob :No nickname given"]);
    say("ana", "PRIVMSG bob :x");
    assert.ok(say("bob", "WHOIS ana").includes("bob< :s 317 bob ana 0 1000 :seconds idle, signon time"));
  });

  test("ISON, USERHOST, LUSERS, VERSION, PING, what there is not", () => {
    const { say, connect } = room(["ana", "bob"]);
    assert.deepEqual(say("bob", "ISON none ANA :bob x"), ["bob< :s 303 bob :ana bob"]);
    assert.deepEqual(say("bob", "USERHOST none"), ["bob< :s 302 bob :"]);
    connect("unregistered");
    say("ana", "JOIN #a");
    assert.deepEqual(say("bob", "LUSERS"), [
      "bob< :s 251 bob :There are 2 users and 0 invisible on 1 servers",
      "bob< :s 252 bob 0 :operator(s) online",
      "bob< :s 253 bob 1 :unknown connection(s)",
      "bob< :s 254 bob 1 :channels formed",
      "bob< :s 255 bob :I have 2 clients and 0 servers",
      "bob< :s 265 bob 2 2 :Current local users 2, max 2",
      "bob< :s 266 bob 2 2 :Current global users 2, max 2",
    ]);
    assert.match(say("bob", "VERSION")[0] ?? "", /^bob< :s 351 bob netlab-chat-1 s :/);
    assert.deepEqual(say("bob", "PING :a b", "PING", "PONG x", "FROB a"), [
      "bob< :s PONG s :a b",
      "bob< :s 409 bob :No origin specified",
      "bob< :s 421 bob FROB :Unknown command",
    ]);
    assert.deepEqual(say("bob", "JOIN", "KICK #a"), [
      "bob< :s 461 bob JOIN :Not enough parameters",
      "bob< :s 461 bob KICK :Not enough parameters",
    ]);
  });

  test("ISUPPORT tells the truth: each limit holds at its value and not above", () => {
    const { say } = room(["ana"]);
    const tokens = new Map(
      say("ana", "VERSION")
        .filter((line) => line.includes(" 005 "))
        .flatMap((line) => line.split(" :are")[0]?.split(" ").slice(4) ?? [])
        .map((token) => token.split("=") as [string, string]),
    );
    const limit = (name: string) => Number(/\d+$/.exec(tokens.get(name) ?? "")?.[0]);
    const accepted = (line: string) => !/ (?:432|476|525|405) /.test(say("ana", line).join());
    assert.ok(
      accepted(`NICK ${"n".repeat(limit("NICKLEN"))}`) &&
        !accepted(`NICK ${"n".repeat(limit("NICKLEN") + 1)}`),
    );
    say("ana", "NICK ana");
    const channel = (length: number) => `JOIN #${"c".repeat(length - 1)}`;
    assert.ok(accepted(channel(limit("CHANNELLEN"))) && !accepted(channel(limit("CHANNELLEN") + 1)));
    say("ana", "JOIN 0", "JOIN #a");
    assert.ok(
      accepted(`MODE #a +k ${"k".repeat(limit("KEYLEN"))}`) &&
        !accepted(`MODE #a +k ${"k".repeat(limit("KEYLEN") + 1)}`),
    );
    const longest = (lines: string[]) =>
      Math.max(...lines.flatMap((line) => line.match(/x+/g) ?? []).map((run) => run.length));
    const x = "x".repeat(450);
    assert.equal(longest(say("ana", `TOPIC #a :${x}`)), limit("TOPICLEN"));
    assert.equal(longest(say("ana", `AWAY :${x}`, "PRIVMSG ana :y").slice(-1)), limit("AWAYLEN"));
    const { say: sayThere } = room(["op", "victim"]);
    sayThere("op", "JOIN #a");
    sayThere("victim", "JOIN #a");
    assert.equal(longest(sayThere("op", `KICK #a victim :${x}`)), limit("KICKLEN"));
    const userSource = /^x< :s 001 n :.*, n!(\S+)@h$/.exec(
      room([]).say("x", "NICK n", "USER uuuuuuuuuuuuuu 0 * :u")[0] ?? "",
    );
    assert.equal(userSource?.[1]?.length, limit("USERLEN"));
    for (let i = 1; i < limit("CHANLIMIT"); i++) assert.ok(accepted(`JOIN #c${i}`), `channel ${i}`);
    assert.ok(!accepted("JOIN #more"));
    assert.equal(tokens.get("CASEMAPPING"), "rfc1459");
    assert.equal(tokens.get("PREFIX"), "(o)@");
    assert.equal(tokens.get("CHANTYPES"), "#");
    assert.equal(limit("MODES"), 4);
    assert.equal(limit("MAXLIST"), LIMITS.bans);
  });
});

test("a shutdown tells everybody once, and nobody of the others", () => {
  const { say, chat, heard, connect, closed } = room(["ana", "bob"]);
  connect("unregistered");
  say("ana", "JOIN #a");
  say("bob", "JOIN #a");
  heard.length = 0;
  shutDown(chat, "Server shutting down");
  assert.deepEqual(
    heard,
    ["ana", "bob", "unregistered"].map((id) => `${id}< ERROR :Closing Link: h (Server shutting down)`),
  );
  assert.equal(closed.size, 3);
  assert.equal(chat.connected.size + chat.users.size + chat.channels.size, 0);
});

test(`whatever is said, nothing breaks, each line is one line, and who is where agrees (seed ${SEED})`, () => {
  const word = fc.oneof(
    fc.constantFrom(
      "ana",
      "bob",
      "eva",
      "#a",
      "#b",
      "#a,#b",
      "+o",
      "-o",
      "+b",
      "+k",
      "+l",
      "-k",
      "+i",
      "0",
      "*",
      ":",
      ":x",
      "",
    ),
    fc.string({
      unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)),
      maxLength: 20,
    }),
  );
  const command = fc.constantFrom(
    ..."JOIN PART KICK INVITE TOPIC NAMES LIST MODE PRIVMSG NOTICE AWAY WHO WHOIS ISON USERHOST NICK USER PASS CAP PING QUIT".split(
      " ",
    ),
  );
  const line = fc
    .tuple(command, fc.array(word, { maxLength: 5 }))
    .map(([command, words]) => [command, ...words].join(" ").replace(/[\r\n\0]/g, ""));
  const script = fc.array(fc.tuple(fc.constantFrom("ana", "bob", "eva"), line), { maxLength: 60 });
  fc.assert(
    fc.property(script, (script) => {
      const { chat, say, user } = room(["ana", "bob", "eva"]);
      for (const [id, line] of script) {
        if (user(id).gone) continue;
        for (const heard of say(id, line)) {
          assert.ok(!/[\r\n\0]/.test(heard), JSON.stringify(heard));
          assert.ok(heard.length - id.length - 2 <= MAX_LINE_BYTES - 2);
        }
      }
      for (const channel of chat.channels.values()) {
        assert.ok(channel.members.size > 0, "no empty channel");
        for (const member of channel.members.keys()) assert.ok(member.channels.has(channel) && !member.gone);
      }
      for (const [id, user] of chat.users) {
        assert.equal(user.gone, false);
        assert.equal(
          id,
          user.nick.toLowerCase().replace(/[[\]\\~]/g, (c) => "{}|^"["[]\\~".indexOf(c)] ?? ""),
        );
        for (const channel of user.channels) assert.ok(channel.members.has(user));
      }
    }),
    { seed: SEED, numRuns: 1000 },
  );
});
