/** The long-lived shell, of each family that is installed. */
import { strict as assert } from "node:assert";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { needs, within } from "../../shared/testing.ts";
import { Shell } from "./shell.ts";
import { shellKind } from "./shell-kind.ts";

const folder = mkdtempSync(join(tmpdir(), "netlab-shells-"));
after(() => rmSync(folder, { recursive: true }));
/** In so long after its `go` a command is where it stays. bash passes over a Ctrl-C that comes while it forks, or as a child ends by itself. */
const REACHED_MS = 100;
const env = { PATH: process.env["PATH"], HOME: folder };

class Tried implements AsyncDisposable {
  readonly shell: Shell;
  readonly output: { stdout: Buffer[]; stderr: Buffer[] };
  constructor(shell: Shell, output: Tried["output"]) {
    this.shell = shell;
    this.output = output;
  }

  static async start(path: string): Promise<Tried> {
    const output: Tried["output"] = { stdout: [], stderr: [] };
    const onOutput = async (channel: "stdout" | "stderr", data: Buffer) =>
      void output[channel].push(Buffer.from(data));
    return new Tried(
      await Shell.start({ kind: await shellKind(path), directory: folder, env, onOutput }),
      output,
    );
  }

  /** Exit code, stdout and stderr of a command without input. */
  async run(text: string, stdin = ""): Promise<[code: number, stdout: string, stderr: string]> {
    for (const channel of ["stdout", "stderr"] as const) this.output[channel].length = 0;
    const running = this.shell.run(text);
    if (stdin !== "") void this.shell.write(Buffer.from(stdin));
    this.shell.end();
    const { code } = await within(running, `the end of ${text}`);
    return [code, this.said("stdout"), this.said("stderr")];
  }

  said(channel: "stdout" | "stderr"): string {
    return Buffer.concat(this.output[channel]).toString();
  }

  /** Interrupts a command when it has said `go`. */
  async interrupted(text: string): Promise<number> {
    for (const channel of ["stdout", "stderr"] as const) this.output[channel].length = 0;
    const running = this.shell.run(text);
    while (!this.said("stdout").includes("go")) await delay(5);
    await delay(REACHED_MS);
    this.shell.signal("interrupt");
    return (await within(running, `the end of ${text}`)).code;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.shell[Symbol.asyncDispose]();
  }
}

