/** The terminal's commands: those of a Unix shell, on the replicated directory. */
import { createReadStream } from "node:fs";
import { lstat, mkdir, open, readdir, rename, rm, utimes } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { explain, Failure, isFailure } from "../../shared/errors.ts";
import { Progress } from "../../shared/progress.ts";
import type { Item } from "./protocol.ts";
import { joined, nameOf, parentOf } from "./protocol.ts";
import { type Listed, Refused, type Remote, type Source } from "./remote.ts";
import { isGlob, matches, quote, resolvePath, unescaped, type Word, wordsOf } from "./words.ts";

const bigEnough = (bytes: bigint | number) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = Number(bytes);
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
};
const TYPES = { file: "-", directory: "d", link: "l" } as const;
function modeText({ kind, mode }: Item): string {
  const bits = [...(kind === "link" ? 0o777 : mode & 0o777).toString(2).padStart(9, "0")];
  return TYPES[kind] + bits.map((bit, i) => (bit === "1" ? "rwx"[i % 3] : "-")).join("");
}
const timeText = ({ mtimeUs }: Item) =>
  new Date(Number(mtimeUs / 1000n)).toISOString().slice(0, 19).replace("T", " ");
/** A name as it may be shown: on a terminal nothing of it moves the cursor. */
const shown = (name: string) => (/\p{Cc}/u.test(name) ? quote(name) : name);

export interface Usage {
  args: string;
  does: string;
}
export const USAGE: Readonly<Record<string, Usage>> = {
  ls: { args: "[-l] [-a] [PATH…]", does: "what is in a directory" },
  cd: { args: "[PATH]", does: "go to a directory" },
  pwd: { args: "", does: "where that is" },
  cat: { args: "PATH…", does: "the content of files" },
  cp: { args: "[-r] FROM… TO", does: "copy" },
  mv: { args: "FROM… TO", does: "move, or rename" },
  rm: { args: "[-r] [-f] PATH…", does: "remove" },
  mkdir: { args: "[-p] PATH…", does: "make directories" },
  rmdir: { args: "PATH…", does: "remove empty directories" },
  touch: { args: "PATH…", does: "make an empty file, or renew its time" },
  stat: { args: "PATH…", does: "all that is known of it" },
  find: { args: "[PATH] [-name GLOB] [-type f|d|l]", does: "paths below" },
  tree: { args: "[PATH]", does: "the same, drawn" },
  df: { args: "", does: "how much room the node's disk has" },
  put: { args: "[-r] LOCAL… REMOTE", does: "copy from this machine" },
  get: { args: "[-r] REMOTE… LOCAL", does: "copy to this machine" },
  nodes: { args: "", does: "who is master, who lags, by how much" },
  forget: { args: "ID", does: "take a node that will not come back out of the count" },
  help: { args: "", does: "this" },
  exit: { args: "", does: "leave" },
};

type Flags = Set<string>;
/** What is smaller is there before anybody can look. */
const PROGRESS_BYTES = 4 * 1024 * 1024;

export class Shell {
  folder = "";
  isOver = false;
  readonly #remote: Remote;
  readonly #out: (data: Buffer | string) => Promise<void>;

  readonly #showsProgress: boolean;

  constructor(remote: Remote, out: (data: Buffer | string) => Promise<void>, showsProgress = false) {
    this.#remote = remote;
    this.#out = out;
    this.#showsProgress = showsProgress;
  }

  #progress(totalBytes: number): Progress {
    return new Progress(totalBytes, 0, this.#showsProgress && totalBytes >= PROGRESS_BYTES);
  }

  #line = (text: string) => this.#out(`${text}\n`);

  /** Runs a line; throws `Failure`. */
  async run(line: string): Promise<void> {
    const [name, ...words] = wordsOf(line);
    if (name === undefined) return;
    const command = name.text;
    if (!(command in USAGE)) throw new Failure(`${command}: no such command; help lists them`);
    if (command === "find") return this.#find(words);
    const isFlag = (word: Word) => /^-[a-zA-Z]+$/.test(word.text) && !word.isQuoted;
    const end = words.findIndex(({ text }) => text === "--");
    const before = end < 0 ? words : words.slice(0, end);
    const flags: Flags = new Set(before.filter(isFlag).flatMap(({ text }) => [...text.slice(1)]));
    const rest = before.filter((word) => !isFlag(word)).concat(end < 0 ? [] : words.slice(end + 1));
    const allowed = [...(USAGE[command]?.args.matchAll(/\[-(\w)\]/g) ?? [])].map(([, flag]) => flag);
    const wrong = [...flags].find((flag) => !allowed.includes(flag) && !(command === "rm" && flag === "R"));
    if (wrong !== undefined)
      throw new Failure(`${command}: -${wrong} is not known: ${command} ${USAGE[command]?.args}`);
    await this.#dispatch(command, flags, rest);
  }

