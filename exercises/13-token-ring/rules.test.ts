/** Single rules of the specification, each told to one station as events and read from its actions. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { Line, Meaning, Message } from "./protocol.ts";
import { type Action, createStation, type Event, type StationOptions } from "./station.ts";

/** An action as a test reads it; notes are left out. */
function show(action: Action): string[] {
  switch (action.type) {
    case "send":
      return [showFrame(action.meaning)];
    case "received":
      return [`received from ${action.idSource}: ${action.text}`];
    case "reported":
      return [`${action.outcome} to ${action.line.idDestination}: ${action.line.text}`];
    case "note":
      return [];
    case "leave":
    case "end":
      return [action.type];
  }
}

function showFrame(meaning: Meaning): string {
  const { kind, idSource, idDestination } = meaning;
  switch (kind) {
    case "turn":
      return `turn ${meaning.generation}.${meaning.issuer}.${meaning.round} ${idSource}→${idDestination}`;
    case "claim":
      return `claim of ${idSource}, generation ${meaning.generation}, attempt ${meaning.attempt}`;
    case "message": {
      const { acknowledged, generation, number, attempt, text } = meaning;
      const flags = acknowledged ? " A" : "";
      return `message ${idSource}→${idDestination}${flags} ${generation} ${number} ${attempt} ${text}`;
    }
    default:
      return kind;
  }
}

const turn = (generation: number, issuer: number, round: number): Meaning => ({
  kind: "turn",
  idSource: 9,
  idDestination: 9,
  generation,
  issuer,
  round,
});
const claim = (claimant: number, generation: number, attempt = 1): Meaning => ({
  kind: "claim",
  idSource: claimant,
  idDestination: claimant,
  generation,
  attempt,
});
const message = (idSource: number, idDestination: number, rest: Partial<Message> = {}): Meaning => ({
  kind: "message",
  idSource,
  idDestination,
  acknowledged: false,
  generation: 1,
  issuer: 0,
  round: 2,
  number: 1,
  attempt: 1,
  text: "x",
  ...rest,
});
const finish = (idSource = 0): Meaning => ({ kind: "finish", idSource, idDestination: idSource });

/** Station 1 of 0, 1, 2, 3 unless told otherwise, with a successor. What it is told happens at `now` milliseconds. */
function stationOf(options: Partial<StationOptions> = {}) {
  const station = createStation(
    {
      id: 1,
      members: [0, 1, 2, 3],
      first: ((options.id ?? 1) + 1) % 4,
      lines: [],
      holdLimit: 10,
      idleHoldMs: 5,
      ...options,
    },
    0,
  );
  const tell = (event: Event) => station.handle(event, told.now).flatMap(show);
  const told = {
    now: 0,
    station,
    tell,
    gets: (meaning: Meaning) => tell({ type: "frame", meaning }),
    successor: (id: number | undefined) => tell({ type: "successor", id }),
    tickAt(nowMs: number) {
      told.now = nowMs;
      return tell({ type: "tick" });
    },
  };
  told.successor(options.first ?? ((options.id ?? 1) + 1) % 4);
  return told;
}
/** The same, and it has had turn 1.0.1 and passed it on. A message from elsewhere is now sent under a later one. */
function joinedStation(options: Partial<StationOptions> = {}) {
  const told = stationOf(options);
  told.gets(turn(1, 0, 1));
  assert.equal(told.station.hasTurn, false);
  return told;
}
/** The same 2500 later: it has claimed the turn, which is lost. */
function lostStation(options: Partial<StationOptions> = {}) {
  const told = joinedStation(options);
  assert.equal(told.tickAt(2500).length, 1);
  return told;
}
const lines = (...destinations: number[]): Line[] =>
  destinations.map((idDestination, i) => ({ idDestination, text: `m${i + 1}` }));

test("6.1, 6.2: a turn is accepted only if it beats the latest; any other is removed and nothing is sent", () => {
  const one = stationOf();
  assert.deepEqual(one.gets(turn(3, 2, 4)), ["turn 3.2.4 1→2"]);
  for (const [generation, issuer, round] of [
    [3, 2, 4],
    [3, 2, 3],
    [3, 3, 9],
    [2, 0, 9],
  ] as const) {
    assert.deepEqual(one.gets(turn(generation, issuer, round)), []);
    assert.equal(one.station.hasTurn, false);
    assert.deepEqual(one.station.turn, { generation: 3, issuer: 2, round: 4 });
  }
  one.gets(message(0, 2, { generation: 3 })); // the ring is not quiet, so that turns are passed at once
  assert.deepEqual(one.gets(turn(3, 2, 5)), ["turn 3.2.5 1→2"]);
  one.gets(message(0, 2, { generation: 3 }));
  assert.deepEqual(one.gets(turn(3, 1, 1)), ["turn 3.1.1 1→2"], "a smaller issuer");
  one.gets(message(0, 2, { generation: 3 }));
  assert.deepEqual(one.gets(turn(4, 3, 1)), ["turn 4.3.1 1→2"], "a later generation");
});

