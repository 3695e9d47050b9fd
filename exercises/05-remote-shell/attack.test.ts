/** Somebody on the path: whatever is done to a record, the connection ends and no command runs. */
import { strict as assert } from "node:assert";
import { existsSync, readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { encode } from "../../shared/pdu.ts";
import { connect } from "../../shared/tcp.ts";
import { run, within } from "../../shared/testing.ts";
import { newExchangeKey, newHostKey, publicBytes } from "./crypto.ts";
import { HERE, LocalServer, output, PASSWORD, USER } from "./local-server.ts";
import { impersonator, type Tamper, tamperer } from "./man-in-the-middle.ts";
import { type Message, Record } from "./protocol.ts";
import { RemoteShell } from "./remote.ts";

let server: LocalServer;
let count = 0;
before(async () => {
  server = await LocalServer.start(["--login-delay", 0]);
});
after(() => server[Symbol.asyncDispose]());

/** All that a client sends: hello, login, command, end of input, window size. It must fail. */
async function attacked(tamper: Tamper): Promise<{ hasRun: boolean; error: unknown }> {
  const marker = server.file(`marker-${++count}`);
  await using middle = await tamperer(server.port, tamper);
  let error: unknown;
  try {
    const remote = await RemoteShell.connect({ host: "127.0.0.1", port: middle.port });
    try {
      const login = remote.login(USER, PASSWORD);
      login.catch(() => {});
      if (dropsLogin(tamper)) await remote.resize(80, 24); // else nothing would follow that shows the gap
      assert.ok(await within(login, "the login's result"));
      await within(output(remote, `touch ${marker}; echo done`), "the end of the command");
    } finally {
      remote.destroy();
    }
  } catch (thrown) {
    error = thrown;
  }
  return { hasRun: existsSync(marker), error };
}
const dropsLogin = (tamper: Tamper) => tamper(Buffer.alloc(0), 1, true).onward.length === 0;

const HELLO = 0;
const LOGIN = 1;
const COMMAND = 2;
const END_OF_INPUT = 3;
const untouched = (record: Buffer) => ({ onward: [record] });
const at =
  (toServer: boolean, index: number, tamper: (record: Buffer) => ReturnType<Tamper>): Tamper =>
  (record, i, direction) =>
    direction === toServer && i === index ? tamper(record) : untouched(record);
const flipped = (record: Buffer, offset: number) => {
  const copy = Buffer.from(record);
  const place = offset < 0 ? copy.length + offset : offset;
  copy[place] = (copy[place] ?? 0) ^ 1;
  return copy;
};

test("untouched it works: the check can succeed", async () => {
  const { hasRun, error } = await attacked(untouched);
  assert.equal(error, undefined);
  assert.ok(hasRun);
});

async function mustFail(what: string, tamper: Tamper): Promise<void> {
  const { hasRun, error } = await attacked(tamper);
  assert.ok(error instanceof Error && !/in vain/.test(error.message), `${what}: ${error}`);
  assert.equal(hasRun, false, `${what}: the command has run`);
}

describe("on the way to the server", () => {
  for (const [name, index] of Object.entries({ hello: HELLO, login: LOGIN, command: COMMAND })) {
    test(`an altered ${name}, in any part of it`, async () => {
      for (const offset of [0, 1, 4, 5, 9, 40, -17, -1])
        await mustFail(
          `bit in byte ${offset}`,
          at(true, index, (record) => ({ onward: [flipped(record, offset)], isLast: offset < 5 })),
        );
    });
    test(`a ${name} cut short, and the end`, async () => {
      for (const size of [1, 5, 20])
        await mustFail(
          `${size} bytes`,
          at(true, index, (record) => ({ onward: [record.subarray(0, size)], isLast: true })),
        );
      await mustFail(
        "nothing",
        at(true, index, () => ({ onward: [], isLast: true })),
      );
    });
  }

  test("a record left out", async () => {
    await mustFail(
      "login",
      at(true, LOGIN, () => ({ onward: [] })),
    );
    await mustFail(
      "command",
      at(true, COMMAND, () => ({ onward: [] })),
    );
  });

  test("a record twice: the second time it ends the connection", async () => {
    await mustFail(
      "hello",
      at(true, HELLO, (record) => ({ onward: [record, record] })),
    );
    await mustFail(
      "login",
      at(true, LOGIN, (record) => ({ onward: [record, record] })),
    );
    // In one piece: the second must be there before the command has ended.
    const { error } = await attacked(
      at(true, COMMAND, (record) => ({ onward: [Buffer.concat([record, record])] })),
    );
    assert.ok(error instanceof Error, "it ran once, and then no more");
  });

  test("two records in the wrong order", async () => {
    let held: Buffer | undefined;
    await mustFail("command after end of input", (record, index, toServer) => {
      if (!toServer || index < COMMAND) return untouched(record);
      if (index === COMMAND) held = record;
      if (index === COMMAND) return { onward: [] };
      return { onward: index === END_OF_INPUT && held ? [record, held] : [record] };
    });
  });

  test("a record of the server, sent back to it", async () => {
    let result: Buffer | undefined;
    await mustFail("reflected", (record, index, toServer) => {
      if (!toServer && index === 1) result = record;
      return { onward: toServer && index === COMMAND && result ? [result] : [record] };
    });
    await mustFail(
      "at once",
      at(false, 1, (record) => ({ onward: [], back: [record] })),
    );
  });

  test("a clear record in a sealed session", async () => {
    const clear = encode(Record, {
      type: "clear",
      message: { kind: "command", id: 1, text: `touch ${server.file("clear")}` },
    });
    await mustFail(
      "instead of the command",
      at(true, COMMAND, () => ({ onward: [clear] })),
    );
    assert.ok(!existsSync(server.file("clear")));
  });

  test("a clear record gets no answer but the end, and nor does a sealed one in a clear session", async () => {
    const clear = encode(Record, { type: "clear", message: { kind: "command", id: 1, text: "echo run" } });
    const sealed = encode(Record, { type: "sealed", ciphertext: Buffer.alloc(40) });
    await using open = await LocalServer.start(["--encrypt", "login"]);
    for (const [own, record] of [
      [server, clear],
      [open, sealed],
    ] as const) {
      const remote = await own.remote();
      const { channel } = remote.greeted;
      await channel.connection.write(record);
      await assert.rejects(
        async () => assert.notEqual(await channel.receive(), undefined),
        (error: Error) => /reset|closed|Expected/.test(error.message),
      );
      await own.running.output(/a (clear|sealed) record came where only (sealed|clear) ones may/, "stderr");
      remote.destroy();
    }
  });

  test("a whole session recorded and sent again", async () => {
    const recorded: Buffer[] = [];
    const { hasRun } = await attacked((record, _, toServer) => {
      if (toServer) recorded.push(record);
      return untouched(record);
    });
    assert.ok(hasRun);
    const before = server.log.filter(({ event }) => event === "command").length;
    await using again = await connect({ host: "127.0.0.1", port: server.port });
    await again.write(Buffer.concat(recorded));
    const hello = await again.readPdu(Record, 1000);
    assert.equal(hello?.type, "serverHello");
    await assert.rejects(async () => assert.equal(await again.read(), "more"), /reset|undefined/);
    assert.equal(server.log.filter(({ event }) => event === "command").length, before);
  });
});

describe("on the way to the client", () => {
  for (const [name, index] of Object.entries({ hello: 0, result: 1 })) {
    test(`an altered, shortened, repeated or missing ${name}`, async () => {
      for (const offset of [0, 1, 4, 5, 6, 40, 80, 110, -1].filter(
        (offset) => index === 0 || Math.abs(offset) < 20,
      ))
        await mustFail(
          `bit in byte ${offset}`,
          at(false, index, (record) => ({ onward: [flipped(record, offset)], isLast: true })),
        );
      await mustFail(
        "cut",
        at(false, index, (record) => ({ onward: [record.subarray(0, 9)], isLast: true })),
      );
      await mustFail(
        "none",
        at(false, index, () => ({ onward: [], isLast: true })),
      );
    });
  }

  test("output altered, left out, doubled, or cut off before the exit: never taken for the whole", async () => {
    const attacks: ((record: Buffer) => ReturnType<Tamper>)[] = [
      (record) => ({ onward: [flipped(record, 12)] }),
      () => ({ onward: [] }),
      (record) => ({ onward: [record, record] }),
      (record) => ({ onward: [record], isLast: true }),
      (record) => ({ onward: [record.subarray(0, 8)], isLast: true }),
    ];
    for (const attack of attacks) {
      const { error } = await attacked(at(false, 2, attack));
      assert.ok(error instanceof Error && !/in vain/.test(error.message), String(error));
    }
  });
});

describe("keys", () => {
  /** An X25519 key of the attacker's in place of the true one, in the hello to either side. */
  const swapped = (record: Buffer, offset: number) => {
    const copy = Buffer.from(record);
    publicBytes(newExchangeKey()).copy(copy, offset);
    return { onward: [copy] };
  };
  test("another exchange key in either hello breaks the signature", async () => {
    for (const [toServer, offset] of [
      [true, 6],
      [false, 7],
    ] as const) {
      const { error, hasRun } = await attacked(at(toServer, HELLO, (record) => swapped(record, offset)));
      assert.match(String(error), /the server's signature is wrong/);
      assert.ok(!hasRun);
    }
  });

  test("another host key in the hello breaks it too", async () => {
    await mustFail(
      "host key",
      at(false, HELLO, (record) => swapped(record, 71)),
    );
  });

  test("'login' cannot be put in place of 'session'", async () => {
    const { error } = await attacked(
      at(false, HELLO, (record) => {
        const copy = Buffer.from(record);
        assert.equal(copy[6], 1);
        copy[6] = 2;
        return { onward: [copy] };
      }),
    );
    assert.match(String(error), /the server's signature is wrong/);
  });

  test("who has a key of their own is refused by a client that knows the server, and learns nothing", async () => {
    const seen: Message[] = [];
    await using middle = await impersonator(server.port, newHostKey(), (message) => seen.push(message));
    // The client knows a server at this address: it has been there before.
    const known = `127.0.0.1:${middle.port} ${"A".repeat(43)}=\n`;
    const { writeFileSync } = await import("node:fs");
    writeFileSync(server.file("known-hosts"), known);
    const marker = server.file("impersonated");
    const { code, stderr } = await run(`${HERE}/client.ts`, [
      ...server.as(USER, middle.port),
      "--command",
      `touch ${marker}`,
    ]);
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^error: THE KEY OF 127\.0\.0\.1:\d+ HAS CHANGED from SHA256:\S+ to SHA256:\S+: .*remove line 1 of /,
    );
    assert.equal(seen.length, 0);
    assert.ok(!existsSync(marker));
    assert.equal(readFileSync(server.file("known-hosts"), "utf8"), known, "the known key is kept");
  });

  test("on first use the same attack succeeds, which is what TOFU does not give; a fingerprint from elsewhere does", async () => {
    const seen: Message[] = [];
    await using middle = await impersonator(server.port, newHostKey(), (message) => seen.push(message));
    const args = server.as(USER, middle.port);
    const { stdout: fingerprint } = await run(`${HERE}/server.ts`, [
      "--host-key",
      server.file("host-key"),
      "--print-key",
    ]);
    const refused = await run(`${HERE}/client.ts`, [
      ...args,
      "--fingerprint",
      fingerprint.trim(),
      "--command",
      "true",
    ]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^error: \S+ has the key SHA256:\S+, not SHA256:\S+: do not log in/);
    assert.equal(seen.length, 0);
    const believed = await run(`${HERE}/client.ts`, [...args, "--command", "true"]);
    assert.equal(believed.code, 0);
    assert.ok(seen.some((message) => message.kind === "login" && message.password === PASSWORD));
  });
});

test("with --encrypt login a command put in on the way runs: what that mode does not give", async () => {
  await using open = await LocalServer.start(["--encrypt", "login"]);
  const marker = open.file("injected");
  const injected = encode(Record, {
    type: "clear",
    message: { kind: "command", id: 1, text: `touch ${marker}` },
  });
  await using middle = await tamperer(
    open.port,
    at(true, COMMAND, () => ({ onward: [injected] })),
  );
  await using remote = await open.remote(middle.port);
  assert.equal((await output(remote, "echo harmless")).code, 0);
  assert.ok(existsSync(marker));
});
