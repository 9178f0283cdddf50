// All ranks at a glance: a legend that counts, the grid, and the ranks that are not fine with the reason.
import { html, useMemo } from "../lib.js";
import { count, plural } from "../format.js";
import { fates, fewRanks, formatRanks, notFine, stateCounts } from "../ranks.js";
import { tabUrl, useRoute } from "../router.js";
import { Ago, State } from "./bits.js";
import { LastWords } from "./last_words.js";
import { RankGrid } from "./rank_grid.js";

const ROWS = 40;
// From so many ranks on the grid is high enough for a high table beside it.
const TALL = 256;

/** `words`: whether the last lines of the first rank to fail are shown too. `first`: which rank that is, if it is known.
 * `places`: by rank, the group of those that stand where it does, as far as they were asked. */
export function RanksPanel({ run, words, first, ranks, places, selected, onSelect, error }) {
  const counts = useMemo(() => stateCounts(ranks), [ranks]);
  const bad = useMemo(() => notFine(ranks, first), [ranks, first]);
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
    <div class=${`ranks-body ${ranks.length > TALL ? "many" : ""}`}>
      <${RankGrid} ranks=${ranks} places=${places} selected=${chosen} onSelect=${onSelect} />
      ${bad.length > 0 && html`<${Problems} run=${run} bad=${bad} places=${places} tall=${ranks.length > TALL} onToggle=${toggle} />`}
      ${words && bad.length > 0 && isOver(bad[0]) && html`<${LastWords} key=${bad[0].rank} run=${run} rank=${bad[0]} />`}
    </div>
  </section>`;
}

const isOver = (rank) => rank.state === "failed" || rank.state === "dead";

/** Ranks that are dead, failed, stalled or unreachable: the first to go stands first, one row per fate. */
function Problems({ run, bad, places, tall, onToggle }) {
  const rows = fates(bad);
  return html`<div class=${`problems scroll ${tall ? "tall" : ""}`} data-testid="rank-problems"><table>
    <thead><tr><th scope="col">Ranks</th><th scope="col">State</th><th scope="col">Why</th>
      <th scope="col" class="figure">Last step</th><th scope="col" class="figure">Last seen</th><th scope="col">Host · pid</th></tr></thead>
    <tbody>${rows.slice(0, ROWS).map(({ ranks, reason, first }) => html`<${Fate} key=${ranks[0].rank} run=${run} places=${places} ranks=${ranks} reason=${reason}
      first=${first} onToggle=${onToggle} />`)}</tbody></table>
    ${rows.length > ROWS && html`<p class="dim">and ${plural(rows.length - ROWS, "more row")}</p>`}
  </div>`;
}

function Fate({ run, places, ranks, reason, first, onToggle }) {
  const [one] = ranks;
  const numbers = ranks.map((rank) => rank.rank);
  const hosts = new Set(ranks.map((rank) => rank.host));
  const steps = ranks.map((rank) => rank.last_step).filter((step) => step !== null);
  const [low, high] = [Math.min(...steps), Math.max(...steps)];
  const seen = ranks.map((rank) => rank.last_seen).filter((time) => time !== null);
  const trace = one.exception?.traceback;
  return html`<tr data-testid="rank-problem" data-ranks=${formatRanks(numbers)}>
    <td class="which"><button type="button" class="link" title=${`Select ${formatRanks(numbers)}`} onClick=${() => onToggle(numbers)}>${fewRanks(numbers)}</button>
      ${ranks.length > 1 && html`<small>×${count(ranks.length)}</small>`}</td>
    <td><${State} state=${one.state} /></td>
    <td class="why">${first && html`<span class="tag">first</span>`}
      ${trace ? html`<details><summary>${reason}</summary><pre>${trace}</pre></details>` : reason || "–"}${" "}
      <${Place} run=${run} places=${places} ranks=${ranks} /></td>
    <td class="figure">${steps.length === 0 ? "–" : low === high ? count(low) : `${count(low)}–${count(high)}`}</td>
    <td class="figure"><${Ago} time=${seen.length ? Math.max(...seen) : null} /></td>
    <td class="dim">${hosts.size > 1 ? plural(hosts.size, "host") : html`<code>${one.host}</code>`}
      ${ranks.length === 1 && html` · <code>${one.pid}</code>`}</td>
  </tr>`;
}

/** Where ranks that do not move stand, as a link to the stack of the first of them. */
function Place({ run, places, ranks }) {
  const { query } = useRoute();
  const stuck = ranks.filter((rank) => (rank.state === "stalled" || rank.state === "unreachable") && places.has(rank.rank));
  if (stuck.length === 0) return null;
  const groups = new Set(stuck.map((rank) => places.get(rank.rank)));
  const [group] = groups;
  return html`<a class="place" data-testid="rank-stack" title="The stack of this rank" href=${tabUrl(run, "health", query, { stack: stuck[0].rank })}>${groups.size === 1
    ? `in ${group.where}` : `in ${plural(groups.size, "place")}`}</a>`;
}
