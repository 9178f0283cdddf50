// What the ranks print: every line, searched, filtered and followed.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../lib.js";
import { getLogs, logsTextUrl, mayPass, RETRY_MS } from "../api.js";
import { logSource } from "../log_source.js";
import { moment, plural } from "../format.js";
import { formatRanks, isRankList, parseRanks } from "../ranks.js";
import { setQuery, useRoute } from "../router.js";
import { usePreference, useThrottled } from "../store.js";
import { Copy, Notice, Segmented } from "./bits.js";
import { LogView, Text } from "./log_view.js";

const FOLLOW_MS = 100;
// To find the lines that one rank alone printed all of them are gone through.
const ODD_MS = 3_000;
const TYPING_MS = 300;
// What of a chosen line is shown; more of it is in the download.
const WHOLE = 100_000;
const STREAMS = [["", "both"], ["stdout", "stdout"], ["stderr", "stderr"]];

/** `size`: how many ranks the run has. */
export function ConsoleTab({ run, pulse, attempt, selected, size }) {
  const { query } = useRoute();
  const [fold, setFold] = usePreference("console.fold", true);
  const [times, setTimes] = usePreference("console.times", false);
  const [hosts, setHosts] = usePreference("console.hosts", true);
  const search = query.q ?? "";
  const only = query.matches !== "0";
  const chosen = /^\d{1,15}$/.test(query.line ?? "") ? Number(query.line) : null;
  const choice = useMemo(() => {
    const stream = STREAMS.some(([name]) => name === query.stream) ? query.stream : "";
    return { attempt, ranks: selected, stream, odd: query.odd === "1" ? true : undefined };
  }, [attempt, selected, query.stream, query.odd]);
  const filters = useMemo(() => ({ ...choice, grep: only ? search : "", fold: fold || undefined }), [choice, only, search, fold]);

  const [follow, setFollow] = useState(chosen === null);
  const [said, setSaid] = useState("");
  const view = useRef(null);
  const field = useRef(null);
  const [top, frame] = useTop();
  const [line, setLine] = useState(null);
  const { source, error, version, epoch } = useLogs(run, filters, selected ? parseRanks(selected).length : size, pulse);
  const present = useRef(null);
  present.current = source;
  // What was asked for before there was anything to find it in.
  const awaited = useRef(null);
  // How often somebody has gone somewhere: an answer that comes after a later wish moves nothing any more.
  const wishes = useRef(0);

  /** Marks a line, and brings it into sight. Where the filters leave it out, its place is brought into sight, and false given. */
  const reveal = async (place) => {
    const asked = present.current;
    const wish = ++wishes.current;
    if (!asked) {
      awaited.current = place;
      return false;
    }
    try {
      const found = await asked.find(place);
      if (wish !== wishes.current) return false;
      // Other filters came meanwhile: it is theirs to say.
      if (asked !== present.current) return await reveal(place);
      const isHere = found !== null && (place.at === undefined || place.at === found.line.number);
      setSaid(isHere ? "" : "The line of this link is not among those shown.");
      if (found === null) return false;
      setFollow(false);
      if (isHere) {
        setLine(found.line);
        setQuery({ line: found.line.number });
      }
      view.current?.reveal(found.page, found.row);
      return isHere;
    } catch (failure) {
      setSaid(failure.message);
      return false;
    }
  };
  const choose = (row) => {
    wishes.current++;
    if (row.number === chosen) return release();
    setLine(row);
    setFollow(false);
    return setQuery({ line: row.number });
  };
  const release = () => {
    setLine(null);
    setQuery({ line: null });
  };
  const before = useRef(null);
  useEffect(() => {
    if (!source) return;
    const isSame = before.current === source;
    // Who comes by a link wants to see that line.
    if (before.current === null && chosen !== null) frame.current.scrollIntoView({ block: "end" });
    before.current = source;
    const place = awaited.current;
    awaited.current = null;
    if (place) reveal(place);
    else if (chosen === null) setLine(null);
    else if (chosen !== line?.number || !isSame) reveal({ at: chosen });
  }, [source, chosen]);
  // The pages are others than before: what was read is looked up in them.
  const reading = useRef(null);
  useEffect(() => {
    if (!source || follow || reading.current === null) return;
    source.find({ at: reading.current }).then((found) => { if (found) view.current?.reveal(found.page, found.row); }, () => {});
  }, [epoch]);
  useEffect(() => {
    reading.current = view.current?.top()?.number ?? null;
  }, [version, follow, line]);

  const matches = useMatches({ run, choice, search, chosen, view, reveal, setSaid });
  const toEnd = () => {
    wishes.current++;
    release();
    setFollow(true);
  };
  const toStart = () => {
    wishes.current++;
    setFollow(false);
    view.current?.toStart();
  };
  useKeys({ "/": () => field.current.focus(), n: () => matches.go(1), N: () => matches.go(-1), g: toStart, Home: toStart, G: toEnd, End: toEnd });

  const message = error?.message ?? source?.error?.message ?? matches.error ?? said;
  const total = source?.total ?? 0;
  const isFiltered = Boolean(filters.grep || choice.ranks || choice.stream || choice.odd);
  return html`<section class="console" aria-label="Console" ref=${frame} style=${{ "--top": `${top}px` }} data-testid="console">
    <div class="toolbar" role="toolbar" aria-label="Which lines are shown">
      <div class="log-search">
        <${Typed} label="Search, as a regular expression…" value=${search} onChange=${(text) => setQuery({ q: text })} field=${field}
          testid="log-search" title="RE2 syntax; (?i) first for any case. / goes here, n and N to the next and the last match" />
        <button type="button" class="toggle" aria-pressed=${String(only)} data-testid="log-only" disabled=${!search}
          title="Show only lines that match, or all with the matches marked" onClick=${() => setQuery({ matches: only ? "0" : null })}>only</button>
        <button type="button" aria-label="Previous match" title="Previous match (N)" disabled=${!search} onClick=${() => matches.go(-1)} data-testid="log-previous">↑</button>
        <button type="button" aria-label="Next match" title="Next match (n)" disabled=${!search} onClick=${() => matches.go(1)} data-testid="log-next">↓</button>
        ${matches.place && html`<span class="dim" role="status" data-testid="log-matches">${matches.place}</span>`}
      </div>
      <${RankField} value=${selected} onSay=${setSaid} />
      <${Segmented} label="Stream" value=${choice.stream} onChange=${(name) => setQuery({ stream: name })} testid="log-stream" options=${STREAMS} />
      <${Toggle} on=${fold} onToggle=${setFold} testid="log-fold" title="The same line of several ranks as one">fold<//>
      <${Toggle} on=${choice.odd === true} onToggle=${(on) => setQuery({ odd: on ? "1" : null })} testid="log-odd"
        title="Only lines that one rank alone printed">odd<//>
      <${Toggle} on=${times} onToggle=${setTimes} testid="log-times" title="When each line was printed">time<//>
      <${Toggle} on=${hosts} onToggle=${setHosts} testid="log-hosts" title="Whose line it is">rank<//>
      <${StepField} onStep=${(step) => reveal({ step })} />
      <span class="log-tail"><span class="dim" role="status" data-testid="log-total">${source ? plural(total, "line") : ""}</span>
        <a class="button" href=${logsTextUrl(run, filters)} download data-testid="log-download" title="These lines as text">Download</a></span>
    </div>
    ${message && html`<p class="log-said" role="alert" data-testid="log-error">${message}</p>`}
    ${!source && !error && html`<p class="dim" role="status">Loading…</p>`}
    ${source && total === 0 && source.open.length === 0 && html`<${Empty} filtered=${isFiltered} />`}
    ${source && (total > 0 || source.open.length > 0) && html`<div class="panel log-frame">
      <${LogView} source=${source} version=${version} follow=${follow} onFollow=${setFollow} chosen=${chosen} onChoose=${choose}
        search=${search} times=${times} hosts=${hosts} handle=${view} />
      ${!follow && html`<button type="button" class="log-end" onClick=${toEnd} data-testid="log-end" title="To the newest line, and on with it (G)">↓ Follow</button>`}
      ${line && html`<${Whole} line=${line} onClose=${release} />`}
    </div>`}
  </section>`;
}

