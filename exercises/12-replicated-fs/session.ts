/** What a node answers on a connection: other nodes' messages, their requests, clients' commands. */

import type { FileHandle } from "node:fs/promises";
import { statfs } from "node:fs/promises";
import type { Connection } from "../../shared/connection.ts";
import { formatAddress } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { decode, encode } from "../../shared/pdu.ts";
import { digestOf } from "./apply.ts";
import { type Found, looksLike } from "./disk.ts";
import { admit, nextFrame } from "./link.ts";
import { Unavailable } from "./mastership.ts";
import { decodeMessage } from "./messages.ts";
import type { ReplicaNode } from "./node.ts";
import { checkPath } from "./paths.ts";
import {
  CHUNK_BYTES,
  Command,
  Fetch,
  Frame,
  frame,
  Item,
  MAX_FRAME_BYTES,
  NOTHING,
  Registration,
  Result,
} from "./protocol.ts";
import { stateFrames } from "./store.ts";
import { write } from "./writes.ts";

type Outcome = Result["outcome"];
const QUIET_MS = 15 * 60_000;
const WAITING_MS = 2000;

const resultFrame = (id: number, outcome: Outcome, text = ""): Buffer =>
  frame(id, "result", "", encode(Result, { outcome, text }));

/** Serves one connection to its end. Throws `Failure` where the peer breaks the protocol. */
export async function serveConnection(node: ReplicaNode, connection: Connection): Promise<void> {
  const { identity } = node.store;
  connection.timeoutMs = QUIET_MS;
  const cluster = Buffer.from(identity?.cluster ?? "", "hex");
  const peer = await admit(connection, node.options.secret, node.id, cluster);
  while (true) {
    const got = await connection.readPdu(Frame, MAX_FRAME_BYTES);
    if (got === undefined) return;
    if (got.idNode !== peer) throw new Failure(`it is node ${peer} and says it is ${got.idNode}`);
    const decoded = await decodeMessage(got, peer, () => nextFrame(connection));
    if (decoded !== undefined) {
      if (peer === 0) throw new Failure(`a client sent ${got.action}`);
      node.receive(decoded.message, decoded.address);
      if (decoded.message.kind === "acknowledge" && node.isMaster) node.mastership.settle();
      continue;
    }
    await answer(node, connection, got);
  }
}

/** What goes wrong with what was asked becomes the result; with the connection, its end. */
async function answer(node: ReplicaNode, connection: Connection, asked: Frame): Promise<void> {
  const say = (outcome: Outcome, text = "") => connection.write(resultFrame(node.id, outcome, text));
  try {
    switch (asked.action) {
      case "register": {
        const { uid, host, port } = decode(Registration, asked.data);
        return await say("done", String(node.mastership.register(uid, host, port, asked.idNode)));
      }
      case "manifest":
        for (const bytes of await manifest(node)) await connection.write(bytes);
        return await say("done");
      case "fetch": {
        const file = await node.contents.open(checkPath(asked.path), decode(Fetch, asked.data));
        if (file === undefined) return await say("failed", "it has changed");
        await sendFile(node, connection, file);
        return await say("done");
      }
      case "digest":
        await digests(node, connection);
        return await say("done");
      case "remote": {
        // A majority may need long for a large file: who waits for it is told that it goes on.
        const timer = setInterval(() => void say("waiting").catch(() => {}), WAITING_MS);
        const text = await command(node, connection, asked).finally(() => clearInterval(timer));
        return await say("done", text);
      }
      case "chunk":
        return; // of a write that has failed before its end
      default:
        throw new Failure(`${asked.action} is not for now`);
    }
  } catch (error) {
    if (!isFailure(error) || connection.closed) throw error;
    const { master } = node;
    const isElsewhere = error instanceof Unavailable && master !== undefined && !node.isMaster;
    if (isElsewhere) return await say("elsewhere", formatAddress(master.host, master.port));
    await say(error instanceof Unavailable ? "unavailable" : "failed", explain(error));
  }
}

function manifest(node: ReplicaNode): Promise<Buffer[]> {
  return node.inQueue(() => {
    const { appliedIndex: index, core } = node;
    const term = core.termAt(index);
    if (term === undefined) throw new Error("what is applied is in no log");
    return stateFrames({ index, term, members: [] }, node.tree);
  });
}

