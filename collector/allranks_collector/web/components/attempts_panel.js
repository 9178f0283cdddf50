// The attempts of a run as lineage, with the steps that were done again, and what its time went to.
import { html, useMemo } from "../lib.js";
import { lineage, partsOf } from "../attempts.js";
import { count, duration, moment, plural } from "../format.js";
import { setQuery } from "../router.js";
import { State } from "./bits.js";

export function AttemptsPanel({ account }) {
  const { data, error } = account;
  const attempts = data?.attempts ?? [];
  return html`<section class="panel attempts" id="attempts" aria-label="Attempts and goodput">
    <header class="panel-head"><h2>Attempts and goodput</h2>
      ${attempts.length > 0 && html`<span class="dim">${plural(attempts.length, "attempt")}</span>`}</header>
    ${data && attempts.length > 0 ? html`<${Goodput} goodput=${data.goodput} /><${Lineage} attempts=${attempts} />`
    : html`<p class="dim empty">${error && !data ? error.message
      : "No attempt yet. Restarts by an elastic launcher, and jobs that are queued again with the same ALLRANKS_RUN_ID, come here as attempts of one run."}</p>`}
  </section>`;
}

const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)} %`;

function Goodput({ goodput }) {
  const parts = partsOf(goodput);
  if (goodput.fraction === null || parts.length === 0) {
    return html`<p class="dim empty">No goodput yet: it is counted from the first step that a rank logs.</p>`;
  }
  const told = parts.map(({ label, share }) => `${label} ${percent(share)}`).join(", ");
  return html`<div class="goodput" data-testid="goodput">
    <p><b>${percent(goodput.fraction)}</b> of ${duration(goodput.total_s)} went into steps that count.</p>
    <div class="goodput-bar" role="img" aria-label=${told}>${parts.map(({ name, label, seconds, share }) => html`<i key=${name} data-part=${name}
      style=${{ flexGrow: share }} title=${`${label}: ${duration(seconds)}, ${percent(share)}`}></i>`)}</div>
    <ul class="goodput-legend">${parts.map(({ name, label, title, seconds, share }) => html`<li key=${name} title=${title}>
      <i data-part=${name} aria-hidden="true"></i>${label} <b>${duration(seconds)}</b> <span class="dim">${percent(share)}</span></li>`)}</ul>
  </div>`;
}

function Lineage({ attempts }) {
  const places = useMemo(() => lineage(attempts), [attempts]);
  const hasAgain = attempts.some((one) => one.recomputed > 0);
  return html`<div class="scroll"><table class="lineage" data-testid="lineage">
    <thead><tr><th scope="col">Attempt</th><th scope="col">State</th><th scope="col">Began</th><th scope="col" class="figure">Took</th>
      <th scope="col" class="figure">Steps</th><th scope="col" class="way">Way${hasAgain && html`<small>hatched: done again</small>`}</th>
      <th scope="col" class="figure">Done again</th><th scope="col">Why it ended</th></tr></thead>
    <tbody>${attempts.map((one, i) => html`<tr key=${one.attempt} data-testid="attempt" data-attempt=${one.attempt}>
      <td><button type="button" class="link" title=${`Show attempt ${one.attempt} on this page`} onClick=${() => setQuery({ attempt: one.attempt })}>${one.attempt}</button></td>
      <td><${State} state=${one.state} /></td><td class="dim">${moment(one.began_ns / 1e9)}</td>
      <td class="figure">${one.ended_ns === null ? html`<span class="dim">goes on</span>` : duration(Math.max(0, (one.ended_ns - one.began_ns) / 1e9))}</td>
      <td class="figure">${one.first_step === null ? "none" : `${count(one.first_step)}–${count(one.last_step)}`}</td>
      <td class="way"><${Way} place=${places[i]} /></td>
      <td class="figure">${one.recomputed > 0 ? plural(one.recomputed, "step") : ""}${one.resumed_from !== null && html` <small>from ${count(one.resumed_from)}</small>`}</td>
      <td class="why">${one.why ?? ""}</td></tr>`)}</tbody>
  </table></div>`;
}

/** The steps of an attempt among those of all. */
function Way({ place }) {
  if (place === null) return null;
  const at = (from, until) => ({ left: `${100 * from}%`, width: `max(2px, ${100 * (until - from)}%)` });
  return html`<div class="way-line" aria-hidden="true">
    <i style=${at(place.from, place.until)}></i>${place.again > place.from && html`<i class="again" style=${at(place.from, place.again)}></i>`}
  </div>`;
}