test("6.2, 8.4: once a claim was let by, a turn of an older generation is removed, whatever its round", () => {
  const one = lostStation();
  assert.deepEqual(one.gets(claim(0, 2)), ["claim of 0, generation 2, attempt 1"]);
  assert.deepEqual(one.gets(turn(1, 0, 2)), []);
  assert.equal(one.station.hasTurn, false);
  one.gets(turn(2, 3, 1));
  assert.equal(one.station.hasTurn, true);
});

test("6.2: a second turn at the holder is removed and does not prolong its hold", () => {
  const one = joinedStation();
  one.gets(turn(1, 0, 2));
  one.now = 4;
  assert.deepEqual(one.gets(turn(1, 0, 2)), []);
  assert.deepEqual(one.tickAt(5), ["turn 1.0.2 1→2"]);
});

test("4, 6.4: the round goes up where the successor does not stand behind the station, and nowhere else", () => {
  const passed = (id: number, successor: number, members = [0, 1, 2, 3]) => {
    const one = stationOf({ id, members, first: members[(members.indexOf(id) + 1) % members.length] ?? id });
    one.successor(successor);
    return one.gets(turn(1, 0, 1));
  };
  assert.deepEqual(passed(0, 1), ["turn 1.0.1 0→1"]);
  assert.deepEqual(passed(2, 3), ["turn 1.0.1 2→3"]);
  assert.deepEqual(passed(0, 3), ["turn 1.0.1 0→3"]);
  assert.deepEqual(passed(3, 0), ["turn 1.0.2 3→0"]);
  assert.deepEqual(passed(2, 1), ["turn 1.0.2 2→1"]);
  assert.deepEqual(passed(2, 2), ["turn 1.0.2 2→2"]);
  assert.deepEqual(passed(0, 0, [0]), ["turn 1.0.2 0→0"]);
  assert.deepEqual(passed(7, 5, [9, 7, 5]), ["turn 1.0.1 7→5"], "by the list, not by the ids");
  assert.deepEqual(passed(5, 9, [9, 7, 5]), ["turn 1.0.2 5→9"]);
});

test("6.4: a turn is sent once, even when the link breaks behind it", () => {
  const one = joinedStation();
  one.successor(undefined);
  assert.deepEqual(one.successor(3), []);
  assert.deepEqual(one.tickAt(2000), []);
});

test("6.5: a turn is kept for the idle hold when no message has passed, else passed at once", () => {
  const one = stationOf();
  assert.deepEqual(one.gets(turn(1, 0, 1)), ["turn 1.0.1 1→2"]);
  one.now = 100;
  assert.deepEqual(one.gets(turn(1, 0, 2)), []);
  assert.equal(one.station.wakeAtMs(), 105);
  assert.deepEqual(one.tickAt(104), []);
  assert.deepEqual(one.tickAt(105), ["turn 1.0.2 1→2"]);
  one.gets(message(0, 2, { round: 3 }));
  assert.deepEqual(one.gets(turn(1, 0, 3)), ["turn 1.0.3 1→2"]);
});

test("6.5: with an idle hold of 0 it is passed at once, without a timer", () => {
  const one = joinedStation({ idleHoldMs: 0 });
  assert.deepEqual(one.gets(turn(1, 0, 2)), ["turn 1.0.2 1→2"]);
});

test("6.6: a holder without a successor keeps the turn until it has one", () => {
  const one = joinedStation();
  one.successor(undefined);
  one.gets(turn(1, 0, 2));
  assert.deepEqual(one.tickAt(10_000), []);
  assert.equal(one.station.wakeAtMs(), Number.POSITIVE_INFINITY);
  assert.deepEqual(one.gets(claim(0, 2)), [], "it does not let claims by either");
  one.now = 11_000;
  assert.deepEqual(one.successor(3), ["turn 1.0.2 1→3"]);
});

test("7.1: one message at a time, at most the hold limit in a turn, then the turn", () => {
  const one = stationOf({ lines: lines(2, 3, 2), holdLimit: 2 });
  assert.deepEqual(one.gets(turn(1, 0, 1)), ["message 1→2 1 1 1 m1"]);
  assert.deepEqual(one.tickAt(999), []);
  const back = (number: number, to: number) =>
    one.gets(message(1, to, { number, round: 1, acknowledged: true, text: `m${number}` }));
  assert.deepEqual(back(1, 2), ["delivered to 2: m1", "message 1→3 1 2 1 m2"]);
  assert.deepEqual(back(2, 3), ["delivered to 3: m2", "turn 1.0.1 1→2"]);
  assert.deepEqual(one.gets(turn(1, 0, 2)), ["message 1→2 1 3 1 m3"]);
});

