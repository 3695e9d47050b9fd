/** Where the nodes are: config/map-reduce.ini. */
import { host, Ini, peerPort, setting } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { UsageError } from "../../shared/errors.ts";
import type { Address } from "./job.ts";
import { PORT } from "./protocol.ts";

interface Nodes {
  reducer: Address;
  /** By their sections' names, in their order; at least one. */
  mappers: ReadonlyMap<string, Address>;
}

const MAX_PORT = 65_535;

/** Throws `UsageError` with file, line and section. */
export function readNodes(path: string): Nodes {
  const ini = new Ini(path);
  const known = new Map<string, string>();
  const address = (section: string, defaultPort: number): Address => {
    const own = ini.section(section, {
      host: setting(host, "name or address of the node", "127.0.0.1"),
      port: setting(peerPort, "port of the node", defaultPort <= MAX_PORT ? defaultPort : undefined),
    });
    const text = formatAddress(own.host, own.port);
    const other = known.get(text);
    if (other !== undefined)
      throw new UsageError(`${ini.where(section)} has the address of [${other}], ${text}`);
    known.set(text, section);
    return own;
  };
  if (!ini.sections.includes("reducer")) throw new UsageError(`${path}: has no [reducer]`);
  const reducer = address("reducer", PORT);
  const mappers = new Map<string, Address>();
  for (const section of ini.sections.filter((section) => section !== "reducer")) {
    const [, number] = /^mapper([1-9]\d*)$/.exec(section) ?? [];
    if (number === undefined)
      throw new UsageError(`${ini.where(section)} is not [reducer], [mapper1], [mapper2] and so on`);
    mappers.set(section, address(section, PORT + Number(number)));
  }
  if (mappers.size === 0) throw new UsageError(`${path}: has no mapper; add a section [mapper1]`);
  return { reducer, mappers };
}
