/** A connection that has ended: who still sends on it hears its last word again, some times for a while; then it may be forgotten. */
import type { Message } from "./protocol.ts";

const LINGER_MS = 3000;
const MAX_ECHOES = 8;

export class Afterlife {
  /** When the connection may be forgotten. */
  readonly untilMs: number;
  /** Undefined: there was none, and an acknowledgement is all that is said. */
  readonly lastWord: Message | undefined;
  #echoesLeft = MAX_ECHOES;

  constructor(lastWord: Message | undefined, nowMs: number) {
    this.lastWord = lastWord;
    this.untilMs = nowMs + LINGER_MS;
  }

  /** Is one more packet answered? */
  answers(): boolean {
    return this.#echoesLeft-- > 0;
  }
}
