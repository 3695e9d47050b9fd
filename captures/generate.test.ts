import { strict as assert } from "node:assert";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { exercisesWith } from "../exercises/folders.ts";
import { Failure } from "../shared/errors.ts";
import { struct, u32 } from "../shared/pdu.ts";
import { projectFile } from "../shared/program.ts";
import { needs, runTool } from "../shared/testing.ts";
import { dissectorsOf, fillIn, generate, readDeclared } from "./generate.ts";

const Ping = struct("Ping", { number: [u32, "counts"] });
const Pong = struct("Pong", { answer: [u32, "the same number"] });
const README = [
  "# 00",
  "<!-- pdu: Ping -->",
  "<!-- /pdu -->",
  "between",
  "<!-- pdu: Pong -->",
  "old",
  "<!-- /pdu -->",
  "behind",
];

test("blocks are filled in, and what is around them is left alone", () => {
  const once = fillIn("exercises/00-x", README.join("\n"), { Ping, Pong });
  assert.match(once, /^# 00\n<!-- pdu: Ping -->\n\n```text\n 0 {19}1 /);
  assert.match(once, /\n\| +number +\|\n/);
  assert.match(
    once,
    /\n\| 0 \| 4 \| number \| u32 \| counts \|\n\n<!-- \/pdu -->\nbetween\n<!-- pdu: Pong -->\n\n```/,
  );
  assert.match(once, /\n\| 0 \| 4 \| answer \| u32 \| the same number \|\n\n<!-- \/pdu -->\nbehind$/);
  assert.doesNotMatch(once, /old/);
  assert.equal(fillIn("exercises/00-x", once, { Ping, Pong }), once, "again changes nothing");
});

test("a block that is not closed, or names no codec, is a failure that says where", () => {
  const fails = (readme: string, exports: Record<string, unknown>, message: RegExp) =>
    assert.throws(
      () => fillIn("exercises/00-x", readme, exports),
      (error) => error instanceof Failure && message.test(error.message),
    );
  const open = /^exercises\/00-x\/README\.md: <!-- pdu: Ping --> has no <!-- \/pdu --> behind it$/;
  fails(README.toSpliced(2, 1).join("\n"), { Ping, Pong }, open);
  fails("<!-- pdu: Ping -->", { Ping }, open);
  const unknown = /^exercises\/00-x\/README\.md: <!-- pdu: Pong --> names no codec of protocol\.ts$/;
  fails(README.join("\n"), { Ping }, unknown);
  fails(README.join("\n"), { Ping, Pong: 7 }, unknown);
});

test("an exercise without README, PDUs or dissectors is none the worse for it", () => {
  const dissectors = [{ name: "ping", title: "Ping", pdu: Ping.shape, udp: [10_000] }];
  const files = generate([
    { folder: "exercises/00-a", exports: { Ping, dissectors } },
    { folder: "exercises/00-b", exports: {}, readme: "# plain\n" },
  ]);
  assert.deepEqual([...files.keys()], ["exercises/00-b/README.md", "captures/netlab.lua"]);
  assert.equal(files.get("exercises/00-b/README.md"), "# plain\n");
  assert.match(files.get("captures/netlab.lua") ?? "", /^protocol \{\n {2}name = "ping",/m);
});

const declared = await Promise.all(exercisesWith("protocol.ts").map(({ folder }) => readDeclared(folder)));

test("what is generated is not stale: else run `npm run generate`", () => {
  for (const [path, text] of generate(declared)) {
    assert.ok(existsSync(projectFile(path)), `${path} is missing`);
    assert.equal(readFileSync(projectFile(path), "utf8"), text, `${path} is stale`);
  }
});

test("Wireshark takes the exercises' dissectors", needs("tshark"), async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "netlab-"));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "netlab.lua"), generate(declared).get("captures/netlab.lua") ?? "");
  writeFileSync(
    join(folder, "empty.pcap"),
    Buffer.from(`d4c3b2a102000400${"00".repeat(8)}ffff000065000000`, "hex"),
  );
  const names = declared
    .flatMap(dissectorsOf)
    .flatMap((dissector) => ("name" in dissector ? dissector.name : []));
  const { code, stderr } = await runTool("tshark", [
    ...["-X", `lua_script:${join(folder, "netlab.lua")}`, "-r", join(folder, "empty.pcap")],
    ...["-Y", ["frame", ...names].join(" or ")], // refused where one of them is not known
  ]);
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stderr, /lua/i);
});
