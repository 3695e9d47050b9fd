/**
 * "Netlab Remote Shell" (NLRS), version 1: the records that travel, the messages in them, and who may send which.
 * The README is the specification.
 */
import type { Dissector } from "../../shared/describe.ts";
import {
  bytes,
  constant,
  encode,
  enumOf,
  fixedBytes,
  fixedText,
  PduError,
  text,
  u8,
  u16,
  u32,
  union,
  type ValueOf,
} from "../../shared/pdu.ts";

export const PORT = 10_500;
export const MAX_DATA_BYTES = 64 * 1024;
export const MAX_COMMAND_BYTES = 64 * 1024;
const MAX_USER_BYTES = 32;
export const MAX_PASSWORD_BYTES = 128;
export const KEY_BYTES = 32;
export const TAG_BYTES = 16;
const RANDOM_BYTES = 32;
const SIGNATURE_BYTES = 64;
/** The longest message: the largest piece of data, and what stands before it. */
const MAX_MESSAGE_BYTES = MAX_DATA_BYTES + 16;
export const MAX_RECORD_BYTES = MAX_MESSAGE_BYTES + TAG_BYTES + 5;
/** A login, sealed: so much and no more is gathered for somebody whom nobody knows yet. */
export const LOGIN_RECORD_BYTES = 5 + 1 + MAX_USER_BYTES + MAX_PASSWORD_BYTES + TAG_BYTES;
/** What a client may send of a command's input before it is told that there is room for more. */
export const STDIN_WINDOW_BYTES = 64 * 1024;
/** Records in one direction under one key; then the connection ends. */
export const MAX_RECORDS = 2 ** 32;

/** What is encrypted: everything, or (the assignment's variant) the login only. */
const ENCRYPT = { session: 1, login: 2 } as const;
export type Encrypt = keyof typeof ENCRYPT;

const OUTCOMES = { welcome: 0, refused: 1, full: 2 } as const;
export const SIGNALS = { interrupt: 2, quit: 3, terminate: 15 } as const;
export const REASONS = { failures: 1, idle: 2, stopping: 3 } as const;

export const Message = union("Message", "kind", u8, {
  login: [
    1,
    {
      user: [fixedText(MAX_USER_BYTES), "padded, so that its length is not seen"],
      password: [fixedText(MAX_PASSWORD_BYTES), "padded likewise"],
    },
    "client → server: who it is",
  ],
  result: [
    2,
    {
      outcome: [enumOf(u8, OUTCOMES), "how the login fared"],
      directory: [text(u16), "where the shell is; empty unless welcome"],
    },
    "server → client: the answer to a login",
  ],
  command: [
    3,
    {
      id: [u32, "chosen by the client, one more each time"],
      text: [text(u32, MAX_COMMAND_BYTES), "for the shell; may have several lines"],
    },
    "client → server: to be run; only when none is running",
  ],
  stdin: [
    4,
    { id: [u32, "of the command"], data: [bytes(u32, MAX_DATA_BYTES), "no bytes: the end of the input"] },
    "client → server: input of the running command",
  ],
  window: [
    5,
    { id: [u32, "of the command"], bytes: [u32, "that may be sent in addition"] },
    "server → client: room for more input",
  ],
  stdout: [6, { data: [bytes(u32, MAX_DATA_BYTES), "as it was written"] }, "server → client"],
  stderr: [7, { data: [bytes(u32, MAX_DATA_BYTES), "as it was written"] }, "server → client"],
  exit: [
    8,
    {
      id: [u32, "of the command"],
      code: [u8, "128 + the signal's number if a signal ended it"],
      shell: [enumOf(u8, { lives: 0, ended: 1 }), "ended: the session is over"],
      directory: [text(u16), "where the shell is now"],
    },
    "server → client: the command has ended, and all that it wrote has been sent",
  ],
  signal: [
    9,
    { id: [u32, "of the command"], signal: [enumOf(u8, SIGNALS), "what to do to it"] },
    "client → server: for the running command",
  ],
  windowSize: [
    10,
    { columns: [u16, "0: unknown"], rows: [u16, "0: unknown"] },
    "client → server: its terminal, for COLUMNS and LINES",
  ],
  disconnect: [
    11,
    { reason: [enumOf(u8, REASONS), "why the server ends the connection"] },
    "server → client: its last word",
  ],
});
export type Message = ValueOf<typeof Message>;

export const Record = union("Record", "type", u8, {
  clientHello: [
    1,
    {
      magic: [constant(fixedText(4), "NLRS"), "of this protocol"],
      version: [constant(u8, 1), "of this protocol"],
      publicKey: [fixedBytes(KEY_BYTES), "X25519, made for this connection"],
      random: [fixedBytes(RANDOM_BYTES), "never the same"],
    },
    "the client's first record",
  ],
  serverHello: [
    2,
    {
      magic: [constant(fixedText(4), "NLRS"), "of this protocol"],
      version: [constant(u8, 1), "of this protocol"],
      encrypt: [enumOf(u8, ENCRYPT), "what is sealed after the login"],
      publicKey: [fixedBytes(KEY_BYTES), "X25519, made for this connection"],
      random: [fixedBytes(RANDOM_BYTES), "never the same"],
      hostKey: [fixedBytes(KEY_BYTES), "Ed25519, always the same"],
      signature: [fixedBytes(SIGNATURE_BYTES), "by the host key, of both hellos up to here"],
    },
    "the server's first record",
  ],
  sealed: [
    3,
    { ciphertext: [bytes(u32, MAX_MESSAGE_BYTES + TAG_BYTES), "a message, AES-256-GCM, and its tag"] },
    "a message that only the peer can read",
  ],
  clear: [4, { message: [Message, "as it is"] }, "a message that anybody can read"],
});
export type Record = ValueOf<typeof Record>;
export type RecordOf<T extends Record["type"]> = Extract<Record, { type: T }>;
export type MessageOf<K extends Message["kind"]> = Extract<Message, { kind: K }>;

/** What the server signs and the keys depend on: every byte of both hellos but the signature. */
export function transcriptBytes(client: RecordOf<"clientHello">, server: RecordOf<"serverHello">): Buffer {
  return Buffer.concat([encode(Record, client), encode(Record, server).subarray(0, -SIGNATURE_BYTES)]);
}

/** Throws `PduError` where the peer may not send this. */
export function refuseUnless<K extends Message["kind"]>(
  message: Message,
  ...allowed: readonly K[]
): asserts message is MessageOf<K> {
  if (!(allowed as readonly string[]).includes(message.kind))
    throw new PduError("Message.kind", 0, `${message.kind} is not for now; expected ${allowed.join(" or ")}`);
}

export const USER_NAME = /^[A-Za-z_][A-Za-z0-9_.-]{0,31}$/;

export const dissectors: readonly Dissector[] = [
  {
    name: "nlrs",
    title: "Netlab Remote Shell",
    pdu: Record.shape,
    info: {
      by: ["kind", "type"],
      texts: {
        clientHello: "client's hello: a key and random bytes, made for this connection",
        serverHello: "server's hello: the same, its host key and signature; encrypts: {encrypt}",
        sealed: "sealed: {ciphertext}",
        command: "in clear: command {id} {text}",
        stdin: "in clear: {data} of input",
        stdout: "in clear: {data} of output",
        stderr: "in clear: {data} of errors",
        exit: "in clear: command {id} ended with {code}, in {directory}",
      },
    },
    tcp: [PORT],
  },
];
