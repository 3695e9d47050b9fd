/** What is kept: across restarts and kill -9, in bounds, whole or not at all, and with no room on the disk. */
import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import fc from "fast-check";
import type { Connection } from "../../shared/connection.ts";
import { readResponse } from "../../shared/http.ts";
import { encode, PduError } from "../../shared/pdu.ts";
import { run, runTool, start } from "../../shared/testing.ts";
import { ObjectWriter, openObject, readBodyOf, readObject, rewriteHead } from "./object-file.ts";
import { ObjectHead } from "./protocol.ts";
import { Store } from "./store.ts";
import { ask, client, FRESH, how, pattern, requestFor, TestOrigin } from "./test-origin.ts";

const PROXY = "exercises/07-caching-proxy/proxy.ts";
const root = mkdtempSync(join(tmpdir(), "netlab-proxy-store-"));
let origin: TestOrigin;
let lastFolder = 0;
const newFolder = () => join(root, String(++lastFolder));
const startIn = (folder: string, ...args: (string | number)[]) =>
  start(PROXY, ["--port", 0, "--cache-dir", folder, ...args]);
const objectsIn = (folder: string) =>
  readdirSync(folder)
    .filter((name) => name.endsWith(".object"))
    .map((name) => join(folder, name));
const SMALL = pattern(1000);
const LARGE = pattern(1_500_000, 2);

before(async () => {
  origin = await TestOrigin.start();
  origin.serves("/small", SMALL, FRESH, 'ETag: "s"', "Vary: Accept");
  origin.serves("/large", LARGE, FRESH);
});
after(async () => {
  await origin[Symbol.asyncDispose]();
  rmSync(root, { recursive: true });
});

async function fill(folder: string): Promise<void> {
  await using proxy = await startIn(folder);
  await ask(proxy.port, origin.url("/small"));
  await ask(proxy.port, origin.url("/large"));
  // Disposing of it is kill -9.
}

/** Both must come whole; from the cache or not. */
async function check(folder: string, small: string, large: string): Promise<void> {
  await using proxy = await startIn(folder);
  const answers = [await ask(proxy.port, origin.url("/small")), await ask(proxy.port, origin.url("/large"))];
  assert.deepEqual(answers.map(how), [small, large]);
  assert.ok(answers[0]?.body.equals(SMALL) && answers[1]?.body.equals(LARGE));
}

describe("across restarts", () => {
  test("kill -9: what was stored is there again, with its fields and its age", async () => {
    const folder = newFolder();
    await fill(folder);
    await check(folder, "hit", "hit");
    await using proxy = await startIn(folder);
    const answer = await ask(proxy.port, origin.url("/small"), ['If-None-Match: "s"']);
    assert.deepEqual([answer.status, answer.fields.get("Vary")], [304, "Accept"]);
    assert.equal(how(await ask(proxy.port, origin.url("/small"), ["Accept: else"])), "fwd=vary-miss");
  });

  test("a freshened head is what is there after a restart, also with fields that need more room", async () => {
    for (const [name, extra, after] of [
      ["little", 10, "hit"],
      ["much", 5000, "hit"],
    ] as const) {
      const folder = newFolder();
      const path = `/freshen-${name}`;
      const url = origin.on(path, async (connection, { fields }) => {
        if (fields.get("If-None-Match") === undefined)
          await connection.write(
            'HTTP/1.1 200 OK\r\nCache-Control: max-age=0\r\nETag: "v"\r\nContent-Length: 1\r\n\r\nx',
          );
        else
          await connection.write(
            `HTTP/1.1 304 Not Modified\r\n${FRESH}\r\nETag: "v"\r\nX-New: ${"n".repeat(extra)}\r\n\r\n`,
          );
      });
      {
        await using proxy = await startIn(folder);
        await ask(proxy.port, url);
        assert.equal((await ask(proxy.port, url)).fields.get("X-New")?.length, extra);
      }
      await using proxy = await startIn(folder);
      assert.equal(how(await ask(proxy.port, url)), after);
    }
  });

  test("killed in mid-body: no half is left over", async () => {
    const folder = newFolder();
    const url = origin.on("/never-whole", async (connection) => {
      await connection.write(`HTTP/1.1 200 OK\r\n${FRESH}\r\nContent-Length: 2000000\r\n\r\n`);
      await connection.write(pattern(1_000_000));
      await connection.more(0);
      return false;
    });
    {
      await using proxy = await startIn(folder);
      await using connection = await client(proxy.port);
      await connection.write(requestFor(url));
      await connection.readExactly(500_000);
      assert.equal(readdirSync(folder).filter((name) => name.endsWith(".part")).length, 1);
    }
    await using _ = await startIn(folder);
    assert.deepEqual(readdirSync(folder), ["lock"]);
  });

  test("a folder that another proxy uses is refused; that of one that was killed is not", async () => {
    const folder = newFolder();
    await using proxy = await startIn(folder);
    const { code, stderr } = await run(PROXY, ["--port", 0, "--cache-dir", folder]);
    assert.equal(code, 1);
    assert.match(
      stderr,
      new RegExp(
        `^error: cannot use .* for the cache: process ${proxy.child.pid} uses it; choose another with --cache-dir.*\n$`,
      ),
    );
  });
});

