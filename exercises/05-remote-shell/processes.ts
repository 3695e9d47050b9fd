/** What a session has started, and its end. */
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

/** In the environment of every process of a session, with a value of its own: by this those are found that left its group. */
export const SESSION_VARIABLE = "NLRS_SESSION";
/** How long they may tidy up after SIGHUP. */
const GRACE_MS = 300;
const LOOK_AGAIN_MS = 10;
const MAX_ROUNDS = 10;

/** False where there is nobody to signal any more. */
export function signalGroup(groupId: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-groupId, signal);
    return true;
  } catch {
    return false;
  }
}

/** Linux only, as it looks into /proc; elsewhere nothing is found. */
function processesOf(session: string): number[] {
  const mark = `${SESSION_VARIABLE}=${session}\0`;
  let names: string[];
  try {
    names = readdirSync("/proc");
  } catch {
    return [];
  }
  return names.filter((name) => /^\d+$/.test(name) && environmentOf(name).includes(mark)).map(Number);
}

function environmentOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1");
  } catch {
    return ""; // gone, or somebody else's
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // gone meanwhile
  }
}

/** Ends the process group and what else belongs to the session: SIGHUP, and SIGKILL for what is left after a while. */
export async function endSession(groupId: number, session: string): Promise<void> {
  signalGroup(groupId, "SIGHUP");
  signalGroup(groupId, "SIGCONT"); // what is stopped could not even end
  for (let waitedMs = 0; waitedMs < GRACE_MS && signalGroup(groupId, 0); waitedMs += LOOK_AGAIN_MS)
    await delay(LOOK_AGAIN_MS);
  // Several times: what is about to fork may have a child that was not there when we looked.
  for (let round = 0; round < MAX_ROUNDS; round++) {
    signalGroup(groupId, "SIGKILL");
    const left = processesOf(session);
    if (left.length === 0) return;
    for (const pid of left) kill(pid);
    await delay(LOOK_AGAIN_MS);
  }
}
