/** What the benches of HTTP programs stand on: wrk as the load, nginx set up to be measured or to be measured with. */
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "./errors.ts";
import { pinned, type Running, runTool } from "./running.ts";

/** One worker in the foreground, all that it writes in `folder`. `http` stands outside the server's block. */
export const nginxConfig = (folder: string, port: number, server: string, http = "access_log off;") => `
daemon off; worker_processes 1; pid ${folder}/nginx-${port}.pid; error_log ${folder}/error.log;
events { worker_connections 1024; }
http {
  sendfile on; tcp_nopush on; keepalive_requests 1000000000; ${http}
  client_body_temp_path ${folder}/t1; proxy_temp_path ${folder}/t2; fastcgi_temp_path ${folder}/t3;
  uwsgi_temp_path ${folder}/t4; scgi_temp_path ${folder}/t5;
  server { listen 127.0.0.1:${port}; ${server} }
}
`;

export const sha1 = (bytes: Buffer) => createHash("sha1").update(bytes).digest("hex");

/** Waits for a program that says nothing when it is ready: `curl` with these arguments must succeed. Throws `Failure`. */
export async function untilItAnswers(name: string, running: Running, ...args: string[]): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    if ((await runTool("curl", ["-s", "-f", "-o", "/dev/null", ...args])).code === 0) return;
    await sleep(50);
  }
  await running[Symbol.asyncDispose]();
  throw new Failure(`${name} does not answer: ${running.stdout}${running.stderr}`);
}

export interface Load {
  requests: number;
  perSecond: number;
  /** The slowest hundredth took longer. */
  p99Ms: number;
  /** Answers that were errors; connections that broke. */
  errors: number;
  broken: number;
}

const MILLISECONDS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000, m: 60_000 };

/** What wrk has printed with `--latency`. */
export function readWrk(stdout: string): Load {
  const number = (pattern: RegExp) => Number(pattern.exec(stdout)?.[1] ?? 0);
  const [, p99 = "", unit = ""] = /^ +99% +([\d.]+)(us|ms|s|m)$/m.exec(stdout) ?? [];
  const [socketErrors = ""] = /^ +Socket errors:.*$/m.exec(stdout) ?? [];
  return {
    requests: number(/^ +(\d+) requests in /m),
    perSecond: number(/^Requests\/sec: +([\d.]+)/m),
    p99Ms: Number(p99) * (MILLISECONDS[unit] ?? Number.NaN),
    errors: number(/^ +Non-2xx or 3xx responses: (\d+)/m),
    broken: (socketErrors.match(/\d+/g) ?? []).reduce((sum, count) => sum + Number(count), 0),
  };
}

/** wrk on the first core: so many connections that stay open, each asks again when it is answered. Throws `Failure` where nothing was. */
export async function wrk(clients: number, durationS: number, ...args: string[]): Promise<Load> {
  const load = ["wrk", "-t1", `-c${clients}`, `-d${durationS}`, "--latency", ...args];
  const [command = "", ...rest] = [...pinned(0), ...load];
  const { stdout, stderr } = await runTool(command, rest);
  const read = readWrk(stdout);
  if (read.requests === 0) throw new Failure(`wrk was not answered: ${stdout}${stderr}`);
  return read;
}
