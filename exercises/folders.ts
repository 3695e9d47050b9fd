/** The exercises, found by looking: a new folder appears in demo, bench, capture and dissector by existing. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { UsageError } from "../shared/errors.ts";

export interface Exercise {
  /** `13` */
  number: string;
  /** `token-ring` */
  name: string;
  /** `exercises/13-token-ring`, from the project's root. */
  folder: string;
}

export function exercisesWith(file: string): Exercise[] {
  return readdirSync(import.meta.dirname)
    .toSorted()
    .flatMap((entry) => {
      const [, number, name] = /^(\d\d)-(.+)$/.exec(entry) ?? [];
      if (number === undefined || name === undefined) return [];
      return existsSync(join(import.meta.dirname, entry, file))
        ? [{ number, name, folder: `exercises/${entry}` }]
        : [];
    });
}

/** The exercise called `13`, `token-ring` or `13-token-ring`. Throws `UsageError` where there is none. */
export function exerciseCalled(wanted: string, all: readonly Exercise[]): Exercise {
  const found = all.find(({ number, name }) =>
    [number, name, `${number}-${name}`, `${Number(number)}`].includes(wanted),
  );
  if (found) return found;
  throw new UsageError(
    `no exercise ${JSON.stringify(wanted)}; there are ${all.map(({ number }) => number).join(", ")}`,
  );
}
