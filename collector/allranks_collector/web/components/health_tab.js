// The health of a run's ranks: where they stand.
import { html } from "../lib.js";
import { StacksPanel } from "./stacks_panel.js";

export function HealthTab({ run, stacks }) {
  return html`<section id="health" class="health" aria-label="Health">
    <${StacksPanel} run=${run.id} stacks=${stacks.data} refresh=${stacks.refresh} error=${stacks.error} />
  </section>`;
}