test("7.2a: a message of an older generation than the turn's, or than the promised one, is removed", () => {
  const one = joinedStation();
  assert.deepEqual(one.gets(message(0, 2)), ["message 0→2 1 1 1 x"]);
  one.tickAt(2500);
  one.gets(claim(0, 2));
  assert.deepEqual(one.gets(message(0, 2, { number: 2 })), [], "a claim was let by");
  assert.deepEqual(one.gets(message(0, 1, { number: 2 })), [], "for itself too");
  one.gets(turn(3, 0, 1));
  assert.deepEqual(one.gets(message(0, 2, { number: 3, generation: 2 })), [], "a later turn was here");
  assert.deepEqual(one.gets(message(0, 2, { number: 3, generation: 3 })), ["message 0→2 3 3 1 x"]);
  assert.deepEqual(one.gets(message(0, 2, { number: 3, generation: 4 })), ["message 0→2 4 3 1 x"]);
});

test("7.2a: an old message is no sign that the turn lives", () => {
  const one = joinedStation();
  one.gets(turn(2, 0, 1));
  one.tickAt(5);
  one.now = 2000;
  one.gets(message(0, 2));
  assert.deepEqual(one.tickAt(2505), ["claim of 1, generation 3, attempt 1"]);
});

test("7.2b: a message whose source is by-passed is removed; that of any other station goes on", () => {
  const one = joinedStation();
  one.successor(0); // 2 and 3 are by-passed
  assert.deepEqual(one.gets(message(2, 0)), []);
  assert.deepEqual(one.gets(message(3, 1)), [], "though it is for this station");
  assert.deepEqual(one.gets(message(0, 3)), ["message 0→3 1 1 1 x"]);
  one.successor(3);
  assert.deepEqual(one.gets(message(2, 0)), []);
  assert.deepEqual(one.gets(message(3, 0)), ["message 3→0 1 1 1 x"]);
});

test("7.2b: a station that is its own successor still takes its own messages back", () => {
  const one = stationOf({ lines: lines(2) });
  one.successor(1);
  assert.deepEqual(one.gets(turn(1, 0, 1)), ["message 1→2 1 1 1 m1"]);
  assert.deepEqual(one.gets(message(1, 2, { round: 1 })), ["undelivered to 2: m1", "turn 1.0.2 1→1"]);
});

test("7.2b: a message whose source is in no station list is removed: nobody would take it off", () => {
  assert.deepEqual(joinedStation().gets(message(77, 1)), []);
  assert.deepEqual(joinedStation().gets(message(77, 2)), []);
  const alone = joinedStation();
  alone.successor(undefined);
  assert.deepEqual(alone.gets(message(77, 1)), []);
});

test("7.2b: a message is removed when its turn has been here since it was at the source", () => {
  const one = stationOf();
  one.gets(turn(2, 1, 5));
  const goesOn = (source: number, generation: number, issuer: number, round: number) =>
    one.gets(message(source, 2, { generation, issuer, round })).length === 1;
  assert.ok(!goesOn(0, 2, 1, 5), "station 0 had that turn before this one");
  assert.ok(goesOn(2, 2, 1, 5), "station 2 has it after this one");
  assert.ok(goesOn(3, 2, 1, 5));
  assert.ok(!goesOn(3, 2, 1, 4), "an earlier round");
  assert.ok(goesOn(0, 2, 1, 6), "a later round");
  assert.ok(!goesOn(0, 2, 3, 9), "a turn that this one beats");
  assert.ok(goesOn(0, 2, 0, 1), "a turn that beats this one");
  const seven = stationOf({ id: 7, members: [9, 7, 5], first: 5 });
  seven.gets(turn(1, 9, 1));
  assert.deepEqual(seven.gets(message(9, 5, { issuer: 9, round: 1 })), [], "by the list, not by the ids");
  assert.equal(seven.gets(message(5, 9, { issuer: 9, round: 1 })).length, 1);
});

test("7.2b: a message of its own under an earlier turn is taken off, and no sign that the turn lives", () => {
  const one = joinedStation();
  one.gets(turn(1, 0, 2));
  one.tickAt(5);
  one.now = 1000;
  assert.deepEqual(one.gets(message(1, 1, { round: 1 })), []);
  assert.equal(one.station.wakeAtMs(), 2505);
});

