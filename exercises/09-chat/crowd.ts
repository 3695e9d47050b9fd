/** Many receivers in one channel, to demonstrate and to measure: each compares every byte that it gets with what it should get. */
import { once } from "node:events";
import { connect as connectSocket, type Socket } from "node:net";
import { Failure } from "../../shared/errors.ts";
import { within } from "../../shared/running.ts";
import { ScriptedClient } from "./scripted-client.ts";

const CHANNEL = "#crowd";
/** Connections under way at once: a server's backlog is finite. */
const AT_ONCE = 50;

interface Member {
  socket: Socket;
  /** Of the expected bytes, how many have come. */
  received: number;
}

export class Crowd implements AsyncDisposable {
  readonly #speaker: ScriptedClient;
  /** `nick!user@host`, as the server has it. */
  readonly #source: string;
  readonly #members: Member[] = [];
  #expected = Buffer.alloc(0);
  #progress = () => {};
  #failure: Failure | undefined;

  private constructor(speaker: ScriptedClient, source: string) {
    this.#speaker = speaker;
    this.#source = source;
  }

  get size(): number {
    return this.#members.length;
  }

  /** Connects the receivers and a speaker, and waits until all are in the channel and have nothing more to read. */
  static async gather(port: number, size: number): Promise<Crowd> {
    const speaker = await ScriptedClient.as("speaker", port);
    await speaker.send(`JOIN ${CHANNEL}`);
    const [join = ""] = await speaker.until(/ JOIN /);
    await speaker.until(/ 366 /);
    const crowd = new Crowd(speaker, join.slice(1, join.indexOf(" ")));
    for (let at = 0; at < size; at += AT_ONCE) {
      const joining = Array.from({ length: Math.min(AT_ONCE, size - at) }, (_, i) =>
        joinAs(`r${at + i}`, port),
      );
      crowd.#members.push(...(await Promise.all(joining)));
    }
    await crowd.#quieten();
    return crowd;
  }

  /** Every receiver has read what the others' coming caused when a line of the speaker has reached it. */
  async #quieten(): Promise<void> {
    const quiet = this.#members.map(({ socket }) => untilText(socket, " :all here\r\n"));
    await this.#speaker.send(`PRIVMSG ${CHANNEL} :all here`);
    await within(Promise.all(quiet), "all to be there");
    for (const member of this.#members) {
      member.socket.on("data", (chunk: Buffer) => this.#received(member, chunk));
      member.socket.on("close", () => this.#fail("the server has closed a receiver's connection"));
    }
    await this.#speaker.ask();
  }

  #received(member: Member, chunk: Buffer): void {
    const end = member.received + chunk.length;
    const expected = this.#expected.subarray(member.received, end);
    if (!chunk.equals(expected))
      this.#fail(`a receiver got other bytes than were said: ${chunk.toString("latin1", 0, 200)}`);
    member.received = end;
    this.#progress();
  }

  #fail(problem: string): void {
    this.#failure ??= new Failure(problem);
    this.#progress();
  }

  /**
   * Says lines of `textBytes` each, at most `window` ahead of the slowest receiver, and returns deliveries a second.
   * Throws `Failure` if a line is lost, repeated, out of order or changed at any receiver.
   */
  async say(lines: number, window: number, textBytes = 60): Promise<number> {
    const texts = Array.from({ length: lines }, (_, i) => `${i} `.padEnd(textBytes, "x"));
    const said = texts.map((text) => `PRIVMSG ${CHANNEL} :${text}\r\n`);
    const heard = texts.map((text) => `:${this.#source} PRIVMSG ${CHANNEL} :${text}\r\n`);
    this.#expected = Buffer.from(heard.join(""), "latin1");
    for (const member of this.#members) member.received = 0;
    const lineBytes = this.#expected.length / lines;
    const begin = performance.now();
    const step = Math.max(1, window >> 1);
    for (let at = 0; at < lines; at += step) {
      await this.#all((at - window + step) * lineBytes);
      await this.#speaker.connection.write(said.slice(at, at + step).join(""));
    }
    await this.#all(this.#expected.length);
    return (lines * this.#members.length) / ((performance.now() - begin) / 1000);
  }

  /** Waits until every receiver has so many bytes. */
  #all(bytes: number): Promise<void> {
    let done = 0;
    const arrived = new Promise<void>((resolve, reject) => {
      this.#progress = () => {
        if (this.#failure) return reject(this.#failure);
        while (done < this.#members.length && (this.#members[done]?.received ?? 0) >= bytes) done++;
        if (done === this.#members.length) resolve();
      };
    });
    this.#progress();
    return within(arrived, `${bytes} bytes at every receiver`);
  }

  /** They leave, and are gone when this resolves: their nicks are free. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#failure = new Failure("closed");
    const sockets = this.#members.map(({ socket }) => socket);
    await Promise.all(sockets.map((socket) => leave(socket)));
    await this.#speaker.send("QUIT").then(
      () => this.#speaker.rest(),
      () => {},
    );
    await this.#speaker[Symbol.asyncDispose]();
  }
}

async function leave(socket: Socket): Promise<void> {
  if (socket.destroyed) return;
  const closed = once(socket, "close");
  socket.resume().end("QUIT\r\n");
  await within(closed, "the end of a receiver");
}

/** Connects, registers, and joins the channel. */
async function joinAs(nick: string, port: number): Promise<Member> {
  const socket = connectSocket({ port, host: "127.0.0.1", noDelay: true });
  await within(once(socket, "connect"), "a connection");
  socket.on("error", () => {}); // that it closes is what counts
  const joined = untilText(socket, " 366 ");
  socket.write(`NICK ${nick}\r\nUSER ${nick} 0 * :${nick}\r\nJOIN ${CHANNEL}\r\n`);
  await within(joined, `${nick} to join`);
  socket.pause();
  return { socket, received: 0 };
}

/** Reads until a text has come; nothing may be on its way behind it. */
function untilText(socket: Socket, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let tail = "";
    const look = (chunk: Buffer) => {
      tail += chunk.toString("latin1");
      if (!tail.includes(text)) {
        tail = tail.slice(-text.length);
        return;
      }
      socket.off("data", look).off("error", reject);
      resolve();
    };
    socket.on("data", look).once("error", reject).resume();
    socket.once("close", () => reject(new Failure("the server has closed a receiver's connection")));
  });
}
