/** The replicated file system's protocol: one frame (the assignment's), and what its data are by its action. The README specifies it. */
import type { Dissector } from "../../shared/describe.ts";
import {
  bytes,
  containing,
  encode,
  enumOf,
  fixedBytes,
  restBytes,
  struct,
  text,
  u8,
  u16,
  u32,
  u64,
  type ValueOf,
} from "../../shared/pdu.ts";

export const PORT = 11_200;
export const MAX_PATH_BYTES = 4096;
export const CHUNK_BYTES = 256 * 1024;
/** A file up to this size travels, and is kept, in the log's entry itself. */
export const INLINE_BYTES = 64 * 1024;
const MAX_DATA_BYTES = 1024 * 1024;
export const MAX_FRAME_BYTES = MAX_DATA_BYTES + MAX_PATH_BYTES + 16;
/** Before somebody has proved to know the secret. */
export const MAX_STRANGER_BYTES = 256;
export const NONCE_BYTES = 32;
export const REQUEST_BYTES = 8;

const ACTIONS = {
  register: 0,
  remote: 1,
  copy: 2,
  add: 3,
  delete: 4,
  modify: 5,
  chunk: 6,
  mkdir: 7,
  move: 8,
  metadata: 9,
  members: 10,
  begin: 11,
  heartbeat: 12,
  acknowledge: 13,
  candidate: 14,
  vote: 15,
  manifest: 16,
  digest: 17,
  fetch: 18,
  challenge: 19,
  proof: 20,
  result: 21,
  state: 22,
} as const;
export type Action = keyof typeof ACTIONS;

/** What lies at a path. */
export const Item = struct("Item", {
  kind: [enumOf(u8, { file: 1, directory: 2, link: 3 }), "what it is"],
  mode: [u16, "permissions, the lower twelve bits; 0 for a link"],
  mtimeUs: [u64, "last modified, microseconds since 1970"],
  sizeBytes: [u64, "of a file; 0 for others"],
  digest: [bytes(u8, 32), "SHA-256 of a file's content; empty for others"],
  blob: [bytes(u8, 16), "names the content where it travels apart; empty where it is in the entry"],
  target: [text(u16, MAX_PATH_BYTES), "where a link points"],
});
export type Item = ValueOf<typeof Item>;

export const PutBody = struct("PutBody", {
  item: [Item, "what lies there now"],
  content: [restBytes, "of a file of at most 64 KiB"],
});
export const MoveBody = struct("MoveBody", { to: [text(u32, MAX_PATH_BYTES), "its new path"] });
export const MetadataBody = struct("MetadataBody", {
  mode: [u16, "permissions"],
  mtimeUs: [u64, "last modified, microseconds since 1970"],
});
export const Member = struct("Member", {
  id: [u32, "of the node"],
  uid: [fixedBytes(16), "made with the node's state: who has lost its state is another node"],
  host: [text(u8), "where the others reach it"],
  port: [u16, "where the others reach it"],
});
export type Member = ValueOf<typeof Member>;

export const EntryData = struct("EntryData", {
  term: [u32, "of the master that made the entry"],
  timeUs: [u64, "when; becomes the modification time of the directory that it changes"],
  request: [
    fixedBytes(REQUEST_BYTES),
    "of the client, chosen at random; zeros: a change on the master's disk",
  ],
  body: [
    containing(restBytes, "action", {
      add: PutBody,
      modify: PutBody,
      mkdir: PutBody,
      move: MoveBody,
      metadata: MetadataBody,
      members: Member,
    }),
    "by the action",
  ],
});

export const Heartbeat = struct("Heartbeat", {
  term: [u32, "of the master"],
  prevIndex: [u32, "the entry before those that follow"],
  prevTerm: [u32, "its term"],
  commit: [u32, "the last committed entry"],
  count: [u16, "entries that follow, a frame each"],
  host: [
    text(u8),
    "where the master is reached: who has not yet read of it in the log must be able to answer",
  ],
  port: [u16, "the same"],
});
export const Acknowledge = struct("Acknowledge", {
  term: [u32, "of the sender"],
  accepted: [u8, "1, or 0: the entry before is not there"],
  match: [u32, "on disk up to this entry; or, refused, where to look"],
});
export const Candidate = struct("Candidate", {
  term: [u32, "that it would begin"],
  lastIndex: [u32, "its last entry"],
  lastTerm: [u32, "and that one's term"],
  isTrial: [u8, "1: only asks what the answer would be"],
  host: [
    text(u8),
    "where the candidate is reached: who has not yet read of it in the log must be able to vote",
  ],
  port: [u16, "the same"],
});
export const Vote = struct("Vote", {
  term: [u32, "the candidate's if granted, else the sender's"],
  granted: [u8, "1 or 0"],
  isTrial: [u8, "as in the question"],
});
export const Copy = struct("Copy", {
  term: [u32, "of the master"],
  host: [text(u8), "where the master is reached"],
  port: [u16, "the same"],
});
const Request = struct("Request", { request: [fixedBytes(REQUEST_BYTES), "of a client"] });
export const State = struct("State", {
  index: [u32, "the last entry that this state contains"],
  term: [u32, "its term"],
  highestId: [u32, "that a node has had"],
  members: [containing(bytes(u32), Member), "Member, one after the other"],
  requests: [
    containing(bytes(u32), Request),
    "the latest that were carried out: Request, one after the other",
  ],
});
export type State = ValueOf<typeof State>;
export const Fetch = struct("Fetch", {
  blob: [bytes(u8, 16), "of the content"],
  digest: [bytes(u8, 32), "of the content"],
});
export const Challenge = struct("Challenge", {
  nonce: [fixedBytes(NONCE_BYTES), "never the same"],
  cluster: [fixedBytes(16), "which file system this is"],
});
export const Proof = struct("Proof", {
  nonce: [fixedBytes(NONCE_BYTES), "never the same"],
  mac: [fixedBytes(32), "HMAC-SHA-256 under the secret: see Authentication"],
});
export const Registration = struct("Registration", {
  uid: [fixedBytes(16), "of the node's state"],
  host: [text(u8), "where the others reach it"],
  port: [u16, "where the others reach it"],
});