test("7.3: the destination delivers a message once and sets A, however often it comes", () => {
  const one = joinedStation();
  const [taken, second] = ["received from 0: x", "message 0→1 A 1 1 2 x"];
  assert.deepEqual(one.gets(message(0, 1)), [taken, "message 0→1 A 1 1 1 x"]);
  assert.deepEqual(one.gets(message(0, 1, { attempt: 2 })), [second]);
  assert.deepEqual(one.gets(message(0, 1, { number: 2 })), [taken, "message 0→1 A 1 2 1 x"]);
  assert.deepEqual(one.gets(message(0, 1, { attempt: 2 })), [second], "an earlier number");
  assert.deepEqual(one.gets(message(3, 1)), ["received from 3: x", "message 3→1 A 1 1 1 x"]);
  one.gets(turn(1, 0, 2));
  assert.deepEqual(
    one.gets(message(0, 1, { round: 3 })),
    [taken, "message 0→1 A 1 1 1 x"],
    "under a later turn its source may have begun to count anew",
  );
});

test("7.3: nothing is taken under a generation of which the station has had no turn and let no claim by", () => {
  const one = stationOf();
  one.tell({ type: "heard", generation: 1 });
  assert.deepEqual(one.gets(message(0, 1)), ["message 0→1 1 1 1 x"]);
  assert.deepEqual(one.gets(message(0, 1, { attempt: 2 })), ["message 0→1 1 1 2 x"]);
  one.gets(turn(1, 0, 1));
  assert.deepEqual(one.gets(message(0, 1)), ["received from 0: x", "message 0→1 A 1 1 1 x"]);
  assert.deepEqual(one.gets(message(0, 1, { generation: 2 })), ["message 0→1 2 1 1 x"], "a later generation");
  assert.equal(one.station.known, 2, "there is such a generation, then");
  const first = stationOf();
  first.gets(claim(0, 1));
  assert.deepEqual(
    first.gets(message(0, 1)),
    ["received from 0: x", "message 0→1 A 1 1 1 x"],
    "it let the claim by",
  );
});

test("7.3: nothing is taken under a turn of another issuer than the one that the station had", () => {
  const one = stationOf();
  one.gets(turn(2, 2, 1));
  assert.deepEqual(one.gets(message(0, 1, { generation: 2, issuer: 0 })), ["message 0→1 2 1 1 x"]);
  assert.deepEqual(one.gets(message(0, 1, { generation: 2, issuer: 2 })).length, 2);
});

test("5: a message shows that the ring is running: the station has joined", () => {
  const one = stationOf();
  one.now = 100;
  one.gets(message(0, 2));
  assert.equal(one.station.joined, true);
  assert.equal(one.station.wakeAtMs(), 2600);
});

test("7.4: any other station passes it on as it is, A or not", () => {
  const one = joinedStation();
  assert.deepEqual(one.gets(message(0, 3, { attempt: 4 })), ["message 0→3 1 1 4 x"]);
  assert.deepEqual(one.gets(message(0, 3, { acknowledged: true })), ["message 0→3 A 1 1 1 x"]);
  assert.deepEqual(one.gets(message(0, 99)), ["message 0→99 1 1 1 x"]);
});

test("7.4: a message to oneself is taken when it is back", () => {
  const one = stationOf({ lines: lines(1) });
  assert.deepEqual(one.gets(turn(1, 0, 1)), ["message 1→1 1 1 1 m1"]);
  assert.deepEqual(one.gets(message(1, 1, { round: 1, text: "m1" })), [
    "received from 1: m1",
    "delivered to 1: m1",
    "turn 1.0.1 1→2",
  ]);
});

test("7.5: delivered, undelivered and unconfirmed", () => {
  const outcome = (destination: number, attempts: number, acknowledged: boolean) => {
    const one = stationOf({ lines: lines(destination) });
    one.gets(turn(1, 0, 1));
    for (let attempt = 1; attempt < attempts; attempt++) one.tickAt(attempt * 1000);
    return one.gets(message(1, destination, { round: 1, attempt: attempts, acknowledged }))[0];
  };
  assert.equal(outcome(2, 1, true), "delivered to 2: m1");
  assert.equal(outcome(2, 3, true), "delivered to 2: m1");
  assert.equal(outcome(2, 1, false), "undelivered to 2: m1");
  assert.equal(outcome(2, 2, false), "unconfirmed to 2: m1", "the first one may have been taken");
  assert.equal(outcome(77, 2, false), "undelivered to 77: m1", "nobody can have taken it");
});

test("7.5: a copy that comes back late is reported no more", () => {
  const one = stationOf({ lines: lines(2, 3) });
  one.gets(turn(1, 0, 1));
  assert.deepEqual(one.gets(message(1, 2, { round: 0, acknowledged: true })), [], "of an earlier turn");
  assert.deepEqual(
    one.gets(message(1, 2, { round: 1, number: 9, acknowledged: true })),
    [],
    "of another number",
  );
  assert.deepEqual(
    one.gets(message(1, 2, { round: 5, acknowledged: true })),
    [],
    "of a later turn: not ours",
  );
  const first = message(1, 2, { round: 1, acknowledged: true });
  assert.deepEqual(one.gets(first), ["delivered to 2: m1", "message 1→3 1 2 1 m2"]);
  assert.deepEqual(one.gets(first), []);
  assert.equal(one.station.hasTurn, true);
});

