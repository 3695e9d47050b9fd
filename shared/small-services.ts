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
