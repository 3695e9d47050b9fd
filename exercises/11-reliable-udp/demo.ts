/** The exercise in one terminal: files through a path that loses, doubles, overtakes and damages packets, and a forger who gets nothing. */
import { createHash, randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { port, setting } from "../../shared/config.ts";
import { expect, say } from "../../shared/demo.ts";
import { type LinkProfile, type PacketReport, udpLink } from "../../shared/link.ts";
import { program } from "../../shared/program.ts";
import { type Running, run, start, within } from "../../shared/running.ts";
import { NO_HASH } from "./endpoint.ts";
import { NO_TOKEN, PORT, seal, unseal } from "./protocol.ts";

const HERE = "exercises/11-reliable-udp";
const FILE_BYTES = 40_000;
const SEED = 11;
const BAD: LinkProfile = {
  delayMs: 10,
  jitterMs: 2,
  loss: 0.1,
  duplication: 0.03,
  reordering: 0.03,
  corruption: 0.03,
};

/** Runs the client as a user would, in a folder of its own, and shows what it says. */
async function client(
  folder: string,
  toPort: number,
  args: readonly string[],
  exitCode = 0,
): Promise<string> {
  say(`$ client.ts ${args.join(" ")}`);
  const { code, stdout, stderr } = await run(`${HERE}/client.ts`, [...args, "--port", toPort], {
    cwd: folder,
  });
  for (const line of (stdout + stderr).trim().split("\n")) say(`  ${line.replace(/[0-9a-f]{56}$/, "…")}`);
  expect(code === exitCode, `exit code ${code}: ${stderr}`);
  return stdout;
}

const hashOf = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

/** What becomes of the packets, counted. */
function counting(): { onPacket: (report: PacketReport) => void; text: () => string; lost: () => number } {
  const counts = { packets: 0, lost: 0, doubled: 0, damaged: 0 };
  return {
    onPacket: ({ fate }) => {
      counts.packets++;
      if (fate.outcome === "lost") counts.lost++;
      if (fate.outcome === "duplicated") counts.doubled++;
      if (fate.arrivals.some(({ flippedBit }) => flippedBit !== undefined)) counts.damaged++;
    },
    text: () =>
      Object.entries(counts)
        .map(([what, count]) => `${count} ${what}`)
        .join(", "),
    lost: () => counts.lost,
  };
}

/** An open from an address that never sends its cookie back: what comes for it. */
async function forge(server: Running): Promise<{ sent: number; got: number; kind: string }> {
  const socket = createSocket("udp4");
  const open = seal(1, { ack: 0, ackBitfield: 0 }, NO_TOKEN, {
    ...{ kind: "open", request: "get", token: randomBytes(8), mtu: 1200, window: 2 ** 23 },
    ...{ offset: 0n, size: 0n, sha256: NO_HASH, cookie: Buffer.alloc(0), name: "picture" },
  });
  try {
    const answer = once(socket, "message");
    socket.send(open, server.port, "127.0.0.1");
    const [datagram] = (await within(answer, "an answer to the forged open")) as [Buffer];
    return { sent: open.length, got: datagram.length, kind: unseal(datagram)?.message.kind ?? "" };
  } finally {
    socket.close();
  }
}

async function demonstrate(server: Running, root: string, folder: string): Promise<string> {
  const here = join(folder, "picture");
  say("1. What there is, and a file over a path that does nothing to it:");
  await client(folder, server.port, ["list"]);
  await client(folder, server.port, ["get", "picture"]);
  expect(hashOf(here) === hashOf(join(root, "picture")), "the file");

  say("\n2. The same through a path that loses a tenth of the packets each way, and doubles, damages and");
  say("   reorders 3 % each; 10 ms each way:");
  const counts = counting();
  await using link = await udpLink({
    to: { host: "127.0.0.1", port: server.port },
    ...{ toServer: BAD, toClient: BAD, seed: SEED, onPacket: counts.onPacket },
  });
  rmSync(here);
  await client(folder, link.port, ["get", "picture"]);
  expect(hashOf(here) === hashOf(join(root, "picture")), "the file after a bad path");
  const [, again = "?"] = await server.output(/[1-9]\d* packets sent, ([1-9]\d*) of them again/, "stderr");
  say(`   The path: ${counts.text()}; the server sent ${again} packets' data again.`);
  expect(counts.lost() > 0, "nothing was lost");

  say("\n3. The other way, with NewReno; a client that was cut off goes on where it was:");
  await client(folder, link.port, ["put", "picture", "--output", "copy", "--congestion", "newreno"]);
  expect(hashOf(join(root, "copy")) === hashOf(here), "what was put");
  writeFileSync(join(folder, "copy.part"), readFileSync(here));
  truncateSync(join(folder, "copy.part"), FILE_BYTES / 2);
  const said = await client(folder, link.port, ["get", "copy", "--continue"]);
  expect(said.includes(`from byte ${FILE_BYTES / 2} on`), said);
  expect(hashOf(join(folder, "copy")) === hashOf(here), "what was continued");

  say("\n4. What is not there, and what must not be:");
  await client(folder, server.port, ["get", "nothing"], 1);
  await client(folder, server.port, ["get", "../etc/passwd"], 1);

  const { sent, got, kind } = await forge(server);
  say(`\n5. A forged open of ${sent} bytes: the address gets a ${kind} of ${got} bytes, and nothing more.`);
  expect(kind === "challenge" && got <= 3 * sent, `${got} bytes for ${sent}`);
  expect((await server.stop()) === 0, "the server's exit code");
  return `result: ${FILE_BYTES / 1000} kB both ways, 10 % loss | ${counts.lost()} packets lost`;
}

await program({
  summary: "Shows reliable UDP from end to end.",
  example: `--port ${PORT}`,
  settings: { port: setting(port, "the server's port (0 = any free one)", 0) },
  async run({ port }) {
    const [root, folder] = [
      mkdtempSync(join(tmpdir(), "netlab-root-")),
      mkdtempSync(join(tmpdir(), "netlab-get-")),
    ];
    try {
      writeFileSync(join(root, "picture"), randomBytes(FILE_BYTES));
      await using server = await start(`${HERE}/server.ts`, ["--port", port, "--root", root, "--writable"]);
      process.once("exit", () => server.kill("SIGTERM"));
      const result = await demonstrate(server, root, folder);
      say();
      say(result);
    } finally {
      for (const path of [root, folder]) rmSync(path, { recursive: true });
    }
  },
});
