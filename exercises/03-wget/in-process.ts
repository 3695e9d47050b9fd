/** Downloads within the test's own process: starting the program takes far longer than what many tests are about. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { explain, Failure } from "../../shared/errors.ts";
import { Fields } from "../../shared/http.ts";
import { Cookies } from "./cookies.ts";
import { type DownloadOptions, download } from "./download.ts";
import { Client, type ClientOptions } from "./exchange.ts";
import { classified } from "./failures.ts";
import { HeadersLog } from "./headers-log.ts";
import { httpUrl } from "./protocol.ts";

interface Downloaded {
  /** What the program would exit with. */
  code: number;
  /** All that it would have said, the error last. */
  said: string;
  /** The directory, what is in it, and what is in `a`. */
  at: string;
  files: string[];
  body: string | undefined;
}

const folders: string[] = [];
process.once("exit", () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A new directory, which goes when the tests have ended. */
export function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "netlab-wget-"));
  folders.push(folder);
  return folder;
}

/** Downloads into the file `a` of a directory. */
export async function fetchHere(
  url: string,
  {
    at = newFolder(),
    ...options
  }: Partial<DownloadOptions & ClientOptions> & { at?: string; method?: string; body?: Buffer } = {},
): Promise<Downloaded> {
  const lines: string[] = [];
  const say = (line: string) => void lines.push(line);
  const stop = new AbortController();
  const headers = new HeadersLog(undefined, false);
  const client = new Client({
    ...{
      timeoutMs: 5000,
      signal: stop.signal,
      proxyFor: () => undefined,
      authorities: undefined,
      insecure: false,
    },
    ...{ headers, ...options },
  });
  let code = 0;
  try {
    await download(
      { method: options.method ?? "GET", url: httpUrl(url), fields: new Fields(), body: options.body },
      {
        ...{ client, headers, say, warn: say, cookies: new Cookies(), maxRedirects: 20, userAgent: "test" },
        ...{
          compressed: false,
          output: join(at, "a"),
          goesOn: false,
          force: false,
          showsProgress: false,
          ...options,
        },
      },
    );
  } catch (error) {
    const known = classified(error);
    if (!(known instanceof Failure)) throw known;
    code = known.exitCode;
    say(explain(known));
  } finally {
    client.close();
  }
  const path = join(at, "a");
  const body = existsSync(path) ? readFileSync(path, "latin1") : undefined;
  return { code, said: lines.join("\n"), at, files: readdirSync(at).toSorted(), body };
}
