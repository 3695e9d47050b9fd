/** The server on the wire: what any chat server that speaks IRC should pass. */
import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  PATIENCE_MS,
  type Running,
  resetAfter,
  run,
  splitAt,
  start,
  tcpRelay,
  within,
} from "../../shared/testing.ts";
import { Crowd } from "./crowd.ts";
import { ScriptedClient } from "./scripted-client.ts";

const SERVER = "exercises/09-chat/server.ts";
const folder = mkdtempSync(join(tmpdir(), "netlab-chat-"));
/** Without flood control, so that a script need not wait. */
const OPEN = ["--flood-rate", 0];
let server: Running;

before(async () => {
  writeFileSync(join(folder, "motd.txt"), Buffer.from("Welcome, caf\xe9\r\n\nbe kind\n", "latin1"));
  server = await start(SERVER, ["--port", 0, ...OPEN, "--motd", join(folder, "motd.txt"), "--verbose"]);
});
after(async () => {
  assert.equal(await server.stop(), 0);
  rmSync(folder, { recursive: true });
});

/** Clients called `PREFIX0`, `PREFIX1`… in a channel, all of whom have seen all come. */
async function crowd(port: number, prefix: string, size: number, channel: string): Promise<ScriptedClient[]> {
  const clients = await Promise.all(
    Array.from({ length: size }, (_, i) => ScriptedClient.as(`${prefix}${i}`, port)),
  );
  for (const client of clients) await client.send(`JOIN ${channel}`);
  await Promise.all(clients.map((client) => client.until(/ 366 /)));
  await Promise.all(clients.map((client) => client.ask()));
  for (const client of clients) client.heard.length = 0;
  return clients;
}
const close = (clients: readonly ScriptedClient[]) => {
  for (const { connection } of clients) connection.destroy();
};

