/**
 * The log of all heads: `>` what was sent, `<` what came, `*` what happened, each line with its time. What came is
 * written as it came; of what was sent, passwords and cookies are left out unless they are asked for. Only its
 * owner may read the file, as cookies that a server sets are in it.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import type { Fields, ResponseHead } from "../../shared/http.ts";
import { FileFailure } from "./failures.ts";

const SECRET = /^(?:authorization|proxy-authorization|cookie)$/i;

export class HeadersLog {
  readonly #fd: number | undefined;
  readonly #path: string | undefined;
  readonly #withSecrets: boolean;
  #isBroken = false;

  /** Adds to the file; without a path, nothing is logged. Throws `FileFailure`. */
  constructor(path: string | undefined, withSecrets: boolean) {
    this.#path = path;
    this.#withSecrets = withSecrets;
    try {
      this.#fd = path === undefined ? undefined : openSync(path, "a", 0o600);
    } catch (error) {
      throw new FileFailure(`cannot write the headers log ${path}`, { cause: error });
    }
  }

  note(text: string): void {
    this.#write("*", [text]);
  }

  request(method: string, target: string, fields: Fields): void {
    const shown = (name: string, value: string) =>
      SECRET.test(name) && !this.#withSecrets ? redacted(name, value) : value;
    const lines = [...fields].map(([name, value]) => `${name}: ${shown(name, value)}`);
    this.#write(">", [`${method} ${target} HTTP/1.1`, ...lines]);
  }

  response({ minor, status, reason, fields }: ResponseHead): void {
    this.#write("<", [`HTTP/1.${minor} ${status} ${reason}`]);
    this.fields(fields);
  }

  /** Fields without a start line: what came behind a chunked body. */
  fields(fields: Fields): void {
    this.#write(
      "<",
      [...fields].map(([name, value]) => `${name}: ${value}`),
    );
  }

  #write(mark: string, lines: readonly string[]): void {
    if (this.#fd === undefined || this.#isBroken || lines.length === 0) return;
    const time = new Date().toISOString();
    try {
      writeSync(this.#fd, lines.map((line) => `${time} ${mark} ${escaped(line)}\n`).join(""));
    } catch (error) {
      this.#isBroken = true; // said once: the note of this failure would fail again
      throw new FileFailure(`cannot write the headers log ${this.#path}`, { cause: error });
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}

/** The kind stays: which scheme, which cookies. */
function redacted(name: string, value: string): string {
  if (/^cookie$/i.test(name)) return value.replace(/=[^;]*/g, "=[redacted]");
  return value.replace(/^(\S+)\s.*|.*/, (_, scheme?: string) =>
    scheme ? `${scheme} [redacted]` : "[redacted]",
  );
}

/** One line each, whatever is in it: bytes beyond ASCII as `\xE9`. */
const escaped = (line: string) =>
  line.replace(/[^\t -~]/g, (character) => {
    const code = character.charCodeAt(0).toString(16).toUpperCase();
    return code.length <= 2 ? `\\x${code.padStart(2, "0")}` : `\\u${code.padStart(4, "0")}`;
  });
