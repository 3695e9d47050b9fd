/** Between this machine and the replicated directory: put and get, of files and of whole directories. */
import { createReadStream } from "node:fs";
import { lstat, mkdir, open, readdir, rename, rm, utimes } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import { Failure } from "../../shared/errors.ts";
import { Progress } from "../../shared/progress.ts";
import { joined, nameOf } from "./paths.ts";
import type { Remote, Source } from "./remote.ts";

/** What is smaller is there before anybody can look. */
const PROGRESS_BYTES = 4 * 1024 * 1024;

export class Transfers {
  readonly #remote: Remote;
  readonly #showsProgress: boolean;

  constructor(remote: Remote, showsProgress: boolean) {
    this.#remote = remote;
    this.#showsProgress = showsProgress;
  }

  #progress(totalBytes: number): Progress {
    return new Progress(totalBytes, 0, this.#showsProgress && totalBytes >= PROGRESS_BYTES);
  }

  async put(local: string, to: string, isRecursive: boolean): Promise<void> {
    const found = await lstat(local).catch((error) => {
      throw new Failure(`cannot read ${local}`, { cause: error });
    });
    if (found.isDirectory()) {
      if (!isRecursive) throw new Failure(`${local} is a directory; put -r copies it`);
      await this.#remote.do("mkdir", to, { recursive: 1, mode: found.mode & 0o777 });
      for (const name of await readdir(local)) await this.put(join(local, name), joined(to, name), true);
      return;
    }
    const start = () => this.#progress(found.size);
    const source: Source = async function* () {
      const progress = start();
      try {
        for await (const data of createReadStream(local, { highWaterMark: 256 * 1024 })) {
          yield data;
          progress.advance(data.length);
        }
      } finally {
        progress.end();
      }
    };
    await this.#remote.write(to, source, found.mode & 0o777);
  }

  /** Each path into `to` where that is a directory, else the only one as it. */
  async getAll(paths: readonly string[], to: string, isRecursive: boolean): Promise<void> {
    const isFolder = await lstat(to).then(
      (found) => found.isDirectory(),
      () => false,
    );
    if (paths.length > 1 && !isFolder) throw new Failure(`${to} is not a directory`);
    for (const path of paths) await this.#get(path, isFolder ? join(to, nameOf(path)) : to, isRecursive);
  }
  async #get(path: string, to: string, isRecursive: boolean): Promise<void> {
    // What is a name there may lead elsewhere here.
    if (sep === "\\" && /[\\:]/.test(nameOf(path))) throw new Failure(`/${path} cannot be a name on Windows`);
    const item = await this.#remote.stat(path);
    if (item.kind === "link") throw new Failure(`/${path} is a link to ${item.target}; get its target`);
    if (item.kind === "directory") {
      if (!isRecursive) throw new Failure(`/${path} is a directory; get -r copies it`);
      await mkdir(to, { recursive: true });
      for (const one of (await this.#remote.list(path)).slice(1))
        if (one.item.kind !== "link") await this.#get(one.path, join(to, nameOf(one.path)), true);
      return;
    }
    const aside = join(dirname(to), `.${basename(to)}.${process.pid}.part`);
    const file = await open(aside, "w", item.mode & 0o777).catch((error) => {
      throw new Failure(`cannot write ${to}`, { cause: error });
    });
    const progress = this.#progress(Number(item.sizeBytes));
    try {
      await this.#remote
        .read(path, async (data) => {
          await file.appendFile(data);
          progress.advance(data.length);
        })
        .finally(() => file.close());
      await utimes(aside, new Date(), Number(item.mtimeUs) / 1e6);
      await rename(aside, to);
    } catch (error) {
      await rm(aside, { force: true });
      throw error;
    } finally {
      progress.end();
    }
  }
}
