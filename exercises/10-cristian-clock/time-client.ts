/** Asks a clock server, sample by sample, from one connected socket. */
import { randomBytes } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { formatAddress } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { PduError } from "../../shared/pdu.ts";
import { addressesOf } from "../../shared/udp.ts";
import { best, type Sample, sampleOf } from "./cristian.ts";
import { readReply, requestFor, stampRequest, toNs } from "./protocol.ts";

export interface Asking {
  host: string;
  port: number;
  samples: number;
  /** Between the beginnings of two samples, at least. */
  intervalMs: number;
  /** For each try. */
  timeoutMs: number;
  /** Tries after the first, for each sample. */
  retries: number;
  signal?: AbortSignal;
  debug?: (line: string) => void;
}

export interface Measurement {
  /** In the order in which they were taken. */
  samples: Sample[];
  best: Sample;
  /** Requests without a reply in time. */
  lost: number;
  /** Datagrams that were no reply to the request of the moment. */
  ignored: number;
}

/** Takes the samples. Throws `Failure`, also where no sample could be had. */
export async function measure(asking: Asking): Promise<Measurement> {
  const { host, port, samples: count, intervalMs, retries, signal } = asking;
  await using asker = await Asker.open(asking);
  const samples: Sample[] = [];
  for (let i = 0; i < count; i++) {
    if (i > 0) await sleep(intervalMs, undefined, { signal }).catch(() => {});
    for (let triesLeft = retries + 1; triesLeft > 0; triesLeft--) {
      if (signal?.aborted) throw new Failure("stopped");
      const sample = await asker.ask();
      if (sample === undefined) continue;
      samples.push(sample);
      break;
    }
    // Somebody is there or not: that is known after the first sample's tries.
    if (samples.length === 0) break;
  }
  const { lost, ignored } = asker;
  const chosen = best(samples);
  if (chosen !== undefined) return { samples, best: chosen, lost, ignored };
  const strangers = ignored > 0 ? `; ${ignored} datagrams were no answer to it` : "";
  throw new Failure(
    `cannot get the time from udp://${formatAddress(host, port)}: nothing came within ${asking.timeoutMs} ms (tries: ${lost})${strangers}`,
  );
}

/** A connected socket: the kernel drops what comes from anyone else, and a port where nobody listens is reported. */
class Asker implements AsyncDisposable {
  lost = 0;
  ignored = 0;
  readonly #socket: Socket;
  readonly #asking: Asking;
  readonly #where: string;
  #onDatagram: (datagram: Buffer, atMs: number) => void = () => {};
  #onError: (error: Error) => void = () => {};

  private constructor(socket: Socket, asking: Asking) {
    this.#socket = socket;
    this.#asking = asking;
    this.#where = `udp://${formatAddress(asking.host, asking.port)}`;
    socket.on("message", (datagram) => this.#onDatagram(datagram, performance.now()));
    socket.on("error", (error) => this.#onError(error));
  }

  /** At the first address of the name where somebody listens. */
  static async open(asking: Asking): Promise<Asker> {
    const { host, port } = asking;
    const addresses = await addressesOf(host);
    for (const [i, { address, family }] of addresses.entries()) {
      const socket = createSocket(family === 6 ? "udp6" : "udp4");
      socket.connect(port, address);
      try {
        await once(socket, "connect");
        const asker = new Asker(socket, asking);
        if (i < addresses.length - 1) await asker.ask();
        return asker;
      } catch (error) {
        socket.close();
        if (!isFailure(error) || i === addresses.length - 1) throw error;
      }
    }
    throw new Failure(`cannot resolve ${host}`);
  }

  /** One request, of an id of its own; undefined where no reply came in time. Late ones find another id. */
  async ask(): Promise<Sample | undefined> {
    const id = randomBytes(8).readBigUInt64BE();
    const request = requestFor(id);
    const { signal, timeoutMs } = this.#asking;
    let timer: NodeJS.Timeout | undefined;
    let stop = () => {};
    try {
      return await new Promise<Sample | undefined>((resolve, reject) => {
        stop = () => resolve(undefined);
        signal?.addEventListener("abort", stop);
        let [t1Ms, t1] = [0, 0n];
        this.#onError = (error) =>
          reject(new Failure(`cannot get the time from ${this.#where}`, { cause: error }));
        this.#onDatagram = (datagram, t4Ms) => {
          const sample = this.#sampleIn(datagram, id, t1, t1Ms, t4Ms);
          if (sample !== undefined) resolve(sample);
        };
        timer = setTimeout(() => {
          this.lost++;
          resolve(undefined);
        }, timeoutMs);
        t1Ms = performance.now();
        t1 = toNs(t1Ms);
        stampRequest(request, t1);
        this.#socket.send(request);
      });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      this.#onDatagram = (datagram) => this.#ignore(datagram, "nobody waits for it");
      this.#onError = () => {};
    }
  }

  /** The reply to this very request, if it is that and its times can be. */
  #sampleIn(datagram: Buffer, id: bigint, t1: bigint, t1Ms: number, t4Ms: number): Sample | undefined {
    try {
      const sample = sampleOf({ t1Ms, t4Ms, ...readReply(datagram, id, t1) });
      if (sample === undefined) this.#ignore(datagram, "the server held it longer than it was under way");
      return sample;
    } catch (error) {
      if (!(error instanceof PduError)) throw error;
      this.#ignore(datagram, explain(error));
      return undefined;
    }
  }

  #ignore(datagram: Buffer, why: string): void {
    this.ignored++;
    this.#asking.debug?.(`ignored ${datagram.length} bytes: ${why}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await once(this.#socket, "close");
  }
}
