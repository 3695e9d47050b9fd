/** From redirection to redirection, to the response that is none (RFC 9110 §15.4). */
import { Fields } from "../../shared/http.ts";
import { printable } from "../../shared/printable.ts";
import type { Cookies } from "./cookies.ts";
import type { Client, Response } from "./exchange.ts";
import { ServerFailure } from "./failures.ts";
import {
  basicCredentials,
  type Hop,
  isSecure,
  nextHop,
  redirection,
  withoutCredentials,
} from "./protocol.ts";

export interface Following {
  client: Client;
  cookies: Cookies;
  maxRedirects: number;
  userAgent: string;
  compressed: boolean;
  /** What a user may want to know, and what a user should. */
  say: (line: string) => void;
  warn: (line: string) => void;
}

export interface Final extends Response {
  hop: Hop;
}

/** `extra` goes into each request: the conditions of a range. */
export async function follow(first: Hop, following: Following, extra: Fields = new Fields()): Promise<Final> {
  const { client, cookies, maxRedirects, say, warn } = following;
  const seen = new Set<string>();
  let hop = withAuthorization(first);
  while (true) {
    const { method, url } = hop;
    const fields = fieldsFor(hop, following, extra);
    // The same request once more, with the same cookies, would get the same answer.
    const asked = `${method} ${url.href} ${fields.get("Cookie")}`;
    if (seen.has(asked)) throw new ServerFailure(`the redirections go in a circle: ${shown(url)} again`);
    seen.add(asked);
    say(`${method} ${shown(url)}`);
    const response = await client.send({ ...hop, fields });
    const { head } = response;
    cookies.store(url, head.fields.all("Set-Cookie"), Date.now());
    const to = redirection(head, url);
    if (to === undefined) return { ...response, hop };
    if (seen.size > maxRedirects)
      throw new ServerFailure(`more than ${maxRedirects} redirections (--max-redirects)`);
    say(`${head.status} ${printable(head.reason)}: to ${shown(to)}`);
    if (isSecure(url) && !isSecure(to))
      warn(`warning: from https to ${shown(to)}: what follows is not encrypted`);
    await client.drop(response);
    hop = nextHop(hop, head.status, to);
  }
}

const shown = (url: URL) => printable(url.href);

/** The user and password in the URL become a field, which is bound to its origin as all of the user's fields are. */
function withAuthorization(hop: Hop): Hop {
  const credentials = basicCredentials(hop.url);
  const url = withoutCredentials(hop.url);
  if (credentials === undefined || hop.fields.get("Authorization") !== undefined) return { ...hop, url };
  return { ...hop, url, fields: hop.fields.replace([], [["Authorization", credentials]]) };
}

/** Our fields and the user's, which come in the place of ours. */
function fieldsFor(
  { method, url, fields, body }: Hop,
  { cookies, userAgent, compressed }: Following,
  extra: Fields,
): Fields {
  const coding = compressed && extra.get("Range") === undefined ? "gzip, deflate, br" : "identity";
  const ours: [string, string][] = [
    ["Host", url.host],
    ["User-Agent", userAgent],
    ["Accept", "*/*"],
    ["Accept-Encoding", coding],
  ];
  const own = fields.replace(["Cookie"]);
  const pairs = [...fields.all("Cookie"), cookies.for(url)].filter((text) => text !== undefined);
  const lines: [string, string][] = pairs.length > 0 ? [["Cookie", pairs.join("; ")]] : [];
  if (body !== undefined && own.get("Content-Type") === undefined)
    lines.push(["Content-Type", "application/x-www-form-urlencoded"]);
  if (body !== undefined || ["POST", "PUT", "PATCH"].includes(method))
    lines.push(["Content-Length", String(body?.length ?? 0)]);
  const given = [...own].map(([name]) => name);
  const usersHost = own.all("Host").map((host) => ["Host", host] as const); // first, as RFC 9110 §7.2 wants it
  return new Fields([
    ...usersHost,
    ...new Fields(ours).replace(given),
    ...own.replace(["Host"]),
    ...lines,
    ...extra,
  ]).replace(userAgent === "" && !given.some((name) => /^user-agent$/i.test(name)) ? ["User-Agent"] : []);
}
