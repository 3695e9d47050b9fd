/** Somebody on the path between client and server, for tests and demo. */
import type { KeyObject } from "node:crypto";
import type { Connection } from "../../shared/connection.ts";
import { encode } from "../../shared/pdu.ts";
import { connect, serve, type TcpServer } from "../../shared/tcp.ts";
import { clientHandshake, serverHandshake } from "./handshake.ts";
import { MAX_RECORD_BYTES, type Message, Record } from "./protocol.ts";
import type { Channel } from "./records.ts";

/** What becomes of the `index`th record of a direction: these bytes go on, then perhaps nothing more. */
export type Tamper = (
  record: Buffer,
  index: number,
  toServer: boolean,
) => { onward: Buffer[]; back?: Buffer[]; isLast?: boolean };

interface Middle extends AsyncDisposable {
  readonly port: number;
}

async function between(
  toPort: number,
  session: (client: Connection, server: Connection) => Promise<void>,
): Promise<Middle> {
  const stop = new AbortController();
  const options = { host: "127.0.0.1", port: 0, signal: stop.signal, log: () => {} };
  const server: TcpServer = await serve(options, async (client) => {
    const upstream = await connect({ host: "127.0.0.1", port: toPort, timeoutMs: 0 });
    try {
      await session(client, upstream);
    } finally {
      upstream.destroy();
      client.destroy();
    }
  });
  return {
    port: server.port,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await server.closed;
    },
  };
}

/** Passes records on, some of them not as they were. */
export function tamperer(toPort: number, tamper: Tamper): Promise<Middle> {
  return between(toPort, async (client, server) => {
    const pump = async (from: Connection, to: Connection) => {
      for (let index = 0; ; index++) {
        const record = await from.readPdu(Record, MAX_RECORD_BYTES);
        if (record === undefined) return to.end();
        const { onward, back = [], isLast } = tamper(encode(Record, record), index, to === server);
        for (const bytes of onward) await to.write(bytes);
        for (const bytes of back) await from.write(bytes);
        if (isLast) return to.end();
      }
    };
    await Promise.all([pump(client, server), pump(server, client)]);
  });
}

/** Plays the server to the client and the client to the server, with a host key of its own, and reads everything. */
export function impersonator(
  toPort: number,
  hostKey: KeyObject,
  onMessage: (message: Message) => void,
): Promise<Middle> {
  return between(toPort, async (client, server) => {
    const { channel: toServer } = await clientHandshake(server);
    const toClient = await serverHandshake(client, hostKey, "session");
    const pump = async (from: Channel, to: Channel) => {
      for (let message = await from.receive(); message; message = await from.receive()) {
        onMessage(message);
        await to.send(message);
      }
      to.connection.end();
    };
    await Promise.all([pump(toClient, toServer), pump(toServer, toClient)]);
  });
}
