/**
 * The link's carrier for real IP packets: two network namespaces with nothing but the link between them, so that
 * the kernel's own TCP, UDP and ICMP cross it (Linux, root, `ip` and `socat`). What carries is a process of its own.
 */
import { execFile, fork } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { Failure } from "./errors.ts";
import type { LinkProfile, OnPacket } from "./link.ts";
import { median } from "./measure.ts";
import type { CarrierOptions, FromCarrier, ToCarrier } from "./namespaces-carrier.ts";
import { isInstalled, pathOf, within } from "./running.ts";

export type End = "client" | "server";
/** Alike in every link: what is in one pair of namespaces cannot meet another. */
export const ADDRESSES: Readonly<Record<End, string>> = { client: "10.0.0.1", server: "10.0.0.2" };

/** Where a program runs at one end of the link. */
export interface NamespaceEnd {
  readonly namespace: string;
  readonly address: string;
  /** Put in front of a command, has it run there: `start(script, args, { wrapper })`. */
  readonly wrapper: readonly string[];
}

interface NamespaceLinkOptions {
  toServer: LinkProfile;
  toClient: LinkProfile;
  seed: number;
  /** Costs a message between processes every few milliseconds. */
  onPacket?: OnPacket;
}

export interface NamespaceLink extends AsyncDisposable {
  readonly client: NamespaceEnd;
  readonly server: NamespaceEnd;
  /** Settles with a failure where the link breaks before its end. */
  readonly broken: Promise<never>;
  /** Alters the path for packets that enter it from then on. */
  change(profiles: { toServer?: LinkProfile; toClient?: LinkProfile }): Promise<void>;
}

/** Why this process cannot make namespaces, if so. */
export function namespacesMissing(): string | undefined {
  if (process.platform !== "linux") return "namespaces are Linux's";
  if (process.getuid?.() !== 0) return "namespaces need root";
  const missing = ["ip", "socat"].filter((tool) => !isInstalled(tool));
  if (missing.length > 0) return `not installed: ${missing.join(", ")}`;
  if (!existsSync("/dev/net/tun")) return "there is no /dev/net/tun";
  const [, capabilities = "0"] = /^CapEff:\s*(\w+)$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  const held = BigInt(`0x${capabilities}`);
  // CAP_NET_ADMIN and CAP_SYS_ADMIN: the root of a container has neither, as a rule.
  if (((held >> 12n) & (held >> 21n) & 1n) === 0n) return "this root may not make network namespaces";
  return undefined;
}

/**
 * Opens the two namespaces and the link between them. They go with the object, and also where the process that has
 * it ends in any other way. Throws `Failure`.
 */
export async function namespaceLink(options: NamespaceLinkOptions): Promise<NamespaceLink> {
  const missing = namespacesMissing();
  if (missing !== undefined) throw new Failure(`cannot open two network namespaces: ${missing}`);
  await removeLeftovers();
  const { onPacket, ...path } = options;
  const carrier = fork(join(import.meta.dirname, "namespaces-carrier.ts"), [], {
    execArgv: ["--import", import.meta.resolve("tsx")],
    serialization: "advanced",
  });
  const ended = once(carrier, "exit");
  let isOver = false;
  let onChanged = () => {};
  const opened = new Promise<Record<End, string>>((resolve, reject) => {
    carrier.on("message", (message: FromCarrier) => {
      if ("opened" in message) resolve(message.opened);
      if ("failed" in message) reject(new Failure(`cannot open the link: ${message.failed}`));
      if ("changed" in message) onChanged();
      if ("packets" in message) for (const packet of message.packets) onPacket?.(packet);
    });
    carrier.once("exit", () => reject(new Failure("cannot open the link: its carrier ended")));
  });
  const send = (message: ToCarrier) => void carrier.send(message);
  const open: CarrierOptions = { ...path, reports: onPacket !== undefined };
  send({ open });
  const broken = ended.then(
    () =>
      new Promise<never>((_, reject) => {
        if (!isOver) reject(new Failure("the link is gone: its carrier ended"));
      }),
  );
  broken.catch(() => {});
  const dispose = async () => {
    isOver = true;
    if (carrier.connected) carrier.disconnect();
    await ended;
  };
  const names = await within(opened, "two network namespaces").catch(async (error: unknown) => {
    await dispose();
    throw error;
  });
  const at = (end: End): NamespaceEnd => ({
    namespace: names[end],
    address: ADDRESSES[end],
    wrapper: [pathOf("ip") ?? "ip", "netns", "exec", names[end]],
  });
  return {
    client: at("client"),
    server: at("server"),
    broken,
    async change(profiles) {
      if (!carrier.connected) throw new Failure("the link is gone: its carrier ended");
      const changed = new Promise<void>((resolve) => {
        onChanged = resolve;
      });
      send({ change: profiles });
      await within(changed, "the link's change");
    },
    [Symbol.asyncDispose]: dispose,
  };
}

/**
 * What the carrier itself adds to a round trip, by `ping` over a path of 20 ms each way; undefined where there is no `ping`.
 * Timers, two socats, four crossings of the kernel: it depends on the machine and on what else it does.
 */
export async function measureCarrier(count = 25): Promise<{ medianMs: number; count: number } | undefined> {
  const ping = pathOf("ping");
  if (ping === undefined) return undefined;
  const path = { delayMs: 20 };
  await using link = await namespaceLink({ toServer: path, toClient: path, seed: 1 });
  const [command = "", ...words] = link.client.wrapper;
  const args = [...words, ping, "-c", `${count}`, "-i", "0.02", "-W", "5", link.server.address];
  const { stdout } = await promisify(execFile)(command, args);
  const roundTrips = [...stdout.matchAll(/time=([\d.]+) ms/g)].map((match) => Number(match[1]));
  return { medianMs: median(roundTrips) - 40, count: roundTrips.length };
}

/** Runs `ip` with these words. Throws `Failure` with what it says. */
export async function ip(words: string): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(pathOf("ip") ?? "ip", words.split(" "));
    return stdout;
  } catch (error) {
    const said = error instanceof Error && "stderr" in error ? `${error.stderr}`.trim() : `${error}`;
    throw new Failure(`ip ${words}: ${said}`);
  }
}

export const namespaceName = (pid: number, end: End) => `netlab-${pid}-${end}`;
const NAME = /^netlab-(\d+)-(client|server)$/;

/** The device goes first, and socat with it: a program that still runs there would keep both. */
export async function deleteNamespace(name: string): Promise<void> {
  const [, pid = "", end = ""] = NAME.exec(name) ?? [];
  await ip(`-n ${name} link delete nl${pid}${end[0]}`).catch(() => {});
  await ip(`netns delete ${name}`).catch(() => {}); // another may have been quicker
}

/** Removes the namespaces of carriers that were killed. */
async function removeLeftovers(): Promise<void> {
  const folder = "/run/netns";
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const [, pid] = NAME.exec(name) ?? [];
    if (pid !== undefined && !isCarrier(pid)) await deleteNamespace(name);
  }
}

/** Its id may be another process's by now. */
function isCarrier(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("namespaces-carrier");
  } catch {
    return false;
  }
}
