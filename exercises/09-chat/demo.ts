/** The chat in one terminal: what goes over the wire, two users, a call that outlives the server, and a crowd. */
import { integer, setting } from "../../shared/config.ts";
import { expect, say } from "../../shared/demo.ts";
import { program } from "../../shared/program.ts";
import { type Running, start } from "../../shared/running.ts";
import { Crowd } from "./crowd.ts";
import { ScriptedClient } from "./scripted-client.ts";

const HERE = "exercises/09-chat";
const RECEIVERS = 500;
/** Says lines as a user would who has nothing but nc, and shows what comes back. */
async function byHand(server: Running): Promise<void> {
  await using eva = await ScriptedClient.connect(server.port);
  const show = async (lines: readonly string[], last: RegExp, hide = /^$/) => {
    const cut = (line: string) => (line.length > 74 ? `${line.slice(0, 71)}...` : line);
    for (const line of lines) say(`  > ${cut(line)}`);
    await eva.send(...lines);
    for (const line of await eva.until(last)) {
      if (!hide.test(line)) say(`  < ${cut(line)}`);
    }
    say();
  };
  say("By hand, since IRC is text: who one is, and the server's welcome.");
  await show(["NICK eva", "USER eva 0 * :Eva"], / 422 /, / (?:00[23]|25\d|26\d) /);
  say("A channel begins with whoever joins it first, and she is its operator.");
  await show(["JOIN #lab"], / 366 /);
  say("What cannot be is answered with a number that every client understands.");
  await show(["PRIVMSG nobody :hello?", "NICK 1a", `TOPIC #lab :${"x".repeat(600)}`], / 417 /);
  await eva.send("QUIT :by hand");
  expect((await eva.rest()).at(-1)?.startsWith("ERROR") ?? false, "the server's last word");
}

interface Person extends Running {
  nick: string;
}
async function person(nick: string, server: Running, callPort: number): Promise<Person> {
  const args = ["--port", server.port, "--nick", nick, "--call-port", callPort];
  const running = await start(`${HERE}/client.ts`, args, { servers: 0 });
  await running.output(/^-- Welcome/m);
  return Object.assign(running, { nick });
}

function type({ nick, child }: Person, line: string): void {
  say(`  ${nick} types: ${line}`);
  child.stdin?.write(`${line}\n`);
}
/** Waits until somebody's screen shows it, and shows it here. */
async function sees(person: Person, pattern: RegExp): Promise<void> {
  const [line = ""] = await person.output(pattern);
  say(`  ${person.nick} sees:  ${line}`);
}

async function twoPeople(server: Running, callPort: number): Promise<void> {
  await using ana = await person("ana", server, callPort);
  await using bob = await person("bob", server, 0);
  say("Two users with our client. Names, presence, routing: the server knows who is where.");
  type(ana, "/join #lab");
  await sees(ana, /^\[#lab\] -- here: @ana$/m);
  type(bob, "/join #lab");
  await sees(ana, /^\[#lab\] --> bob has joined$/m);
  type(bob, "hello, everybody");
  await sees(ana, /^\[#lab\] <bob> hello, everybody$/m);
  type(ana, "/away back at five");
  await ana.output(/^-- You have been marked as being away$/m);
  type(bob, "/msg ana are you there?");
  await sees(bob, /^\[ana\] -- ana is away: back at five$/m);
  await sees(ana, /^\[bob\] <bob> are you there\?$/m);
  say();
  say("A call: offered and accepted through the server, then a TCP link between the two.");
  type(ana, "/call bob");
  await sees(bob, /^-- ana calls: .*(?=;)/m);
  type(bob, "/accept ana");
  await sees(bob, /^-- the call with ana is open, directly to [\d.:]+/m);
  type(ana, "nobody but you reads this");
  await sees(bob, /^\[=ana\] <ana> nobody but you reads this$/m);
  say();
  say("The server stops. It tells everybody; the call does not need it any more.");
  expect((await server.stop()) === 0, "the server's end");
  await sees(bob, /^-- the server: Closing Link.*$/m);
  type(bob, "still here?");
  await sees(ana, /^\[=bob\] <bob> still here\?$/m);
  type(ana, "/hangup");
  await sees(bob, /^-- the call with ana has ended$/m);
  for (const one of [ana, bob]) expect((await one.exited).code === 0, `the end of ${one.nick}`);
}

async function aCrowd(): Promise<number> {
  say(`${RECEIVERS} receivers in one channel; each checks every byte that it gets.`);
  await using server = await start(`${HERE}/server.ts`, ["--port", 0, "--flood-rate", 0]);
  await using crowd = await Crowd.gather(server.port, RECEIVERS);
  await crowd.say(200, 100); // warms up
  const [alone, pipelined] = [await crowd.say(50, 1), await crowd.say(4000, 400)];
  const format = (value: number) => Math.round(value).toLocaleString("en");
  say(`  one message at a time:  ${format(alone)} deliveries a second`);
  say(`  pipelined:              ${format(pipelined)} (what comes within a turn is written as one)`);
  say();
  return pipelined;
}

await program({
  summary: "Shows the chat from end to end, in one terminal.",
  example: "",
  settings: {
    port: setting(integer(0, 65_534), "port of the server; ana's call waits on the next one (0 = any)", 0),
  },
  async run({ port }) {
    await using server = await start(`${HERE}/server.ts`, ["--port", port]);
    say(`The server listens on ${server.urls[0]}`);
    say();
    await byHand(server);
    await twoPeople(server, port === 0 ? 0 : port + 1);
    say();
    const perSecond = await aCrowd();
    say(`result: 2 users, a call without server | ${(perSecond / 1e6).toFixed(1)} M deliveries/s`);
  },
});
