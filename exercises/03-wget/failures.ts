/** What can go wrong, told apart by exit codes, which are GNU wget's (`man wget`, "Exit status"). */
import { TimeoutError } from "../../shared/connection.ts";
import { Failure, isFailure } from "../../shared/errors.ts";
import { HttpError } from "../../shared/http.ts";

export class FileFailure extends Failure {
  override name = "FileFailure";
  override readonly exitCode = 3;
}
export class NetworkFailure extends Failure {
  override name = "NetworkFailure";
  override readonly exitCode: number = 4;
}
/** The connection ended before a byte of the response: a kept one may have been closed meanwhile. */
export class NoAnswer extends NetworkFailure {
  override name = "NoAnswer";
}
export class TlsFailure extends Failure {
  override name = "TlsFailure";
  override readonly exitCode = 5;
}
export class AuthenticationFailure extends Failure {
  override name = "AuthenticationFailure";
  override readonly exitCode = 6;
}
/** The answer was understood, and it is no. */
export class ServerFailure extends Failure {
  override name = "ServerFailure";
  override readonly exitCode = 8;
}

/** OpenSSL's errors come without the name of a system call. */
const isTlsError = (error: unknown) =>
  error instanceof Error && "code" in error && /^(?:ERR_SSL|ERR_TLS|EPROTO)/.test(String(error.code));

/**
 * The same with the exit code that it deserves. What the system or the clock says is the network's doing, as the
 * files' errors were wrapped where they happened; a message that breaks the protocol stays a plain `Failure`: 1.
 */
export function classified(error: unknown): unknown {
  if (isTlsError(error)) return new TlsFailure("the TLS connection broke", { cause: error });
  if (error instanceof HttpError) return new Failure(`the response is broken: ${error.message}`);
  if (error instanceof TimeoutError) return new NetworkFailure(error.message, { cause: error.cause });
  if (error instanceof Failure || !isFailure(error)) return error;
  return new NetworkFailure("the connection broke", { cause: error });
}
