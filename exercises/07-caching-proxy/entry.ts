/** A stored response in the index, and what of it goes into its file. */
import { Fields } from "../../shared/http.ts";
import type { Meta, ObjectFile } from "./object-file.ts";
import { Policy } from "./rules.ts";
import type { Transfer } from "./transfer.ts";

/** A stored response, or one that is being received and stored. */
export interface Entry extends Omit<Meta, "fields"> {
  fields: Fields;
  policy: Policy;
  /** Where it is; none while it is still coming. */
  file: ObjectFile | undefined;
  /** From where it is coming. */
  transfer: Transfer | undefined;
  /** The whole body, if it is in memory. */
  content: Buffer | undefined;
  /** A whole response, ready to be sent, and until when it may be, in milliseconds since 1970. */
  prepared: { bytes: Buffer; fromMs: number; untilMs: number } | undefined;
}

export function entryOf(meta: Meta): Entry {
  const fields = new Fields(meta.fields);
  const nothing = { file: undefined, transfer: undefined, content: undefined, prepared: undefined };
  return { ...meta, fields, policy: new Policy({ ...meta, fields }), ...nothing };
}

export function metaOf({ url, variant, status, reason, fields, requestTimeMs, responseTimeMs }: Entry): Meta {
  return { url, variant, status, reason, fields: [...fields], requestTimeMs, responseTimeMs };
}

/** Stored for the same requests. */
export const isSameVariant = (a: Entry, b: Entry) =>
  Object.keys(a.variant).length === Object.keys(b.variant).length &&
  Object.entries(a.variant).every(([name, value]) => b.variant[name] === value);
