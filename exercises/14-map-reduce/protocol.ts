/**
 * "Netlab map-reduce" (NLMR): the messages between a master, its mappers and the reducer. The README is the specification.
 */
import type { Dissector } from "../../shared/describe.ts";
import { bytes, constant, enumOf, text, u8, u16, u32, u64, union, type ValueOf } from "../../shared/pdu.ts";

/** The reducer's; mapper i has PORT + i. */
export const PORT = 11_400;
export const MAX_PARTS = 65_535;
/** What a master sends of the text at a time, and the most that a message carries: a piece of result and a line over it. */
export const CHUNK_BYTES = 64 * 1024;
export const MAX_DATA_BYTES = 512 * 1024;
export const MAX_MESSAGE_BYTES = MAX_DATA_BYTES + 64;
/** A node says something so many times within the silence after which it counts as lost. */
export const BEATS_IN_SILENCE = 6;
export const MIN_SILENCE_MS = 300;
export const MAX_SILENCE_MS = 600_000;

const Outcome = enumOf(u8, { delivered: 1, refused: 2, failed: 3 });
const Totals = {
  terms: [u32, "lines in the result: distinct terms"],
  words: [u64, "the sum of their counts"],
  invalidBytes: [u64, "bytes of the text that are not UTF-8"],
  longTerms: [u64, "terms that were too long to be counted"],
} as const;

export const Message = union("NLMR", "type", u8, {
  job: [
    1,
    {
      magic: [constant(u32, 0x4e4c_4d52), "NLMR"],
      version: [constant(u8, 1), "of this protocol"],
      job: [u64, "number of the job, drawn by its master"],
      parts: [u16, "parts of the text, from 1 up"],
      silenceMs: [u32, "whoever says nothing for so long is lost"],
      reducerPort: [u16, "the reducer, for mappers"],
      reducerHost: [text(u8), "its name or address"],
    },
    "master to reducer and mapper, first on a connection",
  ],
  ready: [
    2,
    { role: [enumOf(u8, { mapper: 1, reducer: 2 }), "what the node is"] },
    "the answer to job: at your service",
  ],
  part: [
    3,
    { part: [u16, "from 0 to parts - 1"], sizeBytes: [u64, "of the chunks that follow"] },
    "master to mapper: a part of the text",
  ],
  chunk: [4, { data: [bytes(u32, MAX_DATA_BYTES), "the next bytes of the part"] }, "master to mapper"],
  partDone: [
    5,
    {
      part: [u16, "which"],
      outcome: [Outcome, "what became of its result"],
      reason: [text(u16), "why it failed, else empty"],
    },
    "mapper to master: ready for another part",
  ],
  announce: [
    6,
    {
      magic: [constant(u32, 0x4e4c_4d52), "NLMR"],
      version: [constant(u8, 1), "of this protocol"],
      job: [u64, "the job"],
      part: [u16, "the part of which the result is there"],
    },
    "mapper to reducer, first on a connection",
  ],
  grant: [7, {}, "reducer to mapper: send it"],
  refuse: [
    8,
    {
      reason: [
        enumOf(u8, { taken: 1, received: 2, unknownJob: 3 }),
        "taken: another is sending it; received: it is here",
      ],
    },
    "reducer to mapper: do not",
  ],
  result: [
    9,
    { lines: [bytes(u32, MAX_DATA_BYTES), "whole lines: term, TAB, count, LF"] },
    "mapper to reducer, in any order; reducer to master, in the order of the output",
  ],
  resultEnd: [10, Totals, "mapper to reducer: that was all of the result"],
  received: [11, {}, "reducer to mapper: the part is counted"],
  partState: [
    12,
    {
      part: [u16, "which"],
      state: [
        enumOf(u8, { granted: 1, received: 2, dropped: 3 }),
        "dropped: its mapper was lost while it sent",
      ],
    },
    "reducer to master",
  ],
  jobDone: [13, Totals, "reducer to master: that was all of the output"],
  alive: [14, { countedBytes: [u64, "of the part, by a mapper; else 0"] }, "anybody, at any time"],
  error: [
    15,
    { reason: [text(u16), "what is wrong, for people"] },
    "anybody, before it closes the connection",
  ],
});
export type Message = ValueOf<typeof Message>;
export type MessageOf<T extends Message["type"]> = Extract<Message, { type: T }>;
/** What is known of a part's text, or of the whole, beside its terms. */
export type Totals = Omit<MessageOf<"jobDone">, "type">;

export const dissectors: readonly Dissector[] = [
  {
    name: "nlmr",
    title: "Netlab map-reduce",
    pdu: Message.shape,
    info: {
      by: ["type"],
      texts: {
        job: "job {job}: {parts} parts",
        ready: "ready as {role}",
        part: "part {part}: {sizeBytes} bytes of text follow",
        chunk: "chunk of the part: {data}",
        partDone: "part {part} is done: {outcome} {reason}",
        announce: "announce part {part}: it is counted",
        grant: "grant: send the result",
        refuse: "refuse: {reason}",
        result: "result: {lines}",
        resultEnd: "end of the result: {terms} terms, {words} words",
        received: "received",
        partState: "part {part} is {state}",
        jobDone: "job done: {terms} terms, {words} words",
        alive: "alive: {countedBytes} bytes counted",
        error: "error: {reason}",
      },
    },
    tcp: ["11400-11499"],
  },
];
