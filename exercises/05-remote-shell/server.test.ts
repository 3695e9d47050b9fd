/** The programs, from outside. */
import { strict as assert } from "node:assert";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect as connectSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { connect } from "../../shared/tcp.ts";
import { becomes, needs, run, runTool, splitAt, start, tcpRelay, within } from "../../shared/testing.ts";
import { clientHandshake } from "./handshake.ts";
import { HERE, LocalServer, output, PASSWORD, USER } from "./local-server.ts";
import { tamperer } from "./man-in-the-middle.ts";
import { RemoteShell } from "./remote.ts";
import { removeLeftovers } from "./shell.ts";

const onLinux = process.platform === "linux" ? {} : { skip: "looks into /proc" };
const asRoot = process.getuid?.() === 0 ? {} : { skip: "needs root" };
let server: LocalServer;
/** Settles when the server has had enough of a client that sends a byte of its hello each second. */
let dripped: Promise<number>;
before(async () => {
  server = await LocalServer.start(["--login-delay", 0]);
  const dripping = connectSocket(server.port, "127.0.0.1").on("error", () => {});
  const [hello, startMs] = [Buffer.from("014e4c525301".padEnd(140, "0"), "hex"), performance.now()];
  let sent = 0;
  const drip = setInterval(() => dripping.write(hello.subarray(sent, ++sent)), 1000);
  dripped = new Promise((resolve) =>
    dripping.on("close", () => {
      clearInterval(drip);
      resolve(performance.now() - startMs);
    }),
  );
});
after(() => server[Symbol.asyncDispose]());

const client = (args: readonly string[], stdin: string | Buffer = "", own = server) =>
  run(`${HERE}/client.ts`, [...own.as(), ...args], { stdin });
const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);

describe("set-up", () => {
  test("without users the server says how to add one and exits 2; adduser adds, changes and removes", async () => {
    const users = server.file("others");
    const args = ["--port", "0", "--users", users, "--host-key", server.file("host-key")];
    const none = await run(`${HERE}/server.ts`, args);
    assert.equal(none.code, 2);
    assert.match(
      none.stderr,
      /^error: there are no users in \S+; add one: npx tsx \S+adduser\.ts --users \S+ --user NAME\n$/,
    );
    const add = (...more: string[]) => run(`${HERE}/adduser.ts`, ["--users", users, ...more]);
    const password = ["--password-file", server.file("password")];
    assert.match((await add("--user", "bob", ...password)).stderr, /^added bob/);
    assert.match((await add("--user", "eve", ...password)).stderr, /^added eve/);
    assert.match((await add("--user", "bob", ...password)).stderr, /^changed the password of bob/);
    assert.match((await add("--user", "eve", "--remove")).stderr, /^eve is no longer/);
    assert.match(readFileSync(users, "utf8"), /^bob:\$scrypt\$ln=15,r=8,p=1\$\S+\n$/);
    assert.equal(mode(users), "600");
    assert.equal((await add("--user", "../x", ...password)).code, 2);
    assert.match((await add("--user", "zoe")).stderr, /there is no terminal|no password was given/);
    assert.deepEqual(
      readdirSync(server.folder).filter((name) => name.endsWith(".part")),
      [],
    );
  });

  test("keys and known hosts are their owner's alone, and a readable host key is refused", async () => {
    await client(["--command", "true"]);
    for (const name of ["host-key", "known-hosts", "log"]) assert.equal(mode(server.file(name)), "600", name);
    writeFileSync(server.file("open-key"), readFileSync(server.file("host-key")), { mode: 0o644 });
    const args = ["--port", "0", "--users", server.file("users"), "--host-key", server.file("open-key")];
    const { code, stderr } = await run(`${HERE}/server.ts`, args);
    assert.equal(code, 1);
    assert.match(stderr, /can be read by others; chmod 600/);
  });
});

