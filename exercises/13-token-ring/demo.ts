/** The exercise end to end: four nodes as processes, messages, a death with the turn, a return, and the end. */
import { existsSync, readFileSync } from "node:fs";
import { integer, setting } from "../../shared/config.ts";
import { say } from "../../shared/demo.ts";
import { explain, Failure } from "../../shared/errors.ts";
import { program, projectFile } from "../../shared/program.ts";
import { type Running, within } from "../../shared/running.ts";
import { LocalRing } from "./local-ring.ts";
import { checkDeliveries, checkTurns } from "./ring-checks.ts";

const IDS = [0, 1, 2, 3];
/** The one that will be killed, and how long an idle turn stays with it: long enough to meet it there. */
const VICTIM = 2;
const idleHold = (id: number) => (id === VICTIM ? 300 : 100);

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;

/** Some lines of Don Quijote, where it lies beside the project, else of the licence. */
function someLines(count: number): string[] {
  const [book, licence] = [projectFile("../shared/data/pg2000.txt"), projectFile("LICENSE")];
  const lines = readFileSync(existsSync(book) ? book : licence, "utf8").split(/\r?\n/);
  const begin = lines.findIndex((line) => /^En un lugar de la Mancha|^ +Preamble/.test(line));
  return lines
    .slice(begin)
    .map((line) => line.trim().slice(0, 60))
    .filter((line) => line !== "")
    .slice(0, count);
}

interface Move {
  id: number;
  generation: number;
  round: number;
  atMs: number;
}

/** Follows the turn by what the nodes note, and draws it. */
class Watcher {
  readonly #queue: Move[] = [];
  #wake = () => {};
  /** The nodes that are there, as far as the demo knows. */
  readonly alive = new Set(IDS);

  follow(id: number, running: Running): void {
    let rest = "";
    running.child.stderr?.on("data", (chunk: Buffer) => {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const [, generation, round] = /^turn generation=(\d+) issuer=\d+ round=(\d+)$/.exec(line) ?? [];
        if (generation === undefined) continue;
        this.#queue.push({
          id,
          generation: Number(generation),
          round: Number(round),
          atMs: performance.now(),
        });
        this.#wake();
      }
    });
  }

  /** What came before is no longer of interest. */
  forget(): void {
    this.#queue.length = 0;
  }

  async next(): Promise<Move> {
    while (this.#queue.length === 0) {
      const came = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      await within(came, "a move of the turn", 8000);
    }
    return this.#queue.shift() as Move;
  }

  /** Draws moves until one is the wanted one: on one line of a terminal, else a line each. */
  async draw(isLast: (move: Move, count: number) => boolean): Promise<Move> {
    this.forget();
    const isTTY = process.stdout.isTTY && process.env["TERM"] !== "dumb";
    for (let count = 1; ; count++) {
      const move = await this.next();
      const nodes = IDS.map((id) => (id === move.id ? `[${id}]` : this.alive.has(id) ? ` ${id} ` : " × "));
      const line = `   ${nodes.join("─▶")}─▶   generation ${move.generation}, round ${move.round}`;
      process.stdout.write(isTTY ? `\r${line}\u001b[K` : `${line}\n`);
      if (!isLast(move, count)) continue;
      if (isTTY) process.stdout.write("\n");
      return move;
    }
  }
}

/** The way of a message, by what the nodes on it have noted: `0 ─▶ 1 ─▶ 2 takes it ─▶ 3 ─▶ 0`. */
async function way(ring: LocalRing, source: number, destination: number, number: number): Promise<string> {
  const stops: string[] = [];
  for (let id = (source + 1) % 4; id !== source; id = (id + 1) % 4) {
    const note = new RegExp(`^passed on message ${number} from ${source} to ${destination}(, taken)?$`, "m");
    const [, taken] = await ring.node(id).output(note, "stderr");
    if ((taken !== undefined) !== (destination < 4 && stops.length + 1 >= (destination - source + 4) % 4))
      throw new Failure(`node ${id} ${taken ? "saw" : "did not see"} A`);
    stops.push(id === destination ? `${id} takes it` : `${id}`);
  }
  return [source, ...stops, source].join(" ─▶ ");
}

