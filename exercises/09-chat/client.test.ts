/** The client as a user runs it: between pipes, with a server, with another client, and with none. */
import { strict as assert } from "node:assert";
import { once } from "node:events";
import { type AddressInfo, connect as connectSocket, createServer } from "node:net";
import { after, before, describe, test } from "node:test";
import { needs, type Running, run, runTool, start, within } from "../../shared/testing.ts";
import { ScriptedClient } from "./scripted-client.ts";

const HERE = "exercises/09-chat";
let server: Running;
before(async () => {
  server = await start(`${HERE}/server.ts`, ["--port", 0, "--flood-rate", 0]);
});
after(async () => {
  await server[Symbol.asyncDispose]();
});

/** A client that reads what `type` says. */
async function user(nick: string, port = server.port, ...more: (string | number)[]) {
  const running = await start(`${HERE}/client.ts`, ["--port", port, "--nick", nick, ...more], { servers: 0 });
  await running.output(/^-- Welcome/m);
  return Object.assign(running, {
    type: (...lines: string[]) => void running.child.stdin?.write(lines.map((line) => `${line}\n`).join("")),
  });
}

describe("between pipes", { concurrency: 4 }, () => {
  test("a script of lines: done in order, its answers complete, exit code 0", async () => {
    await using bob = await ScriptedClient.as("reader", server.port);
    const input = Buffer.from(
      "/join #pipe\nfirst\n/me waves\n/msg reader caf\xe9 \xff\n/who #pipe\n/frob\n",
      "latin1",
    );
    const { code, stdout, stderr } = await run(
      `${HERE}/client.ts`,
      ["--port", server.port, "--nick", "piper"],
      {
        stdin: input,
      },
    );
    assert.equal(code, 0, stderr);
    const lines = stdout.split("\n");
    const inOrder = (wanted: readonly string[]) =>
      assert.deepEqual(
        lines.filter((line) => wanted.includes(line)),
        wanted,
      );
    inOrder(["[#pipe] <piper> first", "[#pipe] * piper waves", "[reader] <piper> caf\u00e9 \u00ff"]);
    inOrder([
      "[#pipe] --> piper has joined",
      "[#pipe] -- here: @piper",
      "-- piper (~piper@127.0.0.1) #pipe H@ piper",
      "-- the server: Closing Link: 127.0.0.1 (Quit)",
    ]);
    assert.match(stderr, /^-- there is no \/frob/m);
    assert.deepEqual(await bob.until(/PRIVMSG/), [":piper!~piper@127.0.0.1 PRIVMSG reader :caf\xe9 \xff"]);
  });

  test("a nick that is taken gets an underscore; with too many of them it is an error", async () => {
    await using _ = await ScriptedClient.as("taken", server.port);
    const first = await run(`${HERE}/client.ts`, ["--port", server.port, "--nick", "taken"], {
      stdin: "/quit bye\n",
    });
    assert.match(first.stdout, /^-- Welcome to the netlab network, taken_!/m);
    assert.match(first.stdout, /\(Quit: bye\)$/m);
    assert.equal(first.code, 0);
    await using _2 = await ScriptedClient.as(`${"t".repeat(15)}_`, server.port);
    const second = await run(`${HERE}/client.ts`, ["--port", server.port, "--nick", `${"t".repeat(15)}_`]);
    assert.equal(second.code, 1);
    assert.match(second.stderr, /^error: the server: t+_ is in use; choose another with --nick$/m);
  });

  test("no server, a wrong nick, a wrong password, a server that goes: one line each", async () => {
    const port = 1; // nobody's; one that was free a moment ago may be another test's by now
    const refused = await run(`${HERE}/client.ts`, ["--port", port, "--nick", "a"]);
    assert.deepEqual(
      [refused.code, refused.stderr],
      [
        1,
        `error: cannot connect to 127.0.0.1:${port}: connection refused (ECONNREFUSED); is a server running there?\n`,
      ],
    );
    const wrong = await run(`${HERE}/client.ts`, ["--nick", "1a"]);
    assert.equal(wrong.code, 2);
    await using strict = await start(`${HERE}/server.ts`, ["--port", 0, "--password", "right"]);
    const locked = await run(`${HERE}/client.ts`, [
      "--port",
      strict.port,
      "--nick",
      "a",
      "--password",
      "wrong",
    ]);
    assert.equal(locked.code, 1);
    assert.match(locked.stderr, /^error: the server: Closing Link: 127.0.0.1 \(Bad password\)$/m);
    await using ana = await user("ana", strict.port, "--password", "right");
    strict.kill("SIGTERM");
    assert.equal((await within(ana.exited, "the end of ana")).code, 1);
    assert.match(ana.stderr, /^error: the server: Closing Link: 127.0.0.1 \(Server shutting down\)$/m);
  });

  test("it keeps to the server's pace: ten lines at once are not a flood", async () => {
    await using strict = await start(`${HERE}/server.ts`, ["--port", 0, "--receive-queue", 512]);
    const stdin = `${Array.from({ length: 10 }, (_, i) => `/msg flooder ${i}`).join("\n")}\n`;
    const { code, stdout } = await run(`${HERE}/client.ts`, ["--port", strict.port, "--nick", "flooder"], {
      stdin,
    });
    assert.equal(code, 0);
    const own = [...stdout.matchAll(/^\[flooder\] <flooder> (\d+)$/gm)].map(([, number]) => Number(number));
    assert.deepEqual(
      own.toSorted((a, b) => a - b),
      Array.from({ length: 20 }, (_, i) => i >> 1),
      "each said and each heard",
    );
  });

  test("a server that sends what no line may hold gets an answer, and the client goes on", async () => {
    let heard = "";
    let resolve = () => {};
    const answered = new Promise<void>((settle) => {
      resolve = settle;
    });
    await using evil = createServer((socket) => {
      socket.on("data", (chunk) => {
        heard += chunk.toString("latin1");
        if (heard.endsWith("PONG bc\r\n")) resolve();
      });
      socket.on("error", () => {});
      socket.write(":s 001 me :Welcome\r\nPING :a\rQUIT\r\nPING :b\0c\r\n:x!y@z PRIVMSG me :hi\r\n");
    }).listen(0, "127.0.0.1");
    await once(evil, "listening");
    await using me = await user("me", (evil.address() as AddressInfo).port);
    await me.output(/^\[x\] <x> hi$/m);
    await within(answered, "the answers");
    assert.match(heard, /PONG aQUIT\r\nPONG bc\r\n$/);
  });

  test("Ctrl-C says goodbye", async () => {
    await using ana = await user("leaver");
    await using bob = await ScriptedClient.as("stayer", server.port);
    await bob.ask("JOIN #c");
    ana.type("/join #c");
    await bob.until(/leaver.* JOIN/);
    ana.kill("SIGINT");
    assert.equal((await within(ana.exited, "its end")).code, 0);
    assert.match((await bob.until(/leaver.* QUIT/)).at(-1) ?? "", / QUIT Quit$/);
  });
});

