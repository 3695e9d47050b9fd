/** What wrk prints, read. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { readWrk } from "./http-load.ts";

test("wrk's report: requests, rate, latency, and what went wrong", () => {
  const report = `Running 1s test @ http://127.0.0.1:10600/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.27ms    3.10ms  79.61ms   98.39%
    Req/Sec    69.88k     6.68k   77.61k    90.00%
  Latency Distribution
     50%  812.00us
     75%    0.98ms
     90%    1.33ms
     99%    9.48ms
  69551 requests in 1.00s, 49.42MB read
  Socket errors: connect 1, read 20, write 0, timeout 3
  Non-2xx or 3xx responses: 17
Requests/sec:  69422.51
Transfer/sec:     49.33MB
`;
  assert.deepEqual(readWrk(report), {
    requests: 69_551,
    perSecond: 69_422.51,
    p99Ms: 9.48,
    errors: 17,
    broken: 24,
  });
  const well = report.replace(/^ +(Socket|Non-2xx).*\n/gm, "").replace("9.48ms", "1.05s");
  const { errors, broken, p99Ms } = readWrk(well);
  assert.deepEqual([errors, broken, p99Ms], [0, 0, 1050]);
  assert.equal(readWrk("unable to connect").requests, 0);
});
