/**
 * What is written to the shell: the lines around a command, and why they are as they are.
 *
 * `command eval` runs a text in the shell itself, and an error in it (an open quote, a failed `.`) does not end the
 * shell, as `eval` alone would make it (POSIX XCU 2.8.1). A Ctrl-C must end what runs in the shell, loops too, but not the
 * shell. ash and dash get a trap that fails while it expands, which ends the `eval` around it; bash does the right thing
 * by itself if it believes itself interactive. The code is reported in a second line, as bash drops the rest of the first.
 */

export interface ScriptOptions {
  isBash: boolean;
  /** FIFOs: the input of the command, and where the shell reports. */
  stdin: string;
  report: string;
}

/** Text as one word for a shell. */
export const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** Fails where it is run, without a word: the variable is never set. */
// biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's
const BREAK_OUT = '{ nlrs_interrupted=130; : "${nlrs_never?}"; } 2>/dev/null';

/** The first line. `stderr` is a FIFO: at its start bash says things on its own that nobody wants to read. */
export function preparation({ isBash }: ScriptOptions, stderr: string): string {
  const family = isBash
    ? `set +o emacs +o vi +o history +H; unset HISTFILE PROMPT_COMMAND; exec 2>${quoted(stderr)}`
    : "trap : INT QUIT TERM";
  return `${family}; PS1= PS2= nlrs_status=0 nlrs_interrupted=; nlrs_restore() { return "$nlrs_status"; }\n`;
}

/** Says on the report FIFO, in one line: which command, `started` or its exit code, the directory, NUL. */
function report({ report }: ScriptOptions, token: string, state: string): string {
  // A function of the user's that is called `command` would take what is said here: it does not outlive its command.
  const parts = [
    "unset -f command",
    `command printf '%s %s ' ${token} ${state}`,
    "command pwd",
    "command printf '\\0'",
  ];
  return `{ { ${parts.join("; ")}; } >${quoted(report)}; } 2>/dev/null`;
}

/** Runs a command; `$?` is at first what it was after the one before. */
export function commandLines(options: ScriptOptions, token: string, text: string): string {
  const started = report(options, token, "started");
  const evaluated = `command eval ${quoted(`nlrs_restore; ${text}`)}`;
  // It says that it has started when its input is open: closed by us before, the FIFO would wait for a writer for ever.
  const command = `{ ${started}; ${evaluated}; } <${quoted(options.stdin)}`;
  const finished = report(options, token, '"$nlrs_status"');
  // The empty line: after a syntax error bash would not know the brace for what it is.
  if (options.isBash)
    return `trap - INT; command eval ${quoted(command)}\n\n{ nlrs_status=$?; ${finished}; } 2>/dev/null\n`;
  // The outer eval is for an interrupt that comes when the command has just ended: the trap must not fail outside of any.
  const guarded = `trap ${quoted(BREAK_OUT)} INT; ${command}; nlrs_status=$?`;
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's
  const status = "nlrs_status=${nlrs_interrupted:-$nlrs_status}";
  return `nlrs_interrupted=; command eval ${quoted(guarded)}; trap : INT\n{ ${status}; ${finished}; } 2>/dev/null\n`;
}

/** Reports once more, for when an interrupt has hit the report itself. A report that has been heard is not heard again. */
export const reportAgain = (options: ScriptOptions, token: string) => `${report(options, token, "130")}\n`;

export const windowSize = (columns: number, rows: number) =>
  `export COLUMNS=${columns || ""} LINES=${rows || ""}\n`;
