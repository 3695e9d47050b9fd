/** The exercise end to end: three nodes that find each other, a document fetched, a change, a farewell and a death. */
import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { integer, setting } from "../../shared/config.ts";
import { say } from "../../shared/demo.ts";
import { explain, Failure } from "../../shared/errors.ts";
import { program, projectFile } from "../../shared/program.ts";
import { run } from "../../shared/running.ts";
import { type LocalNode, LocalSegment, NODE } from "./local-segment.ts";

const since = (beginMs: number) => `${Math.round(performance.now() - beginMs)} ms`;

/** What anybody gets to see who joins. */
async function showListing(segment: LocalSegment): Promise<void> {
  const { stdout } = await run(NODE, [...segment.args, "--once", "list"]);
  for (const line of stdout.trimEnd().split("\n")) say(`   ${line}`);
}

async function demonstrate(segment: LocalSegment): Promise<string> {
  const licence = readFileSync(projectFile("LICENSE"));
  const text = "Preface: in which three nodes meet.\n";
  say("ana and bob start. Neither is told of the other.");
  const [ana, bob] = await Promise.all([
    segment.start("ana", { documents: { "gpl.txt": licence, "notes/monday.txt": "ring, ring\n" } }),
    segment.start("bob", { documents: { "licence.txt": licence, "notes/monday.txt": "hello, hello\n" } }),
  ]);
  for (const node of [ana, bob]) await node.seesNodes(2);

  const eva = await segment.start("eva", { documents: { "preface.txt": text } });
  const beginMs = performance.now();
  const all = [ana, bob, eva];
  await Promise.all(all.map((node) => node.seesNodes(3)));
  await Promise.all([ana, bob].map((node) => node.knows("preface.txt")));
  await eva.knows("licence.txt");
  const found = since(beginMs);
  say(`eva starts, and broadcasts that it is there. After ${found} everybody has everybody's index.\n`);
  say("Somebody who comes by, lists, and leaves (--once list), sees:");
  await showListing(segment);
  say(" · gpl.txt and licence.txt are one content; notes/monday.txt are two (≠)\n");

  const got = (await eva.ask("get gpl.txt")) as { from: string[]; sha256: string };
  const file = readFileSync(join(eva.cwd, "gpl.txt"));
  assert.equal(createHash("sha256").update(file).digest("hex"), got.sha256);
  assert.ok(file.equals(licence));
  say(`eva: get gpl.txt`);
  say(` · ${file.length} bytes from ${got.from.join(", ")}, and their SHA-256 is the announced one\n`);

  const changeMs = performance.now();
  await bob.put("news.txt", "a new document\n");
  await Promise.all([ana, eva].map((node) => node.knows("news.txt")));
  say(`bob gets a new document: ${since(changeMs)} later it is in the index of ana and eva.`);
  await goes(ana, [bob, eva], "Ctrl-C at ana: it says goodbye");
  await goes(bob, [eva], "kill -9 of bob: it says nothing");
  say("");
  return `result: found, listed, fetched, verified | found in ${found}`;
}

async function goes(node: LocalNode, others: readonly LocalNode[], how: string): Promise<void> {
  const beginMs = performance.now();
  node.running.kill(how.startsWith("kill") ? "SIGKILL" : "SIGINT");
  const [first] = await Promise.all(others.map((other) => other.seesNodes(others.length)));
  assert.ok(first?.every(({ name }) => name !== node.name));
  say(`${how}, and is gone from every listing after ${since(beginMs)}.`);
}

await program({
  summary: "Shows three nodes that find each other: a listing, a document fetched, a farewell and a death.",
  example: "--port 8000",
  settings: {
    port: setting(integer(0, 65_530), "first port of six (0 = six free ones in a row)", 0),
  },
  async run({ port }, { signal }) {
    await using segment = await LocalSegment.open(port === 0 ? undefined : port);
    signal.addEventListener("abort", () => {
      for (const { running } of segment.nodes) running.kill("SIGKILL");
    });
    try {
      say(await demonstrate(segment));
    } catch (error) {
      throw new Failure(`the nodes did not do what they should: ${explain(error)}`, { cause: error });
    }
  },
});