for (const name of ["dash", "bash"]) {
  describe(name, needs(name), () => {
    const path = `/bin/${name}`;

    test("directory, variables, functions, umask, parameters and $? stay", async () => {
      await using tried = await Tried.start(path);
      assert.deepEqual(
        await tried.run("cd /usr; X=5; f() { echo \"f $1 $X\"; }; umask 027; export Y=7; set -- a 'b c'"),
        [0, "", ""],
      );
      assert.equal(tried.shell.directory, "/usr");
      assert.deepEqual(await tried.run('pwd; f 3; umask; sh -c "echo $Y"; echo "$# $2"'), [
        0,
        "/usr\nf 3 5\n0027\n7\n2 b c\n",
        "",
      ]);
      assert.deepEqual(await tried.run("false"), [1, "", ""]);
      assert.deepEqual(await tried.run("echo $?"), [0, "1\n", ""]);
    });

    test("exit codes, and two channels", async () => {
      await using tried = await Tried.start(path);
      for (const [text, code] of [
        ["true", 0],
        ["sh -c 'exit 77'", 77],
        ["sh -c 'kill -9 $$'", 137],
        ["no-such-command", 127],
        ["/", 126],
        ["(exit 255)", 255],
        ["", 255],
        ["#", 255],
      ] as const)
        assert.equal((await tried.run(text))[0], code, text);
      assert.deepEqual(await tried.run("echo out; echo err >&2; echo out"), [0, "out\nout\n", "err\n"]);
      assert.deepEqual(await tried.run("printf 'no newline'"), [0, "no newline", ""]);
    });

    test("what breaks a naive shell loop", async () => {
      await using tried = await Tried.start(path);
      for (const [text, code] of [
        ["echo 'open", 2],
        ["if true; then", 2],
        ["for i in 1", 2],
        [". /nowhere", undefined],
        ["readonly r=1; r=2", undefined],
        ["}", 2],
      ] as const) {
        const [actual, , stderr] = await tried.run(text);
        assert.ok(actual !== 0 && stderr !== "", text);
        if (code !== undefined && name === "dash") assert.equal(actual, code, text);
      }
      assert.deepEqual(await tried.run("cat <<END\nhere $((1+1))\nEND\necho after"), [
        0,
        "here 2\nafter\n",
        "",
      ]);
      assert.deepEqual(await tried.run("exec 3>&- 4>&- 5>&- 6>&- 7>&-; echo a"), [0, "a\n", ""]);
      assert.deepEqual(await tried.run("exec </dev/null; echo b"), [0, "b\n", ""]);
      assert.deepEqual(await tried.run("cat", "has input again"), [0, "has input again", ""]);
      assert.deepEqual(await tried.run("echo 'it'\\''s'; echo \"a\nb\""), [0, "it's\na\nb\n", ""]);
      assert.deepEqual(await tried.run("command() { echo mine; }; command"), [0, "mine\n", ""]);
      assert.deepEqual(await tried.run("echo alive"), [0, "alive\n", ""]);
      assert.deepEqual((await tried.run("set -x; true; set +x"))[0], 0);
      assert.deepEqual(await tried.run("printf 'x 0 /\\0' >&2; cd /; rmdir . 2>/dev/null; echo $?"), [
        0,
        "1\n",
        "x 0 /\0",
      ]);
    });

    test("input: all of it, its end, and what one command leaves is not the next one's", async () => {
      await using tried = await Tried.start(path);
      assert.deepEqual(await tried.run('read x; echo "[$x]"', "one\ntwo\n"), [0, "[one]\n", ""]);
      assert.deepEqual(await tried.run("cat; echo end"), [0, "end\n", ""]);
      assert.deepEqual(
        await tried.run("exec 8<&0; cat <&8 >late & echo started", "for the one in the background"),
        [0, "started\n", name === "bash" ? tried.said("stderr") : ""], // bash tells the number of the job
      );
      assert.deepEqual(await tried.run("cat", "mine"), [0, "mine", ""]);
      for (let i = 0; i < 20; i++) assert.deepEqual(await tried.run("cat"), [0, "", ""]);
    });

    test("Ctrl-C ends a process, a pipeline, a loop, a function, a substitution; the shell lives", async () => {
      await using tried = await Tried.start(path);
      await tried.run("X=kept; f() { while :; do sleep 60; done; }");
      for (const text of [
        "echo go; sleep 60",
        "(echo go; cat) | cat", // said by the last of them, when all are there
        "echo go; while :; do :; done",
        "echo go; f",
        "echo go; x=$(sleep 60)",
        "echo go; (while :; do sleep 60; done)",
        "echo go; sleep 60 & wait",
      ]) {
        assert.equal(await tried.interrupted(`${text}; echo never`), 130, text);
        assert.equal(tried.said("stdout").replace(/^go\n/, ""), "", text);
      }
      assert.deepEqual(await tried.run("echo $X $?"), [0, "kept 130\n", ""]);
      const [, own] = [
        await tried.interrupted("trap 'echo mine' INT; echo go; sleep 0.3; echo after"),
        tried.said("stdout"),
      ];
      assert.equal(own, "go\nmine\nafter\n", "a trap of one's own");
      assert.equal(await tried.interrupted("echo go; sleep 60"), 130);
    });

    test("an interrupt that comes before the command is kept for it", async () => {
      await using tried = await Tried.start(path);
      const running = tried.shell.run("sleep 60");
      tried.shell.signal("interrupt");
      assert.equal((await within(running, "the end")).code, 130);
    });

    test("exit, exec and a killed shell are its end, with the right code", async () => {
      for (const [text, code] of [
        ["exit 9", 9],
        ["exec sh -c 'exit 8'", 8],
        ["kill -9 $$", 137],
        ["set -e; false", 1],
      ] as const) {
        await using tried = await Tried.start(path);
        const end = await within(tried.shell.run(`echo last; ${text}`), text);
        assert.deepEqual([end.code, end.ended], [code, true], text);
        assert.equal(tried.said("stdout"), "last\n");
        assert.equal((await within(tried.shell.run("true"), "nothing runs any more")).ended, true);
      }
    });

    test("a background job keeps nobody waiting, and dies with the session, wherever it hides", {
      skip: process.platform !== "linux" && "looks into /proc",
    }, async () => {
      const tried = await Tried.start(path);
      const pids: number[] = [];
      for (const text of [
        "sleep 61 & echo $!",
        "nohup sleep 62 >/dev/null 2>&1 & echo $!",
        "setsid sh -c 'echo $$; exec sleep 63' & wait $! 2>/dev/null & sleep 0.2",
      ]) {
        const [, stdout] = await tried.run(text);
        pids.push(Number(stdout.trim().split("\n").at(-1)));
      }
      assert.ok(
        pids.every((pid) => pid > 0 && existsSync(`/proc/${pid}`)),
        String(pids),
      );
      await tried[Symbol.asyncDispose]();
      const left = pids.filter((pid) => existsSync(`/proc/${pid}`) && !isZombie(pid));
      assert.deepEqual(left, []);
    });

    test("the window's size for the next command", async () => {
      await using tried = await Tried.start(path);
      tried.shell.resize(132, 43);
      assert.deepEqual(await tried.run("sh -c 'echo $COLUMNS $LINES'"), [0, "132 43\n", ""]);
    });

    test("commands in a hurry: each has its own output and code", async () => {
      await using tried = await Tried.start(path);
      for (let i = 0; i < 200; i++) {
        const [code, stdout] = await tried.run(`echo ${i}; (exit ${i % 256})`);
        assert.deepEqual([code, stdout], [i % 256, `${i}\n`]);
      }
      const [, large] = await tried.run("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2");
      assert.equal(large.length, 3_000_000);
    });
  });
}

const isZombie = (pid: number) => {
  try {
    return /^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return true;
  }
};

test("a second command, a NUL, and a shell that is none, are refused", async () => {
  await using tried = await Tried.start("/bin/sh");
  const running = tried.shell.run("sleep 0.1");
  await assert.rejects(tried.shell.run("true"), /another one was running/);
  await running;
  await assert.rejects(tried.shell.run("a\0b"), /NUL/);
  await assert.rejects(shellKind("/bin/no-such-shell"), /cannot use the shell/);
  await assert.rejects(shellKind("/bin/true"), /cannot use the shell/);
});

test("nothing is left in the folder for temporary files", async (t) => {
  const { TMPDIR } = process.env; // one of our own: others make some in the common one
  process.env["TMPDIR"] = folder;
  t.after(() => {
    if (TMPDIR === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = TMPDIR;
  });
  const count = () => readdirSync(tmpdir()).filter((name) => name.startsWith("netlab-shell-")).length;
  const before = count();
  const tried = await Tried.start("/bin/sh");
  assert.equal(count(), before + 1);
  await tried[Symbol.asyncDispose]();
  assert.equal(count(), before);
});
