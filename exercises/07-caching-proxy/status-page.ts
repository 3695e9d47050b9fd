/** The proxy's page about itself: what the cache holds and what came of the requests, and a form to purge it. */
import { isIP } from "node:net";
import { hostname } from "node:os";
import { HttpError } from "../../shared/http.ts";
import { readBody } from "../../shared/http-body.ts";
import type { Cache, ProxyExchange } from "./cache.ts";
import { parseTarget } from "./protocol.ts";
import { sendOwn, sendPage } from "./respond.ts";
import type { Store } from "./store.ts";

const MAX_FORM_BYTES = 16 * 1024;
const NOT_CACHED = ["Cache-Status", "netlab; fwd=bypass; detail=status-page"] as const;

export const escapeHtml = (text: string) =>
  text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
const number = (value: number) => value.toLocaleString("en");

function statusHtml(store: Store, { counts }: Cache, message = ""): Buffer {
  const asked = counts.hits + counts.misses + counts.collapsed;
  const ratio = asked === 0 ? "–" : `${((100 * (counts.hits + counts.collapsed)) / asked).toFixed(1)} %`;
  const rows: [string, string][] = [
    ["objects", number(store.objects)],
    ["bytes on the disk", number(store.bytes)],
    ["bytes in memory", number(store.memoryBytes)],
    ["hits", number(counts.hits)],
    ["misses", number(counts.misses)],
    ["of these confirmed by the origin (304)", number(counts.validated)],
    ["answered together with another miss", number(counts.collapsed)],
    ["passed through", number(counts.passed)],
    ["hit ratio", ratio],
  ];
  const table = rows
    .map(([name, value]) => `<tr><th scope="row">${name}</th><td>${value}</td></tr>`)
    .join("\n");
  return Buffer.from(`<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>netlab: caching proxy</title>
<meta name="viewport" content="width=device-width">
<style>body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
th { text-align: left; font-weight: normal; padding-right: 2rem } td { text-align: right }
input { font: inherit; width: 100%; box-sizing: border-box; margin: .5rem 0 } button { font: inherit }</style>
<h1>The cache</h1>
${message === "" ? "" : `<p role="status">${escapeHtml(message)}</p>`}
<table>
${table}
</table>
<h2>Purge</h2>
<form method="post" action="/purge"><label>Address; none for everything <input name="url" placeholder="http://example.org/picture.png"></label>
<button>Remove</button></form></html>
`);
}

/** Answers what is asked of the proxy itself. */
export async function answerItself(exchange: ProxyExchange, store: Store, cache: Cache): Promise<void> {
  const { method, target, fields } = exchange.head;
  const html = [
    ["Content-Type", "text/html; charset=utf-8"],
    ["Cache-Control", "no-store"],
    ["Content-Security-Policy", "frame-ancestors 'none'"], // nobody lays the form invisibly under a page of theirs
    NOT_CACHED,
  ] as const;
  const path = target.replace(/\?.*$/s, "");
  if (path === "/" && (method === "GET" || method === "HEAD"))
    return sendOwn(exchange, 200, statusHtml(store, cache), html);
  if (path === "/purge" && method === "POST") {
    const origin = fields.get("Origin");
    // A page of somebody else may send a form here, too (and a browser says whose it is).
    if (origin !== undefined && !(origin === `http://${fields.get("Host")}` && isOurName(origin)))
      return refuse(exchange, 403, "Another site's page cannot purge the cache.");
    const url = new URLSearchParams(await readForm(exchange)).get("url")?.trim() ?? "";
    const count = store.purge(url === "" ? undefined : parseTarget("GET", url).url);
    return sendOwn(exchange, 200, statusHtml(store, cache, `removed: ${count}`), html);
  }
  if (path === "/" || path === "/purge")
    return refuse(exchange, 405, "The page is for GET, the form for POST.");
  return refuse(exchange, 404, 'This is a proxy; its own page is <a href="/">here</a>.');
}

/** A name that others give could lead to their page first and to us a moment later (DNS rebinding): to a browser both are one site. */
function isOurName(origin: string): boolean {
  if (!URL.canParse(origin)) return false;
  const name = new URL(origin).hostname.replace(/[[\]]/g, "");
  return isIP(name) > 0 || name === "localhost" || name === hostname().toLowerCase();
}

async function readForm({ connection, framing }: ProxyExchange): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of readBody(connection, framing)) {
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_FORM_BYTES) throw new HttpError(413, "the form is too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

/** The body that may come with it is not read, so it is the last on its connection. */
function refuse(exchange: ProxyExchange, status: number, advice: string): Promise<void> {
  if (exchange.framing.kind !== "none") exchange.keepAlive = false;
  return sendPage(exchange, status, advice, [NOT_CACHED]);
}
