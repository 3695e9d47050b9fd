/** What was cut off is continued, where that is sure to give the whole file; else it is fetched anew. */
import { strict as assert } from "node:assert";
import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { run, start, within } from "../../shared/testing.ts";
import { fetchHere, newFolder } from "./in-process.ts";
import { PartFile } from "./part-file.ts";
import { ok, type Script, ScriptedServer } from "./scripted-server.ts";

const WGET = "exercises/03-wget/wget.ts";
const BIG = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 167 + (i >> 8) * 31) & 255)).toString(
  "latin1",
);
const ETAG = 'ETag: "v1"\r\n';
const DATE = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
const serve = (script: Script) => ScriptedServer.start(script);

/** Serves BIG, knows ranges, and breaks the first answer off. */
const cutting =
  (fields: string): Script =>
  (asked, number) => {
    if (number === 1) return { bytes: ok(BIG, fields).subarray(0, -200_000), after: "end" };
    const start = Number(/^bytes=(\d+)-$/.exec(asked.fields.get("Range") ?? "")?.[1] ?? Number.NaN);
    const condition = asked.fields.get("If-Range");
    if (Number.isNaN(start) || (condition !== undefined && !fields.includes(condition)))
      return ok(BIG, fields);
    if (start >= BIG.length) return ok("", `Content-Range: bytes */${BIG.length}\r\n`, "416 No");
    const range = `Content-Range: bytes ${start}-${BIG.length - 1}/${BIG.length}\r\n`;
    return ok(BIG.slice(start), fields + range, "206 Part");
  };

