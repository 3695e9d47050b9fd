/** A round trip over TCP is the handshake: from the SYN to its SYN/ACK. No data is sent. */
import { Socket } from "node:net";
import { answered, failed, lost, type Prober, type ProberOptions } from "./probing.ts";

/**
 * Connects and hangs up. Where the SYN is lost, the system sends another after 1 s (RFC 6298 §2.1): with a time-out
 * beyond that, the time of such a probe has this second in it.
 */
export function tcpProber({ address, port, timeoutMs }: ProberOptions): Prober {
  const open = new Map<Socket, NodeJS.Timeout>();
  const where = { host: address, port, autoSelectFamily: false };
  const closed = (socket: Socket) => {
    clearTimeout(open.get(socket));
    socket.destroy();
    return open.delete(socket);
  };
  return {
    strays: { late: 0, repeated: 0, unknown: 0 },
    send(_, done) {
      const socket = new Socket();
      let sentAtMs = performance.now();
      // Node connects a turn after it was told to; this event is the last thing before the system call.
      socket.once("connectionAttempt", () => {
        sentAtMs = performance.now();
      });
      socket.once("connect", () => {
        const rttMs = performance.now() - sentAtMs;
        if (closed(socket)) done(answered(sentAtMs, rttMs, timeoutMs));
      });
      socket.on("error", (error) => {
        const rttMs = performance.now() - sentAtMs;
        if (closed(socket)) done(failed(error, sentAtMs, rttMs, timeoutMs));
      });
      const giveUp = () => {
        if (closed(socket)) done(lost(sentAtMs));
      };
      open.set(socket, setTimeout(giveUp, timeoutMs));
      socket.connect(where);
    },
    close() {
      for (const socket of [...open.keys()]) closed(socket);
    },
  };
}
