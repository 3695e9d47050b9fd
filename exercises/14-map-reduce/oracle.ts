/** The same counts by other means, for tests, demo and bench: a regular expression and a Map, in one line each. */

/** The terms of a text, as the README defines them. */
export const termsOf = (text: string): string[] =>
  (text.match(/[\p{L}\p{M}\p{N}]+/gu) ?? []).map((term) => term.toLowerCase().normalize("NFC"));

/** The output that a text must have. */
export function countedBy(text: string): string {
  const counts = new Map<string, number>();
  for (const term of termsOf(text)) counts.set(term, (counts.get(term) ?? 0) + 1);
  const byBytes = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b));
  return [...counts]
    .sort(([a, countA], [b, countB]) => countB - countA || byBytes(a, b))
    .map(([term, count]) => `${term}\t${count}\n`)
    .join("");
}

/** What a decoder makes of bytes that are not UTF-8 separates terms: U+FFFD. */
export const countedIn = (bytes: Buffer): string =>
  countedBy(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
