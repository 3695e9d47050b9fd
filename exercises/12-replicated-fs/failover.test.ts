/** A master dies, another is elected, the old one comes back; and what goes on without a majority. */
import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { decode, encode } from "../../shared/pdu.ts";
import { run } from "../../shared/testing.ts";
import { dial, nextFrame } from "./link.ts";
import { HERE, LocalCluster, type LocalNode } from "./local-cluster.ts";
import { Command, frame, NO_REQUEST, NOTHING, Result } from "./protocol.ts";

let cluster: LocalCluster;
before(async () => {
  cluster = await LocalCluster.start(1, { isGated: true, args: ["--election-ms", "2000"] });
  await cluster.add({ cut: [1] });
});
after(() => cluster[Symbol.asyncDispose]());

const whole = (text: string) =>
  async function* () {
    yield Buffer.from(text);
  };
/** The master of the first test, which was killed there. */
let old: LocalNode;
const masterNow = (): LocalNode => cluster.node([...cluster.masters()].at(-1)?.[1] ?? 1);

// Node 3 has heard nothing yet, of nobody but its contact: it must be able to vote for node 2, of which it is asked.
test("the master is killed: what was acknowledged is there, and the same client goes on", async () => {
  await using remote = cluster.remote();
  for (let i = 0; i < 20; i++) await remote.write(`before-${i}`, whole(`before ${i}`));
  old = masterNow();
  const heir = cluster.node(2);
  await cluster.same([old, heir]);
  writeFileSync(join(heir.dir, "stray"), "written where nobody was master");
  writeFileSync(join(heir.dir, "before-0"), "the same");
  await cluster.kill(old);
  for (const { gate } of cluster.nodes) gate?.cut.clear();
  await remote.write("after", whole("after"));
  assert.notEqual(masterNow(), old);
  const others = cluster.nodes.filter((node) => node !== old);
  await cluster.same(others);
  for (const { dir } of others) {
    for (let i = 0; i < 20; i++) assert.equal(readFileSync(join(dir, `before-${i}`), "utf8"), `before ${i}`);
    assert.equal(readFileSync(join(dir, "after"), "utf8"), "after");
    assert.ok(
      !existsSync(join(dir, "stray")),
      "what was written on a replica does not become the file system's",
    );
  }
  const kept = readdirSync(`${heir.dir}.netlab/aside`).map((name) => name.replace(/^.*-\d+-/, ""));
  assert.ok(kept.includes("stray"), kept.join());
});

test("the old master comes back: what it alone had is kept aside, and does not come up again", async () => {
  writeFileSync(join(old.dir, "after"), "of the old master");
  writeFileSync(join(old.dir, "of the old master alone"), "nobody knows");
  await cluster.launch(old);
  await old.running?.output(/set aside[\s\S]*set aside/, "stderr");
  await cluster.same();
  assert.equal(readFileSync(join(old.dir, "after"), "utf8"), "after");
  assert.ok(!existsSync(join(old.dir, "of the old master alone")));
  const kept = readdirSync(`${old.dir}.netlab/aside`).map((name) =>
    readFileSync(`${old.dir}.netlab/aside/${name}`, "utf8"),
  );
  assert.deepEqual(kept.sort(), ["nobody knows", "of the old master"]);
});

test("--verify: the same, exit code 0; a difference is printed, exit code 1", async () => {
  const [master, replica] = [masterNow(), cluster.nodes.find((node) => node !== masterNow()) as LocalNode];
  const args = (node: LocalNode) => [...node.args, "--verify"];
  const same = await run(`${HERE}/${master.script}`, args(master));
  assert.equal(same.code, 0, same.stdout + same.stderr);
  assert.equal(same.stdout.match(/the same, 21 paths/g)?.length, 2);
  writeFileSync(join(replica.dir, "stray"), "x");
  writeFileSync(join(replica.dir, "after"), "aftER");
  const differing = await run(`${HERE}/${master.script}`, args(master));
  assert.equal(differing.code, 1);
  assert.match(differing.stdout, new RegExp(`^node ${replica.id} at .*: content differs: "/after"$`, "m"));
  assert.match(differing.stdout, new RegExp(`^node ${replica.id} at .*: only there: "/stray"$`, "m"));
  // A restart mends it.
  await cluster.kill(replica);
  await cluster.launch(replica);
  await cluster.same();
});

/** What the node says to a write, once it sends nobody elsewhere. */
async function refusalOf({ port }: LocalNode): Promise<string> {
  const { connection } = await dial({ host: "127.0.0.1", port, secret: NOTHING, id: 0, timeoutMs: 30_000 });
  while (true) {
    const request = randomBytes(NO_REQUEST.length);
    const command = encode(Command, { operation: "mkdir", recursive: 0, mode: 0, request, to: "" });
    await connection.write(frame(0, "remote", "refused", command));
    const { outcome, text } = decode(Result, (await nextFrame(connection)).data);
    if (outcome === "done") throw new Error("it was written");
    if (outcome === "unavailable" && text.startsWith("no master")) {
      await connection.close();
      return text;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test("without a majority reading goes on, writing is refused with the reason", async () => {
  const survivor = masterNow();
  for (const node of cluster.nodes) if (node !== survivor) await cluster.kill(node);
  const text = await refusalOf(survivor);
  assert.match(text, /^no master: 2 of the 3 nodes must be up and reach one another; reading goes on$/);
  await using remote = cluster.remote({ nodes: [survivor] });
  let content = "";
  await remote.read("after", (data) => {
    content += data;
  });
  assert.equal(content, "after");
  const other = cluster.nodes.find((node) => node !== survivor) as LocalNode;
  await cluster.launch(other);
  await using again = cluster.remote();
  await again.write("more", whole("y"));
  await cluster.same([survivor, other]);
});