describe("--continue", { concurrency: true }, () => {
  test("asks with Range and If-Range, by tag or by date; without either, with a warning", async () => {
    for (const [fields, condition] of [
      [ETAG, '"v1"'],
      [DATE, "Sun, 06 Nov 1994 08:49:37 GMT"],
      ["", undefined],
      ['ETag: W/"v1"\r\n', undefined],
    ] as const) {
      await using server = await serve(cutting(fields));
      const cut = await fetchHere(server.url);
      assert.deepEqual([cut.code, cut.files], [1, ["a.part", "a.part.json"]]);
      assert.match(
        cut.said,
        /a\.part has 100000 bytes; go on with --continue\nthe body ended 200000 of 300000 bytes early$/,
      );
      assert.equal(readFileSync(join(cut.at, "a.part"), "latin1"), BIG.slice(0, 100_000));
      const whole = await fetchHere(server.url, { at: cut.at, goesOn: true });
      assert.deepEqual([whole.code, whole.files], [0, ["a"]], whole.said);
      assert.ok(whole.body === BIG);
      assert.match(whole.said, /^going on behind 100\.0 kB of \S+a\.part$/m);
      assert.equal(/^warning: nothing is known/m.test(whole.said), condition === undefined);
      const asked = server.asked[1]?.fields;
      assert.deepEqual([asked?.get("Range"), asked?.get("If-Range")], ["bytes=100000-", condition]);
      assert.equal(statSync(join(whole.at, "a")).mtimeMs === 784_111_777_000, fields === DATE);
    }
  });

  test("starts over where the file has changed, ranges are unknown, or the answer does not fit", async () => {
    const liar =
      (fields: string, at = 100_000, body = BIG.slice(at)): Script =>
      (asked, number) => {
        if (number === 1) return cutting(ETAG)(asked, number);
        return asked.fields.get("Range") ? ok(body, fields, "206 Part") : ok(BIG);
      };
    const then =
      (later: Script): Script =>
      (asked, number) =>
        number === 1 ? cutting(ETAG)(asked, number) : later(asked, number);
    const scripts: Record<string, Script> = {
      changed: then(cutting('ETag: "v2"\r\n')),
      "no ranges": then(() => ok(BIG)),
      "another version in spite of If-Range": liar(
        'ETag: "v2"\r\nContent-Range: bytes 100000-299999/300000\r\n',
      ),
      "another place": liar(`${ETAG}Content-Range: bytes 99999-299999/300000\r\n`, 99_999),
      "another length": liar(`${ETAG}Content-Range: bytes 100000-299999/300001\r\n`),
      "not to the end": liar(
        `${ETAG}Content-Range: bytes 100000-199999/300000\r\n`,
        0,
        BIG.slice(100_000, 200_000),
      ),
      "no Content-Range": liar(ETAG),
      "416 without a length": then((_, number) => (number === 2 ? ok("", "", "416 No") : ok(BIG))),
      "416 with another length": then((_, number) =>
        number === 2 ? ok("", "Content-Range: bytes */99999\r\n", "416 No") : ok(BIG),
      ),
      "416 with the part's length, which was not the file's": then((_, number) =>
        number === 2 ? ok("", "Content-Range: bytes */100000\r\n", "416 No") : ok(BIG),
      ),
    };
    for (const [what, script] of Object.entries(scripts)) {
      await using server = await serve(script);
      const cut = await fetchHere(server.url);
      const whole = await fetchHere(server.url, { at: cut.at, goesOn: true });
      assert.deepEqual(
        [whole.code, whole.files, server.asked[1]?.fields.get("Range")],
        [0, ["a"], "bytes=100000-"],
        what,
      );
      assert.ok(whole.body === BIG, what);
      assert.match(whole.said, /^starting over: /m);
    }
  });

  test("a part that is shorter or longer than its Content-Range says is not taken for the rest", async () => {
    const range = `${ETAG}Content-Range: bytes 100000-299999/300000\r\n`;
    const chunked = (body: string) =>
      `HTTP/1.1 206 Part\r\n${range}Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
    for (const [answer, complaint] of [
      [ok(BIG.slice(100_000, -10), range, "206 Part"), /the part ended 10 of the 200000 bytes early/],
      [ok(`${BIG.slice(100_000)}more`, range, "206 Part"), /the part is longer than the 200000 bytes/],
      [chunked(BIG.slice(100_000, -10)), /the part ended 10 of/],
      [chunked(`${BIG.slice(100_000)}more`), /the part is longer/],
      [{ bytes: `HTTP/1.1 206 Part\r\n${range}\r\n`, after: "end" as const }, /the part ended 200000 of/],
    ] as const) {
      await using server = await serve((asked, number) =>
        number === 1 ? cutting(ETAG)(asked, number) : answer,
      );
      const cut = await fetchHere(server.url);
      const lied = await fetchHere(server.url, { at: cut.at, goesOn: true });
      assert.deepEqual([lied.code, lied.files], [1, ["a.part", "a.part.json"]], lied.said);
      assert.match(lied.said, complaint);
      const part = readFileSync(join(cut.at, "a.part"), "latin1");
      assert.ok(BIG.startsWith(part), "what is there is still the file's beginning");
    }
  });

  test("what is complete gets its name, and is not fetched again", async () => {
    await using server = await serve(cutting(ETAG + DATE));
    const cut = await fetchHere(server.url);
    writeFileSync(join(cut.at, "a.part"), BIG, "latin1"); // as if it had been killed just before the end
    const whole = await fetchHere(server.url, { at: cut.at, goesOn: true });
    assert.deepEqual([whole.code, whole.files, whole.body === BIG], [0, ["a"], true], whole.said);
    const again = await fetchHere(server.url, { at: cut.at, goesOn: true });
    assert.deepEqual([again.code, again.files], [0, ["a"]], again.said);
    assert.match(again.said, /a is complete already$/);
    utimesSync(join(cut.at, "a"), 1, 1);
    assert.deepEqual((await fetchHere(server.url, { at: cut.at, goesOn: true })).files, ["a", "a.1"]);
  });

  test("a part of another URL, or one that was decompressed, is not gone on with; one without a record is", async () => {
    await using server = await serve(cutting(ETAG));
    const cut = await fetchHere(server.url);
    const other = await fetchHere(`${server.url}/other`, { at: cut.at, goesOn: true });
    assert.deepEqual([other.code, server.asked[1]?.fields.get("Range")], [0, undefined]);
    const at = newFolder();
    writeFileSync(join(at, "a.part"), BIG.slice(0, 50_000), "latin1");
    const made = await fetchHere(server.url, { at, goesOn: true });
    assert.deepEqual(
      [made.code, made.body === BIG, server.asked[2]?.fields.get("Range")],
      [0, true, "bytes=50000-"],
    );
    const record = { url: `${server.url}/`, etag: '"v1"', validator: '"v1"', isDecoded: true };
    rmSync(join(at, "a"));
    writeFileSync(join(at, "a.part"), BIG.slice(0, 50_000), "latin1");
    writeFileSync(join(at, "a.part.json"), JSON.stringify(record));
    const anew = await fetchHere(server.url, { at, goesOn: true });
    assert.deepEqual(
      [anew.code, anew.body === BIG, server.asked[3]?.fields.get("Range")],
      [0, true, undefined],
    );
    for (const text of ["", "{", "null", '{"url":7}']) {
      rmSync(join(at, "a"));
      writeFileSync(join(at, "a.part"), "wrong");
      writeFileSync(join(at, "a.part.json"), text);
      const broken = await fetchHere(server.url, { at, goesOn: true });
      assert.deepEqual([broken.code, broken.body === BIG, broken.files], [0, true, ["a"]], text);
    }
  });

  test("a part has the name that its file will have; nothing that appears meanwhile is overwritten", async () => {
    await using server = await serve(cutting(ETAG));
    const at = newFolder();
    writeFileSync(join(at, "a"), "old");
    const cut = await fetchHere(server.url, { at });
    assert.deepEqual(cut.files, ["a", "a.1.part", "a.1.part.json"]);
    const whole = await fetchHere(server.url, { at, goesOn: true });
    assert.deepEqual([whole.files, whole.body], [["a", "a.1"], "old"]);
    const part = PartFile.create(join(at, "b"), { url: "http://h/" }, false);
    part.write(Buffer.from("ours"));
    writeFileSync(join(at, "b"), "theirs");
    assert.equal(part.finish(false, undefined), join(at, "b.1"));
    part.close();
    assert.deepEqual(
      ["b", "b.1"].map((name) => readFileSync(join(at, name), "utf8")),
      ["theirs", "ours"],
    );
  });

  test("a part that another program has put in its place is not given the name", () => {
    const at = newFolder();
    const part = PartFile.create(join(at, "a"), { url: "http://h/" }, false);
    part.write(Buffer.from("ours"));
    writeFileSync(join(at, "other"), "theirs");
    renameSync(join(at, "other"), join(at, "a.part"));
    assert.throws(() => part.finish(false, undefined), { name: "FileFailure" });
    part.close();
    assert.ok(!existsSync(join(at, "a")));
  });

  test("what was not decompressed at first is not decompressed later", async () => {
    await using server = await serve(cutting(`${ETAG}Content-Encoding: gzip\r\n`));
    const cut = await fetchHere(server.url);
    const whole = await fetchHere(server.url, { at: cut.at, goesOn: true, compressed: true });
    assert.deepEqual([whole.code, whole.body === BIG], [0, true], whole.said);
    assert.equal(server.asked[1]?.fields.get("Accept-Encoding"), "identity");
  });

  test("finds the part under the name that the server gave; cuts in a row", async () => {
    const at = newFolder();
    await using server = await serve((asked) => {
      const start = Number(/^bytes=(\d+)-$/.exec(asked.fields.get("Range") ?? "")?.[1] ?? 0);
      const range = start > 0 ? `Content-Range: bytes ${start}-${BIG.length - 1}/${BIG.length}\r\n` : "";
      const whole = ok(
        BIG.slice(start),
        `${ETAG}${range}Content-Disposition: attachment; filename=named\r\n`,
        start > 0 ? "206 P" : "200 OK",
      );
      return { bytes: whole.subarray(0, 70_000), after: "end" };
    });
    const codes: (number | null)[] = [];
    for (let i = 0; i < 10 && codes.at(-1) !== 0; i++)
      codes.push(
        (await run(WGET, [`${server.url}/x`, "--continue", "--quiet"], { cwd: at, env: { http_proxy: "" } }))
          .code,
      );
    assert.deepEqual([codes, readdirSync(at)], [[1, 1, 1, 1, 0], ["named"]]);
    assert.ok(readFileSync(join(at, "named"), "latin1") === BIG);
  });

  test("goes on behind a kill -9; without it, all begins anew", async () => {
    const at = newFolder();
    const stalling: Script = (asked, number) =>
      number <= 2
        ? { bytes: ok(BIG, ETAG).subarray(0, 200_000), after: "stall" }
        : cutting(ETAG)(asked, number);
    await using server = await serve(stalling);
    const hasPart = (count: number) =>
      server.asked.length === count &&
      existsSync(join(at, "a.part")) &&
      statSync(join(at, "a.part")).size > 100_000;
    for (const count of [1, 2]) {
      await using running = await start(WGET, [`${server.url}/`, "--output", join(at, "a")], {
        servers: 0,
        env: { http_proxy: "" },
      });
      const wait = async () => {
        while (!hasPart(count)) await new Promise((resolve) => setTimeout(resolve, 5));
      };
      await within(wait(), "a part");
      running.kill("SIGKILL");
      await running.exited;
    }
    assert.equal(server.asked[1]?.fields.get("Range"), undefined);
    const whole = await fetchHere(server.url, { at, goesOn: true });
    assert.deepEqual([whole.code, whole.files, whole.body === BIG], [0, ["a"], true], whole.said);
    assert.match(server.asked[2]?.fields.get("Range") ?? "", /^bytes=1\d{5}-$/);
  });
});
