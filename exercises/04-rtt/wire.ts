/**
 * Round trips as they were on the wire: dumpcap notes when the kernel had each packet, so the difference to what the
 * program says is the program's own error, whatever the path did. For tests and the bench.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "../../shared/errors.ts";
import type { NamespaceEnd } from "../../shared/namespaces.ts";
import { Running, runTool, within } from "../../shared/running.ts";
import type { Transport } from "./probing.ts";

const FIELDS = ["frame.time_epoch", "ip.src", "ip.dst", "tcp.srcport", "tcp.dstport", "udp.payload"];

/** The kernel hands packets over in blocks; one that is not yet full waits for so long, and an end would lose it. */
const BLOCK_MS = 300;

/** A round trip: which, and how long it took in milliseconds. */
interface Pair {
  address: string;
  transport: Transport;
  rttMs: number;
}

/** Runs `during` while handshakes and datagrams of this end with a port are recorded; the round trips in the order of sending. */
export async function onTheWire(
  { address, wrapper }: NamespaceEnd,
  port: number,
  during: () => Promise<void>,
): Promise<Pair[]> {
  const filter = `port ${port} and (tcp[tcpflags] & tcp-syn != 0 or udp)`;
  const folder = mkdtempSync(join(tmpdir(), "netlab-wire-"));
  const file = join(folder, "wire.pcapng");
  const [command = "", ...words] = wrapper;
  try {
    const { stdout } = await runTool(command, [...words, "ip", "-o", "-4", "address"]);
    const device = new RegExp(`^\\d+: (\\S+) +inet ${address.replaceAll(".", "\\.")}[/ ]`, "m").exec(
      stdout,
    )?.[1];
    if (device === undefined) throw new Failure(`no device has the address ${address}: ${stdout}`);
    await using dumpcap = new Running(
      command,
      [...words, "dumpcap", "-q", "-i", device, "-f", filter, "-w", file],
      {},
    );
    await dumpcap.output(/^File: /m, "stderr");
    await during();
    await sleep(BLOCK_MS);
    dumpcap.kill("SIGINT");
    await within(dumpcap.exited, "the end of dumpcap");
    const fields = FIELDS.flatMap((field) => ["-e", field]);
    const {
      stdout: lines,
      code,
      stderr,
    } = await runTool("tshark", ["-n", "-r", file, "-T", "fields", ...fields]);
    if (code !== 0) throw new Failure(`tshark failed: ${stderr}`);
    return pairsOf(lines);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A packet and the first that answers it: the same ports the other way round, or the same payload. */
export function pairsOf(lines: string): Pair[] {
  const sent = new Map<string, number>();
  const pairs: (Pair & { sentAt: number })[] = [];
  for (const line of lines.trimEnd().split("\n")) {
    const [time = "", from = "", to = "", fromPort = "", toPort = "", payload = ""] = line.split("\t");
    const transport: Transport = fromPort === "" ? "udp" : "tcp";
    const key = (near: string, far: string, ports: string) =>
      [transport, near, far, ports, payload].join(" ");
    const asked = key(to, from, `${toPort} ${fromPort}`);
    const sentAt = sent.get(asked);
    if (sentAt === undefined) {
      sent.set(key(from, to, `${fromPort} ${toPort}`), Number(time));
      continue;
    }
    sent.delete(asked);
    pairs.push({ address: from, transport, sentAt, rttMs: (Number(time) - sentAt) * 1000 });
  }
  return pairs
    .sort((a, b) => a.sentAt - b.sentAt)
    .map(({ address, transport, rttMs }) => ({ address, transport, rttMs }));
}

/**
 * By how much each round trip in the program's CSV file is longer than it was on the wire, in milliseconds; undefined
 * where not every one was recorded and received, so that nobody knows which is which.
 */
export function errorsOf(csv: string, wire: readonly Pair[], transport: Transport): number[] | undefined {
  const said = new Map<string, number[]>();
  for (const line of readFileSync(csv, "utf8").trimEnd().split("\n").slice(1)) {
    const [, , , address = "", , by, , rtt = ""] = line.split(",");
    if (by === transport)
      said.set(address, [...(said.get(address) ?? []), rtt === "" ? Number.NaN : Number(rtt)]);
  }
  const errors: number[] = [];
  for (const [address, times] of said) {
    const truth = wire.filter((pair) => pair.address === address && pair.transport === transport);
    if (truth.length !== times.length || times.some(Number.isNaN)) return undefined;
    for (const [i, { rttMs }] of truth.entries()) errors.push((times[i] ?? Number.NaN) - rttMs);
  }
  return errors;
}
