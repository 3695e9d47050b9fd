/** Ports for programs that cannot choose one themselves. */
import { once } from "node:events";
import { createServer, type Server } from "node:net";

/** Below the ports that systems give away on their own (from 32,768 up on Linux), lest somebody who asks for any port gets one. */
const PORTS = { first: 20_000, blocks: 127, blockSize: 100 };
let block: Promise<{ next: number; end: number }> | undefined;

/**
 * A port that nobody has, for a program that cannot choose one itself. Nobody else who asks gets it as long as this process
 * lives, though the program may have died and is to come back on it.
 */
export async function freePort(): Promise<number> {
  while (true) {
    block ??= claimBlock();
    const [own, range] = [block, await block];
    if (range.next < range.end) {
      const port = range.next++;
      const server = await listeningOn(port);
      if (server === undefined) continue;
      server.close();
      await once(server, "close");
      return port;
    }
    if (block === own) block = undefined;
  }
}

/** Whoever listens on the first port of a block has the others. */
async function claimBlock(): Promise<{ next: number; end: number }> {
  const { first, blocks, blockSize } = PORTS;
  for (let i = 0; i < blocks; i++) {
    const port = first + ((process.pid + i) % blocks) * blockSize;
    const server = await listeningOn(port);
    server?.unref();
    if (server !== undefined) return { next: port + 1, end: port + blockSize };
  }
  throw new Error(`no block of ports is free from ${first} up`);
}

async function listeningOn(port: number): Promise<Server | undefined> {
  const server = createServer().listen(port, "127.0.0.1");
  return await once(server, "listening").then(
    () => server,
    () => undefined,
  );
}
