/** Names that come from elsewhere: which may be a path below a folder, and how they are shown and stored. */

/** Why this is no path below a folder, in words that follow it; undefined where it is one, on every system. */
export function whyUnsafe(path: string): string | undefined {
  if (path.includes("\0")) return "has a NUL";
  if (path.includes("\\")) return "has a backslash, which separates folders on some systems";
  if (/^[A-Za-z]:/.test(path)) return "begins with a drive";
  if (path.startsWith("/")) return "is not below the folder";
  if (!ODD_PART.test(path)) return undefined;
  const parts = path.split("/");
  if (parts.includes("..")) return "leads out of the folder";
  if (parts.includes("") || parts.includes(".")) return "has an empty part";
  return undefined;
}

/** A part that is empty, `.` or `..`. */
const ODD_PART = /(?:^|\/)\.{0,2}(?:\/|$)/;

/** C0 and C1 controls, line separators, and what turns the direction of writing. */
const COMMANDS = /[\p{Cc}\p{Zl}\p{Zp}\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/gu;
const SHORT: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** The text on one line, without anything that a terminal would obey. Of two different paths it makes two different texts. */
export function printable(text: string): string {
  return text.replace(
    COMMANDS,
    (char) => SHORT[char] ?? `\\u{${char.codePointAt(0)?.toString(16).padStart(2, "0")}}`,
  );
}

/** The last part of a path as the name of a new file. */
export function plainName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1).replace(COMMANDS, "_");
}
