/** Congestion control: how much may be under way, and how fast. An algorithm sees acknowledgements, losses and timeouts, and nothing else. */
import { Bbr } from "./bbr.ts";
import type { RateSample } from "./delivery-rate.ts";
import { Gaffer } from "./gaffer.ts";
import { NewReno } from "./newreno.ts";
import type { RttEstimator } from "./rtt.ts";

export interface AckEvent {
  nowMs: number;
  rtt: RttEstimator;
  /** Bytes that were acknowledged, and when the latest of those packets was sent. */
  bytes: number;
  sentMs: number;
  /** Bytes under way before and after. */
  priorInFlightBytes: number;
  inFlightBytes: number;
  /** Bytes acknowledged since the beginning. */
  delivered: number;
  rate: RateSample;
}

export interface LossEvent {
  nowMs: number;
  bytes: number;
  /** When the latest of the lost packets was sent. */
  sentMs: number;
  inFlightBytes: number;
}

export interface Congestion {
  /** Bytes that may be under way. */
  readonly windowBytes: number;
  /** Bytes that may leave in a millisecond; Infinity: as many as the window lets. */
  readonly bytesPerMs: number;
  /** Of a full packet; whoever sends larger ones says so. */
  packetBytes: number;
  /** What it is doing, in a word. */
  readonly mode: string;
  onAck(event: AckEvent): void;
  onLoss(event: LossEvent): void;
  /** Nothing came back for several probe timeouts (RFC 9002 §7.6). */
  onTimeout(nowMs: number): void;
}

export const CONGESTION = {
  bbr: (packetBytes: number) => new Bbr(packetBytes),
  newreno: (packetBytes: number) => new NewReno(packetBytes),
  gaffer: (packetBytes: number) => new Gaffer(packetBytes),
} satisfies Record<string, (packetBytes: number) => Congestion>;
export type CongestionName = keyof typeof CONGESTION;
export const CONGESTION_NAMES = Object.keys(CONGESTION) as CongestionName[];