describe("a conversation", () => {
  test("two whole transcripts, side by side", async () => {
    await using ana = await ScriptedClient.connect(server.port);
    await ana.send("CAP LS 302", "NICK ana", "USER ana 0 * :Ana", "CAP END");
    const welcome = await ana.until(/ 376 /);
    assert.equal(welcome[0], ":chat.netlab.example CAP * LS :");
    assert.equal(
      welcome[1],
      ":chat.netlab.example 001 ana :Welcome to the netlab network, ana!~ana@127.0.0.1",
    );
    assert.deepEqual(
      welcome.slice(-5).map((line) => line.split(" ana :")[1]),
      [
        "- chat.netlab.example Message of the day - ",
        "- Welcome, caf\xe9",
        "- ",
        "- be kind",
        "End of /MOTD command.",
      ],
    );
    await using bob = await ScriptedClient.as("bob", server.port);
    await ana.ask("JOIN #talk");
    await bob.ask("JOIN #talk");
    await ana.until(/^:bob!~bob@127\.0\.0\.1 JOIN #talk$/);
    await ana.send("PRIVMSG #talk :\xff\x00 h\xe9 \u00f0\u009f\u0098\u0080 : end ");
    assert.deepEqual(await bob.until(/PRIVMSG/), [
      ":ana!~ana@127.0.0.1 PRIVMSG #talk :\xff h\xe9 \u00f0\u009f\u0098\u0080 : end ",
    ]);
    await bob.send("QUIT :bye");
    assert.deepEqual(await bob.rest(), ["ERROR :Closing Link: 127.0.0.1 (Quit: bye)"]);
    assert.deepEqual(await ana.until(/QUIT/), [":bob!~bob@127.0.0.1 QUIT :Quit: bye"]);
  });

  test("the same, whatever pieces the lines come in; LF alone is an end too", async () => {
    await using relay = await tcpRelay(server.port, splitAt(1));
    await using ana = await ScriptedClient.as("split", relay.port);
    await ana.connection.write("PING a\nPING b\r\n\r\nPING c\rPING d\n");
    assert.deepEqual(
      (await ana.until(/ d$/)).map((line) => line.at(-1)),
      ["a", "b", "c", "d"],
    );
  });

  test("a line of 512 bytes is taken, one of 513 answered 417, and the next one is a line again", async () => {
    await using ana = await ScriptedClient.as("long", server.port);
    const ping = (size: number, end: string) => `PING :${"x".repeat(size - 6 - end.length)}${end}`;
    await ana.connection.write(
      ping(512, "\r\n") + ping(512, "\n") + ping(513, "\r\n") + ping(513, "\n") + ping(9000, "\n"),
    );
    const codes = (await ana.ask()).map((line) => line.split(" ")[1]);
    assert.deepEqual(codes, ["PONG", "PONG", "417", "417", "417"]);
  });

  test("no text can make a line of its own at its receiver", async () => {
    await using ana = await ScriptedClient.as("inject0", server.port);
    await using bob = await ScriptedClient.as("inject1", server.port);
    await ana.connection.write("PRIVMSG inject1 :a\rQUIT :forged\0\rPRIVMSG inject1 :b\0c\n");
    await ana.rest().catch(() => {});
    // The CR has ended the line, so ana has said QUIT herself; nothing of it was ever bob's.
    const lines = await bob.ask();
    assert.deepEqual(lines, [":inject0!~inject0@127.0.0.1 PRIVMSG inject1 a"]);
  });

  test("a nick is free again when its connection was cut, by a reset too", async () => {
    await using relay = await tcpRelay(server.port, resetAfter(60));
    const lost = await ScriptedClient.connect(relay.port);
    await lost.send("NICK cut", "USER cut 0 * :x");
    await lost.until(/ 422 | 376 /).catch(() => {});
    await lost.send("x".repeat(100)).catch(() => {});
    await server.output(/cut has left/, "stderr");
    await using again = await ScriptedClient.as("cut", server.port);
    assert.ok(again.heard[0]?.includes(" 001 cut "));
  });

  test("IPv6, and a name of one's own", async () => {
    await using six = await start(SERVER, ["--host", "::1", "--port", 0, "--name", "irc.six.example"]);
    assert.match(six.urls[0] ?? "", /^tcp:\/\/\[::1\]:\d+$/);
    await using ana = await ScriptedClient.as("ana", six.port, "::1");
    assert.equal(ana.heard[0], ":irc.six.example 001 ana :Welcome to the netlab network, ana!~ana@0::1");
  });
});

describe("limits", { concurrency: 4 }, () => {
  test("flood control: a burst at once, the rest at its rate and in order; others do not wait", async () => {
    await using strict = await start(SERVER, ["--port", 0, "--flood-burst", 5, "--flood-rate", 20]);
    await using ana = await ScriptedClient.as("ana", strict.port);
    await using bob = await ScriptedClient.as("bob", strict.port);
    const lines = Array.from({ length: 25 }, (_, i) => `PRIVMSG bob :${i}`);
    const begin = performance.now();
    await ana.send(...lines);
    await bob.ask();
    assert.ok(!bob.heard.some((line) => line.endsWith(" 24")), "bob is answered meanwhile");
    await bob.until(/ 24$/);
    const tookMs = performance.now() - begin;
    assert.ok(tookMs >= 900, `20 lines at 20 a second take a second, not ${tookMs.toFixed()} ms`);
    const numbers = bob.heard
      .filter((line) => line.includes(" PRIVMSG bob "))
      .map((line) => Number(line.split(" ").at(-1)));
    assert.deepEqual(
      numbers,
      Array.from({ length: 25 }, (_, i) => i),
    );
  });

  test("whoever floods on and on is cut off: Excess Flood", async () => {
    await using strict = await start(SERVER, ["--port", 0, "--receive-queue", 2000]);
    await using ana = await ScriptedClient.as("ana", strict.port);
    await using bob = await ScriptedClient.as("bob", strict.port);
    await Promise.all([ana, bob].map((client) => client.ask("JOIN #a")));
    await ana.send(...Array.from({ length: 500 }, (_, i) => `PRIVMSG #a :${i}`));
    assert.equal((await ana.rest()).at(-1), "ERROR :Closing Link: 127.0.0.1 (Excess Flood)");
    const heard = await bob.until(/QUIT/);
    assert.equal(heard.at(-1), ":ana!~ana@127.0.0.1 QUIT :Excess Flood");
    assert.ok(heard.length < 15, `${heard.length} lines came through`);
  });

  test("so is one who sends what is no line: bytes without an end, or ends alone", async () => {
    await using strict = await start(SERVER, ["--port", 0]);
    for (const bytes of ["x", "\n"]) {
      await using ana = await ScriptedClient.as("ana", strict.port);
      await ana.connection.write(Buffer.alloc(60_000, bytes));
      assert.equal((await ana.rest()).at(-1), "ERROR :Closing Link: 127.0.0.1 (Excess Flood)");
    }
  });

  test("silence: a PING, and without an answer the end; one that answers stays", async () => {
    await using strict = await start(SERVER, ["--port", 0, "--ping-interval", "0.7"]);
    await using dead = await ScriptedClient.as("dead", strict.port);
    await using alive = await ScriptedClient.as("alive", strict.port);
    await Promise.all([dead, alive].map((client) => client.ask("JOIN #a")));
    const answering = (async () => {
      const quits: string[] = [];
      for (let pings = 0; pings < 3; ) {
        const line = await alive.next();
        if (line === undefined) return ["alive was cut off"];
        if (line.includes(" QUIT ")) quits.push(line);
        if (!line.startsWith("PING ")) continue;
        await alive.send(line.replace("PING", "PONG"));
        pings++;
      }
      return quits;
    })();
    assert.deepEqual((await dead.rest()).slice(-2), [
      "PING chat.netlab.example",
      "ERROR :Closing Link: 127.0.0.1 (Ping timeout: 0.7 seconds)",
    ]);
    const expected = [":dead!~dead@127.0.0.1 QUIT :Ping timeout: 0.7 seconds"];
    assert.deepEqual(await within(answering, "three PINGs"), expected);
  });

  test("who does not register in time is closed, however busy", async () => {
    await using strict = await start(SERVER, ["--port", 0, "--registration-timeout", "0.5"]);
    await using idle = await ScriptedClient.connect(strict.port);
    await using busy = await ScriptedClient.connect(strict.port);
    await busy.send("NICK a", ...Array.from({ length: 30 }, () => "PING x"));
    await using half = await ScriptedClient.connect(strict.port);
    await half.connection.write("NICK half");
    for (const client of [idle, busy, half])
      assert.equal((await client.rest()).at(-1), "ERROR :Closing Link: 127.0.0.1 (Registration timed out)");
  });

  test("garbage, bytes of all kinds, and a client that says nothing cost nobody else anything", async () => {
    await using ana = await ScriptedClient.as("calm", server.port);
    const random = Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 167 + (i >> 7) * 31) & 255));
    await using garbage = await ScriptedClient.connect(server.port);
    await garbage.connection.write(random).catch(() => {});
    await using silent = await ScriptedClient.connect(server.port);
    assert.deepEqual(await ana.ask("PRIVMSG calm :still here"), [
      ":calm!~calm@127.0.0.1 PRIVMSG calm :still here",
    ]);
    assert.equal(silent.heard.length, 0);
  });

  test("clients beyond --max-clients are refused; a password is asked for", async () => {
    await using strict = await start(SERVER, ["--port", 0, "--max-clients", 1, "--password", "sésame"]);
    await using ana = await ScriptedClient.connect(strict.port);
    await ana.send(`PASS ${Buffer.from("sésame").toString("latin1")}`, "NICK ana", "USER ana 0 * :Ana");
    await ana.until(/ 001 /);
    await using second = await ScriptedClient.connect(strict.port);
    assert.deepEqual(await second.rest().catch(() => []), []);
    await strict.output(/refused, 1 clients are connected/, "stderr");
  });
});

