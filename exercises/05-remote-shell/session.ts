/** A client's session on the server: handshake, login, and then one command after the other in one shell. */
import type { KeyObject } from "node:crypto";
import { existsSync } from "node:fs";
import { userInfo } from "node:os";
import type { Connection } from "../../shared/connection.ts";
import { Failure, isFailure } from "../../shared/errors.ts";
import type { Context } from "../../shared/program.ts";
import { serverHandshake } from "./handshake.ts";
import {
  type Encrypt,
  LOGIN_RECORD_BYTES,
  type Message,
  type MessageOf,
  type REASONS,
  refuseUnless,
  STDIN_WINDOW_BYTES,
} from "./protocol.ts";
import type { Channel } from "./records.ts";
import { Shell } from "./shell.ts";
import type { ShellKind } from "./shell-kind.ts";
import { addressOf, type Throttle } from "./throttle.ts";
import { isRight, type Users } from "./users.ts";

const HELLO_MS = 10_000;
const LOGIN_MS = 120_000;
const MAX_FAILURES = 5;

/** What all sessions share. */
export interface Site {
  hostKey: KeyObject;
  encrypt: Encrypt;
  kind: ShellKind;
  throttle: Throttle;
  maxSessions: number;
  idleTimeoutMs: number;
  users: () => Users;
  /** A line of the log file. */
  note: (entry: Readonly<Record<string, unknown>>) => void;
  context: Context;
  /** Those that are logged in now. */
  open: Set<Connection>;
}

/** Throws `Failure` where the client breaks the protocol or goes away. */
export async function serveClient(connection: Connection, site: Site): Promise<void> {
  connection.deadline = performance.now() + HELLO_MS; // for all of it: a peer that sends a byte now and then has no more
  const channel = await serverHandshake(connection, site.hostKey, site.encrypt);
  connection.timeoutMs = LOGIN_MS;
  const user = await login(channel, site);
  if (user === undefined) return;
  site.open.add(connection);
  connection.deadline = Number.POSITIVE_INFINITY;
  connection.timeoutMs = 0; // from here on the session watches the time
  const session = new Session(channel, user, site);
  try {
    await session.serve();
  } finally {
    site.open.delete(connection);
  }
}

/** Who it is; undefined where the client has gone or is not let in. */
async function login(channel: Channel, site: Site): Promise<string | undefined> {
  const { connection } = channel;
  const from = connection.peer;
  for (let failures = 0; failures < MAX_FAILURES; ) {
    connection.deadline = performance.now() + LOGIN_MS;
    const message = await channel.receive(LOGIN_RECORD_BYTES);
    if (message === undefined) return undefined;
    refuseUnless(message, "login");
    const { user, password } = message;
    const users = site.users();
    const isUser = await site.throttle.attempt(addressOf(from), async () =>
      connection.closed ? undefined : isRight(users, user, password),
    );
    connection.deadline = performance.now() + LOGIN_MS; // its wait was not its doing
    if (isUser && site.open.size < site.maxSessions) return user;
    if (isUser) {
      await channel.send({ kind: "result", outcome: "full", directory: "" });
      site.note({ event: "full", user, from });
      return undefined;
    }
    failures++;
    // A name that is nobody's may be a password that was typed too early: it is not written down.
    site.note({ event: "refused", user: users.has(user) ? user : null, from });
    await channel.send({ kind: "result", outcome: "refused", directory: "" });
  }
  await channel.send({ kind: "disconnect", reason: "failures" });
  site.context.log(`${from}: ${MAX_FAILURES} failed logins, disconnected`);
  return undefined;
}

/** The shell's environment: what a login gives, nothing of the server's own but the language. */
function environment(shell: string): NodeJS.ProcessEnv {
  const { username, homedir } = userInfo();
  const { PATH, LANG, LC_ALL, TZ } = process.env;
  const env = {
    PATH,
    LANG,
    LC_ALL,
    TZ,
    HOME: homedir,
    USER: username,
    LOGNAME: username,
    SHELL: shell,
    TERM: "dumb",
  };
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined));
}

class Session {
  readonly #channel: Channel;
  readonly #user: string;
  readonly #site: Site;
  #command: { id: number; roomBytes: number } | undefined;
  #sending = 0;
  #ending: keyof typeof REASONS | undefined;
  #failure: unknown;
  readonly #idle: NodeJS.Timeout;

