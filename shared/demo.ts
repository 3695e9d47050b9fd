/** What every demo does: it tells a story, and checks that what it tells is true. */
import { Failure } from "./errors.ts";

export const say = (line = ""): void => void process.stdout.write(`${line}\n`);

/** Throws `Failure` where it does not hold. */
export function expect(holds: boolean, what: string): void {
  if (!holds) throw new Failure(`not as it should be: ${what}`);
}
