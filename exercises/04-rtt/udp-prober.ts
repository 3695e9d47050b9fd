/** A round trip over UDP: from a datagram to the one that repeats its id. */
import { randomBytes } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import { isIPv6 } from "node:net";
import { answered, failed, lost, type Prober, type ProberOptions, type Result } from "./probing.ts";
import type { DatagramProbe } from "./protocol.ts";

/** Ids of probes that are over and are still known, to tell a late reply from nonsense. */
const MAX_REMEMBERED = 1000;

interface UnderWay {
  sentAtMs: number;
  /** The system has taken it. */
  isSent: boolean;
  timer: NodeJS.Timeout;
  done: (result: Result) => void;
}

/**
 * Sends from one connected socket: the kernel drops what comes from anyone but the peer, and reports a port where
 * nobody listens. It does not say which datagram was refused: the earliest under way is taken to be it.
 */
export class UdpProber implements Prober {
  readonly strays = { late: 0, repeated: 0, unknown: 0 };
  readonly #socket: Socket;
  readonly #probe: DatagramProbe;
  readonly #timeoutMs: number;
  readonly #underWay = new Map<bigint, UnderWay>();
  #isClosed = false;
  readonly #over = new Map<bigint, "answered" | "given up">();
  /** Why nothing can be sent to this address: there is no route. */
  #unusable: NodeJS.ErrnoException | undefined;

  private constructor(socket: Socket, probe: DatagramProbe, timeoutMs: number) {
    this.#socket = socket;
    this.#probe = probe;
    this.#timeoutMs = timeoutMs;
    socket.on("message", (datagram) => this.#received(datagram, performance.now()));
    socket.on("error", (error) => this.#refused(error, performance.now()));
  }

  static async open({ address, port, timeoutMs }: ProberOptions, probe: DatagramProbe): Promise<UdpProber> {
    const socket = createSocket(isIPv6(address) ? "udp6" : "udp4");
    const prober = new UdpProber(socket, probe, timeoutMs);
    await new Promise<void>((resolve) => {
      socket.connect(port, address, (error?: Error) => {
        prober.#unusable = error;
        resolve();
      });
    });
    return prober;
  }

  send(sequence: number, done: (result: Result) => void): void {
    const id = this.#newId();
    const bytes = this.#probe.request(id, sequence);
    const timer = setTimeout(() => this.#end(id, lost(underWay.sentAtMs)), this.#timeoutMs);
    const underWay: UnderWay = { sentAtMs: performance.now(), isSent: false, timer, done };
    this.#underWay.set(id, underWay);
    if (this.#unusable) this.#end(id, failed(this.#unusable, underWay.sentAtMs, 0, this.#timeoutMs));
    else this.#hand(bytes, id, underWay);
  }

  #hand(bytes: Buffer, id: bigint, underWay: UnderWay): void {
    underWay.sentAtMs = performance.now();
    this.#socket.send(bytes, (error: NodeJS.ErrnoException | null) => {
      const nowMs = performance.now();
      underWay.isSent = !error;
      if (error?.code === "ECONNREFUSED") {
        // This is how the system says that an earlier one was refused; this one it has not sent.
        this.#refused(error, nowMs);
        if (this.#underWay.has(id)) this.#hand(bytes, id, underWay);
      } else if (error) {
        this.#end(id, failed(error, underWay.sentAtMs, nowMs - underWay.sentAtMs, this.#timeoutMs));
      }
    });
  }

  #received(datagram: Buffer, nowMs: number): void {
    const id = this.#probe.answered(datagram);
    if (id === undefined) this.strays.unknown++;
    else if (this.#underWay.has(id)) {
      const { sentAtMs } = this.#underWay.get(id) as UnderWay;
      this.#end(id, answered(sentAtMs, nowMs - sentAtMs, this.#timeoutMs));
    } else {
      const end = this.#over.get(id);
      this.strays[end === undefined ? "unknown" : end === "answered" ? "repeated" : "late"]++;
    }
  }

  #refused(error: NodeJS.ErrnoException, nowMs: number): void {
    for (const [id, { sentAtMs, isSent }] of this.#underWay)
      if (isSent) return this.#end(id, failed(error, sentAtMs, nowMs - sentAtMs, this.#timeoutMs));
  }

  #end(id: bigint, result: Result): void {
    const underWay = this.#underWay.get(id);
    if (underWay === undefined) return;
    clearTimeout(underWay.timer);
    this.#underWay.delete(id);
    this.#over.set(id, result.outcome === "received" ? "answered" : "given up");
    const [oldest] = this.#over.keys();
    if (this.#over.size > MAX_REMEMBERED && oldest !== undefined) this.#over.delete(oldest);
    underWay.done(result);
  }

  /** Unlike that of any probe under way or lately: DNS has but 65,536 of them. */
  #newId(): bigint {
    while (true) {
      const id = BigInt.asUintN(this.#probe.idBits, randomBytes(8).readBigUInt64BE());
      if (!this.#underWay.has(id) && !this.#over.has(id)) return id;
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const { timer } of this.#underWay.values()) clearTimeout(timer);
    this.#underWay.clear();
    this.#socket.close();
  }
}