test("7.6: sent again after 1000 without return, five times in all, then unconfirmed and the turn goes on", () => {
  const one = stationOf({ lines: lines(2) });
  one.now = 100;
  one.gets(turn(1, 0, 1));
  for (let attempt = 2; attempt <= 5; attempt++) {
    const dueMs = 100 + (attempt - 1) * 1000;
    assert.equal(one.station.wakeAtMs(), dueMs);
    assert.deepEqual(one.tickAt(dueMs - 1), []);
    assert.deepEqual(one.tickAt(dueMs), [`message 1→2 1 1 ${attempt} m1`]);
  }
  assert.deepEqual(one.tickAt(5100), ["unconfirmed to 2: m1", "turn 1.0.1 1→2"]);
});

test("7.6: sent again when there is another successor, which counts towards the five", () => {
  const one = stationOf({ lines: lines(2) });
  one.gets(turn(1, 0, 1));
  one.now = 500;
  assert.deepEqual(one.successor(undefined), [], "not before there is one");
  assert.deepEqual(one.successor(3), ["message 1→2 1 1 2 m1"]);
  assert.equal(one.station.wakeAtMs(), 1500, "the time counts from the last sending");
  for (const attempt of [3, 4, 5]) assert.deepEqual(one.successor(2), [`message 1→2 1 1 ${attempt} m1`]);
  assert.deepEqual(one.successor(3), ["unconfirmed to 2: m1", "turn 1.0.1 1→3"]);
});

test("7.7: a message that is out when a turn is accepted is unconfirmed, and not sent again", () => {
  const one = stationOf({ lines: lines(2, 3) });
  assert.deepEqual(one.gets(turn(1, 0, 1)), ["message 1→2 1 1 1 m1"]);
  assert.deepEqual(one.gets(turn(2, 0, 1)), ["unconfirmed to 2: m1", "message 1→3 2 2 1 m2"]);
  assert.deepEqual(one.gets(message(1, 2, { round: 1, acknowledged: true })), []);
  assert.deepEqual(one.gets(message(1, 2, { round: 1, acknowledged: true, generation: 2 })), []);
});

test("8.1: at first only the smallest id claims, every 250, and only with a successor", () => {
  const zero = stationOf({ id: 0 });
  const another = stationOf({ id: 0 });
  assert.equal(another.station.wakeAtMs(), 250, "it claimed as soon as it had one");
  assert.deepEqual(zero.tickAt(249), []);
  assert.deepEqual(zero.tickAt(250), ["claim of 0, generation 1, attempt 2"]);
  zero.successor(undefined);
  assert.deepEqual(zero.tickAt(1000), []);
  const one = stationOf();
  assert.equal(one.station.wakeAtMs(), Number.POSITIVE_INFINITY);
  assert.deepEqual(one.tickAt(60_000), []);
});

test("8.1, 8.4: a station that has not joined lets smaller claims by; the claim's return makes the turn", () => {
  const one = stationOf();
  assert.deepEqual(one.gets(claim(0, 1)), ["claim of 0, generation 1, attempt 1"]);
  const zero = stationOf({ id: 0 });
  assert.deepEqual(zero.gets(claim(0, 1)), ["turn 1.0.1 0→1"]);
  assert.deepEqual(zero.gets(claim(0, 1, 2)), [], "a later claim of its own, when the turn is made");
});

test("8.2: a station that has seen nothing for 2500 claims every 250, the holder never", () => {
  const one = joinedStation();
  one.now = 400;
  one.gets(message(0, 2));
  assert.equal(one.station.wakeAtMs(), 2900);
  assert.deepEqual(one.tickAt(2899), []);
  assert.deepEqual(one.tickAt(2900), ["claim of 1, generation 2, attempt 1"]);
  assert.deepEqual(one.tickAt(3149), []);
  assert.deepEqual(one.tickAt(3150), ["claim of 1, generation 2, attempt 2"]);
  const holder = joinedStation({ idleHoldMs: 10_000 });
  holder.gets(turn(1, 0, 2));
  assert.deepEqual(holder.tickAt(9000), []);
});

test("8.2: what it received, passed on or sent counts as seen, and so does joining", () => {
  const destination = joinedStation();
  destination.now = 400;
  destination.gets(message(0, 1));
  assert.equal(destination.station.wakeAtMs(), 2900);
  const source = stationOf({ lines: lines(2) });
  source.now = 100;
  source.gets(turn(1, 0, 1));
  source.tickAt(1100);
  source.gets(message(1, 2, { round: 1, acknowledged: true }));
  assert.equal(source.station.wakeAtMs(), 3600);
  const newcomer = stationOf();
  newcomer.now = 10_000;
  newcomer.tell({ type: "heard", generation: 1 });
  assert.equal(newcomer.station.wakeAtMs(), 12_500);
  newcomer.now = 11_000;
  newcomer.tell({ type: "heard", generation: 1 });
  assert.equal(newcomer.station.wakeAtMs(), 12_500, "it joins once");
});

