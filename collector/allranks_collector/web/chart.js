// uPlot with our look: a band or lines, a tooltip of text, zoom by drag, cursors in step with the other charts.
import uPlot from "./vendor/uplot-1.6.32.js";
import { axisDurations, axisNumbers, count, duration, number } from "./format.js";
import { chartColors, rankColor } from "./theme.js";

const TOOLTIP_LINES = 8;
// Of the values in view, the share at either end that "no outliers" leaves out of the y range.
const CLIP_SHARE = 0.02;
const CLIP_MIN_VALUES = 25;
const AXIS_FONT = "11px system-ui, sans-serif";

/** How an x value reads: a step, a duration since the run began, or a metric's value. */
export const xText = (kind, value) => (kind === "time" ? duration(value) : kind === "step" ? count(value) : number(value));

/** Draws a chart into `host`.
 *
 * @param {HTMLElement} host
 * @param {object} spec
 * @param {"mean" | "lines"} spec.mode columns are [x, min, max, mean, smoothed] or [x, one per rank …]
 * @param {"step" | "time" | string} spec.xKind
 * @param {boolean} spec.log logarithmic y
 * @param {boolean} spec.clip whether y leaves out the outermost values, so that a spike does not flatten the rest
 * @param {boolean} spec.smoothed whether the mean column is drawn faintly behind its smoothed line
 * @param {number[]} spec.ranks the rank of each line
 * @param {string} spec.syncKey charts with the same key move their cursors together
 * @param {(range: [number, number] | null) => void} spec.onZoom
 * @param {(index: number | null) => void} spec.onCursor
 * @param {(index: number) => Array<[string, string]>} spec.describe tooltip rows at an index (mode "mean")
 */
export function drawChart(host, spec) {
  const colors = chartColors();
  let zoom = null;
  let hovered = false;

  const options = {
    width: Math.max(120, host.clientWidth),
    height: Math.max(80, host.clientHeight),
    padding: [8, 12, 0, 0],
    legend: { show: false },
    scales: {
      x: { time: false, range: (_, min, max) => zoom ?? widen(min, max) },
      y: { distr: spec.log ? 3 : 1, range: spec.log ? logRange : spec.clip ? clippedRange : undefined },
    },
    axes: axes(spec, colors),
    ...(spec.mode === "mean" ? meanSeries(spec, colors) : lineSeries(spec, colors)),
    cursor: {
      sync: { key: spec.syncKey, setSeries: false, filters: { pub: isMove, sub: isMove } },
      drag: { x: true, y: false, setScale: false, dist: 4 },
      points: { size: 6, width: 1.5, show: spec.mode === "mean" ? (u, i) => (i === 4 ? cursorPoint(colors.mean) : false) : false },
      focus: { prox: spec.mode === "lines" ? 1e6 : -1 },
      bind: { dblclick: () => () => spec.onZoom(null) },
    },
    focus: { alpha: spec.ranks.length > 1 ? 0.22 : 1 },
    hooks: {
      setSelect: [(u) => {
        const { left, width } = u.select;
        if (width < 4) return;
        const range = [u.posToVal(left, "x"), u.posToVal(left + width, "x")];
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        spec.onZoom(range);
      }],
      setCursor: [(u) => {
        spec.onCursor(u.cursor.idx ?? null);
        tooltip.show(hovered ? u : null);
      }],
      setSeries: [(u) => tooltip.show(hovered ? u : null)],
    },
  };

  const plot = new uPlot(options, [[], ...options.series.slice(1).map(() => [])], host);
  const tooltip = createTooltip(host, spec);
  plot.over.addEventListener("mouseenter", () => { hovered = true; });
  plot.over.addEventListener("mouseleave", () => {
    hovered = false;
    tooltip.show(null);
  });

  return {
    /** Shows other columns, over the zoomed x range where one is given. */
    update(columns, range) {
      zoom = range;
      plot.setData(columns, true);
    },
    resize() {
      const [width, height] = [Math.max(120, host.clientWidth), Math.max(80, host.clientHeight)];
      if (width !== plot.width || height !== plot.height) plot.setSize({ width, height });
    },
    destroy() {
      tooltip.remove();
      plot.destroy();
    },
  };
}

const isMove = (type) => type === "mousemove" || type === "mouseleave";

/** A single x, or none, still needs a range to be drawn in. */
function widen(min, max) {
  if (min === null || max === null || min === undefined) return [0, 1];
  return min === max ? [min - 0.5, max + 0.5] : [min, max];
}

function logRange(u, min, max) {
  if (min === null || max === null || !(min > 0)) return [0.1, 1];
  return uPlot.rangeLog(min, max, 10, false);
}

/** The range of all but the outermost values in view. */
function clippedRange(u, min, max) {
  const [first, last] = u.series[0].idxs ?? [0, u.data[0].length - 1];
  const values = u.data.slice(1)
    .flatMap((column, i) => (u.series[i + 1].show ? Array.prototype.slice.call(column, first, last + 1) : []))
    .filter((value) => value !== null && value !== undefined)
    .sort((a, b) => a - b);
  if (values.length < CLIP_MIN_VALUES) return uPlot.rangeNum(min ?? 0, max ?? 1, 0.1, true);
  const cut = Math.floor(values.length * CLIP_SHARE);
  const [low, high] = [values[cut], values[values.length - 1 - cut]];
  return low === high ? uPlot.rangeNum(min, max, 0.1, true) : uPlot.rangeNum(low, high, 0.1, true);
}

