/** Pipes of the system, which Node cannot make by itself: a FIFO is made, opened at both ends, and its name removed. */
import { execFile } from "node:child_process";
import { constants, openSync } from "node:fs";
import { Socket } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { promisify } from "node:util";
import { Connection } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { MAX_DATA_BYTES } from "./protocol.ts";

const { O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } = constants;
/** What a pipe of the system holds. */
const PIPE_BYTES = 64 * 1024;
/** Turns of the event loop in which a pipe has nothing to say, until it is empty: one may have begun before. */
const QUIET_TURNS = 2;

export async function makeFifos(...paths: string[]): Promise<void> {
  try {
    await promisify(execFile)("mkfifo", ["-m", "600", ...paths]);
  } catch (error) {
    throw new Failure("cannot make a FIFO with mkfifo", { cause: error });
  }
}

/** The two ends of a FIFO: ours as a socket, that of the program which is to be started as a descriptor. */
export function openBothEnds(path: string): { reader: Socket; writer: number } {
  const reader = openSync(path, O_RDONLY | O_NONBLOCK); // blocks no more than a reader does that is not the first
  return { reader: readable(reader), writer: openSync(path, O_WRONLY) };
}

/** Reads what many write one after the other: it is a writer too, so that there is no end between two of them. */
export const openForReading = (path: string) => readable(openSync(path, O_RDWR | O_NONBLOCK));

/** Writes to who opens it later: it is a reader too, as opening would wait for one else. */
export const openForWriting = (path: string) =>
  new Socket({ fd: openSync(path, O_RDWR | O_NONBLOCK), readable: false, writable: true });

const readable = (fd: number) => new Socket({ fd, readable: true, writable: false });

/** Passes on what comes out of a pipe, one piece after the other: while one is on its way, nothing is read. */
export class Output {
  readonly #pipe: Connection;
  readonly #pass: (data: Buffer) => Promise<void>;
  #passing: Promise<void> = Promise.resolve();
  #readBytes = 0;
  /** Settles at the end of the pipe, rejects where a piece could not be passed on. */
  readonly ended: Promise<void>;

  constructor(socket: Socket, pass: (data: Buffer) => Promise<void>) {
    this.#pipe = new Connection(socket);
    this.#pass = pass;
    this.ended = this.#pump();
    this.ended.catch(() => {});
  }

  async #pump(): Promise<void> {
    for (
      let data = await this.#pipe.read(MAX_DATA_BYTES);
      data;
      data = await this.#pipe.read(MAX_DATA_BYTES)
    ) {
      this.#readBytes += data.length;
      this.#passing = this.#pass(data);
      await this.#passing;
    }
  }

  /**
   * Waits until all that is in the pipe now has been passed on. The system tells at each turn of the event loop which
   * pipes hold something, so what says nothing for a whole turn is empty. Rejects as `ended` does.
   */
  async flushed(): Promise<void> {
    const enoughBytes = this.#readBytes + this.#pipe.unreadBytes + PIPE_BYTES; // it may never fall silent (`yes &`)
    for (let quiet = 0; quiet < QUIET_TURNS && this.#readBytes < enoughBytes; ) {
      const seenBytes = this.#readBytes;
      await this.#passing;
      await nextTurn();
      quiet = seenBytes === this.#readBytes && this.#pipe.unreadBytes === 0 ? quiet + 1 : 0;
    }
    await this.#passing;
  }

  close(): void {
    this.#pipe.destroy();
  }
}
