/** Time zones and languages, by the runtime's own copies of the tz database and of CLDR (`Intl`). */
import type { Locale } from "strftime";
import type { Parse } from "../../shared/config.ts";
import { Failure, UsageError } from "../../shared/errors.ts";
import { LOCALE_BYTES, offsetText } from "./protocol.ts";

interface ZoneReading {
  utcOffsetMinutes: number;
  dst: boolean;
}

/** Building one takes 100 µs, so each is kept; there are about 600 names, so they are never too many. */
const readers = new Map<string, Intl.DateTimeFormat>();

function readerOf(zone: string): Intl.DateTimeFormat | undefined {
  // Later runtimes also take "+03:00", which is no name. Case does not matter in ASCII, and nothing else occurs.
  if (!/^[a-z][\w+/-]*$/i.test(zone)) return undefined;
  const key = zone.toLowerCase();
  const known = readers.get(key);
  if (known !== undefined) return known;
  try {
    const reader = new Intl.DateTimeFormat("en-US", {
      timeZone: zone,
      timeZoneName: "long",
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
    readers.set(key, reader);
    return reader;
  } catch (error) {
    if (error instanceof RangeError) return undefined; // how Intl says that it knows no such zone
    throw error;
  }
}

function read(reader: Intl.DateTimeFormat, utcMs: number): { offsetMinutes: number; name: string } {
  const part: Partial<Record<string, string>> = {};
  for (const { type, value } of reader.formatToParts(utcMs)) part[type] = value;
  const { year, month, day, hour, minute, second, timeZoneName = "" } = part;
  const asIfUtcMs = Date.UTC(
    Number(year),
    Number(month) - 1,
    Number(day),
    Number(hour),
    Number(minute),
    Number(second),
  );
  return { offsetMinutes: Math.round((asIfUtcMs - utcMs) / 60_000), name: timeZoneName };
}

/** What the clocks of a zone show at an instant; undefined where there is no such zone. */
export function zoneAt(zone: string, utcMs: number): ZoneReading | undefined {
  const reader = readerOf(zone);
  if (reader === undefined) return undefined;
  const { offsetMinutes, name } = read(reader, utcMs);
  return { utcOffsetMinutes: offsetMinutes, dst: isDst(reader, utcMs, offsetMinutes, name) };
}

/**
 * Intl does not say whether DST is in force, but its English names do ("Central European Summer Time"). Irish
 * Standard Time is the one that is kept in summer. Zones without a name ("GMT+02:00") are compared with the
 * lower of their offsets in January and in July.
 */
function isDst(reader: Intl.DateTimeFormat, utcMs: number, offsetMinutes: number, name: string): boolean {
  if (!/^GMT[+-]/.test(name)) return /Summer|Daylight|^Irish Standard/.test(name);
  const year = new Date(utcMs).getUTCFullYear();
  const [january, july] = [0, 6].map((month) => read(reader, Date.UTC(year, month, 1)).offsetMinutes);
  return offsetMinutes > Math.min(january ?? offsetMinutes, july ?? offsetMinutes);
}

export const zoneName: Parse<string> = (name) => {
  if (readerOf(name) !== undefined) return name;
  throw new Failure("is not a time zone of the tz database, as America/Argentina/Buenos_Aires is");
};

export function isLocale(tag: string): boolean {
  try {
    return Intl.DateTimeFormat.supportedLocalesOf(tag).length > 0;
  } catch (error) {
    if (error instanceof RangeError) return false; // how Intl says that it is no language tag at all
    throw error;
  }
}

export const localeTag: Parse<string> = (tag) => {
  if (isLocale(tag)) return tag;
  throw new Failure("is not a language tag that is known here, as es-AR is");
};

/** Where this machine says that it is (TZ and LANG, or the system's settings). Throws `UsageError`. */
export function machineZone(): string {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions() as { timeZone?: string };
  if (timeZone !== undefined && readerOf(timeZone) !== undefined) return timeZone;
  throw new UsageError(
    `cannot tell this machine's time zone (TZ is "${process.env["TZ"]}"); name one with --zone`,
  );
}
export function machineLocale(): string {
  const { locale } = Intl.DateTimeFormat().resolvedOptions();
  if (isLocale(locale)) return locale;
  throw new UsageError(`cannot tell this machine's language (it says "${locale}"); name one with --locale`);
}

/** A tag that fits the PDU: as it stands, without what goes without saying, or language and script alone. */
export function shortTag(tag: string): string {
  const whole = new Intl.Locale(tag);
  const least = whole.minimize();
  const script = least.script === undefined ? "" : `-${least.script}`;
  const fitting = [whole.baseName, least.baseName, `${least.language}${script}`];
  return fitting.find((name) => name.length <= LOCALE_BYTES) ?? "";
}

const PLAIN = { timeZone: "UTC", calendar: "gregory", numberingSystem: "latn" } as const;
const DAY_MS = 86_400_000;

/**
 * Writes RFC 867's line: the date as the locale writes it in full, then time and UTC offset:
 * `sabado, 21 de noviembre de 2026 01:37:04-03:00`. It must be ASCII: accents go, and a language that has more
 * than those (on any day of the year) is replaced by English.
 */
export function daytimeLineIn(locale: string): (utcMs: number, utcOffsetMinutes: number) => Buffer {
  const inLocale = new Intl.DateTimeFormat(locale, { dateStyle: "full", ...PLAIN });
  const inEnglish = new Intl.DateTimeFormat("en-US", { dateStyle: "full", ...PLAIN });
  const leapYear = Array.from({ length: 366 }, (_, day) => Date.UTC(2024, 0, 1) + day * DAY_MS);
  const isAscii = leapYear.every((ms) => /^[\x20-\x7e]+$/.test(withoutAccents(inLocale.format(ms))));
  const date = isAscii ? inLocale : inEnglish;
  return (utcMs, utcOffsetMinutes) => {
    const localMs = utcMs + utcOffsetMinutes * 60_000;
    const time = new Date(localMs).toISOString().slice(11, 19);
    const line = `${withoutAccents(date.format(localMs))} ${time}${offsetText(utcOffsetMinutes)}\r\n`;
    return Buffer.from(line, "latin1");
  };
}

/** Letters that Unicode does not take apart into a base and a mark. */
const LETTERS: Readonly<Record<string, string>> = {
  ß: "ss",
  æ: "ae",
  œ: "oe",
  ø: "o",
  đ: "d",
  ł: "l",
  ı: "i",
};

function withoutAccents(text: string): string {
  return text
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .replace(/[ßæœøđłı]/gi, (letter) => LETTERS[letter.toLowerCase()] ?? letter);
}

/** Week and year of ISO 8601, of the UTC fields: a week belongs to the year in which its Thursday lies. */
export function isoWeek(date: Date): { week: string; year: string } {
  const thursday = new Date(date);
  thursday.setUTCDate(date.getUTCDate() + 4 - (date.getUTCDay() || 7));
  const newYear = new Date(thursday).setUTCMonth(0, 1); // Date.UTC takes a year below 100 for one of the 20th century
  const week = Math.floor((thursday.getTime() - newYear) / (7 * DAY_MS)) + 1;
  return { week: String(week).padStart(2, "0"), year: String(thursday.getUTCFullYear()) };
}

/** Names and usual forms of a language as npm's `strftime` wants them. */
export function strftimeLocale(locale: string): Locale {
  const writer = (options: Intl.DateTimeFormatOptions) =>
    new Intl.DateTimeFormat(locale, { ...options, ...PLAIN });
  const days = (style: "long" | "short") =>
    Array.from({ length: 7 }, (_, day) => writer({ weekday: style }).format(Date.UTC(2023, 0, 1 + day)));
  const months = (style: "long" | "short") =>
    Array.from({ length: 12 }, (_, month) => {
      // Beside a day, a month may be inflected ("21 ноября"); where that makes it a number, it stands alone.
      const ms = Date.UTC(2023, month, 21);
      const inflected = partOf(writer({ day: "numeric", month: style }), "month", ms);
      return /^\d/.test(inflected) ? writer({ month: style }).format(ms) : inflected;
    });
  const half = (hour: number) =>
    partOf(writer({ hour: "numeric", hour12: true }), "dayPeriod", Date.UTC(2023, 0, 1, hour));
  const [am, pm] = [half(6) || "AM", half(18) || "PM"];
  const pattern = (options: Intl.DateTimeFormatOptions) =>
    writer(options)
      .formatToParts(Date.UTC(2023, 10, 21, 6))
      .map(spec)
      .join("");

  const date = pattern({ weekday: "short", day: "numeric", month: "short", year: "numeric" });
  return {
    days: days("long"),
    shortDays: days("short"),
    months: months("long"),
    shortMonths: months("short"),
    AM: am,
    PM: pm,
    am: am.toLowerCase(),
    pm: pm.toLowerCase(),
    formats: {
      c: `${date} %X %z`,
      x: pattern({ day: "2-digit", month: "2-digit", year: "numeric" }),
      X: pattern({ hour: "2-digit", minute: "2-digit", second: "2-digit" }),
      D: "%m/%d/%y",
      F: "%Y-%m-%d",
      R: "%H:%M",
      r: "%I:%M:%S %p",
      T: "%H:%M:%S",
      v: "%e-%b-%Y",
    },
  };
}

function partOf(writer: Intl.DateTimeFormat, type: Intl.DateTimeFormatPartTypes, ms: number): string {
  return writer.formatToParts(ms).find((part) => part.type === type)?.value ?? "";
}

/** A part of a formatted date (of 21 November 2023, 06:00) as strftime writes that part. */
function spec({ type, value }: Intl.DateTimeFormatPart, _: number, all: Intl.DateTimeFormatPart[]): string {
  switch (type) {
    case "weekday":
      return "%a";
    case "day":
      return "%d";
    case "month":
      return /^\d/.test(value) ? "%m" : "%b";
    case "year":
      return "%Y";
    case "hour":
      return all.some((part) => part.type === "dayPeriod") ? "%I" : "%H";
    case "minute":
      return "%M";
    case "second":
      return "%S";
    case "dayPeriod":
      return "%p";
    default:
      return value.replaceAll("%", "%%").replace(/\s/g, " ");
  }
}
