/**
 * What a balancer does to a request on its way (RFC 9110 §7.6, RFC 7239), and when it may send it again. Pure rules;
 * the syntax of messages is in `shared/http.ts`, who gets the request in `algorithms.ts`.
 */
import type { Dissector } from "../../shared/describe.ts";
import { Fields, HttpError, type RequestHead } from "../../shared/http.ts";
import { endToEnd, isIdempotent } from "../../shared/http-relay.ts";

export const BALANCER_PORT = 10_800;
/** The demo's nodes stand beside the balancer. */
export const DEMO_NODE_PORTS = [10_801, 10_802, 10_803];
export const dissectors: readonly Dissector[] = [{ as: "http", tcp: [BALANCER_PORT, ...DEMO_NODE_PORTS] }];

/**
 * A response's fields without a length that nothing follows: a client that went by it would take the next response for the
 * body (RFC 9110 §8.6 forbids it in 1xx and 204).
 */
export const withoutEmptyPromise = (status: number, fields: Fields): Fields =>
  status < 200 || status === 204 ? fields.replace(["Content-Length"]) : fields;

/** Who a request comes from, which only we can say: what a client writes here is a forgery, whichever way it spells it. */
const FORGEABLE = /^(?:forwarded|x[-_]forwarded(?:[-_].*)?|x[-_]real[-_]ip)$/i;

/** An address of IPv4 that came in on a socket of IPv6 (`::ffff:192.0.2.7`) is one of IPv4 to everybody else. */
export const plainAddress = (host: string): string => host.replace(/^::ffff:(?=\d+\.)/i, "");

/** RFC 7239 §6: an IPv6 address stands in brackets, and what is no token in quotes. */
export const forwardedElement = (address: string, host: string | undefined) => {
  const quoted = (text: string) =>
    /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(text) ? text : `"${text.replace(/["\\]/g, "\\$&")}"`;
  const node = address.includes(":") ? `[${address}]` : address;
  return `for=${quoted(node)}${host ? `;host=${quoted(host)}` : ""};proto=http`;
};

/** `http://host/path` as it is said to the server itself: `/path`, and the host (RFC 9112 §3.2.1, §3.2.2). */
function originForm({ method, target }: RequestHead): { target: string; host: string | undefined } {
  const [, host, path = ""] = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)(.*)$/i.exec(target) ?? [];
  if (host === undefined) return { target, host: undefined };
  if (host.includes("@")) throw new HttpError(400, "a user in the target");
  if (path === "" && method === "OPTIONS") return { target: "*", host };
  return { target: path.startsWith("/") ? path : `/${path}`, host };
}

/**
 * The request as a node gets it. `address` is the client's, `via` our name on the way. Throws `HttpError` for what cannot
 * go on: CONNECT, a target with a user, a request that has been here before (508).
 */
export function requestForNode(head: RequestHead, address: string, via: string): Omit<RequestHead, "minor"> {
  if (head.method === "CONNECT") throw new HttpError(501, "CONNECT is for forward proxies");
  const { target, host = head.fields.get("Host") } = originForm(head);
  if (head.fields.get("Via")?.includes(via)) throw new HttpError(508, "the request has been here before");
  const forged = [...head.fields].map(([name]) => name).filter((name) => FORGEABLE.test(name));
  const upgrade = wantedUpgrade(head);
  const lines: (readonly [string, string])[] = [
    ...(upgrade === undefined
      ? []
      : ([
          ["Connection", "upgrade"],
          ["Upgrade", upgrade],
        ] as const)),
    ...(head.fields.get("Transfer-Encoding") === undefined
      ? []
      : ([["Transfer-Encoding", "chunked"]] as const)),
    ["Via", `1.${head.minor} ${via}`],
    ["Forwarded", forwardedElement(address, host)],
    ["X-Forwarded-For", address],
    ["X-Forwarded-Proto", "http"],
  ];
  const kept = endToEnd(head.fields).replace(["Host", ...forged]);
  // A request of HTTP/1.0 may name no host; an empty one is what HTTP/1.1 says then (RFC 9112 §3.2).
  const fields = new Fields([["Host", host ?? ""], ...kept, ...lines]);
  return { method: head.method, target, fields };
}

/**
 * The protocol that the connection is to change to. Not HTTP/2: through that tunnel requests would pass that nobody has
 * looked at (and RFC 9113 §3.1 has abolished it).
 */
export function wantedUpgrade({ method, minor, fields }: RequestHead): string | undefined {
  if (method !== "GET" || minor === 0 || !fields.tokens("Connection").includes("upgrade")) return undefined;
  const protocols = fields.get("Upgrade");
  return protocols === undefined || /h2c|http/i.test(protocols) ? undefined : protocols;
}

interface Attempt {
  method: string;
  /** Could the node have read any of the request? */
  isSent: boolean;
  /** Has the client got any of a response? */
  isAnswered: boolean;
  /** Has a part of the body gone that we do not hold any more? */
  isBodyGone: boolean;
  /** Had the node all the time that it may take? Another one would make the client wait as long again. */
  isLate: boolean;
}

/** May a request that failed at one node go to another (RFC 9110 §9.2.2)? */
export function mayRetry({ method, isSent, isAnswered, isBodyGone, isLate }: Attempt): boolean {
  if (isAnswered || isBodyGone) return false;
  return !isSent || (isIdempotent(method) && !isLate);
}
