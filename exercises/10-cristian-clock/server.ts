/** A time server: the lab's clock PDU and RFC 868 on one UDP port, RFC 868 over TCP on the same number. */
import { decimal, setting } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { encode } from "../../shared/pdu.ts";
import { listenAt, program } from "../../shared/program.ts";
import { listenOnBoth } from "../../shared/same-port.ts";
import { CLOCK_PORT, ClockTime, classify, time868, toNs } from "./protocol.ts";
import { SystemClock } from "./system-clock.ts";

/** Reasons hold what a peer sent: not all of them are kept. */
const MAX_REASONS = 100;
/** For a client that connects and does not take its time. */
const PATIENCE_MS = 5000;

await program({
  summary: "A time server: the lab's clock PDU over UDP; and RFC 868 over UDP and TCP.",
  example: "--port 0 --shift 5000",
  settings: {
    ...listenAt(CLOCK_PORT),
    error: setting(
      decimal("milliseconds", 0, 1e9),
      "milliseconds by which this machine's clock may be off UTC",
      0,
    ),
    shift: setting(
      decimal("milliseconds", -1e12, 1e12),
      "milliseconds to be ahead of this machine, to experiment",
      0,
    ),
    drift: setting(decimal("ppm", -5000, 5000), "parts per million to be too fast, to experiment", 0),
  },
  async run({ host, port, error, shift, drift }, { signal, log, debug, ready }) {
    const clock = new SystemClock();
    const startMs = performance.now();
    const utcAt = (nowMs: number) => clock.at(nowMs) + shift + (nowMs - startMs) * drift * 1e-6;
    const dropped = new Set<string>();

    const { tcp, udp } = await listenOnBoth(
      { host, port, signal, log, timeoutMs: PATIENCE_MS },
      (datagram, from, { send }) => {
        const receivedMs = performance.now();
        const arrival = classify(datagram, from.port);
        if (arrival.kind === "dropped") {
          // A loop would be endless in the log too: each reason is said once.
          const say = dropped.has(arrival.reason) || dropped.size >= MAX_REASONS ? debug : log;
          dropped.add(arrival.reason);
          say(`${formatAddress(from.address, from.port)}: dropped, as the datagram ${arrival.reason}`);
          return;
        }
        if (arrival.kind === "plain request") return send(time868(utcAt(receivedMs)), from);
        const { id, clientTransmit } = arrival;
        const serverReceive = toNs(utcAt(receivedMs));
        const serverError = toNs(error + clock.reading.errorMs);
        const reply = { kind: "reply", flags: {}, id, clientTransmit, serverReceive, serverError } as const;
        send(encode(ClockTime, { ...reply, serverTransmit: toNs(utcAt(performance.now())) }), from);
      },
      (connection) => connection.write(time868(utcAt(performance.now()))),
    );
    ready(udp.url);
    ready(tcp.url);
    await Promise.all([udp.closed, tcp.closed]);
  },
});
