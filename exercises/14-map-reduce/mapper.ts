/** A mapper: counts the terms of the parts that masters send it, and gives the result to the reducer. */
import { host, optional, port } from "../../shared/config.ts";
import { UsageError } from "../../shared/errors.ts";
import { program } from "../../shared/program.ts";
import { serve } from "../../shared/tcp.ts";
import { mapperSession } from "./mapping.ts";
import { PORT } from "./protocol.ts";

await program({
  summary: "A mapper of the map-reduce word count (NLMR, over TCP).",
  example: "127.0.0.1 11401",
  settings: {
    HOST: optional(host, "the same as --host", { positional: true }),
    PORT: optional(port, "the same as --port", { positional: true }),
    host: optional(host, "name or address to listen on (default: 127.0.0.1)"),
    port: optional(port, `port to listen on (0 = any free one; default: ${PORT + 1})`),
  },
  async run({ HOST, PORT: ownPort, host, port }, { signal, log, debug, ready }) {
    if ((HOST ?? host) !== (host ?? HOST) || (ownPort ?? port) !== (port ?? ownPort))
      throw new UsageError("HOST and PORT are given twice, and differently");
    const address = { host: HOST ?? host ?? "127.0.0.1", port: ownPort ?? port ?? PORT + 1 };
    const server = await serve({ ...address, signal, log }, (connection) => mapperSession(connection, debug));
    ready(server.url);
    await server.closed;
  },
});
