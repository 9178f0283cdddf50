// Texts and histograms that ranks logged: a key at a time, newest step first.
import { html, useEffect, useMemo } from "../lib.js";
import { getObjects } from "../api.js";
import { count, number } from "../format.js";
import { setQuery, useRoute } from "../router.js";
import { useResource } from "../store.js";
import { Ago, Notice } from "./bits.js";

const LIMIT = 200;
const WIDTH = 360;
const HEIGHT = 72;

export function ObjectsTab({ run, keys, pulse, ranks }) {
  const { query } = useRoute();
  const key = keys.some((info) => info.key === query.object) ? query.object : keys[0]?.key;
  if (!key) return html`<${Notice} title="No texts or histograms yet.">Log a string, or <code>allranks.Histogram</code>.<//>`;
  return html`<section class="objects" aria-label="Texts and histograms">
    <div class="toolbar"><label class="choice">Key
      <select value=${key} onChange=${(event) => setQuery({ object: event.currentTarget.value })} data-testid="object-choice">
        ${keys.map((info) => html`<option key=${info.key} value=${info.key}>${info.key}</option>`)}
      </select></label></div>
    <${Objects} key=${key} run=${run} name=${key} pulse=${pulse} ranks=${ranks} />
  </section>`;
}

function Objects({ run, name, pulse, ranks }) {
  const { data, error, refresh } = useResource(() => getObjects(run, { key: name, ranks, limit: LIMIT }), [run, name, ranks]);
  useEffect(() => pulse.on(({ keys }) => { if (keys === null || keys.has(name)) refresh(); }), [pulse, name]);
  const rows = useMemo(() => [...(data ?? [])].sort((a, b) => b.step - a.step || a.rank - b.rank), [data]);
  if (error && !data) return html`<${Notice} kind="error" title=${error.message} />`;
  if (data && rows.length === 0) return html`<${Notice} title="Nothing from these ranks." />`;
  return html`<div class="panel"><table class="objects" data-testid="objects">
    <thead><tr><th scope="col" class="figure">Step</th><th scope="col" class="figure">Rank</th><th scope="col">When</th><th scope="col">Value</th></tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${`${row.attempt} ${row.step} ${row.rank} ${row.time}`}>
      <td class="figure">${count(row.step)}</td><td class="figure">${row.rank}</td><td class="dim"><${Ago} time=${row.time} /></td>
      <td><${Value} value=${row.value} /></td></tr>`)}</tbody>
  </table></div>`;
}

function Value({ value }) {
  if (typeof value === "string") return html`<pre class="text">${value}</pre>`;
  if (value && value._type === "histogram" && Array.isArray(value.counts)) return html`<${Histogram} value=${value} />`;
  return html`<pre class="text">${JSON.stringify(value, null, 2)}</pre>`;
}

function Histogram({ value }) {
  const { counts, bins } = value;
  const top = Math.max(1, ...counts);
  const width = WIDTH / Math.max(1, counts.length);
  const facts = ["mean", "std", "count"].filter((name) => typeof value[name] === "number").map((name) => `${name} ${number(value[name])}`);
  return html`<figure class="histogram">
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} width=${WIDTH} height=${HEIGHT} role="img" aria-label=${`Histogram: ${facts.join(", ")}`}>
      ${counts.map((n, i) => html`<rect key=${i} x=${i * width} width=${Math.max(0.5, width - 1)}
        y=${HEIGHT - (n / top) * HEIGHT} height=${(n / top) * HEIGHT}><title>${`${number(bins?.[i])} to ${number(bins?.[i + 1])}: ${count(n)}`}</title></rect>`)}
    </svg>
    <figcaption><span>${number(value.min ?? bins?.[0])}</span><span class="dim">${facts.join(" · ")}</span><span>${number(value.max ?? bins?.at(-1))}</span></figcaption>
  </figure>`;
}
