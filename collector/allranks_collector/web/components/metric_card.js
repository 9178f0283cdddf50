// One key's chart: it loads when it comes into view, follows the run at a bounded rate, and redraws in place.
import { mayPass, RETRY_MS } from "../api.js";
import { html, memo, useEffect, useRef, useState } from "../lib.js";
import { drawChart, xText } from "../chart.js";
import { count, number, plural } from "../format.js";
import { bandColumns, lastOf, lineColumns, stepsBetween } from "../series.js";
import { useVisible } from "../visible.js";

// After a request that took t, the next one of this chart waits at least this many t: a slow collector is not chased.
const REST_FACTOR = 3;
const LINE_POINTS = 12_000;

export const MetricCard = memo(function MetricCard(props) {
  return html`<${Card} ...${props} />`;
});

function Card({ source, name, stepMetric, load, pulse, mode, x, smoothing, log, clip, ranks, attempt, zoom, onZoom, theme }) {
  const card = useRef(null);
  const plot = useRef(null);
  const value = useRef(null);
  const chart = useRef(null);
  const visible = useVisible(card);
  const [wide, setWide] = useState(false);
  const xKind = x === "time" ? "time" : stepMetric || "step";
  const range = zoom && zoom.kind === xKind ? zoom.range : null;
  const { series, error } = useSeries({ source, name, load, pulse, mode, xKind, ranks, attempt, range, visible, width: plot });
  const drawn = series === null ? null : mode === "mean" ? series.slice(0, 1) : series;
  const shown = drawn !== null && drawn.some((one) => one.x.length > 0);

  // What cannot be changed in a live chart makes a new one; all else is new columns in the same one.
  const lineRanks = drawn && mode === "lines" ? drawn.map((one) => one.rank) : [];
  const shape = shown && visible ? JSON.stringify([mode, xKind, log, clip, smoothing > 0, theme, lineRanks]) : "";
  const latest = useRef(null);
  latest.current = { drawn, mode, smoothing };
  useEffect(() => {
    if (!shape) return undefined;
    chart.current = drawChart(plot.current, {
      mode, xKind, log, clip, smoothed: smoothing > 0, ranks: lineRanks, syncKey: `${source} ${xKind}`,
      onZoom: (to) => onZoom(to && { kind: xKind, range: to }),
      onCursor: (index) => { if (value.current) value.current.textContent = valueAt(latest.current, index); },
      describe: (index) => describeMean(latest.current.drawn[0], index, latest.current.smoothing),
    });
    const observer = new ResizeObserver(() => chart.current?.resize());
    observer.observe(plot.current);
    return () => {
      observer.disconnect();
      chart.current.destroy();
      chart.current = null;
    };
  }, [shape]);

  useEffect(() => {
    if (value.current) value.current.textContent = drawn ? valueAt(latest.current, null) : "";
    if (!chart.current || !shown) return;
    const columns = mode === "mean" ? bandColumns(drawn[0], { smoothing, log }) : lineColumns(drawn, { smoothing, log });
    chart.current.update(columns, range);
  }, [shape, series, smoothing, range]);

  const total = (drawn ?? []).reduce((sum, one) => sum + one.count.reduce((a, b) => a + b, 0), 0);
  const nonfinite = (drawn ?? []).reduce((sum, one) => sum + one.nonfinite.reduce((a, b) => a + b, 0), 0);
  const short = name.slice(name.indexOf("/") + 1);
  return html`<article class=${`card ${wide ? "wide" : ""}`} ref=${card} data-testid="chart" data-key=${name} data-mode=${mode}
    data-points=${series === null ? undefined : total} data-zoomed=${range ? "" : undefined}>
    <header>
      <h3 title=${name}>${short}</h3>
      ${nonfinite > 0 && html`<span class="tag warn" title="NaN or infinite values: counted, not drawn">${count(nonfinite)} non-finite</span>`}
      <output ref=${value}></output>
      <button type="button" class="quiet" onClick=${() => setWide(!wide)} aria-pressed=${String(wide)}
        aria-label=${`${wide ? "Shrink" : "Enlarge"} ${name}`} title=${wide ? "Shrink" : "Enlarge"}>${wide ? "⤡" : "⤢"}</button>
    </header>
    <div class="plot" ref=${plot} role="img" aria-label=${shown ? spoken(name, drawn, mode, xKind) : name}></div>
    ${!shown && html`<p class="plot-note">${error ? error.message : series === null ? "" : "No data for these ranks here."}</p>`}
  </article>`;
}