describe("a command", () => {
  test("its output, its two channels, its exit code, its input", async () => {
    const { code, stdout, stderr } = await client(
      ["--command", "wc -c; echo err >&2; exit 7"],
      Buffer.alloc(300_000),
    );
    assert.deepEqual([code, stdout.trim()], [7, "300000"]);
    assert.match(stderr, /^err$/m);
  });

  test("all bytes survive the way there and back", async () => {
    const bytes = Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 7 + (i >> 8)) & 255));
    assert.deepEqual((await client(["--command", "cat"], bytes)).bytes, bytes);
  });

  test("lines of stdin are commands of one shell; the last one's code is the client's", async () => {
    const { code, stdout } = await client([], "cd /usr\nX=3\npwd; echo $X\nexit 4\necho never\n");
    assert.deepEqual([code, stdout], [4, "/usr\n3\n"]);
  });

  test("a line of stdin that never ends is refused long before it is all there", async () => {
    const { code, stderr } = await client([], Buffer.alloc(1_000_000, "a"));
    assert.equal(code, 1);
    assert.match(stderr, /^error: a line of stdin is longer than the 65536 bytes of a command$/m);
  });

  test("a directory's name cannot forge lines of the log at the client", async () => {
    const log = server.file("forged");
    const folder = `${server.folder}/$(printf 'x\\n# \\033[2J')`;
    await client(["--log", log], `mkdir "${folder}"; cd "${folder}"\ntrue\n`);
    assert.match(readFileSync(log, "utf8"), /\/x\?# \?\[2J\n\$ true$/m);
  });

  test("SIGINT at the client interrupts the command and not the client", async () => {
    const args = [...server.as(), "--command", "echo go; sleep 60; echo never"];
    await using running = await start(`${HERE}/client.ts`, args, { servers: 0 });
    await running.output(/^go$/m);
    running.kill("SIGINT");
    const { code } = await within(running.exited, "its end");
    assert.deepEqual([code, running.stdout], [130, "go\n"]);
  });

  test("a killed client leaves nothing running", onLinux, async () => {
    const args = [...server.as(), "--command", "sleep 71 & sleep 72 & echo $! $$; wait"];
    await using running = await start(`${HERE}/client.ts`, args, { servers: 0 });
    const [, ...pids] = await running.output(/^(\d+) (\d+)$/m);
    running.kill("SIGKILL");
    await becomes(() => pids.every((pid) => !existsSync(`/proc/${pid}`)), "the end of what it left");
  });

  test("--log keeps the session at the client, for its owner only", async () => {
    const log = server.file("transcript");
    await client(["--log", log, "--command", "echo out; echo err >&2; exit 3"]);
    assert.match(
      readFileSync(log, "utf8"),
      /^# \S+ session with .*\n# .*\n\$ echo out; .*\n(out\nerr|err\nout)\n# \S+ exit code 3\n# \S+ end\n$/,
    );
    assert.equal(mode(log), "600");
  });
});

