/** The exercise end to end: a small job step by step, then millions of words counted by five processes, one of them killed on the way. */
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { integer, setting } from "../../shared/config.ts";
import { expect, say } from "../../shared/demo.ts";
import { explain, Failure } from "../../shared/errors.ts";
import { program } from "../../shared/program.ts";
import { within } from "../../shared/running.ts";
import { LocalCluster } from "./local-cluster.ts";
import { countHere, NodeHere } from "./nodes-here.ts";
import { countedBy, countedIn } from "./oracle.ts";
import { sampleText } from "./sample-text.ts";

const BIG_BYTES = 20_000_000;
const SMALL_TEXT = `En un lugar de la Mancha, de cuyo nombre no quiero acordarme, no ha mucho tiempo que vivía un hidalgo de los de
lanza en astillero, adarga antigua, rocín flaco y galgo corredor. Rocín y ROCI\u0301N son lo mismo, y galgo y Galgo también.
`;
const VICTIM = "mapper2";

/** Nodes in this process at the standard ports, so that a capture is small and has every kind of message. */
async function smallJob(folder: string, port: number): Promise<void> {
  const at = (i: number) => (port === 0 ? 0 : port + i);
  await using reducer = await NodeHere.reducer(at(0));
  const nodes = await Promise.all([1, 2, 3, 4].map((i) => NodeHere.mapper(at(i))));
  const mappers = Object.fromEntries(nodes.map(({ address }, i) => [`mapper${i + 1}`, address]));
  const path = join(folder, "small.txt");
  await writeFile(path, SMALL_TEXT);
  say(
    `A small text first, ${Buffer.byteLength(SMALL_TEXT)} bytes. Four mappers, so two parts, each given to two of them:`,
  );
  const { output, totals } = await countHere(path, reducer.address, mappers);
  for (const [i, { notes }] of nodes.entries())
    for (const note of notes.filter((note) => note.startsWith("part "))) say(` · mapper${i + 1}: ${note}`);
  expect(output === countedBy(SMALL_TEXT), "the counts of the small text");
  const [most = "", ...others] = output.split("\n").map((line) => line.replace("\t", " "));
  say(` · ${totals.words} words, ${totals.terms} terms: ${[most, ...others.slice(0, 5)].join(", ")} …`);
  expect(output.includes("\nrocín\t3\n"), "composed and decomposed letters are the same");
  say(" · rocín 3: í in one character or in two, in capitals or not, is one letter");
  for (const node of nodes) await node.kill();
}

/** Real processes, and a kill -9 where it hurts: in the middle of a part. */
async function bigJob(): Promise<string> {
  const { bytes, what } = sampleText(BIG_BYTES);
  await using cluster = await LocalCluster.of({ mappers: 4, args: ["--verbose"] });
  const [path, out] = [cluster.file("text.txt"), cluster.file("counted.txt")];
  await writeFile(path, bytes);
  say(`\n${what}: ${(bytes.length / 1e6).toFixed(1)} MB, for a reducer and four mappers, each a process.`);
  const beganMs = performance.now();
  const master = await cluster.master(path, out);
  const [begun] = await cluster.node(VICTIM).output(/^part \d+: begun, \d+ bytes$/m, "stderr");
  cluster.node(VICTIM).kill("SIGKILL");
  say(` · ${VICTIM}: ${begun}, and killed (kill -9)`);
  const { code } = await within(master.exited, "the master's end");
  const seconds = (performance.now() - beganMs) / 1000;
  for (const line of master.stderr.trimEnd().split("\n")) say(` · master: ${line}`);
  expect(code === 0, `the master's exit code is ${code}`);
  const notes = cluster.node("reducer").stderr.split("\n");
  for (const note of notes.filter((note) => /granted|refused|received/.test(note)))
    say(` · reducer: ${note}`);
  const counted = readFileSync(out, "utf8");
  expect(counted === countedIn(bytes), "the counts, beside those of a regular expression");
  say(` · the same as a regular expression counts in one process, line by line`);
  for (const line of counted.split("\n").slice(0, 5)) say(`     ${line}`);
  const words = Number(/^(\d+) words/m.exec(master.stderr)?.[1]);
  return `result: a mapper killed, the count exact | ${(words / 1e6).toFixed(1)} M words in ${seconds.toFixed(1)} s`;
}

await program({
  summary: "Counts a small text step by step, and a large one while a mapper is killed.",
  example: "--port 11400",
  settings: {
    port: setting(integer(0, 65_531), "port of the reducer, the mappers' follow it (0 = any free ones)", 0),
  },
  async run({ port }) {
    const folder = await mkdtemp(join(tmpdir(), "netlab-map-reduce-demo-"));
    try {
      await smallJob(folder, port);
      say(`\n${await bigJob()}`);
    } catch (error) {
      throw new Failure(`the nodes did not do what they should: ${explain(error)}`, { cause: error });
    } finally {
      await rm(folder, { recursive: true });
    }
  },
});