describe("damage", () => {
  /** Changes a file behind the proxy's back. */
  const flip = (path: string, at: number) => {
    const bytes = readFileSync(path);
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    writeFileSync(path, bytes);
  };

  test("a bit anywhere, a missing end, an appended byte, an empty or foreign file: dropped, and fetched anew", async () => {
    const folder = newFolder();
    const damages: ((path: string) => void)[] = [
      ...[0, 7, 10, 17, 21, 25, 40, 150].map((at) => (path: string) => flip(path, at)),
      (path) => flip(path, statSync(path).size - 1),
      (path) => flip(path, statSync(path).size - 900),
      (path) => truncateSync(path, statSync(path).size - 1),
      (path) => truncateSync(path, 20),
      (path) => truncateSync(path, 0),
      (path) => writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from("x")])),
      (path) => writeFileSync(path, "not an object at all"),
    ];
    const bodies = new Map<string, Buffer>();
    for (const sizeBytes of [1000, 300_000])
      for (const i of damages.keys()) bodies.set(`/damaged${sizeBytes}-${i}`, pattern(sizeBytes, i));
    {
      await using proxy = await startIn(folder);
      for (const [path, body] of bodies) await ask(proxy.port, origin.serves(path, body, FRESH));
    }
    for (const path of objectsIn(folder)) {
      const number = /-(\d+)$/.exec(readObject(path)?.meta.url ?? "")?.[1];
      damages[Number(number)]?.(path);
    }
    await using proxy = await startIn(folder);
    for (const [path, body] of bodies) {
      const answer = await ask(proxy.port, origin.url(path));
      assert.deepEqual([how(answer), answer.body.equals(body)], ["fwd=uri-miss", true], path);
      assert.equal(how(await ask(proxy.port, origin.url(path))), "hit", path);
    }
  });

  test("while it runs: a large object is compared again before it is sent", async () => {
    const folder = newFolder();
    await using proxy = await startIn(folder, "--memory", 0);
    for (const [path, body] of [
      ["/small", SMALL],
      ["/large", LARGE],
    ] as const) {
      await ask(proxy.port, origin.url(path));
      for (const file of objectsIn(folder)) flip(file, statSync(file).size - 5);
      const answer = await ask(proxy.port, origin.url(path));
      assert.ok(answer.body.equals(body), path);
      assert.equal(how(await ask(proxy.port, origin.url(path))), "hit");
      for (const file of objectsIn(folder)) rmSync(file);
      assert.ok((await ask(proxy.port, origin.url(path))).body.equals(body), `${path}, removed`);
    }
  });
});

