// The run's config and summary as two searchable tables.
import { html, useMemo, useState } from "../lib.js";
import { flatten, text } from "../format.js";
import { Filter, Notice } from "./bits.js";

export function ConfigTab({ run }) {
  const [words, setWords] = useState("");
  return html`<section aria-label="Config and summary">
    <div class="toolbar"><${Filter} label="Filter keys and values…" value=${words} onChange=${setWords} testid="config-filter" /></div>
    <div class="two">
      <${Table} title="Config" value=${run.config} words=${words} testid="config" />
      <${Table} title="Summary" value=${run.summary} words=${words} testid="summary" />
    </div>
  </section>`;
}

function Table({ title, value, words, testid }) {
  const all = useMemo(() => flatten(value ?? {}).map(([key, item]) => [key, text(item)]), [value]);
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = all.filter(([key, item]) => wanted.every((word) => `${key} ${item}`.toLowerCase().includes(word)));
  return html`<div class="panel">
    <h2>${title}<small>${rows.length === all.length ? all.length : `${rows.length} of ${all.length}`}</small></h2>
    ${all.length === 0 ? html`<${Notice} title="Empty." />` : html`<table class="pairs" data-testid=${testid}>
      <tbody>${rows.map(([key, item]) => html`<tr key=${key}><th scope="row"><${Path} path=${key} /></th><td>${item}</td></tr>`)}</tbody>
    </table>`}
  </div>`;
}

/** A nested key with its parents dimmed. */
function Path({ path }) {
  const cut = Math.max(path.lastIndexOf("."), path.lastIndexOf("/")) + 1;
  return html`<code><span class="dim">${path.slice(0, cut)}</span>${path.slice(cut)}</code>`;
}
