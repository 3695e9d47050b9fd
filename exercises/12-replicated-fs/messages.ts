/** The messages of `consensus.ts` as frames. */
import { decode, encode } from "../../shared/pdu.ts";
import type { Message } from "./consensus.ts";
import {
  Acknowledge,
  Candidate,
  Copy,
  decodeEntry,
  type Entry,
  encodeEntry,
  type Frame,
  frame,
  Heartbeat,
  Vote,
} from "./protocol.ts";

export function encodeMessage(message: Message<Entry>): Buffer {
  const { from, term } = message;
  switch (message.kind) {
    case "append": {
      const head = encode(Heartbeat, { ...message, count: message.entries.length });
      return Buffer.concat([frame(from, "heartbeat", "", head), ...message.entries.map(encodeEntry)]);
    }
    case "acknowledge": {
      const data = encode(Acknowledge, { ...message, accepted: Number(message.accepted) });
      return frame(from, "acknowledge", "", data);
    }
    case "candidate":
      return frame(from, "candidate", "", encode(Candidate, { ...message, isTrial: Number(message.isTrial) }));
    case "vote": {
      const { granted, isTrial } = message;
      return frame(from, "vote", "", encode(Vote, { term, granted: Number(granted), isTrial: Number(isTrial) }));
    }
    case "copy":
      return frame(from, "copy", "", encode(Copy, { term }));
  }
}

/** The message that begins with this frame, or undefined where it is none; `next` reads the entries that follow. */
export async function decodeMessage(
  { action, data }: Frame,
  from: number,
  next: () => Promise<Frame>,
): Promise<Message<Entry> | undefined> {
  switch (action) {
    case "heartbeat": {
      const { count, ...head } = decode(Heartbeat, data);
      const entries: Entry[] = [];
      while (entries.length < count) entries.push(decodeEntry(await next()));
      return { kind: "append", from, ...head, entries };
    }
    case "acknowledge": {
      const { accepted, ...rest } = decode(Acknowledge, data);
      return { kind: "acknowledge", from, ...rest, accepted: accepted === 1 };
    }
    case "candidate": {
      const { isTrial, ...rest } = decode(Candidate, data);
      return { kind: "candidate", from, ...rest, isTrial: isTrial === 1 };
    }
    case "vote": {
      const { term, granted, isTrial } = decode(Vote, data);
      return { kind: "vote", from, term, granted: granted === 1, isTrial: isTrial === 1 };
    }
    case "copy":
      return { kind: "copy", from, ...decode(Copy, data) };
    default:
      return undefined;
  }
}
