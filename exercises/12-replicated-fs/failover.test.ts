/** A master dies, another is elected, the old one comes back; and what goes on without a majority. */
import { strict as assert } from "node:assert";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { run } from "../../shared/testing.ts";
import { HERE, LocalCluster, type LocalNode } from "./local-cluster.ts";

let cluster: LocalCluster;
before(async () => {
  cluster = await LocalCluster.start(1, { isGated: true });
  await cluster.add({ cut: [1] });
});
after(() => cluster[Symbol.asyncDispose]());

const whole = (text: string) =>
  async function* () {
    yield Buffer.from(text);
  };
const masterNow = (): LocalNode => cluster.node([...cluster.masters()].at(-1)?.[1] ?? 1);

// Node 3 has heard nothing yet, of nobody but its contact: it must be able to vote for node 2, of which it is asked.
test("the master is killed: what was acknowledged is there, and the same client goes on", async () => {
  await using remote = cluster.remote({ patienceMs: 30_000 });
  for (let i = 0; i < 20; i++) await remote.write(`before-${i}`, whole(`before ${i}`));
  const old = masterNow();
  await cluster.kill(old);
  await remote.write("after", whole("after"));
  for (const { gate } of cluster.nodes) gate?.cut.clear();
  assert.notEqual(masterNow(), old);
  const others = cluster.nodes.filter((node) => node !== old);
  await cluster.same(others);
  for (const { dir } of others) {
    for (let i = 0; i < 20; i++) assert.equal(readFileSync(join(dir, `before-${i}`), "utf8"), `before ${i}`);
    assert.equal(readFileSync(join(dir, "after"), "utf8"), "after");
  }
});

test("the old master comes back: what it alone had is kept aside, and does not come up again", async () => {
  const old = cluster.node(1);
  assert.ok(old.running === undefined);
  writeFileSync(join(old.dir, "after"), "of the old master");
  writeFileSync(join(old.dir, "of the old master alone"), "nobody knows");
  await cluster.launch(old);
  await cluster.node(1).running?.output(/set aside[\s\S]*set aside/, "stderr");
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

test("without a majority reading goes on, writing is refused with the reason", async () => {
  const survivor = masterNow();
  for (const node of cluster.nodes) if (node !== survivor) await cluster.kill(node);
  await survivor.running?.output(/not master any more/, "stderr");
  await using remote = cluster.remote({ nodes: [survivor], patienceMs: 300 });
  let content = "";
  await remote.read("after", (data) => {
    content += data;
  });
  assert.equal(content, "after");
  await assert.rejects(remote.write("more", whole("x")), (error: Error) => {
    assert.match((error.cause as Error).message, /no master: 2 of the 3 nodes must be up/);
    return true;
  });
  for (const node of cluster.nodes) if (node !== survivor) await cluster.launch(node);
  await using again = cluster.remote({ patienceMs: 30_000 });
  await again.write("more", whole("y"));
  await cluster.same();
});
