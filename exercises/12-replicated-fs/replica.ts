/** Another node of a replicated directory: it registers with the master, copies what it lacks, and may become master. */
import { hostPort, optional } from "../../shared/config.ts";
import { program } from "../../shared/program.ts";
import { nodeSettings, runNode } from "./node-program.ts";
import { PORT } from "./protocol.ts";

await program({
  summary: "A replica of a directory; where the master dies, one of them becomes master.",
  example: "--dir /tmp/b --master 127.0.0.1:11200",
  section: "node",
  settings: {
    ...nodeSettings(PORT + 1),
    master: optional(
      hostPort(PORT),
      `HOST:PORT of the master, or of any node (default: 127.0.0.1:${PORT}): asked when this one is new`,
    ),
  },
  run: (settings, context) =>
    runNode(settings, context, settings.master ?? { host: "127.0.0.1", port: PORT }),
});
