import { LocalCluster } from "./local-cluster.ts";

const c = await LocalCluster.of({ mappers: 4, args: ["--verbose"] });
for (const f of ["/tmp/q105.txt", "/work/shared/data/pg2000.txt", "/tmp/q105.txt"]) {
  const t = performance.now();
  const m = await c.master(f, "/tmp/out14.txt");
  console.log(await m.exited, m.stderr, performance.now() - t);
}
for (const n of c.names) console.log(n, c.node(n).stderr);
await c[Symbol.asyncDispose]();
