/**
 * Echo (RFC 862): whatever comes goes back. It has no PDU of its own; what is left to decide is whom not to
 * answer, and whether what came back is what was sent.
 */
import type { Dissector } from "../../shared/describe.ts";
import { whyUnanswered } from "../../shared/small-services.ts";

/** Ours; the assigned one is 7. */
export const ECHO_PORT = 10_100;

export const dissectors: readonly Dissector[] = [{ as: "echo", tcp: [ECHO_PORT], udp: [ECHO_PORT] }];

/** Why a datagram server on `ownPort` must not answer this source port, or undefined where it may. */
export function whyRefused(sourcePort: number, ownPort: number): string | undefined {
  // Any host's: the server that the datagram claims to be from may be this one's twin.
  if (sourcePort === ownPort) return "its source port is this server's own";
  const reason = whyUnanswered(sourcePort);
  return reason && `it ${reason}`;
}

/** What is wrong with an echo, its first byte having been sent as byte `offset`; undefined where it is right. */
export function difference(sent: Buffer, returned: Buffer, offset = 0): string | undefined {
  if (sent.equals(returned)) return undefined;
  const at = returned.findIndex((byte, i) => i < sent.length && byte !== sent[i]);
  if (at >= 0)
    return `byte ${offset + at} was sent as ${hex(sent[at])} and came back as ${hex(returned[at])}`;
  return `${offset + returned.length} bytes came back, ${offset + sent.length} were sent`;
}

const hex = (byte = 0) => `0x${byte.toString(16).padStart(2, "0")}`;
