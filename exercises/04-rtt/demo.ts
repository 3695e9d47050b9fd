/** The exercise in one terminal: a near host by TCP and UDP, the same at the end of long and bad paths, a DNS server. */
import { userInfo } from "node:os";
import { port, setting } from "../../shared/config.ts";
import { expect, say } from "../../shared/demo.ts";
import { freePort } from "../../shared/free-port.ts";
import { udpLink } from "../../shared/link.ts";
import { program } from "../../shared/program.ts";
import { isInstalled, Running, run, start } from "../../shared/running.ts";

const HERE = "127.0.0.1";
const [ECHO, RTT] = ["exercises/01-echo", "exercises/04-rtt/rtt.ts"];
/** One way, of the path that is far; the other loses and varies besides. */
const DELAY_MS = 20;
const LOSS = 0.1;
const SEED = 4;

/** Runs the program as a user would, shows what it says, and returns the table's rows by host and transport. */
async function measured(args: readonly (string | number)[], exitCode = 0): Promise<Map<string, string[]>> {
  say(`$ rtt.ts ${args.join(" ")}`);
  const { code, stdout, stderr } = await run(RTT, args);
  const [table = "", ...commentary] = stdout.split("\n\n");
  say(table.replace(/^/gm, "  "));
  expect(code === exitCode, `exit code ${code}, ${stderr}${commentary.join("")}`);
  return new Map(
    table.split("\n").map((line) => {
      const [host = "", by = "", ...figures] = line.split(/ +/);
      return [`${host} ${by}`, figures];
    }),
  );
}

const [RECEIVED, LOST, REFUSED, MIN, MEDIAN] = [1, 2, 3, 4, 5];
const figure = (rows: Map<string, string[]>, name: string, column: number) =>
  Number(rows.get(name)?.[column]);

async function near(echo: number): Promise<void> {
  say("1. A host that is here, by TCP (its handshake) and by UDP (a datagram and its echo);");
  say("   and a port where nobody listens: an answer, too, from the system itself.");
  const [open, closed] = [`${HERE}:${echo}`, `${HERE}:${await freePort()}`];
  const rows = await measured([open, closed, "--seconds", 1, "--interval", 50]);
  for (const by of ["tcp", "udp"]) {
    expect(figure(rows, `${open} ${by}`, RECEIVED) > 0, `nothing came back by ${by}`);
    expect(figure(rows, `${closed} ${by}`, REFUSED) > 0, `nothing was refused by ${by}`);
  }
}

/** Returns by how much the far host's minimum is above the path's own delay, in milliseconds: a busy machine spares it. */
async function far(echo: number, ports: { far: number; lossy: number }): Promise<number> {
  const to = { host: HERE, port: echo };
  const long = { delayMs: DELAY_MS };
  await using link = await udpLink({ to, toServer: long, toClient: long, seed: SEED, port: ports.far });
  const bad = { delayMs: DELAY_MS, jitterMs: 10, loss: LOSS };
  await using badLink = await udpLink({ to, toServer: bad, toClient: bad, seed: SEED, port: ports.lossy });
  const [here, there, lossy] = [echo, link.port, badLink.port].map((port) => `${HERE}:${port}`);
  say(`\n2. The same host (${here}), the same behind a path of ${DELAY_MS} ms each way (${there}),`);
  say(`   and behind one that varies by 10 ms and loses ${LOSS * 100} % each way (${lossy}):`);
  const args = ["--udp", "--seconds", 3, "--interval", 50, "--timeout", 300, "--sampling", "poisson"];
  const rows = await measured([here, there, lossy].map(String).concat(args.map(String)));
  const [nearMs, farMs] = [here, there].map((name) => figure(rows, `${name} udp`, MEDIAN));
  const lost = figure(rows, `${lossy} udp`, LOST);
  const leastMs = figure(rows, `${there} udp`, MIN);
  expect(leastMs > 2 * DELAY_MS, `a minimum of ${leastMs} ms over ${2 * DELAY_MS} ms of path`);
  expect(Number(farMs) > Number(nearMs), "distance did not tell");
  expect(lost > 0, "nothing was lost");
  say(
    `   What dominates is distance: ${nearMs} ms here, ${farMs} ms there. ${lost} were lost on the bad path; as`,
  );
  say("   they count as infinite, its p95 says so, while min and mean know nothing of them.");
  return leastMs - 2 * DELAY_MS;
}

async function dns(port: number): Promise<void> {
  say("\n3. A DNS server, asked for the root's name servers under an id drawn at random:");
  if (!isInstalled("dnsmasq"))
    return say("   left out: there is no dnsmasq (Debian: apt install dnsmasq-base)");
  const options = ["--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file="];
  const where = [`--port=${port}`, `--listen-address=${HERE}`, "--bind-interfaces"];
  await using server = new Running("dnsmasq", [...options, ...where, `--user=${userInfo().username}`], {});
  await server.output(/started/, "stderr");
  const name = `${HERE}:${port}`;
  const rows = await measured([name, "--udp", "--udp-probe", "dns", "--seconds", 1, "--interval", 100]);
  expect(figure(rows, `${name} udp`, RECEIVED) > 0, "the DNS server did not answer");
}

await program({
  summary: "Shows the RTT meter: a near host, long and bad paths, a DNS server.",
  example: "--port 10400",
  settings: { port: setting(port, "port of the echo servers, the others' follow it (0 = any free ones)", 0) },
  async run({ port }) {
    const first = port === 0 ? await freePort() : port;
    const beside = (offset: number) => (port === 0 ? 0 : port + offset);
    await using tcp = await start(`${ECHO}/tcp-server.ts`, ["--port", first]);
    await using udp = await start(`${ECHO}/udp-server.ts`, ["--port", tcp.port]);
    process.once("exit", () => {
      for (const running of [tcp, udp]) running.kill("SIGTERM");
    });
    await near(udp.port);
    const aboveMs = await far(udp.port, { far: beside(2), lossy: beside(3) });
    await dns(port === 0 ? await freePort() : port + 1);
    say(`\nresult: TCP, UDP and DNS, near and far | ${2 * DELAY_MS} ms path: +${aboveMs.toFixed(2)} ms`);
  },
});