function Empty({ filtered }) {
  if (filtered) return html`<${Notice} title="No line matches." />`;
  return html`<${Notice} title="Nothing printed yet.">What the ranks print comes here, <code>stdout</code> and <code>stderr</code>, as they print it:
    Python, C++ and child processes, up to the last words of a crash.<//>`;
}

/** The lines under these filters; those of the filters before stay until the new ones are here. */
function useLogs(run, filters, ranks, pulse) {
  const [state, setState] = useState({ source: null, error: null, version: 0, epoch: 0 });
  const shown = useRef(null);
  // The size of pages goes with the number of ranks, which need not be told exactly.
  const scale = 2 ** Math.ceil(Math.log2(Math.max(1, ranks)));
  useEffect(() => {
    let timer = 0;
    let gone = false;
    const source = logSource(run, filters, scale, (what) => {
      if (shown.current !== source) return;
      setState((old) => ({ ...old, version: old.version + 1, epoch: old.epoch + (what === "all" ? 1 : 0) }));
    });
    const begin = async () => {
      try {
        await source.load();
        if (gone) return;
        shown.current?.close();
        shown.current = source;
        setState((old) => ({ source, error: null, version: old.version + 1, epoch: old.epoch }));
      } catch (error) {
        if (gone) return;
        setState((old) => ({ ...old, error }));
        if (mayPass(error)) timer = setTimeout(begin, RETRY_MS);
      }
    };
    begin();
    return () => {
      gone = true;
      clearTimeout(timer);
      if (shown.current !== source) source.close();
    };
  }, [run, filters, scale]);
  useEffect(() => () => shown.current?.close(), []);
  const followSoon = useThrottled(() => shown.current?.follow(), filters.odd ? ODD_MS : FOLLOW_MS);
  useEffect(() => pulse.on((note) => { if (note.logs) followSoon(); }), [pulse]);
  return state;
}

