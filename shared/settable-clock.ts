/** A machine's clock that a test can set, by `faketime`: for programs that must see it happen while they run. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { runTool } from "./running.ts";

interface SettableClock {
  /** Of the programs that see it; their monotonic clock stays. */
  env: Record<string, string>;
  /** As the machine's, but for so much: `+3600` is an hour ahead. */
  setTo(shift: string): Promise<void>;
}

/** Until the test's end. Needs `faketime`. */
export async function settableClock(t: TestContext): Promise<SettableClock> {
  const folder = await mkdtemp(join(tmpdir(), "faketime-"));
  t.after(() => rm(folder, { recursive: true }));
  const file = join(folder, "shift");
  await writeFile(file, "+0");
  // Its library is loaded into the program itself, which reads the file again each time that it looks at the clock.
  const library = await runTool("faketime", ["-f", "+0", "printenv", "LD_PRELOAD"]);
  const env = {
    LD_PRELOAD: library.stdout.trim(),
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: "1",
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
  };
  return { env, setTo: (shift) => writeFile(file, shift) };
}
