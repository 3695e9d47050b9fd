/** The name that a download gets. A server may propose one; where it is put is not the server's business. */
import { decoded, fieldText } from "./protocol.ts";

/** With `.part.json` and a number behind it a name still fits the 255 bytes of common file systems. */
const MAX_NAME_BYTES = 200;
const MAX_EXTENSION_BYTES = 20;
/** What a folder without a name in its URL is called. */
const INDEX = "index.html";

/** `http://a/b/c%20d.txt?e` → `c d.txt` */
export const nameFromUrl = (url: URL) => safeName(decoded(url.pathname));

const PARAMETER = /;\s*([!#$%&'*+.^_`|~\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"\s]*)/g;

/** RFC 6266: `attachment; filename="a.txt"; filename*=UTF-8''%C3%A9.txt`, of which the second is preferred. */
export function nameFromDisposition(value: string): string | undefined {
  const parameters = new Map<string, string>();
  for (const [, name = "", text = ""] of value.matchAll(PARAMETER)) {
    if (!parameters.has(name.toLowerCase())) parameters.set(name.toLowerCase(), text);
  }
  const [, charset, extended = ""] =
    /^(UTF-8|ISO-8859-1)'[^']*'(.*)$/i.exec(parameters.get("filename*") ?? "") ?? [];
  const bytes = (text: string) =>
    text.replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
  if (charset !== undefined)
    return proposed(charset.length === 5 ? fieldText(bytes(extended)) : bytes(extended));
  const plain = parameters.get("filename");
  if (plain === undefined || plain === "") return undefined;
  return proposed(fieldText(plain.startsWith('"') ? plain.slice(1, -1).replace(/\\(.)/g, "$1") : plain));
}

/** With a name such as `x.part.json` a server could have the download of another's `x` go on behind what it likes. */
const proposed = (text: string) => safeName(text).replace(/\.part(?:\.json)?$/i, "$&_");

/** Characters that lead elsewhere, hide something, or that some file system does not take. */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}<>:"|?*]/gu;
const DEVICE = /^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)/i;

/** The last part of a path as a plain, visible file name: no separator, no dot or option's dash in front. */
export function safeName(path: string): string {
  const last = path.split(/[/\\]/).at(-1) ?? "";
  const clean = last
    .replace(UNSAFE, "_")
    .trim()
    .replace(/(?<![. ])[. ]+$/, "") // from the first of a run only: else a name of dots costs the square of its length
    .replace(/^[.-]+/, (dots) => "_".repeat(dots.length));
  if (clean === "") return INDEX;
  return shortened(DEVICE.test(clean) ? `_${clean}` : clean);
}

function shortened(name: string): string {
  if (Buffer.byteLength(name) <= MAX_NAME_BYTES) return name;
  const extension = /\.[^.]+$/.exec(name)?.[0] ?? "";
  const ending = Buffer.byteLength(extension) <= MAX_EXTENSION_BYTES ? extension : "";
  let stem = "";
  for (const character of name.slice(0, name.length - ending.length)) {
    if (Buffer.byteLength(stem + character + ending) > MAX_NAME_BYTES) break;
    stem += character;
  }
  return stem + ending;
}

/** wget's names for what must not overwrite another: `a.txt`, `a.txt.1`, `a.txt.2` … */
export const numbered = (name: string, number: number) => (number === 0 ? name : `${name}.${number}`);
