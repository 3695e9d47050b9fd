/** Paths as they travel: relative to the directory, names separated by `/`; the directory itself is empty. */
import { Failure } from "../../shared/errors.ts";
import { MAX_PATH_BYTES } from "./protocol.ts";

/** The path itself, which leads nowhere else: relative, no `.` or `..`, nothing empty. Throws `Failure`. */
export function checkPath(path: string): string {
  const parts = path === "" ? [] : path.split("/");
  const isBad = parts.some(
    (part) => part === "" || part === "." || part === ".." || Buffer.byteLength(part) > 255,
  );
  if (isBad || path.includes("\0"))
    throw new Failure(`${JSON.stringify(path)} is not a path within the directory`);
  if (Buffer.byteLength(path) > MAX_PATH_BYTES)
    throw new Failure(`a path of more than ${MAX_PATH_BYTES} bytes is too long`);
  return path;
}
/** The path without its last name; of a name at the top, the directory itself. */
export const parentOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf("/")));
export const nameOf = (path: string): string => path.slice(path.lastIndexOf("/") + 1);
export const within = (folder: string, path: string): boolean =>
  folder === "" || path === folder || path.startsWith(`${folder}/`);
export const joined = (folder: string, name: string): string => (folder === "" ? name : `${folder}/${name}`);
