/** From a URL to a file: whole, continued where an earlier download ended, or straight to stdout. */
import { closeSync, openSync, statSync, writeSync } from "node:fs";
import { Failure } from "../../shared/errors.ts";
import { Fields, type ResponseHead } from "../../shared/http.ts";
import type { Body } from "../../shared/http-body.ts";
import { parseDate } from "../../shared/http-serving.ts";
import { printable } from "../../shared/printable.ts";
import { formatBytes, Progress } from "../../shared/progress.ts";
import { codingsOf, decode } from "./decode.ts";
import { AuthenticationFailure, FileFailure, ServerFailure } from "./failures.ts";
import { type Final, type Following, follow } from "./follow.ts";
import type { HeadersLog } from "./headers-log.ts";
import { nameFromDisposition, nameFromUrl } from "./names.ts";
import { type Earlier, findPart, isSpecial, PartFile } from "./part-file.ts";
import { type Hop, isSameVersion, parseContentRange, versionOf, withoutCredentials } from "./protocol.ts";

export interface DownloadOptions extends Following {
  /** A path, `-` for stdout; else the server or the URL gives a name in this directory. */
  output: string | undefined;
  goesOn: boolean;
  force: boolean;
  showsProgress: boolean;
  headers: HeadersLog;
}

/** Where a body goes. */
interface Sink {
  write(chunk: Buffer): void | Promise<void>;
}

export async function download(first: Hop, options: DownloadOptions): Promise<void> {
  const earlier = options.goesOn ? earlierPart(first, options) : undefined;
  const extra = earlier === undefined ? new Fields() : rangeBehind(earlier);
  let final = await follow(first, options, extra);
  if (earlier !== undefined) {
    const verdict = judge(final.head, earlier);
    if (verdict === "complete") return finish(PartFile.goOn(earlier), earlier.origin?.lastModified, options);
    if (verdict === "continues") return goOn(final, earlier, options);
    if (verdict === "ask anew") {
      await options.client.drop(final);
      final = await follow(first, options);
    }
    if (final.head.status < 300)
      options.say(
        `starting over: ${earlier.path}.part is of another version, or the server does not know ranges`,
      );
  }
  checkStatus(final.head, first.fields.get("Range") !== undefined);
  if (final.framing.kind === "none") return sayEmpty(final, options);
  if (options.output === "-")
    return void (await receive(
      final,
      stdoutSink,
      progressOf(final, options, !process.stdout.isTTY),
      options,
    ));
  await toFile(final, first, earlier?.path, options);
}

/** What identifies a download in its record. */
function recordedUrl({ url }: Hop): string {
  const bare = withoutCredentials(url);
  bare.hash = "";
  return bare.href;
}

function earlierPart(first: Hop, { output, warn }: DownloadOptions): Earlier | undefined {
  const path = output ?? nameFromUrl(first.url);
  const earlier = findPart(path, recordedUrl(first), output !== undefined);
  if (earlier === undefined || earlier.sizeBytes === 0 || earlier.origin?.isDecoded) return undefined;
  if (earlier.origin?.validator === undefined)
    warn(
      `warning: nothing is known that tells versions of ${earlier.path} apart; only its length will be compared`,
    );
  return earlier;
}

/** With `If-Range`, a file that has changed comes whole instead (RFC 9110 §13.1.5). */
function rangeBehind({ sizeBytes, origin }: Earlier): Fields {
  const range = ["Range", `bytes=${sizeBytes}-`] as const;
  return new Fields(origin?.validator === undefined ? [range] : [range, ["If-Range", origin.validator]]);
}

type Verdict = "continues" | "complete" | "ask anew" | "whole";

/** What the answer to a request for the rest is. */
function judge(head: ResponseHead, { sizeBytes, origin }: Earlier): Verdict {
  const range = parseContentRange(head.fields.get("Content-Range"));
  const isSame = origin === undefined || isSameVersion(origin, versionOf(head, Date.now()));
  if (head.status === 416) return range?.totalBytes === sizeBytes && isSame ? "complete" : "ask anew";
  if (head.status !== 206) return "whole";
  return range?.start === sizeBytes && range.end === range.totalBytes && isSame ? "continues" : "ask anew";
}

/** Throws the failure that a status is. A part is only welcome where the user asked for one. */
function checkStatus({ status, reason }: ResponseHead, wantsPart: boolean): void {
  const answer = `the server answered ${status} ${printable(reason)}`.trimEnd();
  if (status === 401)
    throw new AuthenticationFailure(`${answer}; give http://USER:PASSWORD@HOST or --header`);
  if (status >= 300) throw new ServerFailure(answer);
  if (status === 206 && !wantsPart) throw new Failure(`${answer}, though all was asked for`);
}

function sayEmpty({ head, hop }: Final, { say }: DownloadOptions): void {
  const reason = hop.method === "HEAD" ? "HEAD asks for no body" : "there is no body";
  say(`${head.status} ${printable(head.reason)}: ${reason}, so nothing is saved`);
}

const stdoutSink: Sink = {
  write: (chunk) =>
    new Promise((resolve, reject) => {
      process.stdout.write(chunk, (error) =>
        error ? reject(new FileFailure("cannot write to stdout", { cause: error })) : resolve(),
      );
    }),
};

