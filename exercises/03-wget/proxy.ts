/** Which proxy a URL is fetched through: the one on the command line, or what the environment says for it. */
import { BlockList, isIP } from "node:net";
import { UsageError } from "../../shared/errors.ts";
import { endpoint, httpUrl, isSecure } from "./protocol.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** `http://user:password@host:3128`, or a host alone. Throws `UsageError`; `where` begins the complaint. */
export function proxyUrl(text: string, where: string): URL {
  let url: URL;
  try {
    url = httpUrl(text);
  } catch (error) {
    throw new UsageError(`${where} names no proxy`, { cause: error });
  }
  if (isSecure(url))
    throw new UsageError(`${where}: a proxy that is itself spoken to by TLS is not supported`);
  return url;
}

/** `http_proxy` in upper case is not read: a web server's CGI sets it from a request's `Proxy` field. */
export function proxyFromEnvironment(url: URL, environment: Environment): URL | undefined {
  const name = isSecure(url) ? "https_proxy" : "http_proxy";
  const text = environment[name] || (isSecure(url) && environment["HTTPS_PROXY"]) || "";
  if (text === "" || isExempt(url, environment["no_proxy"] ?? environment["NO_PROXY"] ?? ""))
    return undefined;
  return proxyUrl(text, name);
}

/**
 * A list as curl reads it: `*`, names with all that is below them (`example.org`, `.example.org`), addresses, ranges
 * of addresses (`10.0.0.0/8`); each may have a port.
 */
export function isExempt(url: URL, list: string): boolean {
  const { host, port } = endpoint(url);
  return list.split(/[\s,]+/).some((entry) => entry !== "" && covers(entry.toLowerCase(), host, port));
}

function covers(entry: string, host: string, port: number): boolean {
  if (entry === "*") return true;
  const [, inBrackets, plain, onlyPort] = /^(?:\[(.*)\]|([^:]*))(?::(\d+))?$/.exec(entry) ?? [];
  const name = inBrackets ?? plain ?? entry; // else an IPv6 address without brackets
  if (onlyPort !== undefined && Number(onlyPort) !== port) return false;
  if (isIP(host)) return isInRange(host, name);
  const domain = name.replace(/^\*?\./, "").replace(/\.$/, "");
  const own = host.replace(/\.$/, "");
  return domain !== "" && (own === domain || own.endsWith(`.${domain}`));
}

function isInRange(address: string, range: string): boolean {
  const family = isIP(address) === 6 ? "ipv6" : "ipv4";
  const [network = "", bits = family === "ipv6" ? "128" : "32"] = range.split("/");
  if (isIP(network) !== isIP(address) || !/^\d+$/.test(bits) || Number(bits) > (family === "ipv6" ? 128 : 32))
    return false;
  const list = new BlockList();
  list.addSubnet(network, Number(bits), family);
  return list.check(address, family);
}
