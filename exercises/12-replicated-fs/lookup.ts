/** What the words of a command name: paths relative to where the user is, globs, and what may complete the last word. */
import { readdir } from "node:fs/promises";
import { Failure, isFailure } from "../../shared/errors.ts";
import { nameOf } from "./paths.ts";
import { type Listed, Refused, type Remote } from "./remote.ts";
import { isGlob, matches, quote, resolvePath, unescaped, type Word } from "./words.ts";

/** In the file system, or on the machine where the client runs. */
export type Place = "there" | "here";

export class Lookup {
  /** Where the user is. */
  folder = "";
  readonly #remote: Remote;

  constructor(remote: Remote) {
    this.#remote = remote;
  }

  resolve(path: string): string {
    return resolvePath(this.folder, path);
  }

  /** The paths that the words name, globs expanded. Throws `Failure` where a glob fits nothing. */
  async paths(words: readonly Word[], mayBeMissing = false): Promise<string[]> {
    const paths: string[] = [];
    for (const { pattern, text } of words) {
      const found = isGlob(pattern) ? await this.#expand(pattern) : [this.resolve(text)];
      if (found.length === 0 && !mayBeMissing) throw new Failure(`${text}: nothing is called so`);
      paths.push(...(found.length === 0 ? [this.resolve(text)] : found));
    }
    return paths;
  }

  async #expand(pattern: string): Promise<string[]> {
    let bases = [pattern.startsWith("/") ? "" : this.folder];
    for (const part of pattern.split("/").filter((part) => part !== "")) {
      if (!isGlob(part)) {
        bases = bases.map((base) => resolvePath(base, unescaped(part)));
        continue;
      }
      const next: string[] = [];
      for (const base of bases) next.push(...(await this.#matching(base, part)));
      bases = next;
    }
    const isThere = await Promise.all(
      bases.map((base) => (pattern.endsWith("*") ? true : this.#exists(base))),
    );
    return bases.filter((_, i) => isThere[i]);
  }
  async #matching(base: string, part: string): Promise<string[]> {
    const listed = await this.#remote.list(base).catch(noneWhereRefused);
    return listed
      .slice(1)
      .map(({ path }) => path)
      .filter((path) => matches(part, nameOf(path)));
  }
  #exists(path: string): Promise<boolean> {
    return this.#remote.stat(path).then(
      () => true,
      (error) => {
        if (error instanceof Refused) return false;
        throw error;
      },
    );
  }

  /** What may stand in place of a word that is not finished: names in the file system, on this machine, or both. */
  async completions(text: string, places: readonly Place[]): Promise<string[]> {
    const slash = text.lastIndexOf("/") + 1;
    const [folder, start] = [text.slice(0, slash), text.slice(slash)];
    const listed = await Promise.all(
      places.map((place) => (place === "here" ? namesHere(folder || ".") : this.#names(folder || "."))),
    );
    return [...new Set(listed.flat())]
      .filter((name) => name.startsWith(start) && (!name.startsWith(".") || start.startsWith(".")))
      .map((name) =>
        name.endsWith("/") ? `${quote(folder + name.slice(0, -1))}/` : `${quote(folder + name)} `,
      );
  }

  async #names(folder: string): Promise<string[]> {
    const listed = await this.#remote.list(this.resolve(folder)).catch(noneWhereFailed);
    return listed
      .slice(1)
      .map(({ path, item }) => (item.kind === "directory" ? `${nameOf(path)}/` : nameOf(path)));
  }
}

/** Directories end with a slash. */
async function namesHere(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return entries.map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name));
}

const noneWhereRefused = (error: unknown): Listed[] => {
  if (error instanceof Refused) return [];
  throw error;
};
const noneWhereFailed = (error: unknown): Listed[] => {
  if (isFailure(error)) return [];
  throw error;
};
