/** Headless Chromium, for tests and pictures of pages. */
import { type Browser, chromium, type Page } from "playwright-core";
import { Failure } from "./errors.ts";
import { pathOf } from "./running.ts";

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

/** Calls `work` with an empty page in a fresh profile, and closes the browser when it is done. Throws `Failure` where there is none. */
export async function inBrowser<T>(
  work: (page: Page) => Promise<T>,
  flags: readonly string[] = [],
): Promise<T> {
  const executablePath = NAMES.map(pathOf).find((path) => path !== undefined);
  if (executablePath === undefined)
    throw new Failure(`cannot find a browser: none of ${NAMES.join(", ")} is in PATH`);
  const browser: Browser = await chromium.launch({ executablePath, args: [...FLAGS, ...flags] });
  try {
    return await work(await browser.newPage({ viewport: { width: 800, height: 660 } }));
  } finally {
    await browser.close();
  }
}
