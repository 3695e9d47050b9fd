/** Compares the directory with those of the other nodes, by the hashes of what lies on their disks. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { formatAddress } from "../../shared/connection.ts";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { decode } from "../../shared/pdu.ts";
import { digestOf } from "./apply.ts";
import { Disk } from "./disk.ts";
import { dial, nextFrame } from "./link.ts";
import { frame, Item, type Member, NOTHING, Result } from "./protocol.ts";
import { itemOf } from "./session.ts";
import { Store } from "./store.ts";

interface VerifyOptions {
  dir: string;
  state: string;
  secret: Buffer;
  signal: AbortSignal;
}
type Items = Map<string, Item>;

/** Prints the differences; throws `Failure` where there are any, or a node could not be asked. */
export async function verify({ dir, state, secret, signal }: VerifyOptions): Promise<void> {
  if (!existsSync(join(state, "identity")))
    throw new Failure(`${dir} is no node's directory: there is nothing in ${state}`);
  await using store = new Store(state, false);
  const { identity } = store;
  if (identity === undefined) throw new Failure(`cannot read the state in ${state}`);
  const members = store.log.findLast((entry) => entry.nodes !== undefined)?.nodes ?? store.tree.members;
  const own = await itemsHere(new Disk(dir, store.stage));
  let bad = 0;
  for (const member of members.filter(({ id }) => id !== identity.id)) {
    const name = `node ${member.id} at ${formatAddress(member.host, member.port)}`;
    try {
      const other = await itemsOf(member, secret, identity.id, Buffer.from(identity.cluster, "hex"), signal);
      const lines = differences(own, other);
      for (const line of lines) process.stdout.write(`${name}: ${line}\n`);
      if (lines.length === 0) process.stdout.write(`${name}: the same, ${own.size - 1} paths\n`);
      if (lines.length > 0) bad++;
    } catch (error) {
      if (!isFailure(error)) throw error;
      process.stdout.write(`${name}: cannot be compared: ${explain(error)}\n`);
      bad++;
    }
  }
  if (bad > 0)
    throw new Failure(`${bad} of ${members.length - 1} other nodes are not the same, or could not be asked`);
}

async function itemsHere(disk: Disk): Promise<Items> {
  const items: Items = new Map();
  for await (const [path, found] of disk.walk())
    if (found.kind !== "other") items.set(path, itemOf(found, (await digestOf(disk, path)) ?? NOTHING));
  return items;
}

/** What a node says lies on its disk. Throws `Failure` where it says nothing for a minute. */
export async function itemsOf(
  member: Pick<Member, "host" | "port">,
  secret: Buffer,
  id: number,
  cluster: Buffer,
  signal: AbortSignal,
): Promise<Items> {
  const { host, port } = member;
  const { connection } = await dial({ host, port, secret, id, cluster, signal });
  connection.timeoutMs = 60_000;
  try {
    await connection.write(frame(id, "digest"));
    const items: Items = new Map();
    while (true) {
      const { action, path, data } = await nextFrame(connection);
      if (action === "manifest") {
        items.set(path, decode(Item, Buffer.from(data)));
        continue;
      }
      const { outcome, text } = decode(Result, data);
      if (outcome === "done") return items;
      if (outcome !== "waiting") throw new Failure(text);
    }
  } finally {
    connection.destroy();
  }
}

export function differences(own: Items, other: Items): string[] {
  const paths = [...new Set([...own.keys(), ...other.keys()])].sort();
  return paths.flatMap((path) => {
    const [here, there] = [own.get(path), other.get(path)];
    const what =
      here === undefined ? "only there" : there === undefined ? "only here" : difference(here, there);
    return what === undefined ? [] : [`${what}: ${JSON.stringify(`/${path}`)}`];
  });
}

function difference(here: Item, there: Item): string | undefined {
  if (here.kind !== there.kind) return `${here.kind} here, ${there.kind} there`;
  if (!here.digest.equals(there.digest)) return "content differs";
  if (here.target !== there.target) return "the link's target differs";
  if (here.mode !== there.mode)
    return `permissions ${here.mode.toString(8)} here, ${there.mode.toString(8)} there`;
  if (here.mtimeUs !== there.mtimeUs) return "time of modification differs";
  return undefined;
}