describe("who may come in", () => {
  test("a wrong user and a wrong password: the same words, exit code 1", async () => {
    writeFileSync(server.file("wrong"), "wrong\n", { mode: 0o600 });
    const args = [
      "--port",
      String(server.port),
      "--known-hosts",
      server.file("known-hosts"),
      "--password-file",
      server.file("wrong"),
    ];
    const results = [];
    for (const user of [USER, "nobody"])
      results.push(await run(`${HERE}/client.ts`, [...args, "--user", user, "--command", "true"]));
    for (const { code, stderr } of results) {
      assert.equal(code, 1);
      assert.match(stderr, /^error: cannot log in: user or password is wrong$/m);
    }
  });

  test("wrong user and wrong password take the same time", async () => {
    const slow = await LocalServer.start(["--login-delay", 0]);
    await using _ = slow;
    await run(`${HERE}/adduser.ts`, [
      "--users",
      slow.file("users"),
      "--user",
      USER,
      "--password-file",
      slow.file("password"),
    ]);
    const times: Record<string, number[]> = { [USER]: [], nobody: [] };
    for (let i = 0; i < 4; i++) {
      await using remote = await RemoteShell.connect({ host: "127.0.0.1", port: slow.port });
      for (const user of [USER, "nobody"]) {
        const startMs = performance.now();
        assert.equal(await remote.login(user, "wrong"), false);
        times[user]?.push(performance.now() - startMs);
      }
    }
    // Not how long, but that both do the work: without it a login is refused in less than a millisecond.
    const least = Object.values(times).map((all) => Math.min(...all));
    assert.ok(
      least.every((ms) => ms > 20),
      `fastest refusals: ${least.join(", ")} ms`,
    );
  });

  test("five failures close the connection", async () => {
    await using remote = await RemoteShell.connect({ host: "127.0.0.1", port: server.port });
    for (let i = 0; i < 5; i++) assert.equal(await remote.login(USER, `wrong ${i}`), false);
    await assert.rejects(remote.login(USER, PASSWORD), /too many failed logins|closed|reset|EPIPE/i);
    const refused = server.log.filter(({ event, user }) => event === "refused" && user === USER);
    assert.ok(refused.length >= 5);
  });

  test("the log says who, where, what, how it ended and how long, and never a password", async () => {
    await client(["--command", "exit 9"]);
    await becomes(() => server.log.some(({ code }) => code === 9), "the line");
    const entry = server.log.find(({ code }) => code === 9);
    assert.equal(entry?.["user"], USER);
    assert.match(String(entry?.["from"]), /^127\.0\.0\.1:\d+$/);
    assert.equal(entry?.["command"], "exit 9");
    assert.ok(Number(entry?.["durationMs"]) >= 0 && !Number.isNaN(Date.parse(String(entry?.["time"]))));
    await using remote = await RemoteShell.connect({ host: "127.0.0.1", port: server.port });
    await remote.login("my secret typed as a name", PASSWORD);
    const log = readFileSync(server.file("log"), "utf8");
    assert.ok(!log.includes(PASSWORD) && !log.includes("my secret"));
    assert.ok(!(server.running.stdout + server.running.stderr).includes(PASSWORD));
  });

  test("a log on a full disk costs its lines, not the server", onLinux, async () => {
    const full = await LocalServer.start(["--login-delay", 0, "--log", "/dev/full"]);
    await using _ = full;
    await using remote = await full.remote();
    assert.equal((await output(remote, "echo served")).stdout, "served\n");
    await full.running.output(/cannot write the log \/dev\/full.*the disk is full/, "stderr");
    const nowhere = await run(`${HERE}/server.ts`, [
      ...["--port", "0", "--users", full.file("users"), "--host-key", full.file("host-key")],
      ...["--log", full.file("no/such/folder")],
    ]);
    assert.match(nowhere.stderr, /^error: cannot write the log .*no\/such\/folder: no such file/m);
  });

  test("the log has nothing that a terminal obeys, and is JSON all the same", async () => {
    await using remote = await server.remote();
    const command = ": \x9b2J \x7f \u202e \u{e0001} seen";
    await output(remote, command);
    await becomes(() => server.log.some((entry) => entry["command"] === command), "the line");
    assert.doesNotMatch(readFileSync(server.file("log"), "utf8"), /[^\P{C}\n]/u);
  });

  test("a new user need not wait for a restart, and a broken file leaves those that were there", async () => {
    const users = readFileSync(server.file("users"), "utf8");
    writeFileSync(server.file("users"), "rubbish");
    assert.equal((await client(["--command", "true"])).code, 0);
    await server.running.output(/cannot read the users/, "stderr");
    writeFileSync(server.file("users"), users);
  });

  test("more sessions than --max-sessions, and one that is idle", async () => {
    await using small = await LocalServer.start(["--max-sessions", 1, "--idle-timeout", 2]);
    await using first = await small.remote();
    await assert.rejects(small.remote(), /too many sessions/);
    assert.equal((await output(first, "sleep 2.4; echo a command is not idle")).code, 0);
    await becomes(() => small.log.some(({ event }) => event === "logout"), "the end of the idle one");
    await assert.rejects(output(first, "true"), /idle for too long|closed|reset/i);
    let second: RemoteShell | undefined; // its place is free when its shell has gone, too
    await becomes(async () => {
      second = await small.remote().catch(() => undefined);
      return second !== undefined;
    }, "a place");
    assert.ok(second);
    assert.equal((await output(second, "true")).code, 0);
    await second[Symbol.asyncDispose]();
  });

  test("--run-as gives up root, with its groups", asRoot, async (t) => {
    if ((await runTool("id", ["-u", "nobody"])).code !== 0) return t.skip("there is no nobody");
    await using low = await LocalServer.start(["--run-as", "nobody"]);
    await using remote = await low.remote();
    const [nobody, groups] = [await runTool("id", ["nobody"]), await output(remote, "id; cat /etc/shadow")];
    assert.equal(groups.stdout.trim(), nobody.stdout.trim());
    assert.match(groups.stderr, /[Pp]ermission denied/);
    const status = readFileSync(`/proc/${low.running.child.pid}/status`, "utf8");
    const uid = (await runTool("id", ["-u", "nobody"])).stdout.trim();
    assert.match(
      status,
      new RegExp(`^Uid:\t${uid}\t${uid}\t${uid}\t${uid}$`, "m"),
      "the server itself, for good",
    );
  });
});

