/** A peer that does as a test says: announces what it likes, and answers as it likes. */
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import type { Connection } from "../../shared/connection.ts";
import { serve } from "../../shared/tcp.ts";
import { type Document, OwnIndex } from "./document-index.ts";
import { answer, type Served } from "./exchange.ts";
import { newIdentity } from "./identity.ts";
import { type Announcement, signedAnnouncement } from "./protocol.ts";

export class FakePeer implements AsyncDisposable {
  readonly identity = newIdentity();
  readonly index = new OwnIndex();
  readonly port: number;
  readonly id = this.identity.key.toString("hex");
  sequence = 0n;
  /** What it announces to those who ask it to speak up; undefined: nothing. */
  answers: Partial<Announcement> | undefined;
  /** What it does with a connection; else it is honest. */
  session: ((connection: Connection, honest: () => Promise<void>) => Promise<void>) | undefined;
  readonly #socket: Socket;
  readonly #stop = new AbortController();
  readonly #served: Served;

  private constructor(port: number, socket: Socket, documents: readonly Document[], folder?: string) {
    this.port = port;
    this.#socket = socket;
    for (const document of documents) this.index.set(document);
    this.#served = { identity: this.identity, index: this.index, folder };
    socket.on("message", (datagram, from) => {
      const wantsReply = ((datagram[5] ?? 0) & 0x80) !== 0;
      if (wantsReply && this.answers) void this.send(this.announcement(this.answers), from.port);
    });
  }

  static async open(port: number, documents: readonly Document[] = [], folder?: string): Promise<FakePeer> {
    const socket = createSocket("udp4").bind({ port, exclusive: true });
    await once(socket, "listening");
    const peer = new FakePeer(port, socket, documents, folder);
    const { signal } = peer.#stop;
    await serve({ host: "127.0.0.1", port, signal, log: () => {} }, (connection) => {
      const honest = () => answer(connection, peer.#served);
      return peer.session === undefined ? honest() : peer.session(connection, honest);
    });
    return peer;
  }

  announcement(part: Partial<Announcement> = {}): Buffer {
    const { identity, port, index } = this;
    const { version, digest } = index;
    const own = { node: identity.key, sequence: ++this.sequence, port, version, digest, name: "mallory" };
    return signedAnnouncement({ kind: "announce", flags: { reply: false }, ...own, ...part }, identity.sign);
  }

  send(datagram: Buffer, toPort: number): Promise<void> {
    return new Promise((resolve, reject) =>
      this.#socket.send(datagram, toPort, "127.0.0.1", (error) => (error ? reject(error) : resolve())),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    this.#stop.abort();
  }
}
