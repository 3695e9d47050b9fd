/** UDP and TCP on one port number, as the small services have it. */
import { Failure } from "./errors.ts";
import { type ServeOptions, serve, type TcpServer } from "./tcp.ts";
import { bind, type UdpServer } from "./udp.ts";

const MAX_UNFIT_PORTS = 20;

/** Where any number will do (port 0), what the system gives for TCP must be free for UDP too. Throws `Failure`. */
export async function listenOnBoth(
  options: ServeOptions,
  onDatagram: Parameters<typeof bind>[1],
  onConnection: Parameters<typeof serve>[1],
): Promise<{ tcp: TcpServer; udp: UdpServer }> {
  const unfit: AbortController[] = [];
  try {
    while (true) {
      const stop = new AbortController();
      const signal = AbortSignal.any([options.signal, stop.signal]);
      const tcp = await serve({ ...options, signal }, onConnection);
      try {
        return { tcp, udp: await bind({ ...options, port: tcp.port, signal }, onDatagram) };
      } catch (error) {
        unfit.push(stop); // kept until the end, lest the system give the same number again
        if (options.port !== 0 || unfit.length === MAX_UNFIT_PORTS || !isPortTaken(error)) throw error;
      }
    }
  } finally {
    for (const stop of unfit) stop.abort();
  }
}

function isPortTaken(error: unknown): boolean {
  const cause = error instanceof Failure ? error.cause : error;
  return cause instanceof Error && "code" in cause && cause.code === "EADDRINUSE";
}
