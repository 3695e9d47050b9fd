/**
 * What went wrong, said in one line.
 *
 * A `Failure` is the world's doing (a peer, the network, a file, the user): it is reported in one line and
 * costs what it touched. Any other error is a bug of ours: nobody catches it, the program crashes loudly.
 */

export class Failure extends Error {
  override name = "Failure";
  /** What a program that it ends leaves with; a kind of failure that scripts must tell from others has its own. */
  readonly exitCode: number = 1;
}

/** The command line or a configuration file is wrong. */
export class UsageError extends Failure {
  override name = "UsageError";
  override readonly exitCode = 2;
}

/** The peer finished in the middle of something. */
export class UnexpectedEndError extends Failure {
  override name = "UnexpectedEndError";
}
/** Something is longer than its reader's limit. */
export class TooLongError extends Failure {
  override name = "TooLongError";
}
/** A wait was in vain. */
export class TimeoutError extends Failure {
  override name = "TimeoutError";
}

/** What the system's error codes mean to a user. A key may name the system call that failed as well. */
const MEANING: Readonly<Record<string, string>> = {
  "listen EACCES": "permission denied (EACCES); ports below 1024 need rights, choose another with --port",
  "bind EACCES": "permission denied (EACCES); ports below 1024 need rights, choose another with --port",
  "watch EMFILE": "too many watchers (EMFILE); Linux' limit is fs.inotify.max_user_instances",
  "watch ENOSPC": "too many files are watched (ENOSPC); Linux' limit is fs.inotify.max_user_watches",
  EACCES: "permission denied (EACCES)",
  EADDRINUSE: "address already in use (EADDRINUSE); choose another with --port",
  EADDRNOTAVAIL: "not an address of this machine (EADDRNOTAVAIL); choose another with --host",
  EAI_AGAIN: "the name could not be resolved (EAI_AGAIN); is there a network?",
  ECONNREFUSED: "connection refused (ECONNREFUSED); is a server running there?",
  ECONNRESET: "the peer reset the connection (ECONNRESET)",
  EHOSTUNREACH: "no route to the host (EHOSTUNREACH)",
  EISDIR: "it is a directory (EISDIR)",
  EMFILE: "too many open files (EMFILE)",
  EMSGSIZE: "too large for one datagram (EMSGSIZE)",
  ENETUNREACH: "no route to that network (ENETUNREACH)",
  ENOENT: "no such file or directory (ENOENT)",
  ENOSPC: "the disk is full (ENOSPC)",
  ENOTFOUND: "no such host (ENOTFOUND)",
  EPERM: "operation not permitted (EPERM)",
  EPIPE: "the peer has closed the connection (EPIPE)",
  ETIMEDOUT: "no answer in time (ETIMEDOUT)",
};

/** A failed system call, as Node reports it. */
function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "code" in error && ("syscall" in error || "errors" in error);
}

/** Is this the world's doing, to be said in one line, rather than a bug? */
export function isFailure(error: unknown): boolean {
  return error instanceof Failure || isSystemError(error);
}

/** The error and its causes as one line: `cannot listen on 127.0.0.1:80: permission denied (EACCES); …`. */
export function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (isSystemError(error)) {
    const code = error.code ?? "";
    return MEANING[`${error.syscall} ${code}`] ?? MEANING[code] ?? error.message;
  }
  return error.cause === undefined ? error.message : `${error.message}: ${explain(error.cause)}`;
}
