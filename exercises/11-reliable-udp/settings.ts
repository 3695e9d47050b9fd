/** What every program here can be told about its connections. */
import { integer, oneOf, type SettingsValue, setting } from "../../shared/config.ts";
import { CONGESTION_NAMES } from "./congestion.ts";
import { type ConnectionOptions, DEFAULTS } from "./options.ts";
import { BASE_MTU, MAX_MTU, MIN_MTU } from "./protocol.ts";

const KIB = 1024;

export const CONNECTION_SETTINGS = {
  congestion: setting(
    oneOf(...CONGESTION_NAMES),
    `how to send: ${CONGESTION_NAMES.join(", ")}`,
    DEFAULTS.congestion,
  ),
  mtu: setting(
    integer(MIN_MTU, MAX_MTU),
    "largest UDP payload to try, in bytes; more than 1200 is probed first",
    BASE_MTU,
  ),
  window: setting(
    integer(64, 1024 * KIB),
    "what may wait here for the disk, in KiB",
    DEFAULTS.windowBytes / KIB,
  ),
  timeout: setting(
    integer(1, 86_400_000),
    "milliseconds without progress after which it is given up",
    DEFAULTS.timeoutMs,
  ),
};

/** A server takes whatever its client dares to send. */
export const SERVER_SETTINGS = {
  ...CONNECTION_SETTINGS,
  mtu: { ...CONNECTION_SETTINGS.mtu, default: MAX_MTU },
};

export function connectionOptions(settings: SettingsValue<typeof CONNECTION_SETTINGS>): ConnectionOptions {
  const { congestion, mtu, window, timeout } = settings;
  return { congestion, mtu, windowBytes: window * KIB, timeoutMs: timeout };
}

/** `12.3 MB/s`, `12.3 kB/s` */
export function rateText(bytes: number, ms: number): string {
  if (bytes < 1000 * ms) return `${(bytes / Math.max(ms, 0.001)).toFixed(1)} kB/s`;
  return `${(bytes / 1000 / Math.max(ms, 0.001)).toFixed(1)} MB/s`;
}