  async #dispatch(command: string, flags: Flags, words: Word[]): Promise<void> {
    const recursive = Number(flags.has("r") || flags.has("R"));
    switch (command) {
      case "pwd":
        return this.#line(`/${this.folder}`);
      case "cd":
        return this.#cd(words);
      case "ls":
        return this.#ls(flags, words);
      case "cat":
        for (const path of await this.#paths(words, 1)) await this.#remote.read(path, this.#out);
        return;
      case "stat":
        for (const path of await this.#paths(words, 1)) await this.#stat(path);
        return;
      case "tree":
        for (const path of await this.#paths(words.length > 0 ? words : wordsOf("."), 1))
          await this.#tree(path);
        return;
      case "mkdir":
        for (const { text } of needed(words, 1, command))
          await this.#remote.do("mkdir", this.#resolve(text), { recursive: Number(flags.has("p")) });
        return;
      case "touch":
        for (const path of await this.#paths(words, 1, true)) await this.#remote.do("touch", path);
        return;
      case "rm":
        return this.#rm(words, recursive, flags.has("f"));
      case "rmdir":
        for (const path of await this.#paths(words, 1)) await this.#remote.do("rmdir", path);
        return;
      case "cp":
      case "mv":
        return this.#transfer(command, words, recursive);
      case "put":
        return this.#put(words, recursive === 1);
      case "get":
        return this.#get(words, recursive === 1);
      case "df":
        return this.#df();
      case "nodes":
        return this.#nodes();
      case "forget":
        return void (await this.#remote.do("forget", "", { to: needed(words, 1, command)[0]?.text ?? "" }));
      case "help":
        for (const [name, { args, does }] of Object.entries(USAGE))
          await this.#line(`${`${name} ${args}`.padEnd(38)} ${does}`);
        return;
      case "exit":
        this.isOver = true;
    }
  }

  #resolve(path: string): string {
    return resolvePath(this.folder, path);
  }

  /** The paths that the words name, globs expanded. Throws `Failure` where a glob fits nothing. */
  async #paths(words: readonly Word[], atLeast: number, mayBeMissing = false): Promise<string[]> {
    const paths: string[] = [];
    for (const word of needed(words, atLeast, "this command")) {
      const found = isGlob(word.pattern) ? await this.#expand(word.pattern) : [this.#resolve(word.text)];
      if (found.length === 0 && !mayBeMissing) throw new Failure(`${word.text}: nothing is called so`);
      paths.push(...(found.length === 0 ? [this.#resolve(word.text)] : found));
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

  async #cd(words: Word[]): Promise<void> {
    const [path = ""] = words.length === 0 ? [""] : await this.#paths(words, 1);
    if ((await this.#remote.stat(path)).kind !== "directory")
      throw new Failure(`/${path} is not a directory`);
    this.folder = path;
  }

  async #ls(flags: Flags, words: Word[]): Promise<void> {
    const paths = words.length === 0 ? [this.folder] : await this.#paths(words, 1);
    const lists = [];
    for (const path of paths) lists.push(await this.#remote.list(path));
    const isHidden = (path: string) => nameOf(path).startsWith(".") && !flags.has("a");
    const files = lists.filter(([first]) => first?.item.kind !== "directory").flat();
    for (const one of files)
      await this.#listed(
        one,
        one.path.startsWith(`${this.folder}/`) && this.folder !== ""
          ? one.path.slice(this.folder.length + 1)
          : one.path,
        flags,
      );
    for (const [first, ...rest] of lists.filter(([first]) => first?.item.kind === "directory")) {
      if (lists.length > 1)
        await this.#line(`${files.length > 0 || first !== lists[0]?.[0] ? "\n" : ""}/${first?.path}:`);
      for (const one of rest) if (!isHidden(one.path)) await this.#listed(one, nameOf(one.path), flags);
    }
  }
  async #listed({ item }: Listed, name: string, flags: Flags): Promise<void> {
    if (!flags.has("l")) return this.#line(shown(name));
    const target = item.kind === "link" ? ` -> ${shown(item.target)}` : "";
    await this.#line(
      `${modeText(item)} ${String(item.sizeBytes).padStart(11)} ${timeText(item)} ${shown(name)}${target}`,
    );
  }

  async #stat(path: string): Promise<void> {
    const item = await this.#remote.stat(path);
    const { kind, mode, sizeBytes, digest, target } = item;
    await this.#line(
      `path      /${shown(path)}\nkind      ${kind}\nmode      ${mode.toString(8).padStart(4, "0")} ${modeText(item)}\nmodified  ${timeText(item)} UTC`,
    );
    if (kind === "file")
      await this.#line(`size      ${sizeBytes} bytes\nSHA-256   ${digest.toString("hex")}`);
    if (kind === "link") await this.#line(`target    ${shown(target)}`);
  }

  async #find(words: readonly Word[]): Promise<void> {
    const [first, ...others] = words;
    const from = first === undefined || first.text.startsWith("-") ? this.folder : this.#resolve(first.text);
    const tests = from === this.folder && first?.text.startsWith("-") ? words : others;
    const value = (name: string) => tests[tests.findIndex(({ text }) => text === name) + 1];
    const name = tests.some(({ text }) => text === "-name") ? value("-name") : undefined;
    const type = tests.some(({ text }) => text === "-type") ? value("-type")?.text : undefined;
    const stray = tests.find(({ text }, i) => i % 2 === 0 && !["-name", "-type"].includes(text));
    if (stray !== undefined)
      throw new Failure(`find: ${stray.text} is not known: find ${USAGE["find"]?.args}`);
    for (const { path, item } of await this.#remote.walk(from)) {
      const isWanted =
        (type === undefined || { file: "f", directory: "d", link: "l" }[item.kind] === type) &&
        (name === undefined || matches(name.isQuoted ? unescaped(name.pattern) : name.pattern, nameOf(path)));
      if (isWanted) await this.#line(`/${shown(path)}`);
    }
  }

  async #tree(from: string): Promise<void> {
    const all = await this.#remote.walk(from);
    await this.#line(`/${shown(from)}`);
    const last = new Map(all.map(({ path }) => [parentOf(path), path]));
    const counts = { file: 0, directory: 0, link: 0 };
    for (const { path, item } of all.slice(1)) {
      counts[item.kind]++;
      let stem = "";
      for (let at = parentOf(path); at !== from; at = parentOf(at))
        stem = (last.get(parentOf(at)) === at ? "    " : "│   ") + stem;
      const target = item.kind === "link" ? ` -> ${shown(item.target)}` : "";
      await this.#line(
        `${stem}${last.get(parentOf(path)) === path ? "└── " : "├── "}${shown(nameOf(path))}${target}`,
      );
    }
    await this.#line(`${counts.directory} directories, ${counts.file + counts.link} files`);
  }

  async #rm(words: Word[], recursive: number, isForced: boolean): Promise<void> {
    for (const path of await this.#paths(words, 1, isForced)) {
      const removed = this.#remote.do("remove", path, { recursive });
      await (isForced ? removed.catch(noneWhereMissing) : removed);
    }
  }

