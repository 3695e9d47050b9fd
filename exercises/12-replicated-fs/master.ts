/** The first node of a replicated directory: it makes a new file system. Whether it stays master, the election decides. */
import { program } from "../../shared/program.ts";
import { nodeSettings, runNode } from "./node-program.ts";
import { PORT } from "./protocol.ts";

await program({
  summary: "Keeps a directory in step on several machines; this is the first of them.",
  example: "--dir /tmp/a",
  section: "node",
  settings: nodeSettings(PORT),
  run: (settings, context) => runNode(settings, context),
});
