/** The balancer's configuration: a section for each node, and [balancer] for how it balances. */
import {
  host,
  hostPort,
  Ini,
  integer,
  many,
  oneOf,
  optional,
  type Parse,
  peerPort,
  type SettingsValue,
  seconds,
  setting,
} from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { Failure, UsageError } from "../../shared/errors.ts";
import { ALGORITHMS } from "./algorithms.ts";

const path: Parse<string> = (text) => {
  if (/^\/[!-~]*$/.test(text)) return text;
  throw new Failure("is not a path (/…)");
};

/** [balancer]; also on the command line, which goes first. */
const POLICY = {
  algorithm: setting(oneOf(...ALGORITHMS), ALGORITHMS.join(", "), "round-robin"),
  healthPath: setting(path, "what a node is asked for to see whether it is up", "/"),
  healthInterval: setting(seconds, "seconds between two checks of a node", 2),
  failAfter: setting(integer(1, 1000), "failures in a row that make a node count as down", 3),
  passAfter: setting(integer(1, 1000), "checks passed in a row that make it count as up again", 2),
  timeout: setting(seconds, "seconds that a node may take to accept, and to answer", 30),
  retries: setting(integer(0, 100), "other nodes that a request may go to when one fails", 2),
};
export type Policy = SettingsValue<typeof POLICY>;

/** The same without defaults: what the command line does not say, the file does. */
export const POLICY_OPTIONS = {
  algorithm: optional(POLICY.algorithm.parse, POLICY.algorithm.describe),
  healthPath: optional(path, POLICY.healthPath.describe),
  healthInterval: optional(seconds, POLICY.healthInterval.describe),
  failAfter: optional(POLICY.failAfter.parse, POLICY.failAfter.describe),
  passAfter: optional(POLICY.passAfter.parse, POLICY.passAfter.describe),
  timeout: optional(seconds, POLICY.timeout.describe),
  retries: optional(POLICY.retries.parse, POLICY.retries.describe),
  backend: many(hostPort(80), "HOST:PORT of a node, instead of a file; may be given several times"),
};

const NODE = {
  host: setting(host, "name or address of the node"),
  port: setting(peerPort, "its port"),
  weight: setting(integer(1, 1000), "its share of the requests", 1),
};
export type NodeSpec = SettingsValue<typeof NODE> & { name: string };

export interface Configuration {
  policy: Policy;
  /** At least one; no address twice. */
  nodes: readonly NodeSpec[];
}

/** Throws `UsageError` with file, line and key. */
export function readConfiguration(
  file: string,
  options: SettingsValue<typeof POLICY_OPTIONS>,
): Configuration {
  const { backend } = options;
  const names = Object.keys(POLICY) as (keyof Policy)[];
  const given = names.filter((name) => options[name] !== undefined);
  const onCommandLine = Object.fromEntries(given.map((name) => [name, options[name]]));
  if (backend.length > 0) {
    const defaults = Object.fromEntries(names.map((name) => [name, POLICY[name].default]));
    const nodes = backend.map((address, i) => ({ ...address, weight: 1, name: `node${i + 1}` }));
    return checked({ policy: { ...defaults, ...onCommandLine } as Policy, nodes }, () => "--backend");
  }
  const ini = new Ini(file);
  const policy = { ...ini.section("balancer", POLICY), ...onCommandLine } as Policy;
  const sections = ini.sections.filter((section) => section !== "balancer");
  const nodes = sections.map((name) => ({ ...ini.section(name, NODE), name }));
  if (nodes.length === 0)
    throw new UsageError(`${file}: has no node; add a section [node1] with host and port`);
  return checked({ policy, nodes }, (name) => ini.where(name, "port"));
}

function checked(configuration: Configuration, where: (name: string) => string): Configuration {
  const names = new Map<string, string>();
  for (const { name, host, port } of configuration.nodes) {
    const address = formatAddress(host, port);
    const other = names.get(address);
    if (other !== undefined) throw new UsageError(`${where(name)}: ${address} is [${other}] already`);
    names.set(address, name);
  }
  return configuration;
}
