/** What the words of a command name: paths relative to where the user is, globs, and what may complete the last word. */
import { Failure, isFailure } from "../../shared/errors.ts";
import { nameOf } from "./paths.ts";
import { type Listed, Refused, type Remote } from "./remote.ts";
import { isGlob, matches, quote, resolvePath, unescaped, type Word } from "./words.ts";

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

  /** What may stand in place of a word that is not finished. */
  async completions(text: string): Promise<string[]> {
    const slash = text.lastIndexOf("/") + 1;
    const start = text.slice(slash);
    const listed = await this.#remote.list(this.resolve(text.slice(0, slash) || ".")).catch(noneWhereFailed);
    const hits = listed.slice(1).filter(({ path }) => {
      const name = nameOf(path);
      return name.startsWith(start) && (!name.startsWith(".") || start.startsWith("."));
    });
    return hits.map(
      ({ path, item }) =>
        quote(text.slice(0, slash) + nameOf(path)) + (item.kind === "directory" ? "/" : " "),
    );
  }
}

const noneWhereRefused = (error: unknown): Listed[] => {
  if (error instanceof Refused) return [];
  throw error;
};
const noneWhereFailed = (error: unknown): Listed[] => {
  if (isFailure(error)) return [];
  throw error;
};
