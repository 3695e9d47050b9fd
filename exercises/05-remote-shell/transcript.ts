/** The log of a session on the client's side: what was run, what came, how it ended. */
import { closeSync, openSync, writeSync } from "node:fs";
import { Failure } from "../../shared/errors.ts";

export interface Transcript extends Disposable {
  command(directory: string, text: string): void;
  output(data: Buffer): void;
  exit(code: number): void;
}

/** Adds to the file, which only its owner can read when it is new. Throws `Failure`. */
export function openTranscript(path: string | undefined, server: string): Transcript | undefined {
  if (path === undefined) return undefined;
  let file: number;
  try {
    file = openSync(path, "a", 0o600);
  } catch (error) {
    throw new Failure(`cannot write the log ${path}`, { cause: error });
  }
  let endsLine = true;
  const write = (data: Buffer | string) => {
    writeSync(file, data as string);
    if (data.length > 0) endsLine = data.at(-1) === 10 || data.at(-1) === "\n";
  };
  const note = (line: string) => write(`${endsLine ? "" : "\n"}# ${new Date().toISOString()} ${line}\n`);
  note(`session with ${server}`);
  return {
    command: (directory, text) => {
      note(directory);
      write(`$ ${text}\n`);
    },
    output: write,
    exit: (code) => note(`exit code ${code}`),
    [Symbol.dispose]: () => {
      note("end");
      closeSync(file);
    },
  };
}
