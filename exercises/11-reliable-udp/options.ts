/** What a connection can be told at first, and what it tells its application. */
import type { Failure } from "../../shared/errors.ts";
import type { CongestionName } from "./congestion.ts";
import { type Accept, BASE_MTU, type Event } from "./protocol.ts";

export interface ConnectionOptions {
  congestion: CongestionName;
  /** Largest UDP payload to be tried. */
  mtu: number;
  /** What may wait for a reader here. */
  windowBytes: number;
  /** Without progress for so long, it is given up. */
  timeoutMs: number;
}
export const DEFAULTS: ConnectionOptions = {
  congestion: "bbr",
  mtu: BASE_MTU,
  windowBytes: 8 * 2 ** 20,
  timeoutMs: 30_000,
};

/** What an application is told, from within `receive` and `next`. */
export interface Handlers {
  onAccepted?(accept: Accept): void;
  /** There are bytes to be taken, or all have come. */
  onReadable?(): void;
  /** There is room for more bytes. */
  onWritable?(): void;
  onEvent?(event: Event): void;
  /** Called once; without an error, everything has arrived and both sides know. */
  onEnd?(error?: Failure): void;
}
