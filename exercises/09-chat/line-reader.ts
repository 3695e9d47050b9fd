/** Lines of a connection as bytes, one at a time: what is not asked for stays in the connection, and so is bounded. */
import type { Connection } from "../../shared/connection.ts";

export const TOO_LONG = Symbol("a line that is too long");

const [LF, CR] = [0x0a, 0x0d];

type Source = Pick<Connection, "peek" | "take" | "unreadBytes">;

/**
 * `next()` gives a line in latin1 without its end; `TOO_LONG` once for one of more than `limitBytes` with its end, of
 * which nothing is kept; undefined while none is whole. LF, CRLF and CR end a line, so none of them can be in one (RFC 1459
 * §8.2), and a NUL, which may not be in one, is left out. Empty lines do not count.
 */
export function lineReader(source: Source, limitBytes: number) {
  let skipping = false;

  function next(): string | typeof TOO_LONG | undefined {
    for (;;) {
      const bytes = source.peek();
      const end = endOf(bytes, limitBytes);
      if (end === undefined) {
        if (bytes.length < limitBytes) return undefined;
        source.take(limitBytes);
        if (skipping) continue;
        skipping = true;
        return TOO_LONG;
      }
      const line = source.take(end + 1);
      if (skipping) {
        skipping = false; // that was the rest of it
        continue;
      }
      if (end > limitBytes - (line[end] === CR ? 2 : 1)) return TOO_LONG;
      if (end > 0) return text(line, end);
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
