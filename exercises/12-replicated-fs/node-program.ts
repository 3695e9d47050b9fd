/** What `master.ts` and `replica.ts` have in common: all but how a node without state begins. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, realpathSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { flag, hostPort, integer, optional, type SettingsValue, setting, text } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { explain, Failure, isFailure, UsageError } from "../../shared/errors.ts";
import { lock, unlock } from "../../shared/folder-lock.ts";
import { decode, encode } from "../../shared/pdu.ts";
import { type Context, configFile, listenAt } from "../../shared/program.ts";
import { serve } from "../../shared/tcp.ts";
import { ELECTION_MS } from "./consensus.ts";
import { dial, NO_CLUSTER, nextFrame, refuseOpenHost, secretOf } from "./link.ts";
import { LocalChanges } from "./local-changes.ts";
import { ReplicaNode } from "./node.ts";
import { frame, PORT, Registration, Result } from "./protocol.ts";
import { serveConnection } from "./session.ts";
import { type Identity, Store } from "./store.ts";
import { Tree } from "./tree.ts";
import { verify } from "./verify.ts";

type Address = { host: string; port: number };
const AGAIN_MS = 500;

export const nodeSettings = (port: number) => ({
  ...listenAt(port),
  dir: setting(text, "directory that is replicated; made where there is none"),
  state: optional(
    text,
    "folder for the log and what is set aside, on the same file system (default: DIR.netlab)",
  ),
  advertise: optional(
    hostPort(PORT),
    "address at which the others reach this node (default: where it listens)",
  ),
  secretFile: optional(
    text,
    "file with the secret that all nodes and clients share; without one only loopback is served",
  ),
  minReplicas: setting(
    integer(0, 100),
    "nodes beside the master that must have a write on disk; never fewer than a majority needs",
    1,
  ),
  electionMs: setting(
    integer(500, 60_000),
    "milliseconds without a word of the master after which, up to twice that, another is elected; the same on all nodes",
    ELECTION_MS,
  ),
  unsynced: flag("do not wait for the disk: for measurements, and for data that may be lost"),
  verify: flag("compare the tree with those of the other nodes, by hash, print what differs, and end"),
  config: configFile("config/replicated-fs.ini"),
});
type NodeSettings = SettingsValue<ReturnType<typeof nodeSettings>>;

export async function runNode(settings: NodeSettings, context: Context, master?: Address): Promise<void> {
  const { signal } = context;
  const dir = resolve(settings.dir);
  const state = resolve(settings.state ?? `${dir}.netlab`);
  const secret = secretOf(settings.secretFile);
  if (settings.verify) return verify({ dir, state, secret, signal });
  refuseOpenHost(settings.host, secret);
  mkdirSync(dir, { recursive: true });
  mkdirSync(state, { recursive: true, mode: 0o700 });
  refuseOverlap(realpathSync(dir), realpathSync(state));
  try {
    lock(state, "give another --dir, or stop that");
  } catch (error) {
    throw new Failure(`cannot use ${state}`, { cause: error });
  }
  try {
    const release = await holdDirectory(dir);
    await live(settings, context, { dir, state, secret, master }).finally(release);
  } finally {
    unlock(state);
  }
}

/**
 * One node a directory, whatever its state is called. On Linux a name that begins with a zero octet is in no directory,
 * and is free again when its process has ended, however it did (unix(7), abstract sockets); elsewhere nothing is held.
 */
async function holdDirectory(dir: string): Promise<() => void> {
  if (process.platform !== "linux") return () => {};
  const { dev, ino } = statSync(dir, { bigint: true });
  const server = createServer((socket) => socket.destroy());
  server.listen(`\0netlab-replicated-fs-${dev}-${ino}`);
  try {
    await once(server, "listening");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    throw new Failure(`cannot use ${dir}: another node replicates it; give another --dir, or stop that`);
  }
  server.unref();
  return () => server.close();
}

