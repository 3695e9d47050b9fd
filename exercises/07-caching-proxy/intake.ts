/**
 * What an origin's answer does to the store: it is stored (RFC 9111 §3), it freshens what is there (§4.3.4, §4.3.5), or it ends it
 * (§4.4).
 */
import { explain, isFailure } from "../../shared/errors.ts";
import type { Fields, RequestHead } from "../../shared/http.ts";
import { readBody } from "../../shared/http-body.ts";
import { formatDate } from "../../shared/http-serving.ts";
import type { Entry } from "./entry.ts";
import type { Meta, ObjectWriter } from "./object-file.ts";
import type { OriginResponse } from "./origin.ts";
import { parseTarget } from "./protocol.ts";
import { isStorable } from "./rules.ts";
import { describes, invalidated, storedFields, updatedFields, variantOf, varyNames } from "./selection.ts";
import type { Store } from "./store.ts";
import { Transfer } from "./transfer.ts";

export interface IntakeOptions {
  store: Store;
  maxObjectBytes: number;
  log: (line: string) => void;
  debug: (line: string) => void;
}

/** These answer the request's conditions, not what it is about. */
const ABOUT_CONDITIONS = [206, 304, 412, 416];

export class Intake {
  readonly #options: IntakeOptions;
  readonly #store: Store;
  constructor(options: IntakeOptions) {
    this.#options = options;
    this.#store = options.store;
  }

  /**
   * The origin has confirmed it to this request. False if with what it says now it may not be kept: it is for this client
   * alone (`private`, `no-store`, Authorization), and to be removed.
   */
  freshen(entry: Entry, request: RequestHead, response: OriginResponse): boolean {
    const { requestTimeMs, responseTimeMs } = response;
    const fields = updatedFields(entry.fields, withDate(response.fields, responseTimeMs));
    if (varyNames(fields).join() !== varyNames(entry.fields).join())
      this.#store.relabel(entry, variantOf(fields, request.fields));
    this.#store.freshen(entry, fields, requestTimeMs, responseTimeMs);
    const { status } = entry;
    return isStorable({ ...request, method: "GET" }, { status, fields, requestTimeMs, responseTimeMs });
  }

  /** What an answer says about what is stored already (RFC 9111 §4.3.5, §4.4). */
  learn(head: RequestHead, url: string, response: OriginResponse): void {
    for (const other of invalidated(head, url, response.status, response.fields)) {
      const key = keyOf(other);
      if (key !== undefined) this.#store.purge(key);
    }
    if (head.method !== "HEAD" || response.status === 304 || response.status >= 500) return;
    const entry = this.#store.find(url, head.fields);
    if (entry?.file === undefined) return;
    const isSame =
      response.status === entry.status && describes(response.fields, entry.fields, entry.file.bodyBytes);
    if (!isSame || !this.freshen(entry, head, response)) this.#store.remove(entry);
  }

  /**
   * A place for the body, in the store if it may be stored. What was asked for by a body (`hasBody`) answers that body, and
   * nobody else (RFC 9110 §9.3.1): it is stored under an address that does not tell of it.
   */
  receive(
    head: RequestHead,
    url: string,
    response: OriginResponse,
    hasBody = false,
  ): { transfer: Transfer; entry: Entry | undefined } {
    const { log, maxObjectBytes } = this.#options;
    const { framing, status, reason, requestTimeMs, responseTimeMs } = response;
    if (hasBody) return { transfer: new Transfer({ log }), entry: undefined };
    const isTooLarge = framing.kind === "length" && framing.bytes > maxObjectBytes;
    // Where a body ends by closing, one that was cut off looks like one that is whole.
    const isWhole = framing.kind !== "close";
    if (!isStorable(head, response) || isTooLarge || !isWhole) {
      const isAnswer = head.method === "GET" && status < 500 && !ABOUT_CONDITIONS.includes(status);
      const old = isAnswer ? this.#store.find(url, head.fields) : undefined;
      if (old !== undefined) this.#store.remove(old);
      return { transfer: new Transfer({ log }), entry: undefined };
    }
    const fields = withDate(storedFields(response.fields), responseTimeMs);
    const variant = variantOf(response.fields, head.fields);
    const meta: Meta = {
      url,
      variant,
      status,
      reason,
      fields: [...fields],
      requestTimeMs,
      responseTimeMs,
    };
    const writer = this.#store.begin(meta);
    if (writer === undefined) return { transfer: new Transfer({ log }), entry: undefined };
    return this.#receiveInto(writer, meta);
  }

  #receiveInto(writer: ObjectWriter, meta: Meta): { transfer: Transfer; entry: Entry } {
    const transfer: Transfer = new Transfer({
      writer,
      maxStoredBytes: this.#options.maxObjectBytes,
      onStored: (bytes) => this.#store.grow(bytes),
      onWhole: (content) => this.#store.complete(entry, writer, content),
      onAbandoned: () => this.#store.fail(entry, writer),
      log: this.#options.log,
    });
    const entry = this.#store.addArriving(meta, transfer);
    return { transfer, entry };
  }

  /** Reads the body while others send it on. */
  fill(url: string, response: OriginResponse, transfer: Transfer): void {
    const { connection, framing } = response;
    transfer.fill(readBody(connection, framing)).then(response.release, (error: unknown) => {
      connection.destroy();
      if (!isFailure(error)) throw error;
      this.#options.debug(`${url}: ${explain(error)}`);
    });
  }
}

/** The recipient adds the date that the origin left out (RFC 9110 §6.6.1). */
export const withDate = (fields: Fields, timeMs: number) =>
  fields.get("Date") === undefined ? fields.replace([], [["Date", formatDate(timeMs)]]) : fields;

function keyOf(url: string): string | undefined {
  try {
    return parseTarget("GET", url).url;
  } catch (error) {
    if (isFailure(error)) return undefined; // not http: nothing of it is stored
    throw error;
  }
}
