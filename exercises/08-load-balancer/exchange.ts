/** One request at one node: sent on an idle connection or a new one, and its response read as far as its head. */
import { type Connection, TimeoutError } from "../../shared/connection.ts";
import { Failure, isFailure } from "../../shared/errors.ts";
import { encodeResponse, type RequestHead, type ResponseHead } from "../../shared/http.ts";
import type { Framing } from "../../shared/http-body.ts";
import { endToEnd, ReceiverError, relayMessage } from "../../shared/http-relay.ts";
import { connect } from "../../shared/tcp.ts";
import type { Cluster, Node } from "./cluster.ts";
import { withoutEmptyPromise } from "./protocol.ts";
import type { Reply } from "./response-memory.ts";

/** What a request is on its way: made once for a head that comes again and again. */
export interface Request {
  head: RequestHead;
  framing: Framing;
  keepAlive: boolean;
  /** The client's address without its port. */
  address: string;
  /** The head as a node gets it. */
  wire: Buffer;
  upgrade: string | undefined;
  /** May it be sent twice (RFC 9110 §9.2.2)? */
  isIdempotent: boolean;
}

/** The node failed before anything of its response went to the client, which would get `status`. */
export class NodeFailure extends Failure {
  override name = "NodeFailure";
  readonly status: 502 | 503 | 504;
  /** Could the node have read any of the request? */
  readonly isSent: boolean;
  constructor(status: 502 | 503 | 504, isSent: boolean, cause: unknown) {
    super("a node failed", { cause });
    this.status = status;
    this.isSent = isSent;
  }
}

export interface Exchange {
  connection: Connection;
  reply: Reply;
  /** Did the node answer before it had all of the body? Then what is left of that stands between us and the next request. */
  isEarly: boolean;
  /** The body that is still on its way. */
  upload: Upload | undefined;
}

/**
 * Gives the request to the node. `held` is head and body where we have all of it; else the head, and the body is still to come
 * from the client. Throws `NodeFailure`; and what the client does wrong with its body, as it is.
 */
export async function ask(
  cluster: Cluster,
  node: Node,
  client: Connection,
  request: Request,
  held: Buffer | undefined,
): Promise<Exchange> {
  const timeoutMs = cluster.policy.timeout * 1000;
  // A node may just be closing its idle connections: a request that cannot be sent twice gets a fresh one.
  const mayReuse = held !== undefined && request.isIdempotent && request.upgrade === undefined;
  const idle = mayReuse ? cluster.pool.reuse(node) : undefined;
  if (idle !== undefined) {
    idle.timeoutMs = timeoutMs;
    try {
      return await converse(node, idle, client, request, held);
    } catch (error) {
      idle.destroy();
      if (!(error instanceof NodeFailure) || error.status === 504) throw error;
    }
  }
  const fresh = await connectTo(node, timeoutMs);
  try {
    return await converse(node, fresh, client, request, held);
  } catch (error) {
    fresh.destroy();
    throw error;
  }
}

async function connectTo({ host, port }: Node, timeoutMs: number): Promise<Connection> {
  try {
    return await connect({ host, port, timeoutMs });
  } catch (error) {
    throw isFailure(error) ? new NodeFailure(503, false, error) : error;
  }
}

async function converse(
  node: Node,
  connection: Connection,
  client: Connection,
  request: Request,
  held: Buffer | undefined,
): Promise<Exchange> {
  const begin = performance.now();
  const upload = held === undefined ? sendBody(connection, client, request) : undefined;
  let isOver = false;
  // Nobody waits any more: the node need not go on. (A FIN may be a half-close only: it does not tell.)
  if (held !== undefined && client.unreadBytes === 0)
    client.more(0).catch(() => isOver || connection.destroy());
  try {
    if (held !== undefined) await connection.write(held);
    if (held !== undefined && connection.unreadBytes === 0) await connection.more();
    const known = node.responses.again(connection, request.head.method);
    const reply = known ?? (await finalReply(node, connection, client, request, upload));
    node.latency.record(performance.now() - begin);
    return { connection, reply, isEarly: upload !== undefined && !upload.isDone, upload };
  } catch (error) {
    if (upload?.problem !== undefined) throw upload.problem; // then the rest followed from it
    if (!isFailure(error) || error instanceof ClientError) throw error;
    if (client.closed) throw new ClientError("it left before it was answered");
    throw new NodeFailure(error instanceof TimeoutError ? 504 : 502, true, error);
  } finally {
    isOver = true;
  }
}

/** The client's doing (`cause`), not the node's. */
export class ClientError extends Failure {
  override name = "ClientError";
}

interface Upload {
  isDone: boolean;
  /** Resolves when it has ended, well or not. */
  ended: Promise<void>;
  /** What the client did wrong. */
  problem?: ClientError;
}

/** Passes the request with its body on while the node may already be answering. */
function sendBody(connection: Connection, client: Connection, { framing, wire }: Request): Upload {
  const upload: Upload = { isDone: false, ended: Promise.resolve() };
  upload.ended = relayMessage(client, framing, connection, framing, wire).then(
    () => {
      upload.isDone = true;
    },
    (error: unknown) => {
      if (!isFailure(error)) throw error;
      if (error instanceof ReceiverError) return; // the node may have answered all the same
      upload.problem = new ClientError("the request's body", { cause: error });
      connection.destroy();
    },
  );
  return upload;
}

/** The response that is not an interim one; those go to the client on the way (RFC 9110 §15.2). */
async function finalReply(
  node: Node,
  connection: Connection,
  client: Connection,
  request: Request,
  upload: Upload | undefined,
): Promise<Reply> {
  for (;;) {
    // The time to answer runs when the request is there; until then the client sets the pace.
    if (upload !== undefined && !upload.isDone && connection.unreadBytes === 0)
      await Promise.race([upload.ended, connection.more(0).catch(() => {})]);
    const reply = await node.responses.read(connection, request.head.method);
    if (reply === undefined) throw new Failure("it closed the connection without an answer");
    const { response } = reply;
    if (response.status >= 200) return reply;
    if (response.status === 101) {
      if (request.upgrade !== undefined) return reply;
      throw new Failure("it changed the protocol without being asked");
    }
    if (request.head.minor > 0) await passInterim(client, response);
  }
}

async function passInterim(client: Connection, response: ResponseHead): Promise<void> {
  try {
    const fields = withoutEmptyPromise(response.status, endToEnd(response.fields));
    await client.write(encodeResponse({ ...response, fields }));
  } catch (error) {
    throw isFailure(error) ? new ClientError("an interim response", { cause: error }) : error;
  }
}
