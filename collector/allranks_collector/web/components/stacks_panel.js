// Where the ranks stood when they were last asked: a row per place, its stack on demand, and a button that asks.
import { html, useEffect, useRef, useState } from "../lib.js";
import { askStacks, getStacks } from "../api.js";
import { count, plural, text } from "../format.js";
import { fewRanks, formatRanks } from "../ranks.js";
import { setQuery, tabUrl, useRoute } from "../router.js";
import { isPlace, stackText } from "../stacks.js";
import { useResource } from "../store.js";
import { Ago, Copy } from "./bits.js";

const SHOWN = 100;
// In the verdict: what is read at a glance.
const FEW = 5;

/** `stacks`: what the API says of all ranks, less their threads; `refresh` fetches it anew. */
export function StacksPanel({ run, stacks, refresh, error }) {
  const { query } = useRoute();
  const asking = useAsking(run, refresh);
  const wanted = query.stack === undefined ? null : Number(query.stack);
  const groups = stacks?.groups ?? [];
  return html`<section class="panel stacks" id="stacks" aria-label="Stacks" data-testid="stacks">
    <header class="panel-head"><h2>Where ranks stand</h2>
      ${stacks?.asked_at && html`<span class="dim">asked <${Ago} time=${stacks.asked_at} />, ${plural(groups.length, "place")}</span>`}
      <span class="grow"></span>
      ${asking.problem && html`<span class="problem" role="alert">${asking.problem}</span>`}
      <button type="button" data-testid="ask-stacks" disabled=${asking.busy} onClick=${asking.ask}>${asking.busy ? "Asking…" : "Ask all ranks"}</button>
    </header>
    ${error && !stacks && html`<p class="dim" role="alert">${error.message}</p>`}
    ${stacks && groups.length === 0 && html`<p class="dim empty">No stacks yet: when most ranks stand still they are asked by themselves. The button asks them now, and so does <code>allranks stacks ${run}</code>.</p>`}
    ${groups.slice(0, SHOWN).map((group) => html`<${StackGroup} key=${keyOf(group)} run=${run} group=${group} askedAt=${stacks.asked_at}
      wanted=${group.ranks.includes(wanted) ? wanted : null} />`)}
    ${groups.length > SHOWN && html`<p class="dim">and ${plural(groups.length - SHOWN, "more place")}</p>`}
  </section>`;
}

const keyOf = (group) => `${group.answered} ${group.where} ${group.function}`;

/** Asks all ranks; `problem` says why that did not go. */
function useAsking(run, refresh) {
  const [state, setState] = useState({ busy: false, problem: null });
  const ask = async () => {
    setState({ busy: true, problem: null });
    try {
      await askStacks(run);
      setState({ busy: false, problem: null });
    } catch (error) {
      setState({ busy: false, problem: error.message });
    }
    refresh();
  };
  return { ...state, ask };
}

/** `wanted`: the rank of it that the address names; its stack is open then. */
function StackGroup({ run, group, askedAt, wanted }) {
  const [open, setOpen] = useState(wanted !== null);
  const [rank, setRank] = useState(wanted ?? group.ranks[0]);
  const row = useRef(null);
  useEffect(() => {
    if (wanted === null) return;
    setOpen(true);
    setRank(wanted);
    row.current.scrollIntoView({ block: "center" });
  }, [wanted]);
  const present = group.ranks.includes(rank) ? rank : group.ranks[0];
  const choose = (event) => {
    setRank(Number(event.currentTarget.value));
    if (wanted !== null) setQuery({ stack: event.currentTarget.value });
  };
  return html`<details class="stack-group" ref=${row} data-testid="stack-group" data-ranks=${formatRanks(group.ranks)} data-answered=${String(group.answered)}
    open=${open} onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary><${Standing} group=${group} /></summary>
    ${open && group.ranks.length > 1 && html`<label class="choice">Stack of rank
      <select value=${String(present)} onChange=${choose} data-testid="stack-rank">${group.ranks.map((each) => html`<option key=${each} value=${String(each)}>${each}</option>`)}</select></label>`}
    ${open && html`<${Stack} run=${run} rank=${present} group=${group} askedAt=${askedAt} />`}
  </details>`;
}

/** Which ranks, how many, and where, in one line. */
function Standing({ group }) {
  const { ranks, answered, wait, file, line } = group;
  const name = group.function;
  return html`<b class="stack-ranks" title=${formatRanks(ranks)}>[${fewRanks(ranks)}]</b>${" "}
    ${ranks.length > 1 && html`<small>×${count(ranks.length)}</small> `}
    ${answered && file
    ? html`<span class="stack-where">in <b>${wait}</b> <code>${file}:${line}</code>${name && name !== wait && html` <span class="dim">${name}</span>`}</span>`
    : html`<span class=${`stack-where ${answered ? "" : "dim"}`}>${group.where}</span>`}`;
}

function Stack({ run, rank, group, askedAt }) {
  const { data, error } = useResource(() => getStacks(run, { ranks: rank }), [run, rank, askedAt]);
  if (error && !data) return html`<p class="dim" role="alert">${error.message}</p>`;
  if (!data) return html`<p class="dim" role="status">Loading…</p>`;
  const found = data.ranks.find((each) => each.rank === rank);
  const threads = found?.threads ?? [];
  if (threads.length === 0) return html`<p class="dim">There is no stack of rank ${rank}: ${found?.reason ?? "it has not answered"}.</p>`;
  const [first, ...others] = threads;
  return html`<div class="stack" data-testid="stack" data-rank=${rank}>
    ${found.how === "signal" && html`<p class="dim">Had by a signal: it did not answer, as C code held its interpreter.</p>`}
    <${Frames} thread=${first} group=${group} />
    ${others.length > 0 && html`<details class="stack-others"><summary>${plural(others.length, "other thread")}</summary>
      ${others.map((thread) => html`<${Frames} key=${thread.id} thread=${thread} group=${null} />`)}</details>`}
    <${Copy} value=${stackText(rank, threads)} label=${`the stack of rank ${rank}`} text="copy the stack" />
  </div>`;
}

/** A thread's frames, innermost first; the line that counts stands out. */
function Frames({ thread, group }) {
  const here = group === null ? -1 : thread.frames.findIndex((frame) => isPlace(frame, group));
  return html`<h3>${thread.main ? "Main thread" : text(thread.name)}<small>innermost first</small></h3>
    <ol class="frames scroll">${thread.frames.map(([file, line, name], i) => {
      const cut = file.lastIndexOf("/") + 1;
      return html`<li key=${i} class=${i === here ? "here" : ""}><code><span class="dim">${file.slice(0, cut)}</span>${file.slice(cut)}:${line}
        <span class="dim"> in </span>${name}</code></li>`;
    })}</ol>
    ${thread.frames.length === 0 && html`<p class="dim">C code without a Python frame.</p>`}`;
}

/** The groups as lines that lead to their stacks, where most ranks stand still. */
export function StandingRanks({ run, stacks }) {
  const { query } = useRoute();
  const { groups } = stacks;
  return html`<div class="standing" data-testid="standing">
    <p class="dim">Where they stood, asked <${Ago} time=${stacks.asked_at} />:</p>
    ${groups.slice(0, FEW).map((group) => html`<a key=${keyOf(group)} class="stack-group" data-ranks=${formatRanks(group.ranks)}
      href=${tabUrl(run, "health", query, { stack: group.ranks[0] })}><${Standing} group=${group} /></a>`)}
    ${groups.length > FEW && html`<a href=${tabUrl(run, "health", query)}>and ${plural(groups.length - FEW, "more place")}</a>`}
  </div>`;
}
