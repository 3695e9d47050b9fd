/** A node of the logical token ring: reads the configuration and the messages, and runs. */
import { isUtf8 } from "node:buffer";
import { readFile } from "node:fs/promises";
import { host, Ini, integer, optional, peerPort, port, setting, text } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { Failure, UsageError } from "../../shared/errors.ts";
import { configFile, program } from "../../shared/program.ts";
import type { Address } from "./links.ts";
import { BASE_PORT, type Line, MAX_ID, parseMessages } from "./protocol.ts";
import { runNode } from "./ring-node.ts";
import { LOSS_TIMEOUT_MS } from "./station.ts";

const MAX_PORT = 65_535;

/** The stations of a configuration in its order: `[node0]` (or `[nodo0]`) and so on, the number being the id. */
function readMembers(path: string): Map<number, Address> {
  const ini = new Ini(path);
  const members = new Map<number, Address>();
  for (const section of ini.sections) {
    const [, digits] = /^nod[eo](\d+)$/.exec(section) ?? [];
    const id = Number(digits);
    if (!(id <= MAX_ID)) throw new UsageError(`${ini.where(section)} is not [node0], [node1] and so on`);
    if (members.has(id)) throw new UsageError(`${ini.where(section)} is node ${id} a second time`);
    const address = ini.section(section, {
      host: setting(host, "name or address of the node", "127.0.0.1"),
      port: setting(peerPort, "port of the node", BASE_PORT + id <= MAX_PORT ? BASE_PORT + id : undefined),
    });
    for (const [other, { host, port }] of members) {
      if (host === address.host && port === address.port)
        throw new UsageError(
          `${ini.where(section)} has the address of node ${other}, ${formatAddress(host, port)}`,
        );
    }
    members.set(id, address);
  }
  return members;
}

async function readMessages(path: string): Promise<Line[]> {
  try {
    const bytes = await readFile(path);
    if (!isUtf8(bytes)) throw new Failure("is not UTF-8");
    return parseMessages(bytes.toString());
  } catch (error) {
    throw new UsageError(`cannot read the messages of ${path}`, { cause: error });
  }
}

await program({
  summary: "A node of a logical token ring (PAL, over TCP).",
  example: "--id 0 --finish-after-idle 3",
  settings: {
    id: setting(integer(0, MAX_ID), "the id of this node"),
    idDst: optional(integer(0, MAX_ID), "the id of its successor (default: the next in the configuration)", {
      alias: ["id_dst"],
    }),
    config: configFile("config/token-ring.ini"),
    host: optional(host, "name or address to listen on, instead of the configuration's"),
    port: optional(port, "port to listen on, instead of the configuration's"),
    messages: optional(text, "file of messages to send, a line each: DESTINATION text"),
    finishAfterIdle: optional(integer(1), "rounds without a message after which node 0 ends the ring"),
    holdLimit: setting(integer(1), "messages to send each time it has the turn", 10),
    idleHold: setting(integer(0), "milliseconds that it keeps the turn in a round without a message", 5),
  },
  async run(settings, context) {
    const { id, idDst, config, messages, finishAfterIdle, holdLimit, idleHold } = settings;
    const members = readMembers(config);
    const own = members.get(id);
    if (own === undefined) throw new UsageError(`${config}: has no [node${id}]`);
    members.set(id, { host: settings.host ?? own.host, port: settings.port ?? own.port });
    const order = [...members.keys()];
    const first = idDst ?? order[(order.indexOf(id) + 1) % order.length] ?? id;
    if (!members.has(first))
      throw new UsageError(`${config}: has no [node${first}], the successor of node ${id}`);
    if (idleHold * order.length > LOSS_TIMEOUT_MS / 2)
      throw new UsageError(`--idle-hold ${idleHold} makes ${order.length} nodes take an idle turn for lost`);
    if (finishAfterIdle !== undefined && id !== 0)
      throw new UsageError("--finish-after-idle is for node 0 only");
    const lines = messages === undefined ? [] : await readMessages(messages);
    await runNode(
      { id, first, members, lines, holdLimit, idleHoldMs: idleHold, finishAfterIdle },
      { ...context, print: (line) => void process.stdout.write(`${line}\n`) },
    );
  },
});
