// All ranks at a glance: a legend that counts, the grid, and the ranks that are not fine with the reason.
import { html, useMemo } from "../lib.js";
import { count, plural } from "../format.js";
import { formatRanks, notFine, reasonOf, stateCounts } from "../ranks.js";
import { Ago, State } from "./bits.js";
import { RankGrid } from "./rank_grid.js";

const ROWS = 40;

export function RanksPanel({ ranks, selected, onSelect, error }) {
  const counts = useMemo(() => stateCounts(ranks), [ranks]);
  const bad = useMemo(() => notFine(ranks), [ranks]);
  if (ranks.length === 0) return html`<section class="panel ranks"><p class="dim">${error ? error.message : "No rank has spoken yet."}</p></section>`;
  const chosen = new Set(selected);
  const toggle = (list) => {
    const all = list.every((rank) => chosen.has(rank));
    onSelect(all ? selected.filter((rank) => !list.includes(rank)) : [...new Set([...selected, ...list])]);
  };
  return html`<section class="panel ranks" aria-label="Ranks">
    <div class="legend">
      <h2>Ranks</h2>
      ${counts.map(({ state, ranks: list }) => html`<button type="button" key=${state} class="legend-item" data-state=${state}
        data-testid="rank-count" aria-pressed=${String(list.every((rank) => chosen.has(rank)))} onClick=${() => toggle(list)}
        title=${`Select the ${plural(list.length, "rank")} that ${list.length === 1 ? "is" : "are"} ${state}`}>
        <i class="swatch" aria-hidden="true"></i><b>${count(list.length)}</b> ${state}</button>`)}
      <span class="grow"></span>
      ${selected.length > 0 ? html`<span class="selection" role="status">Charts show ${selected.length > 12
        ? plural(selected.length, "rank") : `rank${selected.length > 1 ? "s" : ""} ${formatRanks(selected)}`}</span>
        <button type="button" data-testid="clear-ranks" onClick=${() => onSelect([])}>All ranks</button>`
        : html`<span class="dim hint">Click ranks to chart only them</span>`}
    </div>
    <div class="ranks-body">
      <${RankGrid} ranks=${ranks} selected=${chosen} onSelect=${onSelect} />
      ${bad.length > 0 && html`<${Problems} bad=${bad} onToggle=${(rank) => toggle([rank])} />`}
    </div>
  </section>`;
}

/** Ranks that are dead, failed, stalled or unreachable: the first to go stands first. */
function Problems({ bad, onToggle }) {
  return html`<div class="problems scroll" data-testid="rank-problems"><table>
    <thead><tr><th scope="col">Rank</th><th scope="col">State</th><th scope="col">Why</th>
      <th scope="col" class="figure">Last step</th><th scope="col" class="figure">Last seen</th><th scope="col">Host · pid</th></tr></thead>
    <tbody>${bad.slice(0, ROWS).map((rank, i) => html`<tr key=${rank.rank} data-testid="rank-problem" data-rank=${rank.rank}>
      <td><button type="button" class="link" onClick=${() => onToggle(rank.rank)}>${rank.rank}</button></td>
      <td><${State} state=${rank.state} /></td>
      <td class="why">${i === 0 && bad.length > 1 && ended(rank) && ended(bad[1]) ? html`<span class="tag">first</span>` : ""}
        <${Why} rank=${rank} /></td>
      <td class="figure">${count(rank.last_step)}</td>
      <td class="figure"><${Ago} time=${rank.last_seen} /></td>
      <td class="dim"><code>${rank.host}</code> · <code>${rank.pid}</code></td></tr>`)}
    </tbody></table>
    ${bad.length > ROWS && html`<p class="dim">and ${plural(bad.length - ROWS, "more rank")}</p>`}
  </div>`;
}

const ended = (rank) => rank.state === "dead" || rank.state === "failed";

function Why({ rank }) {
  const trace = rank.exception && rank.exception.traceback;
  if (!trace) return reasonOf(rank) || "–";
  return html`<details><summary>${reasonOf(rank)}</summary><pre>${trace}</pre></details>`;
}
