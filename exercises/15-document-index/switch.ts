/** Hosts out of nothing, for tests and bench: network namespaces, each with a cable to one switch. */
import { spawnSync } from "node:child_process";
import { ip } from "../../shared/namespaces.ts";
import { runTool } from "../../shared/running.ts";

/** Hosts with a network card each on one switch: namespaces, veth pairs and a bridge. For root on Linux. */
export class Switch implements AsyncDisposable {
  readonly #prefix: string;
  readonly #names: string[] = [];

  private constructor(prefix: string) {
    this.#prefix = prefix;
  }

  static async open(hosts: number): Promise<Switch> {
    const made = new Switch(`nl15-${process.pid}-${nextSwitch++}-`);
    try {
      await made.#build(hosts);
      return made;
    } catch (error) {
      await made[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #build(hosts: number): Promise<void> {
    const bridge = await this.#namespace("s");
    await ip(`-n ${bridge} link add name switch type bridge`);
    await ip(`-n ${bridge} link set switch up`);
    for (let i = 0; i < hosts; i++) {
      const host = await this.#namespace(`${i}`);
      await ip(`-n ${bridge} link add p${i} type veth peer name eth0 netns ${host}`);
      await ip(`-n ${bridge} link set p${i} master switch up`);
      await ip(`-n ${host} address add 10.15.0.${i + 1}/24 broadcast + dev eth0`);
      await ip(`-n ${host} link set eth0 up`);
      await ip(`-n ${host} link set lo up`);
    }
  }

  async #namespace(name: string): Promise<string> {
    await ip(`netns add ${this.#prefix + name}`);
    this.#names.push(this.#prefix + name);
    namespaces.add(this.#prefix + name);
    return this.#prefix + name;
  }

  /** What to put in front of a program that shall run on a host. */
  wrapper = (host: number) => ["ip", "netns", "exec", `${this.#prefix}${host}`];

  /** Bytes that a host has sent on all its networks, with all headers. */
  async sentBytes(host: number): Promise<number> {
    const [command = "", ...args] = this.wrapper(host);
    const { stdout } = await runTool(command, [...args, "cat", "/proc/net/dev"]);
    const sent = [...stdout.matchAll(/^ *(?:lo|eth0):(?: +\d+){8} +(\d+)/gm)].map((match) =>
      Number(match[1]),
    );
    return sent.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Pulls a host's cable, which it notices, or plugs it in. */
  async plug(host: number, isIn: boolean): Promise<void> {
    await ip(`-n ${this.#prefix}s link set p${host} ${isIn ? "up" : "down"}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.#names) {
      await ip(`netns delete ${name}`);
      namespaces.delete(name);
    }
  }
}
let nextSwitch = 0;
/** Those that are there: none outlives this process. */
const namespaces = new Set<string>();
process.once("exit", () => {
  for (const name of namespaces) spawnSync("ip", ["netns", "delete", name]);
});
