/** A command line of the terminal: words, quoting, globs. Pure. */
import { Failure } from "../../shared/errors.ts";

/** A word as it was typed: `pattern` has what was quoted escaped, so that a glob in quotes is none. */
export interface Word {
  text: string;
  pattern: string;
  /** Where it begins in the line. */
  at: number;
  isQuoted: boolean;
}

const ESCAPES: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r" };
const SPECIAL = /[*?[\]\\]/g;
const escaped = (text: string) => text.replace(SPECIAL, "\\$&");

/** The words of a line, as a shell takes them: quotes of both kinds, backslashes, and $'…' with \n and \t. Throws `Failure`. */
export function wordsOf(line: string, isPartial = false): Word[] {
  const words: Word[] = [];
  let word: Word | undefined;
  const add = (text: string, isLiteral: boolean, at: number) => {
    word ??= { text: "", pattern: "", at, isQuoted: false };
    word.text += text;
    word.pattern += isLiteral ? escaped(text) : text;
    word.isQuoted ||= isLiteral;
  };
  for (let i = 0; i < line.length; i++) {
    const char = line[i] as string;
    const isAnsi = char === "$" && line[i + 1] === "'";
    if (/\s/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else if (char === "\\") {
      add(line[++i] ?? "", true, i - 1);
    } else if (char === '"' || char === "'" || isAnsi) {
      const start = i;
      if (isAnsi) i++;
      const quote = line[i] as string;
      let text = "";
      for (i++; i < line.length && line[i] !== quote; i++) {
        const isEscape = line[i] === "\\" && (isAnsi || (quote === '"' && /["\\]/.test(line[i + 1] ?? "")));
        if (isEscape) i++;
        text += isEscape && isAnsi ? (ESCAPES[line[i] ?? ""] ?? line[i] ?? "") : (line[i] ?? "");
      }
      if (i >= line.length && !isPartial) throw new Failure(`a ${quote} is not closed`);
      add(text, true, start);
    } else add(char, false, i);
  }
  if (word !== undefined) words.push(word);
  return words;
}

/** The same text as one word of a command line. */
export function quote(text: string): string {
  if (/^[\p{L}\p{N}_./,:@%+=~-]+$/u.test(text)) return text;
  if (/[\p{Cc}]/u.test(text)) {
    const body = text
      .replace(/[\\']/g, "\\$&")
      .replaceAll("\n", "\\n")
      .replaceAll("\t", "\\t")
      .replaceAll("\r", "\\r");
    return `$'${body}'`;
  }
  return `'${text.replaceAll("'", "'\\''")}'`;
}

export const isGlob = (pattern: string): boolean => /(?<!\\)(?:\\\\)*[*?[]/.test(pattern);
export const unescaped = (pattern: string): string => pattern.replace(/\\(.)/gs, "$1");

/** Does the name match? `*`, `?`, `[a-z]`, `[!a]`; a leading dot only where the pattern has it, as in a shell. */
export function matches(pattern: string, name: string): boolean {
  if (name.startsWith(".") && !pattern.startsWith(".")) return false;
  let source = "";
  for (let i = 0; i < pattern.length; i++) {
    const char = pattern[i] as string;
    const end = char === "[" ? pattern.indexOf("]", i + 2) : -1;
    if (char === "\\") source += RegExpEscape(pattern[++i] ?? "");
    else if (char === "*") source += ".*";
    else if (char === "?") source += ".";
    else if (end > 0) {
      const body = pattern.slice(i + 1, end).replace(/[\\\]^]/g, "\\$&");
      source += `[${body.replace(/^(?:!|\\\^)/, "^")}]`;
      i = end;
    } else source += RegExpEscape(char);
  }
  try {
    return new RegExp(`^${source}$`, "su").test(name);
  } catch {
    return false; // [z-a]
  }
}
const RegExpEscape = (char: string) => char.replace(/[.*+?^${}()|[\]\\/-]/gu, "\\$&");

/** A path of the terminal as one within the directory: relative to `folder`, which `..` may leave up to the top. */
export function resolvePath(folder: string, path: string): string {
  const parts = path.startsWith("/") || folder === "" ? [] : folder.split("/");
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return parts.join("/");
}
