/** The way to the other nodes: a connection to each, made anew when it breaks. What cannot be sent now is dropped. */
import type { Connection } from "../../shared/connection.ts";
import { explain, isFailure } from "../../shared/errors.ts";
import { dial } from "./link.ts";
import { Frame, type Member as FullMember, MAX_FRAME_BYTES } from "./protocol.ts";

const AGAIN_MS = 250;
/** A node that takes nothing: what it is not sent, the rules send again. */
const MAX_UNSENT_BYTES = 8 * 1024 * 1024;

type Member = Omit<FullMember, "uid">;

interface PeerOptions {
  secret: Buffer;
  id: number;
  cluster: Buffer;
  signal: AbortSignal;
  debug: (line: string) => void;
}

class Peer {
  readonly member: Member;
  readonly #options: PeerOptions;
  #connection: Connection | undefined;
  #isDialing = false;
  #againMs = 0;
  #complaint = "";

  constructor(member: Member, options: PeerOptions) {
    this.member = member;
    this.#options = options;
  }

  send(bytes: Buffer): void {
    const connection = this.#connection;
    if (connection === undefined) return void this.#dial(bytes);
    if (connection.unsentBytes < MAX_UNSENT_BYTES) connection.write(bytes).catch(() => {});
  }

  async #dial(first: Buffer): Promise<void> {
    if (this.#isDialing || performance.now() < this.#againMs || this.#options.signal.aborted) return;
    this.#isDialing = true;
    const { host, port, id } = this.member;
    try {
      const dialed = await dial({ ...this.#options, host, port, timeoutMs: 1000 });
      const { connection } = dialed;
      connection.timeoutMs = 0;
      if (dialed.id !== id) return connection.destroy(); // somebody else is there now
      this.#connection = connection;
      this.#complaint = "";
      this.send(first);
      // The node says nothing on it: what ends this wait is the connection's end.
      await connection.readPdu(Frame, MAX_FRAME_BYTES);
      connection.destroy();
    } catch (error) {
      if (!isFailure(error)) throw error;
      if (explain(error) !== this.#complaint) this.#options.debug(`node ${id}: ${explain(error)}`);
      this.#complaint = explain(error);
    } finally {
      this.#connection = undefined;
      this.#isDialing = false;
      this.#againMs = performance.now() + AGAIN_MS;
    }
  }

  close(): void {
    this.#connection?.destroy();
  }
}

export class Peers {
  readonly #peers = new Map<number, Peer>();
  readonly #options: PeerOptions;

  constructor(options: PeerOptions) {
    this.#options = options;
    options.signal.addEventListener("abort", () => {
      for (const peer of this.#peers.values()) peer.close();
    });
  }

  send(member: Member, bytes: Buffer): void {
    let peer = this.#peers.get(member.id);
    if (peer?.member.host !== member.host || peer.member.port !== member.port) {
      peer?.close();
      peer = new Peer(member, this.#options);
      this.#peers.set(member.id, peer);
    }
    peer.send(bytes);
  }
}
