/**
 * A request's way through the cache (RFC 9111 §4): answered from the store, or by the origin, and then stored for the next.
 * Those who ask for the same at the same time wait for the first one's answer and share it.
 */
import { explain, isFailure } from "../../shared/errors.ts";
import { encodeResponse, type Fields, type RequestHead, type ResponseHead } from "../../shared/http.ts";
import type { Framing } from "../../shared/http-body.ts";
import { endToEnd as forThisHop } from "../../shared/http-relay.ts";
import { cacheControl } from "./directives.ts";
import type { Entry } from "./entry.ts";
import { Intake, type IntakeOptions, withDate } from "./intake.ts";
import { OriginError, type OriginResponse, type Origins } from "./origin.ts";
import type { CacheStatus, Target } from "./protocol.ts";
import { cacheStatusLine, type Exchange, sendArriving, sendPage, sendStored } from "./respond.ts";
import { hasValidator } from "./rules.ts";
import { endToEnd, isAbout, isConditional, isForOrigin, withValidators } from "./selection.ts";
import type { Store } from "./store.ts";

export interface ProxyExchange extends Exchange {
  target: Target;
  framing: Framing;
}

interface CacheOptions extends IntakeOptions {
  origins: Origins;
  forwardedFor: boolean;
}

/** What came of the requests. */
interface Counts {
  hits: number;
  misses: number;
  validated: number;
  collapsed: number;
  passed: number;
}

/** Server errors that stale-if-error is about (RFC 5861 §4). */
const ORIGIN_FAILED = [500, 502, 503, 504];

export class Cache {
  readonly #options: CacheOptions;
  readonly #store: Store;
  readonly #intake: Intake;
  readonly counts: Counts = { hits: 0, misses: 0, validated: 0, collapsed: 0, passed: 0 };
  /** Addresses that are being asked for, until the head of the answer is there, or why there is none. */
  readonly #pending = new Map<string, Promise<OriginError | undefined>>();

  constructor(options: CacheOptions) {
    this.#options = options;
    this.#store = options.store;
    this.#intake = new Intake(options);
  }

  /** Answers the request. Throws what breaks the client's connection, and before anything is sent `OriginError`. */
  async answer(exchange: ProxyExchange): Promise<void> {
    const { target, framing } = exchange;
    const head = withoutNamed(exchange.head);
    exchange.head = head;
    const isRead = head.method === "GET" || head.method === "HEAD";
    if (!isRead || framing.kind !== "none" || isForOrigin(head.fields)) {
      this.counts.passed++;
      return this.#forward(exchange, undefined, { fwd: isRead ? "bypass" : "method" });
    }
    for (let isCollapsed = false; ; isCollapsed = true) {
      const entry = this.#store.find(target.url, head.fields);
      const verdict = entry?.policy.judge(head.fields, Date.now());
      if (entry !== undefined && verdict !== undefined && verdict !== "expired" && verdict !== "request") {
        const how: CacheStatus = isCollapsed ? { fwd: "uri-miss", collapsed: true } : { hit: true };
        if (await this.#hit(exchange, entry, how)) {
          if (verdict === "stale-while-revalidate") this.#refresh(exchange, entry);
          return;
        }
        continue;
      }
      if (cacheControl(head.fields).has("only-if-cached")) {
        const lines = [cacheStatusLine({ detail: "only-if-cached" })];
        return sendPage(
          exchange,
          504,
          "The cache has no fresh copy, and was told not to ask for one.",
          lines,
        );
      }
      const pending = this.#pending.get(target.url);
      if (pending !== undefined && !isCollapsed && isCollapsible(exchange)) {
        const failure = await pending;
        if (failure !== undefined) return this.#withoutOrigin(exchange, entry, failure);
        continue;
      }
      const others = this.#store.variants(target.url).length > 0 ? "vary-miss" : "uri-miss";
      const fwd = entry === undefined ? others : verdict === "request" ? "request" : "stale";
      return this.#lead(exchange, entry, { fwd });
    }
  }

