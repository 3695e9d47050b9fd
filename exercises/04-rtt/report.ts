/** The results in words: a table for people, JSON for programs. */
import type { Beginning } from "./csv-file.ts";
import type { Plan, Stream } from "./measurement.ts";
import type { OwnDelays } from "./own-delay.ts";
import { mean, percentile } from "./statistics.ts";

/** What there is to know about the measuring itself. */
interface Quality {
  clockResolutionMs: number;
  /** What the program added to round trips, at most. */
  own: OwnDelays;
}

export interface Measured extends Beginning {
  plan: Plan;
  streams: readonly Stream[];
  quality: Quality;
}

/** `0.042`, `1234`; what is undefined is a dash, what is infinite ∞. */
export function formatMs(valueMs: number): string {
  if (Number.isNaN(valueMs)) return "-";
  if (!Number.isFinite(valueMs)) return "∞";
  return valueMs.toFixed(valueMs < 100 ? 3 : valueMs < 1000 ? 2 : 1);
}

/** Columns as wide as their widest cell: the first ones to the left, numbers to the right. */
export function aligned(rows: readonly (readonly string[])[], leftColumns: number): string[] {
  const widths = rows.reduce<number[]>(
    (widest, row) => row.map((cell, i) => Math.max(cell.length, widest[i] ?? 0)),
    [],
  );
  const pad = (cell: string, i: number) =>
    i < leftColumns ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0);
  return rows.map((row) => row.map(pad).join("  ").trimEnd());
}

const HEAD = [
  "host",
  "by",
  "sent",
  "received",
  "lost",
  "refused",
  "min",
  "median",
  "mean",
  "p95",
  "max",
  "jitter",
];

function rowOf(stream: Stream): string[] {
  const { received, lost, refused, minMs, medianMs, meanMs, p95Ms, maxMs, jitterMs } = stream.summary();
  const counts = [stream.sent, received, lost, refused].map(String);
  const times = [minMs, medianMs, meanMs, p95Ms, maxMs, jitterMs].map(formatMs);
  return [stream.target.name, stream.transport, ...counts, ...times];
}

export function tableOf({ streams, plan, quality }: Measured): string {
  const { seconds, intervalMs, timeoutMs, sampling, transports } = plan;
  const own = (percentile: "medianMs" | "p95Ms") =>
    transports.map((by) => `${formatMs(quality.own[by]?.[percentile] ?? Number.NaN)} (${by})`).join(", ");
  const resolutionNs = Math.round(quality.clockResolutionMs * 1e6);
  const lines = [
    ...aligned([HEAD, ...streams.map(rowOf)], 2),
    "",
    `${seconds} s, every ${intervalMs} ms (${sampling}). Times in ms; lost: nothing within ${timeoutMs} ms, infinite in median and p95.`,
    `Measured: tcp from the SYN to its SYN/ACK, udp from a datagram to its reply, until this program sees it.`,
    `Error: never too short; too long by at most about ${own("medianMs")} ms at median and ${own("p95Ms")} ms at p95,`,
    `  as round trips to itself took meanwhile. Clock: monotonic, in steps of ${resolutionNs} ns.`,
    `Probes left ${formatMs(percentile(allLateness(streams), 95))} ms late (p95), which is in no time above.`,
  ];
  return `${[...lines, ...remarks(streams)].join("\n")}\n`;
}

const allLateness = (streams: readonly Stream[]) => streams.flatMap(({ latenessMs }) => latenessMs);

/** What is out of the ordinary. */
function remarks(streams: readonly Stream[]): string[] {
  return streams.flatMap(({ target, transport, skipped, strays, counts }) => {
    const found = [
      counts.unsent > 0 && `${counts.unsent} could not be sent`,
      skipped > 0 && `${skipped} left out, as this machine was too busy`,
      strays.late > 0 && `${strays.late} replies came too late`,
      strays.repeated > 0 && `${strays.repeated} replies came twice`,
      strays.unknown > 0 && `${strays.unknown} datagrams were no reply to any probe`,
    ].filter((remark) => remark !== false);
    return found.length === 0 ? [] : [`${target.name} ${transport}: ${found.join("; ")}`];
  });
}

/** JSON knows neither ∞ nor "undefined": both are null, and `received` and `lost` tell which it is. */
const orNull = (value: number | undefined) =>
  value !== undefined && Number.isFinite(value) ? round(value) : null;
const round = (valueMs: number) => Math.round(valueMs * 1e6) / 1e6;

export function jsonOf({ streams, plan, quality, begunAt }: Measured): string {
  const { seconds, intervalMs, timeoutMs, sampling } = plan;
  const results = streams.map((stream) => {
    const { target, transport, strays, skipped, counts, latenessMs } = stream;
    const { received, lost, refused, ...times } = stream.summary();
    return {
      host: target.name,
      address: target.address,
      port: target.port,
      transport,
      ...{ sent: stream.sent, received, lost, refused, unsent: counts.unsent, skipped },
      ...Object.fromEntries(Object.entries(times).map(([name, value]) => [name, orNull(value)])),
      clockResolutionMs: orNull(quality.clockResolutionMs),
      ownDelayMs: orNull(quality.own[transport]?.medianMs),
      ownDelayP95Ms: orNull(quality.own[transport]?.p95Ms),
      meanLatenessMs: orNull(mean(latenessMs)),
      ...{ lateReplies: strays.late, repeatedReplies: strays.repeated, unknownDatagrams: strays.unknown },
    };
  });
  return `${JSON.stringify({ begunAt, seconds, intervalMs, timeoutMs, sampling, results })}\n`;
}