test("5, 6.2, 7.2a, 8: a generation that a neighbour has had counts as known: nothing older is accepted", () => {
  const one = joinedStation();
  one.tell({ type: "heard", generation: 4 });
  assert.deepEqual(one.gets(turn(3, 0, 1)), []);
  assert.deepEqual(one.gets(message(0, 2, { generation: 3 })), []);
  one.now = 100;
  one.tell({ type: "heard", generation: 4 });
  assert.deepEqual(one.tickAt(2500), ["claim of 1, generation 5, attempt 1"]);
  assert.deepEqual(one.gets(claim(0, 4)), []);
  assert.deepEqual(one.gets(message(0, 2, { generation: 4 })), ["message 0→2 4 1 1 x"]);
  one.tell({ type: "heard", generation: 2 });
  assert.deepEqual(one.gets(turn(4, 0, 1)), ["turn 4.0.1 1→2"]);
});

test("6.7: a holder that hears of a later generation gives its turn up, and what it has out", () => {
  const one = stationOf({ lines: lines(2) });
  one.gets(turn(1, 0, 1));
  assert.ok(one.station.hasTurn);
  assert.deepEqual(one.tell({ type: "heard", generation: 2 }), ["unconfirmed to 2: m1"]);
  assert.ok(!one.station.hasTurn);
  assert.deepEqual(one.gets(message(1, 2, { round: 1, acknowledged: true })), [], "it comes back too late");
  assert.deepEqual(one.gets(turn(2, 0, 1)), ["turn 2.0.1 1→2"]);
});

test("8.2: a station that has not joined, and whose promise made it remove a claim, claims too: for a later generation", () => {
  const one = stationOf();
  one.gets(claim(2, 4)); // of a larger id: it goes no further
  assert.deepEqual(one.tickAt(60_000), []);
  assert.deepEqual(one.gets(claim(0, 1)), ["claim of 1, generation 4, attempt 1"]);
  assert.deepEqual(one.gets(claim(0, 4)), ["claim of 0, generation 4, attempt 1"]);
});

test("5: that there is a later generation shows that the turn lives", () => {
  const one = lostStation();
  one.now = 2600;
  one.tell({ type: "heard", generation: 2 });
  assert.equal(one.station.wakeAtMs(), 5100);
  assert.deepEqual(one.gets(claim(0, 3)), []);
});

test("8.2: the generation claimed is the promised one, where that is above the latest's", () => {
  const one = lostStation();
  one.gets(claim(3, 6));
  assert.deepEqual(one.tickAt(2750), ["claim of 1, generation 6, attempt 2"]);
});

test("8.3: a claim is removed while the turn was seen lately", () => {
  const one = joinedStation();
  one.now = 2499;
  assert.deepEqual(one.gets(claim(0, 2)), []);
  one.gets(turn(1, 0, 2));
  assert.deepEqual(one.tickAt(2504), ["turn 1.0.2 1→2"], "nothing was promised");
});

test("8.3: a claim is removed by the holder, who has not promised anything", () => {
  const one = joinedStation({ idleHoldMs: 5000 });
  one.gets(turn(1, 0, 2));
  one.now = 4000;
  assert.deepEqual(one.gets(claim(0, 2)), []);
  assert.deepEqual(one.tickAt(5000), ["turn 1.0.2 1→2"]);
  assert.deepEqual(one.gets(message(3, 0)), ["message 3→0 1 1 1 x"]);
});

test("8.3: a claim is removed if its generation is not above the latest's, or below the promised", () => {
  const one = stationOf();
  one.gets(turn(5, 0, 1));
  one.tickAt(2500);
  assert.deepEqual(one.gets(claim(0, 4)), []);
  assert.deepEqual(one.gets(claim(0, 5)), []);
  assert.deepEqual(one.gets(claim(0, 8)), ["claim of 0, generation 8, attempt 1"]);
  assert.deepEqual(one.gets(claim(0, 7, 2)), []);
  assert.deepEqual(one.gets(claim(0, 8, 3)), ["claim of 0, generation 8, attempt 3"]);
});

test("8.4: the probe by which a station joins is no sign of the turn: it does not hold up who replaces a lost one", () => {
  const newcomer = () => {
    const one = stationOf();
    one.now = 10_000;
    one.tell({ type: "heard", generation: 1 });
    return one;
  };
  assert.deepEqual(newcomer().gets(claim(0, 2)), ["claim of 0, generation 2, attempt 1"]);
  for (const sign of [turn(1, 0, 7), message(0, 2)]) {
    const one = newcomer();
    one.gets(sign);
    assert.deepEqual(one.gets(claim(0, 2)), [], `it has seen a ${sign.kind}`);
  }
  const later = newcomer();
  later.tell({ type: "heard", generation: 2 });
  assert.deepEqual(later.gets(claim(0, 3)), [], "it has heard that there is a new one");
});

