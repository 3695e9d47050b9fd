/** A replicated directory in one terminal: a write, a dead master, a new one, the old one back, and nothing lost. */
import { existsSync, readdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { integer, setting } from "../../shared/config.ts";
import { expect, say } from "../../shared/demo.ts";
import { explain, Failure } from "../../shared/errors.ts";
import { program, projectFile } from "../../shared/program.ts";
import { run } from "../../shared/running.ts";
import { HERE, LocalCluster } from "./local-cluster.ts";
import { quote } from "./words.ts";

/** The terminal, with these lines typed into it. */
async function client(cluster: LocalCluster, ...lines: string[]): Promise<string> {
  const commands = lines.flatMap((line) => ["--command", line]);
  for (const line of lines) say(`  > ${line}`);
  const { code, stdout, stderr } = await run(`${HERE}/client.ts`, [...cluster.nodesFlags(), ...commands]);
  for (const line of (stdout + stderr)
    .trimEnd()
    .split("\n")
    .filter((line) => line !== ""))
    say(`  | ${line}`);
  expect(code === 0, `exit code ${code}`);
  return stdout;
}

async function verify(cluster: LocalCluster, id: number): Promise<void> {
  const { script, args } = cluster.node(id);
  const { code, stdout, stderr } = await run(`${HERE}/${script}`, [...args, "--verify"]);
  for (const line of (stdout + stderr).trimEnd().split("\n")) say(`  | ${line}`);
  expect(code === 0, "the trees differ");
}

async function demonstrate(port: number): Promise<string> {
  await using cluster = await LocalCluster.start(2, port === 0 ? {} : { ports: port });
  const [first] = cluster.nodes;
  const dir = first?.dir ?? "";
  say("A master and two replicas, each with a directory of its own. A client writes:");
  await client(
    cluster,
    "mkdir -p docs/empty",
    `put ${quote(projectFile("config/replicated-fs.ini"))} docs/nodes.ini`,
    "ls -l docs",
  );

  say("\nAnother program writes into the master's directory, makes a link, and renames a directory:");
  writeFileSync(join(dir, "a name\nof two lines"), "hola\n");
  symlinkSync("docs/nodes.ini", join(dir, "link"));
  await cluster.same();
  renameSync(join(dir, "docs"), join(dir, "texts"));
  await cluster.same();
  await client(cluster, "tree");
  say("Each tree, by the hashes of what lies on the disks:");
  await verify(cluster, 2);

  say("\nThe master is killed (kill -9); the client goes on writing:");
  await using remote = cluster.remote();
  await remote.do("touch", "before");
  const startMs = performance.now();
  if (first !== undefined) await cluster.kill(first);
  await remote.write("after", async function* () {
    yield Buffer.from("written without the first master\n");
  });
  const failoverMs = performance.now() - startMs;
  const [term, id] = [...cluster.masters()].at(-1) ?? [0, 0];
  say(
    `  node ${id} was elected in term ${term}; the next write was acknowledged ${(failoverMs / 1000).toFixed(1)} s after the kill`,
  );
  expect(failoverMs < 5000, "it took more than 5 s");

  say("\nMeanwhile somebody writes into the dead master's directory. It comes back, and is master no more:");
  writeFileSync(join(dir, "after"), "nobody was told of this\n");
  if (first !== undefined) await cluster.launch(first);
  await first?.running?.output(/set aside/, "stderr");
  await cluster.same();
  const aside = readdirSync(`${dir}.netlab/aside`);
  say(
    `  node 1: set aside, in node1.netlab/aside: ${aside.map((name) => name.replace(/^.*Z-/, "…")).join(", ")}`,
  );
  expect(
    readFileSync(join(dir, "after"), "utf8") === "written without the first master\n",
    "the write was lost",
  );
  expect(existsSync(join(dir, "before")), "the write before was lost");
  await client(cluster, "cat after", "nodes");
  await verify(cluster, 1);
  say();
  return `result: kill -9 of the master, none lost | new master in ${(failoverMs / 1000).toFixed(1)} s`;
}

await program({
  summary:
    "Shows three nodes: writes, a dead master, a new one, the old one back, and that nothing was lost.",
  example: "--port 11200",
  settings: {
    port: setting(integer(0, 65_533), "port of the first node, the others' follow it (0 = any)", 0),
  },
  async run({ port }) {
    try {
      say(await demonstrate(port));
    } catch (error) {
      throw new Failure(`the nodes did not do what they should: ${explain(error)}`, { cause: error });
    }
  },
});
