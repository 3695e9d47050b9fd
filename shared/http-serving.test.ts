import { strict as assert } from "node:assert";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mock, test } from "node:test";
import { parseRequest } from "./http.ts";
import { currentDate, formatDate, logLine, openLog, parseDate, statusPage } from "./http-serving.ts";

test("dates: the example of RFC 9110 §5.6.7 in its three forms, and what is none", () => {
  const time = Date.UTC(1994, 10, 6, 8, 49, 37);
  assert.equal(formatDate(time), "Sun, 06 Nov 1994 08:49:37 GMT");
  assert.equal(parseDate("Sun, 06 Nov 1994 08:49:37 GMT"), time);
  assert.equal(parseDate("Sunday, 06-Nov-94 08:49:37 GMT"), time);
  assert.equal(parseDate("Sun Nov  6 08:49:37 1994"), time);
  for (const text of [
    "",
    "1994",
    "Sun, 06 Nov 1994 08:49:37",
    "Sun, 06 Nov 1994 08:49:37 +0100",
    "Sun, 06 Xyz 1994 08:49:37 GMT",
  ]) {
    assert.equal(parseDate(text), undefined, text);
  }
});

test("a two-digit year is at most 50 years ahead (RFC 9110 §5.6.7)", () => {
  const year = new Date().getUTCFullYear();
  for (const [ahead, expected] of [
    [49, year + 49],
    [51, year - 49],
    [-49, year - 49],
  ] as const) {
    const text = `Sunday, 06-Nov-${String((year + ahead) % 100).padStart(2, "0")} 08:49:37 GMT`;
    assert.equal(new Date(parseDate(text) ?? 0).getUTCFullYear(), expected, text);
  }
});

test("the current date is made anew each second, and when the clock is set back", () => {
  mock.timers.enable({ apis: ["Date"], now: Date.UTC(2026, 0, 1, 0, 0, 0, 900) });
  try {
    assert.equal(currentDate(), "Thu, 01 Jan 2026 00:00:00 GMT");
    mock.timers.tick(99);
    assert.equal(currentDate(), "Thu, 01 Jan 2026 00:00:00 GMT");
    mock.timers.tick(1);
    assert.equal(currentDate(), "Thu, 01 Jan 2026 00:00:01 GMT");
    mock.timers.setTime(Date.UTC(2025, 0, 1));
    assert.equal(currentDate(), "Wed, 01 Jan 2025 00:00:00 GMT");
  } finally {
    mock.timers.reset();
  }
});

test("a status and its page", () => {
  const page = statusPage(404, "Not <i>here</i>.").toString();
  assert.match(page, /<title>404 Not Found<\/title>\n<h1>404 Not Found<\/h1>\n<p>Not <i>here<\/i>.<\/p>/);
  assert.match(statusPage(599, "").toString(), /<h1>599 Error<\/h1>/);
});

test("a line of the log; what a client wrote stays inside its quotes", () => {
  const head = parseRequest('GET /a"b HTTP/1.1\r\nHost: a\r\nUser-Agent: x"\\y\r\nReferer: http://r/');
  assert.equal(
    logLine("127.0.0.1", Date.UTC(2026, 10, 21, 3, 4, 5), head, 200, 12),
    '127.0.0.1 - - [21/Nov/2026:03:04:05 +0000] "GET /a\\x22b HTTP/1.1" 200 12 "http://r/" "x\\x22\\x5Cy"\n',
  );
  assert.match(
    logLine("::1", 0, undefined, 400, 0),
    /^::1 - - \[01\/Jan\/1970:00:00:00 \+0000\] "-" 400 - "-" "-"\n$/,
  );
});

test("a log is added to; one that cannot be opened is a failure", async () => {
  const folder = mkdtempSync(join(tmpdir(), "netlab-log-"));
  try {
    const path = join(folder, "log");
    for (const lines of [["a\n"], ["b\n", "c\n", "d\n"]]) {
      const log = await openLog(path, assert.fail);
      for (const text of lines) log.write(text);
      await once(log.end(), "finish");
    }
    assert.equal(readFileSync(path, "utf8"), "a\nb\nc\nd\n");
    await assert.rejects(openLog(join(folder, "none", "log")), {
      name: "Failure",
      message: /^cannot write .*log$/,
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

const onLinux = process.platform === "linux" ? {} : { skip: "wants /dev/full" };
test("a disk that is full is complained of once, and the log stays open", onLinux, async () => {
  const complaints: string[] = [];
  const log = await openLog("/dev/full", (text) => complaints.push(text));
  for (const text of ["a\n", "b\n", "c\n"])
    await new Promise<void>((resolve, reject) =>
      log.write(text, (error) => (error ? reject(error) : resolve())),
    );
  assert.deepEqual(complaints, ["cannot write /dev/full: the disk is full (ENOSPC); lines are lost"]);
  await once(log.end(), "finish");
});
