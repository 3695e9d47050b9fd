/** What a session has started, and its end. */
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

/** In the environment of every process of a session, with a value of its own: by this those are found that left its group. */
export const SESSION_VARIABLE = "NLRS_SESSION";
/** How long they may tidy up after SIGHUP. */
const GRACE_MS = 300;
const LOOK_AGAIN_MS = 10;
const MAX_ROUNDS = 10;
/** In the masks of /proc/PID/status. */
const SIGINT_BIT = 1n << 1n;

/** False where there is nobody to signal any more. */
export function signalGroup(groupId: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-groupId, signal);
    return true;
  } catch {
    return false;
  }
}

/** Its children that SIGINT would end. On other systems than Linux nobody knows: none. */
export function interruptibleChildren(pid: number): number[] {
  const children = procFile(pid, `task/${pid}/children`).split(" ").map(Number);
  return children.filter((child) => {
    const masks = [...procFile(child, "status").matchAll(/^Sig(?:Ign|Cgt):\t(\w+)$/gm)];
    return masks.length === 2 && masks.every(([, mask]) => (BigInt(`0x${mask}`) & SIGINT_BIT) === 0n);
  });
}

function procFile(pid: number, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "latin1");
  } catch {
    return ""; // gone, somebody else's, or another system
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
  return names
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => procFile(pid, "environ").includes(mark));
}

export function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // gone meanwhile
  }
}

/** Kills what is left of a session whose server has been killed itself. */
export function killSession(session: string): void {
  for (const pid of processesOf(session)) signalProcess(pid, "SIGKILL");
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
    for (const pid of left) signalProcess(pid, "SIGKILL");
    await delay(LOOK_AGAIN_MS);
  }
}
