/** Gets a file from a server, puts one there, or lists what there is. */

import { basename } from "node:path";
import { flag, oneOf, optional, setting, text } from "../../shared/config.ts";
import { formatAddress } from "../../shared/connection.ts";
import { Failure, isFailure, UsageError } from "../../shared/errors.ts";
import { type Context, program, serverAt } from "../../shared/program.ts";
import { Progress } from "../../shared/progress.ts";
import { addressesOf } from "../../shared/udp.ts";
import type { Connection } from "./connection.ts";
import type { Request } from "./endpoint.ts";
import { HashMemory, SourceFile, TargetFile } from "./files.ts";
import { type Accept, MAX_NAME_BYTES, numberOf, PORT } from "./protocol.ts";
import { CONNECTION_SETTINGS, connectionOptions, rateText } from "./settings.ts";
import { type ConnectOptions, connectRudp, UnreachableError } from "./socket.ts";
import { collect, ended, receive, send } from "./transfer.ts";

const MAX_LISTING_BYTES = 64 * 2 ** 20;

type Use = (connection: Connection, accept: Accept, end: Promise<void>) => Promise<void>;

/** Asks at the addresses of a name, one after the other, until somebody is there. */
async function ask(request: Request, options: ConnectOptions, use: Use): Promise<void> {
  const addresses = await addressesOf(options.host);
  for (const [i, { address }] of addresses.entries()) {
    try {
      return await askAt(request, { ...options, host: address }, use);
    } catch (error) {
      if (!(error instanceof UnreachableError) || i === addresses.length - 1) throw error;
    }
  }
}

/** Asks, and does with the answer what is to be done with it. */
async function askAt(request: Request, options: ConnectOptions, use: Use): Promise<void> {
  const { connection, close } = await connectRudp(request, options);
  const end = ended(connection);
  try {
    const accepted = new Promise<Accept>((resolve) => {
      connection.handlers.onAccepted = resolve;
    });
    const accept = await Promise.race([accepted, end.then((): never => unexpectedEnd())]);
    await use(connection, accept, end);
  } finally {
    close();
  }
}

function unexpectedEnd(): never {
  throw new Failure("the server ended the connection");
}

const print = (line: string) => void process.stdout.write(`${line}\n`);

async function get(name: string, path: string, isContinued: boolean, options: ConnectOptions): Promise<void> {
  await using target = await (isContinued ? TargetFile.continue(path) : TargetFile.create(path)).catch(
    because(`cannot write ${path}`),
  );
  const offset = target.sizeBytes;
  const startMs = performance.now();
  await ask({ request: "get", name, offset }, options, async (connection, accept, end) => {
    const size = numberOf(accept.size);
    const progress = new Progress(size, offset, process.stderr.isTTY);
    const onProgress = () => progress.advance(target.sizeBytes - progress.bytes);
    receive(connection, target, size, Buffer.from(accept.sha256), onProgress);
    await end.finally(() => progress.end());
    const ms = performance.now() - startMs;
    const from = offset === 0 ? "" : `, from byte ${offset} on`;
    print(
      `${path}: ${size} bytes${from}, in ${(ms / 1000).toFixed(2)} s (${rateText(size - offset, ms)}), SHA-256 ${accept.sha256.toString("hex")}`,
    );
  });
}

async function put(path: string, name: string, options: ConnectOptions): Promise<void> {
  await using file = await SourceFile.open(path).catch(because(`cannot read ${path}`));
  const sha256 = await file.hash(new HashMemory());
  const startMs = performance.now();
  const { size } = file;
  await ask({ request: "put", name, size, sha256 }, options, async (connection, _, end) => {
    send(connection, file, 0);
    const progress = new Progress(size, 0, process.stderr.isTTY);
    const onTime = () => progress.advance((connection.output?.received ?? 0) - progress.bytes);
    const timer = setInterval(onTime, 200);
    await end.finally(() => {
      clearInterval(timer);
      progress.end();
    });
    const ms = performance.now() - startMs;
    print(
      `${name}: ${size} bytes in ${(ms / 1000).toFixed(2)} s (${rateText(size, ms)}), ${connection.repeatedPackets} packets sent again, SHA-256 ${sha256.toString("hex")}`,
    );
  });
}

async function list(options: ConnectOptions): Promise<void> {
  await ask({ request: "list", name: "" }, options, async (connection, accept, end) => {
    const lines = await Promise.race([
      collect(connection, numberOf(accept.size), MAX_LISTING_BYTES),
      end.then(() => Buffer.alloc(0)),
    ]);
    process.stdout.write(lines);
    await end;
  });
}

await program({
  summary:
    "Gets a file from a reliable-UDP server (get NAME), puts one there (put FILE), or lists them (list).",
  example: "list --port 11100",
  settings: {
    command: setting(oneOf("get", "put", "list"), "what to do: get, put or list", undefined, {
      positional: true,
    }),
    name: optional(text, "get: the file's name at the server; put: the file", { positional: true }),
    ...serverAt(PORT),
    output: optional(text, "get: where to put it (default: its name, here); put: its name at the server"),
    continue: flag("get: go on with what an earlier try has left"),
    ...CONNECTION_SETTINGS,
  },
  async run(settings, { signal }: Context) {
    const { command, name, host, port, output, continue: isContinued } = settings;
    const options = { host, port, signal, connection: connectionOptions(settings) };
    const where = `udp://${formatAddress(host, port)}`;
    if (command === "list") {
      if (name !== undefined) throw new UsageError(`list takes no name: ${JSON.stringify(name)}`);
      return await list(options).catch(because(`cannot list ${where}`));
    }
    if (name === undefined) throw new UsageError(`NAME is missing: ${command} what?`);
    if (isContinued && command !== "get") throw new UsageError("--continue is for get only");
    const target = output ?? basename(name);
    if (name === "" || target === "") throw new UsageError("a file's name is missing");
    const nameBytes = Buffer.byteLength(command === "get" ? name : target);
    if (nameBytes > MAX_NAME_BYTES)
      throw new UsageError(`NAME is ${nameBytes} bytes, more than ${MAX_NAME_BYTES}`);
    if (command === "get")
      return await get(name, target, isContinued, options).catch(because(`cannot get ${name} from ${where}`));
    await put(name, target, options).catch(because(`cannot put ${name} to ${where}`));
  },
});

function because(what: string): (error: unknown) => never {
  return (error) => {
    throw isFailure(error) ? new Failure(what, { cause: error }) : error;
  };
}
