/** The map function as a program: text on stdin, `term<TAB>count` on stdout. Hadoop Streaming runs it as a mapper. */
import { program } from "../../shared/program.ts";
import { linesOf } from "./lines.ts";
import { print, warnings } from "./streaming.ts";
import { Tokenizer } from "./tokenizer.ts";

await program({
  summary: "Counts the terms of the text on stdin: a line each on stdout, term, tab, count.",
  example: "< README.md | sort | npx tsx exercises/14-map-reduce/reduce.ts",
  settings: {},
  async run(_, { log }) {
    const tokenizer = new Tokenizer();
    for await (const chunk of process.stdin as AsyncIterable<Buffer>) tokenizer.push(chunk);
    tokenizer.end();
    await print(linesOf(tokenizer.table));
    for (const warning of warnings(tokenizer)) log(`warning: ${warning}`);
  },
});
