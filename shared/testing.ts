/** Difficult peers and honest checks, for tests. Starting programs is in `running.ts`, passed on from here. */
import { strict as assert } from "node:assert";
import { once } from "node:events";
import { type AddressInfo, connect as connectSocket, createServer, type Socket } from "node:net";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { namespacesMissing } from "./namespaces.ts";
import { isInstalled, PATIENCE_MS } from "./running.ts";
import { connect } from "./tcp.ts";

export * from "./free-port.ts";
export * from "./running.ts";

/** Test options that skip where a program is missing; under NETLAB_REQUIRE_TOOLS=1 a missing one fails. */
export function needs(...tools: string[]): { skip?: string } {
  const missing = tools.filter((tool) => !isInstalled(tool));
  if (missing.length === 0) return {};
  if (process.env["NETLAB_REQUIRE_TOOLS"] === "1") throw new Error(`not installed: ${missing.join(", ")}`);
  return { skip: `not installed: ${missing.join(", ")}` };
}

/** Test options that skip where two namespaces cannot be had (`namespaceLink`); root under NETLAB_REQUIRE_TOOLS=1 must have them. */
export function needsNamespaces(): { skip?: string } {
  const missing = namespacesMissing();
  if (missing === undefined) return {};
  const mustHave = process.env["NETLAB_REQUIRE_TOOLS"] === "1" && process.getuid?.() === 0;
  if (mustHave) throw new Error(missing);
  return { skip: missing };
}

/** Looks again and again until it holds, with patience; the error says what was waited for. */
export async function becomes(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const lateMs = performance.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(performance.now() < lateMs, `waited in vain for ${what}`);
    await sleep(10);
  }
}

/** Sends the bytes in pieces, each in a segment of its own where the receiver is quick enough to tell. Rejects when it is gone. */
export async function writeSplit(socket: Socket, bytes: Buffer, pieceBytes = 1): Promise<void> {
  socket.setNoDelay(true);
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    await new Promise<void>((resolve, reject) =>
      socket.write(bytes.subarray(at, at + pieceBytes), (error) => (error ? reject(error) : resolve())),
    );
    await nextTurn();
  }
}

/**
 * Says the lines behind `> ` and compares the whole conversation; `< (end)` is the peer's FIN. Lines end in CRLF:
 *
 *     await transcript(port, ["> hello", "< hello", "> (end)", "< (end)"]);
 */
export async function transcript(port: number, script: readonly string[]): Promise<void> {
  await using connection = await connect({ host: "127.0.0.1", port, timeoutMs: PATIENCE_MS });
  const actual: string[] = [];
  for (const line of script) {
    if (line === "> (end)") connection.end();
    else if (line.startsWith("> ")) await connection.write(`${line.slice(2)}\r\n`);
    actual.push(line.startsWith("> ") ? line : `< ${(await connection.readLine(1_000_000)) ?? "(end)"}`);
  }
  assert.deepEqual(actual, script);
}

/** What a relay does with a chunk: passes on these pieces, then may say no more in that direction, or reset both. */
export type Fault = (
  chunk: Buffer,
  offset: number,
  toServer: boolean,
) => { pieces: Buffer[]; outcome?: "stall" | "reset" | undefined };
export const splitAt =
  (pieceBytes: number): Fault =>
  (chunk) => ({
    pieces: Array.from({ length: Math.ceil(chunk.length / pieceBytes) }, (_, i) =>
      chunk.subarray(i * pieceBytes, (i + 1) * pieceBytes),
    ),
  });
const after =
  (outcome: "stall" | "reset", bytes: number): Fault =>
  (chunk, offset) => ({
    pieces: [chunk.subarray(0, bytes - offset)],
    outcome: offset + chunk.length >= bytes ? outcome : undefined,
  });
export const stallAfter = (bytes: number): Fault => after("stall", bytes);
export const resetAfter = (bytes: number): Fault => after("reset", bytes);

export interface Relay extends AsyncDisposable {
  readonly port: number;
}

/** A TCP relay on loopback that splits, stalls or resets: faults live on the path, not in the programs. */
export async function tcpRelay(toPort: number, fault: Fault): Promise<Relay> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const upstream = connectSocket({ port: toPort, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
    const pair = [client, upstream] as const;
    for (const socket of pair) {
      sockets.add(socket);
      socket.on("error", () => {
        for (const other of pair) other.resetAndDestroy();
      });
      socket.on("close", () => sockets.delete(socket));
    }
    void pump(client, upstream, true);
    void pump(upstream, client, false);
  });

  async function pump(from: Socket, to: Socket, toServer: boolean): Promise<void> {
    let offset = 0;
    try {
      for await (const chunk of from.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        const { pieces, outcome } = fault(chunk, offset, toServer);
        offset += chunk.length;
        for (const piece of pieces) await writeSplit(to, piece, piece.length);
        if (outcome === "reset") for (const socket of [from, to]) socket.resetAndDestroy();
        if (outcome !== undefined) return;
      }
      to.end();
    } catch {
      to.destroy(); // one side went away: so does the other
    }
  }

  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
