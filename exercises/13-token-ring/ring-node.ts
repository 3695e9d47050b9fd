/** A station with its links and its clock: it runs until the ring ends, or its user has ended it. */
import { setTimeout as delay } from "node:timers/promises";
import { type Connection, formatAddress } from "../../shared/connection.ts";
import type { Context } from "../../shared/program.ts";
import { GRACE_MS, serve } from "../../shared/tcp.ts";
import { type Address, type LinksOptions, predecessorLink, successorLink } from "./links.ts";
import { type Action, createStation, type Event, type StationOptions } from "./station.ts";

/** How long a node that leaves waits for its predecessors to close their links. */
const LEAVE_MS = 300;

/** After this a node says what it still waits for. */
const WAIT_MS = 3000;

export interface NodeOptions extends Omit<StationOptions, "members"> {
  /** Where each station listens, in the order of the ring; this one's port may be 0, any free one. */
  members: ReadonlyMap<number, Address>;
}
interface NodeContext extends Context {
  /** Gets what the user is to see: a line for each message that was received or sent. */
  print: (line: string) => void;
}

/** Text from a peer may hold what a terminal obeys: it is shown instead. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    const hex = character.codePointAt(0)?.toString(16) ?? "";
    return hex.length > 2 ? `\\u{${hex}}` : `\\x${hex.padStart(2, "0")}`;
  });
}

const REASONS = {
  undelivered: " (nobody took it)",
  unconfirmed: " (it did not come back)",
  unsent: " (the ring has ended)",
};

/** What the user sees of an action. */
function describe(action: Action): string | undefined {
  if (action.type === "received") return `received from ${action.idSource}: ${printable(action.text)}`;
  if (action.type !== "reported") return undefined;
  const { line, outcome } = action;
  const reason = outcome === "delivered" ? "" : REASONS[outcome];
  return `${outcome} to ${line.idDestination}: ${printable(line.text)}${reason}`;
}

/** Throws `Failure` when it cannot listen. */
export async function runNode(
  options: NodeOptions,
  { signal, log, debug, ready, print }: NodeContext,
): Promise<void> {
  const { id, first } = options;
  const members = new Map(options.members);
  const own = members.get(id) ?? { host: "127.0.0.1", port: 0 };
  const closing = new AbortController();
  let end = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const station = createStation({ ...options, members: [...members.keys()] }, performance.now());
  let timer: NodeJS.Timeout | undefined;

  const dispatch = (event: Event) => {
    for (const action of station.handle(event, performance.now())) {
      const line = describe(action);
      if (line !== undefined) print(line);
      else if (action.type === "send") links.send(action.meaning);
      else if (action.type === "note") debug(action.text);
      else if (action.type === "leave") void leave();
      else if (action.type === "end") end();
    }
    clearTimeout(timer);
    const waitMs = station.wakeAtMs() - performance.now();
    if (waitMs < Number.POSITIVE_INFINITY)
      timer = setTimeout(dispatch, Math.max(1, waitMs), { type: "tick" });
  };

  const predecessors = new Map<Connection, Promise<void>>();
  let leaving = false;
  /** What predecessors have sent is passed on before this node goes: the turn may be among it. */
  async function leave(): Promise<void> {
    leaving = true;
    for (const connection of predecessors.keys()) connection.end();
    await Promise.race([Promise.allSettled(predecessors.values()), delay(LEAVE_MS)]);
    dispatch({ type: "stop" });
  }

  const common: Omit<LinksOptions, "onSuccessor"> = {
    id,
    first,
    members,
    signal: closing.signal,
    log,
    debug,
    newest: new Map(),
    generation: () => station.known,
    mayBypass: () => station.joined,
    isLeaving: () => leaving,
    onHeard: (generation) => dispatch({ type: "heard", generation }),
  };
  const server = await serve({ ...own, signal: closing.signal, log }, async (connection) => {
    if (leaving) return;
    const session = predecessorLink(connection, common, (meaning) => dispatch({ type: "frame", meaning }));
    predecessors.set(connection, session);
    await session.finally(() => predecessors.delete(connection));
  });
  members.set(id, { host: own.host, port: server.port });
  ready(server.url);
  let successor: number | undefined;
  const links = successorLink({
    ...common,
    onSuccessor(next) {
      successor = next;
      dispatch({ type: "successor", id: next });
    },
  });
  const waiting = setTimeout(() => {
    if (station.joined) return;
    const { host, port } = members.get(first) ?? own;
    log(
      successor === undefined
        ? `waiting for station ${first}, which should be at ${formatAddress(host, port)}`
        : `station ${first} is there; waiting until the ring is complete`,
    );
  }, WAIT_MS);
  const stop = () => {
    dispatch({ type: "stop" });
    // A turn that does not come in time is not waited for.
    setTimeout(() => dispatch({ type: "stop" }), GRACE_MS * 0.75).unref();
  };
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();

  await ended;
  clearTimeout(waiting);
  closing.abort();
  await Promise.race([links.close(), delay(GRACE_MS / 4)]);
}