async function sendFile(node: ReplicaNode, connection: Connection, file: FileHandle): Promise<void> {
  try {
    for (let at = 0; ; ) {
      const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(CHUNK_BYTES), 0, CHUNK_BYTES, at);
      if (bytesRead === 0) return;
      at += bytesRead;
      await connection.write(frame(node.id, "chunk", "", buffer.subarray(0, bytesRead)));
    }
  } finally {
    await file.close();
  }
}

export const itemOf = (found: Found, digest: Buffer = NOTHING): Item => ({
  ...found,
  kind: found.kind as Item["kind"],
  digest,
  blob: NOTHING,
});

/**
 * Every path of the directory as it lies on the disk, with the digest of its content as it is read now. Who asks is told
 * that it goes on while a large file is read.
 */
async function digests(node: ReplicaNode, connection: Connection): Promise<void> {
  let saidMs = performance.now();
  const onPiece = async () => {
    if (performance.now() - saidMs < WAITING_MS) return;
    saidMs = performance.now();
    await connection.write(resultFrame(node.id, "waiting"));
  };
  for await (const [path, found] of node.disk.walk()) {
    if (found.kind === "other") continue;
    const digest = (await digestOf(node.disk, path, onPiece)) ?? NOTHING;
    await connection.write(frame(node.id, "manifest", path, encode(Item, itemOf(found, digest))));
  }
}

/** A client's command: what it says in the end. */
async function command(node: ReplicaNode, connection: Connection, asked: Frame): Promise<string> {
  const path = checkPath(asked.path);
  const wanted = decode(Command, asked.data);
  // A replica may lag: it answers only where there is no master to ask.
  if (!node.isMaster && node.master !== undefined) throw new Unavailable("this node is not the master");
  const { tree } = node;
  const show = (at: string) =>
    connection.write(frame(node.id, "manifest", at, encode(Item, tree.get(at) as Item)));
  switch (wanted.operation) {
    case "stat":
      await show(existing(node, path));
      return "";
    case "list":
    case "walk": {
      await show(existing(node, path));
      const all = wanted.operation === "walk" ? [...tree.walk(path)].slice(1).map(([at]) => at) : undefined;
      for (const at of all ?? tree.names(path).map((name) => (path === "" ? name : `${path}/${name}`)))
        if (tree.get(at)) await show(at);
      return "";
    }
    case "read": {
      const item = tree.get(existing(node, path)) as Item;
      if (item.kind !== "file") throw new Failure(`${quoted(path)} is not a file`);
      const found = node.disk.find(path);
      if (!looksLike(found, item)) node.options.debug(`${quoted(path)} is not as the tree says`);
      await show(path);
      await sendFile(node, connection, await node.disk.open(path));
      return "";
    }
    case "df": {
      const { bsize, blocks, bavail } = await statfs(node.disk.root);
      return [bsize * blocks, bsize * bavail, tree.items.size - 1].join("\t");
    }
    case "nodes":
      return nodesTable(node);
    case "forget": {
      const id = Number(wanted.to);
      if (!node.members.some((member) => member.id === id))
        throw new Failure(`there is no node ${wanted.to}`);
      if (id === node.id) throw new Failure("that is the master; stop it first");
      await node.mastership.changeMembers(node.members.filter((member) => member.id !== id));
      return "";
    }
    default:
      await write(node, connection, path, wanted);
      return "";
  }
}

function existing(node: ReplicaNode, path: string): string {
  if (node.tree.get(path) === undefined) throw new Failure(`${quoted(path)}: no such file or directory`);
  return path;
}
const quoted = (path: string): string => JSON.stringify(path === "" ? "/" : path);

/** A line a node: id, address, role, last entry on its disk, how many it lacks, milliseconds since it was heard of. */
function nodesTable(node: ReplicaNode): string {
  const { core } = node;
  const now = performance.now();
  const lines = node.members.map(({ id, host, port }) => {
    const follower = core.followers.get(id);
    const isSelf = id === node.id;
    const match = isSelf ? core.lastIndex : follower?.match;
    const heard = isSelf ? 0 : follower && Math.round(now - follower.heardMs);
    const role = id === core.master ? "master" : "replica";
    const lag = match === undefined ? "?" : core.lastIndex - match;
    return [id, formatAddress(host, port), role, match ?? "?", lag, heard ?? "?"].join("\t");
  });
  return [`term ${core.term}\tcommitted ${core.commit}\tseen by node ${node.id}`, ...lines].join("\n");
}
