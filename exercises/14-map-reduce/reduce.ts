/** The reduce function as a program: counted terms on stdin, in any order, their sums on stdout. Hadoop Streaming's reducer. */
import { program } from "../../shared/program.ts";
import { LineReader, linesOf, sorted } from "./lines.ts";
import { print } from "./streaming.ts";
import { TermTable } from "./term-table.ts";

await program({
  summary:
    "Adds up the counts of the same terms: the lines of map.ts on stdin, the most frequent term first on stdout.",
  example: "< counted.txt",
  settings: {},
  async run() {
    const table = new TermTable();
    const reader = new LineReader(table);
    for await (const chunk of process.stdin as AsyncIterable<Buffer>) reader.push(chunk);
    reader.end();
    await print(linesOf(table, await sorted(table)));
  },
});
