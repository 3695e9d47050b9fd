/** What must be readable in a chart: title, axes with units, legend, a mark for every value. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { type Chart, svgOf } from "./plot.ts";

const CHART: Chart = {
  title: "RTT of two hosts",
  x: { name: "time (s)" },
  y: { name: "RTT (ms)" },
  series: [
    { name: "near", points: Array.from({ length: 5 }, (_, i) => [i, 1 + i / 10] as const), kind: "points" },
    {
      name: "far <&>",
      points: [
        [0, 40],
        [1, null],
        [2, 41],
        [3, 42],
      ],
    },
  ],
};
const paths = (svg: string, colour: string) => svg.split(`"${colour}"`).length - 1;

test("title, axes with their units and the legend are in it, and XML stays XML", async () => {
  const svg = await svgOf([CHART]);
  assert.match(svg, /^<svg .*<\/svg>\n$/s);
  for (const text of ["RTT of two hosts", "time (s)", "RTT (ms)", "near", "far &lt;&amp;&gt;"])
    assert.ok(svg.includes(text), text);
});

test("every value is drawn, and what is missing interrupts the line", async () => {
  assert.ok(paths(await svgOf([CHART]), "#0072B2") >= 5);
  const strokes = async (middle: number | null) => {
    const points = [40, 41, middle, 42, 43].map((y, x) => [x, y] as const);
    const svg = await svgOf([{ ...CHART, series: [{ name: "far", points }] }]);
    const [line = ""] = /<path d="[^"]*" fill="none"[^>]*stroke="#0072B2"/.exec(svg) ?? [];
    return line.split("M").length - 1;
  };
  assert.deepEqual([await strokes(41.5), await strokes(null)], [1, 2]);
});

test("charts stand one under another, one name has one colour, errors have bars", async () => {
  const errors = [
    [0.9, 1.2],
    [1, 1.3],
    [1, 1.4],
    [1.1, 1.5],
    [1.2, 1.6],
  ] as const;
  const [near] = CHART.series;
  assert.ok(near);
  const svg = await svgOf([
    { ...CHART, series: [near] },
    { ...CHART, title: "again", series: [{ ...near, errors, level: 1 }] },
  ]);
  assert.match(svg, /height="720"/);
  assert.ok(svg.includes("again"));
  assert.equal(paths(svg, "#D55E00"), 0);
  assert.ok(paths(svg, "#0072B2") >= 11);
});
