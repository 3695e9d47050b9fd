/** Runs the benches: an exercise beside its peers (`13`), one of the library (`pdu`), or all. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { optional, text } from "../shared/config.ts";
import { Failure } from "../shared/errors.ts";
import { ROUNDS } from "../shared/measure.ts";
import { program } from "../shared/program.ts";
import { start } from "../shared/running.ts";
import { exerciseCalled, exercisesWith } from "./folders.ts";

await program({
  summary: "Measures the exercises beside their peers, in one run, and prints the ratios.",
  example: "01",
  settings: {
    what: optional(text, "an exercise by number or name, or a module of shared/", { positional: true }),
    rounds: ROUNDS,
  },
  async run({ what, rounds }, { signal, log }) {
    const exercises = exercisesWith("bench.ts");
    const library = readdirSync(join(import.meta.dirname, "../shared")).filter((file) =>
      file.endsWith(".bench.ts"),
    );
    const scripts =
      what === undefined
        ? [...exercises.map(({ folder }) => `${folder}/bench.ts`), ...library.map((file) => `shared/${file}`)]
        : library.includes(`${what}.bench.ts`)
          ? [`shared/${what}.bench.ts`]
          : [`${exerciseCalled(what, exercises).folder}/bench.ts`];
    for (const script of scripts) {
      log(`${script} …`);
      await using bench = await start(script, script.startsWith("shared/") ? [] : ["--rounds", rounds], {
        servers: 0,
      });
      const kill = () => bench.kill("SIGTERM");
      signal.addEventListener("abort", kill);
      bench.child.stdout?.pipe(process.stdout);
      bench.child.stderr?.pipe(process.stderr);
      const { code } = await bench.exited;
      signal.removeEventListener("abort", kill);
      if (code !== 0) throw new Failure(`${script} failed (exit code ${code})`);
    }
  },
});
