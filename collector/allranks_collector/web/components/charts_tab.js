// Charts of metrics or of system figures: one toolbar, sections by the keys' first part.
import { html, useEffect, useMemo, useState } from "../lib.js";
import { plural } from "../format.js";
import { formatRanks, parseRanks, sample } from "../ranks.js";
import { sections } from "../series.js";
import { setQuery, useRoute } from "../router.js";
import { usePreference } from "../store.js";
import { Filter, Notice, Segmented } from "./bits.js";
import { MetricCard } from "./metric_card.js";

/** More lines than this are a carpet: a sample is drawn, and the page says so. */
const LINES_LIMIT = 64;

export function ChartsTab({ source, keys, error, load, pulse, attempt, spoken, selected, theme }) {
  const { query } = useRoute();
  const [mode, setMode] = usePreference("charts.mode", "mean");
  const [axis, setAxis] = usePreference("charts.x", "step");
  const [smoothing, setSmoothing] = usePreference("charts.smoothing", 0);
  const [log, setLog] = usePreference("charts.log", false);
  const [clip, setClip] = usePreference("charts.clip", false);
  const [zoom, setZoom] = useState(null);
  const x = source === "system" ? "time" : axis;
  useEffect(() => setZoom(null), [x, attempt]);

  const wanted = query.keys ?? "";
  const groups = useMemo(() => {
    const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
    return sections((keys ?? []).filter(({ key }) => words.every((word) => key.toLowerCase().includes(word))));
  }, [keys, wanted]);
  const lines = useMemo(() => drawnRanks(selected, spoken), [selected, spoken]);
  const ranks = mode === "lines" ? lines.text : selected;

  const onKeyDown = (event) => {
    if (event.key === "Escape" && zoom && event.target.type !== "search") setZoom(null);
  };
  return html`<section class="charts" aria-label=${source === "system" ? "System charts" : "Charts"} onKeyDown=${onKeyDown}>
    <div class="toolbar sticky" role="toolbar" aria-label="How charts are drawn">
      <${Filter} label="Filter keys…" value=${wanted} onChange=${(value) => setQuery({ keys: value })} testid="keys-filter" />
      <${Segmented} label="Ranks as" value=${mode} onChange=${setMode} testid="chart-mode"
        options=${[["mean", "Mean & range"], ["lines", "Rank lines"]]} />
      ${source === "metrics" && html`<${Segmented} label="Horizontal axis" value=${axis} onChange=${setAxis} testid="chart-x"
        options=${[["step", "Step"], ["time", "Time"]]} />`}
      <label class="slider">Smooth <input type="range" min="0" max="0.99" step="0.01" value=${smoothing} data-testid="smoothing"
        onInput=${(event) => setSmoothing(Number(event.currentTarget.value))} /><output>${smoothing.toFixed(2)}</output></label>
      <button type="button" class="toggle" aria-pressed=${String(log)} onClick=${() => setLog(!log)} data-testid="log-y">log y</button>
      <button type="button" class="toggle" aria-pressed=${String(clip)} onClick=${() => setClip(!clip)} data-testid="clip-y"
        title="Spikes do not set the range of y">no outliers</button>
      ${zoom && html`<button type="button" onClick=${() => setZoom(null)} data-testid="zoom-reset">Reset zoom</button>`}
      <span class="dim grow" role="status">${mode === "lines" && lines.sampled
        ? `${plural(lines.count, "line")}: a sample of ${plural(lines.of, "rank")}; select ranks above to choose` : ""}</span>
    </div>
    ${error && !keys && html`<${Notice} kind="error" title=${error.message} />`}
    ${keys && keys.length === 0 && html`<${Notice} title=${source === "system" ? "No system figures yet." : "Nothing logged yet."}>
      ${source === "metrics" && html`<code>${'run.log({"train/loss": loss}, step=step)'}</code>`}<//>`}
    ${keys && keys.length > 0 && groups.length === 0 && html`<${Notice} title="No key matches the filter." />`}
    ${groups.map((group) => html`<${Section} key=${group.name} id=${`${source}:${group.name}`} name=${group.name || "General"} size=${group.keys.length}>
      ${group.keys.map((info) => html`<${MetricCard} key=${info.key} source=${source} name=${info.key} stepMetric=${info.step_metric}
        load=${load} pulse=${pulse} mode=${mode} x=${x} smoothing=${smoothing} log=${log} clip=${clip} ranks=${ranks} attempt=${attempt}
        zoom=${zoom} onZoom=${setZoom} theme=${theme} />`)}
    <//>`)}
  </section>`;
}

/** Which ranks get a line: those selected, else all; a sample where they are too many. */
function drawnRanks(selected, spoken) {
  const all = parseRanks(selected || spoken);
  const drawn = sample(all, LINES_LIMIT);
  return { text: formatRanks(drawn), sampled: drawn.length < all.length, count: drawn.length, of: all.length };
}

function Section({ id, name, size, children }) {
  const [closed, setClosed] = usePreference("charts.closed", []);
  const open = !closed.includes(id);
  const toggle = () => setClosed(open ? [...closed, id] : closed.filter((other) => other !== id));
  return html`<section class="chart-section" data-testid="chart-section" data-name=${name}>
    <h2><button type="button" aria-expanded=${String(open)} onClick=${toggle}>
      <span class="arrow" aria-hidden="true">${open ? "▾" : "▸"}</span>${name}<small>${size}</small></button></h2>
    ${open && html`<div class="cards">${children}</div>`}
  </section>`;
}
