/** A file through a connection: read no faster than it is sent, taken no faster than it is written. */
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import type { Connection } from "./connection.ts";
import { ChangedError, type TargetFile } from "./files.ts";

const READ_BYTES = 256 * 1024;

/** Where bytes come from: a file, or something in memory. */
interface Source {
  size: number;
  read(offset: number, size: number): Promise<Buffer>;
}
export const sourceOf = (bytes: Buffer): Source => ({
  size: bytes.length,
  read: async (offset, size) => bytes.subarray(offset, offset + size),
});

/** Resolves when the connection has ended well; rejects with its error. */
export function ended(connection: Connection): Promise<void> {
  return new Promise((resolve, reject) => {
    connection.handlers.onEnd = (error) => (error ? reject(error) : resolve());
  });
}

/** Sends a source from `offset` on, as there is room. A source that fails ends the connection. */
export function send(connection: Connection, source: Source, offset: number): void {
  let at = offset;
  let isReading = false;
  async function pump(): Promise<void> {
    isReading = true;
    try {
      while (at < source.size && connection.room > 0) {
        // Whole packets: what is left of a read leaves in a smaller one.
        const bytes = await source.read(at, READ_BYTES - (READ_BYTES % connection.pieceBytes));
        at += bytes.length;
        connection.write(bytes);
      }
    } catch (error) {
      failWith(connection, error);
    }
    isReading = false;
  }
  connection.handlers.onWritable = () => {
    if (!isReading && at < source.size && connection.room >= READ_BYTES) void pump();
  };
  void pump();
}

/** Writes what comes into a file, up to `size`, and gives it its name; then says so and lets the connection end. */
export function receive(
  connection: Connection,
  target: TargetFile,
  size: number,
  sha256: Buffer,
  onProgress: () => void = () => {},
): void {
  let isWriting = false;
  async function pump(): Promise<void> {
    isWriting = true;
    try {
      for (let pieces = connection.take(); pieces.length > 0; pieces = connection.take()) {
        await target.write(Buffer.concat(pieces)); // one large write costs less than many small ones
        onProgress();
      }
      if (target.sizeBytes === size) {
        await target.place(sha256);
        connection.finish();
      }
    } catch (error) {
      failWith(connection, error);
    }
    isWriting = false;
  }
  connection.handlers.onReadable = () => {
    if (!isWriting) void pump();
  };
  void pump();
}

/** Takes what comes into memory, at most so much. */
export function collect(connection: Connection, size: number, most: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  return new Promise((resolve, reject) => {
    if (size > most) reject(new Failure(`${size} bytes are more than the ${most} that are taken`));
    connection.handlers.onReadable = () => {
      for (const piece of connection.take()) {
        pieces.push(piece);
        bytes += piece.length;
      }
      if (bytes < size) return;
      connection.finish();
      resolve(Buffer.concat(pieces));
    };
    connection.handlers.onReadable();
  });
}

/** Ends a connection for a failure here, and lets the other side know which. */
export function failWith(connection: Connection, error: unknown): void {
  if (!(error instanceof Error) || !isFailure(error)) throw error;
  const failure = error instanceof Failure ? error : new Failure(explain(error));
  connection.fail(error instanceof ChangedError ? "changed" : "failed", explain(failure), failure);
}
