/**
 * After BBR (Cardwell et al., ACM Queue 14(5), 2016; draft-cardwell-iccrg-bbr-congestion-control-00): it estimates what the path delivers and how long it
 * takes when no queue stands, and keeps the product of the two under way. A lost packet says nothing about either.
 */
import type { AckEvent, Congestion, LossEvent } from "./congestion.ts";

/** 2/ln 2: the smallest gain that doubles the rate every round. */
const STARTUP_GAIN = 2.885;
const WINDOW_GAIN = 2;
/** One round each: look for more, let the queue go that this made, cruise. */
const CYCLE = [1.25, 0.75, 1, 1, 1, 1, 1, 1] as const;
/** Acknowledgements come in bunches: what came at most before its time is under way besides, but not more than the path delivers in so long. */
const MAX_BUNCH_MS = 100;
const RATE_ROUNDS = 10;
/** Where rounds are short, a busy process may miss ten of them: then the path is no slower for it. */
const RATE_VALID_MS = 200;
const MIN_RTT_VALID_MS = 10_000;
const PROBE_RTT_MS = 200;
const MIN_PACKETS = 4;
const BUNCH_PACKETS = 3;
const INITIAL_PACKETS = 10;
/** The pipe is full when three rounds brought less than a quarter more. */
const FULL_ROUNDS = 3;
const FULL_GROWTH = 1.25;

/** All round trips of a round so much longer than the shortest: a queue stands, and a loss is its. */
const QUEUE_RTTS = 1.5;
/** Less than that share of what is under way may be chance (BBRv3's threshold). */
const LOSS_SHARE = 0.02;
/** Then so much less may be under way, but no less than that much of the pipe; and more again, each round. */
const CAP_CUT = 0.7;
const CAP_LEAST = 1.25;
const CAP_GROWTH = 1.08;
/** A queue that loses so much for each byte that arrives ends startup, whatever the rate does. */
const FLOOD_SHARE = 0.2;

type Mode = "startup" | "drain" | "cruise" | "probe RTT";

export class Bbr implements Congestion {
  mode: Mode = "startup";
  minRttMs = Infinity;
  packetBytes: number;
  #minRttAtMs = Infinity;
  /** The best sample of each of the last rounds. */
  #rates: { round: number; atMs: number; bytesPerMs: number }[] = [];
  #round = 0;
  /** Of this round: what had been acknowledged before, what was lost, and the shortest round trip; that of the round before. */
  #roundBeganAt = 0;
  #lostBytes = 0;
  #roundRttMs = Infinity;
  #priorRoundRttMs = 0;
  #fullRate = 0;
  #fullRounds = 0;
  #isFull = false;
  #phase = 0;
  #phaseSinceMs = 0;
  #probeRttUntilMs: number | undefined;
  #wasTimeout = false;
  /** What was acknowledged since a time, and the most in each of the last rounds that was so before its time. */
  #bunchSinceMs = 0;
  #bunchBytes = 0;
  #bunches: { round: number; bytes: number }[] = [];
  /** What a full queue leaves of the window; Infinity while there was none. */
  #capBytes = Infinity;
  #wasCut = false;

  constructor(packetBytes: number) {
    this.packetBytes = packetBytes;
  }

