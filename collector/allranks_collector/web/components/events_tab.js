// What happened to the run's ranks, newest first.
import { html, useEffect, useRef, useState } from "../lib.js";
import { getEvents } from "../api.js";
import { moment, plural, text } from "../format.js";
import { Filter, Notice } from "./bits.js";

const PAGE = 1_000;
const SHOWN = 500;
// What the collector keeps for itself, by numbers of writers, beside what it says in words.
const BY_NUMBERS = new Set(["told", "claims", "rivals"]);

export function EventsTab({ run, pulse }) {
  const { events, error } = useEvents(run, pulse);
  const [words, setWords] = useState("");
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = (events ?? []).filter((event) => wanted.every((word) => lineOf(event).includes(word))).reverse();
  return html`<section aria-label="Events">
    <div class="toolbar"><${Filter} label="Filter by kind, rank, host…" value=${words} onChange=${setWords} testid="events-filter" />
      <span class="dim" role="status">${events ? plural(rows.length, "event") : ""}${rows.length > SHOWN ? `, the newest ${SHOWN} shown` : ""}</span></div>
    ${error && !events && html`<${Notice} kind="error" title=${error.message} />`}
    ${events && rows.length === 0 && html`<${Notice} title=${words ? "No event matches." : "No events yet."} />`}
    ${rows.length > 0 && html`<div class="panel scroll"><table class="events" data-testid="events">
      <thead><tr><th scope="col">Time</th><th scope="col">Kind</th><th scope="col" class="figure">Rank</th>
        <th scope="col">Host · pid</th><th scope="col">What</th></tr></thead>
      <tbody>${rows.slice(0, SHOWN).map((event) => html`<tr key=${event.event} data-kind=${event.kind}>
        <td class="dim">${moment(event.time)}</td><td>${event.kind}</td><td class="figure">${event.rank ?? ""}</td>
        <td class="dim"><code>${event.host ?? ""}</code>${event.pid ? html` · <code>${event.pid}</code>` : ""}</td>
        <td class="body">${bodyOf(event.body)}</td></tr>`)}</tbody>
    </table></div>`}
  </section>`;
}

const lineOf = (event) => `${event.kind} rank ${event.rank} ${event.host} ${event.pid} ${JSON.stringify(event.body)}`.toLowerCase();

function bodyOf(body) {
  if (body === null || typeof body !== "object") return text(body);
  return Object.entries(body).filter(([key, value]) => !BY_NUMBERS.has(key) && !isEmpty(value))
    .map(([key, value]) => html`<span class="pair" key=${key}><span class="dim">${key}</span> ${key === "exception" ? exceptionOf(value) : text(value)}</span>`);
}

const isEmpty = (value) => value === null || value === "" || (typeof value === "object" && Object.keys(value).length === 0);

/** An exception by its type and message; its traceback, which is long, on demand. */
function exceptionOf(exception) {
  if (exception === null || typeof exception !== "object") return text(exception);
  const { type, message, traceback } = exception;
  return html`${[type, message].filter(Boolean).map(text).join(": ")}
    ${traceback && html`<details><summary>traceback</summary><pre>${text(traceback)}</pre></details>`}`;
}

/** All events of the run, fetched on from the last one known. */
function useEvents(run, pulse) {
  const [state, setState] = useState({ events: null, error: null });
  const known = useRef([]);
  const busy = useRef(false);
  useEffect(() => {
    let gone = false;
    const follow = async () => {
      if (busy.current) return;
      busy.current = true;
      try {
        for (;;) {
          const page = await getEvents(run, { after: known.current.at(-1)?.event, limit: PAGE });
          known.current = [...known.current, ...page];
          if (!gone) setState({ events: known.current, error: null });
          if (gone || page.length < PAGE) break;
        }
      } catch (error) {
        if (!gone) setState({ events: known.current.length ? known.current : null, error });
      }
      busy.current = false;
    };
    follow();
    const off = pulse.on((note) => { if (note.events) follow(); });
    return () => {
      gone = true;
      off();
    };
  }, [run, pulse]);
  return state;
}
