/**
 * How true the figures are, over paths of known delay between two network namespaces: beside what was on the wire, and
 * beside ping, nping and the kernel's own estimate in the same run. A busy machine spoils all of them: what depends on
 * its being quiet is tried again, and said rather than failed where it never is.
 */
import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, type TestContext, test } from "node:test";
import { median } from "../../shared/measure.ts";
import { type NamespaceEnd, type NamespaceLink, namespaceLink } from "../../shared/namespaces.ts";
import { needs, needsNamespaces, run, runTool, start } from "../../shared/testing.ts";
import type { Transport } from "./probing.ts";
import { PORT } from "./protocol.ts";
import { percentile } from "./statistics.ts";
import { errorsOf, onTheWire, pairsOf } from "./wire.ts";

const RTT = "exercises/04-rtt/rtt.ts";
const DELAY_MS = 20;
const TRANSPORTS = ["tcp", "udp"] as const;
/** Whoever measures beside has a port to himself, so that his packets are not taken for ours. */
const BESIDE = PORT + 1;
const BOUND_MS = 0.5;
/** Rounds until one was quiet. */
const ROUNDS = 4;
/** Clocks of one machine that are read one after the other, and kernel times in whole microseconds. */
const CLOCKS_MS = 0.05;
const folder = mkdtempSync(join(tmpdir(), "netlab-path-"));
after(() => rmSync(folder, { recursive: true }));

interface Row {
  transport: Transport;
  ownDelayMs: number;
  sent: number;
  received: number;
  lost: number;
  unsent: number;
  medianMs: number | null;
  minMs: number | null;
}

const needed = (...tools: string[]) => {
  const { skip } = { ...needs(...tools), ...needsNamespaces() };
  return skip === undefined ? {} : { skip };
};

/** Echo servers over TCP and UDP at the server's end, and one more for those who measure beside. */
async function echoServers({ wrapper, address }: NamespaceEnd): Promise<AsyncDisposable> {
  const at = [
    ["tcp", PORT],
    ["udp", PORT],
    ["tcp", BESIDE],
  ] as const;
  const servers = await Promise.all(
    at.map(([transport, port]) =>
      start(`exercises/01-echo/${transport}-server.ts`, ["--host", address, "--port", port], { wrapper }),
    ),
  );
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
    },
  };
}

async function measured(
  link: NamespaceLink,
  args: readonly (string | number)[],
  exitCode = 0,
): Promise<Row[]> {
  const { code, stdout, stderr } = await run(RTT, [...args, "--json"], { wrapper: link.client.wrapper });
  assert.equal(code, exitCode, stderr);
  return (JSON.parse(stdout) as { results: Row[] }).results;
}

/** The figures in a tool's output, run at the client's end. */
async function figures(
  { wrapper }: NamespaceEnd,
  command: readonly string[],
  pattern: RegExp,
): Promise<number[]> {
  const [file = "", ...words] = [...wrapper, ...command];
  const { stdout } = await runTool(file, words);
  return [...stdout.matchAll(pattern)].map((match) => Number(match[1]));
}

const pings = ({ client, server }: NamespaceLink) =>
  figures(client, ["ping", "-c", "40", "-i", "0.05", "-W", "5", server.address], /time=([\d.]+) ms/g);

/** Twenty connections one after the other, held, and then what the kernel says of each: its estimate from the handshake. */
const HELD = `
import socket, subprocess, sys, time
held = []
for _ in range(20):
    held.append(socket.create_connection((sys.argv[1], ${BESIDE})))
    time.sleep(0.05)
print(subprocess.run(["ss", "-tinH", "dport", "=", ":${BESIDE}"], capture_output=True, text=True).stdout)
`;
const kernelEstimates = ({ client, server }: NamespaceLink) =>
  figures(client, ["python3", "-c", HELD, server.address], /\brtt:([\d.]+)\//g);

/** nping sends all from one port, so they must not overlap. It says times since its start, in tenths of a millisecond. */
async function npings({ client, server }: NamespaceLink): Promise<number[]> {
  const command = ["nping", "--tcp", "-p", `${BESIDE}`, "--delay", "120ms", "-c", "15", server.address];
  const times = await figures(client, command, /^(?:SENT|RCVD) \(([\d.]+)s\)/gm);
  return times.flatMap((time, i) => (i % 2 === 1 ? [(time - (times[i - 1] ?? Number.NaN)) * 1000] : []));
}

/** Half of all within so little: nobody else wanted the processors. */
const isQuiet = (times: readonly number[]) => percentile(times, 75) - percentile(times, 25) < 0.25;

const TOOLS = ["ping", "nping", "ss", "python3", "dumpcap", "tshark"];

describe("over a path of 20 ms each way", needed(...TOOLS), () => {
  test("the medians are ping's, nping's and the kernel's within 0.5 ms, and no time is shorter than on the wire", async (t) => {
    const path = { delayMs: DELAY_MS };
    await using link = await namespaceLink({ toServer: path, toClient: path, seed: 1 });
    await using _ = await echoServers(link.server);
    let disagreements = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const { rows, others, errors } = await allAtOnce(link, join(folder, `${round}.csv`));
      for (const { minMs } of rows)
        assert.ok(minMs === null || minMs >= 2 * DELAY_MS, `a minimum of ${minMs} ms`);
      for (const [i, { transport, ownDelayMs }] of rows.entries())
        checkErrors(t, `${transport}: said to be ${ownDelayMs} ms at most`, errors[i]);
      if (agree(t, rows, others)) return;
      if (others.every(isQuiet)) disagreements++;
    }
    assert.ok(disagreements < ROUNDS, "the machine was quiet all the time, and they never agreed");
    t.skip(`in none of ${ROUNDS} rounds was the machine quiet enough to compare`);
  });
});

