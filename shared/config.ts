/**
 * Settings: text from the command line or an .ini file, checked and made into typed values.
 *
 * A setting is declared once (`{ parse, describe, default }`); `program.ts` reads it from the command line and
 * `section()` from a file. Whatever is wrong is one line that says where: file, line, section and key.
 */
import { readFileSync } from "node:fs";
import { isIPv6 } from "node:net";
import { parse as parseIni } from "ini";
import { Failure, UsageError } from "./errors.ts";

/** Makes a value of a text, or throws a `Failure` that says what the text should be (`is not a port …`). */
export type Parse<T> = (text: string) => T;

export interface Setting<T> {
  parse: Parse<T>;
  describe: string;
  default?: T;
  /** Without a value and without a default it is left `undefined` rather than refused. */
  optional?: boolean;
  /** May be given several times: the value is a list. */
  many?: boolean;
  /** Takes no text: naming it makes it true. */
  flag?: boolean;
  /** Other spellings on the command line and in files. */
  alias?: readonly string[];
  /** Given without a name, in the order of declaration. */
  positional?: boolean;
}
// biome-ignore lint/suspicious/noExplicitAny: a table of settings holds every type
export type Settings = Readonly<Record<string, Setting<any>>>;
export type SettingsValue<S extends Settings> = { [K in keyof S]: S[K] extends Setting<infer T> ? T : never };

type Extra = Partial<Pick<Setting<unknown>, "alias" | "positional">>;
export function setting<T>(parse: Parse<T>, describe: string, fallback?: T, extra: Extra = {}): Setting<T> {
  return { parse, describe, ...(fallback === undefined ? {} : { default: fallback }), ...extra };
}
export function optional<T>(parse: Parse<T>, describe: string, extra: Extra = {}): Setting<T | undefined> {
  return { parse, describe, optional: true, ...extra };
}
export function many<T>(parse: Parse<T>, describe: string, extra: Extra = {}): Setting<T[]> {
  return { parse: parse as Parse<never>, describe, default: [], many: true, ...extra };
}
export function flag(describe: string, extra: Extra = {}): Setting<boolean> {
  return { parse: boolean, describe, default: false, flag: true, ...extra };
}

export const text: Parse<string> = (value) => value;

export function integer(min: number, max = Number.MAX_SAFE_INTEGER): Parse<number> {
  return (value) => {
    const number = Number(value);
    if (/^[+-]?\d+$/.test(value) && number >= min && number <= max) return number;
    const range = max === Number.MAX_SAFE_INTEGER ? `from ${min} up` : `from ${min} to ${max}`;
    throw new Failure(`is not a whole number ${range}`);
  };
}

/** A number that may have a fraction; `unit` is for the complaint: `is not a number of milliseconds from 0 up`. */
export function decimal(unit: string, min: number, max = Number.MAX_VALUE): Parse<number> {
  return (value) => {
    const number = Number(value);
    if (/^[+-]?\d+(\.\d+)?$/.test(value) && number >= min && number <= max) return number;
    const range = max === Number.MAX_VALUE ? `from ${min} up` : `from ${min} to ${max}`;
    throw new Failure(`is not a number of ${unit} ${range}`);
  };
}

/** `2%` or `0.02` */
export const share: Parse<number> = (value) => {
  const [, digits, percent] = /^(\d+(?:\.\d+)?)(%)?$/.exec(value) ?? [];
  const part = Number(digits) / (percent ? 100 : 1);
  if (part <= 1) return part;
  throw new Failure("is not a share, as 2% or 0.02");
};

/** How long something may take: parts of a second too, and a day at most. */
export const seconds = decimal("seconds", 0.001, 86_400);

const portFrom =
  (least: number): Parse<number> =>
  (value) => {
    if (/^\d+$/.test(value) && Number(value) >= least && Number(value) <= 65_535) return Number(value);
    throw new Failure(`is not a port (${least} to 65535)`);
  };
/** To listen on: 0 is any free one. */
export const port = portFrom(0);
/** To connect to. */
export const peerPort = portFrom(1);

/** A name or numeric address; an IPv6 address may stand in brackets. */
export const host: Parse<string> = (value) => {
  const bare = /^\[(.+)\]$/.exec(value)?.[1] ?? value;
  if (bare !== "" && !/[\s[\]/]/.test(bare) && (isIPv6(bare) || !value.includes(":"))) return bare;
  throw new Failure("is not a host name or address");
};

/** `HOST`, `HOST:PORT`, `[IPV6]:PORT`, or an IPv6 address alone. */
export function hostPort(defaultPort: number): Parse<{ host: string; port: number }> {
  return (value) => {
    const [, inBrackets, plain, portText] = /^(?:\[(.+)\]|([^:]*))(?::([^:]*))?$/.exec(value) ?? [];
    const name = inBrackets ?? plain ?? value;
    return { host: host(name), port: portText === undefined ? defaultPort : port(portText) };
  };
}

export const boolean: Parse<boolean> = (value) => {
  if (/^(true|yes|on|1)$/i.test(value)) return true;
  if (/^(false|no|off|0)$/i.test(value)) return false;
  throw new Failure("is neither true nor false");
};

export function oneOf<const T extends string>(...choices: readonly T[]): Parse<T> {
  return (value) => {
    if ((choices as readonly string[]).includes(value)) return value as T;
    throw new Failure(`is none of ${choices.join(", ")}`);
  };
}

/** What stands before the @ of a URL is not repeated: errors end up in logs. */
const withoutPassword = (text: string) => text.replace(/\/\/[^/@]*@/, "//…@");

