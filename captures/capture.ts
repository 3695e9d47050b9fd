/**
 * Records the exercises' demos on the loopback interface with dumpcap (part of Wireshark and of tshark) into
 * `captures/NN-name.pcapng`. Nothing is timed: a datagram of ours that shows up in the file tells that the
 * recording runs, and a second one that everything before it is in the file. Both are then taken out of it.
 */
import { randomBytes } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { type Exercise, exerciseCalled, exercisesWith } from "../exercises/folders.ts";
import { many, text } from "../shared/config.ts";
import type { Dissector, Ports } from "../shared/describe.ts";
import { Failure } from "../shared/errors.ts";
import { program, projectFile } from "../shared/program.ts";
import { Running, start } from "../shared/running.ts";
import { dissectorsOf, readDeclared } from "./generate.ts";

interface Platform {
  loopback: string;
  /** Where dumpcap is, the first that exists; a bare name is looked for in PATH. */
  dumpcap: readonly string[];
  install: string;
  permit: string;
}
const LINUX: Platform = {
  loopback: "lo",
  dumpcap: ["dumpcap"],
  install: "Debian: sudo apt install tshark; Fedora: sudo dnf install wireshark-cli",
  permit: "sudo dpkg-reconfigure wireshark-common, sudo usermod -aG wireshark $USER, and log in anew",
};
const PLATFORMS: Partial<Record<NodeJS.Platform, Platform>> = {
  linux: LINUX,
  darwin: {
    loopback: "lo0",
    dumpcap: ["/Applications/Wireshark.app/Contents/MacOS/dumpcap", "dumpcap"],
    install: "brew install --cask wireshark-app",
    permit: "install ChmodBPF, which comes with Wireshark",
  },
  win32: {
    loopback: "\\Device\\NPF_Loopback", // "Adapter for loopback traffic capture"
    dumpcap: ["C:\\Program Files\\Wireshark\\dumpcap.exe", "dumpcap"],
    install: "Wireshark from wireshark.org, with Npcap",
    permit: "install Npcap anew, with loopback traffic and without the restriction to administrators",
  },
};
const PLATFORM = PLATFORMS[process.platform] ?? { ...LINUX, loopback: "lo0" };

const PATIENCE_MS = 15_000;
const LOOK_AGAIN_MS = 50;

/** libpcap's filter for these ports, and for the ICMP errors that a closed port causes. */
export function captureFilter(dissectors: readonly Dissector[], standardPort: number): string {
  const on = (transport: string, ports: readonly Ports[] = []) =>
    ports.map((port) => `${transport} ${typeof port === "number" ? "port" : "portrange"} ${port}`);
  const declared = dissectors.flatMap(({ tcp, udp }) => [...on("tcp", tcp), ...on("udp", udp)]);
  const any = [`portrange ${standardPort}-${standardPort + 99}`];
  return [...new Set(declared.length > 0 ? declared : any), "icmp", "icmp6"].join(" or ");
}

/** A running dumpcap. */
export class Recording implements AsyncDisposable {
  readonly #path: string;
  readonly #dumpcap: Running;
  readonly #probe: Socket;
  readonly #token = randomBytes(16);
  #disposal: Promise<void> | undefined;

  private constructor(path: string, dumpcap: Running, probe: Socket) {
    this.#path = path;
    this.#dumpcap = dumpcap;
    this.#probe = probe;
  }