async function live(
  settings: NodeSettings,
  { signal, log, debug, ready }: Context,
  { dir, state, secret, master }: { dir: string; state: string; secret: Buffer; master: Address | undefined },
): Promise<void> {
  const store = new Store(state, !settings.unsynced);
  let begin: (node: ReplicaNode) => void = () => {};
  const begun = new Promise<ReplicaNode>((resolve) => {
    begin = resolve;
  });
  // Its master calls as soon as it has registered: whoever is early waits.
  const server = await serve(
    { host: settings.host, port: settings.port, signal, log: debug },
    async (connection) => serveConnection(await begun, connection),
  );
  const own = (localHost = settings.host): Address =>
    settings.advertise ?? { host: isWildcard(settings.host) ? localHost : settings.host, port: server.port };

  if (store.identity === undefined && master === undefined) await bootstrap(store, own());
  while (store.identity === undefined) {
    try {
      const identity = await joinAt(store, master as Address, secret, own);
      await store.saveIdentity(identity);
    } catch (error) {
      if (!isFailure(error)) throw error;
      if (signal.aborted) return;
      log(`cannot register: ${explain(error)}; trying again`);
      await delay(AGAIN_MS, undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
    }
  }
  const node = new ReplicaNode(
    {
      dir,
      state,
      secret,
      own,
      minReplicas: settings.minReplicas,
      isSynchronous: !settings.unsynced,
      electionMs: settings.electionMs,
      signal,
      log,
      debug,
    },
    store,
  );
  const changes = new LocalChanges(node);
  node.onMaster = () => changes.start();
  node.onReplica = () => changes.stop();
  begin(node);
  await node.start();
  log(`node ${node.id} of ${store.identity.cluster.slice(0, 8)}: ${dir}`);
  ready(server.url);
  await Promise.race([server.closed, node.failed, keepRegistered(node, secret, own, master)]);
  changes.stop();
}

const isWildcard = (host: string) => host === "0.0.0.0" || host === "::";

function refuseOverlap(dir: string, state: string): void {
  if (`${state}/`.startsWith(`${dir}/`))
    throw new UsageError(`--state ${state} lies in the directory that is replicated`);
  if (statSync(dir).dev !== statSync(state).dev)
    throw new UsageError(
      `--state ${state} is on another file system than ${dir}: files could not be renamed into place`,
    );
}

/** A new file system, of which this is the first node. */
async function bootstrap(store: Store, { host, port }: Address): Promise<void> {
  if (isWildcard(host)) throw new UsageError(`--advertise is missing: nobody can reach ${host}`);
  const uid = randomBytes(16);
  const tree = new Tree([], [], [{ id: 1, uid, host, port }]);
  await store.saveBase({ index: 0, term: 0, members: [1] }, tree);
  await store.saveIdentity({ cluster: randomBytes(16).toString("hex"), uid: uid.toString("hex"), id: 1 });
}

type Own = (localHost?: string) => Address;

/** Asks the node, or the master that it names, for an id. Throws `Failure`. */
async function joinAt(store: Store, at: Address, secret: Buffer, own: Own): Promise<Identity> {
  const uid = store.identity?.uid ?? randomBytes(16).toString("hex");
  const { cluster, id, contact } = await register(at, secret, uid, own, store.identity);
  return { cluster, uid, id, contact };
}

async function register(
  at: Address,
  secret: Buffer,
  uid: string,
  own: Own,
  before?: Identity,
  hops = 3,
): Promise<Identity & { contact: { id: number } & Address }> {
  const cluster = before === undefined ? NO_CLUSTER : Buffer.from(before.cluster, "hex");
  const dialed = await dial({ ...at, secret, id: before?.id ?? 0, cluster, timeoutMs: 2000 });
  try {
    const { connection } = dialed;
    connection.timeoutMs = 5000;
    const data = encode(Registration, { uid: Buffer.from(uid, "hex"), ...own(connection.localHost) });
    await connection.write(frame(before?.id ?? 0, "register", "", data));
    const { outcome, text } = decode(Result, (await nextFrame(connection)).data);
    if (outcome === "done")
      return {
        cluster: dialed.cluster.toString("hex"),
        uid,
        id: Number(text),
        contact: { id: dialed.id, ...at },
      };
    if (outcome === "elsewhere" && hops > 0)
      return await register(hostPort(PORT)(text), secret, uid, own, before, hops - 1);
    throw new Failure(text);
  } finally {
    dialed.connection.destroy();
  }
}

/** Until a master is heard and the log names this node at its address, it asks to be put there: it may have been forgotten. Never resolves. */
async function keepRegistered(node: ReplicaNode, secret: Buffer, own: Own, master?: Address): Promise<never> {
  const { signal, debug } = node.options;
  const { identity } = node.store;
  while (!signal.aborted) {
    await delay(AGAIN_MS, undefined, { signal }).catch(() => {});
    const { host, port } = own();
    const self = node.members.find(({ id }) => id === node.id);
    const isRight = node.core.master !== 0 && self?.port === port && (isWildcard(host) || self.host === host);
    if (signal.aborted || isRight || identity === undefined) continue;
    try {
      const at = node.master ?? master;
      if (node.isMaster) node.mastership.register(Buffer.from(identity.uid, "hex"), host, port, node.id);
      else if (at !== undefined) await register(at, secret, identity.uid, own, identity);
    } catch (error) {
      if (!isFailure(error)) throw error;
      debug(`cannot register ${formatAddress(host, port)}: ${explain(error)}`);
    }
  }
  return new Promise(() => {});
}