/** The program beside ping, nping and the kernel, and what was on the wire meanwhile. */
async function allAtOnce(link: NamespaceLink, csv: string) {
  let rows: Row[] = [];
  let others: number[][] = [];
  const wire = await onTheWire(link.client, PORT, async () => {
    const args = [`${link.server.address}:${PORT}`, "--seconds", 2, "--interval", 50, "--csv", csv];
    [rows, ...others] = await Promise.all([
      measured(link, args),
      pings(link),
      npings(link),
      kernelEstimates(link),
    ]);
  });
  return { rows, others, errors: rows.map(({ transport }) => errorsOf(csv, wire, transport)) };
}

/** What holds however busy the machine is: nothing is too short. */
function checkErrors(t: TestContext, what: string, errors: readonly number[] | undefined): void {
  if (errors === undefined) return t.diagnostic(`${what}, not all of the probes came back or were recorded`);
  const [least, middle] = [Math.min(...errors), median(errors)];
  t.diagnostic(`${what}, too long by ${least.toFixed(3)} at least, ${middle.toFixed(3)} at median`);
  assert.ok(errors.length > 5 && least >= -CLOCKS_MS, `${what}, but too short by ${-least} ms`);
}

/** Whether our medians are the others' within the bound. */
function agree(t: TestContext, rows: readonly Row[], others: readonly (readonly number[])[]): boolean {
  const theirs = others.map(median);
  const [ping, nping, kernel] = theirs.map((value) => value.toFixed(3));
  const ours = rows.map(({ transport, medianMs }) => `${transport} ${medianMs?.toFixed(3)}`).join(", ");
  t.diagnostic(`medians: ${ours}, ping ${ping}, nping ${nping}, ss -ti ${kernel} ms`);
  return rows.every(({ medianMs }) =>
    theirs.every((other) => medianMs !== null && Math.abs(medianMs - other) <= BOUND_MS),
  );
}

describe("over a bad path", needed(), () => {
  test("what is lost is lost, and TCP's repeated SYN is no long round trip", async () => {
    await using link = await namespaceLink({
      toServer: { delayMs: 5, loss: 0.3 },
      toClient: { delayMs: 5 },
      seed: 7,
    });
    await using _ = await echoServers(link.server);
    const rows = await measured(link, [`${link.server.address}:${PORT}`, "--seconds", 3, "--interval", 50]);
    for (const { sent, lost, received, minMs } of rows) {
      assert.equal(received + lost, sent);
      assert.ok(lost > 0 && received > 0 && (minMs ?? 0) >= 10, JSON.stringify(rows));
    }
  });

  test("a host without a route costs a line and is no loss", async () => {
    await using link = await namespaceLink({ toServer: {}, toClient: {}, seed: 1 });
    const args = ["192.0.2.1:7", "--seconds", 1, "--interval", 100, "--json"];
    const { code, stdout, stderr } = await run(RTT, args, { wrapper: link.client.wrapper });
    assert.equal(code, 1);
    for (const transport of TRANSPORTS)
      assert.match(
        stderr,
        new RegExp(`^192.0.2.1:7 ${transport}: unsent: no route to that network \\(ENETUNREACH\\)$`, "m"),
      );
    assert.match(stderr, /^error: no host answered/m);
    for (const { sent, unsent } of (JSON.parse(stdout) as { results: Row[] }).results)
      assert.ok(sent === 0 && unsent > 0);
  });
});

test("pairs are found in any order, each answer with its own question", () => {
  const lines = [
    "1.000000\tC\tS\t40000\t7\t",
    "1.001000\tC\tS\t40001\t7\t",
    "1.002000\tC\tS\t\t\tabcd",
    "1.041000\tS\tC\t7\t40001\t",
    "1.041500\tS\tC\t7\t40000\t",
    "1.043000\tS\tC\t\t\tabcd",
    "1.050000\tC\tS\t\t\tffff",
  ];
  const pairs = pairsOf(`${lines.join("\n")}\n`);
  assert.deepEqual(
    pairs.map(({ address, transport, rttMs }) => `${address} ${transport} ${rttMs.toFixed(1)}`),
    ["S tcp 41.5", "S tcp 40.0", "S udp 41.0"],
  );
});
