/** The exercise in one terminal: a clock that is off, paths of every kind, a clock that is kept right. */
import { connect as connectTcp } from "node:net";
import { port, setting } from "../../shared/config.ts";
import { expect, say } from "../../shared/demo.ts";
import { type LinkProfile, udpLink } from "../../shared/link.ts";
import { program } from "../../shared/program.ts";
import { type Running, run, start, within } from "../../shared/running.ts";
import { request } from "../../shared/udp.ts";

const HERE = "exercises/10-cristian-clock";
const SHIFT_MS = 5000;
const DRIFT_PPM = 2000;
interface Found {
  offsetMs: number;
  boundMs: number;
  roundTripMs: number;
  lost: number;
  ignored: number;
  samples: { roundTripMs: number; offsetMs: number; boundMs: number; chosen: boolean }[];
}

/** Runs the client and checks what must hold whatever the path is like: the true offset lies inside the bound. */
async function client(toPort: number, trueMs: number, ...args: string[]): Promise<Found> {
  say(["$ client.ts", ...args].join(" "));
  const { code, stdout, stderr } = await run(`${HERE}/client.ts`, ["--port", toPort, "--json", ...args]);
  expect(code === 0, stderr);
  const found = JSON.parse(stdout) as Found;
  const errorMs = Math.abs(found.offsetMs - trueMs);
  expect(errorMs <= found.boundMs, `${errorMs} ms off, outside of ± ${found.boundMs} ms`);
  return found;
}

const row = ({ offsetMs, boundMs, roundTripMs }: Found["samples"][number] | Found) =>
  `round trip ${roundTripMs.toFixed(3).padStart(7)} ms, offset ${offsetMs.toFixed(3)} ± ${boundMs.toFixed(3)} ms`;

async function overPath(server: Running, toServer: LinkProfile, toClient: LinkProfile): Promise<Found> {
  const to = { host: "127.0.0.1", port: server.port };
  await using link = await udpLink({ to, toServer, toClient, seed: 10 });
  const found = await client(link.port, SHIFT_MS, "--interval", "10", "--timeout", "200", "--retries", "5");
  say(`  ${row(found)}`);
  return found;
}

/** RFC 868's four bytes, over UDP and TCP; in seconds since 1970. */
async function plainTimes(toPort: number): Promise<number[]> {
  const seconds = (bytes: Buffer) => bytes.readUInt32BE(0) - 2_208_988_800;
  const ask = { host: "127.0.0.1", port: toPort, request: Buffer.alloc(0), timeoutMs: 1000, retries: 2 };
  const overUdp = await request({ ...ask, accept: (datagram) => datagram });
  const socket = connectTcp(toPort, "127.0.0.1");
  const overTcp = await within(
    new Promise<Buffer>((resolve) => socket.once("data", resolve)),
    "the time over TCP",
  );
  socket.destroy();
  return [seconds(overUdp), seconds(overTcp)];
}

/** Follows a server that is too fast, second by second. */
async function keepUp(server: Running): Promise<number> {
  const args = ["--port", server.port, "--watch", "--cron", "* * * * * *", "--interval", 10, "--json"];
  say(`$ client.ts --watch --cron '* * * * * *' --interval 10`);
  await using watching = await start(`${HERE}/client.ts`, args, { servers: 0 });
  let before = { clockMs: 0 };
  for (let i = 1; ; i++) {
    const all = new RegExp(`^(?:.*\\n){${i}}`);
    const [text] = await watching.output(all);
    const line = JSON.parse(text.trimEnd().split("\n").at(-1) ?? "");
    expect(line.clockMs > before.clockMs, "the clock ran backwards");
    before = line;
    const drift =
      line.driftPpm === undefined
        ? ""
        : `, drift ${line.driftPpm.toFixed(0)} ± ${line.driftBoundPpm.toFixed(0)} ppm`;
    say(`  was ${line.behindMs.toFixed(3)} ms behind (± ${line.boundMs.toFixed(3)})${drift}`);
    if (line.driftPpm !== undefined && i >= 4) {
      const errorPpm = Math.abs(line.driftPpm - DRIFT_PPM);
      expect(errorPpm <= line.driftBoundPpm, `drift ${line.driftPpm} ± ${line.driftBoundPpm} ppm`);
      return line.driftPpm;
    }
  }
}

await program({
  summary: "Shows the clock exercise from end to end.",
  example: "",
  settings: { port: setting(port, "the server's port (0 = any free one)", 0) },
  async run({ port }) {
    say("A time server whose clock is 5 s ahead of this machine's. Nothing on this machine is set.");
    await using server = await start(`${HERE}/server.ts`, ["--port", port, "--shift", SHIFT_MS], {
      servers: 2,
    });
    const driftingPort = port === 0 ? 0 : port + 1;
    await using drifting = await start(`${HERE}/server.ts`, ["--port", driftingPort, "--drift", DRIFT_PPM], {
      servers: 2,
    });
    process.once("exit", () => {
      for (const running of [server, drifting]) running.kill("SIGTERM");
    });

    say("\n1. Eight samples; the one of least round trip has the smallest bound, and is chosen:");
    const direct = await client(server.port, SHIFT_MS, "--interval", "50");
    for (const sample of direct.samples) say(`  ${row(sample)}${sample.chosen ? "  <- chosen" : ""}`);

    say("\n2. A path of 20 ms each way: nothing is lost but sureness. The bound grows, the error does not:");
    await overPath(server, { delayMs: 20 }, { delayMs: 20 });

    say(
      "\n3. 5 ms there, 35 ms back: the same round trip, 15 ms off. Inside the bound, and not to be told from 2:",
    );
    const biased = await overPath(server, { delayMs: 5 }, { delayMs: 35 });
    const biasMs = biased.offsetMs - SHIFT_MS;
    expect(Math.abs(biasMs) > 5, `an error of ${biasMs} ms only`);
    say(`  an error of ${biasMs.toFixed(1)} ms: half the difference of the ways`);

    say("\n4. Jitter, a fifth lost, a fifth twice, a tenth overtaken: asked again, and strays are ignored:");
    const bad = { delayMs: 3, jitterMs: 2, loss: 0.2, duplication: 0.2, reordering: 0.1 };
    const { lost, ignored } = await overPath(server, bad, bad);
    say(`  ${lost} requests without a reply, ${ignored} datagrams ignored`);

    const plain = await plainTimes(server.port);
    say(`\n5. RFC 868, four bytes over UDP and over TCP: ${plain.join(" and ")} s since 1970.`);
    for (const seconds of plain) expect(Math.abs(seconds - (Date.now() + SHIFT_MS) / 1000) < 3, `${seconds}`);

    say(`\n6. A server that is ${DRIFT_PPM} ppm too fast, followed by a clock that never runs backwards:`);
    const drift = await keepUp(drifting);

    for (const running of [server, drifting]) expect((await running.stop()) === 0, "the server's exit code");
    say();
    const errorMs = Math.abs(direct.offsetMs - SHIFT_MS);
    say(`result: 5 s and ${drift.toFixed(0)} ppm found | error ${errorMs.toFixed(3)} ms`);
  },
});