/** The matches of the search, one after the other: `go(1)` marks the next, `go(-1)` the one before. */
function useMatches({ run, choice, search, chosen, view, reveal, setSaid }) {
  const [state, setState] = useState({ index: null, total: null, number: null });
  const busy = useRef(false);
  useEffect(() => setState({ index: null, total: null, number: null }), [search, choice]);

  const ask = (params) => getLogs(run, { ...choice, grep: search, limit: 1, total: true, ...params });
  const place = async (direction) => {
    if (state.number !== null && state.number === chosen) return state.index + direction;
    // From what is chosen or read: so many matches stand before it.
    const from = chosen === null ? view.current?.top() : (await getLogs(run, { ...choice, at: chosen, limit: 1 })).lines[0];
    if (!from) return direction > 0 ? 0 : -1;
    const before = (await ask({ end: from.time })).total;
    if (direction < 0) return before - 1;
    const [next] = (await ask({ offset: before })).lines;
    return next?.number === chosen ? before + 1 : before;
  };
  const go = async (direction) => {
    if (!search || busy.current) return;
    busy.current = true;
    try {
      let index = await place(direction);
      let answer = await ask({ offset: Math.max(0, index) });
      if (answer.total > 0 && (index < 0 || index >= answer.total)) {
        index = index < 0 ? answer.total - 1 : 0;
        answer = await ask({ offset: index });
      }
      const match = answer.lines.find((line) => !line.open);
      if (!match) setSaid("No line matches.");
      else if (await reveal({ at: match.number })) setState({ index, total: answer.total, number: match.number });
    } catch (error) {
      setSaid(error.message);
    }
    busy.current = false;
  };
  const isAt = state.number !== null && state.number === chosen;
  return { go, place: isAt ? `${state.index + 1} of ${plural(state.total, "match", "matches")}` : "" };
}

