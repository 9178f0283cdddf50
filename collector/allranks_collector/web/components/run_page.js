// A run's page: fetches what its parts show, and tells them when the collector says that something moved.
import { html, useMemo, useRef } from "../lib.js";
import { getFiles, getKeys, getRanks, getRun, getStacks, getWhy } from "../api.js";
import { seriesLoader } from "../loader.js";
import { bus } from "../observable.js";
import { formatRanks, mostStand, parseRanks } from "../ranks.js";
import { setQuery, tabUrl, useRoute, useTitle } from "../router.js";
import { placesOf } from "../stacks.js";
import { useResource, useStream, useThrottled } from "../store.js";
import { Notice } from "./bits.js";
import { ChartsTab } from "./charts_tab.js";
import { ConfigTab } from "./config_tab.js";
import { ConsoleTab } from "./console_tab.js";
import { EventsTab } from "./events_tab.js";
import { FilesTab } from "./files_tab.js";
import { HealthTab } from "./health_tab.js";
import { ObjectsTab } from "./objects_tab.js";
import { RanksPanel } from "./ranks_panel.js";
import { RunHeader } from "./run_header.js";
import { StandingRanks } from "./stacks_panel.js";
import { Verdict } from "./verdict.js";

const CHARTS_MS = 1_000;
const RANKS_MS = 1_000;
const HEADER_MS = 2_000;
const WHY_MS = 2_000;
// Steps and times of the ranks move with the metrics, and are read less often than their states.
const STEPS_MS = 3_000;
const KEYS_MS = 5_000;
const FILES_MS = 1_000;
const STACKS_MS = 500;

export function RunPage({ id, theme }) {
  const { data, error, refresh } = useResource(() => getRun(id), [id]);
  useTitle(data && data.state, data ? data.name || data.id : id);
  if (data && error && error.status === 404) return html`<${Notice} title="This run has been removed."><a href="/">All runs</a><//>`;
  if (data) return html`<${LoadedRun} run=${data} refresh=${refresh} theme=${theme} />`;
  if (!error) return html`<p class="page dim" role="status">Loading…</p>`;
  return html`<${Notice} kind="error" title=${error.message}>
    ${error.status === 0 ? "Reconnecting… this page goes on by itself." : html`<a href="/">All runs</a>`}<//>`;
}

function LoadedRun({ run, refresh, theme }) {
  const { query } = useRoute();
  // An address may name an attempt that never was.
  const attempt = run.attempts.some((one) => String(one.attempt) === query.attempt) ? query.attempt : "";
  const ranks = useResource(() => getRanks(run.id, attempt), [run.id, attempt]);
  const keys = useResource(() => getKeys(run.id), [run.id]);
  const files = useResource(() => getFiles(run.id), [run.id]);
  const why = useResource(() => getWhy(run.id, attempt), [run.id, attempt]);
  const stacks = useResource(() => getStacks(run.id, { threads: false }), [run.id]);
  const load = useMemo(() => seriesLoader(run.id), [run.id]);
  const { pulse, onEvent, onLive } = usePulse(run.id, { refresh, ranks, keys, files, why, stacks });
  useStream(run.id, onEvent, onLive);

  const selected = useMemo(() => parseRanks(query.ranks), [query.ranks]);
  const select = (list) => setQuery({ ranks: formatRanks(list) });
  const list = ranks.data ?? [];
  const spoken = useMemo(
    () => formatRanks(list.filter((rank) => rank.state !== "expected").map((rank) => rank.rank)), [ranks.data],
  );
  const byKind = useMemo(() => {
    const of = (kind) => (keys.data ?? []).filter((key) => key.kind === kind);
    return { metric: of("metric"), system: of("system"), object: of("object") };
  }, [keys.data]);

  const tabs = [
    ["charts", "Charts", byKind.metric.length], ["health", "Health"], ["system", "System", byKind.system.length], ["console", "Console"],
    ["objects", "Text & histograms", byKind.object.length], ["files", "Files", files.data?.files.length],
    ["config", "Config & summary"], ["events", "Events"],
  ];
  const tab = tabs.some(([name]) => name === query.tab) ? query.tab : "charts";
  // What an earlier attempt said is history.
  const newest = run.attempts.at(-1);
  const isOfNow = stacks.data?.asked_at > (newest?.started_at ?? 0) && (attempt === "" || Number(attempt) === newest?.attempt);
  const places = useMemo(() => placesOf(isOfNow ? stacks.data.groups : []), [isOfNow && stacks.data]);
  // On the health tab they are below, and more of them.
  const standing = tab !== "health" && isOfNow && mostStand(list);
  const charts = { load, pulse, attempt, spoken, selected: formatRanks(selected), theme };
  const shown = {
    charts: () => html`<${ChartsTab} key="charts" source="metrics" keys=${keys.data && byKind.metric} error=${keys.error} ...${charts} />`,
    health: () => html`<${HealthTab} run=${run} pulse=${pulse} attempt=${attempt} stacks=${stacks} theme=${theme} />`,
    system: () => html`<${ChartsTab} key="system" source="system" keys=${keys.data && byKind.system} error=${keys.error} ...${charts} />`,
    console: () => html`<${ConsoleTab} key=${run.id} run=${run.id} pulse=${pulse} attempt=${attempt} selected=${charts.selected} size=${run.world_size ?? run.ranks_seen} />`,
    objects: () => html`<${ObjectsTab} run=${run.id} keys=${byKind.object} pulse=${pulse} ranks=${charts.selected} />`,
    files: () => html`<${FilesTab} run=${run.id} list=${files.data} error=${files.error} refresh=${files.refresh} />`,
    config: () => html`<${ConfigTab} run=${run} />`,
    events: () => html`<${EventsTab} run=${run.id} pulse=${pulse} />`,
  };
  return html`<div class="page run" data-testid="run-page" data-run=${run.id}>
    <${RunHeader} run=${run} ranks=${list} attempt=${attempt} />
    <${Verdict} why=${why.data}>${standing && html`<${StandingRanks} run=${run.id} stacks=${stacks.data} />`}<//>
    <${RanksPanel} run=${run.id} first=${why.data?.first?.rank ?? null} words=${tab !== "console"} ranks=${list} places=${places} selected=${selected} onSelect=${select} error=${ranks.error} />
    <nav class="tabs" aria-label="Views of the run">
      ${tabs.map(([name, label, size]) => html`<a key=${name} href=${tabUrl(run.id, name, query, { stack: null })} data-testid=${`tab-${name}`}
        aria-current=${name === tab ? "page" : undefined}>${label}${size ? html`<small>${size}</small>` : ""}</a>`)}
    </nav>
    ${shown[tab]()}
  </div>`;
}

