/** Measurements as a picture: line, step, point and error-bar charts in SVG, by ECharts, legible on a wall. */
import type { EChartsOption, SeriesOption } from "echarts";

export interface Axis {
  /** With its unit: `"RTT (ms)"`. */
  name: string;
  scale?: "linear" | "log";
  min?: number;
  max?: number;
}

export interface Series {
  /** As the legend shows it; the same name in several charts has one colour. */
  name: string;
  /** x and y in the axes' units. A y of `null` interrupts a line. */
  points: readonly (readonly [x: number, y: number | null])[];
  kind?: "line" | "step" | "points";
  /** Error bars: for each point the lowest and the highest y. */
  errors?: readonly (readonly [low: number, high: number])[];
  /** A line across the chart at this y, named as the series. */
  level?: number;
}

export interface Chart {
  title: string;
  x: Axis;
  y: Axis;
  series: readonly Series[];
}

const WIDTH = 960;
const CHART_HEIGHT = 360;
const MARGIN = { left: 80, right: 30, top: 84, bottom: 56 };
/** Okabe and Ito's colours, which the colour-blind can tell apart. */
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"];

/** The charts, one under another, as the text of an SVG file. */
export async function svgOf(charts: readonly Chart[]): Promise<string> {
  const { init } = await import("echarts"); // a third of a second: only for those who draw
  const height = charts.length * CHART_HEIGHT;
  const picture = init(null, null, { renderer: "svg", ssr: true, width: WIDTH, height });
  try {
    picture.setOption(optionsOf(charts));
    return `${picture.renderToSVGString()}\n`;
  } finally {
    picture.dispose();
  }
}

function optionsOf(charts: readonly Chart[]): EChartsOption {
  const top = (index: number) => index * CHART_HEIGHT;
  const names = [...new Set(charts.flatMap(({ series }) => series.map(({ name }) => name)))];
  const colourOf = (name: string) => COLOURS[names.indexOf(name) % COLOURS.length] ?? "#000000";
  const axis = ({ name, scale, min, max }: Axis, gridIndex: number, nameGap: number) => ({
    name,
    nameGap,
    gridIndex,
    nameLocation: "middle" as const,
    nameTextStyle: { fontSize: 16, color: "#222" },
    axisLabel: { fontSize: 14, color: "#222", hideOverlap: true },
    type: scale === "log" ? ("log" as const) : ("value" as const),
    ...(min === undefined ? {} : { min }),
    ...(max === undefined ? {} : { max }),
  });
  return {
    animation: false,
    backgroundColor: "#ffffff",
    title: charts.map(({ title }, i) => ({
      text: title,
      left: "center",
      top: top(i) + 12,
      textStyle: { fontSize: 20, color: "#111" },
    })),
    legend: charts.map(({ series }, i) => ({
      data: series.map(({ name }) => name),
      itemGap: 24,
      top: top(i) + 46,
      left: "center",
      textStyle: { fontSize: 14, color: "#222" },
    })),
    grid: charts.map((_, i) => ({
      left: MARGIN.left,
      right: MARGIN.right,
      top: top(i) + MARGIN.top,
      height: CHART_HEIGHT - MARGIN.top - MARGIN.bottom,
    })),
    xAxis: charts.map(({ x }, i) => axis(x, i, 32)),
    yAxis: charts.map(({ y }, i) => axis(y, i, 56)),
    series: charts.flatMap(({ series }, i) => series.flatMap((one) => drawn(one, i, colourOf(one.name)))),
  };
}

function drawn(series: Series, chart: number, colour: string): SeriesOption[] {
  const { name, points, kind = "line", errors, level } = series;
  const place = { name, xAxisIndex: chart, yAxisIndex: chart, itemStyle: { color: colour } };
  const data = points.map(([x, y]) => [x, y]);
  const mark =
    level === undefined
      ? {}
      : { markLine: { symbol: "none", label: { fontSize: 14 }, data: [{ yAxis: level, name }] } };
  const main: SeriesOption =
    kind === "points"
      ? { ...place, ...mark, type: "scatter", symbolSize: 8, data }
      : {
          ...place,
          ...mark,
          type: "line",
          showSymbol: data.length < 40,
          symbolSize: 7,
          lineStyle: { width: 2.5, color: colour },
          connectNulls: false,
          data,
          ...(kind === "step" ? { step: "end" as const } : {}),
        };
  if (errors === undefined) return [main];
  const bars = points.flatMap(([x], i) => {
    const [low, high] = errors[i] ?? [Number.NaN, Number.NaN];
    return [
      [x, low],
      [x, high],
      [x, null],
    ];
  });
  return [
    main,
    { ...place, type: "line", showSymbol: false, lineStyle: { width: 1.5, color: colour }, data: bars },
  ];
}