describe("calls", { concurrency: 4 }, () => {
  test("offered and taken through the server, then independent of it: it is killed and the two talk on", async () => {
    await using own = await start(`${HERE}/server.ts`, ["--port", 0]);
    await using ana = await user("ana", own.port);
    await using bob = await user("bob", own.port);
    ana.type("/call bob");
    const [, where] = await bob.output(/^-- ana calls: \/accept ana connects you to (127\.0\.0\.1:\d+); or/m);
    assert.ok(!bob.stdout.includes("is open"), "nothing is opened before it is accepted");
    assert.ok(ana.stdout.includes(`-- calling bob; waiting on ${where}`));
    bob.type("/accept ana");
    await Promise.all([
      ana.output(/^-- the call with bob is open/m),
      bob.output(/^-- the call with ana is open/m),
    ]);
    own.kill("SIGKILL");
    for (const one of [ana, bob]) await one.output(/^-- the server is gone; calls go on/m, "stderr");
    ana.type("still there?", "/me listens");
    await bob.output(/^\[=ana\] <ana> still there\?\n\[=ana\] \* ana listens$/m);
    bob.child.stdin?.write(Buffer.from("yes, caf\xe9 \x1b[31m\n", "latin1"));
    await ana.output(/^\[=bob\] <bob> yes, caf\u00e9 \[31m$/m);
    ana.type("/msg nobody x");
    await ana.output(/^-- there is no server any more/m, "stderr");
    bob.type("/hangup");
    await ana.output(/^-- the call with bob has ended$/m);
    for (const one of [ana, bob]) assert.equal((await within(one.exited, "its end")).code, 0);
  });

  test("refused by the other, taken back, and left unanswered", async () => {
    await using ana = await user("caller", server.port, "--ring-timeout", 1);
    await using bob = await user("callee");
    ana.type("/call callee");
    await bob.output(/^-- caller calls/m);
    bob.type("/decline caller");
    await ana.output(
      /^-- callee does not take the call\n-- the call to callee has ended before it was answered$/m,
    );
    ana.type("/call nobody-there");
    await ana.output(/^-- nobody-there is not there$/m);
    await using _ = await ScriptedClient.as("deaf", server.port);
    ana.type("/call deaf");
    await ana.output(/^-- no call to deaf: no answer within 1 s$/m);
    bob.type("/accept caller", "/hangup caller", "/call callee2", "/accept nobody");
    await bob.output(/^-- caller is not calling$/m);
    await bob.output(/^-- there is no call with caller$/m);
  });

  test("an offer to connect elsewhere is refused or shown for what it is, and nothing is connected", async () => {
    let connections = 0;
    const trap = createServer((socket) => {
      connections++;
      socket.destroy();
    }).listen(0, "127.0.0.1");
    await once(trap, "listening");
    const { port } = trap.address() as AddressInfo;
    await using bob = await user("wary");
    await using eve = await ScriptedClient.as("eve", server.port);
    const offer = (address: string | number, port: number) =>
      `PRIVMSG wary :\x01DCC CHAT chat ${address} ${port}\x01`;
    await eve.send(
      offer(2_130_706_433, 22),
      offer(2_130_706_433, 6667),
      offer(2_130_706_433, server.port),
      offer(0, 40_000),
      offer("printer.example", 40_000),
      offer(2_130_706_434, port),
    );
    await bob.output(/^-- refused a call of eve: port 22 is a privileged one$/m);
    await bob.output(/^-- refused a call of eve: port 6667 is one of another service$/m);
    await bob.output(
      new RegExp(`^-- refused a call of eve: port ${server.port} is one of another service$`, "m"),
    );
    await bob.output(/^-- refused a call of eve: 0\.0\.0\.0 is no address of one machine$/m);
    await bob.output(/^-- refused a call of eve: it cannot be understood$/m);
    const told = `eve calls: /accept eve connects you to 127.0.0.2:${port}, which is NOT where the server sees them (127.0.0.1)`;
    await bob.output(new RegExp(told.replace(/[.()]/g, "\\$&")));
    assert.equal(connections, 0);
    trap.close();
  });

  test("an offer that is not taken lapses: a later call is an offer of one's own", async () => {
    await using bob = await user("slow", server.port, "--ring-timeout", 1);
    await using eve = await ScriptedClient.as("early", server.port);
    await eve.send("PRIVMSG slow :\x01DCC CHAT chat 2130706433 40000\x01");
    await bob.output(/^-- the call of early was not taken$/m);
    bob.type("/accept early", "/call early");
    await bob.output(/^-- early is not calling\n-- calling early; waiting on/m);
  });

  test("over IPv6: the address of the offer is where the server sees the caller", async (t) => {
    const probe = createServer();
    const hasIPv6 = await new Promise((resolve) => {
      probe.once("error", () => resolve(false)).listen(0, "::1", () => probe.close(() => resolve(true)));
    });
    if (!hasIPv6) return t.skip("this machine has no IPv6");
    await using own = await start(`${HERE}/server.ts`, ["--host", "::1", "--port", 0]);
    await using ana = await user("ana6", own.port, "--host", "::1");
    await using bob = await user("bob6", own.port, "--host", "::1");
    ana.type("/call bob6");
    await bob.output(/^-- ana6 calls: \/accept ana6 connects you to \[::1\]:\d+; or/m);
    bob.type("/accept ana6");
    await ana.output(/^-- the call with bob6 is open/m);
  });

  test("an offer in a channel or a NOTICE is none; of many offers the last twenty are remembered", async () => {
    let connections = 0;
    const trap = createServer((socket) => {
      connections++;
      socket.end();
    }).listen(0, "127.0.0.1");
    await once(trap, "listening");
    const { port } = trap.address() as AddressInfo;
    await using bob = await user("patient");
    await using mia = await ScriptedClient.as("mia", server.port);
    await mia.ask("JOIN #offers");
    bob.type("/join #offers");
    await mia.until(/patient.* JOIN/);
    const offer = `:\x01DCC CHAT chat 2130706433 ${port}\x01`;
    await mia.send(`PRIVMSG #offers ${offer}`, `NOTICE patient ${offer}`);
    await bob.output(/^\[#offers\] -- mia sent a CTCP request: DCC$/m);
    for (let i = 0; i <= 20; i++) await mia.send(`NICK mia${i}`, `PRIVMSG patient ${offer}`);
    await bob.output(/^-- mia20 calls/m);
    assert.doesNotMatch(bob.stdout, /^-- mia calls/m);
    bob.type("/accept mia0", "/accept mia20");
    await bob.output(/^-- mia0 is not calling$/m);
    await bob.output(/^-- the call with mia20 has ended$/m);
    assert.equal(connections, 1);
    trap.close();
  });

  test("a call is one connection: a second caller finds nobody, and a line without end is cut off", async () => {
    await using ana = await user("single");
    await using eve = await ScriptedClient.as("eva", server.port);
    ana.type("/call eva");
    const [, port] = /DCC CHAT chat 2130706433 (\d+)/.exec((await eve.until(/DCC CHAT/)).at(-1) ?? "") ?? [];
    const first = connectSocket(Number(port), "127.0.0.1");
    first.on("error", () => {});
    await ana.output(/^-- the call with eva is open/m);
    const second = connectSocket(Number(port), "127.0.0.1");
    const [error] = (await once(second, "error")) as [NodeJS.ErrnoException];
    assert.equal(error.code, "ECONNREFUSED");
    first.write("a\nb\r\n\x1b]0;title\x07c\n");
    await ana.output(/^\[=eva\] <eva> a\n\[=eva\] <eva> b\n\[=eva\] <eva> \]0;titlec$/m);
    first.write("x".repeat(5000));
    await ana.output(/^-- the call with eva has ended: a line is longer than 4096 bytes$/m);
    first.destroy();
  });

  test("both call at once: the second call takes the first", async () => {
    await using ana = await user("both1");
    await using bob = await user("both2");
    ana.type("/call both2");
    await bob.output(/both1 calls/);
    bob.type("/call both1");
    await Promise.all([ana.output(/call with both2 is open/), bob.output(/call with both1 is open/)]);
    bob.type("hello");
    await ana.output(/^\[=both2\] <both2> hello$/m);
  });
});

test(
  "on a terminal: what arrives goes above the line that is being typed, which stays whole",
  needs("tmux"),
  async () => {
    const socket = `netlab-chat-${process.pid}`;
    const tmux = (...args: string[]) => runTool("tmux", ["-L", socket, ...args]);
    const tsx = import.meta.resolve("tsx");
    const client = `${process.execPath} --import ${tsx} ${import.meta.dirname}/client.ts --port ${server.port} --nick typist`;
    await tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "20", client);
    try {
      const screen = async (pattern: RegExp) => {
        for (let i = 0; i < 300; i++) {
          const { stdout } = await tmux("capture-pane", "-p");
          if (pattern.test(stdout)) return stdout;
        }
        throw new Error(`the screen never showed ${pattern}: ${(await tmux("capture-pane", "-p")).stdout}`);
      };
      await screen(/^<typist>/m);
      await tmux("send-keys", "/query friend", "Enter");
      await screen(/^\[friend\] <typist>$/m);
      const typed = `${"long and ".repeat(10)}half a sent`; // more than a row
      await tmux("send-keys", typed);
      await screen(/half a sent$/m);
      await using friend = await ScriptedClient.as("friend", server.port);
      await friend.send("PRIVMSG typist :interrupting \x1b[2J you");
      const shown = await screen(/interrupting/);
      const rows = shown.slice(shown.indexOf("[friend] <friend>")).replace(/\n+$/, "").split("\n");
      assert.equal(rows[0], "[friend] <friend> interrupting [2J you");
      assert.equal(rows.slice(1).join(""), `[friend] <typist> ${typed}`);
      assert.equal(shown.match(/<typist> long and/g)?.length, 1, "it stands there once");
      await tmux("send-keys", "ence", "Enter");
      assert.match(
        (await friend.until(/PRIVMSG friend/)).at(-1) ?? "",
        / PRIVMSG friend :.*half a sentence$/,
      );
      await tmux("send-keys", "C-c");
      await friend.ask();
      for (let i = 0; i < 100 && (await tmux("has-session")).code === 0; i++);
      assert.notEqual((await tmux("has-session")).code, 0, "Ctrl-C has ended it");
    } finally {
      await tmux("kill-server");
    }
  },
);
