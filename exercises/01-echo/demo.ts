/** Echo in one terminal: the same few bytes over TCP and over UDP, and where the two differ. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { port, setting } from "../../shared/config.ts";
import { expect, say } from "../../shared/demo.ts";
import { program, projectFile } from "../../shared/program.ts";
import { type Running, run, start } from "../../shared/running.ts";
import { connect } from "../../shared/tcp.ts";
import { MAX_DATAGRAM_BYTES, request } from "../../shared/udp.ts";

const HERE = "exercises/01-echo";
const CLIENTS = 20;
/** Runs a client as a user would and returns what it says, which is on stderr where it fails. */
async function client(
  transport: "tcp" | "udp",
  port: number,
  args: readonly string[],
  { stdin = "", code = 0 }: { stdin?: string | Buffer; code?: number } = {},
) {
  const shown = args.map((arg) => (arg === "" ? "''" : arg)).join(" ");
  say(`$ ${transport}-client.ts ${shown}${stdin === "" ? "" : `< (${stdin.length} bytes)`}`);
  const result = await run(`${HERE}/${transport}-client.ts`, ["--port", port, ...args], { stdin });
  expect(result.code === code, `exit code ${result.code}, ${result.stderr}`);
  if (stdin !== "") expect(result.bytes.equals(Buffer.from(stdin)), "the bytes that came back");
  for (const line of `${stdin === "" ? result.stdout : ""}\n${result.stderr}`.split("\n")) {
    if (line.trim() !== "") say(line.replace(/(.{1,76})(?: |$)/g, "  $1\n").trimEnd());
  }
  return result.stderr;
}

const medianOf = (summary: string) => /median ([\d.]+) ms/.exec(summary)?.[1] ?? "?";

async function streams(server: Running, text: Buffer): Promise<string> {
  say(`TCP: the server listens on ${server.urls[0]}`);
  say();
  say("One message. On the wire: SYN, SYN-ACK, ACK before it; FIN both ways after it.");
  await client("tcp", server.port, ["--data", "hello"]);
  say();
  say("A file through standard input: a stream has no messages, only order. The");
  say("client sends and reads at once, then half-closes; the server's FIN is the end.");
  await client("tcp", server.port, [], { stdin: text });
  say();
  say("Round trips on one connection:");
  const times = await client("tcp", server.port, ["--data", "hello", "--count", "5"]);
  say();
  say(`${CLIENTS} clients at once: accept() gives the server a socket of its own for each.`);
  const message = Buffer.from("one of many");
  await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      await using connection = await connect({ host: "127.0.0.1", port: server.port });
      await connection.write(message);
      const returned = await connection.readExactly(message.length);
      expect(returned?.equals(message) ?? false, "one of many connections");
    }),
  );
  const accepted = server.stderr.match(/: connected$/gm)?.length;
  say(`  the server has accepted ${accepted} connections so far`);
  return medianOf(times);
}

async function datagrams(server: Running, text: Buffer): Promise<string> {
  say(`UDP: the server listens on ${server.urls[0]}`);
  say();
  say("One message: one datagram there, one back. No SYN, no FIN, no ACK.");
  await client("udp", server.port, ["--data", "hello"]);
  say();
  say("A datagram a line: here the boundaries of the messages are kept.");
  const lines = text.toString().split("\n").slice(0, 12).join("\n");
  await client("udp", server.port, [], { stdin: lines });
  say();
  say("The smallest datagram, 0 bytes, and the largest of IPv4:");
  await client("udp", server.port, ["--data", ""]);
  await client("udp", server.port, [], { stdin: "x".repeat(MAX_DATAGRAM_BYTES) });
  say();
  say("Round trips, each from a source port of its own:");
  const times = await client("udp", server.port, ["--data", "hello", "--count", "5"]);
  say();
  say(`${CLIENTS} clients at once share the server's one socket and its one buffer.`);
  const message = Buffer.from("one of many");
  const ask = { host: "127.0.0.1", port: server.port, request: message, timeoutMs: 1000, retries: 3 };
  const replies = await Promise.all(
    Array.from({ length: CLIENTS }, () => request({ ...ask, accept: (reply) => reply })),
  );
  expect(
    replies.every((reply) => reply.equals(message)),
    "one of many datagrams",
  );
  say(`  ${replies.length} of ${CLIENTS} came back`);
  return medianOf(times);
}

/** A datagram from the server's own port on another address, as a second echo server would send it. */
async function loop(server: Running): Promise<void> {
  say("Two echo servers must not be made to shout at each other for ever: a datagram");
  say("from the server's own port, here on 127.0.0.2, is dropped.");
  const twin = createSocket("udp4").bind(server.port, "127.0.0.2");
  await once(twin, "listening");
  twin.send("shout", server.port, "127.0.0.1");
  const [line] = await server.output(/^127\.0\.0\.2:.*dropped.*$/m, "stderr");
  twin.close();
  say(`  server: ${line}`);
}

await program({
  summary: "Shows the echo exercise from end to end, in one terminal.",
  example: "",
  settings: { port: setting(port, "port of both servers (0 = any free ones)", 0) },
  async run({ port }) {
    const text = readFileSync(projectFile("LICENSE"));
    await using tcp = await start(`${HERE}/tcp-server.ts`, ["--port", port, "--verbose"]);
    await using udp = await start(`${HERE}/udp-server.ts`, ["--port", port]);
    const overTcp = await streams(tcp, text);
    say();
    const overUdp = await datagrams(udp, text);
    say();
    // Other systems have but one address on their loopback interface.
    if (process.platform === "linux") await loop(udp);
    say();
    say("Nobody listens any more. TCP is refused by a RST, UDP by ICMP port unreachable:");
    expect((await tcp.stop()) === 0 && (await udp.stop()) === 0, "the servers' ends");
    await client("tcp", tcp.port, ["--data", "hello"], { code: 1 });
    await client("udp", udp.port, ["--data", "hello"], { code: 1 });
    say();
    say(`result: echoed over TCP and UDP | ${overTcp}/${overUdp} ms`);
  },
});
