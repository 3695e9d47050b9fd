/** The same text counted by the nodes and by others, and the memory that nodes need for 1 GiB. */
import { createWriteStream, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import { flag, integer, setting } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { type Contender, compare, peakMebibytes, ROUNDS, standingsTable } from "../../shared/measure.ts";
import { program, projectFile } from "../../shared/program.ts";
import { isInstalled, Running, within } from "../../shared/running.ts";
import { HERE, LocalCluster } from "./local-cluster.ts";
import { sampleText } from "./sample-text.ts";

const LIMIT_MS = 600_000;
const LIMIT_BYTES = 512 * 1024 * 1024;
/** In bytes, not letters: capitals with accents stay capitals, and quotation marks are letters. A little less work than ours. */
const COREUTILS =
  "tr -cs 'A-Za-z0-9\\200-\\377' '\\n' < \"$0\" | tr A-Z a-z | sort | uniq -c | sort -k1,1nr -k2";
const AWK =
  '{ for (i = 1; i <= NF; i++) count[tolower($i)]++ } END { for (term in count) print term "\\t" count[term] }';
const PYTHON = `
import collections, re, sys
count = collections.Counter()
for line in open(sys.argv[1], encoding="utf-8", newline="\\n"):
    count.update(re.findall(r"\\w+", line.lower()))
for term, times in count.most_common():
    print(term, times, sep="\\t")
`;
const REGEX = `
const count = new Map();
for (const line of require("node:fs").readFileSync(process.argv[1], "utf8").split("\\n"))
  for (const [term] of line.matchAll(/[\\p{L}\\p{M}\\p{N}]+/gu)) {
    const key = term.toLowerCase().normalize("NFC");
    count.set(key, (count.get(key) ?? 0) + 1);
  }
const rows = [...count].sort((a, b) => b[1] - a[1]);
process.stdout.write(rows.map(([term, times]) => term + "\\t" + times + "\\n").join(""));
`;

/** Seconds of a command that must print a line for about as many terms as there are. */
async function timed(command: string, args: readonly string[], terms: number): Promise<number> {
  const beganMs = performance.now();
  await using running = new Running(command, args, { env: { LC_ALL: "C" } });
  const { code } = await within(running.exited, `the end of ${command}`, LIMIT_MS);
  const seconds = (performance.now() - beganMs) / 1000;
  const lines = running.bytes.toString("latin1").split("\n").length;
  if (code !== 0 || lines < terms * 0.8) throw new Failure(`${command} failed: ${running.stderr}`);
  return seconds;
}

/** Seconds of a job, from the master's start to its end. */
async function counted(
  cluster: LocalCluster,
  text: string,
  words: number,
  ...args: (string | number)[]
): Promise<number> {
  const beganMs = performance.now();
  await using master = await cluster.master(text, cluster.file("out.txt"), args);
  const { code } = await within(master.exited, "the master's end", LIMIT_MS);
  const seconds = (performance.now() - beganMs) / 1000;
  if (code !== 0 || (words > 0 && !master.stderr.startsWith(`${words} words, `)))
    throw new Failure(`the nodes counted wrongly: ${master.stderr}`);
  return seconds;
}

async function writeRepeated(path: string, bytes: Buffer, sizeBytes: number): Promise<void> {
  const file = createWriteStream(path);
  for (let written = 0; written < sizeBytes; written += bytes.length)
    await new Promise<void>((resolve, reject) =>
      file.write(bytes, (error) => (error ? reject(error) : resolve())),
    );
  file.end();
  await finished(file);
}

async function memory(folder: string, bytes: Buffer): Promise<void> {
  const gibibyte = join(folder, "gibibyte.txt");
  await writeRepeated(gibibyte, bytes, 2 ** 30);
  const wrapper = isInstalled("prlimit") ? ["prlimit", `--data=${LIMIT_BYTES}`] : [];
  await using cluster = await LocalCluster.of({ mappers: 2, wrapper });
  const seconds = await counted(cluster, gibibyte, 0);
  const peaks = cluster.names.map(
    (name) => `${name} ${peakMebibytes(cluster.node(name).child.pid).toFixed(0)} MiB`,
  );
  const limited = wrapper.length > 0 ? ", each limited to 512 MiB of data (prlimit --data)" : "";
  process.stdout.write(
    `1 GiB in ${seconds.toFixed(1)} s by 2 mappers${limited}; most memory: ${peaks.join(", ")}\n`,
  );
}

/** Texts in which each term comes once: what grows is what must be kept, not what is read. */
async function growth(): Promise<void> {
  process.stdout.write(
    "| distinct terms | text | seconds | a mapper's memory | the reducer's |\n|---|---|---|---|---|\n",
  );
  for (let terms = 10_000; terms <= 10_000_000; terms *= 10) {
    await using cluster = await LocalCluster.of({ mappers: 2 });
    const text = cluster.file("terms.txt");
    const file = createWriteStream(text);
    for (let first = 0; first < terms; first += 10_000)
      file.write(Array.from({ length: 10_000 }, (_, i) => `t${(first + i).toString(36)} `).join(""));
    file.end();
    await finished(file);
    const seconds = await counted(cluster, text, terms);
    const [mapper, reducer] = ["mapper1", "reducer"].map((name) =>
      peakMebibytes(cluster.node(name).child.pid),
    );
    const megabytes = (file.bytesWritten / 1e6).toFixed(1);
    process.stdout.write(
      `| ${terms.toLocaleString("en")} | ${megabytes} MB | ${seconds.toFixed(1)} | ${mapper?.toFixed(0)} MiB | ${reducer?.toFixed(0)} MiB |\n`,
    );
  }
}

await program({
  summary: "Measures the nodes beside coreutils, gawk, Python and a regular expression.",
  example: "--megabytes 105",
  settings: {
    megabytes: setting(integer(5, 1000), "of text", 105),
    rounds: ROUNDS,
    grow: flag("measures what grows with the distinct terms, and nothing else"),
  },
  async run({ megabytes, rounds, grow }, { log }) {
    if (grow) return growth();
    const folder = await mkdtemp(join(tmpdir(), "netlab-count-"));
    try {
      const { bytes, what } = sampleText(megabytes * 1e6);
      const text = join(folder, "text.txt");
      await writeFile(text, bytes);
      process.stdout.write(`${what}: ${(bytes.length / 1e6).toFixed(0)} MB\n\n`);
      await using two = await LocalCluster.of({ mappers: 2 });
      await using four = await LocalCluster.of({ mappers: 4 });
      await counted(two, text, 0);
      const output = readFileSync(two.file("out.txt"), "latin1").split("\n").slice(0, -1);
      const words = output.reduce((sum, line) => sum + Number(line.split("\t")[1]), 0);
      const tsx = ["--import", import.meta.resolve("tsx"), projectFile(`${HERE}/map.ts`)];
      const shell = (name: string, tool: string, command: string, ...args: string[]): Contender[] => {
        if (isInstalled(tool)) return [{ name, run: () => timed(command, args, output.length) }];
        log(`missing: ${tool}`);
        return [];
      };
      const main: Contender[] = [
        { name: "2 mappers: 1 part, 2 copies", run: () => counted(two, text, words) },
        { name: "4 mappers: 2 parts, 2 copies", run: () => counted(four, text, words) },
        ...shell("coreutils: tr, sort, uniq", "sort", "sh", "-c", COREUTILS, text),
        {
          name: "Node, a regular expression",
          run: () => timed(process.execPath, ["-e", REGEX, text], output.length),
        },
      ];
      const standings = await compare(main, rounds);
      process.stdout.write(`${standingsTable("the same text", "seconds", standings)}\n\n`);
      const separator = "[^A-Za-z0-9\\200-\\377]+";
      const others: Contender[] = [
        { name: "2 mappers: 1 part, 2 copies", run: () => counted(two, text, words) },
        { name: "2 mappers, without the copy", run: () => counted(two, text, words, "--copies", 1) },
        { name: "4 mappers, without the copies", run: () => counted(four, text, words, "--copies", 1) },
        {
          name: "map.ts, one process",
          run: () => timed("sh", ["-c", 'exec "$@" < "$0"', text, process.execPath, ...tsx], output.length),
        },
        ...shell("gawk", "gawk", "gawk", "-b", "-F", separator, AWK, text),
        ...shell("mawk", "mawk", "mawk", "-F", separator, AWK, text),
        ...shell("Python, Counter", "python3", "python3", "-c", PYTHON, text),
      ];
      const once = await compare(others, 1);
      process.stdout.write(`${standingsTable("others, once", "seconds", once)}\n\n`);
      await memory(folder, bytes);
    } finally {
      await rm(folder, { recursive: true });
    }
  },
});
