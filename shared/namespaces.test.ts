/** The link between two network namespaces: real packets cross it, and nothing of it is left behind. */
import { strict as assert } from "node:assert";
import { existsSync } from "node:fs";
import { describe, test } from "node:test";
import type { PacketReport } from "./link.ts";
import { measureCarrier, type NamespaceEnd, type NamespaceLink, namespaceLink } from "./namespaces.ts";
import { becomes, needs, needsNamespaces, runTool, start } from "./testing.ts";

const needed = () => {
  const { skip } = { ...needs("ping"), ...needsNamespaces() };
  return skip === undefined ? {} : { skip };
};
const isThere = ({ namespace }: NamespaceEnd) => existsSync(`/run/netns/${namespace}`);

/** Round trips in milliseconds as ping sees them; fewer than `count` where packets were lost, or later than two of its round trips. */
async function ping(link: NamespaceLink, count: number, waitS = 5): Promise<number[]> {
  const [command = "", ...words] = link.client.wrapper;
  const args = ["-c", `${count}`, "-i", "0.02", "-W", `${waitS}`, link.server.address];
  const { stdout } = await runTool(command, [...words, "ping", ...args]);
  return [...stdout.matchAll(/time=([\d.]+) ms/g)].map((match) => Number(match[1]));
}

describe("two namespaces", needed(), () => {
  test("what one sends the other gets, late or never as the profile says, and as it is changed to", async () => {
    const reports: PacketReport[] = [];
    const path = { delayMs: 20 };
    await using link = await namespaceLink({
      toServer: path,
      toClient: path,
      seed: 1,
      onPacket: (r) => reports.push(r),
    });
    const slow = await ping(link, 5);
    assert.ok(slow.length > 0);
    assert.ok(Math.min(...slow) >= 40, `${slow}`);
    // Five there and five back, 84 bytes each; nothing that nobody sent.
    await becomes(() => reports.length >= 10, "a report of each packet");
    assert.deepEqual(
      reports.map(({ sizeBytes, fate }) => [sizeBytes, fate.outcome]),
      Array(10).fill([84, "delivered"]),
    );
    const indices = (direction: PacketReport["direction"]) =>
      reports.flatMap((report) => (report.direction === direction ? report.index : []));
    assert.deepEqual(
      [indices("to server"), indices("to client")],
      [[...Array(5).keys()], [...Array(5).keys()]],
    );

    await link.change({ toServer: { delayMs: 60 } });
    assert.ok(Math.min(...(await ping(link, 2))) >= 80, "60 ms there, 20 back");
    await link.change({ toClient: { loss: 1 } });
    assert.deepEqual(await ping(link, 1, 1), []);
    await link.change({ toServer: {}, toClient: {} });
    assert.ok((await ping(link, 5)).length > 0);
  });

  test("the kernel's TCP crosses it, and the same seed drops the same packets", async () => {
    const lost = async () => {
      const reports: PacketReport[] = [];
      const path = { loss: 0.3 };
      await using link = await namespaceLink({
        toServer: path,
        toClient: {},
        seed: 42,
        onPacket: (r) => reports.push(r),
      });
      await ping(link, 20, 1);
      await becomes(
        () => reports.filter(({ direction }) => direction === "to server").length >= 20,
        "20 pings",
      );
      return reports.flatMap(({ direction, index, fate }) =>
        direction === "to server" && fate.outcome === "lost" && index < 20 ? index : [],
      );
    };
    const [first, second] = [await lost(), await lost()];
    assert.ok(first.length > 0);
    assert.deepEqual(first, second);

    await using link = await namespaceLink({ toServer: { delayMs: 5 }, toClient: { delayMs: 5 }, seed: 1 });
    const { wrapper, address } = link.server;
    await using server = await start("exercises/01-echo/tcp-server.ts", ["--host", address, "--port", 0], {
      wrapper,
    });
    const [command = "", ...words] = link.client.wrapper;
    const script = `
      const socket = require("net").connect(${server.port}, "${address}");
      const startMs = performance.now();
      socket.on("connect", () => { console.log(performance.now() - startMs); socket.end("hello"); });
      socket.pipe(process.stdout);`;
    const { stdout } = await runTool(command, [...words, process.execPath, "-e", script]);
    const [, connectMs, echoed] = /^([\d.]+)\n(.*)$/.exec(stdout) ?? [];
    assert.equal(echoed, "hello");
    assert.ok(Number(connectMs) >= 10, `the handshake took ${connectMs} ms, less than the path`);
  });

  test("nothing is left of it at its end", async () => {
    const link = await namespaceLink({ toServer: {}, toClient: {}, seed: 1 });
    assert.ok(isThere(link.client) && isThere(link.server));
    await link[Symbol.asyncDispose]();
    assert.ok(!isThere(link.client) && !isThere(link.server));
    await assert.rejects(link.change({ toServer: {} }), /the link is gone/);
    const { stdout } = await runTool("ip", ["link"]);
    const pid = /\d+/.exec(link.client.namespace)?.[0] ?? "";
    assert.ok(!stdout.includes(`nl${pid}`), "its devices are gone too");
  });

  test("a carrier that is killed is noticed, and cleared away by the next", async () => {
    await using killed = await namespaceLink({ toServer: {}, toClient: {}, seed: 1 });
    process.kill(Number(/\d+/.exec(killed.client.namespace)?.[0]), "SIGKILL");
    await assert.rejects(killed.broken, /its carrier ended/);
    await using link = await namespaceLink({ toServer: {}, toClient: {}, seed: 1 });
    assert.ok(!isThere(killed.client) && !isThere(killed.server));
    assert.ok(isThere(link.client));
  });

  test("what the carrier itself adds is measured", async (t) => {
    const added = await measureCarrier(15);
    t.diagnostic(`the carrier adds ${added?.medianMs.toFixed(2)} ms to a round trip of 40 ms`);
    assert.ok(added !== undefined && added.medianMs > 0 && added.count > 0);
  });
});
