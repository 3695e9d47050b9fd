/**
 * "Protocolo Anillo Lógico" (PAL): the frame, what its flags mean, and what its data hold. The README is the
 * specification; the rules of a station are in `station.ts`.
 */
import type { Dissector } from "../../shared/describe.ts";
import { Failure } from "../../shared/errors.ts";
import { bits, PduError, struct, text, u32, type ValueOf } from "../../shared/pdu.ts";

export const MAX_ID = 0xffff_ffff;
export const BASE_PORT = 11_300;
export const MAX_TEXT_BYTES = 1024 * 1024;
/** The header, the five numbers of a message, and its text. */
export const MAX_FRAME_BYTES = 13 + 5 * 17 + MAX_TEXT_BYTES;

export const Frame = struct("PAL", {
  idSource: [u32, "the station that made the frame"],
  idDestination: [u32, "the station that it is for"],
  flags: [
    bits({ turn: 1, acknowledged: 1, finish: 1, reserved: 5 }),
    "T, A, F; together they tell the kind of frame",
  ],
  data: [text(u32), "by the kind of frame, see Data"],
});
export type Frame = ValueOf<typeof Frame>;

/** The right to send. Of two, the one of the later generation is valid, then that of the smaller issuer. */
export interface Turn {
  /** One more than any before it, each time that a turn is made. */
  generation: number;
  /** The station that made it. */
  issuer: number;
  /** Goes up by one each time that the turn passes the end of the station list. */
  round: number;
}

/** With the turn under which it is sent: a station that has had a later one knows that it is late. */
export interface Message extends Turn {
  idSource: number;
  idDestination: number;
  /** Set by the destination. */
  acknowledged: boolean;
  /** Counts the source's messages; one that is sent again keeps its number, */
  number: number;
  /** and counts this: 1 the first time. */
  attempt: number;
  text: string;
}

/** A frame, understood. */
export type Meaning =
  | ({ kind: "message" } & Message)
  | ({ kind: "turn"; idSource: number; idDestination: number } & Turn)
  | { kind: "claim"; idSource: number; idDestination: number; generation: number; attempt: number }
  | { kind: "probe"; idSource: number; idDestination: number; generation: number }
  | { kind: "finish"; idSource: number; idDestination: number };

/** Throws `PduError` where the flags mean nothing or the data are not what they announce. */
export function understand({ idSource, idDestination, flags, data }: Frame): Meaning {
  const { turn, acknowledged, finish } = flags;
  const ids = { idSource, idDestination };
  if (turn && acknowledged) throw new PduError("PAL.flags", 8, "T and A together mean nothing");
  if (turn && finish) {
    const [generation, attempt] = numbersIn(data, 2);
    return { kind: "claim", ...ids, generation, attempt };
  }
  if (turn) {
    const [generation, issuer, round] = numbersIn(data, 3);
    return { kind: "turn", ...ids, generation, issuer, round };
  }
  if (finish && acknowledged) {
    const [generation] = numbersIn(data, 1);
    return { kind: "probe", ...ids, generation };
  }
  if (finish) {
    if (data !== "") throw new PduError("PAL.data", 13, "an end command has none");
    return { kind: "finish", ...ids };
  }
  const [generation, issuer, round, number, attempt, text] = numbersIn(data, 5, true);
  return { kind: "message", ...ids, acknowledged, generation, issuer, round, number, attempt, text };
}

export function frameOf(meaning: Meaning): Frame {
  const { kind, idSource, idDestination } = meaning;
  const frame = (
    turn: boolean,
    acknowledged: boolean,
    finish: boolean,
    ...data: (number | string)[]
  ): Frame => ({
    idSource,
    idDestination,
    flags: { turn, acknowledged, finish },
    data: data.join(" "),
  });
  switch (kind) {
    case "message": {
      const { acknowledged, generation, issuer, round, number, attempt, text } = meaning;
      return frame(false, acknowledged, false, generation, issuer, round, number, attempt, text);
    }
    case "turn":
      return frame(true, false, false, meaning.generation, meaning.issuer, meaning.round);
    case "claim":
      return frame(true, false, true, meaning.generation, meaning.attempt);
    case "probe":
      return frame(false, true, true, meaning.generation);
    case "finish":
      return frame(false, false, true);
  }
}

type Numbers = {
  1: [number];
  2: [number, number];
  3: [number, number, number];
  5: [number, number, number, number, number, text: string];
};

/** `count` decimal numbers, a space between them; with `textFollows`, a space and any text behind them. */
function numbersIn<N extends keyof Numbers>(data: string, count: N, textFollows = false): Numbers[N] {
  const pattern = `^(0|[1-9]\\d{0,15})${" (0|[1-9]\\d{0,15})".repeat(count - 1)}${textFollows ? " " : "$"}`;
  const match = new RegExp(pattern).exec(data);
  const numbers = match?.slice(1).map(Number);
  if (!match || !numbers?.every(Number.isSafeInteger)) {
    throw new PduError("PAL.data", 13, `must be ${count} decimal numbers${textFollows ? " and a text" : ""}`);
  }
  return [...numbers, ...(textFollows ? [data.slice(match[0].length)] : [])] as Numbers[N];
}

/** Is `a` the valid one of two turns (greater than 0), or `b` (less than 0), or are they one and the same (0)? */
export function compareTurns(a: Turn, b: Turn): number {
  return a.generation - b.generation || b.issuer - a.issuer || a.round - b.round;
}

/** The stations in the order in which a frame meets them that leaves `id` for `first`; `id` itself comes last. */
export function ringFrom(id: number, first: number, members: readonly number[]): number[] {
  const start = members.indexOf(first);
  const order = [...members.slice(start), ...members.slice(0, start)].filter((member) => member !== id);
  return [...order, id];
}

export interface Line {
  idDestination: number;
  text: string;
}

/** The messages of a file, `DESTINATION text` a line; empty lines and those that begin with # say nothing. */
export function parseMessages(content: string): Line[] {
  return content.split(/\r?\n/).flatMap((line, i) => {
    if (/^\s*(#|$)/.test(line)) return [];
    const [, destination, text = ""] = /^\s*(\d+)(?: (.*))?$/s.exec(line) ?? [];
    const idDestination = Number(destination);
    if (!(idDestination <= MAX_ID)) {
      throw new Failure(`line ${i + 1}: must be a destination (0 to ${MAX_ID}), a space and a text`);
    }
    if (Buffer.byteLength(text) > MAX_TEXT_BYTES) {
      throw new Failure(`line ${i + 1}: the text is longer than ${MAX_TEXT_BYTES} bytes`);
    }
    return [{ idDestination, text }];
  });
}

export const dissectors: readonly Dissector[] = [
  {
    name: "pal",
    title: "Protocolo Anillo Lógico",
    pdu: Frame.shape,
    info: {
      by: ["flags"],
      texts: {
        turn: "turn {idSource} → {idDestination}: generation, issuer, round {data}",
        "turn,finish": "claim of {idSource}: generation, attempt {data}",
        "-": "message {idSource} → {idDestination}: {data}",
        acknowledged: "message {idSource} → {idDestination}, taken: {data}",
        finish: "finish: the ring ends",
        "acknowledged,finish": "probe {idSource} → {idDestination}: generation {data}",
      },
    },
    tcp: ["11300-11363"],
  },
];
