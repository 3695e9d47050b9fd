/** A node of the logical token ring: a station with its links and its clock. */
import { randomInt } from "node:crypto";
import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { host, Ini, integer, optional, port, setting, text } from "../../shared/config.ts";
import { UsageError } from "../../shared/errors.ts";
import { type Context, configFile, program } from "../../shared/program.ts";
import { GRACE_MS, serve } from "../../shared/tcp.ts";
import { type Address, type LinksOptions, predecessorLink, successorLink } from "./links.ts";
import { BASE_PORT, type Line, MAX_ID, parseMessages } from "./protocol.ts";
import { type Action, createStation, type Event } from "./station.ts";

/** The stations of a configuration in its order: `[node0]` (or `[nodo0]`) and so on, the number being the id. */
function readMembers(path: string): Map<number, Address> {
  const ini = new Ini(path);
  const members = ini.sections.map((section): [number, Address] => {
    const [, digits] = /^nod[eo](\d+)$/.exec(section) ?? [];
    const id = Number(digits);
    if (!(id <= MAX_ID)) throw new UsageError(`${ini.where(section)} is not [node0], [node1] and so on`);
    return [
      id,
      ini.section(section, {
        host: setting(host, "name or address of the node", "127.0.0.1"),
        port: setting(port, "port of the node", (BASE_PORT + id) & 0xffff),
      }),
    ];
  });
  return new Map(members);
}

async function readMessages(path: string): Promise<Line[]> {
  try {
    return parseMessages(await readFile(path, "utf8"));
  } catch (error) {
    throw new UsageError(`cannot read the messages of ${path}`, { cause: error });
  }
}

/** Text from a peer may hold control characters; on a terminal they are shown, not obeyed. */
function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it is about
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

const REASONS = {
  undelivered: " (nobody took it)",
  unconfirmed: " (it did not come back)",
  unsent: " (the ring has ended)",
};

/** What the user sees of an action, on stdout. */
function describe(action: Action): string | undefined {
  if (action.type === "received") return `received from ${action.idSource}: ${printable(action.text)}`;
  if (action.type !== "reported") return undefined;
  const { line, outcome } = action;
  const reason = outcome === "delivered" ? "" : REASONS[outcome];
  return `${outcome} to ${line.idDestination}: ${printable(line.text)}${reason}`;
}

/** Runs a node until the ring ends, or the user has ended it and it has left the ring in order. */
async function runNode(
  options: Omit<Parameters<typeof createStation>[0], "members" | "session">,
  members: ReadonlyMap<number, Address>,
  { signal, log, debug, ready }: Context,
): Promise<void> {
  const { id, first } = options;
  const closing = new AbortController();
  let end = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const station = createStation(
    { ...options, members: [...members.keys()], session: randomInt(2 ** 32) },
    performance.now(),
  );
  let timer: NodeJS.Timeout | undefined;

  const dispatch = (event: Event) => {
    for (const action of station.handle(event, performance.now())) {
      const line = describe(action);
      if (line !== undefined) process.stdout.write(`${line}\n`);
      else if (action.type === "send") links.send(action.meaning);
      else if (action.type === "note") debug(action.text);
      else if (action.type === "end") end();
    }
    clearTimeout(timer);
    const waitMs = station.wakeAtMs() - performance.now();
    if (waitMs < Number.POSITIVE_INFINITY)
      timer = setTimeout(dispatch, Math.max(1, waitMs), { type: "tick" });
  };

  const own = members.get(id) as Address;
  const common: Omit<LinksOptions, "onSuccessor"> = {
    id,
    first,
    members,
    signal: closing.signal,
    debug,
    generation: () => station.turn.generation,
    mayBypass: () => station.joined,
    onRunning: () => dispatch({ type: "joined" }),
  };
  const server = await serve({ ...own, signal: closing.signal, log }, (connection) =>
    predecessorLink(connection, common, (meaning) => dispatch({ type: "frame", meaning })),
  );
  ready(server.url);
  const links = successorLink({
    ...common,
    onSuccessor: (next) => dispatch({ type: "successor", id: next }),
  });
  signal.addEventListener("abort", () => {
    dispatch({ type: "stop" });
    setTimeout(end, GRACE_MS * 0.75);
  });

  await ended;
  clearTimeout(timer);
  closing.abort();
  await Promise.race([links.close(), delay(GRACE_MS / 4)]);
}

await program({
  summary: "A node of a logical token ring (PAL, over TCP).",
  example: "--id 0 --finish-after-idle 3",
  settings: {
    id: setting(integer(0, MAX_ID), "the id of this node"),
    idDst: optional(integer(0, MAX_ID), "the id of its successor (else the next in the configuration)", {
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
    if (finishAfterIdle !== undefined && id !== 0)
      throw new UsageError("--finish-after-idle is for node 0 only");
    const lines = messages === undefined ? [] : await readMessages(messages);
    await runNode({ id, first, lines, holdLimit, idleHoldMs: idleHold, finishAfterIdle }, members, context);
  },
});
