/**
 * Makes what is generated from the exercises' declarations: the diagrams and tables of PDUs in their READMEs,
 * between `<!-- pdu: NAME -->` and `<!-- /pdu -->`, and `netlab.lua`, the dissectors for Wireshark.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { exercisesWith } from "../exercises/folders.ts";
import { type Dissector, diagram, table } from "../shared/describe.ts";
import { lua } from "../shared/dissector.ts";
import { Failure } from "../shared/errors.ts";
import type { Shape } from "../shared/pdu.ts";
import { program, projectFile } from "../shared/program.ts";

/** An exercise's `protocol.ts` and `README.md`, as far as it has them. */
interface Declared {
  folder: string;
  exports: Readonly<Record<string, unknown>>;
  readme?: string;
}

export async function readDeclared(folder: string): Promise<Declared> {
  const exports: Declared["exports"] = await import(`../${folder}/protocol.ts`);
  const readme = projectFile(`${folder}/README.md`);
  return { folder, exports, ...(existsSync(readme) ? { readme: readFileSync(readme, "utf8") } : {}) };
}

export function dissectorsOf({ exports }: Declared): readonly Dissector[] {
  return (exports["dissectors"] as readonly Dissector[] | undefined) ?? [];
}

/** The files as they should be, by their paths from the project's root. Throws `Failure` as `fillIn` does. */
export function generate(exercises: readonly Declared[]): Map<string, string> {
  const readmes = exercises.flatMap(({ folder, exports, readme }) =>
    readme === undefined ? [] : [[`${folder}/README.md`, fillIn(folder, readme, exports)] as const],
  );
  return new Map([...readmes, ["captures/netlab.lua", lua(exercises.flatMap(dissectorsOf))]]);
}

/** Up to the next line that begins with a comment, or the end. */
const BLOCK = /^<!-- pdu: (.*) -->$[\s\S]*?(?=^<!-- |(?![\s\S]))/gm;

/** The README with its PDUs described anew. Throws `Failure` where a block is not closed or names no codec. */
export function fillIn(folder: string, readme: string, exports: Declared["exports"]): string {
  return readme.replace(BLOCK, (block: string, name: string, at: number) => {
    const where = `${folder}/README.md: <!-- pdu: ${name} -->`;
    const shape = shapeOf(exports[name]);
    if (shape === undefined) throw new Failure(`${where} names no codec of protocol.ts`);
    if (!readme.startsWith("<!-- /pdu -->", at + block.length))
      throw new Failure(`${where} has no <!-- /pdu --> behind it`);
    return [`<!-- pdu: ${name} -->`, "", "```text", diagram(shape), "```", "", table(shape), "", ""].join(
      "\n",
    );
  });
}

function shapeOf(codec: unknown): Shape | undefined {
  return typeof codec === "object" && codec !== null && "shape" in codec ? (codec.shape as Shape) : undefined;
}

if (process.argv[1] === import.meta.filename) {
  await program({
    summary: "Renews the PDUs in the exercises' READMEs and captures/netlab.lua from the declarations.",
    example: "",
    settings: {},
    async run(_, { log }) {
      const exercises = await Promise.all(
        exercisesWith("protocol.ts").map(({ folder }) => readDeclared(folder)),
      );
      for (const [path, text] of generate(exercises)) {
        const target = projectFile(path);
        if (existsSync(target) && readFileSync(target, "utf8") === text) continue;
        writeFileSync(`${target}.part`, text);
        renameSync(`${target}.part`, target);
        log(`wrote ${path}`);
      }
    },
  });
}
