/** What counts as a command of a README, and which differences do not count. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { commandsOf, saysTheSame } from "./readme-text.ts";

const README = `# Title

$ not this

\`\`\`console
$ server --port 1
listening on tcp://127.0.0.1:1
^C
$ printf 'one
two' | cat \\
  -n
one
two
$ true
\`\`\`

\`\`\`sh
$ nor this
\`\`\`
`;

test("commands with their lines, over several lines, interrupted or not", () => {
  assert.deepEqual(commandsOf(README), [
    { line: 6, text: "server --port 1", expected: ["listening on tcp://127.0.0.1:1"], isInterrupted: true },
    { line: 9, text: "printf 'one\ntwo' | cat \\\n  -n", expected: ["one", "two"], isInterrupted: false },
    { line: 14, text: "true", expected: [], isInterrupted: false },
  ]);
});

test("a line that is no command's is an error", () => {
  assert.throws(() => commandsOf("```console\nhello\n```"), /line 2 belongs to no command: hello/);
});

test("numbers, dates, hashes and widths do not count, words do", () => {
  const same = (expected: string, actual: string) => saysTheSame(expected.split("\n"), actual);
  assert.ok(same("hello1: 0.781 ms", "hello1: 12.5 ms\n"));
  assert.ok(same("Date: Sat, 21 Nov 2026 03:37:41 GMT", "Date: Mon, 2 Mar 2027 13:37:41 GMT"));
  assert.ok(same("key SHA256:CL/yL5QLuikCn+x", "key SHA256:0+/abc"));
  assert.ok(same("Via: netlab-5835f8f4abe8", "Via: netlab-00ffaa12bcde"));
  assert.ok(same("| a |  12 |", "| a | 123456 |"));
  assert.ok(!same("hello", "hullo"));
  assert.ok(!same("hello", "hello\nhello"));
  assert.ok(!same("deadline", "shutdown")); // letters alone are no hash
});

test("… stands for any lines, also none", () => {
  assert.ok(saysTheSame(["a", "…", "z"], "a\nb\nc\nz\n"));
  assert.ok(saysTheSame(["a", "…", "z"], "a\nz\n"));
  assert.ok(!saysTheSame(["a", "…", "z"], "a\nb\n"));
  assert.ok(saysTheSame(["…", "z", "…"], "a\nz\nz\n"));
  assert.ok(!saysTheSame(["…"].concat(["q"]), "a\n"));
});
