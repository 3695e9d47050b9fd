/** Who gets the next request: four ways to choose, as pure as they can be (round robin has to remember whose turn it was). */

export const ALGORITHMS = ["round-robin", "least-connections", "random-two", "ip-hash"] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

export interface Candidate {
  readonly name: string;
  /** Of how many requests it gets a share: a whole number from 1 up. */
  readonly weight: number;
  /** Requests that it is working on. */
  readonly active: number;
  /** What round robin owes it. */
  credit: number;
}

/** Chooses among candidates, of which there must be one at least. `client` is an address; `random` gives numbers from 0 up to 1. */
type Choose = <C extends Candidate>(candidates: readonly C[], client: string, random: () => number) => C;

/**
 * Smooth weighted round robin (nginx): each turn everybody's credit grows by its weight; who has most is chosen and pays
 * the sum of the weights. Over as many turns as that sum everybody is chosen exactly `weight` times, and with the weights
 * 5, 1, 1 as A A B A C A A, not A A A A A B C.
 */
const roundRobin: Choose = (candidates) => {
  let total = 0;
  let [best] = candidates as [(typeof candidates)[number]];
  for (const candidate of candidates) {
    total += candidate.weight;
    candidate.credit += candidate.weight;
    if (candidate.credit > best.credit) best = candidate;
  }
  best.credit -= total;
  return best;
};

const load = ({ active, weight }: Candidate) => active / weight;

/** Who has least to do for its weight; among equals, round robin. */
const leastConnections: Choose = (candidates, client, random) => {
  let least = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) least = Math.min(least, load(candidate));
  return roundRobin(
    candidates.filter((candidate) => load(candidate) === least),
    client,
    random,
  );
};

/** Draws one, each with the chance of its weight. */
function draw<C extends Candidate>(candidates: readonly C[], random: () => number): C {
  let left = random() * candidates.reduce((sum, { weight }) => sum + weight, 0);
  for (const candidate of candidates) {
    left -= candidate.weight;
    if (left < 0) return candidate;
  }
  return candidates.at(-1) as C; // where rounding has left a little
}

/**
 * The less loaded of two that are drawn (Mitzenmacher, "The Power of Two Choices", 2001): nearly as good as to look at all,
 * and several balancers that know nothing of each other do not all run to the same node.
 */
const randomTwo: Choose = (candidates, _client, random) => {
  const first = draw(candidates, random);
  if (candidates.length === 1) return first;
  const second = draw(
    candidates.filter((candidate) => candidate !== first),
    random,
  );
  return load(second) < load(first) ? second : first;
};

/** FNV-1a with the end of MurmurHash3, so that texts which differ in one letter are far apart. From 0 up to 1, both excluded. */
function hash(text: string): number {
  let bits = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) bits = Math.imul(bits ^ text.charCodeAt(i), 0x01000193);
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return ((bits ^ (bits >>> 16)) >>> 0) / 2 ** 32 + 2 ** -33;
}

/**
 * Always the same one for a client, by weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): when a node goes, only its
 * own clients go elsewhere, and when it is back they return.
 */
const ipHash: Choose = (candidates, client) => {
  let [best] = candidates as [(typeof candidates)[number]];
  let least = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const score = -Math.log(hash(`${client} ${candidate.name}`)) / candidate.weight;
    if (score < least) [best, least] = [candidate, score];
  }
  return best;
};

export const CHOOSE: Readonly<Record<Algorithm, Choose>> = {
  "round-robin": roundRobin,
  "least-connections": leastConnections,
  "random-two": randomTwo,
  "ip-hash": ipHash,
};
