/** A request's way through the balancer: to a node, to another if that fails, and the response's way back. */
import type { Connection } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { encodeRequest, encodeResponse, Fields, persists, type RequestHead } from "../../shared/http.ts";
import { type Framing, requestFraming } from "../../shared/http-body.ts";
import {
  isIdempotent,
  onwardFields,
  onwardFraming,
  ReceiverError,
  relayMessage,
  tunnel,
} from "../../shared/http-relay.ts";
import { currentDate, REASONS, statusPage } from "../../shared/http-serving.ts";
import { type Cluster, isOwnShortage, type Node } from "./cluster.ts";
import { ask, type Exchange, NodeFailure, type Request } from "./exchange.ts";
import { mayRetry, plainAddress, requestForNode, wantedUpgrade, withoutEmptyPromise } from "./protocol.ts";
import type { Reply } from "./response-memory.ts";

/** A body up to this size is waited for and held, so that it can be sent again, and no slow client keeps a node waiting. */
const MAX_HELD_BYTES = 64 * 1024;
/** A tunnel in which nothing passes for so long is closed. */
const TUNNEL_IDLE_MS = 600_000;

export interface Balancer {
  cluster: Cluster;
  /** Our name in `Via`. */
  via: string;
  signal: AbortSignal;
  debug: (line: string) => void;
}

/** Throws `HttpError` for a request that cannot go on. */
export function prepare(head: RequestHead, client: Connection, via: string): Request {
  const address = plainAddress(client.peerHost);
  return {
    head,
    framing: requestFraming(head),
    keepAlive: persists(head),
    address,
    wire: Buffer.from(encodeRequest(requestForNode(head, address, via)), "latin1"),
    upgrade: wantedUpgrade(head),
    isIdempotent: isIdempotent(head.method),
  };
}

/** Says whether the client's connection goes on. Throws what the client does wrong. */
export async function forward(client: Connection, request: Request, balancer: Balancer): Promise<boolean> {
  const { cluster, debug } = balancer;
  const held = request.framing.kind === "none" ? request.wire : await hold(client, request);
  const tried: Node[] = [];
  let failure: NodeFailure | undefined;
  while (tried.length <= cluster.policy.retries) {
    const node = cluster.choose(request.address, tried);
    if (node === undefined) break;
    tried.push(node);
    node.active++;
    node.total++;
    try {
      const exchange = await ask(cluster, node, client, request, held);
      return await passBack(client, request, balancer, node, exchange);
    } catch (error) {
      if (!(error instanceof NodeFailure)) throw error;
      failure = error;
      const isOurs = isOwnShortage(error.cause);
      if (!isOurs) cluster.noteRequest(node, explain(error.cause));
      debug(`${request.head.method} ${request.head.target}: ${node.name}: ${explain(error.cause)}`);
      if (isOurs || !mayTryAnother(request, held, failure)) break;
    } finally {
      node.active--;
    }
  }
  return await refuse(
    client,
    request,
    failure?.status ?? 503,
    held !== undefined && !balancer.signal.aborted,
  );
}

const mayTryAnother = ({ head }: Request, held: Buffer | undefined, { isSent, status }: NodeFailure) =>
  mayRetry({
    method: head.method,
    isSent,
    isAnswered: false,
    isBodyGone: isSent && held === undefined,
    isLate: status === 504,
  });

/** Head and body together, unless the body is too large, of unknown size, or not to come before we say so. */
async function hold(client: Connection, { head, framing, wire }: Request): Promise<Buffer | undefined> {
  if (framing.kind !== "length" || framing.bytes > MAX_HELD_BYTES) return undefined;
  if (head.fields.get("Expect") !== undefined && client.unreadBytes < framing.bytes) return undefined;
  client.deadline = performance.now() + client.timeoutMs; // for all of it: nobody can send it for ever
  const body = await client.readExactly(framing.bytes);
  client.deadline = Number.POSITIVE_INFINITY;
  if (body === undefined) throw new Failure("the client finished before its body");
  return Buffer.concat([wire, body]);
}

