/** The master: has the terms of a text counted by the nodes of the configuration, and writes them to a file. */
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { integer, setting, text } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { type Context, configFile, program } from "../../shared/program.ts";
import { readNodes } from "./configuration.ts";
import { runJob } from "./job.ts";
import { divide, type Part } from "./parts.ts";
import { display } from "./progress.ts";
import { MAX_PARTS, MAX_SILENCE_MS, MIN_SILENCE_MS, type Totals } from "./protocol.ts";
import { warnings } from "./streaming.ts";

async function openText(path: string): Promise<FileHandle> {
  try {
    const text = await open(path, "r");
    if ((await text.stat()).isFile()) return text;
    await text.close();
    throw new Failure("it is not a file that can be read from anywhere in it");
  } catch (error) {
    throw new Failure(`cannot read ${path}`, { cause: error });
  }
}

/** The file beside the output that becomes the output. */
async function openPart(path: string, text: FileHandle): Promise<FileHandle> {
  try {
    const target = await stat(path).catch(() => undefined);
    if (target?.isDirectory()) throw new Failure("it is a directory");
    if (target?.isFile() === false) throw new Failure("it is no file that could be replaced");
    const { dev, ino } = await text.stat();
    if (target?.dev === dev && target.ino === ino) throw new Failure("it is the text itself");
    return await open(`${path}.${process.pid}.part`, "wx");
  } catch (error) {
    throw new Failure(`cannot write ${path}`, { cause: error });
  }
}

interface Request {
  text: FileHandle;
  part: FileHandle;
  config: string;
  copies: number;
  silenceMs: number;
}

async function count({ text, part, config, copies, silenceMs }: Request, context: Context): Promise<Totals> {
  const { reducer, mappers } = readNodes(config);
  const before = await text.stat();
  const half = Math.min(MAX_PARTS, Math.max(1, Math.floor(mappers.size / 2)));
  const parts: Part[] = await divide(
    before.size,
    half,
    async (buffer, offset) => (await text.read(buffer, 0, buffer.length, offset)).bytesRead,
  );
  const shown = display(parts, context.log);
  try {
    const totals = await runJob({
      text,
      parts,
      reducer,
      mappers,
      copies,
      silenceMs,
      write: (lines) => part.appendFile(lines), // all of them: `write` may take a part only, when the disk is nearly full
      signal: context.signal,
      log: shown.log,
      onProgress: shown.update,
    });
    const after = await text.stat();
    if (after.size !== before.size || after.mtimeMs !== before.mtimeMs)
      throw new Failure("the text was changed while it was counted; count it again");
    return totals;
  } finally {
    shown.end();
  }
}

await program({
  summary: "Counts the terms of a text with the nodes of the configuration.",
  example: "README.md /tmp/counted.txt",
  settings: {
    in: setting(text, "the text, UTF-8", undefined, { positional: true }),
    out: setting(text, "file for the counted terms, a line each: term, tab, count", undefined, {
      positional: true,
    }),
    config: configFile("config/map-reduce.ini"),
    copies: setting(integer(1, 1000), "mappers that each part is given to", 2),
    silence: setting(
      integer(MIN_SILENCE_MS, MAX_SILENCE_MS),
      "milliseconds without a sign of life after which a node is lost",
      3000,
    ),
  },
  async run({ in: from, out, config, copies, silence }, context) {
    const beganMs = performance.now();
    await using text = await openText(from);
    const part = await openPart(out, text);
    const partPath = `${out}.${process.pid}.part`;
    try {
      const totals = await count({ text, part, config, copies, silenceMs: silence }, context);
      await part.close();
      await rename(partPath, out);
      for (const warning of warnings(totals)) context.log(`warning: ${warning}`);
      const seconds = ((performance.now() - beganMs) / 1000).toFixed(1);
      context.log(`${totals.words} words, ${totals.terms} distinct terms, in ${out} after ${seconds} s`);
    } finally {
      await part.close();
      await rm(partPath, { force: true });
    }
  },
});
