/** What a README's console blocks say: commands and what they print, and when two outputs say the same. Pure rules. */

export interface Command {
  /** Where it stands, counted from 1. */
  line: number;
  /** What is typed; it may have several lines. */
  text: string;
  /** What it prints, line by line; `…` stands for any lines. */
  expected: string[];
  /** `^C` stands at its end. */
  isInterrupted: boolean;
}

/** A `$ ` begins a command; it goes on after a backslash at a line's end and while a quotation is open. */
export function commandsOf(markdown: string): Command[] {
  const commands: Command[] = [];
  let isConsole = false;
  for (const [index, line] of markdown.split("\n").entries()) {
    if (line.startsWith("```")) {
      isConsole = line === "```console";
      continue;
    }
    if (!isConsole) continue;
    const latest = commands.at(-1);
    if (line.startsWith("$ ")) {
      commands.push({ line: index + 1, text: line.slice(2), expected: [], isInterrupted: false });
    } else if (latest === undefined || latest.isInterrupted) {
      throw new Error(`line ${index + 1} belongs to no command: ${line}`);
    } else if (latest.expected.length === 0 && isUnfinished(latest.text)) latest.text += `\n${line}`;
    else if (line === "^C") latest.isInterrupted = true;
    else latest.expected.push(line);
  }
  return commands;
}

function isUnfinished(command: string): boolean {
  if (command.endsWith("\\")) return true;
  let quote = "";
  for (let at = 0; at < command.length; at++) {
    const char = command[at] ?? "";
    if (char === "\\" && quote !== "'") at++;
    else if (quote === "" && (char === "'" || char === '"')) quote = char;
    else if (char === quote) quote = "";
  }
  return quote !== "";
}

const DATE_WORDS = new RegExp(
  `\\b(?:${[
    "(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?",
    "(?:Jan|Febr?|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec)(?:uary|ch|il|ust|(?:t?em)?ber|ober)?",
    "lunes|martes|miércoles|jueves|viernes|s[áa]bado|domingo",
    "enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre",
  ].join("|")})\\b`,
  "g",
);

/** A line without what differs from run to run: numbers, hashes, names of days and months, the width of columns. */
const substance = (line: string) =>
  line
    .replace(DATE_WORDS, "Day")
    .replace(/\b[ap]\. m\./g, "a. m.")
    .replace(/\r$/, "")
    .replace(/"[\da-z]+(?:-[\da-z]+){2,}"/g, '"#"')
    .replace(/SHA256:[\w+/]+/g, "SHA256:#")
    .replace(/\b(?=[\da-f]*\d)[\da-f]{8,}\b/gi, "#")
    .replace(/-?\d+(?:[.,:]\d+)*/g, "#")
    .replace(/\b(?:[mµn]?s|[kKMG]i?B)\b(?=[^\w]|$)/g, "unit")
    .replace(/\s+/g, " ")
    .trim();

/** Whether the output is what was expected, in substance. */
export function saysTheSame(expected: readonly string[], output: string): boolean {
  const lines = output.replace(/\n$/, "").split("\n").map(substance);
  const actual = lines.length === 1 && lines[0] === "" ? [] : lines;
  const wanted = expected.map(substance);
  if (!wanted.includes("…"))
    return wanted.length === actual.length && wanted.every((w, i) => w === actual[i]);
  return matchesFrom(wanted, actual, 0, 0);
}

function matchesFrom(wanted: readonly string[], actual: readonly string[], w: number, a: number): boolean {
  if (w === wanted.length) return a === actual.length;
  if (wanted[w] !== "…") return wanted[w] === actual[a] && matchesFrom(wanted, actual, w + 1, a + 1);
  for (let skip = a; skip <= actual.length; skip++) if (matchesFrom(wanted, actual, w + 1, skip)) return true;
  return false;
}
