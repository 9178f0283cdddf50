// The health of a run's ranks: where they stand, how they fared, what the time went to, who is slow, who is different.
import { html, useEffect } from "../lib.js";
import { getAttempts, getDifferences, getStragglers, getTimeline } from "../api.js";
import { useResource, useThrottled } from "../store.js";
import { AttemptsPanel } from "./attempts_panel.js";
import { DifferencesPanel } from "./differences_panel.js";
import { StacksPanel } from "./stacks_panel.js";
import { StragglersPanel } from "./stragglers_panel.js";
import { TimelinePanel } from "./timeline_panel.js";

const EVENTS_MS = 2_000;
// What grows without an event: time that is lost, values that diverge.
const SLOWLY_MS = 15_000;

export function HealthTab({ run, pulse, attempt, stacks, theme }) {
  const goesOn = run.ended_at === null;
  const timeline = useFollowed(() => getTimeline(run.id, attempt || "all"), [run.id, attempt], pulse);
  const account = useFollowed(() => getAttempts(run.id), [run.id], pulse, goesOn && SLOWLY_MS);
  const stragglers = useFollowed(() => getStragglers(run.id, attempt), [run.id, attempt], pulse, goesOn && SLOWLY_MS);
  const differences = useFollowed(() => getDifferences(run.id, attempt), [run.id, attempt], pulse, goesOn && SLOWLY_MS);
  return html`<section id="health" class="health" aria-label="Health" data-testid="health">
    <${StacksPanel} run=${run.id} stacks=${stacks.data} refresh=${stacks.refresh} error=${stacks.error} />
    <${TimelinePanel} timeline=${timeline} attempts=${attempt ? null : account.data?.attempts} theme=${theme} />
    <${AttemptsPanel} account=${account} />
    <${StragglersPanel} stragglers=${stragglers} ranks=${run.world_size ?? run.ranks_seen} />
    <${DifferencesPanel} differences=${differences} />
  </section>`;
}

/** Fetched anew when something happens to ranks, and every `everyMs` (false: not) while somebody looks. */
function useFollowed(load, deps, pulse, everyMs = false) {
  const resource = useResource(load, deps);
  const soon = useThrottled(resource.refresh, EVENTS_MS);
  useEffect(() => pulse.on(({ events }) => { if (events) soon(); }), [pulse]);
  useEffect(() => {
    if (!everyMs) return undefined;
    const timer = setInterval(() => { if (!document.hidden) soon(); }, everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return resource;
}
