/** The exercise in one terminal: a time server that is 5 s ahead, a daytime server in step with it, clients. */
import { port, setting } from "../../shared/config.ts";
import { expect, say } from "../../shared/demo.ts";
import { program } from "../../shared/program.ts";
import { type Running, run, start } from "../../shared/testing.ts";
import { request } from "../../shared/udp.ts";
import { type Reply, readReply, requestFor } from "./protocol.ts";

const HERE = "exercises/02-daytime";
const SHIFT_MS = 5000;
/** Runs the client as a user would, shows what it says, and returns that. */
async function client(server: Running, args: readonly string[], exitCode = 0): Promise<string> {
  say(["$ client.ts", ...args.map((arg) => (/[ %]/.test(arg) ? `'${arg}'` : arg))].join(" "));
  const { code, stdout, stderr } = await run(`${HERE}/client.ts`, ["--port", server.port, ...args]);
  const shown = (stdout + stderr).trim();
  for (const line of shown.split("\n")) say(line.replace(/(.{1,76})(?:\s|$)/g, "  $1\n").trimEnd());
  expect(code === exitCode, `exit code ${code}, ${stderr}`);
  return shown;
}

async function ask(server: Running, id: number, zone: string): Promise<Reply> {
  return await request({
    ...{ host: "127.0.0.1", port: server.port, timeoutMs: 1000, retries: 2 },
    request: requestFor(id, zone),
    accept: (datagram) => readReply(datagram, id),
  });
}

function showPdu(title: string, bytes: Buffer): void {
  say(`${title}, ${bytes.length} bytes:`);
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16);
    const text = row.toString("latin1").replace(/[^\x20-\x7e]/g, ".");
    say(`  ${String(at).padStart(2)}  ${row.toString("hex").replace(/(.{8})(?=.)/g, "$1 ")}  ${text}`);
  }
}

/** The greatest distance, of several replies, from the time that the time server gives. */
async function greatestError(server: Running): Promise<number> {
  let greatestMs = 0;
  for (let id = 0; id < 20; id++) {
    const beforeMs = Date.now();
    const { utcMs } = await ask(server, id, "UTC");
    const [least, most] = [utcMs - Date.now() - SHIFT_MS, utcMs - beforeMs - SHIFT_MS];
    greatestMs = Math.max(greatestMs, least, -most);
  }
  return greatestMs;
}

await program({
  summary: "Shows the daytime exercise from end to end.",
  example: "",
  settings: { port: setting(port, "the daytime server's port (0 = any free one)", 0) },
  async run({ port }) {
    say("A time server whose clock is 5 s ahead, and a daytime server in Buenos Aires");
    say("that asks it every second. Nothing on this machine is set.");
    const ntpPort = port === 0 ? 0 : port + 1;
    await using ntp = await start(`${HERE}/ntp-server.ts`, ["--port", ntpPort, "--shift", SHIFT_MS]);
    const region = ["--zone", "America/Argentina/Buenos_Aires", "--locale", "es-AR"];
    const clock = ["--ntp-server", `127.0.0.1:${ntp.port}`, "--sync-cron", "* * * * * *"];
    await using server = await start(`${HERE}/server.ts`, ["--port", port, ...region, ...clock], {
      servers: 2,
    });
    // A reader that has seen enough (`| head`) ends this program at once: not without these.
    process.once("exit", () => {
      for (const running of [ntp, server]) running.kill("SIGTERM");
    });
    const [line = ""] = await server.output(/^synchronised: .*$/m, "stderr");
    for (const part of line.split("; ")) say(`  ${part}`);

    say("\n1. The date and time, in the server's language; anywhere; in any form:");
    await client(server, []);
    await client(server, ["--zone", "Asia/Kathmandu", "--locale", "ja"]);
    await client(server, ["--zone", "Australia/Lord_Howe", "--format", "%A %d %B, %H:%M %z"]);

    say("\n2. On the wire, request and reply alike take 64 bytes:");
    showPdu("request", requestFor(0xcafe, "Pacific/Chatham"));
    const reply = await request({
      ...{ host: "127.0.0.1", port: server.port, timeoutMs: 1000, retries: 2 },
      request: requestFor(0xcafe, "Pacific/Chatham"),
      accept: (datagram) => datagram,
    });
    showPdu("reply", reply);
    expect(reply.length === 64, `a reply of ${reply.length} bytes`);

    say("\n3. Any other datagram is a request by RFC 867; over TCP it takes none at all:");
    const lines = [await client(server, ["--rfc867"]), await client(server, ["--rfc867", "--tcp"])];
    for (const line of lines) expect(/\d\d:\d\d:\d\d-03:00$/.test(line), line);

    say("\n4. No such zone, and the client fails:");
    const refusal = await client(server, ["--zone", "Mars/Olympus_Mons"], 1);
    expect(refusal.includes("Mars/Olympus_Mons"), refusal);

    const zones = Intl.supportedValuesOf("timeZone");
    const offsets = new Set<number>();
    for (const [id, zone] of zones.entries()) offsets.add((await ask(server, id, zone)).utcOffsetMinutes);
    say(`\n5. Asked for all ${zones.length} zones: ${offsets.size} UTC offsets in use.`);
    expect(offsets.size > 30, `${offsets.size} offsets`);

    const errorMs = await greatestError(server);
    say(`   Its time is within ${errorMs + 1} ms of the time server's.`);
    expect(errorMs <= 5, `${errorMs} ms off`);

    say("\n6. The time server goes away. The daytime server goes on, and says so:");
    await ntp.stop();
    await server.output(/^holdover: .*$/m, "stderr");
    const { synchronisation } = await ask(server, 1, "");
    expect(synchronisation === "holdover", synchronisation);
    const driftedMs = await greatestError(server);
    say(`   synchronisation: ${synchronisation}, still within ${driftedMs + 1} ms.`);
    expect(driftedMs <= 5, `${driftedMs} ms off`);
    expect((await server.stop()) === 0, "the server's exit code");
    say();
    say(`result: 5 s shift followed, ${zones.length} zones | error < ${Math.max(errorMs, driftedMs) + 1} ms`);
  },
});
