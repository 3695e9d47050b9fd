/** Makes the pictures of the README with a real browser. */
import { inBrowser } from "../../shared/browser.ts";
import { program, projectFile } from "../../shared/program.ts";
import { start } from "../../shared/running.ts";

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