  /** What the path delivers, as far as is known. */
  get #rate(): number {
    return this.#rates[0]?.bytesPerMs ?? 0;
  }
  /** The bandwidth-delay product. */
  get #pipeBytes(): number {
    return this.#rate * this.minRttMs;
  }
  get #gain(): number {
    if (this.mode === "startup") return STARTUP_GAIN;
    if (this.mode === "drain") return 1 / STARTUP_GAIN;
    return this.mode === "cruise" ? (CYCLE[this.#phase] ?? 1) : 1;
  }
  get bytesPerMs(): number {
    if (this.#rate === 0) return Infinity;
    // At first a single small packet may be all that was acknowledged: that says nothing of the path yet.
    const least = this.#isFull ? 0 : (STARTUP_GAIN * INITIAL_PACKETS * this.packetBytes) / this.minRttMs;
    return Math.max(this.#gain * this.#rate, least);
  }
  get windowBytes(): number {
    const least = MIN_PACKETS * this.packetBytes;
    if (this.mode === "probe RTT" || this.#wasTimeout) return least;
    if (this.#rate === 0) return INITIAL_PACKETS * this.packetBytes;
    const gain = this.#isFull ? WINDOW_GAIN : STARTUP_GAIN;
    // More than the path holds: acknowledgements come in bunches, of 8, by timers, and late from busy processes.
    const bunchBytes = Math.max(BUNCH_PACKETS * this.packetBytes, this.#bunches[0]?.bytes ?? 0);
    const wanted = Math.max(gain * this.#pipeBytes + bunchBytes, INITIAL_PACKETS * this.packetBytes);
    return Math.max(Math.min(wanted, this.#capBytes), least);
  }

  onAck(event: AckEvent): void {
    this.#wasTimeout = false;
    this.#roundRttMs = Math.min(this.#roundRttMs, event.rtt.latestMs);
    // A round is over when something is acknowledged that was sent after its beginning.
    const isNewRound = event.rate.priorDelivered >= this.#roundBeganAt;
    if (isNewRound) this.#endRound(event);
    this.#takeRate(event);
    this.#takeBunch(event);
    if (isNewRound) this.#lookWhetherFull(event);
    const isStale = event.nowMs - this.#minRttAtMs > MIN_RTT_VALID_MS;
    if (event.rtt.latestMs <= this.minRttMs || isStale) {
      this.minRttMs = event.rtt.latestMs;
      this.#minRttAtMs = event.nowMs;
    }
    this.#changeMode(event, isStale);
  }

  #takeRate({ rate, nowMs }: AckEvent): void {
    // What the sender held back says nothing against what is known, however old that is.
    const isHeldBack = rate.isAppLimited || this.mode === "probe RTT";
    if (isHeldBack && rate.bytesPerMs <= this.#rate) return;
    this.#rates = this.#rates.filter(
      ({ round, atMs }) => round > this.#round - RATE_ROUNDS || atMs > nowMs - RATE_VALID_MS,
    );
    // A maximum over a sliding window: what is smaller and older than a sample will never be the maximum again.
    while ((this.#rates.at(-1)?.bytesPerMs ?? Infinity) <= rate.bytesPerMs) this.#rates.pop();
    this.#rates.push({ round: this.#round, atMs: nowMs, bytesPerMs: rate.bytesPerMs });
  }

  /** How much more was acknowledged since a time than the path can have delivered since then (as Linux's tcp_bbr.c does). */
  #takeBunch({ nowMs, bytes }: AckEvent): void {
    const expected = this.#rate * (nowMs - this.#bunchSinceMs);
    if (this.#bunchBytes <= expected) {
      this.#bunchBytes = 0;
      this.#bunchSinceMs = nowMs;
    }
    this.#bunchBytes += bytes;
    const early = this.#bunchBytes - this.#rate * (nowMs - this.#bunchSinceMs);
    const kept = Math.min(early, this.#rate * MAX_BUNCH_MS);
    this.#bunches = this.#bunches.filter(({ round }) => round > this.#round - RATE_ROUNDS);
    while ((this.#bunches.at(-1)?.bytes ?? Infinity) <= kept) this.#bunches.pop();
    this.#bunches.push({ round: this.#round, bytes: kept });
  }

  #lookWhetherFull({ rate }: AckEvent): void {
    if (this.mode !== "startup" || this.#isFull || rate.isAppLimited) return;
    if (this.#rate >= this.#fullRate * FULL_GROWTH) {
      this.#fullRate = this.#rate;
      this.#fullRounds = 0;
    } else this.#isFull = ++this.#fullRounds >= FULL_ROUNDS;
  }

  #changeMode({ nowMs, inFlightBytes, priorInFlightBytes }: AckEvent, minRttIsStale: boolean): void {
    if (this.mode === "startup" && this.#isFull) this.mode = "drain";
    if (this.mode === "drain" && inFlightBytes <= this.#pipeBytes) this.#cruise(nowMs);
    if (this.mode === "cruise") this.#nextPhase(nowMs, priorInFlightBytes);
    if (minRttIsStale && this.mode !== "probe RTT") {
      this.mode = "probe RTT";
      this.#probeRttUntilMs = undefined;
    }
    if (this.mode !== "probe RTT") return;
    if (this.#probeRttUntilMs === undefined) {
      if (inFlightBytes <= MIN_PACKETS * this.packetBytes)
        this.#probeRttUntilMs = nowMs + Math.max(PROBE_RTT_MS, this.minRttMs);
    } else if (nowMs >= this.#probeRttUntilMs) {
      this.#minRttAtMs = nowMs;
      this.#rates = [{ round: this.#round, atMs: nowMs, bytesPerMs: this.#rate }];
      if (this.#isFull) this.#cruise(nowMs);
      else this.mode = "startup";
    }
  }

  #cruise(nowMs: number): void {
    this.mode = "cruise";
    // Flows that begin together should not look for more together.
    this.#phase = 2 + (Math.floor(nowMs) % (CYCLE.length - 2));
    this.#phaseSinceMs = nowMs;
  }

  #nextPhase(nowMs: number, inFlightBytes: number): void {
    const isOver = nowMs - this.#phaseSinceMs > this.minRttMs;
    // More is looked for until it is really under way, and the queue is let go until it is gone.
    const isReached =
      this.#gain > 1
        ? inFlightBytes >= this.#gain * this.#pipeBytes || nowMs - this.#phaseSinceMs > 2 * this.minRttMs
        : true;
    const isDrained = this.#gain < 1 && inFlightBytes <= this.#pipeBytes;
    if (!(isDrained || (isOver && isReached))) return;
    this.#phase = (this.#phase + 1) % CYCLE.length;
    this.#phaseSinceMs = nowMs;
  }

  /** All round trips of this round, or of the one before, were long. A busy process makes some of them long, a queue all. */
  get #hasQueue(): boolean {
    return Math.max(this.#roundRttMs, this.#priorRoundRttMs) >= QUEUE_RTTS * this.minRttMs;
  }

  /** A loss while a queue stands was its: room is left for others, once a round. Any other says nothing. */
  onLoss({ bytes, inFlightBytes }: LossEvent): void {
    this.#lostBytes += bytes;
    const isMuch = this.#lostBytes > LOSS_SHARE * inFlightBytes;
    if (!isMuch || !this.#isFull || this.#wasCut || !this.#hasQueue) return;
    this.#wasCut = true;
    this.#capBytes = Math.max(CAP_CUT * this.windowBytes, CAP_LEAST * this.#pipeBytes);
  }

  #endRound({ delivered, rtt }: AckEvent): void {
    const isFlooded = this.#lostBytes > FLOOD_SHARE * (delivered - this.#roundBeganAt);
    if (isFlooded && this.#hasQueue) this.#isFull = true;
    if (!this.#wasCut) this.#capBytes *= CAP_GROWTH;
    this.#wasCut = false;
    this.#lostBytes = 0;
    this.#priorRoundRttMs = this.#roundRttMs;
    this.#roundRttMs = rtt.latestMs;
    this.#roundBeganAt = delivered;
    this.#round++;
  }

  onTimeout(): void {
    this.#wasTimeout = true;
  }
}
