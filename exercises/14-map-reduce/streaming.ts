/** What the streaming pair, and the master, say to users. */
import { MAX_TERM_BYTES } from "./tokenizer.ts";

/** Writes to stdout no faster than its reader takes it. */
export async function print(pieces: Iterable<Buffer>): Promise<void> {
  for (const piece of pieces)
    await new Promise<void>((resolve) => process.stdout.write(piece, () => resolve()));
}

/** What a user must know of a text beside its counts. */
export function warnings({
  invalidBytes,
  longTerms,
}: Record<"invalidBytes" | "longTerms", number | bigint>): string[] {
  const lines: string[] = [];
  if (invalidBytes > 0) lines.push(`bytes that are not UTF-8 were taken for separators: ${invalidBytes}`);
  if (longTerms > 0) lines.push(`terms of more than ${MAX_TERM_BYTES} bytes were not counted: ${longTerms}`);
  return lines;
}
