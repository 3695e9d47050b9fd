/** The user's calls: offered, taken, refused, and open. An open one needs the server no longer. */
import { type Connection, formatAddress, TimeoutError } from "../../shared/connection.ts";
import { explain, isFailure } from "../../shared/errors.ts";
import { connect } from "../../shared/tcp.ts";
import { type Ringing, ring } from "./call.ts";
import {
  canonical,
  formatOffer,
  MAX_CALL_LINE_BYTES,
  type Offer,
  parseOffer,
  REJECTION,
  whyRefused,
} from "./dcc.ts";
import { formatSaid, fromWire } from "./display.ts";
import { fold } from "./protocol.ts";

interface CallsOptions {
  /** The server, and the address from which this user speaks to it: there the caller waits. */
  server: Offer;
  localHost: string;
  /** 0 is any free port. */
  callPort: number;
  ringMs: number;
  /** A text through the server. */
  tell(command: "PRIVMSG" | "NOTICE", nick: string, text: string): Promise<void>;
  print(line: string): void;
}

/** How long the one who takes a call waits for the caller's end to answer. */
const DIAL_MS = 10_000;

const FAREWELL_MS = 1000;
/** Who takes nothing for so long while something waits is gone. To be silent is allowed. */
const STALL_MS = 10_000;
/** Offers that are remembered; with more of them the oldest is forgotten. */
const MAX_OFFERS = 20;

export type Calls = ReturnType<typeof createCalls>;

export function createCalls({ server, localHost, callPort, ringMs, tell, print }: CallsOptions) {
  /** All three by folded nick. */
  const offers = new Map<string, Offer>();
  const ringing = new Map<string, Ringing>();
  const open = new Map<string, Connection>();
  const talking = new Set<Promise<void>>();
  const note = (line: string) => print(fromWire(`-- ${line}`));

  /** Offers a call, or takes the one that the other has offered. Returns when it is open or has failed. */
  async function call(nick: string): Promise<void> {
    const id = fold(nick);
    if (offers.has(id)) return accept(nick);
    if (open.has(id) || ringing.has(id)) return note(`${nick} is called already`);
    try {
      const ours = await ring(localHost, callPort, ringMs);
      ringing.set(id, ours);
      note(`calling ${nick}; waiting on ${formatAddress(localHost, ours.port)}`);
      await tell("PRIVMSG", nick, formatOffer({ host: localHost, port: ours.port }));
      const connection = await ours.answered;
      if (connection === undefined) note(`the call to ${nick} has ended before it was answered`);
      else begin(nick, connection);
    } catch (error) {
      if (!isFailure(error)) throw error;
      note(`no call to ${nick}: ${explain(error)}`);
    } finally {
      ringing.get(id)?.cancel();
      ringing.delete(id);
    }
  }

  async function accept(nick: string): Promise<void> {
    const offer = offers.get(fold(nick));
    if (offer === undefined) return note(`${nick} is not calling`);
    offers.delete(fold(nick));
    try {
      begin(nick, await connect({ ...offer, timeoutMs: DIAL_MS }));
    } catch (error) {
      if (!isFailure(error)) throw error;
      note(`no call with ${nick}: ${explain(error)}`);
    }
  }

  /** Who has offered no longer waits, and one day a `/call` to the same nick would lead to whoever has that port then. */
  function lapse(nick: string, offer: Offer): void {
    if (offers.get(fold(nick)) !== offer) return;
    offers.delete(fold(nick));
    note(`the call of ${nick} was not taken`);
  }

  function begin(nick: string, connection: Connection): void {
    connection.timeoutMs = STALL_MS;
    open.get(fold(nick))?.stopReading(); // an earlier call with the same ends with this one
    open.set(fold(nick), connection);
    note(`the call with ${nick} is open, directly to ${connection.peer}; /query =${nick} to talk there`);
    const talk = listen(nick, connection).finally(() => talking.delete(talk));
    talking.add(talk);
  }

  async function listen(nick: string, connection: Connection): Promise<void> {
    let why = "";
    try {
      for (;;) {
        const line = await nextLine(connection);
        if (line === undefined) break;
        print(formatSaid(`=${nick}`, nick, line));
      }
    } catch (error) {
      if (!isFailure(error)) throw error;
      why = `: ${explain(error)}`;
      connection.destroy();
    }
    if (open.get(fold(nick)) === connection) open.delete(fold(nick));
    note(`the call with ${nick} has ended${why}`);
    connection.timeoutMs = FAREWELL_MS;
    await connection.close();
  }

  return {
    call,
    accept,
    /** Somebody offers a call: `host` is where the server says that they are. */
    offered(nick: string, host: string, text: string): void {
      const offer = parseOffer(text);
      if (offer === undefined) return;
      const reason = offer === null ? "it cannot be understood" : whyRefused(offer, server);
      if (offer === null || reason !== undefined) return note(`refused a call of ${nick}: ${reason}`);
      offers.set(fold(nick), offer);
      setTimeout(() => lapse(nick, offer), ringMs).unref();
      if (offers.size > MAX_OFFERS) offers.delete(offers.keys().next().value ?? "");
      const known =
        canonical(offer.host) === canonical(host)
          ? ""
          : `, which is NOT where the server sees them (${host})`;
      const where = formatAddress(offer.host, offer.port);
      note(`${nick} calls: /accept ${nick} connects you to ${where}${known}; or /decline ${nick}`);
    },
    async decline(nick: string): Promise<void> {
      if (!offers.delete(fold(nick))) return note(`${nick} is not calling`);
      await tell("NOTICE", nick, REJECTION);
      note(`the call of ${nick} is refused`);
    },
    /** The call that rings will not be answered: the other refuses it, or there is no such nick. */
    refused(nick: string, why: string): void {
      if (!ringing.has(fold(nick))) return;
      note(`${nick} ${why}`);
      ringing.get(fold(nick))?.cancel();
    },
    hangUp(nick: string): void {
      ringing.get(fold(nick))?.cancel();
      const connection = open.get(fold(nick));
      if (connection === undefined && !ringing.has(fold(nick))) return note(`there is no call with ${nick}`);
      open.delete(fold(nick));
      connection?.stopReading(); // the listener sees the end and closes
    },
    /** Says whether there is such a call. */
    async say(nick: string, text: string): Promise<boolean> {
      const connection = open.get(fold(nick));
      if (connection === undefined) return false;
      try {
        await connection.write(Buffer.from(`${text}\n`, "latin1"));
      } catch (error) {
        if (!isFailure(error)) throw error;
        note(`${nick} has not taken that: ${explain(error)}`);
        connection.destroy();
      }
      return true;
    },
    /** Ends all calls; resolves when they are closed. */
    async end(): Promise<void> {
      for (const ours of ringing.values()) ours.cancel();
      for (const connection of open.values()) connection.stopReading();
      await Promise.all(talking);
    },
    /** Resolves when no call is open any more. */
    async idle(): Promise<void> {
      while (talking.size > 0) await Promise.race(talking);
    },
    get areOpen(): boolean {
      return open.size > 0;
    },
  };
}

/** The next line of a call, however long it takes to come; undefined at the end. */
async function nextLine(connection: Connection): Promise<string | undefined> {
  for (;;) {
    try {
      return await connection.readLine(MAX_CALL_LINE_BYTES, "latin1");
    } catch (error) {
      if (!(error instanceof TimeoutError)) throw error;
    }
  }
}
