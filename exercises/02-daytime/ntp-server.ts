/**
 * A time server to experiment with: NTP from this machine's clock, moved by as much as wanted. It keeps nothing in
 * step itself; for use on loopback.
 */
import { integer, setting } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { encode } from "../../shared/pdu.ts";
import { listenAt, program } from "../../shared/program.ts";
import { bind } from "../../shared/udp.ts";
import { DAYTIME_PORT, NtpPacket, ntpReply } from "./protocol.ts";

await program({
  summary: "A time server (NTP) whose clock is off by a known time.",
  example: "--port 0 --shift 5000",
  settings: {
    ...listenAt(DAYTIME_PORT + 1),
    shift: setting(integer(-1e12, 1e12), "milliseconds that its time is ahead of this machine's", 0),
    stratum: setting(integer(0, 16), "1 to 15; 0 and 16 mean not synchronised", 1),
  },
  async run({ host, port, shift, stratum }, { signal, log, debug, ready }) {
    const server = await bind({ host, port, signal, log }, (query, from, { send }) => {
      const reply = ntpReply(query, Date.now() + shift, stratum);
      debug(`${formatAddress(from.address, from.port)}: ${reply ? "answered" : "no query"}`);
      if (reply !== undefined) send(encode(NtpPacket, reply), from);
    });
    ready(server.url);
    await server.closed;
  },
});
