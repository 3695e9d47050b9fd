/**
 * What is to be sent to a receiver. All that is queued for it within one turn of the event loop is written as one:
 * with 500 receivers that is 500 system calls for a hundred lines instead of 50,000.
 *
 * Receivers of the same lines share them. A queue is a place in a tree of lines, and to queue a line is to step to the
 * child with that line, which is there already if another receiver has stepped to it before. So a channel's lines are
 * joined to bytes once, however many members it has.
 */
import type { Connection } from "../../shared/connection.ts";
import { isFailure } from "../../shared/errors.ts";

/** So much is written without waiting for the turn's end: a long turn must not fill a queue that is being emptied. */
const FLUSH_BYTES = 64 * 1024;

/** All lines from the root of a turn to this one. */
class Batch {
  readonly before: Batch | undefined;
  readonly line: string;
  readonly sizeBytes: number;
  /** The last child: nearly always the one that the next receiver needs too. */
  #child: Batch | undefined;
  #bytes: Buffer | undefined;

  constructor(before?: Batch, line = "") {
    this.before = before;
    this.line = line;
    this.sizeBytes = before === undefined ? 0 : before.sizeBytes + line.length + 2;
  }

  with(line: string): Batch {
    if (this.#child?.line !== line) this.#child = new Batch(this, line);
    return this.#child;
  }

  get bytes(): Buffer {
    this.#bytes ??= this.#join();
    return this.#bytes;
  }

  #join(): Buffer {
    const lines: string[] = [];
    for (let batch: Batch = this; batch.before !== undefined; batch = batch.before) lines.push(batch.line);
    return Buffer.from(`${lines.reverse().join("\r\n")}\r\n`, "latin1");
  }
}

/** A turn of the event loop, shared by the queues that are to be written at its end. */
export class Turn {
  /** Where the queues of this turn begin. */
  root = new Batch();
  #waiting: SendQueue[] = [];

  /** Puts it on the list for the end of the turn. */
  add(queue: SendQueue): void {
    if (this.#waiting.push(queue) === 1) setImmediate(() => this.end());
  }

  end(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    this.root = new Batch();
    for (const queue of waiting) queue.endTurn();
  }
}

type Sink = Pick<Connection, "write" | "unsentBytes">;

/** A receiver's queue. `onOverflow` is called once, at the end of the turn in which it went over its limit. */
export class SendQueue {
  readonly #turn: Turn;
  readonly #sink: Sink;
  readonly #limitBytes: number;
  readonly #onOverflow: () => void;
  #queued: Batch | undefined;
  #isWaiting = false;
  /** The system has not yet taken what was written before. */
  #isBlocked = false;
  #isOver = false;

  constructor(turn: Turn, sink: Sink, limitBytes: number, onOverflow: () => void) {
    this.#turn = turn;
    this.#sink = sink;
    this.#limitBytes = limitBytes;
    this.#onOverflow = onOverflow;
  }

  /** Queues a line, given without its end. */
  send(line: string): void {
    if (this.#isOver) return;
    this.#queued = (this.#queued ?? this.#turn.root).with(line);
    if (!this.#isWaiting) {
      this.#isWaiting = true;
      this.#turn.add(this);
    }
    if (this.#queued.sizeBytes < FLUSH_BYTES) return;
    if (!this.#isBlocked) this.flush();
    else if (this.#queued.sizeBytes + this.#sink.unsentBytes > this.#limitBytes) this.#isOver = true;
  }

  endTurn(): void {
    this.#isWaiting = false;
    if (this.#isBlocked && (this.#queued?.sizeBytes ?? 0) + this.#sink.unsentBytes > this.#limitBytes)
      this.#isOver = true;
    if (this.#isOver) {
      this.#queued = undefined;
      this.#onOverflow();
    } else if (!this.#isBlocked) this.flush();
  }

  /** Writes what is queued, whether the receiver takes it or not. */
  flush(): void {
    if (this.#queued === undefined) return;
    const { bytes } = this.#queued;
    this.#queued = undefined;
    this.#isBlocked = true;
    this.#sink.write(bytes).then(this.#onDrained, ignoreFailure);
  }

  readonly #onDrained = (): void => {
    this.#isBlocked = false;
    if (!this.#isWaiting && !this.#isOver) this.flush();
  };
}

/** That a connection is gone is for its reader to notice. */
function ignoreFailure(error: unknown): void {
  if (!isFailure(error)) throw error;
}
