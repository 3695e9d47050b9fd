/** Giving up root. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { Failure, UsageError } from "../../shared/errors.ts";

interface Identity {
  name: string;
  uid: number;
  gid: number;
  groups: number[];
}

/** Throws `UsageError` where there is no such user, or who asks is not root. */
export async function identityOf(name: string): Promise<Identity> {
  if (process.getuid?.() !== 0)
    throw new UsageError("--run-as needs root: only root may become somebody else");
  const id = async (option: string) =>
    (await promisify(execFile)("id", [option, "--", name])).stdout.trim().split(" ").map(Number);
  try {
    const [uid = 0] = await id("-u");
    const [gid = 0] = await id("-g");
    return { name, uid, gid, groups: await id("-G") };
  } catch {
    throw new UsageError(`--run-as ${JSON.stringify(name)} is no user of this system`);
  }
}

/** Becomes somebody else for good, with the groups that they are in and no others. */
export function become({ name, uid, gid, groups }: Identity): void {
  try {
    process.setgroups?.(groups); // in this order: whoever is not root any more can change none of them
    process.setgid?.(gid);
    process.setuid?.(uid);
  } catch (error) {
    throw new Failure(`cannot become ${name}`, { cause: error });
  }
  if (process.getuid?.() !== uid || process.geteuid?.() !== uid) throw new Failure(`did not become ${name}`);
}
