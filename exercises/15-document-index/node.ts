/** A node of the distributed index: finds the others, shows who has what, fetches. */
import { clearLine, cursorTo } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { flag, host, many, optional, type Parse, port, setting, text } from "../../shared/config.ts";
import { Failure, UsageError } from "../../shared/errors.ts";
import { program } from "../../shared/program.ts";
import { IndexNode } from "./index-node.ts";
import { LAST_PORT, MAX_NAME_BYTES, PORT } from "./protocol.ts";
import type { PortRange } from "./segment.ts";
import { converse, execute } from "./terminal.ts";

const MAX_PORTS = 64;
/** A listing is stable when there was nothing new for so long, */
const QUIET_MS = 750;
/** and is printed in any case after so long. */
const PATIENCE_MS = 10_000;

const portRange: Parse<PortRange> = (value) => {
  const [, first = "", last = first] = /^(\d+)(?:-(\d+))?$/.exec(value) ?? [];
  const range = { first: Number(first), last: Number(last) };
  const isRange = first !== "" && range.first > 0 && range.last <= 65_535 && range.first <= range.last;
  if (isRange && range.last - range.first < MAX_PORTS) return range;
  throw new Failure(`is not a range of at most ${MAX_PORTS} ports, as ${PORT}-${LAST_PORT}`);
};

const nodeName: Parse<string> = (value) => {
  if (value !== "" && Buffer.byteLength(value) <= MAX_NAME_BYTES && !/[\s\p{Cc}]/u.test(value)) return value;
  throw new Failure(`is not a name of 1 to ${MAX_NAME_BYTES} bytes without spaces`);
};

const ipv4: Parse<string> = (value) => {
  if (/^\d+(\.\d+){3}$/.test(value) && value.split(".").every((byte) => Number(byte) <= 255)) return value;
  throw new Failure("is not an IPv4 address");
};

await program({
  summary: "A node of a distributed index of documents: finds the others, and shows who has what.",
  example: "--folder .",
  settings: {
    host: setting(host, "address to listen on; 127.0.0.1: for this machine only", "0.0.0.0"),
    port: setting(port, "port to listen on, UDP and TCP (0 = the first free one of --ports)", 0),
    ports: optional(portRange, `the ports that nodes may have (default: ${PORT}-${LAST_PORT})`),
    folder: optional(text, "folder of the documents to offer; without it none is offered"),
    broadcast: many(
      ipv4,
      "broadcast address to announce to (default: each network's own, and 127.255.255.255)",
    ),
    name: optional(nodeName, "what to call this node (default: the machine's name and the port)"),
    json: flag("answer in JSON, a line for each command"),
    once: optional(text, "a command to answer when the index is stable, then leave: list"),
  },
  async run({ port, ports = { first: PORT, last: LAST_PORT }, json, once, ...settings }, context) {
    if (port !== 0 && (port < ports.first || port > ports.last))
      throw new UsageError(`--port ${port} is none of --ports ${ports.first}-${ports.last}`);
    // What the nodes do meanwhile is of interest to those who stay.
    const say = once === undefined ? context.log : context.debug;
    const prompt = { show: () => {} };
    const log = (line: string) => {
      const isTerminal = process.stdin.isTTY && process.stderr.isTTY && once === undefined;
      // In front of what is being typed, which then comes again.
      if (isTerminal) cursorTo(process.stderr, 0);
      if (isTerminal) clearLine(process.stderr, 0);
      say(line);
      prompt.show();
    };
    const debug = (line: string) => context.debug(line);
    const { signal } = context;
    const node = await IndexNode.start({ ...settings, port, ports, signal, log, debug });
    const print = (line: string) => void process.stdout.write(`${line}\n`);
    const options = { node, json, signal, log, print };
    if (once === undefined) {
      for (const url of node.urls) context.ready(url);
      await converse(options, prompt);
    } else {
      const giveUpMs = performance.now() + PATIENCE_MS;
      while (!node.isStable(QUIET_MS) && performance.now() < giveUpMs && !signal.aborted) await delay(50);
      if (!node.isStable(QUIET_MS)) context.log("not everything that was announced is known");
      await execute(once, options);
    }
    await node.leave();
  },
});