test("8.3: a claim of a station that is in no list is removed", () => {
  const three = stationOf({ id: 3, members: [1, 2, 3], first: 1 });
  assert.deepEqual(three.gets(claim(0, 9)), []);
  assert.deepEqual(three.gets(turn(1, 1, 1)), ["turn 1.1.2 3→1"], "nothing was promised");
});

test("8.4: a larger station's claim is not passed on, and its generation is promised all the same", () => {
  const one = lostStation();
  assert.deepEqual(one.gets(claim(3, 2)), []);
  assert.deepEqual(one.gets(turn(1, 0, 2)), []);
  assert.deepEqual(one.gets(message(0, 2)), []);
});

test("8.4: the same claim is passed on once: its claimant cannot be reached", () => {
  const two = joinedStation({ id: 2 });
  two.now = 2499;
  two.gets(claim(1, 2)); // not passed on, so it does not count
  two.tickAt(2500);
  assert.deepEqual(two.gets(claim(1, 2)), ["claim of 1, generation 2, attempt 1"]);
  assert.deepEqual(two.gets(claim(1, 2)), []);
  assert.deepEqual(two.gets(claim(0, 2)), ["claim of 0, generation 2, attempt 1"], "another claimant");
  assert.deepEqual(two.gets(claim(0, 2, 2)), ["claim of 0, generation 2, attempt 2"], "another attempt");
});

test("8.4: its own claim's return makes a turn of that generation: itself issuer, round 1, and held", () => {
  const one = stationOf({ lines: lines(2, 3), holdLimit: 1 });
  one.gets(turn(1, 0, 1));
  one.gets(message(1, 2, { round: 1, acknowledged: true }));
  assert.deepEqual(one.tickAt(2500), ["claim of 1, generation 2, attempt 1"]);
  assert.deepEqual(one.gets(claim(1, 2)), ["message 1→3 2 2 1 m2"]);
  assert.deepEqual(one.station.turn, { generation: 2, issuer: 1, round: 1 });
});

/** Tells station 0 of a turn that comes and, where it does not end the ring, goes. */
function round(zero: ReturnType<typeof stationOf>, generation: number, number: number): string[] {
  zero.now += 10;
  const actions = zero.gets(turn(generation, 0, number));
  return [...actions, ...zero.tickAt(zero.now + 5)];
}

test("9.1: station 0 ends the ring after so many whole rounds without a message", () => {
  const zero = joinedStation({ id: 0, finishAfterIdle: 2 });
  assert.deepEqual(round(zero, 1, 2), ["turn 1.0.2 0→1"]);
  zero.gets(message(1, 2));
  assert.deepEqual(round(zero, 1, 3), ["turn 1.0.3 0→1"], "a message passed: it counts anew");
  assert.deepEqual(round(zero, 1, 4), ["turn 1.0.4 0→1"]);
  assert.deepEqual(round(zero, 1, 5), ["finish"]);
});

test("9.1: rounds do not count when the turn was made anew in between, nor with messages to send", () => {
  const zero = joinedStation({ id: 0, finishAfterIdle: 2 });
  round(zero, 1, 2);
  assert.deepEqual(round(zero, 2, 1), ["turn 2.0.1 0→1"], "that round was not whole");
  assert.deepEqual(round(zero, 2, 2), ["turn 2.0.2 0→1"]);
  assert.deepEqual(round(zero, 2, 3), ["finish"]);
  const busy = stationOf({ id: 0, finishAfterIdle: 1, lines: lines(1, 1, 1), holdLimit: 1 });
  busy.gets(turn(1, 0, 1));
  const back = (number: number) => busy.gets(message(0, 1, { number, round: number, acknowledged: true }));
  back(1);
  assert.deepEqual(busy.gets(turn(1, 0, 2)), ["message 0→1 1 2 1 m2"]);
  assert.deepEqual(back(2), ["delivered to 1: m2", "turn 1.0.2 0→1"]);
});

test("9.1: finish is repeated every 1000 and for another successor, the turn is kept; its return ends station 0", () => {
  const zero = joinedStation({ id: 0, finishAfterIdle: 1 });
  assert.deepEqual(round(zero, 1, 2), ["finish"]);
  const sentMs = zero.now - 5; // as it came: an end is not held back
  assert.equal(zero.station.wakeAtMs(), sentMs + 1000);
  assert.deepEqual(zero.tickAt(sentMs + 999), []);
  assert.deepEqual(zero.tickAt(sentMs + 1000), ["finish"]);
  assert.deepEqual(zero.successor(2), ["finish"]);
  assert.equal(zero.station.hasTurn, true);
  assert.deepEqual(zero.gets(finish()), ["end"]);
  assert.equal(zero.station.wakeAtMs(), Number.POSITIVE_INFINITY);
  assert.deepEqual(zero.gets(turn(9, 0, 1)), [], "it has ended");
});

