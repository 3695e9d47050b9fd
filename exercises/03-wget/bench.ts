/**
 * 1 GiB from nginx to the disk: ours beside curl and wget, each as a process from its start to its end, with its
 * peak of memory. After each run the file's digest is compared.
 */
import { createHash, randomFillSync } from "node:crypto";
import {
  closeSync,
  createReadStream,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { integer, setting } from "../../shared/config.ts";
import { Failure } from "../../shared/errors.ts";
import { freePort } from "../../shared/free-port.ts";
import {
  type Contender,
  compare,
  median,
  peakMebibytes,
  ROUNDS,
  standingsTable,
} from "../../shared/measure.ts";
import { program, projectFile } from "../../shared/program.ts";
import { isInstalled, Running, within } from "../../shared/running.ts";
import { connect } from "../../shared/tcp.ts";

const MIB = 2 ** 20;
const LOOK_MS = 20;
const LIMIT_MS = 300_000;

/** Without a master process, so that ending it ends all of it. */
const nginxConfig = (folder: string, port: number) => `
daemon off; master_process off; pid ${folder}/nginx.pid; error_log ${folder}/error.log;
events { worker_connections 64; }
http {
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path ${folder}/t1; proxy_temp_path ${folder}/t2; fastcgi_temp_path ${folder}/t3;
  uwsgi_temp_path ${folder}/t4; scgi_temp_path ${folder}/t5;
  server { listen 127.0.0.1:${port}; root ${folder}/root; }
}
`;

async function startNginx(folder: string, port: number): Promise<Running> {
  const config = join(folder, "nginx.conf");
  writeFileSync(config, nginxConfig(folder, port));
  const nginx = new Running("nginx", ["-c", config], {});
  const isUp = () =>
    connect({ host: "127.0.0.1", port }).then(
      (connection) => connection.close().then(() => true),
      () => false,
    );
  while (!(await isUp()))
    if (nginx.child.exitCode !== null) throw new Failure(`nginx does not start: ${nginx.stderr}`);
  return nginx;
}

/** Random, so that nothing on the way can make it smaller. Returns its digest. */
function makeFile(path: string, mebibytes: number): string {
  const hash = createHash("sha256");
  const fd = openSync(path, "w");
  const block = Buffer.alloc(MIB);
  for (let i = 0; i < mebibytes; i++) {
    hash.update(randomFillSync(block));
    writeSync(fd, block);
  }
  closeSync(fd);
  return hash.digest("hex");
}

async function digest(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: MIB })) hash.update(chunk);
  return hash.digest("hex");
}

interface Downloader {
  name: string;
  command: readonly string[];
  peaks: number[];
}

/** One download as a process of its own: MB a second, from its start to its end. */
async function measure(
  { name, command, peaks }: Downloader,
  target: string,
  wanted: string,
  mebibytes: number,
): Promise<number> {
  rmSync(target, { force: true });
  const [file = "", ...args] = command;
  const begin = performance.now();
  await using running = new Running(file, args, {});
  let peak = 0;
  const look = setInterval(() => {
    peak = Math.max(peak, peakMebibytes(running.child.pid) || 0);
  }, LOOK_MS);
  const { code } = await within(running.exited, `${name}'s end`, LIMIT_MS);
  const seconds = (performance.now() - begin) / 1000;
  clearInterval(look);
  peaks.push(peak);
  if (code !== 0 || (await digest(target)) !== wanted)
    throw new Failure(`${name} did not get the file: ${running.stderr}`);
  return (mebibytes * MIB) / 1e6 / seconds;
}

await program({
  summary: "Measures a download to the disk beside curl and wget.",
  example: "--rounds 5",
  settings: {
    rounds: ROUNDS,
    mebibytes: setting(integer(1), "size of the file, MiB", 1024),
  },
  async run({ rounds, mebibytes }, { log }) {
    if (!isInstalled("nginx")) throw new Failure("cannot measure: the server is nginx, and it is missing");
    const folder = mkdtempSync(join(tmpdir(), "netlab-wget-bench-"));
    try {
      mkdirSync(join(folder, "root"));
      log(`${mebibytes} MiB, ${rounds} runs of each …`);
      const wanted = makeFile(join(folder, "root", "file.bin"), mebibytes);
      const port = await freePort();
      await using _nginx = await startNginx(folder, port);
      const url = `http://127.0.0.1:${port}/file.bin`;
      const target = join(folder, "target.bin");
      const wget = [
        process.execPath,
        "--import",
        import.meta.resolve("tsx"),
        projectFile("exercises/03-wget/wget.ts"),
      ];
      const all = [
        { name: "curl", command: ["curl", "--silent", "--noproxy", "*", "--output", target, url] },
        { name: "ours", command: [...wget, url, "--quiet", "--force", "--output", target] },
        { name: "wget", command: ["wget", "--quiet", "--no-proxy", "--no-config", "-O", target, url] },
      ];
      for (const { name } of all) if (name !== "ours" && !isInstalled(name)) log(`missing: ${name}`);
      const downloaders = all
        .filter(({ name }) => name === "ours" || isInstalled(name))
        .map((one) => ({ ...one, peaks: [] as number[] }));
      const contenders = downloaders.map(
        (one): Contender => ({ name: one.name, run: () => measure(one, target, wanted, mebibytes) }),
      );
      const standings = await compare(contenders, rounds);
      process.stdout.write(`${standingsTable(`${mebibytes} MiB to the disk`, "MB/s", standings)}\n\n`);
      for (const { name, peaks } of downloaders)
        process.stdout.write(
          `${name}: peak memory ${median(peaks).toFixed(1)} MiB (median), ${Math.max(...peaks).toFixed(1)} MiB (most)\n`,
        );
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
});