describe("bounds", () => {
  const SIZE = 100_000;
  const names = Array.from({ length: 30 }, (_, i) => `/lru${i}`);

  test("the least recently used goes first, and the folder stays within its size", async () => {
    for (const [i, name] of names.entries()) origin.serves(name, pattern(SIZE, i), FRESH);
    const folder = newFolder();
    await using proxy = await startIn(folder, "--cache-size", "1MiB");
    for (const name of names) {
      await ask(proxy.port, origin.url(name));
      await ask(proxy.port, origin.url("/lru0")); // it is asked for all the time, so it stays
      const bytes = objectsIn(folder).reduce((sum, path) => sum + statSync(path).size, 0);
      assert.ok(bytes <= 2 ** 20, `${bytes} bytes`);
    }
    assert.equal(how(await ask(proxy.port, origin.url("/lru0"))), "hit");
    assert.equal(how(await ask(proxy.port, origin.url("/lru29"))), "hit");
    assert.equal(how(await ask(proxy.port, origin.url("/lru1"))), "fwd=uri-miss");
    assert.equal(origin.count("/lru0"), 1);
  });

  test("a larger object than --max-object is passed on, and not stored, whether it says its length or not", async () => {
    const folder = newFolder();
    const body = pattern(300_000);
    origin.serves("/too-large", body, FRESH);
    origin.on("/too-large-chunks", async (connection) => {
      await connection.write(`HTTP/1.1 200 OK\r\n${FRESH}\r\nTransfer-Encoding: chunked\r\n\r\n`);
      for (let at = 0; at < body.length; at += 50_000)
        await connection.write(
          Buffer.concat([Buffer.from("c350\r\n"), body.subarray(at, at + 50_000), Buffer.from("\r\n")]),
        );
      await connection.write("0\r\n\r\n");
    });
    await using proxy = await startIn(folder, "--max-object", "200KiB");
    for (const path of ["/too-large", "/too-large-chunks"]) {
      for (let i = 0; i < 2; i++)
        assert.ok((await ask(proxy.port, origin.url(path))).body.equals(body), path);
      assert.equal(origin.count(path), 2);
    }
    assert.deepEqual(readdirSync(folder), ["lock"]);
    assert.match((await ask(proxy.port, origin.url("/small"))).body.toString("latin1"), /./s);
  });

  test("a smaller cache after a restart is made to fit", async () => {
    const folder = newFolder();
    await fill(folder);
    await using proxy = await startIn(folder, "--cache-size", "1475KiB");
    assert.equal(objectsIn(folder).length, 1);
    assert.equal(how(await ask(proxy.port, origin.url("/small"))), "fwd=uri-miss");
  });
});