async function passBack(
  client: Connection,
  request: Request,
  { cluster, signal }: Balancer,
  node: Node,
  { connection, reply, isEarly, upload }: Exchange,
): Promise<boolean> {
  const { response, framing } = reply;
  if (response.status === 101)
    return await changeProtocol(client, node, cluster, connection, response.fields);
  const { minor } = request.head;
  const onward = onwardFraming(framing, minor);
  const goesOn = request.keepAlive && onward.kind !== "close" && !isEarly && !signal.aborted;
  if (goesOn && minor > 0) reply.onward ??= onwardHead(reply, onward);
  const head = goesOn && minor > 0 ? reply.onward : undefined;
  try {
    await relayMessage(
      connection,
      framing,
      client,
      onward,
      head ?? onwardHead(reply, onward, goesOn ? "keep-alive" : "close"),
    );
  } catch (error) {
    connection.destroy();
    if (!isFailure(error) || error instanceof ReceiverError) throw error;
    // Then it was we who broke off, and the node is not to blame. Not as it is: a status cannot follow half a response.
    if (upload?.problem !== undefined)
      throw new Failure("cut off while a node was answering", { cause: upload.problem });
    cluster.noteRequest(node, explain(error));
    if (onward.kind === "close") client.reset(); // an end would be taken for the body's
    throw new Failure(`${node.name} broke off its response`, { cause: error }); // and so do we with ours
  }
  cluster.noteRequest(node);
  if (reply.persists && framing.kind !== "close" && !isEarly) cluster.pool.release(node, connection);
  else connection.destroy();
  return goesOn;
}

function onwardHead({ response }: Reply, onward: Framing, option?: string): Buffer {
  const lines = option === undefined ? [] : ([["Connection", option]] as const);
  const ours = withoutEmptyPromise(response.status, response.fields);
  const fields = onwardFields(ours, onward).replace([], lines);
  return Buffer.from(encodeResponse({ ...response, fields }), "latin1");
}

/** 101: what follows is no HTTP, and passes both ways until both have finished. */
async function changeProtocol(
  client: Connection,
  node: Node,
  cluster: Cluster,
  connection: Connection,
  received: Fields,
): Promise<boolean> {
  const upgrade = received.get("Upgrade") ?? "";
  const lines = [
    ["Connection", "upgrade"],
    ["Upgrade", upgrade],
  ] as const;
  const fields = onwardFields(withoutEmptyPromise(101, received), { kind: "none" }).replace([], lines);
  cluster.noteRequest(node);
  try {
    await client.write(encodeResponse({ status: 101, reason: "Switching Protocols", fields }));
    await tunnel(client, connection, TUNNEL_IDLE_MS);
  } finally {
    connection.destroy();
  }
  return false;
}

/** What the page of an error says. */
const ADVICE: Readonly<Record<number, string>> = {
  408: "The request took too long to arrive.",
  501: "This balancer cannot do that.",
  502: "The server behind this balancer broke off or answered something that is no HTTP.",
  503: "No server is there to answer at the moment. Try again in a few seconds.",
  504: "The server behind this balancer did not answer in time.",
  508: "The request came back to this balancer: a node in its configuration leads to itself.",
};

/** Answers in a node's place. Says whether the connection goes on. */
export async function refuse(
  client: Connection,
  request: Request | undefined,
  status: number,
  mayGoOn: boolean,
): Promise<boolean> {
  const page = statusPage(status, ADVICE[status] ?? "The request cannot be passed on as it stands.");
  const goesOn = mayGoOn && request?.keepAlive === true;
  const option = goesOn ? (request.head.minor === 0 ? "keep-alive" : undefined) : "close";
  const fields = new Fields([
    ["Date", currentDate()],
    ["Content-Type", "text/html; charset=utf-8"],
    ["Content-Length", String(page.length)],
    ...(status === 503 ? ([["Retry-After", "5"]] as const) : []),
    ...(option === undefined ? [] : ([["Connection", option]] as const)),
  ]);
  const head = Buffer.from(encodeResponse({ status, reason: REASONS[status] ?? "", fields }), "latin1");
  await client.write(request?.head.method === "HEAD" ? head : Buffer.concat([head, page]));
  return goesOn;
}
