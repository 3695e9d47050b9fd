/** The terminal's commands: those of a Unix shell, on the replicated directory. */
import { basename } from "node:path";
import { explain, Failure } from "../../shared/errors.ts";
import { dfLines, lsLine, nodesLines, shown, statLines, treeLines } from "./listing.ts";
import { Lookup, type Place } from "./lookup.ts";
import { joined, nameOf } from "./paths.ts";
import { Refused, type Remote } from "./remote.ts";
import { Transfers } from "./transfers.ts";
import { matches, unescaped, type Word, wordsOf } from "./words.ts";

interface Usage {
  args: string;
  does: string;
}
const USAGE: Readonly<Record<string, Usage>> = {
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

export class Shell {
  isOver = false;
  readonly #remote: Remote;
  readonly #out: (data: Buffer | string) => Promise<void>;
  readonly #lookup: Lookup;
  readonly #transfers: Transfers;

  constructor(remote: Remote, out: (data: Buffer | string) => Promise<void>, showsProgress = false) {
    this.#remote = remote;
    this.#out = out;
    this.#lookup = new Lookup(remote);
    this.#transfers = new Transfers(remote, showsProgress);
  }

  get folder(): string {
    return this.#lookup.folder;
  }

  #line = (text: string) => this.#out(`${text}\n`);
  async #lines(lines: readonly string[]): Promise<void> {
    for (const line of lines) await this.#line(line);
  }

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
        for (const path of await this.#paths(words, command)) await this.#remote.read(path, this.#out);
        return;
      case "stat":
        for (const path of await this.#paths(words, command))
          await this.#lines(statLines(path, await this.#remote.stat(path)));
        return;
      case "tree":
        for (const path of await this.#paths(words.length > 0 ? words : wordsOf("."), command))
          await this.#lines(treeLines(path, await this.#remote.walk(path)));
        return;
      case "mkdir":
        for (const { text } of needed(words, 1, command))
          await this.#remote.do("mkdir", this.#lookup.resolve(text), { recursive: Number(flags.has("p")) });
        return;
      case "touch":
        for (const path of await this.#paths(words, command, true)) await this.#remote.do("touch", path);
        return;
      case "rm":
        return this.#rm(words, recursive, flags.has("f"));
      case "rmdir":
        for (const path of await this.#paths(words, command)) await this.#remote.do("rmdir", path);
        return;
      case "cp":
      case "mv":
        return this.#transfer(command, words, recursive);
      case "put":
        return this.#put(words, recursive === 1);
      case "get":
        return this.#get(words, recursive === 1);
      case "df":
        return this.#lines(dfLines(await this.#remote.do("df", ""), this.#remote.address));
      case "nodes":
        return this.#lines(nodesLines(await this.#remote.do("nodes", "")));
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

  /** One path at least, else it throws `Failure`. */
  #paths(words: readonly Word[], command: string, mayBeMissing = false): Promise<string[]> {
    return this.#lookup.paths(needed(words, 1, command), mayBeMissing);
  }

  async #cd(words: Word[]): Promise<void> {
    const [path = ""] = words.length === 0 ? [""] : await this.#paths(words, "cd");
    if ((await this.#remote.stat(path)).kind !== "directory")
      throw new Failure(`/${path} is not a directory`);
    this.#lookup.folder = path;
  }

  async #ls(flags: Flags, words: Word[]): Promise<void> {
    const paths = words.length === 0 ? [this.folder] : await this.#paths(words, "ls");
    const lists = [];
    for (const path of paths) lists.push(await this.#remote.list(path));
    const isLong = flags.has("l");
    const isHidden = (path: string) => nameOf(path).startsWith(".") && !flags.has("a");
    const files = lists.filter(([first]) => first?.item.kind !== "directory").flat();
    const below = this.folder === "" ? "" : `${this.folder}/`;
    for (const { path, item } of files)
      await this.#line(lsLine(item, path.startsWith(below) ? path.slice(below.length) : path, isLong));
    for (const [first, ...rest] of lists.filter(([first]) => first?.item.kind === "directory")) {
      if (lists.length > 1)
        await this.#line(`${files.length > 0 || first !== lists[0]?.[0] ? "\n" : ""}/${first?.path}:`);
      for (const { path, item } of rest)
        if (!isHidden(path)) await this.#line(lsLine(item, nameOf(path), isLong));
    }
  }

  async #find(words: readonly Word[]): Promise<void> {
    const [first, ...others] = words;
    const from =
      first === undefined || first.text.startsWith("-") ? this.folder : this.#lookup.resolve(first.text);
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

  async #rm(words: Word[], recursive: number, isForced: boolean): Promise<void> {
    for (const path of await this.#paths(words, "rm", isForced)) {
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
    const from = await this.#paths(words.slice(0, -1), command);
    const to = this.#lookup.resolve(words.at(-1)?.text ?? "");
    for (const [path, target] of await this.#targets(from, to))
      await this.#remote.do(command === "cp" ? "copy" : "move", path, { to: target, recursive });
  }

  async #put(words: Word[], isRecursive: boolean): Promise<void> {
    const local = needed(words, 2, "put")
      .slice(0, -1)
      .map(({ text }) => text);
    const to = this.#lookup.resolve(words.at(-1)?.text ?? "");
    for (const [path, target] of await this.#targets(local, to))
      await this.#transfers.put(path, target, isRecursive);
  }
  async #get(words: Word[], isRecursive: boolean): Promise<void> {
    needed(words, 2, "get");
    const paths = await this.#paths(words.slice(0, -1), "get");
    await this.#transfers.getAll(paths, words.at(-1)?.text ?? "", isRecursive);
  }

  /** What may stand in place of the last word: commands, or names. For readline. */
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
    const before = words
      .slice(1, last === undefined ? undefined : -1)
      .filter(({ text }) => !text.startsWith("-"));
    const places = placesOf(words[0]?.text, before.length === 0);
    return [await this.#lookup.completions(last?.text ?? "", places), typed];
  }
}

/** Behind the first name, what follows may be one more, or where they are to go. */
function placesOf(command: string | undefined, isFirst: boolean): readonly Place[] {
  if (command === "put") return isFirst ? ["here"] : ["here", "there"];
  return command === "get" && !isFirst ? ["there", "here"] : ["there"];
}

function needed(words: readonly Word[], atLeast: number, command: string): readonly Word[] {
  if (words.length >= atLeast) return words;
  throw new Failure(`${command}: something is missing: ${command} ${USAGE[command]?.args ?? ""}`);
}
const noneWhereMissing = (error: unknown): string => {
  if (error instanceof Refused && /no such file/.test(explain(error))) return "";
  throw error;
};