async function toFile(
  final: Final,
  first: Hop,
  wanted: string | undefined,
  options: DownloadOptions,
): Promise<void> {
  const { head } = final;
  const proposed = nameFromDisposition(head.fields.get("Content-Disposition") ?? "");
  const path = wanted ?? options.output ?? proposed ?? nameFromUrl(first.url);
  if (options.output !== undefined && statSync(path, { throwIfNoEntry: false })?.isDirectory())
    throw new FileFailure(`cannot write ${path}: it is a directory; give a file's name`);
  if (isSpecial(path)) return toSpecial(final, path, options);
  if (options.goesOn && isComplete(path, head)) return options.say(`${path} is complete already`);
  const version = versionOf(head, Date.now());
  const isDecoded = decodes(head, options);
  const origin = { url: recordedUrl(first), ...version, ...(isDecoded ? { isDecoded } : {}) };
  const part = PartFile.create(path, origin, options.force);
  await fill(part, final, new Progress(version.totalBytes, 0, options.showsProgress), options);
}

async function goOn(final: Final, earlier: Earlier, options: DownloadOptions): Promise<void> {
  const part = PartFile.goOn(earlier);
  options.say(`going on behind ${formatBytes(earlier.sizeBytes)} of ${earlier.path}.part`);
  const { totalBytes = 0 } = versionOf(final.head, Date.now());
  const progress = new Progress(totalBytes, earlier.sizeBytes, options.showsProgress);
  const rest = { ...final, body: exactly(final.body, totalBytes - earlier.sizeBytes) };
  await fill(part, rest, progress, { ...options, compressed: false }); // what is there was not decompressed
}

/** `Content-Range` and the body's framing can say two things: the part would be joined to the wrong bytes. */
function exactly(body: Body, bytes: number): Body {
  async function* chunks(): AsyncGenerator<Buffer> {
    let left = bytes;
    for await (const chunk of body) {
      left -= chunk.length;
      if (left < 0)
        throw new Failure(`the part is longer than the ${bytes} bytes that its Content-Range says`);
      yield chunk;
    }
    if (left > 0)
      throw new Failure(`the part ended ${left} of the ${bytes} bytes early that its Content-Range says`);
  }
  return {
    [Symbol.asyncIterator]: chunks,
    get trailers() {
      return body.trailers;
    },
  };
}

/** Does the file have the size and time that it would have if it had been loaded from there? */
function isComplete(path: string, { fields }: ResponseHead): boolean {
  const stats = statSync(path, { throwIfNoEntry: false });
  const modifiedMs = parseDate(fields.get("Last-Modified") ?? "");
  if (stats === undefined || modifiedMs === undefined) return false;
  return (
    String(stats.size) === fields.get("Content-Length") &&
    Math.floor(stats.mtimeMs / 1000) * 1000 === modifiedMs
  );
}

const progressOf = ({ head }: Final, { showsProgress }: DownloadOptions, isWanted = true) =>
  new Progress(versionOf(head, 0).totalBytes, 0, showsProgress && isWanted);

/** /dev/null and the like take what comes; there is nothing to rename. */
async function toSpecial(final: Final, path: string, options: DownloadOptions): Promise<void> {
  const onIt = <T>(action: () => T): T => {
    try {
      return action();
    } catch (error) {
      throw new FileFailure(`cannot write ${path}`, { cause: error });
    }
  };
  const fd = onIt(() => openSync(path, "w"));
  try {
    const write = (chunk: Buffer) => {
      for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at);
    };
    await receive(final, { write: (chunk) => onIt(() => write(chunk)) }, progressOf(final, options), options);
  } finally {
    closeSync(fd);
  }
}

async function fill(
  part: PartFile,
  final: Final,
  progress: Progress,
  options: DownloadOptions,
): Promise<void> {
  try {
    await receive(final, part, progress, options);
  } catch (error) {
    part.close();
    if (part.sizeBytes > 0)
      options.warn(`${part.path}.part has ${part.sizeBytes} bytes; go on with --continue`);
    throw error;
  }
  if (final.framing.kind === "close")
    options.say("no length was said: the connection's end is taken for the file's");
  finish(part, final.head.fields.get("Last-Modified"), options, progress);
}

function finish(
  part: PartFile,
  lastModified: string | undefined,
  { force, say }: DownloadOptions,
  progress?: Progress,
): void {
  const modifiedMs = parseDate(lastModified ?? "");
  const name = part.finish(force, modifiedMs);
  part.close();
  const speed =
    progress === undefined
      ? ""
      : ` in ${progress.seconds.toFixed(2)} s, ${formatBytes(Math.round(progress.rate))}/s`;
  say(`saved ${printable(name)}: ${part.sizeBytes.toLocaleString("en")} bytes${speed}`);
}

const decodes = ({ fields }: ResponseHead, { compressed }: DownloadOptions) =>
  compressed && codingsOf(fields).length > 0;

async function receive(
  final: Final,
  sink: Sink,
  progress: Progress,
  options: DownloadOptions,
): Promise<void> {
  const { head, body } = final;
  const wire = counted(body, progress);
  const content = decodes(head, options) ? decode(wire, codingsOf(head.fields)) : wire;
  try {
    for await (const chunk of content) {
      const pending = sink.write(chunk);
      if (pending !== undefined) await pending;
    }
    options.headers.fields(body.trailers);
  } finally {
    progress.end();
  }
}

async function* counted(body: AsyncIterable<Buffer>, progress: Progress): AsyncGenerator<Buffer> {
  for await (const chunk of body) {
    progress.advance(chunk.length);
    yield chunk;
  }
}