describe("no room", () => {
  const canMount =
    process.platform === "linux" && process.getuid?.() === 0
      ? {}
      : { skip: "mounting a small disk takes root on Linux" };

  test(
    "on a full disk, proxying goes on: all get theirs, also those who came in mid-body, and what fits is stored",
    canMount,
    async (t) => {
      const folder = newFolder();
      mkdirSync(folder);
      const mounted = await runTool("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]);
      if (mounted.code !== 0) return t.skip("mounting is not allowed here");
      try {
        const half = { open: () => {} };
        const opened = new Promise<void>((resolve) => Object.assign(half, { open: resolve }));
        const body = pattern(3_000_000, 5);
        origin.on("/overflow", async (connection) => {
          await connection.write(`HTTP/1.1 200 OK\r\n${FRESH}\r\nContent-Length: ${body.length}\r\n\r\n`);
          await connection.write(body.subarray(0, 500_000));
          await opened;
          await connection.write(body.subarray(500_000));
        });
        await using proxy = await startIn(folder);
        const asking = [ask(proxy.port, origin.url("/overflow"))];
        while (origin.count("/overflow") === 0) await new Promise((resolve) => setImmediate(resolve));
        asking.push(ask(proxy.port, origin.url("/overflow")));
        half.open();
        for (const answer of await Promise.all(asking)) assert.ok(answer.body.equals(body));
        assert.match(proxy.stderr, /cannot store: the disk is full \(ENOSPC\)/);
        for (let i = 0; i < 2; i++)
          assert.ok((await ask(proxy.port, origin.url("/large"))).body.equals(LARGE));
        await ask(proxy.port, origin.url("/small"));
        assert.equal(how(await ask(proxy.port, origin.url("/small"))), "hit");
      } finally {
        await runTool("umount", [folder]);
      }
    },
  );
});

describe("the file of an object", () => {
  const meta = {
    url: "http://a/",
    variant: {},
    status: 200,
    reason: "OK",
    fields: [["A", "é"]] as const,
    requestTimeMs: 1,
    responseTimeMs: 2,
  };

  test("a name that an earlier life has given is not given again, whatever the clock says", (t) => {
    t.mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
    const options = { folder: newFolder(), maxBytes: 1e6, maxMemoryBytes: 0, log: () => {} };
    const paths = ["http://a/", "http://b/"].flatMap((host) => {
      const store = new Store(options);
      const metas = [1, 2].map((n) => ({ ...meta, url: `${host}${n}` }));
      const files = metas.map((meta) => {
        const writer = store.begin(meta);
        writer?.append(Buffer.of(1));
        const file = writer?.finish(meta);
        writer?.close();
        return file?.path;
      });
      store.close();
      return files;
    });
    assert.equal(new Set(paths).size, 4);
  });

  function written(name: string, body: Buffer) {
    mkdirSync(root, { recursive: true });
    const writer = new ObjectWriter(join(root, name), meta);
    writer.append(body.subarray(0, 10));
    writer.append(body.subarray(10));
    if (body.length > 5) assert.ok(writer.read(5).equals(body.subarray(5)));
    const file = writer.finish(meta);
    writer.close();
    assert.ok(file !== undefined);
    return file;
  }

  test("its head, byte for byte", () => {
    const head = { bodyOffset: 1024, bodyBytes: 5n, bodySum: 0xdeadbeef, metaSum: 1, meta: "{}" };
    assert.equal(
      encode(ObjectHead, head).toString("hex"),
      "4e4c435000000001000004000000000000000005deadbeef00000001000000027b7d",
    );
  });

  test("one without a body is read as it was written, too", () => {
    const file = written("empty", Buffer.alloc(0));
    assert.deepEqual(readObject(file.path)?.meta, meta);
    assert.equal(readBodyOf(file)?.length, 0);
  });

  test("it is read as it was written, and rewritten in its place", () => {
    const body = pattern(5000);
    const file = written("whole", body);
    const found = readObject(file.path);
    assert.deepEqual(found?.meta, { ...meta, fields: [["A", "é"]] });
    assert.ok(readBodyOf(file)?.equals(body));
    assert.ok(rewriteHead(file, { ...meta, status: 404 }));
    assert.equal(readObject(file.path)?.meta.status, 404);
    assert.ok(found && readBodyOf(found.file)?.equals(body));
    assert.equal(rewriteHead(file, { ...meta, reason: "x".repeat(3000) }), false);
  });

  test("whatever byte is changed, it is no object, or its body is not given out, or it is the same", () => {
    const body = pattern(300);
    const { path } = written("fuzz", body);
    const original = readFileSync(path);
    const sum = (bytes: Buffer | undefined) =>
      createHash("sha1")
        .update(bytes ?? "")
        .digest("hex");
    fc.assert(
      fc.property(fc.nat(original.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const bytes = Buffer.from(original);
        bytes.writeUInt8(bytes.readUInt8(at) ^ change, at);
        writeFileSync(path, bytes);
        const found = readObject(path);
        if (found === undefined || openObject(found.file) === undefined) return;
        assert.deepEqual(found.meta, { ...meta, fields: [["A", "é"]] });
        assert.equal(sum(readBodyOf(found.file)), sum(body));
      }),
      { seed: 20261121, numRuns: 500 },
    );
    assert.ok(PduError);
  });
});

describe("bounds that a hostile pair of client and origin meets", () => {
  test("a Vary of thousands of fields is not stored", async () => {
    await using proxy = await startIn(newFolder());
    const names = Array.from({ length: 60 }, (_, i) => `x-${i}`).join(", ");
    const url = origin.serves("/vary-many", "x", FRESH, `Vary: ${names}`);
    await ask(proxy.port, url);
    assert.equal(how(await ask(proxy.port, url)), "fwd=uri-miss");
  });

  test("of variants of one address, 200 are kept, those that came last", async () => {
    const folder = newFolder();
    await using proxy = await startIn(folder);
    const url = origin.serves("/variants", "x", FRESH, "Vary: X-V");
    for (let i = 0; i <= 200; i++) await ask(proxy.port, url, [`X-V: ${i}`]);
    assert.equal(objectsIn(folder).length, 200);
    assert.equal(how(await ask(proxy.port, url, ["X-V: 1"])), "hit");
    assert.equal(how(await ask(proxy.port, url, ["X-V: 0"])), "fwd=vary-miss");
  });

  test("objects that are on their way together take no more of the disk than all may", async () => {
    const folder = newFolder();
    await using proxy = await startIn(folder, "--cache-size", "2MiB");
    const open: Connection[] = [];
    const url = origin.on("/arriving", async (connection) => {
      await connection.write(`HTTP/1.1 200 OK\r\n${FRESH}\r\nVary: X-V\r\nContent-Length: 1500000\r\n\r\n`);
      await connection.write(LARGE.subarray(0, 1_000_000));
      await connection.more(0);
      return false;
    });
    for (let i = 0; i < 5; i++) {
      const connection = await client(proxy.port);
      open.push(connection);
      await connection.write(requestFor(url, [`X-V: ${i}`]));
      assert.equal((await readResponse(connection))?.status, 200);
      assert.ok((await connection.readExactly(1_000_000))?.equals(LARGE.subarray(0, 1_000_000)));
    }
    const sizes = readdirSync(folder).map((name) => statSync(join(folder, name)).size);
    assert.ok(sizes.reduce((a, b) => a + b, 0) <= 2 * 2 ** 20 + 300_000, `${sizes}`);
    for (const connection of open) connection.destroy();
  });
});