const OPERATIONS = {
  stat: 1,
  list: 2,
  walk: 3,
  read: 4,
  write: 5,
  mkdir: 6,
  remove: 7,
  rmdir: 8,
  move: 9,
  copy: 10,
  touch: 11,
  df: 12,
  nodes: 13,
  forget: 14,
} as const;
export type Operation = keyof typeof OPERATIONS;
export const Command = struct("Command", {
  operation: [enumOf(u8, OPERATIONS), "what to do"],
  recursive: [u8, "1: with all below; of mkdir: with all above"],
  mode: [u16, "permissions of what is written"],
  request: [fixedBytes(REQUEST_BYTES), "chosen at random; the same again when it is repeated"],
  to: [text(u32, MAX_PATH_BYTES), "of move and copy: the new path; of forget: the node's id"],
});
export type Command = ValueOf<typeof Command>;
export const Result = struct("Result", {
  outcome: [
    enumOf(u8, { done: 0, failed: 1, elsewhere: 2, unavailable: 3, waiting: 4 }),
    "elsewhere: text is the master's address; waiting: not the end, another result follows",
  ],
  text: [text(u32), "the answer, or why not"],
});
export type Result = ValueOf<typeof Result>;

export const Frame = struct("Frame", {
  idNode: [u32, "the node that sends it; 0 is a client, or a node that has no id yet"],
  action: [enumOf(u32, ACTIONS), "what it is"],
  path: [
    text(u32, MAX_PATH_BYTES),
    "relative to the directory, names separated by /; empty is the directory itself",
  ],
  data: [
    containing(bytes(u32, MAX_DATA_BYTES), "action", {
      register: Registration,
      remote: Command,
      copy: Copy,
      add: EntryData,
      delete: EntryData,
      modify: EntryData,
      mkdir: EntryData,
      move: EntryData,
      metadata: EntryData,
      members: EntryData,
      begin: EntryData,
      heartbeat: Heartbeat,
      acknowledge: Acknowledge,
      candidate: Candidate,
      vote: Vote,
      state: State,
      manifest: Item,
      fetch: Fetch,
      challenge: Challenge,
      proof: Proof,
      result: Result,
    }),
    "by the action",
  ],
});
export type Frame = ValueOf<typeof Frame>;

export const NOTHING = Buffer.alloc(0);
export const NO_REQUEST = Buffer.alloc(REQUEST_BYTES);

export const frame = (idNode: number, action: Action, path = "", data: Buffer = NOTHING): Buffer =>
  encode(Frame, { idNode, action, path, data });

/** Values one after the other. */
export function decodeAll<T>(codec: { read: (from: { bytes: Buffer; at: number }) => T }, all: Buffer): T[] {
  const from = { bytes: all, at: 0 };
  const values: T[] = [];
  while (from.at < all.length) values.push(codec.read(from));
  return values;
}
export const encodeMembers = (members: readonly Member[]): Buffer =>
  Buffer.concat(members.map((member) => encode(Member, member)));

export const dissectors: readonly Dissector[] = [
  {
    name: "rfs",
    title: "Replicated File System",
    pdu: Frame.shape,
    info: {
      by: ["action"],
      texts: {
        register: "register me, at {host} {port}",
        remote: "{operation} {path}",
        copy: "copy the whole from {host} {port}, term {term}",
        add: "entry of term {term}: add {path}, {kind} of {sizeBytes} bytes",
        delete: "entry of term {term}: delete {path}",
        modify: "entry of term {term}: modify {path}, {kind} of {sizeBytes} bytes",
        chunk: "chunk: {data}",
        mkdir: "entry of term {term}: mkdir {path}",
        move: "entry of term {term}: move {path} to {to}",
        metadata: "entry of term {term}: metadata of {path}, mode {mode}",
        members: "entry of term {term}: members",
        begin: "entry of term {term}: its master begins",
        heartbeat:
          "heartbeat of master {idNode}, term {term}: {count} entries behind {prevIndex}, committed {commit}",
        acknowledge: "acknowledge of {idNode}, term {term}: accepted {accepted}, up to {match}",
        candidate:
          "candidate {idNode}, term {term}, trial {isTrial}: my last entry is {lastIndex} of term {lastTerm}",
        vote: "vote of {idNode}, term {term}, trial {isTrial}: granted {granted}",
        manifest: "manifest {path} {data}",
        digest: "digest of all, for {idNode}",
        fetch: "fetch a content, for {idNode}",
        challenge: "challenge of {idNode}",
        proof: "proof of {idNode}",
        result: "result {outcome} {text}",
        state: "state up to entry {index} of term {term}",
      },
    },
    tcp: [`${PORT}-${PORT + 9}`],
  },
];
