/** A file server on reliable UDP: get, put and list under a root. */

import { stat } from "node:fs/promises";
import { flag, setting, text } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { explain, Failure, isFailure, UsageError } from "../../shared/errors.ts";
import { printable } from "../../shared/printable.ts";
import { listenAt, program } from "../../shared/program.ts";
import type { Connection } from "./connection.ts";
import { type Address, NO_HASH } from "./endpoint.ts";
import { HashMemory, listing, pathUnder, SourceFile, TargetFile } from "./files.ts";
import { type ErrorCode, numberOf, PORT } from "./protocol.ts";
import { connectionOptions, rateText, SERVER_SETTINGS } from "./settings.ts";
import { serveRudp } from "./socket.ts";
import { ended, failWith, receive, send, sourceOf } from "./transfer.ts";

/** How often a client is told that its file is still being hashed. */
const PREPARING_MS = 250;

interface Service {
  root: string;
  isWritable: boolean;
  hashes: HashMemory;
}

/** A refusal that the client is told, with its code. */
class Refusal extends Failure {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, reason: string) {
    super(reason);
    this.code = code;
  }
}

async function get(connection: Connection, token: Buffer, { root, hashes }: Service): Promise<number> {
  const { name, offset } = connection.open;
  const start = numberOf(offset);
  await using file = await openSource(root, name);
  if (start > file.size)
    throw new Refusal("changed", `${name} has ${file.size} bytes, fewer than the ${start} to go on from`);
  const sha256 = await hashOf(file, connection, hashes);
  const end = ended(connection);
  connection.accept(token, file.size, sha256);
  send(connection, file, start);
  await end;
  return file.size - start;
}

async function openSource(root: string, name: string): Promise<SourceFile> {
  try {
    return await SourceFile.open(await pathUnder(root, name));
  } catch (error) {
    if (!isFailure(error)) throw error;
    const isThere = error instanceof Failure || (error as NodeJS.ErrnoException).code !== "ENOENT";
    throw new Refusal("not found", isThere ? explain(error) : `there is no ${name}`);
  }
}

async function hashOf(file: SourceFile, connection: Connection, hashes: HashMemory): Promise<Buffer> {
  let toldMs = performance.now();
  return await file.hash(hashes, (done) => {
    if (connection.state === "ended") throw new Failure("the client has gone");
    if (performance.now() - toldMs < PREPARING_MS) return;
    toldMs = performance.now();
    connection.prepare(done);
  });
}

async function put(connection: Connection, token: Buffer, { root, isWritable }: Service): Promise<number> {
  const { name, size: announced, sha256 } = connection.open;
  if (!isWritable) throw new Refusal("refused", "this server takes no files; start it with --writable");
  const size = numberOf(announced);
  const path = await pathUnder(root, name);
  await using target = await TargetFile.create(path, token.toString("hex"));
  const end = ended(connection);
  connection.accept(token, size, sha256);
  receive(connection, target, size, sha256);
  await end;
  return size;
}

async function list(connection: Connection, token: Buffer, { root }: Service): Promise<number> {
  const lines = await listing(root);
  const end = ended(connection);
  connection.accept(token, lines.length, NO_HASH);
  send(connection, sourceOf(lines), 0);
  await end;
  return lines.length;
}

async function events(): Promise<number> {
  throw new Refusal("refused", "this server serves files; events are for compare.ts");
}

const SERVICES = { get, put, list, events };

async function serve(
  connection: Connection,
  token: Buffer,
  from: Address,
  service: Service,
  log: (line: string) => void,
): Promise<void> {
  const { request, name } = connection.open;
  const who = `${formatAddress(from.address, from.port)}: ${request}${name && ` ${printable(name)}`}`;
  const startMs = performance.now();
  try {
    const bytes = await SERVICES[request](connection, token, service);
    const ms = performance.now() - startMs;
    const { sentPackets, repeatedPackets } = connection;
    log(
      `${who}: ${bytes} bytes in ${(ms / 1000).toFixed(2)} s (${rateText(bytes, ms)}), ${sentPackets} packets sent, ${repeatedPackets} of them again`,
    );
  } catch (error) {
    if (!isFailure(error)) throw error;
    if (error instanceof Refusal) connection.fail(error.code, error.message);
    else failWith(connection, error);
    log(`${who}: ${printable(explain(error))}`);
  }
}

await program({
  summary: "A file server on reliable UDP.",
  example: "--port 0 --root . --writable",
  settings: {
    ...listenAt(PORT),
    root: setting(text, "folder whose files are served"),
    writable: flag("take files that clients put"),
    ...SERVER_SETTINGS,
  },
  async run(settings, { signal, log, debug, ready }) {
    const { host, port, root, writable } = settings;
    const stats = await stat(root).catch((error: unknown) => {
      throw new UsageError(`cannot read --root ${JSON.stringify(root)}`, { cause: error });
    });
    if (!stats.isDirectory()) throw new UsageError(`--root ${JSON.stringify(root)} is no folder`);
    const service: Service = { root, isWritable: writable, hashes: new HashMemory() };
    const connection = connectionOptions(settings);
    const running = new Set<Promise<void>>();
    const { url, closed } = await serveRudp({ host, port, connection, signal, log, debug }, (...request) => {
      const transfer = serve(...request, service, log);
      running.add(transfer);
      void transfer.finally(() => running.delete(transfer));
    });
    ready(url);
    await closed;
    await Promise.all(running); // each removes its part
  },
});
