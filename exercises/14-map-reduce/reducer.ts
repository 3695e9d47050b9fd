/** The reducer: lets one mapper for each part send its result, adds them up, and gives the sum to the master. */
import { host, optional, port } from "../../shared/config.ts";
import { configFile, program } from "../../shared/program.ts";
import { serve } from "../../shared/tcp.ts";
import { readNodes } from "./configuration.ts";
import { reducerSessions } from "./reducing.ts";

await program({
  summary: "The reducer of the map-reduce word count (NLMR, over TCP).",
  example: "",
  settings: {
    config: configFile("config/map-reduce.ini"),
    host: optional(host, "name or address to listen on, instead of the configuration's"),
    port: optional(port, "port to listen on (0 = any free one), instead of the configuration's"),
  },
  async run({ config, ...given }, { signal, log, debug, ready }) {
    const isConfigured = given.host !== undefined && given.port !== undefined;
    const own = isConfigured ? undefined : readNodes(config).reducer;
    const address = { host: given.host ?? own?.host ?? "", port: given.port ?? own?.port ?? 0 };
    const server = await serve({ ...address, signal, log }, reducerSessions(debug));
    ready(server.url);
    await server.closed;
  },
});
