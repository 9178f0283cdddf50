// Who the run is and how it stands, in two lines.
import { html } from "../lib.js";
import { exportUrl } from "../api.js";
import { count, countOf, plural } from "../format.js";
import { stepSpread } from "../ranks.js";
import { setQuery } from "../router.js";
import { Ago, Copy, Menu, Span, State } from "./bits.js";

const EXPORTS = [["metrics", ["csv", "parquet", "jsonl"]], ["system", ["csv", "parquet"]], ["events", ["jsonl"]], ["ranks", ["csv"]]];

export function RunHeader({ run, ranks, attempt }) {
  const attempts = run.attempts ?? [];
  const spread = run.state === "running" ? stepSpread(ranks) : null;
  const fact = (label, value) => html`<div key=${label}><dt>${label}</dt><dd>${value}</dd></div>`;
  return html`<header class="run-header" data-testid="run-header">
    <div class="title">
      <h1>${run.name || run.id}</h1>
      <${State} state=${run.state} />
      ${(run.tags ?? []).map((tag) => html`<span key=${tag} class="tag">${tag}</span>`)}
      <span class="grow"></span>
      <${ExportMenu} id=${run.id} />
    </div>
    <dl class="facts">
      ${fact("id", html`<${Copy} value=${run.id} label="the run's id" />`)}
      ${fact("project", html`<a href=${`/?project=${encodeURIComponent(run.project)}`}>${run.project}</a>`)}
      ${run.group && fact("group", run.group)}
      ${fact("ranks", html`<span data-testid="ranks-seen">${countOf(run.ranks_seen, run.world_size)}</span>`)}
      ${fact("attempt", attempts.length > 1 ? html`<${AttemptChoice} attempts=${attempts} value=${attempt} />` : count(run.attempt))}
      ${fact("last step", html`<span data-testid="last-step">${count(run.last_step)}</span>`)}
      ${spread && spread.behind > 0 && fact("slowest", `rank ${spread.slowest.rank}, ${plural(spread.behind, "step")} behind`)}
      ${fact("started", html`<${Ago} time=${run.created_at} />`)}
      ${fact(run.ended_at ? "took" : "running for", html`<${Span} from=${run.created_at} to=${run.ended_at} />`)}
    </dl>
    ${run.notes && html`<p class="notes">${run.notes}</p>`}
  </header>`;
}

function AttemptChoice({ attempts, value }) {
  return html`<select aria-label="Attempt" value=${value} onChange=${(event) => setQuery({ attempt: event.currentTarget.value })}>
    <option value="">${`newest of ${attempts.length}`}</option>
    ${attempts.map(({ attempt }) => html`<option key=${attempt} value=${String(attempt)}>${attempt}</option>`)}
  </select>`;
}

function ExportMenu({ id }) {
  return html`<${Menu} label="Export">${EXPORTS.map(([what, formats]) => html`<div class="export" key=${what}><span>${what}</span>
    ${formats.map((format) => html`<a key=${format} href=${exportUrl(id, what, format)} download>${format}</a>`)}</div>`)}<//>`;
}
