/**
 * The small services, by port (RFC 862 to 868; ports from the IANA registry). Those that answer any datagram would keep
 * a server that does so, too, busy for ever after one datagram that was forged to come from them (CERT advisory
 * CA-1996-01); discard never answers, so nobody there waits for ours.
 */
export const SMALL_SERVICES: ReadonlyMap<number, string> = new Map([
  [7, "echo (RFC 862)"],
  [9, "discard (RFC 863)"],
  [11, "active users (RFC 866)"],
  [13, "daytime (RFC 867)"],
  [17, "quote of the day (RFC 865)"],
  [19, "character generator (RFC 864)"],
  [37, "time (RFC 868)"],
]);

/** Why a datagram server must not answer this source port, as "it …"; undefined where it may. */
export function whyUnanswered(sourcePort: number): string | undefined {
  const service = sourcePort === 0 ? "nobody's (RFC 768)" : SMALL_SERVICES.get(sourcePort);
  return service && `comes from port ${sourcePort}, ${service}`;
}
