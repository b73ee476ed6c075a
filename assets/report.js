/** Draws a report's charts (lib/report/charts.ts) with uPlot, in the page's colours, as wide as there is room. */
(() => {
  const HEIGHT = 260;
  const FONT = "12px system-ui, sans-serif";
  let charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map();

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  /** A number in few characters. */
  function short(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e6 || size < 9.9e-5)
      return value
        .toExponential(2)
        .replace(/\.?0+e/, "e")
        .replace("e+", "e");
    return Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 10 });
  }

  /** Of the page's colours; beyond those, hues that are far from one another. */
  const strokeOf = (index) => (index < 6 ? color(`color-${index}`) : `hsl(${Math.round(index * 137.5) % 360} 60% 50%)`);
  const faint = (style, stroke) => (style === "faint" ? (stroke.startsWith("#") ? `${stroke}80` : stroke) : stroke);

  /** The series' columns over the union of their x; where a series has none, undefined, which uPlot draws a line across. */
  function join(series) {
    return series.length === 0 ? [[]] : uPlot.join(series.map(({ x, y }) => [x, y]));
  }

  function seriesOptions({ label, color: index, style, x }, unit) {
    const stroke = strokeOf(index);
    // A line of one point would not show.
    const points = style === "dots" || x.length === 1;
    return {
      label,
      stroke: faint(style, stroke),
      width: style === "line" ? 2 : style === "faint" ? 1 : 1.5,
      dash: style === "dots" ? [4, 3] : undefined,
      spanGaps: style === "dots",
      points: { show: points, size: 6, stroke, fill: stroke, filter: points ? presentPoints : undefined },
      value: (_plot, value) => (value == null ? "–" : short(value) + unit),
    };
  }

  function presentPoints(plot, index, shown) {
    if (!shown) return null;
    const found = [];
    plot.data[index].forEach((value, i) => {
      if (value != null) found.push(i);
    });
    return found;
  }

  /** As wide as the longest of its labels. */
  function widthOf(plot, labels) {
    if (!labels) return 40;
    plot.ctx.save();
    plot.ctx.font = FONT;
    const widest = Math.max(0, ...labels.map((label) => plot.ctx.measureText(label ?? "").width));
    plot.ctx.restore();
    return Math.ceil(widest) + 18;
  }

  /** Filled, as a line is drawn; hollow and dashed, as points with a dashed line are; pale. */
  function markers(series) {
    const one = (index) => series[index - 1];
    return {
      width: 2,
      stroke: (_plot, index) => faint(one(index).style, strokeOf(one(index).color)),
      fill: (_plot, index) => (one(index).style === "dots" ? "transparent" : faint(one(index).style, strokeOf(one(index).color))),
      dash: (_plot, index) => (one(index).style === "dots" ? "dashed" : "solid"),
    };
  }

  function axis(label, values) {
    const line = { stroke: color("grid"), width: 1 };
    return {
      label,
      labelSize: label ? 20 : 0,
      stroke: color("muted"),
      grid: line,
      ticks: line,
      font: FONT,
      labelFont: FONT,
      values,
    };
  }

  /** From 0 up to yTop at least, where there is a yTop; otherwise around the values. */
  const range = (yTop) => (_plot, low, high) => {
    if (low === null) return [0, yTop || 1];
    if (yTop !== null) return [0, 1.05 * Math.max(high, yTop) || 1];
    const margin = (high - low || Math.abs(high) || 1) * 0.06;
    return [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
  };

  /** Of many decades, so many that their labels have room; the lines between decades are left out then. */
  const MOST_DECADES = 8;
  const someDecades = (_plot, splits) => {
    const power = (value) => Math.log10(value);
    const isDecade = (value) => Math.abs(power(value) - Math.round(power(value))) < 1e-9;
    const all = splits.filter((value) => value !== null && isDecade(value));
    if (all.length <= MOST_DECADES) return splits;
    const every = Math.ceil(all.length / MOST_DECADES);
    return splits.map((value) => (value !== null && isDecade(value) && Math.round(power(value)) % every === 0 ? value : null));
  };

  /** Whole numbers alone: there is no step 2.5. */
  const wholes = (_plot, splits) => splits.map((value) => (Number.isInteger(value) ? value.toLocaleString("en") : ""));

  /** What a plot's options depend on; the same: new values can go into the plot that is there. */
  const signature = ({ series, ...chart }) =>
    JSON.stringify([chart, series.map(({ label, color: index, style, x }) => [label, index, style, x.length === 1])]);

  function draw(chart) {
    const figure = document.getElementById(`chart-${chart.id}`);
    const place = figure.querySelector(".plot");
    drawn.get(chart.id)?.destroy();
    drawn.delete(chart.id);
    if (isZero(chart)) return tellZero(figure, place, chart);
    place.textContent = "";
    const decades = { stroke: color("grid"), width: 1, filter: someDecades };
    const ys = chart.logarithmic ? { distr: 3 } : { range: range(chart.yTop) };
    const plot = new uPlot(
      {
        width: place.clientWidth,
        height: HEIGHT,
        scales: { x: { time: false }, y: ys },
        axes: [
          { ...axis(chart.xLabel, wholes), size: 32 },
          {
            ...axis(chart.yLabel, (plot, splits) =>
              (chart.logarithmic ? someDecades(plot, splits) : splits).map((value) =>
                value === null ? "" : short(value) + chart.unit,
              ),
            ),
            size: widthOf,
            ...(chart.logarithmic && { grid: decades, ticks: decades }),
          },
        ],
        series: [
          { label: chart.xLabel, value: (_plot, value) => (value == null ? "–" : value.toLocaleString("en")) },
          ...chart.series.map((one) => seriesOptions(one, chart.unit)),
        ],
        legend: { markers: markers(chart.series) },
        cursor: chart.xLabel === "step" ? { sync: { key: "step" } } : {},
        // Without the cursor there are no values to tell.
        hooks: { setCursor: [({ root, cursor }) => root.classList.toggle("idle", cursor.idx == null)] },
      },
      join(chart.series),
      place,
    );
    plot.root.querySelector("canvas").setAttribute("aria-label", chart.title);
    plot.root.classList.add("idle");
    plot.signature = signature(chart);
    drawn.set(chart.id, plot);
    count(figure, plot.data.slice(1));
  }

  /** Whether there is nothing to draw but a line on the axis. */
  const isZero = ({ yTop, series }) =>
    yTop !== null && series.every(({ y }) => y.every((value) => value === 0)) && series.some(({ y }) => y.length > 0);

  function tellZero(figure, place, { series, xLabel }) {
    const points = Math.max(...series.map(({ y }) => y.length));
    place.textContent = points === 1 ? `0 at the one ${xLabel}.` : `0 at each of ${points.toLocaleString("en")} ${xLabel}s.`;
    count(
      figure,
      series.map(({ y }) => y),
    );
  }

  /** How many points each line has, for those that cannot see it. */
  function count(figure, columns) {
    figure.dataset.points = columns.map((column) => column.filter((value) => value != null).length).join(" ");
  }

  /** New values, or a new plot where it is another chart or the figure is a new one. A part that was zoomed into stays. */
  function update(chart) {
    const figure = document.getElementById(`chart-${chart.id}`);
    const plot = drawn.get(chart.id);
    if (!plot || isZero(chart) || plot.signature !== signature(chart) || !figure.contains(plot.root)) return draw(chart);
    const [x] = plot.data;
    const { min, max } = plot.scales.x;
    const zoomed = min > x[0] || max < x[x.length - 1];
    plot.setData(join(chart.series), !zoomed);
    if (zoomed) plot.redraw();
    count(figure, plot.data.slice(1));
  }

  const drawAll = () => charts.forEach(draw);
  drawAll();
  document.addEventListener("charts", ({ detail }) => {
    charts = detail;
    charts.forEach(update);
  });
  dark.addEventListener("change", drawAll);
  new ResizeObserver(() => {
    for (const [id, plot] of drawn) {
      const width = document.querySelector(`#chart-${id} .plot`)?.clientWidth ?? plot.width;
      if (width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }).observe(document.querySelector("main"));
})();
