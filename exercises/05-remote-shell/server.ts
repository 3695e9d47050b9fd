/** The server: users from a file, its host key from another, and a shell for each client that has logged in. */
import { createPrivateKey } from "node:crypto";
import { openSync, statSync, writeSync } from "node:fs";
import { userInfo } from "node:os";
import { flag, integer, oneOf, optional, seconds, setting, text } from "../../shared/config.ts";
import { explain, Failure, UsageError } from "../../shared/errors.ts";
import { type Context, listenAt, program } from "../../shared/program.ts";
import { serve } from "../../shared/tcp.ts";
import { fingerprint, newHostKey, publicBytes } from "./crypto.ts";
import { atHome, readIfThere, writePrivately } from "./private-files.ts";
import { type Encrypt, PORT } from "./protocol.ts";
import { become, identityOf } from "./run-as.ts";
import { type Site, serveClient } from "./session.ts";
import { removeLeftovers } from "./shell.ts";
import { shellKind } from "./shell-kind.ts";
import { Throttle } from "./throttle.ts";
import { parseUsers, type Users } from "./users.ts";

const ADD_USER = "npx tsx exercises/05-remote-shell/adduser.ts";

/** Makes one where there is none. Throws `Failure`. */
function hostKey(path: string, log: (line: string) => void) {
  const pem = readIfThere(path);
  if (pem === undefined) {
    const key = newHostKey();
    writePrivately(path, String(key.export({ type: "pkcs8", format: "pem" })));
    log(`made a host key in ${path}`);
    return key;
  }
  if (statSync(path).mode & 0o077)
    throw new Failure(`the host key ${path} can be read by others; chmod 600 it, or remove it for a new one`);
  try {
    const key = createPrivateKey(pem);
    if (key.asymmetricKeyType === "ed25519") return key;
  } catch {
    // said below
  }
  throw new Failure(`${path} is not an Ed25519 key in PEM; remove it for a new one`);
}

/** The users, read anew for each login: a new one need not wait for a restart. */
function usersOf(path: string, log: (line: string) => void): () => Users {
  const read = (): Users | undefined => {
    const content = readIfThere(path);
    return content === undefined ? undefined : parseUsers(content);
  };
  let latest: Users | undefined;
  try {
    latest = read();
  } catch (error) {
    throw new UsageError(`cannot read the users of ${path}`, { cause: error });
  }
  if (latest === undefined || latest.size === 0)
    throw new UsageError(`there are no users in ${path}; add one: ${ADD_USER} --users ${path} --user NAME`);
  let last = latest;
  return () => {
    try {
      last = read() ?? new Map();
    } catch (error) {
      log(`cannot read the users of ${path}, those that were read before count: ${(error as Error).message}`);
    }
    return last;
  };
}

/** What JSON leaves as it is and a terminal may obey: C1 controls, DEL, formats such as U+202E. */
const escaped = (json: string) =>
  json.replace(/[\u007f-\u009f]|\p{Cf}/gu, (found) =>
    [...Array(found.length).keys()]
      .map((i) => `\\u${found.charCodeAt(i).toString(16).padStart(4, "0")}`)
      .join(""),
  );

/** JSON lines. What a password could be in is never given to it. A full disk ends no session; `log` tells of it, once. */
function logFile(path: string, log: (line: string) => void): Site["note"] {
  let file: number;
  try {
    file = openSync(path, "a", 0o600);
  } catch (error) {
    throw new Failure(`cannot write the log ${path}`, { cause: error });
  }
  let isBroken = false;
  const note: Site["note"] = (entry) => {
    try {
      writeSync(file, `${escaped(JSON.stringify({ time: new Date().toISOString(), ...entry }))}\n`);
      isBroken = false;
    } catch (error) {
      if (!isBroken) log(`cannot write the log ${path}, what happens now is not in it: ${explain(error)}`);
      isBroken = true;
    }
  };
  return note; // never closed: a session that is cut off may have a last line
}

function warn(encrypt: Encrypt, { log }: Context): void {
  const { username, uid } = userInfo();
  log(
    `commands run as ${username} (uid ${uid}), as the server does${uid === 0 ? "; --run-as NAME drops root" : ""}`,
  );
  if (encrypt === "login")
    log(
      "warning: --encrypt login: commands and their output are neither encrypted nor protected from changes",
    );
}

await program({
  summary: "A remote shell: runs the commands of clients that have logged in. Everything is encrypted.",
  example: "--users /tmp/users --host-key /tmp/host-key",
  settings: {
    ...listenAt(PORT),
    users: setting(text, "file of users, as adduser.ts writes it", atHome("shell-users")),
    hostKey: setting(
      text,
      "file of the server's Ed25519 key; made where there is none",
      atHome("shell-host-key"),
    ),
    shell: setting(text, "shell that runs the commands", "/bin/sh"),
    log: optional(text, "file to add a line of JSON to for each login and command"),
    maxSessions: setting(integer(1), "clients logged in at once", 100),
    idleTimeout: setting(seconds, "seconds without a command, or with output not taken, until the end", 900),
    loginDelay: setting(
      integer(0, 30_000),
      "milliseconds that an address waits after a failed login, doubled by each",
      250,
    ),
    encrypt: setting(oneOf("session", "login"), "what to encrypt: everything, or the login only", "session"),
    runAs: optional(text, "user to become once the port is open and the files are read (needs root)"),
    printKey: flag("print the host key's fingerprint and end"),
  },
  async run(settings, context) {
    const { host, port, encrypt, maxSessions, runAs } = settings;
    const { signal, log } = context;
    const users = settings.printKey ? () => new Map() : usersOf(settings.users, log);
    const key = hostKey(settings.hostKey, log);
    if (settings.printKey) return void process.stdout.write(`${fingerprint(publicBytes(key))}\n`);
    const kind = await shellKind(settings.shell);
    const identity = runAs === undefined ? undefined : await identityOf(runAs);
    const file = settings.log === undefined ? undefined : logFile(settings.log, log);
    const site: Site = {
      hostKey: key,
      encrypt,
      kind,
      users,
      maxSessions,
      throttle: new Throttle(settings.loginDelay),
      idleTimeoutMs: settings.idleTimeout * 1000,
      note: file ?? (() => {}),
      context,
      open: new Set(),
    };
    const server = await serve({ host, port, signal, log }, (connection) => serveClient(connection, site));
    if (identity !== undefined) become(identity);
    const leftovers = removeLeftovers();
    if (leftovers > 0) log(`ended ${leftovers} sessions that a killed server had left behind`);
    log(`host key ${fingerprint(publicBytes(key))}`);
    warn(encrypt, context);
    context.ready(server.url);
    await server.closed;
  },
});
