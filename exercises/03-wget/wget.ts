/** Downloads what a URL names over HTTP/1.1 on sockets. Exit codes are GNU wget's, see `failures.ts`. */
import { readFileSync } from "node:fs";
import { rootCertificates } from "node:tls";
import { setFlagsFromString } from "node:v8";
import { flag, integer, many, optional, type Parse, peerPort, setting, text } from "../../shared/config.ts";
import { explain, Failure, UsageError } from "../../shared/errors.ts";
import { type Fields, HttpError, parseFields } from "../../shared/http.ts";
import { printable } from "../../shared/printable.ts";
import { program } from "../../shared/program.ts";
import { Cookies } from "./cookies.ts";
import { download } from "./download.ts";
import { Client } from "./exchange.ts";
import { classified, FileFailure } from "./failures.ts";
import { HeadersLog } from "./headers-log.ts";
import { httpUrl, withoutCredentials } from "./protocol.ts";
import { proxyFromEnvironment, proxyUrl } from "./proxy.ts";

/** These say where a message ends or whom it is for: with others than ours the two sides would disagree. */
const OURS =
  /^(?:connection|content-length|transfer-encoding|te|trailer|upgrade|expect|keep-alive|proxy-.*)$/i;
const INTERRUPTED = 130;

/** `K: V`, as it travels: UTF-8. */
const headerLine: Parse<readonly [string, string]> = (line) => {
  let fields: Fields;
  try {
    fields = parseFields([Buffer.from(line).toString("latin1")]);
  } catch (error) {
    if (error instanceof HttpError) throw new Failure('is not of the form "Name: value"');
    throw error;
  }
  const [field = ["", ""] as const] = fields;
  if (OURS.test(field[0])) throw new Failure("is a field that the program sets itself");
  return field;
};

const method: Parse<string> = (name) => {
  if (/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) && name !== "CONNECT") return name;
  throw new Failure("is not a method to ask for something");
};

const fieldValue: Parse<string> = (value) => {
  if (/^(?:[!-~](?:[ -~]*[!-~])?)?$/.test(value)) return value;
  throw new Failure("is not fit for a header field");
};

function authorities(path: string | undefined): readonly string[] | undefined {
  if (path === undefined) return undefined;
  let pem: string;
  try {
    pem = readFileSync(path, "utf8");
  } catch (error) {
    throw new FileFailure(`cannot read ${path}`, { cause: error });
  }
  if (!pem.includes("-----BEGIN CERTIFICATE-----"))
    throw new UsageError(`--ca ${path} holds no certificate in PEM`);
  return [...rootCertificates, pem];
}

// Garbage is collected rather than kept for later: the peak of 1 GiB goes from 99 to 92 MiB, of which 87 are Node's own.
setFlagsFromString("--optimize-for-size");

await program({
  summary: "Downloads what a URL names, as wget does.",
  example: "http://127.0.0.1:10600/style.css --headers-log headers.log",
  settings: {
    URL: optional(httpUrl, "what to download; without a scheme it is http", { positional: true }),
    url: optional(httpUrl, "the same"),
    output: optional(text, "file to write, - for stdout (default: by the server's or the URL's name)", {
      alias: ["O"],
    }),
    proxy: optional(text, "proxy, a URL or a host (default: http_proxy, https_proxy, no_proxy)"),
    port: optional(peerPort, "the proxy's port, where --proxy does not say it"),
    headersLog: optional(text, "file to add every status line and header to"),
    logSecrets: flag("write passwords and cookies that are sent to the headers log, too"),
    maxRedirects: setting(integer(0), "redirections to follow", 20),
    timeout: setting(integer(0, 86_400_000), "milliseconds to wait for anything, 0 = for ever", 30_000),
    continue: flag("go on with what an earlier download has left in NAME.part", { alias: ["c"] }),
    force: flag("overwrite an existing file, rather than to write NAME.1"),
    header: many(headerLine, 'field to send, "Name: value"; may be given several times'),
    method: optional(method, "method of the request (default: GET, with --data POST)"),
    data: optional(text, "body of the request"),
    userAgent: setting(fieldValue, "what to send as User-Agent, empty for none", "netlab-wget/0.1"),
    compressed: flag("ask for a compressed body, and decompress it"),
    insecure: flag("do not verify the certificate of an https server"),
    ca: optional(text, "file with the certificates of further authorities, in PEM"),
    quiet: flag("say nothing but warnings and errors", { alias: ["q"] }),
  },
  async run(settings, { signal, log }) {
    const url = settings.URL ?? settings.url;
    if (url === undefined) throw new UsageError("URL is missing: what to download; see --help");
    if (settings.URL !== undefined && settings.url !== undefined)
      throw new UsageError("URL and --url are both given");
    if (settings.port !== undefined && settings.proxy === undefined)
      throw new UsageError("--port is the proxy's: it goes with --proxy; a server's port stands in the URL");
    const { data } = settings;
    const first = {
      method: settings.method ?? (data === undefined ? "GET" : "POST"),
      url,
      fields: parseFields(settings.header.map(([name, value]) => `${name}: ${value}`)),
      body: data === undefined ? undefined : Buffer.from(data),
    };
    const partial =
      first.method !== "GET" || settings.output === "-" || first.fields.get("Range") !== undefined;
    if (settings.continue && partial)
      throw new UsageError("--continue goes with a plain GET into a file only");
    const proxy = settings.proxy === undefined ? undefined : proxyUrl(settings.proxy, "--proxy");
    if (proxy !== undefined && proxy.port === "" && settings.port !== undefined)
      proxy.port = String(settings.port);
    const headers = new HeadersLog(settings.headersLog, settings.logSecrets);
    const client = new Client({
      timeoutMs: settings.timeout,
      signal,
      proxyFor: (to) => proxy ?? proxyFromEnvironment(to, process.env),
      authorities: authorities(settings.ca),
      insecure: settings.insecure,
      headers,
    });
    if (settings.insecure) log("warning: certificates are not verified (--insecure)");
    const say = settings.quiet ? () => {} : log;
    try {
      await download(first, {
        ...settings,
        goesOn: settings.continue,
        showsProgress: !settings.quiet && process.stderr.isTTY,
        ...{ client, headers, say, cookies: new Cookies(), warn: log },
      });
    } catch (error) {
      const known = classified(error);
      headers.note(explain(known));
      if (!(known instanceof Failure)) throw known;
      if (!signal.aborted) throw Object.assign(known, { message: lineAbout(url, known), cause: undefined });
      log("stopped");
      process.exitCode = INTERRUPTED; // what a shell takes for it; 0 would say that the file is there
    } finally {
      client.close();
      headers.close();
    }
  },
});

/** What peers have said may be in it. */
function lineAbout(url: URL, error: Failure): string {
  return printable(`cannot fetch ${withoutCredentials(url).href}: ${explain(error)}`);
}
