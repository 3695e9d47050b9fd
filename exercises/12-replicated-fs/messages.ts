/** The messages of `consensus.ts` as frames. */
import { decode, encode } from "../../shared/pdu.ts";
import type { Message } from "./consensus.ts";
import { decodeEntry, type Entry, encodeEntry } from "./entries.ts";
import { Acknowledge, Candidate, Copy, type Frame, frame, Heartbeat, Vote } from "./protocol.ts";

export type Address = { host: string; port: number };

/** `own`: where the sender is reached. */
export function encodeMessage(message: Message<Entry>, own: Address): Buffer {
  const { from, term } = message;
  switch (message.kind) {
    case "append": {
      const head = encode(Heartbeat, { ...message, ...own, count: message.entries.length });
      return Buffer.concat([frame(from, "heartbeat", "", head), ...message.entries.map(encodeEntry)]);
    }
    case "acknowledge": {
      const data = encode(Acknowledge, { ...message, accepted: Number(message.accepted) });
      return frame(from, "acknowledge", "", data);
    }
    case "candidate":
      return frame(
        from,
        "candidate",
        "",
        encode(Candidate, { ...message, ...own, isTrial: Number(message.isTrial) }),
      );
    case "vote": {
      const { granted, isTrial } = message;
      return frame(
        from,
        "vote",
        "",
        encode(Vote, { term, granted: Number(granted), isTrial: Number(isTrial) }),
      );
    }
    case "copy":
      return frame(from, "copy", "", encode(Copy, { term, ...own }));
  }
}

/** The message that begins with this frame, or undefined where it is none; `next` reads the entries that follow. */
export async function decodeMessage(
  { action, data }: Frame,
  from: number,
  next: () => Promise<Frame>,
): Promise<{ message: Message<Entry>; address?: Address } | undefined> {
  switch (action) {
    case "heartbeat": {
      const { count, host, port, ...head } = decode(Heartbeat, data);
      const entries: Entry[] = [];
      while (entries.length < count) entries.push(decodeEntry(await next()));
      return { message: { kind: "append", from, ...head, entries }, address: { host, port } };
    }
    case "acknowledge": {
      const { accepted, ...rest } = decode(Acknowledge, data);
      return { message: { kind: "acknowledge", from, ...rest, accepted: accepted === 1 } };
    }
    case "candidate": {
      const { isTrial, host, port, ...rest } = decode(Candidate, data);
      return {
        message: { kind: "candidate", from, ...rest, isTrial: isTrial === 1 },
        address: { host, port },
      };
    }
    case "vote": {
      const { term, granted, isTrial } = decode(Vote, data);
      return { message: { kind: "vote", from, term, granted: granted === 1, isTrial: isTrial === 1 } };
    }
    case "copy": {
      const { term, ...address } = decode(Copy, data);
      return { message: { kind: "copy", from, term }, address };
    }
    default:
      return undefined;
  }
}
