// The last lines that a rank printed, where it is named as the cause.
import { html, useEffect } from "../lib.js";
import { getLogs } from "../api.js";
import { useResource } from "../store.js";
import { Text } from "./log_view.js";

const LINES = 8;
const CUT = 400;

export function LastWords({ run, rank }) {
  const filters = { ranks: rank.rank, attempt: rank.attempt };
  const { data, refresh } = useResource(() => getLogs(run, { ...filters, limit: LINES }), [run, rank.rank, rank.attempt]);
  // What was still on its way when the rank was named comes in afterwards.
  useEffect(refresh, [rank.state, rank.last_seen]);
  const lines = (data?.lines ?? []).filter((line) => line.text).slice(-LINES);
  if (lines.length === 0) return null;
  const last = lines.findLast((line) => line.number !== null);
  const search = new URLSearchParams({ tab: "console", ranks: rank.rank, attempt: rank.attempt });
  if (last) search.set("line", last.number);
  return html`<div class="last-words" data-testid="last-words">
    <header><b>Last words of rank ${rank.rank}</b><a href=${`/runs/${encodeURIComponent(run)}?${search}`} data-testid="last-words-link">in the console</a></header>
    <div class="scroll">${lines.map((line, i) => html`<div key=${i} class=${`log-row ${line.stream}`}><${Text} text=${line.text} expression=${null} limit=${CUT} /></div>`)}</div>
  </div>`;
}