describe("what others can read", () => {
  for (const encrypt of ["session", "login"] as const) {
    test(`--encrypt ${encrypt}: every byte on the wire searched`, async () => {
      await using own = await LocalServer.start(["--encrypt", encrypt]);
      const heard: Buffer[] = [];
      await using middle = await tamperer(own.port, (record) => {
        heard.push(record);
        return { onward: [record] };
      });
      const { stdout, stderr } = await run(
        `${HERE}/client.ts`,
        [...own.as(USER, middle.port), "--command", "echo a-long-$((6*7))-word; cat"],
        { stdin: "the-input" },
      );
      assert.equal(stdout, "a-long-42-word\nthe-input");
      const wire = Buffer.concat(heard);
      const secret = [USER, PASSWORD];
      const session = ["echo a-long", "a-long-42-word", "the-input"];
      for (const text of secret) assert.ok(!wire.includes(text), text);
      for (const text of session) assert.equal(wire.includes(text), encrypt === "login", text);
      assert.equal(/^warning: the server encrypts the login only/m.test(stderr), encrypt === "login");
      assert.equal(/^warning: --encrypt login/m.test(own.running.stderr), encrypt === "login");
      if (encrypt === "session") return;
      const refused = await client(["--encrypt", "session", "--command", "true"], "", own);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /encrypts the login and not the session/);
    });
  }
});

