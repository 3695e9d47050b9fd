/** Lines of a connection as bytes, one at a time: what is not asked for stays in the connection, and so is bounded. */
import type { Connection } from "../../shared/connection.ts";

export const TOO_LONG = Symbol("a line that is too long");
/** As many bytes as a line may have, and no line in them: they have cost as much as one. */
export const DROPPED = Symbol("bytes that are no line");

const [LF, CR] = [0x0a, 0x0d];

type Source = Pick<Connection, "peek" | "take" | "unreadBytes">;

/**
 * `next()` gives a line in latin1 without its end; `TOO_LONG` once for one of more than `limitBytes` with its end, of
 * which nothing is kept; `DROPPED` for every `limitBytes` of what is no line (the rest of one that is too long, empty
 * lines), so that it can be counted; undefined while no line is whole. LF, CRLF and CR end a line, so none of them can
 * be in one (RFC 1459 §8.2), and a NUL, which may not be in one, is left out.
 */
export function lineReader(source: Source, limitBytes: number) {
  let skipping = false;
  let droppedBytes = 0;

  /** Says whether that makes a line's worth of them. */
  function drop(sizeBytes: number): boolean {
    droppedBytes += sizeBytes;
    if (droppedBytes < limitBytes) return false;
    droppedBytes -= limitBytes;
    return true;
  }

  function next(): string | typeof TOO_LONG | typeof DROPPED | undefined {
    for (;;) {
      const bytes = source.peek();
      const end = endOf(bytes, limitBytes);
      if (end === undefined) {
        if (bytes.length < limitBytes) return undefined;
        source.take(limitBytes);
        if (skipping) return DROPPED;
        skipping = true;
        return TOO_LONG;
      }
      const line = source.take(end + 1);
      if (skipping) {
        skipping = false; // that was the rest of it
        continue;
      }
      if (end > limitBytes - (line[end] === CR ? 2 : 1)) return TOO_LONG;
      if (end > 0) {
        droppedBytes = 0; // the LF of a CRLF is an empty line too: who sends lines, drops none
        return text(line, end);
      }
      if (drop(1)) return DROPPED;
    }
  }

  return { next };
}

/** Where the first line ends: at the latest where it is too long. */
function endOf(bytes: Buffer, limitBytes: number): number | undefined {
  const limit = Math.min(bytes.length, limitBytes);
  for (let at = 0; at < limit; at++) if (bytes[at] === LF || bytes[at] === CR) return at;
  return undefined;
}

function text(line: Buffer, end: number): string {
  const string = line.toString("latin1", 0, end);
  return string.includes("\0") ? string.replaceAll("\0", "") : string;
}
