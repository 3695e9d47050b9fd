/** The committed captures, read by tshark with the committed dissector: every PDU, every field, nothing malformed. */
import { strict as assert } from "node:assert";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { exercisesWith } from "../exercises/folders.ts";
import type { Dissector } from "../shared/describe.ts";
import { needs, runTool } from "../shared/testing.ts";
import { dissectorsOf, readDeclared } from "./generate.ts";

const FOLDER = import.meta.dirname;
const captures = readdirSync(FOLDER).filter((file) => file.endsWith(".pcapng"));

/** The named fields of each packet that passes the filter; a field that occurs several times is a list. */
async function fieldsOf(capture: string, filter: string, fields: readonly string[]): Promise<string[][][]> {
  const script = join(FOLDER, "netlab.lua");
  const named = fields.flatMap((field) => ["-e", field]);
  const separators = ["-E", "separator=/t", "-E", "aggregator=;"];
  const args = [
    "-r",
    join(FOLDER, capture),
    "-X",
    `lua_script:${script}`,
    "-Y",
    filter,
    "-T",
    "fields",
    ...named,
    ...separators,
  ];
  const { code, stdout, stderr } = await runTool("tshark", args);
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stderr, /lua/i);
  const lines = stdout.split("\n").filter((line) => line !== "");
  return lines.map((line) => line.split("\t").map((value) => (value === "" ? [] : value.split(";"))));
}

/** The display filters in a README's tables, each with the frames that its row names, as a filter, too. */
function filtersOf(markdown: string): { filter: string; frames: string }[] {
  let columns: string[] = [];
  return markdown.split("\n").flatMap((line) => {
    if (!line.startsWith("|")) columns = [];
    else if (columns.length === 0) columns = line.split("|").map((cell) => cell.trim());
    const cells = line.split(/(?<!\\)\|/);
    const cell = (pattern: RegExp) => cells[columns.findIndex((name) => pattern.test(name))] ?? "";
    const [, filter] = /`(.*)`/.exec(cell(/filter$/)) ?? [];
    const numbers = [...cell(/^frames$/).matchAll(/(\d+)(?:–(\d+))?/g)];
    const frames = numbers.map(([, a, b = a]) => `(frame.number >= ${a} && frame.number <= ${b})`);
    return filter === undefined
      ? []
      : [{ filter: withoutCommas(filter.replaceAll("\\|", "|")), frames: frames.join(" || ") }];
  });
}

/** Commas stand between filters in what tshark is told: `a in {1, 3..5}` in other words. */
const withoutCommas = (filter: string) =>
  filter.replace(/([\w.]+) in \{([^}]*)\}/g, (_, field: string, values: string) => {
    const ranges = values.split(",").map((value) => value.trim().split(".."));
    return `(${ranges.map(([a, b = a]) => `(${field} >= ${a} && ${field} <= ${b})`).join(" || ")})`;
  });

/** Exercise 06 sends two lengths in one head to be refused: Wireshark, too, finds them wrong. */
const ON_PURPOSE = "http.content_length_header && http.transfer_encoding";

const protocolOf = (dissector: Dissector) => ("as" in dissector ? dissector.as : dissector.name);

for (const { number, name, folder } of exercisesWith("protocol.ts")) {
  const capture = `${number}-${name}.pcapng`;
  test(`${capture}: every payload is dissected and nothing is wrong with it`, needs("tshark"), async () => {
    assert.ok(captures.includes(capture), `npm run capture -- ${number} has not been committed`);
    const dissectors = dissectorsOf(await readDeclared(folder));
    const names = dissectors.map(protocolOf);
    const ours = dissectors.flatMap((dissector) => ("as" in dissector ? [] : [`${dissector.name}.wrong`]));
    const payload = "(tcp.len > 0 || (udp.length > 8 && !icmp && !icmpv6))";

    const packets = await fieldsOf(capture, payload, ["frame.number", "frame.protocols"]);
    assert.ok(packets.length > 0, "there is something in it");
    for (const [frame, protocols] of packets) {
      const innermost = protocols?.[0]?.split(":") ?? [];
      assert.ok(
        names.some((dissector) => innermost.includes(dissector)),
        `frame ${frame}: ${innermost.join(":")}`,
      );
    }
    const filter = `(${["_ws.malformed", ...ours].join(" || ")}) && !(${ON_PURPOSE})`;
    const wrong = await fieldsOf(capture, filter, ["frame.number"]);
    assert.deepEqual(wrong, [], "frames that are wrong");
  });

  test(
    `${capture}: each filter in the READMEs shows a frame that its row names`,
    needs("tshark"),
    async () => {
      const [, section = ""] = readFileSync(join(FOLDER, "README.md"), "utf8").split(`## ${capture}\n`);
      const [own = ""] = section.split("\n## ");
      const rows = filtersOf(own + readFileSync(join(FOLDER, "..", folder, "README.md"), "utf8"));
      assert.ok(rows.length > 3, "there are tables with filters");
      const both = rows.map(({ filter, frames }) => (frames === "" ? filter : `(${filter}) && (${frames})`));
      const script = `lua_script:${join(FOLDER, "netlab.lua")}`;
      const statistics = ["-q", "-z", ["io,stat,0", ...both].join(",")];
      const args = ["-r", join(FOLDER, capture), "-X", script, ...statistics];
      const { code, stdout, stderr } = await runTool("tshark", args);
      assert.equal(code, 0, stderr);
      const [, line = ""] = /^\|[^|]*<>[^|]*\|(.*)\|$/m.exec(stdout) ?? [];
      const counts = line.split("|").filter((_, i) => i % 2 === 0); // frames, bytes, frames, bytes …
      assert.equal(counts.length, rows.length, stdout);
      assert.deepEqual(
        both.filter((_, i) => rows[i]?.frames !== "" && Number(counts[i]) === 0),
        [],
        "filters that show none of their frames",
      );
    },
  );
}
