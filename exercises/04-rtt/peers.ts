/** Who measures round trips beside the program, over the same path, for tests and the bench. */
import { Failure } from "../../shared/errors.ts";
import { ip, type NamespaceEnd, type NamespaceLink } from "../../shared/namespaces.ts";
import { runTool, start } from "../../shared/running.ts";
import { PORT } from "./protocol.ts";

/** They have a port to themselves, so that their packets are not taken for the program's. */
const BESIDE = PORT + 1;

/** Echo servers over TCP and UDP at the server's end, on all its addresses, and one more for those who measure beside. */
export async function echoServers({ wrapper }: NamespaceEnd): Promise<AsyncDisposable> {
  const at = [
    ["tcp", PORT],
    ["udp", PORT],
    ["tcp", BESIDE],
  ] as const;
  const servers = await Promise.all(
    at.map(([transport, port]) =>
      start(`exercises/01-echo/${transport}-server.ts`, ["--host", "0.0.0.0", "--port", port], { wrapper }),
    ),
  );
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
    },
  };
}

export const hostAddress = (i: number) => `10.0.1.${i + 1}`;

/** Gives the server's end so many addresses more, and the client's end a way to them. Before servers start there: they look. */
export async function addHosts({ client, server }: NamespaceLink, count: number): Promise<void> {
  const lines = Array.from({ length: count }, (_, i) => `address add ${hostAddress(i)}/32 dev lo\n`);
  const { code, stderr } = await runTool("ip", ["-n", server.namespace, "-batch", "-"], lines.join(""));
  if (code !== 0) throw new Failure(`cannot add addresses: ${stderr}`);
  await ip(`-n ${client.namespace} route add 10.0.1.0/24 via ${server.address}`);
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

export const pings = ({ client, server }: NamespaceLink) =>
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
export const kernelEstimates = ({ client, server }: NamespaceLink) =>
  figures(client, ["python3", "-c", HELD, server.address], /\brtt:([\d.]+)\//g);

/** nping sends all from one port, so they must not overlap. It says times since its start, in tenths of a millisecond. */
export async function npings({ client, server }: NamespaceLink): Promise<number[]> {
  const command = ["nping", "--tcp", "-p", `${BESIDE}`, "--delay", "120ms", "-c", "15", server.address];
  const times = await figures(client, command, /^(?:SENT|RCVD) \(([\d.]+)s\)/gm);
  return times.flatMap((time, i) => (i % 2 === 1 ? [(time - (times[i - 1] ?? Number.NaN)) * 1000] : []));
}
