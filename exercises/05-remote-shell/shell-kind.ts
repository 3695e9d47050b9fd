/** Which shell it is. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { Failure } from "../../shared/errors.ts";

const PATIENCE_MS = 10_000;

/** A shell that can be started, and of which family it is. */
export interface ShellKind {
  path: string;
  isBash: boolean;
}

/** Throws `Failure` where it cannot be run. */
export async function shellKind(path: string): Promise<ShellKind> {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's
  const question = 'echo "shell ${BASH_VERSION-}"';
  try {
    const { stdout } = await promisify(execFile)(path, ["-c", question], { timeout: PATIENCE_MS });
    if (!stdout.startsWith("shell ")) throw new Failure("it does not run commands as sh does");
    return { path, isBash: stdout.trim() !== "shell" };
  } catch (error) {
    throw new Failure(`cannot use the shell ${path}; choose another with --shell`, { cause: error });
  }
}
