/** The status page: `/` for people, `/status.json` for programs. */
import type { Connection } from "../../shared/connection.ts";
import { encodeResponse, Fields, HttpError, persists, requestReader } from "../../shared/http.ts";
import { requestFraming } from "../../shared/http-body.ts";
import { REASONS, statusPage } from "../../shared/http-serving.ts";
import type { Cluster } from "./cluster.ts";

const QUANTILES = { p50: 0.5, p90: 0.9, p99: 0.99 };
const round = (ms: number | undefined) => (ms === undefined ? null : Number(ms.toPrecision(3)));

function statusOf({ policy, nodes, pool }: Cluster) {
  return {
    algorithm: policy.algorithm,
    nodes: nodes.map((node) => ({
      name: node.name,
      address: node.address,
      weight: node.weight,
      state: node.health.isUp ? "up" : "down",
      active: node.active,
      total: node.total,
      failures: node.failures,
      idleConnections: pool.idleCount(node),
      latencyMs: Object.fromEntries(
        Object.entries(QUANTILES).map(([name, share]) => [name, round(node.latency.percentile(share))]),
      ),
    })),
  };
}

const escaped = (text: unknown) =>
  String(text ?? "–").replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);

function page(cluster: Cluster): string {
  const { algorithm, nodes } = statusOf(cluster);
  const titles = [
    "node",
    "address",
    "weight",
    "state",
    "active",
    "total",
    "failures",
    "idle",
    ...Object.keys(QUANTILES),
  ];
  const row = (tag: string, cells: readonly unknown[]) =>
    `<tr>${cells.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join("")}</tr>`;
  const rows = nodes.map(({ latencyMs, ...node }) =>
    row("td", [...Object.values(node), ...Object.values(latencyMs)]),
  );
  return `<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>load balancer</title>
<style>body { font-family: sans-serif } td, th { padding: 0.2em 0.8em; text-align: right }</style>
<h1>${escaped(algorithm)}</h1>
<table>${row("th", titles)}
${rows.join("\n")}</table>
<p>p50, p90, p99: milliseconds that so many percent of the requests did not exceed, from sending to the response's head.</p></html>
`;
}

/** A client of the status port. */
export async function statusSession(connection: Connection, cluster: Cluster): Promise<void> {
  const reader = requestReader(connection, { headMs: connection.timeoutMs });
  try {
    for (let head = await reader.next(); head !== undefined; head = await reader.next()) {
      const isGet = head.method === "GET" || head.method === "HEAD";
      const goesOn = persists(head) && head.minor > 0 && requestFraming(head).kind === "none";
      const [status, type, body] = isGet ? answerTo(head.target, cluster) : errorPage(405);
      const fields = new Fields([
        ["Content-Type", type],
        ["Content-Length", String(Buffer.byteLength(body))],
        ["Cache-Control", "no-store"],
        ...(status === 405 ? ([["Allow", "GET, HEAD"]] as const) : []),
        ...(goesOn ? [] : ([["Connection", "close"]] as const)),
      ]);
      const response = encodeResponse({ status, reason: REASONS[status] ?? "", fields });
      await connection.write(head.method === "HEAD" ? response : response + body);
      if (!goesOn) return;
    }
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    const reason = REASONS[error.status] ?? "";
    await connection.write(
      `HTTP/1.1 ${error.status} ${reason}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`,
    );
  }
}

type Answer = [status: number, type: string, body: string];
const HTML = "text/html; charset=utf-8";
const errorPage = (status: number): Answer => [
  status,
  HTML,
  `${statusPage(status, "There are / and /status.json.")}`,
];

function answerTo(target: string, cluster: Cluster): Answer {
  const [path] = target.split("?");
  if (path === "/") return [200, HTML, page(cluster)];
  if (path === "/status.json")
    return [200, "application/json", `${JSON.stringify(statusOf(cluster), null, 2)}\n`];
  return errorPage(404);
}
