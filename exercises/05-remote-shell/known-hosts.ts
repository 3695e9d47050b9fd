/** Which host key a server had when it was met first: a line each, `127.0.0.1:10500 BASE64`. */
import { formatAddress } from "../../shared/connection.ts";
import { Failure } from "../../shared/errors.ts";
import { fingerprint } from "./crypto.ts";
import { readIfThere, writePrivately } from "./private-files.ts";
import { KEY_BYTES } from "./protocol.ts";

interface Known {
  line: number;
  key: Buffer;
}

function lookUp(content: string, server: string): Known | undefined {
  const lines = content.split(/\r?\n/);
  for (const [i, line] of lines.entries()) {
    const [name, base64 = ""] = line.split(" ");
    if (name !== server) continue;
    const key = Buffer.from(base64, "base64");
    if (key.length !== KEY_BYTES)
      throw new Failure(`line ${i + 1} has no key of ${KEY_BYTES} bytes in base64`);
    return { line: i + 1, key };
  }
  return undefined;
}

/**
 * Trust on first use: a server that is met the first time is believed and remembered (`log` tells), one that shows
 * another key than before is refused. With `expected`, a fingerprint from elsewhere, nobody needs to be believed.
 * Throws `Failure`.
 */
export function checkHostKey(
  path: string,
  { host, port }: { host: string; port: number },
  key: Buffer,
  expected: string | undefined,
  log: (line: string) => void,
): void {
  const server = formatAddress(host, port);
  const shown = fingerprint(key);
  if (expected !== undefined && expected !== shown)
    throw new Failure(`${server} has the key ${shown}, not ${expected}: do not log in`);
  const content = readIfThere(path) ?? "";
  let known: Known | undefined;
  try {
    known = lookUp(content, server);
  } catch (error) {
    throw new Failure(`cannot use the known hosts of ${path}`, { cause: error });
  }
  if (known?.key.equals(key)) return;
  if (known !== undefined) {
    throw new Failure(
      `THE KEY OF ${server} HAS CHANGED from ${fingerprint(known.key)} to ${shown}: somebody may be in the middle and ` +
        `would read your password; only if you know that the server has a new key, remove line ${known.line} of ${path}`,
    );
  }
  const separator = content === "" || content.endsWith("\n") ? "" : "\n";
  writePrivately(path, `${content}${separator}${server} ${key.toString("base64")}\n`);
  if (expected === undefined)
    log(`${server} is met for the first time; its key ${shown} is believed and kept in ${path}`);
}