  constructor(channel: Channel, user: string, site: Site) {
    this.#channel = channel;
    this.#user = user;
    this.#site = site;
    this.#idle = setTimeout(() => this.#onIdle(), site.idleTimeoutMs);
  }

  async serve(): Promise<void> {
    const site = this.#site;
    const from = this.#channel.connection.peer;
    const startMs = performance.now();
    const { homedir } = userInfo();
    await using shell = await Shell.start({
      kind: site.kind,
      directory: existsSync(homedir) ? homedir : "/",
      env: environment(site.kind.path),
      onOutput: (kind, data) => this.#send({ kind, data }),
    });
    site.note({ event: "login", user: this.#user, from });
    try {
      await this.#send({ kind: "result", outcome: "welcome", directory: shell.directory });
      if (site.encrypt === "login") this.#channel.goClear();
      await this.#receiveAll(shell);
      if (this.#failure !== undefined) throw this.#failure;
      if (site.context.signal.aborted) this.#ending ??= "stopping";
      if (this.#ending !== undefined && this.#sending === 0)
        await this.#send({ kind: "disconnect", reason: this.#ending });
      if (this.#sending > 0) throw new Failure("the client takes nothing any more");
    } finally {
      clearTimeout(this.#idle);
      site.note({
        event: "logout",
        user: this.#user,
        from,
        durationMs: Math.round(performance.now() - startMs),
      });
    }
  }

  /** Reads on while a command runs and its output waits: a signal must get through. */
  async #receiveAll(shell: Shell): Promise<void> {
    for (let message = await this.#channel.receive(); message; message = await this.#channel.receive()) {
      this.#idle.refresh();
      refuseUnless(message, "command", "stdin", "signal", "windowSize");
      if (message.kind === "windowSize") shell.resize(message.columns, message.rows);
      else if (message.kind === "command") this.#begin(shell, message);
      else if (message.id !== this.#command?.id)
        continue; // it crossed the exit on its way
      else if (message.kind === "signal") shell.signal(message.signal);
      else this.#feed(shell, message);
    }
  }

  #begin(shell: Shell, message: MessageOf<"command">): void {
    if (this.#command !== undefined) throw new Failure("a command came while another one was running");
    this.#command = { id: message.id, roomBytes: STDIN_WINDOW_BYTES };
    this.#guard(this.#run(shell, message));
  }

  async #run(shell: Shell, { id, text }: MessageOf<"command">): Promise<void> {
    const startMs = performance.now();
    const { code, directory, ended } = await shell.run(text);
    this.#command = undefined;
    this.#site.note({
      event: "command",
      user: this.#user,
      from: this.#channel.connection.peer,
      command: text,
      code,
      durationMs: Math.round(performance.now() - startMs),
    });
    await this.#send({ kind: "exit", id, code, shell: ended ? "ended" : "lives", directory });
    if (ended) this.#channel.connection.stopReading();
  }

  #feed(shell: Shell, { data }: MessageOf<"stdin">): void {
    const command = this.#command;
    if (command === undefined) return;
    if (data.length === 0) return shell.end();
    command.roomBytes -= data.length;
    if (command.roomBytes < 0) throw new Failure("more input came than there was room for");
    this.#guard(this.#pass(shell, command, data));
  }

  async #pass(shell: Shell, command: { id: number; roomBytes: number }, data: Buffer): Promise<void> {
    await shell.write(data);
    if (command !== this.#command) return;
    command.roomBytes += data.length;
    await this.#send({ kind: "window", id: command.id, bytes: data.length });
  }

  async #send(message: Message): Promise<void> {
    this.#sending++;
    await this.#channel.send(message);
    this.#sending--;
    this.#idle.refresh();
  }

  /** What goes on beside the reading ends the session when it fails. */
  #guard(work: Promise<void>): void {
    work.catch((error) => {
      if (!isFailure(error)) throw error;
      this.#failure ??= error;
      this.#channel.connection.stopReading();
    });
  }

  /** Idle is who neither has a command running nor takes what it has written. */
  #onIdle(): void {
    if (this.#command !== undefined && this.#sending === 0) return void this.#idle.refresh();
    this.#ending = "idle";
    this.#channel.connection.stopReading();
  }
}
