/** What of the datagrams that come is believed. */
import { Failure } from "../../shared/errors.ts";
import { isSignedBy } from "./identity.ts";
import type { News } from "./membership.ts";
import { type Announcement, readAnnouncement, signedPart } from "./protocol.ts";
import type { PortRange } from "./segment.ts";

/** Looking at a signature takes 0.1 ms: a flood of them costs no more than this many a second. */
const MAX_SIGNATURES = 1000;

export class Gate {
  readonly #own: Buffer;
  readonly #ports: PortRange;
  #signatures = 0;
  #secondMs = Number.NEGATIVE_INFINITY;
  #last: Buffer = Buffer.alloc(0);

  /** `own`: the key of the node itself, which hears what it broadcasts. */
  constructor(own: Buffer, ports: PortRange) {
    this.#own = own;
    this.#ports = ports;
  }

  /** What it says; undefined where it is the node's own, or there is no time to look. Throws `Failure` where it is forged. */
  admit(datagram: Buffer, fromPort: number): News | undefined {
    const announcement = readAnnouncement(datagram, fromPort);
    const { first, last } = this.#ports;
    if (fromPort < first || fromPort > last)
      throw new Failure(`an announcement came from port ${fromPort}, which is none of ${first}-${last}`);
    if (announcement.node.equals(this.#own) || !this.#isGenuine(announcement, datagram)) return undefined;
    return newsOf(announcement);
  }

  #isGenuine({ node, signature }: Announcement, datagram: Buffer): boolean {
    if (datagram.equals(this.#last)) return true; // the same one on another network
    const nowMs = performance.now();
    if (nowMs - this.#secondMs >= 1000) {
      this.#secondMs = nowMs;
      this.#signatures = 0;
    }
    if (++this.#signatures > MAX_SIGNATURES) return false;
    if (!isSignedBy(node, signedPart(datagram), signature))
      throw new Failure("an announcement whose signature is wrong");
    this.#last = Buffer.from(datagram);
    return true;
  }
}

const newsOf = ({ node, name, kind, flags, sequence, port, version, digest }: Announcement): News => ({
  ...{ id: node.toString("hex"), name, leaves: kind === "leave", wantsReply: flags.reply },
  ...{ sequence, port, version, digest: Buffer.from(digest) },
});
