/** Several processes behind one port: the primary accepts and hands the connections round (`node:cluster`). */
import cluster, { type Worker } from "node:cluster";
import { Failure } from "../../shared/errors.ts";
import type { Context } from "../../shared/program.ts";

type WhenUp = (url: string, pid: number | undefined) => void;

/** Runs this program again `count` times until it is stopped. One that ends is replaced, one that cannot start ends all. */
export async function runWorkers(count: number, { signal, ready, log, debug }: Context): Promise<void> {
  const failed = new AbortController();
  const stopped = AbortSignal.any([signal, failed.signal]);
  let missing = count;
  const whenUp: WhenUp = (url, pid) => {
    debug(`worker ${pid} serves`);
    missing--;
    if (missing === 0) ready(url);
  };
  const places = Array.from({ length: count }, () => fillPlace(stopped, whenUp, log));
  try {
    await Promise.all(places);
  } finally {
    failed.abort();
    await Promise.allSettled(places);
  }
}

async function fillPlace(signal: AbortSignal, whenUp: WhenUp, log: Context["log"]): Promise<void> {
  while (!signal.aborted) {
    const worker = cluster.fork();
    const { pid } = worker.process;
    const stop = () => void worker.process.kill("SIGTERM");
    signal.addEventListener("abort", stop, { once: true });
    const end = ending(worker);
    const url = await Promise.race([listening(worker), end.then(() => undefined)]);
    if (url !== undefined) whenUp(url, pid);
    const how = await end;
    signal.removeEventListener("abort", stop);
    if (signal.aborted) return;
    if (url === undefined) throw new Failure(`a worker could not start (${how})`);
    log(`worker ${pid} has ended (${how}), another takes its place`);
  }
}

const listening = (worker: Worker) =>
  new Promise<string>((resolve) => worker.once("message", (url) => resolve(String(url))));
const ending = (worker: Worker) =>
  new Promise<string>((resolve) =>
    worker.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`)),
  );
