/** Clients' writes: checked against the tree as it will be, made into entries, acknowledged when they are committed. */
import { createHash, randomBytes } from "node:crypto";
import { renameSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { Connection } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { encode, type ValueOf } from "../../shared/pdu.ts";
import { hexOf } from "./apply.ts";
import { hashAndWrite, snapshotFile } from "./contents.ts";
import type { Change } from "./entries.ts";
import { nextFrame } from "./link.ts";
import { nowUs } from "./mastership.ts";
import type { ReplicaNode } from "./node.ts";
import { checkPath, parentOf } from "./paths.ts";
import {
  type Action,
  type Command,
  INLINE_BYTES,
  type Item,
  MetadataBody,
  MoveBody,
  NOTHING,
  PutBody,
} from "./protocol.ts";
import { directoryItem, type Tree } from "./tree.ts";

const quoted = (path: string) => JSON.stringify(path === "" ? "/" : path);

/** A content that a client has sent: in memory when it is small, else staged. */
type Content = Pick<Item, "sizeBytes" | "digest" | "blob"> & { bytes: Buffer };

const change = (action: Action, path: string, body: Buffer, request?: Buffer): Change => ({
  action,
  path,
  body,
  timeUs: nowUs(),
  ...(request === undefined ? {} : { request: Buffer.from(request) }),
});
const putBody = (item: Item, content: Buffer = NOTHING): Buffer =>
  encode(PutBody, { item, content } satisfies ValueOf<typeof PutBody>);

function tipOf(node: ReplicaNode): Tree {
  node.mastership.refuseUnlessWritable();
  if (node.mastership.tip === undefined) throw new Error("a master has a tip");
  return node.mastership.tip;
}

/** The directory in which the path is must be there. Throws `Failure` as a Unix command would. */
function checkPlace(tip: Tree, path: string): void {
  if (path === "") throw new Failure("that is the directory itself");
  const parent = tip.get(parentOf(path));
  if (parent === undefined) throw new Failure(`${quoted(parentOf(path))}: no such directory`);
  if (parent.kind !== "directory") throw new Failure(`${quoted(parentOf(path))} is not a directory`);
}
function existing(tip: Tree, path: string): Item {
  const item = tip.get(path);
  if (item === undefined) throw new Failure(`${quoted(path)}: no such file or directory`);
  return item;
}

/** Carries out a command that changes the tree; resolves when it is committed. */
export async function write(
  node: ReplicaNode,
  connection: Connection,
  path: string,
  asked: Command,
): Promise<void> {
  const { operation, request } = asked;
  // Its chunks are taken whatever becomes of it: behind them comes the next command.
  const content = operation === "write" ? await receive(node, connection) : undefined;
  const before = node.mastership.repeated(request);
  if (before !== undefined) return before;
  const tip = tipOf(node);
  switch (operation) {
    case "write":
      return putFile(node, path, content as Content, asked);
    case "mkdir":
      return makeDirectory(node, path, asked);
    case "touch": {
      const item = tip.get(path);
      if (item === undefined) return putFile(node, path, emptyContent(), { ...asked, mode: 0o644 });
      return node.mastership.write(
        change(
          "metadata",
          path,
          encode(MetadataBody, {
            mode: asked.mode || item.mode,
            mtimeUs: asked.mode ? item.mtimeUs : nowUs(),
          }),
          request,
        ),
      );
    }
    case "remove":
    case "rmdir":
      checkRemoval(tip, path, asked);
      return node.mastership.write(change("delete", path, NOTHING, request));
    case "move":
      return move(node, path, asked);
    case "copy":
      return copy(node, path, checkPath(asked.to), asked);
    default:
      throw new Failure(`${operation} is not a command`);
  }
}

async function receive(node: ReplicaNode, connection: Connection): Promise<Content> {
  const hash = createHash("sha256");
  const small: Buffer[] = [];
  let sizeBytes = 0;
  const aside = node.disk.aside();
  const file = await open(aside, "wx", 0o600);
  try {
    while (true) {
      const { action, data } = await nextFrame(connection);
      if (action !== "chunk") throw new Failure(`${action} came in place of chunk`);
      if (data.length === 0) break;
      sizeBytes += data.length;
      if (sizeBytes <= INLINE_BYTES) small.push(Buffer.from(data));
      await hashAndWrite(hash, file, data);
    }
    if (sizeBytes > INLINE_BYTES && node.options.isSynchronous) await file.sync();
  } catch (error) {
    rmSync(aside, { force: true });
    throw error;
  } finally {
    await file.close();
  }
  return stagedContent(node, aside, sizeBytes, hash.digest(), Buffer.concat(small));
}

function stagedContent(
  node: ReplicaNode,
  aside: string,
  sizeBytes: number,
  digest: Buffer,
  small: Buffer,
): Content {
  if (sizeBytes <= INLINE_BYTES) {
    rmSync(aside);
    return { sizeBytes: BigInt(sizeBytes), digest, blob: NOTHING, bytes: small };
  }
  const blob = randomBytes(16);
  renameSync(aside, join(node.store.stage, hexOf(blob)));
  return { sizeBytes: BigInt(sizeBytes), digest, blob, bytes: NOTHING };
}
const emptyContent = (): Content => ({
  sizeBytes: 0n,
  digest: createHash("sha256").digest(),
  blob: NOTHING,
  bytes: NOTHING,
});

async function putFile(node: ReplicaNode, path: string, content: Content, asked: Command): Promise<void> {
  const tip = tipOf(node);
  checkPlace(tip, path);
  const before = tip.get(path);
  if (before?.kind === "directory") throw new Failure(`${quoted(path)} is a directory`);
  const { bytes, ...rest } = content;
  const mode = (asked.mode || before?.mode || 0o644) & 0o7777;
  const item: Item = { kind: "file", mode, mtimeUs: nowUs(), target: "", ...rest };
  await node.mastership.write(
    change(before === undefined ? "add" : "modify", path, putBody(item, bytes), asked.request),
  );
}

async function makeDirectory(
  node: ReplicaNode,
  path: string,
  { recursive, request, mode }: Command,
): Promise<void> {
  const tip = tipOf(node);
  const item = tip.get(path);
  if (recursive && item?.kind === "directory") return node.mastership.confirm();
  if (item !== undefined) throw new Failure(`${quoted(path)} exists`);
  if (recursive && tip.get(parentOf(path)) === undefined)
    await makeDirectory(node, parentOf(path), {
      operation: "mkdir",
      recursive,
      request: Buffer.alloc(8),
      mode,
      to: "",
    });
  checkPlace(tipOf(node), path);
  await node.mastership.write(change("mkdir", path, putBody(directoryItem(mode || 0o755, nowUs())), request));
}

function checkRemoval(tip: Tree, path: string, { operation, recursive }: Command): void {
  if (path === "") throw new Failure("that is the directory itself");
  const item = existing(tip, path);
  if (operation === "rmdir" && item.kind !== "directory")
    throw new Failure(`${quoted(path)} is not a directory`);
  if (operation === "rmdir" && tip.names(path).length > 0) throw new Failure(`${quoted(path)} is not empty`);
  if (operation === "remove" && item.kind === "directory" && !recursive)
    throw new Failure(`${quoted(path)} is a directory; rm -r removes it`);
}

async function move(node: ReplicaNode, from: string, { to, request }: Command): Promise<void> {
  checkPath(to);
  const tip = tipOf(node);
  const item = existing(tip, from);
  if (from === "" || to === from || to.startsWith(`${from}/`))
    throw new Failure(`cannot move ${quoted(from)} to ${quoted(to)}: it is the same, or within itself`);
  checkPlace(tip, to);
  const there = tip.get(to);
  if (there?.kind === "directory" && (item.kind !== "directory" || tip.names(to).length > 0))
    throw new Failure(`${quoted(to)} is a directory${item.kind === "directory" ? " and not empty" : ""}`);
  if (there !== undefined && there.kind !== "directory" && item.kind === "directory")
    throw new Failure(`${quoted(to)} is not a directory`);
  await node.mastership.write(change("move", from, encode(MoveBody, { to }), request));
}

/** Copies on the master; the contents go to the others like any other. */
async function copy(node: ReplicaNode, from: string, to: string, asked: Command): Promise<void> {
  const item = existing(tipOf(node), from);
  if (item.kind === "directory" && !asked.recursive)
    throw new Failure(`${quoted(from)} is a directory; cp -r copies it`);
  if (to === from || to.startsWith(`${from}/`) || from === "")
    throw new Failure(`cannot copy ${quoted(from)} to ${quoted(to)}: it is the same, or within itself`);
  checkPlace(tipOf(node), to);
  const copies = [...tipOf(node).walk(from)].map(([path, item]) => ({
    path,
    item,
    to: to + path.slice(from.length),
  }));
  for (const [i, one] of copies.entries()) {
    // The last one carries the request: when that is done, all is.
    const request = i === copies.length - 1 ? asked.request : undefined;
    await copyOne(node, one.path, one.item, one.to, request);
  }
}

async function copyOne(
  node: ReplicaNode,
  from: string,
  item: Item,
  to: string,
  request?: Buffer,
): Promise<void> {
  const there = tipOf(node).get(to);
  if (item.kind === "directory") {
    if (there?.kind === "directory" && request === undefined) return;
    if (there?.kind !== "directory" || request !== undefined)
      await node.mastership.write(
        change("mkdir", to, putBody({ ...directoryItem(item.mode, nowUs()) }), request),
      );
    return;
  }
  if (there?.kind === "directory") throw new Failure(`${quoted(to)} is a directory`);
  const action = there === undefined ? "add" : "modify";
  if (item.kind === "link") return node.mastership.write(change(action, to, putBody(item), request));
  const aside = node.disk.aside();
  const { digest, sizeBytes } = await snapshotFile(
    await node.disk.open(from),
    aside,
    node.options.isSynchronous,
  );
  let small: Buffer = NOTHING;
  if (sizeBytes <= INLINE_BYTES) {
    await using file = await open(aside, "r");
    small = await file.readFile();
  }
  const { bytes, ...content } = stagedContent(node, aside, sizeBytes, digest, small);
  await node.mastership.write(
    change(action, to, putBody({ ...item, mtimeUs: nowUs(), ...content }, bytes), request),
  );
}