describe("a crowd", () => {
  test("500 in a channel: each hears every line of the others once, in order per speaker", async () => {
    const clients = await crowd(server.port, "c", 500, "#crowd");
    const [speakers, lines] = [10, 20];
    const done = Array.from({ length: speakers }, (_, s) =>
      clients[s]?.send(...Array.from({ length: lines }, (_, i) => `PRIVMSG #crowd :${s} ${i}`)),
    );
    await Promise.all(done);
    await Promise.all(
      clients.map(async (client, c) => {
        const own = c < speakers ? 1 : 0;
        const expected = (speakers - own) * lines;
        const next = new Map<number, number>();
        for (let i = 0; i < expected; i++) {
          const [, speaker, number] = / PRIVMSG #crowd :(\d+) (\d+)$/.exec((await client.next()) ?? "") ?? [];
          assert.equal(Number(number), next.get(Number(speaker)) ?? 0, `client ${c}, speaker ${speaker}`);
          assert.notEqual(Number(speaker), c, "nobody hears himself");
          next.set(Number(speaker), Number(number) + 1);
        }
        assert.deepEqual(await client.ask(), [], "and nothing more");
      }),
    );
    close(clients);
  });

  test("one of 500 stops reading: it is cut off at its limit, the others miss nothing and do not wait for it", async () => {
    await using strict = await start(SERVER, ["--port", 0, ...OPEN, "--send-queue", 100_000]);
    const clients = await crowd(strict.port, "c", 499, "#crowd");
    const stalled = connectSocket({ port: strict.port, host: "127.0.0.1" });
    stalled.on("error", () => {});
    stalled.write("NICK stalled\r\nUSER s 0 * :s\r\nJOIN #crowd\r\n");
    stalled.pause();
    const [speaker, ...listeners] = clients as [ScriptedClient, ...ScriptedClient[]];
    await speaker.until(/stalled.* JOIN /);
    const toStalled = Array.from({ length: 100 }, () => `PRIVMSG stalled :${"x".repeat(400)}`);
    let said = 0;
    for (let isThere = true; isThere; said++) {
      assert.ok(said < 500, "it should have been cut off by now");
      const answers = await speaker.ask(...toStalled, `PRIVMSG #crowd :${said}`);
      isThere = !answers.some((line) => line.endsWith("QUIT :Max SendQ exceeded"));
    }
    await Promise.all(
      listeners.map(async (client) => {
        await client.until(new RegExp(` #crowd ${said - 1}$`));
        const numbers = client.heard.flatMap((line) => / PRIVMSG #crowd (\d+)$/.exec(line)?.[1] ?? []);
        assert.deepEqual(
          numbers.map(Number),
          Array.from({ length: said }, (_, i) => i),
        );
        await client.ask();
        const ends = client.heard.filter((line) => line.includes(" QUIT "));
        assert.equal(ends.length, 1);
      }),
    );
    await strict.output(/stalled: Max SendQ exceeded/, "stderr");
    stalled.destroy();
    close(clients);
  });

  test("a client that is killed in mid-line is gone, and its channel hears why", async () => {
    await using ana = await ScriptedClient.as("witness", server.port);
    await ana.ask("JOIN #killed");
    const victim = connectSocket({ port: server.port, host: "127.0.0.1" });
    victim.write("NICK victim\r\nUSER v 0 * :v\r\nJOIN #killed\r\nPRIVMSG #killed :half a li");
    await ana.until(/:victim.* JOIN/);
    victim.resetAndDestroy();
    const [line = ""] = await ana.until(/QUIT/);
    assert.match(line, /^:victim!~v@127\.0\.0\.1 QUIT :the peer reset the connection/);
  });
});

describe("the program", { concurrency: 4 }, () => {
  test("SIGTERM: everybody is told, registered or not, and it exits 0", async () => {
    await using own = await start(SERVER, ["--port", 0]);
    await using ana = await ScriptedClient.as("ana", own.port);
    await using bob = await ScriptedClient.as("bob", own.port);
    await using stranger = await ScriptedClient.connect(own.port);
    await stranger.ask();
    for (const client of [ana, bob]) await client.ask("JOIN #a");
    await ana.until(/bob.* JOIN/);
    const begin = performance.now();
    const stopped = own.stop();
    for (const client of [ana, bob, stranger])
      assert.deepEqual(await client.rest(), ["ERROR :Closing Link: 127.0.0.1 (Server shutting down)"]);
    close([ana, bob, stranger]);
    assert.equal(await stopped, 0);
    assert.ok(performance.now() - begin < PATIENCE_MS);
  });

  test("what is wrong on the command line is said in one line, with exit code 2", async () => {
    for (const [args, message] of [
      [["--motd", "/none"], /cannot read the message of the day \/none: no such file/],
      [["--name", "a b"], /--name "a b" is not a server's name/],
      [["--ping-interval", "x"], /--ping-interval "x" is not a number of seconds/],
      [["--ping-interval", "0"], /is not a number of seconds/],
      [["--port", "x"], /--port "x" is not a port/],
    ] as const) {
      const { code, stderr } = await run(SERVER, args);
      assert.equal(code, 2, stderr);
      assert.match(stderr, message);
      assert.equal(stderr.trim().split("\n").length, 1);
    }
    const taken = await run(SERVER, ["--port", server.port]);
    assert.equal(taken.code, 1);
    assert.match(taken.stderr, /^error: cannot listen on 127.0.0.1:\d+: address already in use/);
  });
});

test("the crowd's check catches a server that loses, repeats, reorders or changes a line", async () => {
  const faults: Record<string, (lines: string[]) => string[]> = {
    none: (lines) => lines,
    loses: (lines) => lines.toSpliced(2, 1),
    repeats: (lines) => lines.toSpliced(2, 0, lines[2] ?? ""),
    reorders: (lines) => lines.toSpliced(2, 2, lines[3] ?? "", lines[2] ?? ""),
    changes: (lines) => lines.toSpliced(2, 1, lines[2]?.replace("x", "y") ?? ""),
  };
  for (const [name, fault] of Object.entries(faults)) {
    // A deliberately broken peer: what the server says passes through this.
    await using relay = await tcpRelay(server.port, (chunk, _offset, toServer) => {
      const text = chunk.toString("latin1");
      const isTheirs = !toServer && text.includes(" :2 x");
      return { pieces: [isTheirs ? Buffer.from(fault(text.split(/(?<=\n)/)).join(""), "latin1") : chunk] };
    });
    await using crowd = await Crowd.gather(relay.port, 3);
    const saying = crowd.say(10, 20);
    if (name === "none") assert.ok((await saying) > 0);
    else await assert.rejects(saying, /a receiver got other bytes than were said/, name);
  }
});
