// What differs between the ranks: values that should agree and do not, then what surrounds them, by kind.
import { html } from "../lib.js";
import { count, plural } from "../format.js";

const GROUPS = 6;

export function DifferencesPanel({ differences }) {
  const { data, error } = differences;
  const sections = bySection(data?.differences ?? []);
  const diverged = data?.diverged ?? [];
  return html`<section class="panel differences" id="differences" aria-label="Differences">
    <header class="panel-head"><h2>Differences between ranks</h2>
      ${data?.told > 0 && html`<span class="dim">${count(data.told)} of ${plural(data.ranks, "rank")} said what surrounds ${data.told === 1 ? "it" : "them"}</span>`}</header>
    ${!data && html`<p class="dim empty" role=${error ? "alert" : "status"}>${error ? error.message : "Loading…"}</p>`}
    ${diverged.length > 0 && html`<h3>Should agree, and do not</h3>
      <${Rows} rows=${diverged} noteOf=${(one) => `from step ${count(one.step)}`} warn />`}
    ${[...sections].map(([title, rows]) => html`<h3 key=${`${title}:`}>${title}</h3><${Rows} key=${title} rows=${rows} />`)}
    ${data && sections.size === 0 && html`<p class="dim empty">${nothing(data)}</p>`}
    ${data && diverged.length === 0 && html`<p class="dim empty">${data.compared.length > 0
    ? `All ranks agree on ${data.compared.join(", ")}.`
    : html`No value is compared yet: learning rates and loss scales are by themselves, others by <code>run.agree("param_hash", value)</code>.`}</p>`}
  </section>`;
}

/** Why no difference is shown. */
function nothing({ told, ranks }) {
  if (told === 0) return "Nothing told yet: each rank says at its start what surrounds it: git revision, packages, environment, GPU driver, clock.";
  return ranks === 1 ? "One rank alone differs from nobody." : "Git revision, packages, environment, devices, clocks and config are the same on all of them.";
}

/** Differences by what they are of, in the order in which they come. */
function bySection(differences) {
  const sections = new Map();
  for (const one of differences) {
    if (!sections.has(one.title)) sections.set(one.title, []);
    sections.get(one.title).push(one);
  }
  return sections;
}

function Rows({ rows, noteOf, warn }) {
  return html`<div class="scroll"><table class="pairs"><tbody>${rows.map((one) => html`<tr key=${one.name} data-testid="difference" data-name=${one.name}>
    <th scope="row"><code>${one.name}</code>${warn && html` <span class="tag warn">diverged</span>`}${noteOf && html`<small>${noteOf(one)}</small>`}</th>
    <td>${one.each ? html`<details><summary>each ${one.each} has its own</summary><${Groups} groups=${one.groups} /></details>` : html`<${Groups} groups=${one.groups} />`}</td></tr>`)}</tbody></table></div>`;
}

/** Who has what, the largest group first; the others are what is looked for. */
function Groups({ groups }) {
  return html`<ul class="difference-groups">${groups.slice(0, GROUPS).map((group, i) => html`<li key=${i}>
    <b>${group.value ?? "not there"}</b> <span class="dim" title=${`ranks ${group.ranks}`}>on ${whoOf(group)}</span></li>`)}
    ${groups.length > GROUPS && html`<li class="dim">and ${plural(groups.length - GROUPS, "more value")}</li>`}</ul>`;
}

const FEW = 4;

/** A group's ranks in words: "rank 3", "ranks 0-2, 5 (node-1)", "1,023 ranks". */
function whoOf({ count: size, ranks, hosts }) {
  const parts = ranks.split(",");
  const where = hosts.length === 0 ? "" : hosts.length <= 2 ? ` (${hosts.join(", ")})` : ` (${plural(hosts.length, "host")})`;
  if (size === 1) return `rank ${ranks}${where}`;
  return parts.length <= FEW ? `ranks ${parts.join(", ")}${where}` : `${count(size)} ranks (${parts.slice(0, FEW).join(", ")}, …)${where}`;
}