/** Parses the texts found for one setting; `where` begins the complaint, about one of the texts or (undefined) about none. */
export function readSetting<T>(
  setting: Setting<T>,
  texts: readonly string[],
  where: (text?: string) => string,
): T {
  const parsed = texts.map((text) => {
    try {
      return setting.parse(text);
    } catch (error) {
      if (error instanceof Failure)
        throw new UsageError(`${where(text)} ${JSON.stringify(withoutPassword(text))} ${error.message}`);
      throw error;
    }
  });
  if (setting.many && parsed.length > 0) return parsed as T;
  const last = parsed.at(-1) ?? setting.default;
  if (last === undefined && !setting.optional)
    throw new UsageError(`${where()} is missing: ${setting.describe}`);
  return last as T;
}

export const kebabCase = (name: string) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
/** Every way to write a setting's name in a file, in lower case. */
const spellings = (name: string, alias: readonly string[] = []) =>
  [kebabCase(name), name, ...alias].map((spelling) => spelling.toLowerCase());

const HEADER = /^\s*\[([^\]]*)\]\s*(?:[;#].*)?$/;

/** The texts of a configuration file. Keys and sections may be written in any case. */
export class Ini {
  readonly path: string;
  readonly #lines: string[];
  readonly #sections = new Map<string, Map<string, string[]>>();

  /** Throws `UsageError` where the file cannot be read. */
  constructor(path: string) {
    this.path = path;
    let content: string;
    try {
      content = readFileSync(path, "utf8");
    } catch (error) {
      throw new UsageError(`cannot read the configuration ${path}`, { cause: error });
    }
    this.#lines = content.split(/\r\n|\r|\n/);
    // Section names are plain and of any case here; `ini` nests them at dots, and wants nothing else on their line.
    this.#refuseRepeated();
    const lines = this.#lines.map((line) =>
      line.replace(HEADER, (_, name: string) => `[${name.toLowerCase().replaceAll(".", "\\.")}]`),
    );
    for (const [name, value] of Object.entries(parseIni(lines.join("\n")))) {
      if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw new UsageError(`${this.where("", name)}: stands outside of any [section]`);
      }
      const keys = new Map<string, string[]>();
      this.#sections.set(name, keys);
      for (const [key, text] of Object.entries(value)) {
        if (key.startsWith("[")) throw new UsageError(`${this.where(name, key)} is no [section]`);
        keys.set(key.toLowerCase(), [text].flat().map(String));
      }
    }
  }

  /** Of a key that stands twice only the last would count, and nobody would know. */
  #refuseRepeated(): void {
    const seen = new Map<string, number>();
    let current = "";
    for (const [index, line] of this.#lines.entries()) {
      current = HEADER.exec(line)?.[1]?.trim().toLowerCase() ?? current;
      const [, key] = /^\s*([^=;#[\]]+?)\s*=/.exec(line) ?? [];
      if (key === undefined) continue;
      const name = `[${current}] ${key.toLowerCase()}`;
      const first = seen.get(name);
      if (first !== undefined) {
        throw new UsageError(
          `${this.path}:${index + 1}: ${name} stands in line ${first} too; a list is written ${key}[] = …`,
        );
      }
      seen.set(name, index + 1);
    }
  }

  get sections(): string[] {
    return [...this.#sections.keys()];
  }

  /** `config/x.ini:12: [section] key`: the line that counts, of several that which has the text. */
  where(section: string, name = "", alias: readonly string[] = [], text = ""): string {
    const names = spellings(name, alias);
    let current = "";
    const found: { line: number; key: string; value: string }[] = [];
    for (const [index, content] of this.#lines.entries()) {
      const header = HEADER.exec(content)?.[1]?.trim().toLowerCase();
      current = header ?? current;
      const [, key = "", value = ""] =
        /^([^=]*?)(?:\[\])?\s*(?:=(.*))?$/.exec(content.toLowerCase().trim()) ?? [];
      const isIt = name === "" ? header !== undefined : names.includes(key.trim());
      if (current === section.toLowerCase() && isIt) found.push({ line: index + 1, key, value });
    }
    const best = found.findLast(({ value }) => value.includes(text.toLowerCase())) ?? found.at(-1);
    const key = name === "" ? "" : ` ${best?.key.trim() ?? kebabCase(name)}`;
    return `${this.path}${best ? `:${best.line}` : ""}:${section && ` [${section}]`}${key}`;
  }

  /** The texts under a key or one of its other spellings. */
  texts(section: string, name: string, alias: readonly string[] = []): string[] {
    const keys = this.#sections.get(section.toLowerCase());
    return [...new Set(spellings(name, alias))].flatMap((key) => keys?.get(key) ?? []);
  }

  /** A key that no setting has is most likely a misspelling, so it is refused. */
  refuseUnknown(section: string, settings: Settings): void {
    const known = Object.entries(settings).flatMap(([name, { alias }]) => spellings(name, alias));
    for (const key of this.#sections.get(section.toLowerCase())?.keys() ?? []) {
      if (known.includes(key)) continue;
      throw new UsageError(
        `${this.where(section, key)} is unknown; known are ${Object.keys(settings).map(kebabCase).join(", ")}`,
      );
    }
  }

  /** The section's values. Throws `UsageError` with file, line, section and key. */
  section<S extends Settings>(section: string, settings: S): SettingsValue<S> {
    this.refuseUnknown(section, settings);
    const entries = Object.entries(settings).map(([name, setting]) => {
      const texts = this.texts(section, name, setting.alias);
      const where = (text?: string) =>
        text === undefined
          ? `${this.where(section)} ${kebabCase(name)}`
          : this.where(section, name, setting.alias, text);
      if (texts.length > 1 && !setting.many)
        throw new UsageError(`${where(texts.at(-1))} is given ${texts.length} times, and is no list`);
      return [name, readSetting(setting, texts, where)];
    });
    return Object.fromEntries(entries) as SettingsValue<S>;
  }
}
