/** The error of the offset, over 1,000 synchronisations: Cristian beside SNTP (ntp-time-sync), on loopback and over an asymmetric path. */
import { NtpTimeSync } from "ntp-time-sync";
import { type Chronyd, startChronyd } from "../../shared/chronyd.ts";
import { Failure } from "../../shared/errors.ts";
import { udpLink } from "../../shared/link.ts";
import { type Contender, compare, median, ROUNDS, standingsTable } from "../../shared/measure.ts";
import { program } from "../../shared/program.ts";
import { isInstalled, start } from "../../shared/running.ts";
import { offsetOf } from "./report.ts";
import { SystemClock } from "./system-clock.ts";
import { measure } from "./time-client.ts";

const SERVER = "exercises/10-cristian-clock/server.ts";
const EACH_ROUND = 200;
const SAMPLES = 8;
/** Over a path with a delay, so many synchronisations are under way at a time. */
const AT_A_TIME = 10;
const TIMEOUT_MS = 2000;

/**
 * How far the servers are ahead, a round each. Who counts whole milliseconds is wrong by what it cuts away, so its error
 * depends on the fraction (and is none at 10.0): all of them must occur.
 */
const TRUE_MS = [10.1, 10.3, 10.5, 10.7, 10.9];

/** An error of an offset in milliseconds; the bound where one is given. */
interface Outcome {
  errorMs: number;
  boundMs?: number;
}
type Synchronise = (port: number, trueMs: number) => Promise<Outcome>;

const machine = new SystemClock();
const cristian: Synchronise = async (port, trueMs) => {
  const asking = {
    host: "127.0.0.1",
    port,
    samples: SAMPLES,
    intervalMs: 0,
    timeoutMs: TIMEOUT_MS,
    retries: 3,
  };
  const { best } = await measure(asking);
  const { offsetMs, boundMs } = offsetOf(best, machine.reading, 0, performance.now());
  return { errorMs: Math.abs(offsetMs - trueMs), boundMs };
};

/** Its packets and its timestamps (whole milliseconds); the arithmetic and the choice are RFC 5905's, as its own offset has the wrong sign (02). */
const library = new NtpTimeSync({ servers: [], replyTimeout: TIMEOUT_MS });
const sntp: Synchronise = async (port, trueMs) => {
  let least = { delayMs: Infinity, offsetMs: 0 };
  for (let i = 0; i < SAMPLES; i++) {
    const packet = await library.getNetworkTime("127.0.0.1", port).catch(() => undefined);
    if (packet === undefined) continue; // lost, or too late
    const t1 = Number(packet.originTimestamp);
    const [t2, t3] = [Number(packet.receiveTimestamp), Number(packet.transmitTimestamp)];
    const t4 = Number(packet.destinationTimestamp);
    const delayMs = t4 - t1 - (t3 - t2);
    if (delayMs < least.delayMs) least = { delayMs, offsetMs: (t2 - t1 + (t3 - t4)) / 2 };
  }
  return { errorMs: Math.abs(least.offsetMs - trueMs) };
};

/** All errors that a contender made in the rounds that count. */
class Tally {
  readonly outcomes: Outcome[] = [];
  readonly contender: Contender;

  constructor(name: string, synchronise: Synchronise, portOf: PortOf, atATime: number) {
    let rounds = 0;
    this.contender = {
      name,
      run: async () => {
        const trueMs = TRUE_MS[rounds++ % TRUE_MS.length] ?? 0;
        const port = await portOf(trueMs);
        const round: Outcome[] = [];
        for (let i = 0; i < EACH_ROUND; i += atATime)
          round.push(
            ...(await Promise.all(Array.from({ length: atATime }, () => synchronise(port, trueMs)))),
          );
        const outside = round.filter(({ errorMs, boundMs = Infinity }) => errorMs > boundMs);
        if (outside.length > 0) throw new Failure(`${name}: ${outside.length} errors outside of the bound`);
        this.outcomes.push(...round);
        return median(round.map(({ errorMs }) => errorMs));
      },
    };
  }

  /** The first round did not count. */
  summary(): string {
    const counted = this.outcomes.slice(EACH_ROUND);
    const errors = counted.map(({ errorMs }) => errorMs).toSorted((a, b) => a - b);
    const at = (share: number) => (errors[Math.ceil(share * errors.length) - 1] ?? Number.NaN).toFixed(3);
    const bounds = counted.flatMap(({ boundMs }) => boundMs ?? []);
    const bound =
      bounds.length === 0
        ? "gives no bound"
        : `all inside of the bound, ${median(bounds).toFixed(3)} ms in the median`;
    return `${this.contender.name}: ${errors.length} synchronisations, error 50 % ${at(0.5)}, 99 % ${at(0.99)}, most ${at(1)} ms; ${bound}`;
  }
}

/** Where a server is that is ahead by so much. */
type PortOf = (trueMs: number) => number | Promise<number>;

async function bench(
  title: string,
  ports: { ours: PortOf; ntp: PortOf | undefined },
  atATime: number,
  rounds: number,
) {
  const tallies = [new Tally("Cristian, client.ts and server.ts", cristian, ports.ours, atATime)];
  if (ports.ntp !== undefined)
    tallies.push(new Tally("SNTP, ntp-time-sync and chronyd", sntp, ports.ntp, atATime));
  const standings = await compare(
    tallies.map(({ contender }) => contender),
    rounds,
  );
  process.stdout.write(`${standingsTable(title, "error in ms", standings)}\n\n`);
  process.stdout.write(`${tallies.map((tally) => `- ${tally.summary()}`).join("\n")}\n\n`);
}

await program({
  summary: "Measures how far off Cristian's algorithm and SNTP are, on loopback and over an asymmetric path.",
  example: "",
  settings: { rounds: ROUNDS },
  async run({ rounds }, { log }) {
    const canNtp = isInstalled("chronyd") && isInstalled("chronyc");
    if (!canNtp) log("SNTP is missing: chronyd is not installed");
    await using ntp: (Chronyd & AsyncDisposable) | undefined = canNtp ? await startChronyd() : undefined;
    const opened: AsyncDisposable[] = [];
    try {
      const [direct, behindPath] = [new Map<number, number>(), new Map<number, number>()];
      const path = { toServer: { delayMs: 5 }, toClient: { delayMs: 35 }, seed: 10 };
      for (const trueMs of TRUE_MS) {
        const server = await start(SERVER, ["--port", 0, "--shift", trueMs], { servers: 2 });
        opened.unshift(server);
        const link = await udpLink({ to: { host: "127.0.0.1", port: server.port }, ...path });
        opened.unshift(link);
        direct.set(trueMs, server.port);
        behindPath.set(trueMs, link.port);
      }
      const ntpLink = ntp && (await udpLink({ to: { host: "127.0.0.1", port: ntp.port }, ...path }));
      if (ntpLink) opened.unshift(ntpLink);
      const shifted = (port: number | undefined): PortOf | undefined => {
        if (port === undefined) return undefined;
        return async (trueMs) => {
          await ntp?.shift(trueMs);
          return port;
        };
      };
      const at = (ports: Map<number, number>) => (trueMs: number) => ports.get(trueMs) ?? 0;
      await bench("loopback", { ours: at(direct), ntp: shifted(ntp?.port) }, 1, rounds);
      await bench(
        "5 ms there, 35 ms back",
        { ours: at(behindPath), ntp: shifted(ntpLink?.port) },
        AT_A_TIME,
        rounds,
      );
    } finally {
      for (const one of opened) await one[Symbol.asyncDispose]();
    }
  },
});
