/**
 * A real time server, for tests and benches: chronyd with its null clock driver (`-x`) sets nothing on the machine and
 * serves a clock of its own over NTP, which `chronyc` moves.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "./free-port.ts";
import { Running, runTool, within } from "./running.ts";

const env = { PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` };

export interface Chronyd extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly running: Running;
  /** Has chronyc do something: `local off`. Throws with what it says. */
  command(text: string): Promise<void>;
  /** Its clock is so much ahead of this machine's from now on. */
  shift(shiftMs: number): Promise<void>;
}

/** Starts one on loopback, of stratum 1, and waits until it obeys. */
export async function startChronyd(): Promise<Chronyd> {
  const folder = await mkdtemp(join(tmpdir(), "chronyd-"));
  const port = await freePort();
  const commands = join(folder, "commands");
  const lines = [
    `port ${port}`,
    "bindaddress 127.0.0.1",
    "allow 127.0.0.0/8",
    "local stratum 1",
    "cmdport 0",
    `bindcmdaddress ${commands}`,
    `pidfile ${join(folder, "pid")}`,
  ];
  await writeFile(join(folder, "conf"), `${lines.join("\n")}\n`);
  const args = ["-x", "-d", "-U", "-u", userInfo().username, "-f", join(folder, "conf")];
  const running = new Running("chronyd", args, { env });
  const dispose = async () => {
    await running[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  };
  const command = async (text: string) => {
    const { stdout, code } = await runTool("chronyc", ["-h", commands, text]);
    if (code !== 0) throw new Error(`chronyc ${text}: ${stdout}`);
  };
  const obeys = async () => {
    while (running.child.exitCode === null) {
      const answered = await command("tracking").then(
        () => true,
        () => false,
      );
      if (answered) return;
      await sleep(20);
    }
    throw new Error(`chronyd ended at once: ${running.stderr}`);
  };
  await within(obeys(), "chronyd's first answer").catch(async (error: unknown) => {
    await dispose();
    throw error;
  });
  let currentMs = 0;
  return {
    ...{ host: "127.0.0.1", port, running, command },
    async shift(shiftMs) {
      await command(`doffset ${(currentMs - shiftMs) / 1000}`);
      currentMs = shiftMs;
    },
    [Symbol.asyncDispose]: dispose,
  };
}

/** What chronyd finds, as a client that sets nothing: the server's clock less this machine's, in milliseconds. */
export async function offsetByChronyd({ host, port }: { host: string; port: number }): Promise<number> {
  const server = `server ${host} port ${port} minpoll -6 maxpoll -6`;
  await using chronyd = new Running(
    "chronyd",
    ["-Q", "-t", "10", "-U", "-u", userInfo().username, server, "cmdport 0"],
    {
      env,
    },
  );
  await within(chronyd.exited, "chronyd's measurement");
  const [, seconds] = /System clock wrong by (-?[\d.]+) seconds/.exec(chronyd.stderr + chronyd.stdout) ?? [];
  if (seconds === undefined) throw new Error(`chronyd found nothing: ${chronyd.stderr}${chronyd.stdout}`);
  return Number(seconds) * 1000;
}
