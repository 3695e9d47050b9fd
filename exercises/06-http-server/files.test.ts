/** What is sent is what was described, and no descriptor is forgotten. */
import { strict as assert } from "node:assert";
import {
  closeSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { HttpError } from "../../shared/http.ts";
import { Files, openFile, type ServedFile, SMALL_FILE_BYTES } from "./files.ts";

const root = mkdtempSync(join(tmpdir(), "netlab-files-"));
after(() => rmSync(root, { recursive: true }));
const files = new Files(root, "index.html");
const LARGE_BYTES = SMALL_FILE_BYTES + 1;

function found(name: string): ServedFile {
  const file = files.find({ path: name, isFolder: false, query: "" });
  assert.ok(typeof file === "object");
  return file;
}
function put(name: string, sizeBytes: number, letter: string): void {
  writeFileSync(join(root, `${name}.new`), letter.repeat(sizeBytes));
  renameSync(join(root, `${name}.new`), join(root, name));
}
function firstByte(fd: number): string {
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, 0);
  closeSync(fd);
  return byte.toString();
}
/** Descriptors of this process that are files of ours. */
function openInRoot(): string[] {
  const links = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ""; // the descriptor of the listing itself
    }
  });
  return links.filter((path) => path.startsWith(root));
}

test("a file that is replaced after it was described is sent as described", () => {
  put("large", LARGE_BYTES, "a");
  const file = found("large");
  put("large", LARGE_BYTES, "b");
  assert.equal(firstByte(openFile(file)), "a");
});

test("one that is opened anew may have grown, but must be the same: inode and birth", () => {
  put("log", LARGE_BYTES, "a");
  const described = found("log");
  closeSync(openFile(described)); // sent once
  writeFileSync(join(root, "log"), "a", { flag: "a" });
  assert.equal(firstByte(openFile(described)), "a");
  for (const key of ["ino", "birthtimeMs"] as const) {
    const stats = Object.assign(Object.create(described.stats), { [key]: described.stats[key] + 1 });
    assert.throws(
      () => openFile({ ...described, stats }),
      (error) => error instanceof HttpError && error.status === 500,
      key,
    );
  }
});

test(
  "descriptors of what is not sent are closed, of small and of large files",
  process.platform === "linux" ? {} : { skip: "looks into /proc" },
  async () => {
    put("large", LARGE_BYTES, "a");
    put("small", 1, "a");
    for (let i = 0; i < 20; i++) for (const name of ["large", "small"]) found(name);
    assert.equal(openInRoot().length, 20); // the large ones
    await nextTurn();
    await nextTurn();
    assert.deepEqual(openInRoot(), []);
  },
);