  /** Records what passes the filter, from when this resolves. Throws `Failure` that says what to install or set. */
  static async start(filter: string, path: string): Promise<Recording> {
    const probe = createSocket("udp4").bind(0, "127.0.0.1");
    await once(probe, "listening");
    const { loopback, dumpcap } = PLATFORM;
    const command = dumpcap.find((file) => existsSync(file)) ?? dumpcap.at(-1) ?? "";
    const whole = `${filter} or udp port ${probe.address().port}`;
    const args = ["-q", "-i", loopback, "-f", whole, "-w", path];
    const recording = new Recording(path, new Running(command, args, {}), probe);
    try {
      await recording.#caughtUp();
      return recording;
    } catch (error) {
      await recording[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Sends a new probe until it is in the file. */
  async #caughtUp(): Promise<void> {
    const mark = Buffer.concat([this.#token, randomBytes(8)]);
    const giveUpAt = performance.now() + PATIENCE_MS;
    const ended = this.#dumpcap.exited.catch(() => {}).then(() => true);
    while (!existsSync(this.#path) || !readFileSync(this.#path).includes(mark)) {
      if (this.#disposal !== undefined) throw new Failure("stopped");
      this.#probe.send(mark, this.#probe.address().port, "127.0.0.1");
      const hasEnded = await Promise.race([ended, delay(LOOK_AGAIN_MS, false)]);
      if (hasEnded) throw new Failure(await this.#whyNot());
      if (performance.now() > giveUpAt)
        throw new Failure(`cannot capture: dumpcap saw nothing on ${PLATFORM.loopback} in ${PATIENCE_MS} ms`);
    }
  }

  async #whyNot(): Promise<string> {
    const { stderr, exited } = this.#dumpcap;
    const started = await exited.then(
      () => true,
      () => false,
    );
    if (!started) return `cannot capture: there is no dumpcap; ${PLATFORM.install}`;
    const problem = /^dumpcap: (.*)$/m.exec(stderr)?.[1] ?? stderr.trim().replace(/\s+/g, " ");
    return `cannot capture: ${problem.replace(/\.$/, "")}${/permi/i.test(stderr) ? `; ${PLATFORM.permit}` : ""}`;
  }

  /** Ends it: the file's content, all that passed until now, without our own datagrams. */
  async stop(): Promise<{ bytes: Buffer; packets: number; dropped: number }> {
    await this.#caughtUp();
    this.#dumpcap.kill("SIGINT");
    await this.#dumpcap.exited;
    const dropped = Number(/\d+\/(\d+) \(pcap:/.exec(this.#dumpcap.stderr)?.[1] ?? 0);
    const file = readFileSync(this.#path);
    rmSync(this.#path); // readable by its owner only
    return { ...cleaned(file, this.#token), dropped };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#disposal ??= this.#dispose();
    return this.#disposal;
  }

  async #dispose(): Promise<void> {
    this.#probe.close();
    await this.#dumpcap[Symbol.asyncDispose]();
    rmSync(this.#path, { force: true });
  }
}

const SECTION_HEADER = 0x0a0d0d0a;
const INTERFACE = 1;
const ENHANCED_PACKET = 6;
/** if_tsresol: the unit of the timestamps. */
const TIME_RESOLUTION = 9;

/**
 * A pcapng file without the packets that hold `token` and without what describes this machine (processor,
 * system, versions), and how many packets are left.
 */
export function cleaned(file: Buffer, token: Buffer): { bytes: Buffer; packets: number } {
  if (file.length < 12 || file.readUInt32LE(8) !== 0x1a2b3c4d)
    throw new Failure("not a little-endian pcapng file");
  const kept: Buffer[] = [];
  let packets = 0;
  for (let at = 0; at + 12 <= file.length; ) {
    const type = file.readUInt32LE(at);
    const size = file.readUInt32LE(at + 4);
    const block = file.subarray(at, at + size);
    if (size < 12 || block.length < size) break; // dumpcap was cut short: all that counts is before
    at += size;
    if (type === SECTION_HEADER) kept.push(withOptions(block, 16, []));
    if (type === INTERFACE) kept.push(withOptions(block, 8, [TIME_RESOLUTION]));
    if (type !== ENHANCED_PACKET || block.includes(token)) continue;
    kept.push(block);
    packets++;
  }
  return { bytes: Buffer.concat(kept), packets };
}

/** A block with `bodyBytes` before its options, of which only some are kept. */
function withOptions(block: Buffer, bodyBytes: number, codes: readonly number[]): Buffer {
  const kept: Buffer[] = [];
  for (let at = 8 + bodyBytes; at + 8 <= block.length; ) {
    const end = at + 4 + Math.ceil(block.readUInt16LE(at + 2) / 4) * 4;
    if (codes.includes(block.readUInt16LE(at))) kept.push(block.subarray(at, end));
    at = end;
  }
  if (kept.length > 0) kept.push(Buffer.alloc(4));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(12 + bodyBytes + kept.reduce((sum, { length }) => sum + length, 0));
  return Buffer.concat([block.subarray(0, 4), size, block.subarray(8, 8 + bodyBytes), ...kept, size]);
}

/** Records one demo. Throws `Failure` where it cannot be recorded or fails; what was there before is left then. */
async function record(
  { folder, number, name }: Exercise,
  signal: AbortSignal,
  log: (line: string) => void,
): Promise<void> {
  const dissectors = existsSync(projectFile(`${folder}/protocol.ts`))
    ? dissectorsOf(await readDeclared(folder))
    : [];
  const port = standardPort(number, dissectors);
  const target = projectFile(`captures/${number}-${name}.pcapng`);
  await using recording = await Recording.start(captureFilter(dissectors, port), `${target}.part`);
  if (signal.aborted) throw new Failure("stopped");
  await using demo = await start(`${folder}/demo.ts`, ["--port", port], { servers: 0 });
  const abandon = () => {
    demo.kill("SIGTERM");
    void recording[Symbol.asyncDispose]();
  };
  signal.addEventListener("abort", abandon, { once: true });
  demo.child.stdout?.pipe(process.stderr, { end: false });
  demo.child.stderr?.pipe(process.stderr, { end: false });
  const { code } = await demo.exited;
  signal.removeEventListener("abort", abandon);
  if (code !== 0) throw new Failure(`the demo of ${number} failed (exit code ${code})`);
  const { bytes, packets, dropped } = await recording.stop();
  if (packets === 0) throw new Failure(`the demo of ${number} sent nothing on the ports of its dissectors`);
  writeFileSync(`${target}.part`, bytes);
  renameSync(`${target}.part`, target);
  const kilobytes = Math.ceil(bytes.length / 1000);
  process.stdout.write(`captures/${number}-${name}.pcapng: ${packets} packets, ${kilobytes} kB\n`);
  if (dropped > 0) log(`${dropped} packets were lost in capturing: the machine was too busy`);
}

/** The first port of the exercise, 10000 + 100 × number but where its assignment has it otherwise. */
function standardPort(number: string, dissectors: readonly Dissector[]): number {
  const ports = dissectors.flatMap(({ tcp = [], udp = [] }) => [...tcp, ...udp]);
  if (ports.length === 0) return 10_000 + 100 * Number(number);
  return Math.min(...ports.map((port) => Number.parseInt(`${port}`, 10)));
}

if (process.argv[1] === import.meta.filename) {
  await program({
    summary: "Records the exercises' demos on the loopback interface into captures/.",
    example: "13",
    settings: {
      exercises: many(text, "those to record, by number or name; else all", { positional: true }),
    },
    async run({ exercises }, { signal, log }) {
      const all = exercisesWith("demo.ts");
      const wanted = exercises.length > 0 ? exercises.map((name) => exerciseCalled(name, all)) : all;
      for (const exercise of wanted) {
        if (signal.aborted) throw new Failure("stopped");
        log(`recording ${exercise.number} ${exercise.name} …`);
        await record(exercise, signal, log);
      }
    },
  });
}
