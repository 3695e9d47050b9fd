/** The house in order: what stands where, who may import whom, and the runners of demo and bench. */
import { strict as assert } from "node:assert";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { test } from "node:test";
import { run } from "../shared/testing.ts";
import { exerciseCalled, exercisesWith } from "./folders.ts";

const ROOT = join(import.meta.dirname, "..");
const sources = ["exercises", "shared", "captures"].flatMap((folder) =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => join(folder, file)),
);

/** What a source imports of the project, as paths from its root. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(ROOT, file), "utf8");
  const paths = [...text.matchAll(/^(?:import|export)\b[^"]*from "(\.[^"]+)";$/gms)].map(
    (match) => match[1] ?? "",
  );
  return paths.map((path) => relative(ROOT, resolve(ROOT, dirname(file), path)));
}

test("every exercise has a README, its PDUs, a demo and tests", () => {
  for (const { folder } of exercisesWith("")) {
    for (const file of ["README.md", "protocol.ts", "demo.ts"]) {
      assert.ok(existsSync(join(ROOT, folder, file)), `${folder} has no ${file}`);
    }
    const tests = readdirSync(join(ROOT, folder)).filter((file) => file.endsWith(".test.ts"));
    assert.ok(tests.length > 0, `${folder} has no tests`);
  }
});

test("the top-level README names every exercise", () => {
  const readme = readFileSync(join(ROOT, "README.md"), "utf8");
  for (const { folder } of exercisesWith("")) assert.ok(readme.includes(`(${folder}/README.md)`), folder);
});

test("exercises do not import one another, and shared/ imports none of them", () => {
  assert.ok(
    importsOf("exercises/01-echo/tcp-server.ts").includes("shared/tcp.ts"),
    "imports are found at all",
  );
  for (const file of sources) {
    const own = /^(?:shared|exercises\/\d\d-[^/]+)\//.exec(file)?.[0];
    for (const path of importsOf(file)) {
      const other = /^exercises\/\d\d-[^/]+\//.exec(path)?.[0];
      assert.ok(own === undefined || other === undefined || other === own, `${file} imports ${path}`);
      assert.ok(own !== "shared/" || path.startsWith("shared/"), `${file} imports ${path}`);
    }
  }
});

test("each floor of shared/ imports only from those below it", () => {
  const floors = [
    ["errors", "fields", "octets", "pdu", "config", "byte-queue", "waiting"],
    ["connection"],
    ["tcp", "udp", "same-port"],
    ["http-body", "http", "http-serving", "http-relay"],
    ["program"],
  ];
  for (const [floor, modules] of floors.entries()) {
    const below = floors.slice(0, floor + 1).flat();
    for (const module of modules) {
      for (const path of importsOf(`shared/${module}.ts`)) {
        const name = path.replace(/^shared\/(.*)\.ts$/, "$1");
        assert.ok(below.includes(name), `shared/${module}.ts imports ${path}`);
      }
    }
  }
});

test("an exercise is called by its number or its name", () => {
  const all = exercisesWith("protocol.ts");
  for (const name of ["13", "token-ring", "13-token-ring"])
    assert.equal(exerciseCalled(name, all).number, "13");
  assert.equal(exerciseCalled("1", all).name, "echo");
  assert.throws(() => exerciseCalled("99", all), {
    name: "UsageError",
    message: /no exercise "99"; there are 01, 02/,
  });
});

test("demo and bench refuse what there is not, with exit code 2", async () => {
  for (const script of ["exercises/demo.ts", "exercises/bench.ts"]) {
    const { code, stderr } = await run(script, ["99"]);
    assert.equal(code, 2);
    assert.match(stderr, /^error: no exercise "99"; there are .*\n$/);
  }
});
