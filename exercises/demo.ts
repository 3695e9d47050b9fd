/** Runs the exercises' demos: one narrated, or all of them with a table at the end. */
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { styleText } from "node:util";
import { optional, text } from "../shared/config.ts";
import { Failure } from "../shared/errors.ts";
import { program } from "../shared/program.ts";
import { start } from "../shared/running.ts";
import { type Exercise, exerciseCalled, exercisesWith } from "./folders.ts";

/** A demo that takes longer hangs. */
const LIMIT_MS = 120_000;

interface DemoResult {
  exercise: Exercise;
  done: string;
  figure: string;
  ok: boolean;
  /** Where the output of a failed one is. */
  log?: string;
}

/** Lines of at most `width` characters, cut at spaces; what goes on stands further in. */
function folded(line: string, width: number): string {
  const [indent = ""] = /^[ |$]*/.exec(line) ?? [];
  const cut = line.lastIndexOf(" ", width);
  if (line.length <= width || cut <= indent.length || indent.length > width / 2) return line;
  return `${line.slice(0, cut)}\n${folded(`${" ".repeat(indent.length + 2)}${line.slice(cut + 1)}`, width)}`;
}

/** Passes its output on as it comes; how it went is its exit code. */
async function narrate({ folder }: Exercise, signal: AbortSignal): Promise<void> {
  await using demo = await start(`${folder}/demo.ts`, [], { servers: 0 });
  signal.addEventListener("abort", () => demo.kill("SIGTERM"));
  const show = async (input: Readable | null, output: NodeJS.WriteStream) => {
    if (input === null) return;
    for await (const line of createInterface({ input }))
      output.write(`${folded(line, output.columns || 80)}\n`);
  };
  await Promise.all([show(demo.child.stdout, process.stdout), show(demo.child.stderr, process.stderr)]);
  const { code } = await demo.exited;
  if (code !== 0) throw new Failure(`the demo failed (exit code ${code})`);
}

async function runDemo(exercise: Exercise, signal: AbortSignal): Promise<DemoResult> {
  await using demo = await start(`${exercise.folder}/demo.ts`, [], { servers: 0 });
  const kill = () => demo.kill("SIGTERM");
  signal.addEventListener("abort", kill);
  const limit = setTimeout(kill, LIMIT_MS);
  const { code } = await demo.exited;
  clearTimeout(limit);
  signal.removeEventListener("abort", kill);
  const [, done, figure] = /^result: (.*?) \| (.*)$/m.exec(demo.stdout) ?? [];
  if (code === 0 && done !== undefined && figure !== undefined) return { exercise, done, figure, ok: true };
  const log = join(tmpdir(), `netlab-demo-${exercise.number}.log`);
  await writeFile(log, demo.stdout + demo.stderr);
  const problem = /^error: (.*)$/m.exec(demo.stderr)?.[1] ?? `exit code ${code}`;
  return { exercise, done: problem, figure: "", ok: false, log };
}

/** Only where a terminal shows it, and nobody has said NO_COLOR. */
const coloured = (colour: "green" | "red", text: string) =>
  process.stdout.isTTY && process.stdout.hasColors() ? styleText(colour, text) : text;

/** The rows fit 80 columns; what is too long is cut, the log has all of it. */
function table(results: readonly DemoResult[]): string {
  const fit = (text: string, width: number) =>
    text.length <= width ? text.padEnd(width) : `${text.slice(0, width - 1)}…`;
  const row = (exercise: string, done: string, figure: string, ok: string) =>
    `${fit(exercise, 17)} ${fit(done, 34)} ${fit(figure, 20)} ${ok}`;
  return [
    row("exercise", "what was done", "key figure", "").trimEnd(),
    row("-".repeat(17), "-".repeat(34), "-".repeat(20), "------"),
    ...results.map(({ exercise, done, figure, ok }) =>
      row(
        `${exercise.number} ${exercise.name}`,
        done,
        figure,
        ok ? coloured("green", "ok") : coloured("red", "FAILED"),
      ),
    ),
  ].join("\n");
}

await program({
  summary: "Shows every exercise on real sockets, one after the other, or one step by step.",
  example: "13",
  settings: { exercise: optional(text, "the one to show, by number or name", { positional: true }) },
  async run({ exercise }, { signal, log }) {
    const all = exercisesWith("demo.ts");
    if (exercise !== undefined) return narrate(exerciseCalled(exercise, all), signal);
    const results: DemoResult[] = [];
    for (const [i, one] of all.entries()) {
      if (signal.aborted) throw new Failure("stopped");
      log(`[${i + 1}/${all.length}] ${one.number} ${one.name} …`);
      results.push(await runDemo(one, signal));
    }
    process.stdout.write(`\n${table(results)}\n`);
    const failed = results.filter(({ ok }) => !ok);
    for (const { exercise, log: path } of failed)
      log(`${exercise.number} ${exercise.name} failed: its output is in ${path}`);
    if (failed.length > 0) throw new Failure(`${failed.length} of ${results.length} demos failed`);
  },
});