describe("difficult peers", () => {
  test("split at every byte", async () => {
    await using relay = await tcpRelay(server.port, splitAt(1));
    await using remote = await server.remote(relay.port);
    assert.equal((await output(remote, "echo slowly; cat", Buffer.from("input"))).stdout, "slowly\ninput");
  });

  test("garbage, a half hello, one that says nothing, a reset: each costs itself", async () => {
    const half = connectSocket(server.port, "127.0.0.1");
    half.write(Buffer.from("01 4e4c 5253".replaceAll(" ", ""), "hex"));
    for (const bytes of [
      Buffer.from("GET / HTTP/1.1\r\n\r\n"),
      Buffer.alloc(100_000),
      Buffer.from("03ffffffff", "hex"),
      Buffer.from("0300000010", "hex"),
    ]) {
      await using connection = await connect({ host: "127.0.0.1", port: server.port });
      await connection.write(bytes).catch(() => {});
      connection.end();
      await connection.read().then(
        (got) => assert.equal(got, undefined),
        () => {},
      );
    }
    const reset = connectSocket(server.port, "127.0.0.1", () => reset.resetAndDestroy());
    assert.equal((await client(["--command", "true"])).code, 0);
    half.destroy();
    assert.equal(server.running.child.exitCode, null);
  });

  test("nothing longer than a login is gathered for who has not logged in", async () => {
    await using connection = await connect({ host: "127.0.0.1", port: server.port, timeoutMs: 5000 });
    const { channel } = await clientHandshake(connection);
    await channel.connection.write(Buffer.from("0300000100", "hex"));
    await assert.rejects(async () => {
      if ((await channel.receive()) === undefined) throw new Error("closed");
    }, /closed|reset/i);
  });

  test("a hello that drips has ten seconds for all of it", async () => {
    const tookMs = await within(dripped, "its end", 20_000);
    assert.ok(tookMs > 9_000, `it had ${Math.round(tookMs)} ms`);
  });

  test("messages out of turn end the connection and run nothing", async () => {
    const marker = server.file("out-of-turn");
    const remote = await RemoteShell.connect({ host: "127.0.0.1", port: server.port });
    await assert.rejects(output(remote, `touch ${marker}`), /closed|reset|EPIPE/i);
    assert.ok(!existsSync(marker), "a command before the login");
    const twice = await server.remote();
    const { channel } = twice.greeted;
    await channel.send({ kind: "command", id: 1, text: "sleep 5" });
    await channel.send({ kind: "command", id: 2, text: `touch ${marker}` });
    await assert.rejects(async () => assert.notEqual(await channel.receive(), undefined));
    assert.ok(!existsSync(marker), "a second command");
    const eager = await server.remote();
    await eager.greeted.channel.send({ kind: "command", id: 1, text: "sleep 5" });
    for (let i = 0; i < 8; i++)
      await eager.greeted.channel.send({ kind: "stdin", id: 1, data: Buffer.alloc(65_536) }).catch(() => {});
    await assert.rejects(async () => {
      while (true) assert.notEqual(await eager.greeted.channel.receive(), undefined);
    });
    for (const one of [remote, twice, eager]) one.destroy();
  });

  test("a signal gets through while input waits", async () => {
    await using remote = await server.remote();
    const running = remote.run("echo go; sleep 60", async () => {
      void remote.input(Buffer.alloc(1_000_000));
      await remote.signal("interrupt");
    });
    assert.equal(await within(running, "the end of the command"), 130);
    assert.equal((await output(remote, "echo next")).stdout, "next\n");
  });

  test("a client that does not read: `yes` waits, and the server's memory stays", onLinux, async () => {
    const pid = server.running.child.pid;
    const rss = () =>
      Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
    await using other = await server.remote();
    await output(other, "head -c 50000000 /dev/zero");
    const beforeMiB = rss();
    const remote = await server.remote();
    let goOn = () => {};
    const stalled = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const running = remote.run("yes", () => stalled);
    running.catch(() => {});
    // Others are served meanwhile; unheld, `yes` would fill hundreds of megabytes in this time.
    for (let i = 0; i < 20; i++) await output(other, "sleep 0.05");
    assert.ok(rss() - beforeMiB < 60, `${beforeMiB} MiB before, ${rss()} after`);
    goOn();
    remote.destroy();
  });

  test("300 connections at once, and one that is served", async () => {
    const idle = await Promise.all(
      Array.from({ length: 300 }, () => connect({ host: "127.0.0.1", port: server.port })),
    );
    assert.equal((await client(["--command", "echo served"])).stdout, "served\n");
    for (const connection of idle) connection.destroy();
  });

  test(
    "SIGTERM ends sessions and what runs in them, with exit code 0 and a word to the clients",
    onLinux,
    async () => {
      const own = await LocalServer.start();
      await using _ = own;
      const remote = await own.remote();
      let pid = "";
      const running = remote.run("echo $$; sleep 60", async (_, data) => {
        pid = data.toString().trim();
      });
      running.catch(() => {});
      await becomes(() => pid !== "", "its process id");
      const startMs = performance.now();
      assert.equal(await own.running.stop(), 0);
      assert.ok(performance.now() - startMs < 2500);
      await assert.rejects(running, /it is being stopped|closed|reset/i);
      assert.ok(!existsSync(`/proc/${pid}`));
      remote.destroy();
    },
  );

  test("kill -9 of the server: the client says so and exits 1", async () => {
    const own = await LocalServer.start();
    await using _ = own;
    await using running = await start(`${HERE}/client.ts`, [...own.as(), "--command", "echo go; sleep 2"], {
      servers: 0,
    });
    await running.output(/^go$/m);
    own.running.kill("SIGKILL");
    assert.equal((await within(running.exited, "its end")).code, 1);
    assert.match(running.stderr, /^error: (the server closed the connection|the peer reset)/m);
  });
});

