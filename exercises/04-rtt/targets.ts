/** Who is measured: hosts from the command line and from files, and their addresses. */
import { lookup } from "node:dns/promises";
import { readFileSync } from "node:fs";
import { hostPort, type Parse } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { explain, Failure, isFailure, UsageError } from "../../shared/errors.ts";

export interface Host {
  host: string;
  /** Undefined where none was named. */
  port: number | undefined;
}

/** A host that can be measured. */
export interface Target {
  /** `localhost:10100`, as the user wrote it but for the port. */
  name: string;
  address: string;
  port: number;
}

const NO_PORT = -1;
/** `HOST`, `HOST:PORT` or `[IPV6]:PORT`. */
export const hostMaybePort: Parse<Host> = (text) => {
  const { host, port } = hostPort(NO_PORT)(text);
  return { host, port: port === NO_PORT ? undefined : port };
};

/**
 * The assignment's list: hosts separated by `;` or by line ends, `#` begins a comment. A port stands behind its host,
 * after a colon or as a field of its own: `192.0.2.1;192.0.2.2:53` and `192.0.2.1;53` are both understood.
 * Throws `UsageError` that says where.
 */
export function parseHosts(content: string, path: string): Host[] {
  return content.split(/\r\n|\r|\n/).flatMap((line, i) => {
    const fields = line
      .replace(/#.*/, "")
      .split(";")
      .map((field) => field.trim());
    const hosts: Host[] = [];
    for (const field of fields.filter((field) => field !== "")) {
      const last = hosts.at(-1);
      try {
        if (/^\d+$/.test(field) && last !== undefined && last.port === undefined)
          last.port = hostMaybePort(
            `${last.host.includes(":") ? `[${last.host}]` : last.host}:${field}`,
          ).port;
        else hosts.push(hostMaybePort(field));
      } catch (error) {
        if (!isFailure(error)) throw error;
        throw new UsageError(`${path}:${i + 1}: ${JSON.stringify(field)} ${explain(error)}`);
      }
    }
    return hosts;
  });
}

/** Throws `UsageError`. */
export function readHosts(path: string): Host[] {
  try {
    return parseHosts(readFileSync(path, "utf8"), path);
  } catch (error) {
    if (error instanceof UsageError || !isFailure(error)) throw error;
    throw new UsageError(`cannot read the hosts file ${path}`, { cause: error });
  }
}

/** Names are resolved here, once, so that no measured time has that in it. Throws `Failure`. */
async function resolve({ host, port }: { host: string; port: number }): Promise<Target> {
  const name = formatAddress(host, port);
  if (port === 0) throw new Failure(`cannot measure ${name}: nobody answers at port 0; name another`);
  const { address } = await lookup(host).catch((error: unknown) => {
    throw new Failure(`cannot resolve ${host}`, { cause: error });
  });
  return { name, address, port };
}

/** All that can be measured, each once; what cannot costs a line. */
export async function targetsOf(
  hosts: readonly Host[],
  defaultPort: number,
  log: (line: string) => void,
): Promise<Target[]> {
  const complete = hosts.map(({ host, port = defaultPort }) => ({ host, port }));
  const unique = new Map(complete.map((one) => [formatAddress(one.host, one.port), one]));
  const targets: Target[] = [];
  for (const result of await Promise.allSettled([...unique.values()].map(resolve))) {
    if (result.status === "fulfilled") targets.push(result.value);
    else if (isFailure(result.reason)) log(explain(result.reason));
    else throw result.reason;
  }
  return targets;
}
