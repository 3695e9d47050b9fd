/** An echo server on a stream socket (RFC 862): everything that arrives goes back, until the peer's FIN. */
import type { Connection } from "../../shared/connection.ts";
import { listenAt, program } from "../../shared/program.ts";
import { serve } from "../../shared/tcp.ts";
import { ECHO_PORT } from "./protocol.ts";

async function echo(connection: Connection): Promise<void> {
  // Waiting for each write is what stops a client that never reads: nothing more is read from it either.
  for (let chunk = await connection.read(); chunk !== undefined; chunk = await connection.read()) {
    await connection.write(chunk);
  }
}

await program({
  summary: "An echo server on a stream socket (RFC 862).",
  example: "--port 0",
  settings: listenAt(ECHO_PORT),
  async run({ host, port }, { signal, log, debug, ready }) {
    const server = await serve({ host, port, signal, log }, async (connection) => {
      debug(`${connection.peer}: connected`);
      await echo(connection);
      debug(`${connection.peer}: finished`);
    });
    ready(server.url);
    await server.closed;
  },
});