/** Keys that serve the tab while nothing is being typed. */
function useKeys(actions) {
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    const onKeyDown = (event) => {
      const action = Object.hasOwn(latest.current, event.key) ? latest.current[event.key] : null;
      if (!action || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
      event.preventDefault();
      action();
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, []);
}

/** How far down the page an element begins, in pixels: what is left of the window below it is its own. */
function useTop() {
  const frame = useRef(null);
  const [top, setTop] = useState(0);
  useLayoutEffect(() => {
    const measure = () => setTop(Math.round(frame.current.getBoundingClientRect().top + scrollY));
    const observer = new ResizeObserver(measure);
    observer.observe(document.body);
    measure();
    return () => observer.disconnect();
  }, []);
  return [top, frame];
}

function Toggle({ on, onToggle, testid, title, children }) {
  return html`<button type="button" class="toggle" aria-pressed=${String(on)} title=${title} data-testid=${testid} onClick=${() => onToggle(!on)}>${children}</button>`;
}

/** A search field whose value is told once the reader has stopped typing. */
function Typed({ label, value, onChange, field, testid, title }) {
  const [text, setText] = useState(value);
  const timer = useRef(0);
  useEffect(() => setText(value), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const tell = (next, wait) => {
    clearTimeout(timer.current);
    setText(next);
    timer.current = setTimeout(() => onChange(next), wait);
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter") tell(text, 0);
    else if (event.key === "Escape") {
      tell("", 0);
      event.currentTarget.blur();
    }
  };
  return html`<input type="search" class="filter" ref=${field} placeholder=${label} aria-label=${label} title=${title} value=${text} data-testid=${testid}
    spellcheck="false" autocomplete="off" onInput=${(event) => tell(event.currentTarget.value, TYPING_MS)} onKeyDown=${onKeyDown} />`;
}

function RankField({ value, onSay }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  const take = () => {
    if (!isRankList(text)) onSay("Ranks are numbers and ranges, as in 0-7,16.");
    else {
      onSay("");
      setQuery({ ranks: formatRanks(parseRanks(text)) });
    }
  };
  return html`<input type="text" class="log-ranks" placeholder="ranks: 0-7,16" aria-label="Ranks, as in 0-7,16" value=${text} data-testid="log-ranks" spellcheck="false"
    autocomplete="off" onInput=${(event) => setText(event.currentTarget.value)} onChange=${take}
    onKeyDown=${(event) => { if (event.key === "Enter") take(); }} />`;
}

function StepField({ onStep }) {
  const onKeyDown = (event) => {
    const step = event.currentTarget.value.trim();
    if (event.key === "Enter" && step !== "") onStep(step);
  };
  return html`<input type="text" inputmode="numeric" class="log-step" placeholder="to step…" aria-label="Go to the lines around a step" title="Enter: the lines around the moment when the ranks logged this step"
    data-testid="log-step" autocomplete="off" onKeyDown=${onKeyDown} />`;
}

/** The chosen line with all that is known of it, wrapped. */
function Whole({ line, onClose }) {
  return html`<div class="log-whole" data-testid="log-whole">
    <header><b>${line.stream === "note" ? "note" : `${line.stream} line ${line.line + 1}`}</b><span>${line.host}, rank ${line.rank}, attempt ${line.attempt}</span>
      <span>${moment(line.time)}</span><${Copy} value=${location.href} label="the link to this line" text="link" />
      <span class="grow"></span><button type="button" class="quiet" aria-label="Close" onClick=${onClose}>×</button></header>
    <${Text} text=${line.text} expression=${null} limit=${WHOLE} />
  </div>`;
}
