/** What must hold of a ring, read from what its nodes have printed and noted. They throw where it does not. */
import { compareTurns } from "./protocol.ts";

/** What one life of a node said: stdout, and stderr with --verbose. */
export interface Account {
  id: number;
  printed: string;
  notes: string;
}

const matches = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match.slice(1));

/** Nothing arrives twice; what was reported delivered did arrive, and what was reported undelivered or unsent did not. */
export function checkDeliveries(accounts: readonly Account[]): void {
  const arrivals = new Map<string, number>();
  for (const { id, printed } of accounts) {
    for (const [source, text] of matches(printed, /^received from (\d+): (.*)$/gm)) {
      const message = `${source} to ${id}: ${text}`;
      arrivals.set(message, (arrivals.get(message) ?? 0) + 1);
    }
  }
  for (const [message, times] of arrivals)
    if (times > 1) throw new Error(`arrived ${times} times: ${message}`);
  for (const { id, printed } of accounts) {
    for (const [outcome, destination, text = ""] of matches(
      printed,
      /^(delivered|undelivered|unsent) to (\d+): (.*?)(?: \((?:nobody took it|the ring has ended)\))?$/gm,
    )) {
      const message = `${id} to ${destination}: ${text}`;
      if (arrivals.has(message) !== (outcome === "delivered"))
        throw new Error(`reported ${outcome}, which is not so: ${message.slice(0, 100)}`);
    }
  }
}

/** No turn was accepted twice by a node, or after a later one; each generation was made by one node, once. */
export function checkTurns(accounts: readonly Account[]): void {
  const makers = new Map<string, number>();
  for (const { id, notes } of accounts) {
    for (const [generation = ""] of matches(notes, /^made the turn, generation (\d+)$/gm)) {
      const maker = makers.get(generation);
      if (maker !== undefined)
        throw new Error(`generation ${generation} was made by ${maker} and again by ${id}`);
      makers.set(generation, id);
    }
    const turns = matches(notes, /^turn generation=(\d+) issuer=(\d+) round=(\d+)$/gm)
      .map((numbers) => numbers.map(Number))
      .map(([generation = 0, issuer = 0, round = 0]) => ({ generation, issuer, round }));
    for (const [i, turn] of turns.slice(1).entries()) {
      const last = turns[i] ?? turn;
      if (compareTurns(turn, last) <= 0)
        throw new Error(`node ${id} accepted ${JSON.stringify(turn)} after ${JSON.stringify(last)}`);
    }
  }
}

/** Nothing went wrong: one turn was made and never lost, each message came back the first time. */
export function checkCalm(accounts: readonly Account[]): void {
  checkDeliveries(accounts);
  checkTurns(accounts);
  const notes = accounts.map(({ notes }) => notes).join("\n");
  const [trouble] = /^(?:removed|made the turn, generation [2-9]|sent .* again).*$/m.exec(notes) ?? [];
  if (trouble !== undefined) throw new Error(`trouble: ${trouble}`);
  const [failed] =
    /^(?:undelivered|unconfirmed|unsent).*$/m.exec(accounts.map(({ printed }) => printed).join("\n")) ?? [];
  if (failed !== undefined) throw new Error(`not delivered: ${failed}`);
}
