// The table of runs, its order, and the choice of its summary columns.
import { html, memo, useMemo } from "../lib.js";
import { chosenKeys, sortRuns } from "../columns.js";
import { count, countOf, number } from "../format.js";
import { runUrl, setQuery, useRoute } from "../router.js";
import { usePreference } from "../store.js";
import { Ago, Menu, Span, State } from "./bits.js";

const COLUMNS = {
  state: { label: "State", value: (run) => run.state },
  run: { label: "Run", value: (run) => (run.name || run.id).toLowerCase() },
  project: { label: "Project", value: (run) => run.project },
  group: { label: "Group", value: (run) => run.group },
  ranks: { label: "Ranks", value: (run) => run.world_size, figure: true },
  attempt: { label: "Attempt", value: (run) => run.attempt, figure: true },
  step: { label: "Last step", value: (run) => run.last_step, figure: true },
  started: { label: "Started", value: (run) => run.created_at, figure: true, descending: true },
  duration: { label: "Duration", value: (run) => (run.ended_at ?? run.last_seen) - run.created_at, figure: true },
};

export function RunsTable({ runs, keys }) {
  const { query } = useRoute();
  const [choice] = usePreference("columns", []);
  const shown = chosenKeys(keys, choice);
  const [column, order] = (query.sort ?? "started:desc").split(":");
  const sorted = useMemo(() => {
    const valueOf = COLUMNS[column]?.value ?? ((run) => run.summary?.[column.replace("summary.", "")]);
    return sortRuns(runs, valueOf, order === "desc");
  }, [runs, column, order]);

  const head = (name, { label, figure, descending, title }) => {
    const present = column === name;
    const next = present ? (order === "desc" ? "asc" : "desc") : (descending ? "desc" : "asc");
    return html`<th key=${name} scope="col" class=${figure ? "figure" : ""} title=${title}
      aria-sort=${present ? (order === "desc" ? "descending" : "ascending") : undefined}>
      <button type="button" onClick=${() => setQuery({ sort: `${name}:${next}` })}>
        ${label}<span class="order" aria-hidden="true">${present ? (order === "desc" ? "↓" : "↑") : ""}</span>
      </button></th>`;
  };
  return html`<div class="scroll"><table class="runs" data-testid="runs-table">
    <thead><tr>
      ${Object.entries(COLUMNS).map(([name, spec]) => head(name, spec))}
      ${shown.map((key) => head(`summary.${key}`, { label: key, figure: true, title: key }))}
    </tr></thead>
    <tbody>${sorted.map((run) => html`<${Row} key=${run.id} run=${run} shown=${shown.join("\n")} version=${versionOf(run)} />`)}</tbody>
  </table></div>`;
}

/** What of a run a row shows: rows whose text did not change are left alone. */
const versionOf = (run) => JSON.stringify([
  run.state, run.name, run.ranks_seen, run.world_size, run.attempt, run.last_step, run.ended_at, run.summary,
]);

const Row = memo(({ run, shown }) => html`<tr data-testid="run-row" data-run=${run.id} data-state=${run.state}>
  <td><${State} state=${run.state} /></td>
  <td class="name"><a href=${runUrl(run.id)}>${run.name || run.id}</a>
    ${run.name && html`<code class="dim" title=${run.id}>${run.id}</code>`}
    ${(run.tags ?? []).map((tag) => html`<span key=${tag} class="tag">${tag}</span>`)}</td>
  <td>${run.project}</td>
  <td class="dim">${run.group ?? ""}</td>
  <td class=${`figure ${run.ranks_seen < run.world_size ? "short" : ""}`}
    title="Ranks that have come, of those that should">${countOf(run.ranks_seen, run.world_size, "/")}</td>
  <td class=${`figure ${run.attempt > 1 ? "" : "dim"}`}>${count(run.attempt)}</td>
  <td class="figure">${count(run.last_step)}</td>
  <td class="figure"><${Ago} time=${run.created_at} /></td>
  <td class="figure"><${Span} from=${run.created_at} to=${run.ended_at} /></td>
  ${(shown ? shown.split("\n") : []).map((key) => html`<td key=${key} class="figure">${number(run.summary?.[key])}</td>`)}
</tr>`, ["run"]);

/** A menu of summary keys; without a choice the most telling ones are shown. */
export function ColumnChoice({ keys }) {
  const [choice, choose] = usePreference("columns", []);
  const shown = chosenKeys(keys, choice);
  const toggle = (key) => choose(shown.includes(key) ? shown.filter((other) => other !== key) : [...shown, key]);
  return html`<${Menu} label="Columns">
    ${keys.map((key) => html`<label key=${key}><input type="checkbox" checked=${shown.includes(key)}
      onChange=${() => toggle(key)} />${key}</label>`)}
    ${keys.length === 0 && html`<span class="dim">No summary figures yet.</span>`}
    ${choice.length > 0 && html`<button type="button" onClick=${() => choose([])}>As it was</button>`}
  <//>`;
}
