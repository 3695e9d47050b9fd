/** Shows a transfer packet by packet, without a network: the same seed gives the same run. Draws window, round trips and bytes under way. */
import { writeFileSync } from "node:fs";
import { flag, integer, oneOf, optional, setting, share, text } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { type Series, svgOf } from "../../shared/plot.ts";
import { program } from "../../shared/program.ts";
import type { Connection } from "./connection.ts";
import { unseal } from "./protocol.ts";
import { CONNECTION_SETTINGS, connectionOptions, rateText } from "./settings.ts";
import { type Passage, randomOf, Simulation, serveFrom, type Transfer, transferOf } from "./simulator.ts";

const PORT_OF_CLIENT = 5000;
const MAX_POINTS = 600;
/** Twice that, and a cookie is too old when it comes back. */
const MAX_DELAY_MS = 4000;

/** What a packet says, and what becomes of it, in a line. */
function lineOf({ atMs, toServer, packet, fate }: Passage, sender: Connection | undefined): string {
  const arrived = unseal(Buffer.from(packet));
  if (arrived === undefined) throw new Error("a packet that was never sound");
  const { sequence, ack, ackBitfield, message } = arrived;
  const missing = Array.from({ length: Math.max(0, Math.min(32, ack - 1)) }, (_, n) => n)
    .filter((n) => ((ackBitfield >>> n) & 1) === 0)
    .map((n) => ack - 1 - n);
  const what =
    message.kind === "data"
      ? `data ${message.offset}+${message.bytes.length}`
      : message.kind === "window"
        ? `window received ${message.received}, limit ${message.limit}`
        : message.kind;
  const holes = missing.length === 0 ? "" : ` without ${missing.toReversed().join(" ")}`;
  const end = fate.outcome === "delivered" ? "" : `  ✗ ${fate.outcome}`;
  const state = message.kind === "data" && sender ? stateOf(sender) : "";
  return `${atMs.toFixed(1).padStart(9)} ms  ${toServer ? "client ─▶ server" : "client ◀─ server"}  #${sequence}  ack ${ack}${holes}  ${what}${state}${end}`;
}

function stateOf({ flight }: Connection): string {
  const { congestion, sent, rtt } = flight;
  const kib = (bytes: number) => `${(bytes / 1024).toFixed(0)} KiB`;
  return `  [${congestion.mode}: ${kib(sent.inFlightBytes)} of ${kib(congestion.windowBytes)} under way, RTT ${rtt.isKnown ? `${rtt.smoothedMs.toFixed(1)} ms` : "unknown"}]`;
}

interface Sample {
  atMs: number;
  window: number;
  inFlight: number;
  smoothedMs: number;
  latestMs: number;
}

async function draw(samples: readonly Sample[], title: string): Promise<string> {
  const step = Math.max(1, Math.ceil(samples.length / MAX_POINTS));
  const kept = samples.filter((_, i) => i % step === 0);
  const series = (name: string, y: (sample: Sample) => number, kind: Series["kind"] = "line"): Series => ({
    name,
    kind,
    points: kept.map((sample) => [sample.atMs / 1000, y(sample)]),
  });
  const x = { name: "time (s)" };
  return await svgOf([
    {
      ...{ title, x, y: { name: "KiB" } },
      series: [
        series("congestion window", ({ window }) => window / 1024, "step"),
        series("under way", ({ inFlight }) => inFlight / 1024),
      ],
    },
    {
      ...{ title: "Round trips", x, y: { name: "RTT (ms)" } },
      series: [
        series("latest", ({ latestMs }) => latestMs),
        series("smoothed", ({ smoothedMs }) => smoothedMs),
      ],
    },
  ]);
}

await program({
  summary: "Shows a transfer packet by packet in a simulated network, and draws it.",
  example: "--seed 42 --loss 5% --bytes 20000",
  settings: {
    seed: setting(integer(0, 2 ** 30), "of everything that is left to chance", 42),
    bytes: setting(integer(0, 1e8), "size of the file", 200_000),
    request: setting(oneOf("get", "put"), "get or put", "get" as const),
    loss: setting(share, "share of packets that are lost, each way", 0),
    duplication: setting(share, "share that come twice", 0),
    reordering: setting(share, "share that are overtaken", 0),
    corruption: setting(share, "share that are damaged", 0),
    delay: setting(integer(0, MAX_DELAY_MS), "each way, in ms", 10),
    rate: setting(integer(1, 10_000_000), "of the link, in kB/s", 2500),
    queue: setting(integer(1, 1_000_000), "what may wait before the link, in kB", 100),
    plot: optional(text, "draw the transfer as SVG into this file"),
    quiet: flag("say nothing of single packets"),
    ...CONNECTION_SETTINGS,
  },
  async run(settings, { log }) {
    const {
      seed,
      bytes,
      request,
      loss,
      duplication,
      reordering,
      corruption,
      delay,
      rate,
      queue,
      plot,
      quiet,
    } = settings;
    const file = Buffer.concat(
      Array.from({ length: Math.ceil(bytes / 64) }, (_, i) => randomOf(seed + i)(64)),
    ).subarray(0, bytes);
    const link = {
      delayMs: delay,
      loss,
      duplication,
      reordering,
      corruption,
      rateBytesPerSecond: rate * 1000,
      queueBytes: queue * 1000,
    };
    const transfers = new Map<string, Transfer>();
    const samples: Sample[] = [];
    const senderOf = () =>
      request === "get" ? transfers.get("file")?.server : transfers.get("file")?.client;
    let lost = 0;
    const onPassage = (passage: Passage) => {
      const sender = senderOf();
      if (passage.fate.outcome === "lost" || passage.fate.outcome === "queue full") lost++;
      if (!quiet) process.stdout.write(`${lineOf(passage, sender)}\n`);
      if (sender === undefined) return;
      const { sent, congestion, rtt } = sender.flight;
      const { smoothedMs, latestMs } = rtt;
      samples.push({
        atMs: passage.atMs,
        window: congestion.windowBytes,
        inFlight: sent.inFlightBytes,
        smoothedMs,
        latestMs,
      });
    };
    const simulation = new Simulation(
      { seed, toServer: link, toClient: link, connection: connectionOptions(settings), onPassage },
      serveFrom(() => file, transfers),
    );
    const transfer = transferOf(simulation, transfers, { request, name: "file", file, port: PORT_OF_CLIENT });
    simulation.run(
      24 * 3_600_000,
      () => transfer.endedAtMs !== undefined && transfer.ends.server !== undefined,
    );
    const isRight = Buffer.concat(transfer.received).equals(file);
    const ms = transfer.endedAtMs ?? simulation.nowMs;
    const arrived = isRight ? "all" : "NOT all";
    const rateOf = isRight ? ` (${rateText(bytes, ms)})` : "";
    process.stdout.write(
      `${arrived} ${bytes} bytes arrived in ${ms.toFixed(1)} ms${rateOf}; ${lost} packets lost on the way, ${senderOf()?.repeatedPackets ?? 0} sent again\n`,
    );
    if (plot !== undefined) {
      const title = `${settings.congestion}, ${rate / 1000} MB/s, RTT ${2 * delay} ms, loss ${loss * 100} %`;
      const picture = await draw(samples, title);
      try {
        writeFileSync(plot, picture);
      } catch (error) {
        throw new Failure(`cannot write ${plot}`, { cause: error });
      }
      log(`wrote ${plot}`);
    }
    if (!isRight) throw new Failure(`the transfer failed: ${transfer.ends.client}`);
  },
});
