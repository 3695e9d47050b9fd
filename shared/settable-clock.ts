/** A machine's clock that a test can set, by `faketime`: for programs that must see it happen while they run. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { Running } from "./running.ts";

interface SettableClock {
  /** Of the programs that see it; their monotonic clock stays. */
  env: Record<string, string>;
  /** As the machine's, but for so much: `+3600` is an hour ahead. */
  setTo(shift: string): Promise<void>;
}

/** Shared memory that others have left lies in the way of a process that has their number: the next one has another. */
const ATTEMPTS = 5;

/**
 * `faketime` holds shared memory, named by its process, until what it runs ends. Without it each program that loads its
 * library makes its own, and one that is killed leaves it lying in /dev/shm.
 */
async function startFaketime(): Promise<{ holder: Running; library: string; memory: string }> {
  for (let attempt = 1; ; attempt++) {
    const script = 'echo "$LD_PRELOAD $FAKETIME_SHARED"; read end';
    const holder = new Running("faketime", ["-f", "+0", "sh", "-c", script], {});
    try {
      const [, library = "", memory = ""] = await holder.output(/^(\S+) (\S+ \S+)$/m);
      return { holder, library, memory };
    } catch (error) {
      await holder[Symbol.asyncDispose]();
      if (attempt === ATTEMPTS) throw error;
    }
  }
}

/** Until the test's end. Needs `faketime`. */
export async function settableClock(t: TestContext): Promise<SettableClock> {
  const folder = await mkdtemp(join(tmpdir(), "faketime-"));
  const { holder, library, memory } = await startFaketime();
  t.after(async () => {
    holder.child.stdin?.end();
    await holder.exited;
    await rm(folder, { recursive: true });
  });
  const file = join(folder, "shift");
  const setTo = (shift: string) => writeFile(file, shift);
  await setTo("+0");
  // Its library is loaded into the program itself, which reads the file again each time that it looks at the clock.
  const env = {
    LD_PRELOAD: library,
    FAKETIME_SHARED: memory,
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: "1",
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
  };
  return { env, setTo };
}
