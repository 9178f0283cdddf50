// The list of runs: filters in the address, rows that move with the collector.
import { html, useMemo, useRef, useState } from "../lib.js";
import { getRuns } from "../api.js";
import { matching, summaryKeys } from "../columns.js";
import { plural } from "../format.js";
import { setQuery, useRoute, useTitle } from "../router.js";
import { useResource, useStream, useThrottled } from "../store.js";
import { Filter, Notice } from "./bits.js";
import { ColumnChoice, RunsTable } from "./runs_table.js";

const PAGE = 200;
const REFRESH_MS = 1_000;
const RUN_STATES = ["running", "failed", "killed", "preempted", "dead", "unreachable", "finished"];

export function RunsPage() {
  const { query } = useRoute();
  const [limit, setLimit] = useState(PAGE);
  const { q = "", project = "", state = "" } = query;
  const { data, error, refresh } = useResource(() => getRuns({ project, state, limit }), [project, state]);
  const soon = useThrottled(refresh, REFRESH_MS);
  useStream(null, soon, refresh);

  const runs = data?.runs ?? [];
  const shown = useMemo(() => matching(runs, q), [data, q]);
  const keys = useMemo(() => summaryKeys(runs), [data]);
  const projects = useProjects(runs, project);
  const active = shown.filter((run) => run.state === "running").length;
  useTitle(active ? `${active} running` : "Runs");

  const filtered = q || project || state;
  const more = () => {
    setLimit(limit + PAGE);
    soon();
  };
  return html`<section class="page" aria-label="Runs">
    <div class="toolbar">
      <h1>Runs</h1>
      <${Filter} label="Filter by name, id, tag…" value=${q} onChange=${(value) => setQuery({ q: value })} testid="runs-filter" />
      <${Choice} label="Project" value=${project} options=${projects} onChange=${(value) => setQuery({ project: value })} />
      <${Choice} label="State" value=${state} options=${RUN_STATES} onChange=${(value) => setQuery({ state: value })} />
      <span class="dim grow" role="status">${data && summary(shown.length, data.total, active)}</span>
      ${runs.length > 0 && html`<${ColumnChoice} keys=${keys} />`}
    </div>
    ${error && !data && html`<${Notice} kind="error" title=${error.message}>
      ${error.status === 0 ? "Reconnecting… this page goes on by itself." : ""}<//>`}
    ${data && runs.length === 0 && !filtered && html`<${FirstSteps} />`}
    ${data && shown.length === 0 && filtered && html`<${Notice} title="No run matches.">
      <button type="button" onClick=${() => setQuery({ q: "", project: "", state: "" })}>Clear the filters</button><//>`}
    ${shown.length > 0 && html`<${RunsTable} runs=${shown} keys=${keys} />`}
    ${data && data.total > runs.length && html`<p class="more">
      <button type="button" onClick=${more}>Show ${Math.min(PAGE, data.total - runs.length)} more</button></p>`}
  </section>`;
}

function summary(shown, total, active) {
  const all = shown === total ? plural(total, "run") : `${shown} of ${plural(total, "run")}`;
  return active ? `${all}, ${active} running` : all;
}

/** Projects seen so far: a filter must not take away the other choices. */
function useProjects(runs, present) {
  const seen = useRef(new Set());
  for (const run of runs) if (run.project) seen.current.add(run.project);
  if (present) seen.current.add(present);
  return [...seen.current].sort();
}

function Choice({ label, value, options, onChange }) {
  return html`<label class="choice"><span class="sr">${label}</span>
    <select value=${value} onChange=${(event) => onChange(event.currentTarget.value)}
      data-testid=${`${label.toLowerCase()}-choice`}>
      <option value="">${`Every ${label.toLowerCase()}`}</option>
      ${options.map((option) => html`<option key=${option} value=${option}>${option}</option>`)}
    </select></label>`;
}

function FirstSteps() {
  return html`<div class="first-steps" data-testid="empty">
    <h2>No runs yet</h2>
    <p>Two lines in your training script, the same on every rank:</p>
    <pre><code>${'import allranks\n\nrun = allranks.init(project="my-project")\nrun.log({"train/loss": loss}, step=step)'}</code></pre>
    <p class="dim">The ranks of one launch find each other by themselves. This page shows the run as soon as its first rank speaks.
      To see one now: <code>allranks demo</code></p>
  </div>`;
}
