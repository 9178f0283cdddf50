// Why the run is as it is, on top of its page: the first failure in one line, and what is known of it in four more.
import { html } from "../lib.js";

/** `why`: what the API says of it; nothing is shown of a run that is well. `children` stand under its lines. */
export function Verdict({ why, children }) {
  if (!why || why.outcome === "expected") return null;
  if (why.first === null && why.stalled.length === 0 && why.roll_call.missing.length === 0) return null;
  const [verdict, ...lines] = why.lines;
  // What stands below with links is not said twice.
  const more = lines.filter((line) => !(children && why.stands && line.startsWith("they stand: ")));
  return html`<section class="panel verdict" data-state=${why.outcome} data-testid="verdict" aria-label="Why">
    <details open><summary>${verdict}</summary>${more.map((line) => html`<p key=${line}>${line}</p>`)}${children}</details>
  </section>`;
}