/** Turns the stream's notes into refreshes, each kind at its own pace.
 *
 * The pulse tells charts which keys moved (null: all of them), and the events and the console that there are new ones.
 */
function usePulse(id, { refresh, ranks, keys, files, why, stacks }) {
  const pulse = useMemo(bus, [id]);
  const moved = useRef(new Set());
  const everything = useRef(false);
  const known = useRef(new Set());
  known.current = useMemo(() => new Set((keys.data ?? []).map((key) => key.key)), [keys.data]);

  const chartsSoon = useThrottled(() => {
    pulse.emit({ keys: everything.current ? null : moved.current });
    moved.current = new Set();
    everything.current = false;
  }, CHARTS_MS);
  const eventsSoon = useThrottled(() => pulse.emit({ keys: new Set(), events: true }), CHARTS_MS);
  const logs = () => pulse.emit({ keys: new Set(), logs: true });
  const ranksSoon = useThrottled(ranks.refresh, RANKS_MS);
  const whySoon = useThrottled(why.refresh, WHY_MS);
  const stepsSoon = useThrottled(ranks.refresh, STEPS_MS);
  const headerSoon = useThrottled(refresh, HEADER_MS);
  const keysSoon = useThrottled(keys.refresh, KEYS_MS);
  const filesSoon = useThrottled(files.refresh, FILES_MS);
  const stacksSoon = useThrottled(stacks.refresh, STACKS_MS);
  const newKeysSoon = useThrottled(keys.refresh, CHARTS_MS);

  const onMetrics = (data) => {
    if (Array.isArray(data.keys)) {
      for (const key of data.keys) moved.current.add(key);
      (data.keys.some((key) => !known.current.has(key)) ? newKeysSoon : keysSoon)();
    } else {
      everything.current = true;
      (known.current.size === 0 ? newKeysSoon : keysSoon)();
    }
    chartsSoon();
    stepsSoon();
    headerSoon();
  };
  // What changes a rank's state is an event too.
  const all = (...steps) => () => steps.forEach((step) => step());
  const actions = {
    metrics: onMetrics, ranks: all(ranksSoon, headerSoon, whySoon, eventsSoon), runs: all(ranksSoon, headerSoon, whySoon, eventsSoon), events: eventsSoon,
    files: filesSoon, logs, stacks: all(stacksSoon, whySoon),
  };
  const onLive = () => {
    everything.current = true;
    for (const soon of [chartsSoon, eventsSoon, ranksSoon, whySoon, headerSoon, keysSoon, filesSoon, stacksSoon, logs]) soon();
  };
  return { pulse, onEvent: (topic, data) => actions[topic]?.(data), onLive };
}
