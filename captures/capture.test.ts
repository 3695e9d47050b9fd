import { strict as assert } from "node:assert";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Dissector } from "../shared/describe.ts";
import { explain, Failure } from "../shared/errors.ts";
import { u32 } from "../shared/pdu.ts";
import { needs, run } from "../shared/testing.ts";
import { captureFilter, cleaned, Recording } from "./capture.ts";

test("the filter lets pass what the dissectors are for, and the errors of closed ports", () => {
  const dissectors: Dissector[] = [
    { name: "x", title: "X", pdu: u32.shape, tcp: [11_300, "11301-11363"], udp: [11_300] },
    { as: "echo", tcp: [11_300] },
  ];
  assert.equal(
    captureFilter(dissectors, 11_300),
    "tcp port 11300 or tcp portrange 11301-11363 or udp port 11300 or icmp or icmp6",
  );
  assert.equal(captureFilter([], 10_300), "portrange 10300-10399 or icmp or icmp6");
});

/** A pcapng block: type, length, body, length. */
function block(type: number, ...body: Buffer[]): Buffer {
  const content = Buffer.concat(body);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(type);
  head.writeUInt32LE(content.length + 12, 4);
  return Buffer.concat([head, content, head.subarray(4)]);
}
function option(code: number, value: string | Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(code);
  head.writeUInt16LE(Buffer.byteLength(value), 2);
  return Buffer.concat([head, Buffer.from(value), Buffer.alloc(-Buffer.byteLength(value) & 3)]);
}
const hex = (digits: string) => Buffer.from(digits.replaceAll(" ", ""), "hex");
const end = option(0, "");
const sectionBody = hex("4d3c2b1a 0100 0000 ffffffffffffffff");
const interfaceBody = hex("0100 0000 00000400");
const packet = (content: string) =>
  block(6, Buffer.alloc(12), hex("04000000 04000000"), Buffer.from(content));

test("our own datagrams and what describes this machine are taken out of a capture", () => {
  const file = Buffer.concat([
    block(0x0a0d0d0a, sectionBody, option(2, "processor"), option(3, "system"), end),
    block(1, interfaceBody, option(2, "lo"), option(9, hex("09")), option(12, "system"), end),
    packet("mark"),
    packet("one!"),
    packet("two!"),
    packet("mark"),
    block(5, hex("00000000"), Buffer.alloc(8)),
  ]);
  const expected = Buffer.concat([
    block(0x0a0d0d0a, sectionBody),
    block(1, interfaceBody, option(9, hex("09")), end),
    packet("one!"),
    packet("two!"),
  ]);
  assert.deepEqual(cleaned(file, Buffer.from("mark")), { bytes: expected, packets: 2 });
  // A dumpcap that was cut short leaves half a block behind.
  const half = Buffer.concat([file, packet("more").subarray(0, 20)]);
  assert.deepEqual(cleaned(half, Buffer.from("mark")), { bytes: expected, packets: 2 });
  assert.throws(
    () => cleaned(Buffer.from("no capture at all"), Buffer.from("mark")),
    /not a little-endian pcapng/,
  );
});

test("an unknown exercise is bad usage", async () => {
  const { code, stderr } = await run("captures/capture.ts", ["99x"]);
  assert.equal(code, 2);
  assert.match(stderr, /^error: no exercise "99x"; there are/);
});

test(
  "what passes between start and stop is recorded, all of it and nothing else",
  needs("dumpcap"),
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "netlab-"));
    const socket = createSocket("udp4").bind(0, "127.0.0.1");
    t.after(() => {
      socket.close();
      rmSync(folder, { recursive: true });
    });
    await once(socket, "listening");
    const { port } = socket.address();
    const send = (text: string) => new Promise((resolve) => socket.send(text, port, "127.0.0.1", resolve));
    await send("too early");

    const path = join(folder, "x.pcapng.part");
    let recording: Recording;
    try {
      recording = await Recording.start(`udp port ${port}`, path);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      assert.match(error.message, /permission/);
      return t.skip(explain(error));
    }
    await using _ = recording;
    for (let i = 0; i < 100; i++) await send(`number ${i}.`);
    const { bytes, packets, dropped } = await recording.stop();
    assert.deepEqual({ packets, dropped }, { packets: 100, dropped: 0 });
    const found = bytes.toString("latin1").match(/number \d+\./g);
    assert.deepEqual(
      found,
      Array.from({ length: 100 }, (_, i) => `number ${i}.`),
    );
    assert.doesNotMatch(bytes.toString("latin1"), /too early|Linux|dumpcap/i);
    assert.ok(!existsSync(path), "the raw file is gone");
  },
);

const cannotCapture = (problem: RegExp) => (error: unknown) =>
  error instanceof Failure && error.message.startsWith("cannot capture: ") && problem.test(error.message);

test("a filter that dumpcap refuses is a failure", needs("dumpcap"), async () => {
  const path = join(tmpdir(), `netlab-${process.pid}.part`);
  await assert.rejects(Recording.start("no such filter", path), cannotCapture(/filter|permission/));
  assert.ok(!existsSync(path), "nothing is left behind");
});

const onLinux = { skip: process.platform !== "linux" && "elsewhere dumpcap is not only looked for in PATH" };
test("without dumpcap the failure says what to install", onLinux, async (t) => {
  const { PATH } = process.env;
  t.after(() => {
    process.env["PATH"] = PATH;
  });
  process.env["PATH"] = "/nowhere";
  const path = join(tmpdir(), `netlab-${process.pid}.part`);
  await assert.rejects(
    Recording.start("udp", path),
    cannotCapture(/there is no dumpcap; Debian: sudo apt install tshark/),
  );
});