/** The series of a card, fetched when it is visible, when what it asks for changes, and when its key has moved. */
function useSeries({ source, name, load, pulse, mode, xKind, ranks, attempt, range, visible, width }) {
  const [state, setState] = useState({ series: null, error: null, asked: "" });
  const whole = useRef(null);
  const work = useRef({ busy: false, again: false, timer: 0, gone: false, stale: true });
  const base = JSON.stringify([mode, xKind, ranks, attempt]);
  const asked = JSON.stringify([base, range]);
  const latest = useRef(null);
  latest.current = { mode, xKind, ranks, attempt, range, base, asked, visible };

  const fetchNow = useRef(async () => {
    const job = work.current;
    if (job.busy) {
      job.again = true;
      return;
    }
    const wanted = latest.current;
    const steps = wanted.range && zoomedSteps(wanted, whole.current);
    job.busy = true;
    job.stale = false;
    const began = performance.now();
    let next;
    try {
      const series = await load(source, name, {
        reduce: wanted.mode === "mean" ? "ranks" : "none", x: wanted.xKind, ranks: wanted.ranks, attempt: wanted.attempt,
        buckets: bucketsFor(width.current?.clientWidth ?? 600, wanted), step_min: steps?.[0], step_max: steps?.[1],
      });
      if (!wanted.range) whole.current = { base: wanted.base, series };
      next = { series, error: null, asked: wanted.asked };
    } catch (error) {
      job.stale = true;
      next = { error };
    }
    job.busy = false;
    if (job.gone) return;
    if (wanted.asked === latest.current.asked) setState((old) => ({ ...old, ...next }));
    else job.again = true;
    if (next.error && mayPass(next.error)) {
      clearTimeout(job.timer);
      job.timer = setTimeout(() => { if (latest.current.visible) fetchNow(); }, RETRY_MS);
    }
    if (!job.again) return;
    job.again = false;
    const rest = wanted.asked === latest.current.asked ? (performance.now() - began) * REST_FACTOR : 0;
    clearTimeout(job.timer);
    job.timer = setTimeout(fetchNow, rest);
  }).current;

  useEffect(() => {
    if (visible && (work.current.stale || state.asked !== asked)) fetchNow();
  }, [visible, asked]);

  useEffect(() => pulse.on(({ keys }) => {
    if (keys !== null && !keys.has(name)) return;
    if (latest.current.visible) fetchNow();
    else work.current.stale = true;
  }), [pulse, name]);

  useEffect(() => () => {
    work.current.gone = true;
    clearTimeout(work.current.timer);
  }, []);

  // Another mode's answer has another form: it must not be drawn while the right one is on its way.
  const fits = state.series !== null && JSON.parse(state.asked)[0] === base;
  return { series: fits || sameForm(state.asked, mode, xKind) ? state.series : null, error: state.error };
}

/** Old data of the same mode and axis may stand until the new comes: no flicker when ranks are selected. */
function sameForm(asked, mode, xKind) {
  if (!asked) return false;
  const [oldMode, oldKind] = JSON.parse(JSON.parse(asked)[0]);
  return oldMode === mode && oldKind === xKind;
}

function zoomedSteps({ xKind, range, base }, whole) {
  if (xKind === "step") return [Math.floor(range[0]), Math.ceil(range[1])];
  return whole && whole.base === base ? stepsBetween(whole.series, ...range) : null;
}

/** As many buckets as can be seen, in few sizes so that charts of about one width share a request. */
function bucketsFor(width, { mode, ranks }) {
  const seen = Math.max(200, Math.ceil(width / 200) * 200);
  if (mode === "mean") return Math.min(1000, seen);
  const lines = ranks ? ranks.split(",").reduce((n, part) => { const [a, b] = part.split("-"); return n + (b ? b - a + 1 : 1); }, 0) : 1;
  return Math.max(100, Math.min(seen, Math.round(LINE_POINTS / lines / 100) * 100));
}

function valueAt({ drawn, mode, smoothing }, index) {
  if (!drawn || drawn.length === 0 || (mode === "lines" && drawn.length > 1)) return "";
  const values = mode === "mean" ? drawn[0].mean : drawn[0].value;
  const shown = index === null || smoothing < 0 ? lastOf(values) : values[index];
  return shown === null || shown === undefined ? "" : number(shown);
}

/** Tooltip rows of a band: the mean, and which rank is highest and lowest there. */
function describeMean(series, index, smoothing) {
  if (!series || index >= series.x.length) return [];
  const rows = [["mean", number(series.mean[index])]];
  if (smoothing > 0) rows.push(["smoothed", number(bandColumns(series, { smoothing })[4][index])]);
  if (series.min_rank[index] !== null) {
    rows.push([`max · rank ${series.max_rank[index]}`, number(series.max[index])]);
    rows.push([`min · rank ${series.min_rank[index]}`, number(series.min[index])]);
  }
  rows.push(["values", number(series.count[index])]);
  if (series.nonfinite[index] > 0) rows.push(["non-finite", number(series.nonfinite[index])]);
  return rows;
}

/** The chart in one sentence, for those who do not see it. */
function spoken(name, drawn, mode, xKind) {
  if (mode === "lines") return `${name}: ${plural(drawn.length, "rank")}`;
  const [one] = drawn;
  const last = one.x.length - 1;
  return `${name}: mean ${number(one.mean[last])}, from ${number(one.min[last])} to ${number(one.max[last])} `
    + `at ${xKind} ${xText(xKind, one.x[last])}`;
}