  async #hit(exchange: ProxyExchange, entry: Entry, how: CacheStatus): Promise<boolean> {
    if (how.collapsed) this.counts.collapsed++;
    else this.counts.hits++;
    this.#store.touch(entry);
    return sendStored(exchange, this.#store, entry, how);
  }

  /** Asks the origin; who asks for the same meanwhile waits. */
  async #lead(exchange: ProxyExchange, entry: Entry | undefined, status: CacheStatus): Promise<void> {
    const { url } = exchange.target;
    this.counts.misses++;
    if (this.#pending.has(url) || !isCollapsible(exchange)) return this.#forward(exchange, entry, status);
    let settle = (_failure?: OriginError) => {};
    const answered = new Promise<OriginError | undefined>((resolve) => {
      settle = resolve;
    });
    this.#pending.set(url, answered);
    const onHead = (failure?: OriginError) => {
      if (this.#pending.get(url) === answered) this.#pending.delete(url);
      settle(failure);
    };
    await this.#forward(exchange, entry, status, onHead).finally(() => onHead());
  }

  /** Asks the origin and passes its answer on; `stored` is what it may confirm. */
  async #forward(
    exchange: ProxyExchange,
    stored: Entry | undefined,
    status: CacheStatus,
    onHead = (_failure?: OriginError) => {},
  ): Promise<void> {
    const { head } = exchange;
    const isValidating = stored !== undefined && head.method === "GET" && hasValidator(stored.fields);
    let response: OriginResponse;
    try {
      response = await this.#ask(
        exchange,
        isValidating ? withValidators(head.fields, stored.fields) : head.fields,
      );
    } catch (error) {
      if (!(error instanceof OriginError)) throw error;
      onHead(error); // those who wait need not each find out by themselves
      return this.#withoutOrigin(exchange, stored, error);
    }
    if (stored !== undefined && ORIGIN_FAILED.includes(response.status)) {
      if (stored.policy.outlives("error", head.fields, Date.now())) {
        response.connection.destroy();
        if (await this.#hit(exchange, stored, { hit: true, fwd: "stale", fwdStatus: response.status }))
          return;
      }
    }
    if (isValidating && response.status === 304) {
      response.release();
      if (isAbout(response.fields, stored.fields)) {
        const isKept = this.#intake.freshen(stored, head, response);
        this.counts.validated++;
        this.#store.touch(stored);
        // This opens the file before it waits, and so can send what nobody else finds any more.
        const sent = sendStored(exchange, this.#store, stored, { ...status, fwdStatus: 304 });
        if (!isKept) this.#store.remove(stored);
        onHead();
        if (await sent) return;
      } else this.#store.remove(stored);
      // It confirms what we do not have: all of it is needed.
      return this.#forward(exchange, undefined, status, onHead);
    }
    this.#intake.learn(exchange.head, exchange.target.url, response);
    await this.#pass(exchange, response, status, onHead);
  }

  /** The origin gave no answer: what is stored goes out stale if it may, else this is thrown. */
  async #withoutOrigin(
    exchange: ProxyExchange,
    stored: Entry | undefined,
    failure: OriginError,
  ): Promise<void> {
    const isRefused = failure.status === 403; // it was not even asked
    if (isRefused || !stored?.policy.outlives("disconnected", exchange.head.fields, Date.now()))
      throw failure;
    this.#options.debug(`${stored.url}: ${explain(failure)}; served stale`);
    const how: CacheStatus = { hit: true, fwd: "stale", detail: "disconnected" };
    if (!(await this.#hit(exchange, stored, how))) throw failure;
  }

  #ask(exchange: ProxyExchange, fields: Fields): Promise<OriginResponse> {
    const { connection, head, target, framing } = exchange;
    const forwarded = [...fields.all("X-Forwarded-For"), connection.peerHost].join(", ");
    return this.#options.origins.fetch({
      method: head.method,
      target,
      fields: this.#options.forwardedFor
        ? fields.replace(["X-Forwarded-For"], [["X-Forwarded-For", forwarded]])
        : fields,
      minor: head.minor,
      upload: framing.kind === "none" ? undefined : { from: connection, framing },
      onInterim: (interim) => sendInterim(exchange, interim),
    });
  }

  /** Passes the answer on as it comes, and stores it if it may be stored. */
  async #pass(
    exchange: ProxyExchange,
    response: OriginResponse,
    status: CacheStatus,
    onHead: () => void,
  ): Promise<void> {
    const fields = withDate(forThisHop(response.fields), response.responseTimeMs);
    const hasBody = exchange.framing.kind !== "none";
    const { transfer, entry } = this.#intake.receive(exchange.head, exchange.target.url, response, hasBody);
    const reader = transfer.attach();
    this.#intake.fill(exchange.target.url, response, transfer);
    onHead();
    const ttl = entry && Math.trunc((entry.policy.freshUntilMs - Date.now()) / 1000);
    const line = cacheStatusLine({
      ...status,
      ...(entry === undefined ? {} : { stored: true }),
      ...(ttl === undefined ? {} : { ttl }),
    });
    await sendArriving(exchange, { ...response, fields: endToEnd(fields) }, reader, transfer, [line]);
    if (!response.isUploaded()) exchange.keepAlive = false;
  }

  /** Validates what has just been sent stale, behind the client's back (RFC 5861 §3). */
  #refresh(exchange: ProxyExchange, stored: Entry): void {
    const { url } = exchange.target;
    if (this.#pending.has(url)) return;
    const plain = exchange.head.fields.replace([
      "If-None-Match",
      "If-Modified-Since",
      "Range",
      "If-Range",
      "Cache-Control",
    ]);
    const fields = hasValidator(stored.fields) ? withValidators(plain, stored.fields) : plain;
    const head = { ...exchange.head, method: "GET", fields };
    const refreshed: Promise<undefined> = this.#options.origins
      .fetch({ method: "GET", target: exchange.target, fields, minor: head.minor })
      .then((response) => {
        if (response.status === 304) {
          response.release();
          if (!isAbout(response.fields, stored.fields) || !this.#intake.freshen(stored, head, response))
            this.#store.remove(stored);
        } else if (ORIGIN_FAILED.includes(response.status)) response.connection.destroy();
        else this.#intake.fill(url, response, this.#intake.receive(head, url, response).transfer);
        return undefined;
      })
      .catch((error: unknown) => {
        if (!isFailure(error)) throw error;
        this.#options.debug(`${url}: ${explain(error)}`);
        return undefined;
      })
      .finally(() => this.#pending.delete(url));
    this.#pending.set(url, refreshed);
  }
}

/** These say what a message is and where it has been: nobody makes us forget them by naming them. */
const NEVER_FORGOTTEN = ["close", "keep-alive", "host", "content-length", "via"];

/**
 * Without the fields that its `Connection` names: the origin does not get them, so its answer is none to them, and must
 * not be stored for those who send them (`Connection: Accept-Language`).
 */
function withoutNamed(head: RequestHead): RequestHead {
  const named = head.fields.tokens("Connection").filter((name) => !NEVER_FORGOTTEN.includes(name));
  return named.length === 0 ? head : { ...head, fields: head.fields.replace(["Connection", ...named]) };
}

/** Requests with wishes of their own are not made to wait for an answer that may not suit them. */
function isCollapsible({ head: { method, fields } }: ProxyExchange): boolean {
  const special = ["Range", "Authorization", "Cache-Control", "Pragma"];
  return (
    method === "GET" && !isConditional(fields) && !special.some((name) => fields.get(name) !== undefined)
  );
}

/** HTTP/1.0 knows of none (RFC 9110 §15.2). */
function sendInterim({ connection, head }: ProxyExchange, interim: ResponseHead): void {
  if (head.minor === 0 || connection.closed) return;
  const bytes = encodeResponse({ ...interim, fields: forThisHop(interim.fields) });
  connection.write(Buffer.from(bytes, "latin1")).catch((error: unknown) => {
    if (!isFailure(error)) throw error; // the client has gone: that shows when the response is sent
  });
}
