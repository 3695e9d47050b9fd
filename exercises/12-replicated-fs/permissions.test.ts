/**
 * Permissions that keep their own owner out: the directory is what it must be all the same, and who only looks is told. For
 * root there are none, so root runs this file once more without the right to pass over them.
 */
import { strict as assert } from "node:assert";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { needs, run } from "../../shared/testing.ts";
import { Disk } from "./disk.ts";
import { HERE } from "./local-cluster.ts";
import type { Item } from "./protocol.ts";
import { directoryItem } from "./tree.ts";

const WITHOUT = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
const isRoot = process.getuid?.() === 0 && process.env["NETLAB_OBEYS"] === undefined;

if (isRoot)
  test("without root's right to pass over permissions", needs("setpriv"), async () => {
    const env = { NETLAB_OBEYS: "1", NODE_TEST_CONTEXT: "" };
    const { code, stdout, stderr } = await run(`${HERE}/permissions.test.ts`, [], { wrapper: WITHOUT, env });
    assert.equal(code, 0, stdout + stderr);
  });
else define();

function define(): void {
  let folder: string;
  let disk: Disk;
  const at = (path: string) => join(folder, "dir", path);
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "netlab-permissions-"));
    for (const name of ["dir/open", "dir/closed/deep", "stage"])
      mkdirSync(join(folder, name), { recursive: true });
    writeFileSync(at("closed/deep/file"), "within");
    writeFileSync(at("secret"), "sealed");
    symlinkSync("deep", at("closed/link"));
    disk = new Disk(join(folder, "dir"), join(folder, "stage"));
  });
  after(() => {
    disk.close();
    for (const path of ["", "closed", "closed/deep", "open"]) if (disk) chmodSync(at(path), 0o700);
    rmSync(folder, { recursive: true });
  });
  const modeOf = (path: string) => lstatSync(at(path)).mode & 0o777;
  const file: Item = { ...directoryItem(0o640, 1_000_000n), kind: "file", sizeBytes: 3n };
  const skip = process.platform === "linux" ? {} : { skip: "needs /proc" };

  test("in directories that forbid it everything is done, and they forbid it afterwards", skip, async () => {
    chmodSync(at("closed/deep"), 0o000);
    chmodSync(at("closed"), 0o555);
    chmodSync(at("secret"), 0o000);
    assert.throws(() => readFileSync(at("closed/deep/file")), /EACCES/);
    assert.equal(disk.read("closed/deep/file", 100).toString(), "within");
    assert.deepEqual(disk.names("closed/deep"), ["file"]);
    disk.put("closed/deep/new", file, Buffer.from("new"));
    disk.setMetadata("closed/deep/new", { ...file, mode: 0o000 });
    await using handle = await disk.open("closed/deep/new");
    assert.equal(await handle.readFile("utf8"), "new");
    disk.setMetadata("closed/deep/new", { ...file, mode: 0o644 });
    disk.sync("secret");
    disk.move("closed/link", "open/link");
    disk.move("closed/deep", "open/deep");
    assert.deepEqual([modeOf("closed"), modeOf("open/deep"), modeOf("secret")], [0o555, 0o000, 0o000]);
    disk.takeOut("open/deep/file", disk.aside());
    disk.move("open/deep", "closed/deep");
    assert.ok(disk.remove("closed/deep/new"));
    assert.deepEqual([...disk.names("closed/deep"), modeOf("closed/deep")], [0o000]);
  });

  test("a guest is told where it may not look, and sees the rest", skip, async () => {
    const guest = new Disk(join(folder, "dir"), join(folder, "stage"), true);
    const [seen, troubles]: string[][] = [[], []];
    for await (const [path] of guest.walk("", (path, error) =>
      troubles?.push(`${path} ${(error as NodeJS.ErrnoException).code}`),
    ))
      seen?.push(path);
    guest.close();
    assert.deepEqual(troubles, ["closed/deep EACCES"]);
    assert.deepEqual(seen, ["", "closed", "closed/deep", "open", "open/link", "secret"]);
  });
}
