/** Several processes behind one port: the primary accepts and hands the connections round (`node:cluster`). */
import cluster, { type Worker } from "node:cluster";
import { Failure } from "../../shared/errors.ts";
import type { Context } from "../../shared/program.ts";

/** Runs this program again `count` times, and ends when all have ended; the loss of one is the end of all. */
export async function runWorkers(count: number, { signal, ready, debug }: Context): Promise<void> {
  const workers = Array.from({ length: count }, () => cluster.fork());
  const stop = () => {
    for (const worker of workers) worker.process.kill("SIGTERM");
  };
  signal.addEventListener("abort", stop, { once: true });
  const endings = workers.map(ending);
  const firstEnd = Promise.race(endings);
  try {
    const urls = await Promise.race([Promise.all(workers.map(listening)), firstEnd]);
    debug(`workers: ${workers.map((worker) => worker.process.pid).join(", ")}`);
    if (Array.isArray(urls)) ready(urls[0] ?? "");
    const how = await firstEnd;
    if (!signal.aborted) throw new Failure(`a worker has ended (${how})`);
  } finally {
    stop();
    await Promise.all(endings);
  }
}

const listening = (worker: Worker) =>
  new Promise<string>((resolve) => worker.once("message", (url) => resolve(String(url))));
const ending = (worker: Worker) =>
  new Promise<string>((resolve) =>
    worker.once("exit", (code, signal) => resolve(`exit code ${code ?? signal}`)),
  );
