/** The log's entries: changes, as they travel and as they are kept. */
import { Failure } from "../../shared/errors.ts";
import { decode, encode, type ValueOf } from "../../shared/pdu.ts";
import { checkPath } from "./paths.ts";
import {
  type Action,
  decodeAll,
  EntryData,
  type Frame,
  frame,
  Member,
  MetadataBody,
  MoveBody,
  NO_REQUEST,
  PutBody,
} from "./protocol.ts";

/** An entry of the log: the change it is, as it travels and as it is kept. */
export interface Entry {
  readonly term: number;
  readonly action: Action;
  readonly path: string;
  readonly timeUs: bigint;
  readonly request: Buffer;
  readonly body: Buffer;
  readonly sizeBytes: number;
  readonly members?: readonly number[];
  readonly nodes?: readonly Member[];
}
export type Change = Pick<Entry, "action" | "path" | "timeUs" | "body"> & { request?: Buffer };

const CHANGES: readonly Action[] = [
  "add",
  "delete",
  "modify",
  "mkdir",
  "move",
  "metadata",
  "members",
  "begin",
];

export function entryOf(term: number, { action, path, timeUs, body, request = NO_REQUEST }: Change): Entry {
  const nodes = action === "members" ? decodeAll(Member, body) : undefined;
  const members = nodes && { nodes, members: nodes.map(({ id }) => id) };
  return { term, action, path, timeUs, request, body, sizeBytes: body.length + path.length + 64, ...members };
}
export function encodeEntry({ action, path, ...entry }: Entry): Buffer {
  return frame(0, action, path, encode(EntryData, entry));
}
/** Throws `PduError` or `Failure` where the frame is no entry, or names a path that nobody may. */
export function decodeEntry({ action, path, data }: Frame): Entry {
  if (!CHANGES.includes(action)) throw new Failure(`${action} is no change`);
  const { term, timeUs, request, body } = decode(EntryData, data);
  const entry = entryOf(term, { action, path: checkPath(path), timeUs, request, body });
  if (isPut(entry)) decode(PutBody, body);
  if (action === "move") checkPath(decode(MoveBody, body).to);
  if (action === "metadata") decode(MetadataBody, body);
  return entry;
}

export const isPut = ({ action }: Pick<Entry, "action">): boolean =>
  action === "add" || action === "modify" || action === "mkdir";
export const putOf = (entry: Pick<Entry, "body">): ValueOf<typeof PutBody> => decode(PutBody, entry.body);
export const moveOf = (entry: Pick<Entry, "body">): string => decode(MoveBody, entry.body).to;
