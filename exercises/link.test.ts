/** The link as a tool: between a client and a server of any kind, and as two namespaces. */
import { strict as assert } from "node:assert";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { test } from "node:test";
import { becomes, needs, needsNamespaces, run, runTool, start, within } from "../shared/testing.ts";

const LINK = "exercises/link.ts";

async function echoServer(): Promise<Socket> {
  const socket = createSocket("udp4");
  socket.on("message", (packet, from) => socket.send(packet, from.port, from.address));
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  return socket;
}

/** Sends 40 datagrams through the tool, one when the last has been told of; returns what it told of those to the server. */
async function fates(echo: Socket): Promise<string[]> {
  const profile = [
    "--delay",
    "5/10",
    "--loss",
    "20%",
    "--duplication",
    "0.1",
    "--corruption",
    "10%",
    "--seed",
    42,
  ];
  await using link = await start(LINK, [
    ...["--listen", "udp://127.0.0.1:0", "--to", `127.0.0.1:${echo.address().port}`, ...profile],
  ]);
  const client = createSocket("udp4");
  for (let i = 0; i < 40; i++) {
    client.send(Buffer.alloc(20, i), link.port, "127.0.0.1");
    await link.output(new RegExp(`^to server #${i}, .*\\n`, "m"), "stderr");
  }
  client.close();
  assert.match(link.stderr, /^seed 42$/m);
  assert.equal(await link.stop(), 0);
  return [...link.stderr.matchAll(/^to server #.*$/gm)].map(([line]) => line);
}

test("says what it does to each packet, and the same seed does the same again", async () => {
  const echo = await echoServer();
  const [first, second] = await Promise.all([fates(echo), fates(echo)]);
  echo.close();
  assert.deepEqual(first, second);
  assert.equal(first.length, 40);
  assert.match(first.join("\n"), /^to server #\d+, 20 bytes: lost$/m);
  assert.match(first.join("\n"), /^to server #\d+, 20 bytes: 5\.0 ms later$/m);
  assert.match(first.join("\n"), /bytes: 5\.0 ms later(, bit \d+ flipped)? and 5\.0 ms later/);
  assert.match(first.join("\n"), /bytes: 5\.0 ms later, bit \d+ flipped$/m);
});

test("a TCP connection it resets; what makes no sense is refused", async () => {
  const server = createServer((socket) => socket.on("error", () => {}).pipe(socket)).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  await using link = await start(LINK, [
    ...["--listen", "tcp://127.0.0.1:0", "--to", `127.0.0.1:${port}`, "--reset-after", "/3", "--split", 2],
  ]);
  const client = connect(link.port, "127.0.0.1").resume();
  client.write("hello");
  const [error] = (await within(once(client, "error"), "the reset")) as [NodeJS.ErrnoException];
  server.close();
  assert.equal(error.code, "ECONNRESET");
  await link.output(/^to client: reset after 3 bytes$/m, "stderr");
  assert.match(link.stderr, /^to server #0, 2 bytes: 0\.0 ms later$/m);
  const cases: [args: string[], complaint: RegExp][] = [
    [[], /--listen is missing/],
    [["--listen", "udp://127.0.0.1:0"], /--to HOST:PORT is missing/],
    [["--listen", "127.0.0.1:0"], /is not udp:\/\/HOST:PORT/],
    [["--listen", "tcp://127.0.0.1:0", "--to", "127.0.0.1:9", "--loss", "2%"], /--loss is not for tcp/],
    [["--delay", "1/2/3"], /--delay "1\/2\/3" is not VALUE, or THERE\/BACK/],
    [["--loss", "101%"], /--loss "101%" is not a share/],
    [["namespaces", "--split", "1"], /--split is not for namespaces/],
  ];
  for (const [args, complaint] of cases) {
    const { code, stderr } = await run(LINK, args);
    assert.equal(code, 2, stderr);
    assert.match(stderr, complaint);
  }
});

test("two namespaces, how to get there, what they cost; and kill -9 leaves none behind", {
  ...needs("ping"),
  ...needsNamespaces(),
}, async () => {
  await using link = await start(LINK, ["namespaces", "--delay", "5/35", "--quiet"], { servers: 0 });
  const [, prefix = "", namespace] = await link.output(
    /^client 10\.0\.0\.1: (ip netns exec (\S+)) COMMAND$/m,
  );
  assert.match(link.stderr, /^the carrier itself adds \d+\.\d+ ms to a round trip/m);
  const [command = "", ...words] = prefix.split(" ");
  const { stdout } = await runTool(command, [...words, "ping", "-c", "1", "-W", "5", "10.0.0.2"]);
  const roundTripMs = Number(/time=([\d.]+) ms/.exec(stdout)?.[1]);
  assert.ok(roundTripMs >= 40, `${roundTripMs} ms`);
  link.kill("SIGKILL");
  await becomes(() => !existsSync(`/run/netns/${namespace}`), `the end of ${namespace}`);
});