test("what a killed server left behind is ended, what a living one has is not", onLinux, async () => {
  const folder = mkdtempSync(join(tmpdir(), "netlab-remote-")); // not where other tests have theirs
  const wrapper = ["env", `TMPDIR=${folder}`];
  await using own = await LocalServer.start([], wrapper);
  await using other = await LocalServer.start([], wrapper);
  const pidOf = async (remote: RemoteShell) => {
    let pid = "";
    remote
      .run("echo $$; sleep 60", async (_, data) => {
        pid += data;
      })
      .catch(() => {});
    await becomes(() => pid !== "", "its process id");
    return `/proc/${pid.trim()}`;
  };
  await using living = await other.remote();
  await using dead = await own.remote();
  const [here, left] = [await pidOf(living), await pidOf(dead)];
  own.running.kill("SIGKILL");
  await own.running.exited;
  assert.ok(existsSync(left), "its command goes on");
  assert.equal(removeLeftovers(folder, 0), 1);
  await becomes(() => !existsSync(left), "the end of what was left");
  assert.ok(existsSync(here));
  living.destroy();
  await becomes(() => !existsSync(here), "the end of the other");
  rmSync(folder, { recursive: true, force: true });
});

test(
  "a real terminal: prompt, history, Ctrl-C, Ctrl-D, a password that is not shown",
  needs("tmux"),
  async (t) => {
    const socket = `netlab-${process.pid}`;
    const tmux = (...args: string[]) => runTool("tmux", ["-L", socket, ...args]);
    t.after(() => tmux("kill-server"));
    const command = [
      process.execPath,
      "--import",
      import.meta.resolve("tsx"),
      `${HERE}/client.ts`,
      "--port",
      server.port,
      "--user",
      USER,
      "--known-hosts",
      server.file("known-hosts"),
    ];
    rmSync(server.file("known-hosts"), { force: true });
    await tmux(
      "-f",
      "/dev/null",
      "new-session",
      "-d",
      "-x",
      "100",
      "-y",
      "30",
      `${command.join(" ")}; echo "code $?"; sleep 60`,
    );
    const shows = async (pattern: RegExp) => {
      const lateMs = performance.now() + 10_000;
      while (true) {
        const { stdout } = await tmux("capture-pane", "-p");
        if (pattern.test(stdout)) return stdout;
        assert.ok(performance.now() < lateMs, `waited in vain for ${pattern}:\n${stdout.trimEnd()}`);
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
    };
    const type = (...keys: string[]) => tmux("send-keys", ...keys);
    await shows(/password for anamaria:$/m);
    await type("-l", PASSWORD);
    await type("Enter");
    assert.ok(
      !(await shows(/anamaria@127\.0\.0\.1:\S+\$$/m)).includes(PASSWORD),
      "the password is not shown",
    );
    await type("cd /usr; echo it is $COLUMNS", "Enter");
    await shows(/^it is 100\n.*:\/usr\$$/m);
    await type("Up", "Enter");
    await shows(/^it is 100\n(.*\n)*it is 100$/m);
    await type("sleep 60; echo never", "Enter");
    await shows(/sleep 60/);
    await type("C-c");
    await shows(/\^C\n?.*\/usr\$$/m);
    await type("echo ready; read x; echo got $x", "Enter");
    await shows(/^ready$/m);
    await type("typed", "Enter");
    await shows(/^got typed$/m);
    await type("yes | head -n 3; cat", "Enter");
    await shows(/^y\ny\ny$/m);
    await type("to cat", "Enter", "C-d");
    await shows(/^y\ny\ny\n(.*\n)*to cat\nto cat\n.*\/usr\$$/m);
    await type("printf unfinished", "Enter");
    await shows(/^unfinished\n.*\/usr\$$/m);
    await type("half a line", "C-c", "exit 5", "Enter");
    await shows(/^code 5$/m);
  },
);
