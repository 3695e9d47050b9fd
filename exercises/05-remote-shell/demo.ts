/** The remote shell in one terminal: a session, what of it can be read on the wire, and what becomes of attacks. */
import { existsSync } from "node:fs";
import { port, setting } from "../../shared/config.ts";
import { expect, say } from "../../shared/demo.ts";
import { median } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { run } from "../../shared/running.ts";
import { newHostKey } from "./crypto.ts";
import { HERE, LocalServer, output, PASSWORD, USER } from "./local-server.ts";
import { impersonator, tamperer } from "./man-in-the-middle.ts";
import { writePrivately } from "./private-files.ts";

const ROUND_TRIPS = 300;
const SECRET = "The treasure lies under the oak";
/** The program that a user types, with these commands typed into it. */
async function client(server: LocalServer, args: readonly string[], stdin = ""): Promise<void> {
  const { code, stdout, stderr } = await run(`${HERE}/client.ts`, [...server.as(), ...args], { stdin });
  for (const line of (stderr + stdout).trimEnd().split("\n")) say(`  | ${line}`);
  say(`  (exit code ${code})`);
}

async function aSession(server: LocalServer): Promise<void> {
  say("One command, with input; its exit code becomes the client's:");
  say(`  $ echo one two three | client.ts --user ${USER} --command 'wc -w; id -u; exit 7'`);
  await client(server, ["--command", "wc -w; id -u; exit 7"], "one two three\n");
  say("\nSeveral, a line each. It is one shell: directory, variables and functions stay.");
  const lines = [
    "cd /usr",
    'greet() { echo "hello $1, this is $PWD"; }',
    "name=Ana",
    'greet "$name"',
    "exit 3",
  ];
  for (const line of lines) say(`  > ${line}`);
  await client(server, [], lines.map((line) => `${line}\n`).join(""));
  say("\nCtrl-C ends the remote command, not the session:");
  await using remote = await server.remote();
  const running = remote.run("while :; do echo tick; sleep 0.05; done", async () => {
    if (remote.isRunning) await remote.signal("interrupt");
  });
  const code = await running;
  const { stdout } = await output(remote, "echo still here");
  say(`  while :; do echo tick; …: exit code ${code}; then: ${stdout.trim()}`);
  expect(code === 130 && stdout === "still here\n", "Ctrl-C");
}

/** Somebody on the path who only reads: which of these are in what passes? */
async function overhear(server: LocalServer): Promise<void> {
  const heard: Buffer[] = [];
  await using middle = await tamperer(server.port, (record) => {
    heard.push(record);
    return { onward: [record] };
  });
  await using remote = await server.remote(middle.port);
  const command = `echo "${SECRET}" | tr a-z A-Z`;
  const { stdout } = await output(remote, command);
  const wire = Buffer.concat(heard);
  const found = Object.entries({ "user name": USER, password: PASSWORD, command, output: stdout }).map(
    ([what, text]) => [what, wire.includes(text)] as const,
  );
  for (const [what, isThere] of found)
    say(`  ${what.padEnd(10)} ${isThere ? "CAN BE READ" : "cannot be found"}`);
  const readable = found.filter(([, isThere]) => isThere).map(([what]) => what);
  const expected = remote.greeted.encrypt === "login" ? "command,output" : "";
  expect(readable.join() === expected, `${readable.join()} can be read`);
}

async function attacks(server: LocalServer): Promise<void> {
  say("Somebody on the path turns one bit of the command over:");
  const marker = server.file("marker");
  await using middle = await tamperer(server.port, (record, index, toServer) => {
    if (toServer && index === 2) record[20] = (record[20] ?? 0) ^ 1;
    return { onward: [record] };
  });
  await using remote = await server.remote(middle.port);
  const outcome = await output(remote, `touch ${marker}`).then(
    () => "it was not noticed",
    (error: Error) => error.message,
  );
  say(`  the client: ${outcome}`);
  const [, complaint] = await server.running.output(/^127\S+: (a record was altered.*)$/m, "stderr");
  say(`  the server: ${complaint}`);
  expect(!existsSync(marker), "the command has run");
  say("  and the command has not run.");

  say("\nSomebody plays the server, with a host key of their own, where the client has been before:");
  await using impostor = await impersonator(server.port, newHostKey(), () =>
    expect(false, "something was told"),
  );
  const known = server.as(USER, impostor.port);
  const trueKey = remote.greeted.hostKey.toString("base64");
  writePrivately(server.file("known-hosts"), `127.0.0.1:${impostor.port} ${trueKey}\n`);
  const { code, stderr } = await run(`${HERE}/client.ts`, [...known, "--command", "true"]);
  say(`  ${stderr.split(";")[0]}; …`);
  say(`  (exit code ${code})`);
  expect(code === 1, "the impostor was believed");
}

async function speed(server: LocalServer): Promise<{ roundTripMs: number; megabytes: number }> {
  await using remote = await server.remote();
  const times: number[] = [];
  for (let i = 0; i < ROUND_TRIPS; i++) {
    const startMs = performance.now();
    await remote.run(":", async () => {});
    times.push(performance.now() - startMs);
  }
  let bytes = 0;
  const startMs = performance.now();
  await remote.run("yes | head -c 100000000", async (_, data) => {
    bytes += data.length;
  });
  expect(bytes === 100_000_000, "the output is not whole");
  return { roundTripMs: median(times), megabytes: bytes / 1000 / (performance.now() - startMs) };
}

async function demonstrate(port: number): Promise<string> {
  await using server = await LocalServer.start(["--port", port]);
  await aSession(server);
  say("\nWho listens on the wire, and --encrypt session (the default):");
  await overhear(server);
  say();
  await attacks(server);
  await server.restart(["--port", port, "--encrypt", "login"]);
  say("\nThe same listener and --encrypt login, the assignment's own demand:");
  await overhear(server);
  await using quick = await LocalServer.start();
  const { roundTripMs, megabytes } = await speed(quick);
  say(
    `\n${ROUND_TRIPS} commands, one after the other: ${roundTripMs.toFixed(2)} ms each; yes | head: ${megabytes.toFixed(0)} MB/s\n`,
  );
  return `result: session, 2 modes, 2 attacks | ${roundTripMs.toFixed(2)} ms a command`;
}

await program({
  summary: "Shows the remote shell: a session, who can read it, and what becomes of attacks.",
  example: "--port 10500",
  settings: { port: setting(port, "port of the server (0 = any free one)", 0) },
  async run({ port }) {
    say(await demonstrate(port));
  },
});