function axes(spec, colors) {
  const common = {
    stroke: colors.text, font: AXIS_FONT, grid: { stroke: colors.grid, width: 1 }, ticks: { show: false },
  };
  return [
    {
      ...common, size: 24, gap: 4, space: 64, grid: { show: false }, ticks: { show: true, stroke: colors.grid, size: 4, width: 1 },
      values: (_, values) => (spec.xKind === "time" ? axisDurations(values) : axisNumbers(values)),
      incrs: spec.xKind === "step" ? STEP_INCREMENTS : spec.xKind === "time" ? TIME_INCREMENTS : undefined,
    },
    {
      ...common, gap: 6, space: spec.log ? 18 : 30,
      size: (_, values) => 16 + 6.2 * Math.max(3, ...(values ?? []).map((v) => v.length)),
      values: (_, values) => (spec.log ? values.map((v) => (v === null ? "" : number(v))) : axisNumbers(values)),
    },
  ];
}

const STEP_INCREMENTS = Array.from({ length: 15 }, (_, i) => [1, 2, 5].map((n) => n * 10 ** i)).flat();
const TIME_INCREMENTS = [
  0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200,
  86400, 172800, 432800, 864000, 1728000, 4320000, 8640000,
];

function meanSeries(spec, colors) {
  const edge = { stroke: "transparent", width: 0, points: { show: false } };
  return {
    series: [
      {}, edge, edge,
      { stroke: colors.faint, width: 1, show: spec.smoothed, points: { show: false } },
      { stroke: colors.mean, width: 1.5, points: { size: 4, fill: colors.mean } },
    ],
    bands: [{ series: [2, 1], fill: colors.band }],
  };
}

function lineSeries(spec, colors) {
  const width = spec.ranks.length > 16 ? 1 : 1.25;
  return {
    series: [{}, ...spec.ranks.map((rank) => {
      const stroke = rankColor(rank, colors.lightness);
      return { stroke, width, points: { size: 4, fill: stroke } };
    })],
  };
}

function cursorPoint(color) {
  const point = document.createElement("div");
  point.className = "cursor-point";
  point.style.background = color;
  return point;
}

/** A tooltip inside `host` that follows the cursor. All that it shows is put in as text. */
function createTooltip(host, spec) {
  const box = document.createElement("div");
  box.className = "chart-tooltip";
  box.hidden = true;
  host.append(box);

  const row = (label, value, { color, strong } = {}) => {
    const line = document.createElement("div");
    if (strong) line.className = "strong";
    if (color) {
      const swatch = document.createElement("i");
      swatch.style.background = color;
      line.append(swatch);
    }
    const name = document.createElement("span");
    name.textContent = label;
    const figure = document.createElement("b");
    figure.textContent = value;
    line.append(name, figure);
    return line;
  };

  const lineRows = (u, index) => {
    const { lightness } = chartColors();
    const at = u.posToVal(u.cursor.top, "y");
    const shown = spec.ranks
      // Ranks need not have the same x: uPlot knows each line's nearest point.
      .map((rank, i) => ({ rank, value: u.data[i + 1][u.cursor.idxs[i + 1] ?? index] }))
      .filter(({ value }) => value !== null && value !== undefined)
      .sort((a, b) => Math.abs(a.value - at) - Math.abs(b.value - at));
    const rows = shown.slice(0, TOOLTIP_LINES)
      .sort((a, b) => b.value - a.value)
      .map(({ rank, value }) => row(`rank ${rank}`, number(value), {
        color: rankColor(rank, lightness), strong: rank === shown[0].rank,
      }));
    if (shown.length > TOOLTIP_LINES) rows.push(row(`+ ${shown.length - TOOLTIP_LINES} more`, ""));
    return rows;
  };

  return {
    show(u) {
      const index = u?.cursor.idx ?? null;
      const outside = !u || index === null || u.cursor.left < 0;
      const rows = outside ? [] : spec.mode === "mean"
        ? spec.describe(index).map(([label, value]) => row(label, value)) : lineRows(u, index);
      if (rows.length === 0) {
        box.hidden = true;
        return;
      }
      const head = document.createElement("header");
      head.textContent = `${spec.xKind === "time" ? "" : `${spec.xKind} `}${xText(spec.xKind, u.data[0][index])}`;
      box.replaceChildren(head, ...rows);
      box.hidden = false;
      const left = u.over.offsetLeft + u.cursor.left;
      const flip = left + box.offsetWidth + 24 > host.clientWidth && left > box.offsetWidth + 12;
      box.style.transform = `translate(${Math.round(flip ? left - box.offsetWidth - 12 : left + 12)}px, 8px)`;
    },
    remove: () => box.remove(),
  };
}
