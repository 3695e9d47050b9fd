/** A document fetched from whoever has its content: begun with one node, finished with another if need be, and checked. */
import { createHash } from "node:crypto";
import { link, lstat, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import type { Document } from "./document-index.ts";
import { fetchContent } from "./exchange.ts";
import { hashLarge } from "./folder.ts";
import type { Place } from "./membership.ts";
import { plainName, printable } from "./safe-path.ts";

/** A node at one of its addresses. */
export interface Source extends Place {
  label: string;
}

interface GetOptions {
  /** The folder that the document is put into; nothing is ever written elsewhere. */
  into: string;
  signal: AbortSignal;
  log: (line: string) => void;
  onBytes?: (bytes: number) => void;
}

interface Got {
  /** The file's name in the folder. */
  name: string;
  /** Those that gave something of it, in order; none where it was there already. */
  from: string[];
}

/** No other source is any help. */
class DiskFailure extends Failure {}
const cannotWrite = (path: string) => (error: unknown) => {
  throw new DiskFailure(`cannot write ${printable(path)}`, { cause: error });
};

/**
 * Puts a file with the document's content and the last part of its path into the folder. One that is there is never
 * overwritten. Throws `Failure` where no source has it.
 */
export async function get(document: Document, sources: readonly Source[], options: GetOptions): Promise<Got> {
  const name = plainName(document.path);
  const target = join(options.into, name);
  if (await isThere(target, document.sha256, options.signal)) return { name, from: [] };
  // Two programs that get one content into one folder must not write into each other's file.
  const part = join(options.into, `.${document.sha256.slice(0, 16)}-${process.pid}.nldi-part`);
  await rm(part, { force: true });
  try {
    const from = await fetchTo(part, document, sources, options);
    await link(part, target).catch(cannotWrite(target)); // unlike rename it never replaces what has come there meanwhile
    return { name, from };
  } finally {
    await rm(part, { force: true });
  }
}

/** Whether the content is there already. Throws `Failure` where something else is. */
async function isThere(target: string, sha256: string, signal: AbortSignal): Promise<boolean> {
  const stats = await lstat(target).catch(() => undefined);
  if (stats === undefined) return false;
  if (stats.isFile() && (await hashLarge(target, signal)).sha256 === sha256) return true;
  throw new Failure(`cannot write ${printable(target)}: something else is there; rename or remove it`);
}

/** First each goes on where the one before ended; where the whole is wrong then, nobody knows who lied, so each is tried alone. */
async function fetchTo(
  part: string,
  document: Document,
  sources: readonly Source[],
  options: GetOptions,
): Promise<string[]> {
  const together = await attempt(part, document, sources, options);
  if (together !== undefined) return together;
  for (const source of sources.length > 1 ? sources : []) {
    const alone = await attempt(part, document, [source], options).catch((error: unknown) => {
      if (options.signal.aborted || error instanceof DiskFailure || !isFailure(error)) throw error;
      return undefined; // it is the next one's turn
    });
    if (alone !== undefined) return alone;
  }
  throw new Failure(`cannot get ${printable(document.path)}: no node gives the content that it announces`);
}

/** Those that gave it; undefined where the content is not what its hash says. Throws `Failure` where it is not whole. */
async function attempt(
  part: string,
  document: Document,
  sources: readonly Source[],
  { signal, log, onBytes }: GetOptions,
): Promise<string[] | undefined> {
  const hash = createHash("sha256");
  const file = await open(part, "w", 0o644).catch(cannotWrite(part));
  const from: string[] = [];
  let at = 0;
  let reason: unknown = new Failure("no node has it");
  try {
    for (const source of sources) {
      const begin = at;
      try {
        for await (const chunk of fetchContent(source, document, at, signal)) {
          await file.appendFile(chunk).catch(cannotWrite(part));
          hash.update(chunk);
          at += chunk.length;
          onBytes?.(at);
        }
      } catch (error) {
        if (!isFailure(error) || signal.aborted || error instanceof DiskFailure) throw error;
        reason = error;
        log(`${source.label}: ${explain(error)} (${at} of ${document.size} bytes are here)`);
      }
      if (at > begin) from.push(source.label);
      if (at < document.size) continue;
      if (hash.digest("hex") === document.sha256) return from.length > 0 ? from : [source.label];
      log(`${from.join(" and ")} gave a content that is not the announced one: thrown away`);
      return undefined;
    }
  } finally {
    await file.close();
  }
  throw new Failure(`cannot get ${printable(document.path)}`, { cause: reason });
}
