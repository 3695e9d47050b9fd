/** Real clients on our server, and calls between them and our client: irssi on a pseudo-terminal, WeeChat without a screen. */
import { strict as assert } from "node:assert";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { needs, Running, start } from "../../shared/testing.ts";
import { ScriptedClient } from "./scripted-client.ts";

const HERE = "exercises/09-chat";
const folder = mkdtempSync(join(tmpdir(), "netlab-chat-real-"));
let server: Running;
/** The clients' own pacing, two seconds between two lines, is turned off, and so the server's is relaxed. */
before(async () => {
  server = await start(`${HERE}/server.ts`, ["--port", 0, "--verbose", "--flood-rate", 20]);
});
after(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** irssi reads a terminal, which `script` gives it; what it draws comes out as bytes. */
function irssi(nick: string) {
  const home = join(folder, nick);
  mkdirSync(home);
  writeFileSync(
    join(home, "config"),
    'settings = { "irc/core" = { cmd_queue_speed = "1msec"; cmds_max_at_once = "50"; }; };',
  );
  const command = `irssi --home=${home} -c 127.0.0.1 -p ${server.port} -n ${nick}`;
  const running = new Running("script", ["-qefc", command, "/dev/null"], {
    env: { TERM: "vt100", LC_ALL: "C.UTF-8", COLUMNS: "120", LINES: "40" },
  });
  return Object.assign(running, {
    type: (line: string) => void running.child.stdin?.write(`${line}\r`),
  });
}

/** WeeChat takes its commands from the command line; triggers and other plugins are left out. */
function weechat(nick: string, ...commands: string[]) {
  const home = join(folder, nick);
  const args = [
    `/server add lab 127.0.0.1/${server.port} -nicks=${nick} -notls`,
    "/set irc.server.lab.anti_flood_prio_high 0",
    "/set irc.server.lab.anti_flood_prio_low 0",
    "/set irc.server.lab.autojoin_dynamic off",
    ...commands,
    "/connect lab",
  ];
  return new Running(
    "weechat-headless",
    ["-d", home, "--stdout", ...args.flatMap((command) => ["-r", command])],
    { env: { LC_ALL: "C.UTF-8", HOME: home } },
  );
}

describe("irssi", needs("irssi", "script"), () => {
  test("joins, is heard and hears, asks who is there, sets modes and a topic, and leaves", async () => {
    await using ana = await ScriptedClient.as("ana", server.port);
    await ana.ask("JOIN #real");
    await using rita = irssi("rita");
    await server.output(/connected/, "stderr");
    await rita.output(/Welcome to the netlab network/);
    rita.type("/join #real");
    await ana.until(/^:rita!~\S+@127\.0\.0\.1 JOIN #real$/);
    rita.type("hello from irssi, caf\u00e9");
    await ana.until(/^:rita!\S+ PRIVMSG #real :hello from irssi, caf\u00c3\u00a9$/);
    await ana.send("PRIVMSG #real :hello irssi \u00c3\u00a9", "MODE #real +o rita");
    await rita.output(/hello irssi \u00e9/);
    await ana.until(/MODE #real \+o rita/);
    rita.type("/topic set by irssi");
    await ana.until(/^:rita!\S+ TOPIC #real :set by irssi$/);
    rita.type("/mode #real +b *!*@192.0.2.*");
    await ana.until(/^:rita!\S+ MODE #real \+b \*!\*@192\.0\.2\.\*$/);
    rita.type("/window goto 1");
    rita.type("/whois ana");
    await rita.output(/a server for lessons/);
    rita.type("/nick rita2");
    await ana.until(/^:rita!\S+ NICK rita2$/);
    rita.type("/quit so long");
    await ana.until(/^:rita2!\S+ QUIT :Quit: so long$/);
    assert.ok(!ana.heard.some((line) => / 421 /.test(line)));
  });

  /** Our client, and what is typed to it. */
  async function ours(nick: string) {
    const running = await start(`${HERE}/client.ts`, ["--port", server.port, "--nick", nick], { servers: 0 });
    await running.output(/^-- Welcome/m);
    return Object.assign(running, { type: (line: string) => void running.child.stdin?.write(`${line}\n`) });
  }

  test("irssi calls our client", async () => {
    await using bob = await ours("bob");
    await using iris = irssi("iris");
    await iris.output(/Welcome to the netlab network/);
    iris.type("/dcc chat bob");
    await bob.output(/^-- iris calls: \/accept iris connects you to 127\.0\.0\.1:\d+; or/m);
    bob.type("/accept iris");
    await bob.output(/^-- the call with iris is open/m);
    iris.type("/msg =bob over the direct link");
    await bob.output(/^\[=iris\] <iris> over the direct link$/m);
    iris.type("/query =bob");
    bob.type("I hear you");
    await iris.output(/I hear you/);
    iris.type("/dcc close chat bob");
    await bob.output(/^-- the call with iris has ended/m);
  });

  test("our client calls irssi", async () => {
    await using bob = await ours("rob");
    await using ida = irssi("ida");
    await ida.output(/Welcome to the netlab network/);
    bob.type("/call ida");
    await ida.output(/DCC CHAT from/);
    ida.type("/dcc chat rob");
    await bob.output(/^-- the call with ida is open/m);
    ida.type("/query =rob");
    bob.type("the other way");
    await ida.output(/the other way/);
    ida.type("and back");
    await bob.output(/^\[=ida\] <ida> and back$/m);
    bob.type("/hangup ida");
    await bob.output(/^-- the call with ida has ended/m);
  });
});

describe("WeeChat", needs("weechat-headless"), () => {
  test("negotiates, joins by itself, is greeted, and answers", async () => {
    await using ana = await ScriptedClient.as("anna", server.port);
    await ana.ask("JOIN #weechat");
    await using _ = weechat(
      "willy",
      "/set irc.server.lab.autojoin #weechat",
      '/set irc.server.lab.command "/msg anna ready when you are"',
      '/set irc.ctcp.version "headless"',
    );
    await ana.until(/^:willy!\S+ PRIVMSG anna :ready when you are$/);
    if (!ana.heard.some((line) => / JOIN /.test(line) && line.startsWith(":willy!")))
      await ana.until(/^:willy!\S+ JOIN/);
    await ana.send("PRIVMSG willy :\x01VERSION\x01");
    await ana.until(/^:willy!\S+ NOTICE anna :.VERSION headless/);
    const names = await ana.ask("NAMES #weechat", "WHOIS willy");
    assert.ok(names.some((line) => line.endsWith(" 353 anna = #weechat :@anna willy")));
    assert.ok(names.some((line) => / 311 anna willy /.test(line)));
  });

  test("takes a call of ours by itself", async () => {
    await using bob = await start(`${HERE}/client.ts`, ["--port", server.port, "--nick", "barb"], {
      servers: 0,
    });
    await bob.output(/^-- Welcome/m);
    await using _ = weechat(
      "wanda",
      "/set xfer.file.auto_accept_chats on",
      '/set irc.server.lab.command "/msg barb ready"',
    );
    await bob.output(/^\[wanda\] <wanda> ready$/m);
    bob.child.stdin?.write("/call wanda\n");
    await bob.output(/^-- the call with wanda is open/m);
    bob.child.stdin?.write("hello WeeChat\n/hangup\n");
    await bob.output(/^\[=wanda\] <barb> hello WeeChat\n-- the call with wanda has ended$/m);
  });
});
