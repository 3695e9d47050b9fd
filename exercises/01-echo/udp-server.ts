/** An echo server on a datagram socket (RFC 862): each datagram goes back to where it came from. */
import { formatAddress } from "../../shared/connection.ts";
import { listenAt, program } from "../../shared/program.ts";
import { bind } from "../../shared/udp.ts";
import { ECHO_PORT, whyRefused } from "./protocol.ts";

/** Sources may be forged by the thousand: only so many get a line in the log. */
const MAX_LINES = 100;

/** Says each line once, and falls silent after `MAX_LINES`, so that a flood of datagrams is none in the log. */
function limited(log: (line: string) => void): (line: string) => void {
  const said = new Set<string>();
  return (line) => {
    if (said.size >= MAX_LINES || said.has(line)) return;
    said.add(line);
    log(line);
    if (said.size === MAX_LINES) log("no more of these lines from here on");
  };
}

await program({
  summary: "An echo server on a datagram socket (RFC 862).",
  example: "--port 0",
  settings: listenAt(ECHO_PORT),
  async run({ host, port }, { signal, log, debug, ready }) {
    const complain = limited(log);
    const server = await bind({ host, port, signal, log: complain }, (datagram, from, { port, send }) => {
      const source = formatAddress(from.address, from.port);
      const reason = whyRefused(from.port, port);
      if (reason !== undefined) return complain(`${source}: dropped, ${reason}`);
      debug(`${source}: ${datagram.length} bytes`);
      send(datagram, from);
    });
    ready(server.url);
    await server.closed;
  },
});