  /** The target of each: within a directory that is there, else the name itself, which is then that of one only. */
  async #targets(from: readonly string[], to: string): Promise<[string, string][]> {
    const isFolder = await this.#remote.stat(to).then(
      ({ kind }) => kind === "directory",
      () => false,
    );
    if (!isFolder && from.length > 1) throw new Failure(`/${to} is not a directory`);
    return from.map((path) => [path, isFolder ? joined(to, basename(path)) : to]);
  }

  async #transfer(command: "cp" | "mv", words: Word[], recursive: number): Promise<void> {
    needed(words, 2, command);
    const from = await this.#paths(words.slice(0, -1), 1);
    const to = this.#resolve(words.at(-1)?.text ?? "");
    for (const [path, target] of await this.#targets(from, to))
      await this.#remote.do(command === "cp" ? "copy" : "move", path, { to: target, recursive });
  }

  async #put(words: Word[], isRecursive: boolean): Promise<void> {
    const local = needed(words, 2, "put")
      .slice(0, -1)
      .map(({ text }) => text);
    const to = this.#resolve(words.at(-1)?.text ?? "");
    for (const [path, target] of await this.#targets(local, to))
      await this.#putOne(path, target, isRecursive);
  }
  async #putOne(local: string, to: string, isRecursive: boolean): Promise<void> {
    const found = await lstat(local).catch((error) => {
      throw new Failure(`cannot read ${local}`, { cause: error });
    });
    if (found.isDirectory()) {
      if (!isRecursive) throw new Failure(`${local} is a directory; put -r copies it`);
      await this.#remote.do("mkdir", to, { recursive: 1, mode: found.mode & 0o777 });
      for (const name of await readdir(local)) await this.#putOne(join(local, name), joined(to, name), true);
      return;
    }
    const start = () => this.#progress(found.size);
    const source: Source = async function* () {
      const progress = start();
      try {
        for await (const data of createReadStream(local, { highWaterMark: 256 * 1024 })) {
          yield data;
          progress.advance(data.length);
        }
      } finally {
        progress.end();
      }
    };
    await this.#remote.write(to, source, found.mode & 0o777);
  }

  async #get(words: Word[], isRecursive: boolean): Promise<void> {
    needed(words, 2, "get");
    const to = words.at(-1)?.text ?? "";
    const isFolder = await lstat(to).then(
      (found) => found.isDirectory(),
      () => false,
    );
    const paths = await this.#paths(words.slice(0, -1), 1);
    if (paths.length > 1 && !isFolder) throw new Failure(`${to} is not a directory`);
    for (const path of paths) await this.#getOne(path, isFolder ? join(to, nameOf(path)) : to, isRecursive);
  }
  async #getOne(path: string, to: string, isRecursive: boolean): Promise<void> {
    const item = await this.#remote.stat(path);
    if (item.kind === "link") throw new Failure(`/${path} is a link to ${item.target}; get its target`);
    if (item.kind === "directory") {
      if (!isRecursive) throw new Failure(`/${path} is a directory; get -r copies it`);
      await mkdir(to, { recursive: true });
      for (const one of (await this.#remote.list(path)).slice(1))
        if (one.item.kind !== "link") await this.#getOne(one.path, join(to, nameOf(one.path)), true);
      return;
    }
    const aside = join(dirname(to), `.${basename(to)}.${process.pid}.part`);
    const file = await open(aside, "w", item.mode & 0o777).catch((error) => {
      throw new Failure(`cannot write ${to}`, { cause: error });
    });
    const progress = this.#progress(Number(item.sizeBytes));
    try {
      await this.#remote
        .read(path, async (data) => {
          await file.write(data);
          progress.advance(data.length);
        })
        .finally(() => file.close());
      await utimes(aside, new Date(), Number(item.mtimeUs) / 1e6);
      await rename(aside, to);
    } catch (error) {
      await rm(aside, { force: true });
      throw error;
    } finally {
      progress.end();
    }
  }

  async #df(): Promise<void> {
    const [size, free, paths] = (await this.#remote.do("df", "")).split("\t").map(Number);
    await this.#line(`${"size".padStart(10)} ${"free".padStart(10)} ${"paths".padStart(8)}  node`);
    await this.#line(
      `${bigEnough(size ?? 0).padStart(10)} ${bigEnough(free ?? 0).padStart(10)} ${String(paths).padStart(8)}  ${this.#remote.address}`,
    );
  }

  async #nodes(): Promise<void> {
    const [head = "", ...lines] = (await this.#remote.do("nodes", "")).split("\n");
    await this.#line(head.replaceAll("\t", ", "));
    await this.#line("node  address                role     entries  lags  heard");
    for (const line of lines) {
      const [id = "", address = "", role = "", match = "", lag = "", heard = ""] = line.split("\t");
      const isLost = Number(heard) > 1500;
      await this.#line(
        `${id.padEnd(5)} ${address.padEnd(22)} ${role.padEnd(8)} ${match.padStart(7)} ${lag.padStart(5)}  ${heard === "?" ? "?" : `${heard} ms ago${isLost ? ", lost" : ""}`}`,
      );
    }
  }

  /** What may stand in place of the last word: commands, or remote names. For readline. */
  async complete(line: string): Promise<[string[], string]> {
    const words = wordsOf(line, true);
    const last = /\s$/.test(line) && !/\\\s$/.test(line) ? undefined : words.at(-1);
    const typed = last === undefined ? "" : line.slice(last.at);
    if (words.length === 0 || (words.length === 1 && last !== undefined))
      return [
        Object.keys(USAGE)
          .filter((name) => name.startsWith(typed))
          .map((name) => `${name} `),
        typed,
      ];
    const text = last?.text ?? "";
    const slash = text.lastIndexOf("/") + 1;
    const start = text.slice(slash);
    const listed = await this.#remote
      .list(resolvePath(this.folder, text.slice(0, slash) || "."))
      .catch(noneWhereFailed);
    const hits = listed.slice(1).filter(({ path }) => {
      const name = nameOf(path);
      return name.startsWith(start) && (!name.startsWith(".") || start.startsWith("."));
    });
    return [
      hits.map(
        ({ path, item }) =>
          quote(text.slice(0, slash) + nameOf(path)) + (item.kind === "directory" ? "/" : " "),
      ),
      typed,
    ];
  }
}

function needed(words: readonly Word[], atLeast: number, command: string): readonly Word[] {
  if (words.length >= atLeast) return words;
  throw new Failure(`${command}: something is missing: ${command} ${USAGE[command]?.args ?? ""}`);
}
const noneWhereRefused = (error: unknown): Listed[] => {
  if (error instanceof Refused) return [];
  throw error;
};
const noneWhereFailed = (error: unknown): Listed[] => {
  if (isFailure(error)) return [];
  throw error;
};
const noneWhereMissing = (error: unknown): string => {
  if (error instanceof Refused && /no such file/.test(explain(error))) return "";
  throw error;
};
