/** What probes carry, byte by byte, and which datagrams answer them. */
import { strict as assert } from "node:assert";
import { describe, test } from "node:test";
import fc from "fast-check";
import { decode, encode, PduError } from "../../shared/pdu.ts";
import { DnsMessage, dnsProbe, echoProbe, Probe, question } from "./protocol.ts";

const SEED = 862;
const hex = (bytes: Buffer) => bytes.toString("hex");
const PROBE = "4e4c5254" + "00000007" + "0123456789abcdef";
/** id, RD, one question: the root's servers. */
const QUERY = "cafe" + "0100" + "0001" + "0000" + "0000" + "0000" + "00" + "0002" + "0001";

test("a probe and a query are these bytes", () => {
  assert.equal(hex(echoProbe.request(0x0123456789abcdefn, 7)), PROBE);
  assert.equal(hex(dnsProbe(".").request(0xcafen, 7)), QUERY);
  assert.deepEqual(decode(Probe, Buffer.from(PROBE, "hex")), { sequence: 7, id: 0x0123456789abcdefn });
});

test("a probe survives the way there and back, for any values", () => {
  const values = fc.record({
    sequence: fc.nat(2 ** 31 - 1),
    id: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  });
  fc.assert(
    fc.property(values, (probe) => {
      assert.deepEqual(decode(Probe, encode(Probe, probe)), { ...probe });
      assert.equal(echoProbe.answered(echoProbe.request(probe.id, probe.sequence)), probe.id);
    }),
    { seed: SEED },
  );
});

test("what is cut off, too long or otherwise no probe answers none", () => {
  const whole = Buffer.from(PROBE, "hex");
  for (let size = 0; size < whole.length; size++) {
    assert.throws(() => decode(Probe, whole.subarray(0, size)), PduError);
    assert.equal(echoProbe.answered(whole.subarray(0, size)), undefined);
  }
  assert.equal(echoProbe.answered(Buffer.concat([whole, Buffer.alloc(1)])), undefined);
});

test("one wrong byte is another id, or no answer", () => {
  for (const bytes of [PROBE, QUERY].map((text) => Buffer.from(text, "hex"))) {
    const probe = hex(bytes) === PROBE ? echoProbe : dnsProbe(".");
    for (let at = 0; at < bytes.length; at++) {
      for (let value = 0; value < 256; value++) {
        const other = Buffer.from(bytes);
        if (probe !== echoProbe) other[2] = 0x81;
        other[at] = value;
        const id = probe.answered(other); // and nothing is thrown
        if (probe === echoProbe && at < 4)
          assert.equal(id, value === bytes[at] ? 0x0123456789abcdefn : undefined);
      }
    }
  }
});

describe("a DNS response", () => {
  const probe = dnsProbe("www.Example.org");
  const query = probe.request(0xbeefn, 0);
  const response = (change: (bytes: Buffer) => void) => {
    const bytes = Buffer.concat([query, Buffer.from("c00c0001000100000e10000404030201", "hex")]);
    bytes.writeUInt16BE(0x8180, 2);
    change(bytes);
    return probe.answered(bytes);
  };
  const QNAME_AT = DnsMessage.minSize;

  test("answers the query with its id, whatever it says", () => {
    assert.equal(
      response(() => {}),
      0xbeefn,
    );
    for (const rcode of [2, 3, 5])
      assert.equal(
        response((bytes) => bytes.writeUInt8(0x80 | rcode, 3)),
        0xbeefn,
      );
  });

  test("may write the name in other letters", () => {
    assert.equal(
      response((bytes) => bytes.write("WWW", QNAME_AT + 1)),
      0xbeefn,
    );
  });

  test("to another question, or no response at all, is none", () => {
    assert.equal(
      response((bytes) => bytes.write("ftp", QNAME_AT + 1)),
      undefined,
    );
    assert.equal(
      response((bytes) => bytes.writeUInt16BE(0x0100, 2)),
      undefined,
      "a query that was sent back",
    );
    assert.equal(probe.answered(query), undefined);
  });

  test("without the question is one too: FORMERR may leave it out", () => {
    assert.equal(probe.answered(Buffer.from("beef81010000000000000000", "hex")), 0xbeefn);
  });
});

test("a question is a name in labels, with its type and class", () => {
  assert.equal(hex(question(".")), "00" + "0002" + "0001");
  for (const name of ["a.bc", "a.bc."])
    assert.equal(hex(question(name)), "0161" + "026263" + "00" + "0001" + "0001");
  for (const bad of ["a..b", "..", "x".repeat(64), "ñ", `${"a.".repeat(127)}aa`, "a b"])
    assert.throws(
      () => question(bad),
      { name: "Failure", message: /^is (not a|longer than a) domain name/ },
      bad,
    );
  assert.equal(question("a.".repeat(127)).length, 255 + 4);
});