async function demonstrate(ring: LocalRing): Promise<string> {
  const watcher = new Watcher();
  const [toTwo = "", toNobody = "", toOne = ""] = someLines(3);
  const messages = [
    { source: 0, idDestination: 2, text: toTwo, number: 1, outcome: "delivered" },
    { source: 0, idDestination: 7, text: toNobody, number: 2, outcome: "undelivered" },
    { source: 3, idDestination: 1, text: toOne, number: 1, outcome: "delivered" },
  ];
  const launch = async (id: number, own: typeof messages) => {
    const running = await ring.start(id, ["--idle-hold", idleHold(id)], own);
    watcher.follow(id, running);
    return running;
  };
  const own = (id: number) => messages.filter(({ source }) => source === id);

  say("Nodes 2, 0 and 3 start. They wait: the ring is not complete.");
  await Promise.all([2, 0, 3].map((id) => launch(id, own(id))));
  await ring.node(0).output(/^station 1: cannot connect/m, "stderr");
  if (/^turn /m.test(ring.node(0).stderr)) throw new Failure("a turn was made before all nodes were there");
  say("Node 1 starts. The claim of node 0, the smallest id, comes round: it makes the turn.");
  await launch(1, own(1));
  await watcher.next();

  say("\nWho has the turn sends; each message goes all the way round to its source:");
  for (const { source, idDestination, text, number, outcome } of messages) {
    await ring.node(source).output(new RegExp(`^${outcome} to ${idDestination}: `, "m"));
    say(` · to ${idDestination}: ${text}`);
    say(`   ${await way(ring, source, idDestination, number)}: ${outcome}`);
  }

  say("\nNothing more to send, so the turn just goes round:");
  await watcher.draw((move, count) => count > 4 && move.id === VICTIM);
  const bypassed = ring.note(VICTIM - 1, new RegExp(`^successor ${VICTIM + 1}$`, "m"));
  const killedMs = performance.now();
  ring.node(VICTIM).kill("SIGKILL");
  watcher.alive.delete(VICTIM);
  say(`\nNode ${VICTIM} has the turn, and is killed (kill -9).`);
  await bypassed;
  say(
    ` · by-passed by node 1 after ${Math.round(performance.now() - killedMs)} ms; the turn is gone with it`,
  );
  watcher.forget();
  const made = await watcher.next();
  const lossMs = made.atMs - killedMs;
  if (made.generation !== 2 || made.id !== 0) throw new Failure("node 0 should have made a second turn");
  say(` · no turn for 2.5 s: all claim, only the smallest id's claim comes round`);
  say(` · node 0 makes turn 2 after ${seconds(lossMs)}:`);
  await watcher.draw((_, count) => count >= 4);

  say(`\nNode ${VICTIM} starts again.`);
  const back = ring.note(VICTIM - 1, new RegExp(`^successor ${VICTIM}$`, "m"));
  await launch(VICTIM, []);
  await back;
  watcher.alive.add(VICTIM);
  say(" · node 1 has found it and sends to it again:");
  await watcher.draw(({ id }) => id === VICTIM);

  say("\nCtrl-C at node 0: the end command makes one round.");
  ring.node(0).kill("SIGINT");
  const ends = await within(
    Promise.all(ring.lives.map(({ running }) => running.exited)),
    "the end of the ring",
  );
  if (!ends.every(({ code, signal }) => code === 0 || signal === "SIGKILL"))
    throw new Failure("a node did not end in order");
  checkDeliveries(ring.accounts);
  checkTurns(ring.accounts);
  say("All have ended with exit code 0. Nothing arrived twice, no turn was accepted twice.\n");
  return `result: 4 nodes, holder killed and back | turn back in ${seconds(lossMs)}`;
}

await program({
  summary: "Shows a ring of four nodes: messages, a death with the turn, a return, and the end.",
  example: "--port 11300",
  settings: {
    port: setting(integer(0, 65_532), "port of node 0, the others' follow it (0 = any free ones)", 0),
  },
  async run({ port }, { signal }) {
    await using ring = await LocalRing.of(IDS, port === 0 ? undefined : IDS.map((id) => port + id));
    signal.addEventListener("abort", () => {
      for (const { running } of ring.lives) running.kill("SIGKILL");
    });
    try {
      say(await demonstrate(ring));
    } catch (error) {
      throw new Failure(`the ring did not do what it should: ${explain(error)}`, { cause: error });
    }
  },
});
