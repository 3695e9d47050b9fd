/** The nodes behind the balancer: what is known of each, which of them are up, and who gets the next request. */
import { setTimeout as delay } from "node:timers/promises";
import { formatAddress } from "../../shared/connection.ts";
import { explain, isFailure } from "../../shared/errors.ts";
import { encodeRequest, Fields, readResponse } from "../../shared/http.ts";
import { UpstreamPool } from "../../shared/http-relay.ts";
import { connect } from "../../shared/tcp.ts";
import { CHOOSE } from "./algorithms.ts";
import type { Configuration, NodeSpec, Policy } from "./configuration.ts";
import { afterCheck, afterRequest, type Health, isInDoubt, UP } from "./health.ts";
import { LatencyHistogram } from "./latency.ts";
import { ResponseMemory } from "./response-memory.ts";

/** What we lack ourselves: descriptors, ports, memory. It says nothing of the node, and every node would "fail" with it. */
const OWN_SHORTAGE = new Set(["EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM"]);
export function isOwnShortage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return OWN_SHORTAGE.has((error as NodeJS.ErrnoException).code ?? "") || isOwnShortage(error.cause);
}

/** A state in doubt is looked at again after this share of the interval, so that a node is back within two. */
const DOUBT = 0.25;

export class Node {
  readonly host: string;
  readonly port: number;
  name: string;
  weight: number;
  /** What round robin owes it. */
  credit = 0;
  /** Requests that it is working on. */
  active = 0;
  /** Requests that were given to it. */
  total = 0;
  /** Of these, those that it did not answer. */
  failures = 0;
  health: Health = UP;
  /** From a request's sending to its response's head. */
  readonly latency = new LatencyHistogram();
  readonly responses = new ResponseMemory();
  /** Ends its checks. */
  readonly removed = new AbortController();

  constructor({ name, host, port, weight }: NodeSpec) {
    this.name = name;
    this.host = host;
    this.port = port;
    this.weight = weight;
  }

  get address(): string {
    return formatAddress(this.host, this.port);
  }
}

interface ClusterOptions {
  signal: AbortSignal;
  log: (line: string) => void;
  random?: () => number;
}

export class Cluster {
  readonly pool = new UpstreamPool({ idleLimit: 256 });
  readonly #options: ClusterOptions;
  #policy: Policy;
  #nodes: readonly Node[] = [];
  #up: readonly Node[] = [];

  constructor(configuration: Configuration, options: ClusterOptions) {
    this.#options = options;
    this.#policy = configuration.policy;
    this.configure(configuration);
  }

  get policy(): Policy {
    return this.#policy;
  }
  get nodes(): readonly Node[] {
    return this.#nodes;
  }

  /** Takes a configuration over. A node that stays keeps what is known of it; one that goes finishes what it has begun. */
  configure({ policy, nodes }: Configuration): void {
    const before = new Map(this.#nodes.map((node) => [node.address, node]));
    this.#policy = policy;
    this.#nodes = nodes.map((spec) => {
      const node = before.get(formatAddress(spec.host, spec.port));
      if (node === undefined) return this.#begin(new Node(spec));
      before.delete(node.address);
      return Object.assign(node, { name: spec.name, weight: spec.weight });
    });
    for (const node of before.values()) {
      node.removed.abort();
      this.pool.drop(node);
    }
    this.#sortOut();
  }

  /** A node that is up and not among `tried`. */
  choose(client: string, tried: readonly Node[]): Node | undefined {
    const candidates = tried.length === 0 ? this.#up : this.#up.filter((node) => !tried.includes(node));
    if (candidates.length === 0) return undefined;
    return CHOOSE[this.#policy.algorithm](candidates, client, this.#options.random ?? Math.random);
  }

  /** A request was answered by its node, or failed there (`problem`). */
  noteRequest(node: Node, problem?: string): void {
    if (problem !== undefined) node.failures++;
    this.#become(node, afterRequest(node.health, problem === undefined, this.#policy), problem);
  }

  #become(node: Node, health: Health, problem = ""): void {
    const changes = health.isUp !== node.health.isUp;
    node.health = health;
    if (!changes) return;
    this.#sortOut();
    if (!health.isUp) this.pool.drop(node);
    const what = health.isUp ? "is up" : `is down: ${problem}`;
    if (this.#nodes.includes(node)) this.#options.log(`${node.name} (${node.address}) ${what}`);
  }

  /** With another set of nodes the round begins anew: what was owed in the old one would make the new one inexact. */
  #sortOut(): void {
    this.#up = this.#nodes.filter(({ health }) => health.isUp);
    for (const node of this.#nodes) node.credit = 0;
  }

  #begin(node: Node): Node {
    void this.#watch(node, AbortSignal.any([this.#options.signal, node.removed.signal]));
    return node;
  }

  /** Checks a node until it is removed. */
  async #watch(node: Node, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const problem = await this.#check(node, signal);
      if (signal.aborted) return;
      if (problem !== "unknown")
        this.#become(node, afterCheck(node.health, problem === undefined, this.#policy), problem?.reason);
      const pauseMs = this.#policy.healthInterval * 1000 * (isInDoubt(node.health) ? DOUBT : 1);
      await delay(pauseMs, undefined, { signal }).catch(() => {}); // aborted: the loop sees it
    }
  }

  /** Asks on a connection of its own, so that it is seen whether new ones are accepted. What is wrong, or `undefined`. */
  async #check(
    { host, port, address }: Node,
    signal: AbortSignal,
  ): Promise<{ reason: string } | "unknown" | undefined> {
    const { healthPath, healthInterval, timeout } = this.#policy;
    const timeoutMs = Math.min(timeout, healthInterval) * 1000;
    try {
      const connection = await connect({ host, port, timeoutMs, signal });
      try {
        const fields = new Fields([
          ["Host", address],
          ["User-Agent", "netlab-balancer"],
          ["Connection", "close"],
        ]);
        await connection.write(encodeRequest({ method: "GET", target: healthPath, fields }));
        const response = await readResponse(connection, { headMs: timeoutMs });
        if (response === undefined) return { reason: "it closed the connection without an answer" };
        return response.status < 400 ? undefined : { reason: `status ${response.status} for ${healthPath}` };
      } finally {
        connection.destroy();
      }
    } catch (error) {
      if (!isFailure(error)) throw error;
      return isOwnShortage(error) ? "unknown" : { reason: explain(error) };
    }
  }
}
