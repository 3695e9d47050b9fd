/** Without a network: PDUs byte by byte, the primitives against their specifications, users and delays. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { decode, encode, PduError } from "../../shared/pdu.ts";
import {
  hkdf,
  isSignedBy,
  newExchangeKey,
  newHostKey,
  open,
  privateKey,
  publicBytes,
  seal,
  sharedSecret,
  signed,
} from "./crypto.ts";
import { sessionKeys } from "./handshake.ts";
import { MAX_PASSWORD_BYTES, MAX_RECORD_BYTES, Message, Record, transcriptBytes } from "./protocol.ts";
import { Direction } from "./records.ts";
import { quoted } from "./shell-script.ts";
import { addressOf, delayAfter, Throttle } from "./throttle.ts";
import { isRight, parseUsers, userLine } from "./users.ts";

const SEED = 20_261_121;
const hex = (digits: string) => Buffer.from(digits.replaceAll(/\s/g, ""), "hex");
const CHEAP = { ln: 4, r: 8, p: 1 };

describe("PDUs", () => {
  const golden: [Message, string][] = [
    [{ kind: "result", outcome: "welcome", directory: "/ñ" }, "02 00 0003 2fc3b1"],
    [{ kind: "command", id: 7, text: "ls" }, "03 00000007 00000002 6c73"],
    [{ kind: "stdin", id: 7, data: hex("00ff") }, "04 00000007 00000002 00ff"],
    [{ kind: "window", id: 7, bytes: 513 }, "05 00000007 00000201"],
    [{ kind: "stdout", data: hex("0a") }, "06 00000001 0a"],
    [{ kind: "stderr", data: hex("") }, "07 00000000"],
    [{ kind: "exit", id: 7, code: 130, shell: "ended", directory: "/" }, "08 00000007 82 01 0001 2f"],
    [{ kind: "signal", id: 7, signal: "interrupt" }, "09 00000007 02"],
    [{ kind: "windowSize", columns: 80, rows: 24 }, "0a 0050 0018"],
    [{ kind: "disconnect", reason: "idle" }, "0b 02"],
  ];
  for (const [message, digits] of golden) {
    test(`${message.kind}: ${digits}`, () => {
      assert.deepEqual(encode(Message, message), hex(digits));
      assert.deepEqual(decode(Message, hex(digits)), message);
      const record = encode(Record, { type: "clear", message });
      assert.deepEqual(record, hex(`04 ${digits}`));
      for (let size = 0; size < record.length; size++)
        assert.throws(() => decode(Record, record.subarray(0, size)), PduError);
    });
  }

  test("a login is as long as any other: what it holds cannot be guessed from its size", () => {
    const sizes = [
      ["a", "b"],
      ["x".repeat(32), "y".repeat(MAX_PASSWORD_BYTES)],
    ].map(([user = "", password = ""]) => encode(Message, { kind: "login", user, password }).length);
    assert.deepEqual(sizes, [161, 161]);
  });

  test("the hellos, their sizes and what is signed of them", () => {
    const client = {
      type: "clientHello" as const,
      publicKey: Buffer.alloc(32, 1),
      random: Buffer.alloc(32, 2),
    };
    const server = {
      ...{ type: "serverHello" as const, encrypt: "login" as const, publicKey: Buffer.alloc(32, 3) },
      ...{ random: Buffer.alloc(32, 4), hostKey: Buffer.alloc(32, 5), signature: Buffer.alloc(64, 6) },
    };
    const clientHex = `01 4e4c5253 01 ${"01".repeat(32)} ${"02".repeat(32)}`;
    const serverHex = `02 4e4c5253 01 02 ${"03".repeat(32)} ${"04".repeat(32)} ${"05".repeat(32)}`;
    assert.deepEqual(encode(Record, client), hex(clientHex));
    assert.deepEqual(encode(Record, server), hex(serverHex + "06".repeat(64)));
    assert.deepEqual(transcriptBytes(client, server), hex(clientHex + serverHex));
  });

  test("the largest data fit a record, and no more", () => {
    const data = Buffer.alloc(65_536);
    const record = encode(Record, {
      type: "sealed",
      ciphertext: Buffer.alloc(encode(Message, { kind: "stdin", id: 1, data }).length + 16),
    });
    assert.ok(record.length <= MAX_RECORD_BYTES);
    assert.throws(() => encode(Message, { kind: "stdout", data: Buffer.alloc(65_537) }), PduError);
  });

  test("any bytes are a record or a PduError, never anything else", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        try {
          decode(Record, Buffer.from(bytes));
        } catch (error) {
          assert.ok(error instanceof PduError);
        }
      }),
      { seed: SEED },
    );
  });
});

describe("known answers", () => {
  test("HKDF-SHA-256: RFC 5869, test cases 1 to 3", () => {
    const range = (from: number, to: number) =>
      Buffer.from(Array.from({ length: to - from }, (_, i) => from + i));
    const cases = [
      [
        Buffer.alloc(22, 0x0b),
        range(0, 13),
        range(0xf0, 0xfa),
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
      ],
      [
        range(0, 80),
        range(0x60, 0xb0),
        range(0xb0, 0x100),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
      ],
      [
        Buffer.alloc(22, 0x0b),
        hex(""),
        hex(""),
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
      ],
    ] as const;
    for (const [secret, salt, info, okm] of cases)
      assert.equal(hkdf(secret, salt, info, okm.length / 2).toString("hex"), okm);
  });

  test("AES-256-GCM: McGrew and Viega's test cases 13, 14 and 16 (NIST)", () => {
    const [zeros, nonce] = [Buffer.alloc(32), Buffer.alloc(12)];
    assert.deepEqual(seal(zeros, nonce, hex(""), hex("")), hex("530f8afbc74536b9a963b4f1c4cb738b"));
    assert.deepEqual(
      seal(zeros, nonce, Buffer.alloc(16), hex("")),
      hex("cea7403d4d606b6e074ec5d3baf39d18 d0d1c8a799996bf0265b98b5d48ab919"),
    );
    const key = hex("feffe9928665731c6d6a8f9467308308".repeat(2));
    const [iv, associated] = [
      hex("cafebabefacedbaddecaf888"),
      hex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
    ];
    const plain = hex(
      "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    const sealed = hex(
      "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    );
    assert.deepEqual(seal(key, iv, plain, associated), sealed);
    assert.deepEqual(open(key, iv, sealed, associated), plain);
    for (let byte = 0; byte < sealed.length; byte++) {
      const altered = Buffer.from(sealed);
      altered[byte] = (altered[byte] ?? 0) ^ 0x80;
      assert.equal(open(key, iv, altered, associated), undefined);
    }
    assert.equal(open(key, iv, sealed, hex("")), undefined);
    assert.equal(open(key, nonce, sealed, associated), undefined);
    assert.equal(open(key, iv, sealed.subarray(0, 15), associated), undefined);
  });

  test("X25519: RFC 7748 §6.1", () => {
    const [a, aPublic] = [
      hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
      hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
    ];
    const [b, bPublic] = [
      hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"),
      hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
    ];
    const shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert.deepEqual(sharedSecret(privateKey("X25519", a, aPublic), bPublic), shared);
    assert.deepEqual(sharedSecret(privateKey("X25519", b, bPublic), aPublic), shared);
  });

  test("X25519: points of low order are refused", () => {
    const points = [
      "00".repeat(32),
      `01${"00".repeat(31)}`,
      "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
      "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
      `ec${"ff".repeat(30)}7f`,
      `ed${"ff".repeat(30)}7f`,
      `ee${"ff".repeat(30)}7f`,
    ];
    for (const point of points)
      assert.throws(() => sharedSecret(newExchangeKey(), hex(point)), {
        name: "Failure",
        message: /low order/,
      });
  });

  test("Ed25519: RFC 8032 §7.1, tests 1 and 2", () => {
    const cases = [
      [
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
      ],
      [
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
      ],
    ] as const;
    for (const [secret, publicPart, message, signature] of cases) {
      assert.equal(
        signed(privateKey("Ed25519", hex(secret), hex(publicPart)), hex(message)).toString("hex"),
        signature,
      );
      assert.ok(isSignedBy(hex(publicPart), hex(message), hex(signature)));
      assert.ok(!isSignedBy(hex(publicPart), hex(`${message}00`), hex(signature)));
      assert.ok(!isSignedBy(publicBytes(newHostKey()), hex(message), hex(signature)));
    }
  });

  test("the two directions have different keys, and each depends on every byte of the hellos", () => {
    const [secret, transcript] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
    const keys = sessionKeys(secret, transcript);
    const others = [sessionKeys(Buffer.alloc(32, 3), transcript), sessionKeys(secret, Buffer.alloc(32, 3))];
    const all = [keys, ...others].flatMap((one) => [
      one.clientToServer.toString("hex"),
      one.serverToClient.toString("hex"),
    ]);
    assert.equal(new Set(all).size, 6);
  });
});

describe("the record layer", () => {
  const key = Buffer.alloc(32, 7);
  const header = hex("0300000013");

  test("the same message never looks the same, and comes out in order only", () => {
    const out = new Direction(key);
    const [one, two] = [out.seal(hex("aabbcc"), header), out.seal(hex("aabbcc"), header)];
    assert.notDeepEqual(one, two);
    const incoming = new Direction(key);
    assert.deepEqual(incoming.open(one, header), hex("aabbcc"));
    assert.deepEqual(incoming.open(two, header), hex("aabbcc"));
    assert.throws(() => new Direction(key).open(two, header), /altered, replayed, left out/);
    assert.throws(() => incoming.open(two, header), /altered, replayed, left out/);
    assert.throws(() => new Direction(key).open(one, hex("0300000014")), /altered/);
  });

  test("the nonce is the number of the record", () => {
    const out = new Direction(key);
    out.seal(hex("00"), header);
    assert.deepEqual(
      out.seal(hex("01"), header),
      seal(key, hex("000000000000000000000001"), hex("01"), header),
    );
  });
});

describe("users", () => {
  test("a line, its hash and what is refused", async () => {
    const line = await userLine("ana", "ñandú", CHEAP);
    assert.match(line, /^ana:\$scrypt\$ln=4,r=8,p=1\$[\w+/]{22}\$[\w+/]{43}$/);
    assert.ok(!line.includes("and"));
    const users = parseUsers(`# who may come\n\n${line}\n`);
    assert.ok(await isRight(users, "ana", "ñandú"));
    assert.ok(
      await isRight(users, "ana", "nandu\u0301".replace("n", "n\u0303")),
      "however the letters are composed",
    );
    for (const [name, password] of [
      ["ana", "nandu"],
      ["ana", ""],
      ["Ana", "ñandú"],
      ["", "ñandú"],
      ["bob", ""],
    ])
      assert.ok(!(await isRight(users, name ?? "", password ?? "")));
    assert.notEqual(line, await userLine("ana", "ñandú", CHEAP), "another salt each time");
    for (const bad of ["ana", "ana:x", `1${line}`, line.replace("ln=4", "ln=44"), line.slice(0, -9)])
      assert.throws(() => parseUsers(`#\n${bad}`), /^Failure: line 2: /);
    assert.throws(() => parseUsers(`${line}\n${line}`), /line 2: ana is there a second time/);
  });

  test("scrypt: RFC 7914 §12, through a users file", async () => {
    const hash = hex("fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162");
    const salt = Buffer.from("NaCl").toString("base64").replaceAll("=", "");
    const line = `ana:$scrypt$ln=10,r=8,p=16$${salt}$${hash.toString("base64").replaceAll("=", "")}`;
    assert.ok(await isRight(parseUsers(line), "ana", "password"));
  });
});

describe("delays", () => {
  test("twice as long after each failure, and never over half a minute", () => {
    assert.deepEqual(
      [0, 1, 2, 3, 4, 20].map((failures) => delayAfter(failures, 250)),
      [0, 250, 500, 1000, 2000, 30_000],
    );
  });

  test("an address is an IPv4 address or an IPv6 network", () => {
    for (const [peer, address] of [
      ["127.0.0.1:4000", "127.0.0.1"],
      ["[::ffff:10.0.0.1]:4000", "10.0.0.1"],
      ["[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::/64"],
      ["[2001:db8:1:2::9]:1", "2001:db8:1:2::/64"],
      ["[2001:db8::9]:1", "2001:db8:0:0::/64"],
      ["[::1]:1", "0:0:0:0::/64"],
    ] as const)
      assert.equal(addressOf(peer), address);
  });

  test("attempts from one address come one after the other, those from others do not wait", async () => {
    const throttle = new Throttle(0);
    const order: string[] = [];
    let letGo = () => {};
    const held = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const attempt = (address: string, name: string, work?: Promise<void>) =>
      throttle.attempt(address, async () => {
        order.push(`${name} begins`);
        await work;
        order.push(`${name} ends`);
        return false;
      });
    const first = attempt("a", "1", held);
    const second = attempt("a", "2");
    await attempt("b", "3");
    letGo();
    await Promise.all([first, second]);
    assert.deepEqual(order, ["1 begins", "3 begins", "3 ends", "1 ends", "2 begins", "2 ends"]);
  });

  test("a failure makes the next one wait, an attempt that was none does not", async () => {
    const throttle = new Throttle(40);
    const timed = async (outcome: boolean | undefined) => {
      const startMs = performance.now();
      await throttle.attempt("a", async () => outcome);
      return performance.now() - startMs;
    };
    await timed(undefined);
    assert.ok((await timed(false)) < 35);
    assert.ok((await timed(false)) > 35);
    assert.ok((await timed(true)) > 75, "and so does who is right: success must not be faster");
  });
});

test("a text is one word for the shell, whatever is in it", () => {
  assert.equal(quoted("it's"), "'it'\\''s'");
  assert.equal(quoted(""), "''");
});
