/** Real text to count: Don Quijote where it lies beside the project, else what is found under node_modules. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { projectFile } from "../../shared/program.ts";

const BOOK = projectFile("../shared/data/pg2000.txt");
const IS_TEXT = /(?:^licen[cs]e.*|\.md|\.d\.ts)$/i;

interface SampleText {
  bytes: Buffer;
  /** What it is, for people. */
  what: string;
}

/** Text of about `sizeBytes`: the same again and again where there is too little, each time in whole. */
export function sampleText(sizeBytes: number): SampleText {
  return existsSync(BOOK) ? repeated(readFileSync(BOOK), "Don Quijote", sizeBytes) : gatheredText(sizeBytes);
}

/** Licences, Markdown and declarations of the packages that the lab uses. */
export function gatheredText(sizeBytes: number): SampleText {
  const folder = projectFile("node_modules");
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && IS_TEXT.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  const texts: Buffer[] = [];
  let gathered = 0;
  for (const file of files) {
    if (gathered >= sizeBytes) break;
    const text = readFileSync(file).subarray(0, sizeBytes - gathered);
    texts.push(text, Buffer.from("\n"));
    gathered += text.length + 1;
  }
  return repeated(
    Buffer.concat(texts),
    `${texts.length / 2} licences, READMEs and declarations of node_modules`,
    sizeBytes,
  );
}

function repeated(text: Buffer, what: string, sizeBytes: number): SampleText {
  const times = Math.max(1, Math.ceil(sizeBytes / text.length));
  const whole = Array.from({ length: times }, () => [text, Buffer.from("\n")]).flat();
  return { bytes: Buffer.concat(whole), what: times === 1 ? what : `${what}, ${times} times` };
}