test("9.1: a finish that station 0 has not sent does not end it", () => {
  assert.deepEqual(joinedStation({ id: 0 }).gets(finish()), []);
});

test("9.2: any other station passes finish on and ends; what it has not sent is unsent", () => {
  const one = stationOf({ lines: lines(2, 3), holdLimit: 1 });
  one.gets(turn(1, 0, 1));
  assert.deepEqual(one.gets(finish()), ["finish", "unconfirmed to 2: m1", "unsent to 3: m2", "end"]);
});

test("9.3: a finish whose source is not station 0 is removed", () => {
  assert.deepEqual(joinedStation().gets(finish(2)), []);
  assert.deepEqual(joinedStation().gets(finish(1)), []);
});

test("9.4: station 0, told to stop, ends the ring when it has the turn, though it has messages", () => {
  const zero = joinedStation({ id: 0, lines: [] });
  assert.deepEqual(zero.tell({ type: "stop" }), []);
  assert.deepEqual(zero.gets(turn(1, 0, 2)), ["finish"]);
  const busy = stationOf({ id: 0, lines: lines(1) });
  busy.tell({ type: "heard", generation: 1 });
  busy.tell({ type: "stop" });
  assert.deepEqual(busy.gets(turn(1, 0, 1)), ["finish"]);
  assert.deepEqual(busy.gets(finish()), ["unsent to 1: m1", "end"]);
});

test("9.4: another station, told to stop, leaves when it has passed its next turn, or its message's return", () => {
  const waiting = joinedStation();
  assert.deepEqual(waiting.tell({ type: "stop" }), []);
  assert.deepEqual(waiting.gets(turn(1, 0, 2)), ["turn 1.0.2 1→2", "leave"], "without the idle hold");
  const holder = stationOf({ lines: lines(2, 3) });
  holder.gets(turn(1, 0, 1));
  assert.deepEqual(holder.tell({ type: "stop" }), []);
  assert.deepEqual(holder.gets(message(1, 2, { round: 1, acknowledged: true })), [
    "delivered to 2: m1",
    "turn 1.0.1 1→2",
    "unsent to 3: m2",
    "leave",
  ]);
  const idle = joinedStation({ idleHoldMs: 1000 });
  idle.gets(turn(1, 0, 2));
  assert.deepEqual(idle.tell({ type: "stop" }), ["turn 1.0.2 1→2", "leave"]);
});

test("9.4: a station that leaves passes on what still comes, a turn too, and ends when that was all", () => {
  const one = joinedStation();
  one.tell({ type: "stop" });
  one.gets(turn(1, 0, 2));
  assert.deepEqual(one.gets(message(0, 2, { round: 3 })), ["message 0→2 1 1 1 x"]);
  assert.deepEqual(one.gets(message(0, 1, { round: 3, number: 2 })), [
    "received from 0: x",
    "message 0→1 A 1 2 1 x",
  ]);
  assert.deepEqual(one.gets(turn(1, 0, 3)), ["turn 1.0.3 1→2"]);
  assert.deepEqual(one.tell({ type: "stop" }), ["end"]);
  assert.deepEqual(one.gets(turn(1, 0, 4)), []);
});

test("9.1: station 0, told to stop a second time, ends the ring without the turn", () => {
  const zero = joinedStation({ id: 0, lines: [] });
  zero.tell({ type: "stop" });
  assert.deepEqual(zero.tell({ type: "stop" }), ["finish", "end"]);
  const alone = joinedStation({ id: 0 });
  alone.successor(undefined);
  alone.tell({ type: "stop" });
  assert.deepEqual(alone.tell({ type: "stop" }), ["end"], "there is nobody to tell");
  const other = joinedStation();
  other.tell({ type: "stop" });
  assert.deepEqual(other.tell({ type: "stop" }), ["end"], "it is not for the others to end the ring");
});

test("9.4: told to stop before the ring was complete, a station ends at once", () => {
  for (const id of [0, 1]) assert.deepEqual(stationOf({ id, lines: [] }).tell({ type: "stop" }), ["end"]);
});

test("9.4: told to stop a second time, a station ends at once and reports everything", () => {
  const one = stationOf({ lines: lines(2, 3) });
  one.gets(turn(1, 0, 1));
  one.tell({ type: "stop" });
  assert.deepEqual(one.tell({ type: "stop" }), ["unconfirmed to 2: m1", "unsent to 3: m2", "end"]);
});
