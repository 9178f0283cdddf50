// Whom the other ranks wait for: what it costs, in which section, and the hosts that were slow in earlier runs too.
import { html, useState } from "../lib.js";
import { count, duration, plural } from "../format.js";
import { runUrl } from "../router.js";

// Without a slow one, so many; of slow ones, at most so many at first.
const FEW = 5;
const SHOWN = 24;
const SECTIONS = 4;

export function StragglersPanel({ stragglers, ranks }) {
  const { data, error } = stragglers;
  return html`<section class="panel stragglers" id="stragglers" aria-label="Stragglers">
    <header class="panel-head"><h2>Stragglers</h2>
      ${data?.measured > 0 && html`<span class="dim" data-testid="stragglers-lost">waiting for the slowest rank cost <b>${seconds(data.lost_s)}</b> of ${duration(data.seconds)} measured on
        ${" "}${plural(data.measured, "rank")}: <b>${hours(data.rank_hours)}</b></span>`}</header>
    ${data?.measured > 0 ? html`<${Ranking} ranks=${data.ranks} whole=${data.seconds} all=${ranks} /><${Hosts} hosts=${data.hosts} />`
    : html`<p class="dim empty">${error && !data ? error.message
      : html`Nothing measured yet: mark what a step does by <code>with run.section("data"):</code>, and by <code>run.section("sync")</code> where ranks wait for each other. Each rank then tells what its time goes to.`}</p>
      ${data && html`<${Hosts} hosts=${data.hosts} />`}`}
  </section>`;
}

const seconds = (value) => (value < 60 ? `${value.toFixed(1)} s` : duration(value));
const hours = (value) => `${value.toFixed(value < 0.095 ? 3 : value < 9.95 ? 2 : 0)} GPU-hours`;

function Ranking({ ranks, whole, all }) {
  const [more, setMore] = useState(false);
  if (ranks.length === 0) return html`<p class="dim empty">No rank is slower than the others.</p>`;
  const slow = ranks.filter((one) => one.slow).length;
  const shown = more ? ranks : ranks.slice(0, slow > 0 ? Math.min(slow, SHOWN) : FEW);
  const most = ranks[0].lost_s;
  return html`<div class="scroll"><table class="ranking" data-testid="ranking">
    <thead><tr><th scope="col" class="figure">Rank</th><th scope="col">Host</th><th scope="col" class="figure">Lost</th><th scope="col" class="figure" title=${`that, for all ${count(all)} ranks`}>GPU-hours</th>
      <th scope="col" class="cost">Share of the time</th><th scope="col">In section</th><th scope="col" class="figure">Worst steps</th></tr></thead>
    <tbody>${shown.map((one) => html`<tr key=${one.rank} data-testid="straggler" data-rank=${one.rank} data-slow=${String(one.slow)}>
      <td class="figure"><b>${one.rank}</b></td><td class="dim"><code>${one.host ?? "–"}</code></td><td class="figure">${seconds(one.lost_s)}</td>
      <td class="figure">${one.rank_hours.toFixed(3)}</td>
      <td class="cost"><div class="cost-line"><i style=${{ width: `${(100 * one.lost_s) / most}%` }}></i><span>${((100 * one.lost_s) / Math.max(whole, 1e-9)).toFixed(1)} %</span></div></td>
      <td><${Sections} one=${one} /></td>
      <td class="figure">${one.worst_steps ? one.worst_steps.map(count).join("–") : ""}</td></tr>`)}</tbody>
  </table></div>
  ${slow === 0 && html`<p class="dim">None of them costs more than chance does.</p>`}
  ${shown.length < ranks.length && html`<button type="button" class="link" onClick=${() => setMore(true)}>and ${plural(ranks.length - shown.length, "more rank")}${slow <= shown.length && slow > 0 ? ", none of which costs more than chance does" : ""}</button>`}`;
}

/** The sections in which a rank is slower, the costliest first. */
function Sections({ one }) {
  const parts = Object.entries(one.sections).sort(([, a], [, b]) => b - a);
  return html`${one.slow && html`<span class="tag warn">slow</span> `}${parts.slice(0, SECTIONS).map(([name, cost], i) => html`<span class="pair" key=${name}>
    ${i === 0 ? html`<b>${name}</b>` : html`<span class="dim">${name}</span>`} ${seconds(cost)}</span>`)}${parts.length > SECTIONS && html`<span class="dim">and ${parts.length - SECTIONS} more</span>`}`;
}

function Hosts({ hosts }) {
  if (hosts.length === 0) return null;
  return html`<div class="slow-hosts" data-testid="slow-hosts"><h3>Slow hosts</h3>
    ${hosts.map(({ host, lost_s: lost, earlier }) => html`<p key=${host} data-testid="slow-host" data-host=${host}><code>${host}</code>
      ${lost > 0 ? html` <b>${seconds(lost)}</b> in this run` : html` <span class="dim">not in this run</span>`}
      ${earlier.length > 0 && html`<span>; slow in ${plural(earlier.length, "earlier run")} too: ${earlier.map(({ run, lost_s: then }, i) => html`${i > 0 ? ", " : ""}<a href=${runUrl(run)}>${run}</a> ${seconds(then)}`)}</span>`}</p>`)}
  </div>`;
}
