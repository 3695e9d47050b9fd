/**
 * The bytes of a stream that were sent and are not back yet: the FlightSize of RFC 5681, seen by the application. A
 * ring of fixed size, so that checking costs the same memory however much is sent.
 */
import { Failure } from "../../shared/errors.ts";
import { difference } from "./protocol.ts";

interface InFlight {
  /** Bytes that are not back yet. */
  readonly sizeBytes: number;
  /** Bytes that may still be sent before some must have come back. */
  readonly roomBytes: number;
  /** Notes what is being sent: at most `roomBytes`. */
  sent(bytes: Buffer): void;
  /** Throws `Failure` that names the first byte that is not what was sent in its place. */
  returned(bytes: Buffer): void;
  /** Throws `Failure` unless everything is back. */
  finished(): void;
}

export function inFlight(capacityBytes: number): InFlight {
  const ring = Buffer.allocUnsafe(capacityBytes);
  let sentBytes = 0;
  let returnedBytes = 0;
  const flight: InFlight = {
    get sizeBytes() {
      return sentBytes - returnedBytes;
    },
    get roomBytes() {
      return capacityBytes - flight.sizeBytes;
    },
    sent(bytes) {
      if (bytes.length > flight.roomBytes) throw new RangeError(`${bytes.length} bytes, too many in flight`);
      const copied = bytes.copy(ring, sentBytes % capacityBytes);
      bytes.copy(ring, 0, copied);
      sentBytes += bytes.length;
    },
    returned(bytes) {
      const size = Math.min(bytes.length, flight.sizeBytes);
      const start = returnedBytes % capacityBytes;
      const head = ring.subarray(start, start + size);
      const expected =
        head.length === size ? head : Buffer.concat([head, ring.subarray(0, size - head.length)]);
      const wrong = difference(expected, bytes, returnedBytes);
      if (wrong !== undefined) throw new Failure(wrong);
      returnedBytes += bytes.length;
    },
    finished() {
      if (flight.sizeBytes === 0) return;
      throw new Failure(`the server finished after ${returnedBytes} of ${sentBytes} bytes`);
    },
  };
  return flight;
}
