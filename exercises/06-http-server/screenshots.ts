/** The server's pages in a real browser: makes the pictures of the README, and drives Chromium for the tests. */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { Failure } from "../../shared/errors.ts";
import { program, projectFile } from "../../shared/program.ts";
import { start } from "../../shared/running.ts";

const NAMES = ["chromium", "chromium-browser", "google-chrome"];
/** Quiet: nothing is asked of the network but what the page asks for. Root may run it only without its sandbox. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

function findChromium(): string {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  const found = NAMES.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (found === undefined) throw new Failure(`cannot find a browser: none of ${NAMES.join(", ")} is in PATH`);
  return found;
}

/** Headless, and closed when `work` is done. Throws `Failure` where there is none. */
export async function inBrowser<T>(work: (page: Page) => Promise<T>): Promise<T> {
  const browser: Browser = await chromium.launch({ executablePath: findChromium(), args: FLAGS });
  try {
    return await work(await browser.newPage({ viewport: { width: 800, height: 660 } }));
  } finally {
    await browser.close();
  }
}

if (process.argv[1] === import.meta.filename) {
  await program({
    summary: "Makes the screenshots of this exercise's README with Chromium.",
    example: "",
    settings: {},
    async run(_settings, { log }) {
      await using server = await start("exercises/06-http-server/server.ts", ["--port", 0]);
      await inBrowser(async (page) => {
        for (const [target, name] of [
          ["/", "page.png"],
          ["/nothing-here", "not-found.png"],
        ] as const) {
          await page.goto(`http://127.0.0.1:${server.port}${target}`);
          const path = projectFile(`exercises/06-http-server/${name}`);
          await page.screenshot({ path });
          log(`${target}: ${path}`);
        }
      });
    },
  });
}
