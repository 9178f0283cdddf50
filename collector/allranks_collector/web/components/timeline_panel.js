// How every rank fared over time: a row per rank on one canvas, in the colours of the rank grid.
import { html, useEffect, useMemo, useRef, useState } from "../lib.js";
import { count, duration, moment, plural } from "../format.js";
import { useNow, connection } from "../store.js";
import { useObservable } from "../observable.js";
import { stateColors } from "../theme.js";
import { heightOf, isBad, namedRows, rectangles, spanAt, statesOf, timelineOf, timeTicks, troubled } from "../timeline.js";
import { useVisible } from "../visible.js";
import { Segmented } from "./bits.js";

const LEFT = 44;
// Above the rows, where attempts have their names.
const NAMES = 16;
const MARGIN = 4;
const BOTTOM = 20;
const DRAG_MIN = 5;
// Windows that a reader may choose, in seconds, where the run is longer.
const WINDOWS = [[600, "last 10 min"], [3600, "last hour"], [86400, "last day"]];
const ENDED = new Set(["failed", "dead", "finished"]);

/** `attempts`: those of the run, as the API says them; null where they are not known. */
export function TimelinePanel({ timeline, attempts, theme }) {
  const { data, error } = timeline;
  const told = useMemo(() => (data ? { ...timelineOf(data), at: performance.now() } : null), [data]);
  const [only, setOnly] = useState("all");
  // The time that is shown: the last so many seconds (0: all), or a part that was drawn out, {from, until}.
  const [last, setLast] = useState(0);
  if (!told || told.rows.length === 0) {
    return html`<section class="panel" id="timeline" aria-label="Timeline of states"><header class="panel-head"><h2>Timeline</h2></header>
      <p class="dim empty">${error && !data ? error.message : "No states yet: each rank gets a row here once the run knows how many there are."}</p></section>`;
  }
  const bad = troubled(told.rows);
  const rows = only === "bad" && bad.length > 0 ? bad : told.rows;
  const windows = WINDOWS.filter(([seconds]) => seconds < told.until - told.from);
  return html`<section class="panel" id="timeline" aria-label="Timeline of states" data-testid="timeline">
    <header class="panel-head"><h2>Timeline</h2>
      <span class="timeline-legend">${statesOf(told.rows).map(({ state, count: ranks }) => html`<span key=${state} class="legend-item" data-state=${state}
        data-testid="timeline-state" title=${`${plural(ranks, "rank")} ${ranks === 1 ? "was" : "were"} ${state} at some time`}><i class="swatch" aria-hidden="true"></i>${state} <b>${count(ranks)}</b></span>`)}</span>
      <span class="grow"></span>
      <span class="dim hint">Drag to zoom</span>
      ${bad.length > 0 && bad.length < told.rows.length && html`<${Segmented} label="Ranks" value=${only} onChange=${setOnly} testid="timeline-only"
        options=${[["all", "all ranks"], ["bad", `the ${count(bad.length)} not always well`]]} />`}
      ${(windows.length > 0 || last !== 0) && html`<${Segmented} label="Time" value=${last} onChange=${setLast} testid="timeline-window" options=${[[0, "all"], ...windows]} />`}
    </header>
    <${Drawing} told=${told} rows=${rows} last=${last} onZoom=${setLast} attempts=${attempts} theme=${theme} />
  </section>`;
}

function Drawing({ told, rows, last, onZoom, attempts, theme }) {
  const frame = useRef(null);
  const canvas = useRef(null);
  const visible = useVisible(frame);
  const [width, setWidth] = useState(0);
  const [place, setPlace] = useState(null);
  // Where a drag began, in pixels of the drawing.
  const [drag, setDrag] = useState(null);
  const live = useObservable(connection) === "live";
  const now = useNow();
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.round(entry.contentRect.width)));
    observer.observe(frame.current);
    return () => observer.disconnect();
  }, []);

  // What has not ended goes on while nobody says otherwise.
  const goesOn = live && rows.some(({ spans }) => spans.length > 0 && spans.at(-1).open && !ENDED.has(spans.at(-1).state));
  const { until, shown } = useMemo(() => {
    if (!goesOn) return { until: told.until, shown: rows };
    const end = told.until + (performance.now() - told.at) / 1000;
    return { until: end, shown: rows.map((row) => ({ ...row, spans: row.spans.map((span) => (span.open ? { ...span, until: end } : span)) })) };
  }, [rows, told, goesOn && now]);
  const height = heightOf(rows.length);
  const time = typeof last === "number" ? { from: last ? Math.max(told.from, until - last) : told.from, until } : last;
  const area = { ...time, width: Math.max(0, width - LEFT), height };
  const began = (attempts ?? []).slice(1).map(({ attempt, began_ns: ns }) => ({ attempt, time: ns / 1e9 }));
  area.top = began.length > 0 ? NAMES : MARGIN;

  useEffect(() => {
    if (visible && area.width > 0) draw(canvas.current, shown, area, began);
  }, [visible, shown, width, last, theme, attempts]);

  const at = place && (place.key ? spanOfKey(shown, place.key) : spanAt(shown, area, place.x, place.y));
  const onMove = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left - LEFT, event.clientY - box.top - area.top];
    setPlace(x < 0 || y < 0 || x > area.width || y > height ? null : { x, y, key: null });
    return x;
  };
  const onDown = (event) => {
    if (event.button !== 0 || event.pointerType !== "mouse") return;
    canvas.current.setPointerCapture(event.pointerId);
    setDrag(onMove(event));
  };
  const onUp = (event) => {
    if (drag === null) return;
    const ends = [drag, onMove(event)].map((x) => Math.min(Math.max(x, 0), area.width)).sort((a, b) => a - b);
    setDrag(null);
    const timeOf = (x) => area.from + (x / area.width) * (area.until - area.from);
    if (ends[1] - ends[0] > DRAG_MIN) onZoom({ from: timeOf(ends[0]), until: timeOf(ends[1]) });
  };
  const onKeyDown = (event) => {
    if (event.key === "Escape") return setPlace(null);
    const from = place?.key ?? { row: 0, span: shown[0].spans.length - 1 };
    const next = moved(shown, from, event.key);
    if (next === null) return undefined;
    event.preventDefault();
    const span = shown[next.row].spans[next.span];
    const x = span ? ((Math.max(span.from, area.from) + Math.min(span.until, area.until)) / 2 - area.from) / (area.until - area.from) : 0;
    return setPlace({ x: Math.min(1, Math.max(0, x)) * area.width, y: ((next.row + 0.5) / shown.length) * height, key: next });
  };
  return html`<div class="timeline" ref=${frame}>
    <canvas ref=${canvas} tabIndex="0" role="img" data-testid="timeline-canvas" data-rows=${rows.length}
      aria-label=${`States of ${plural(rows.length, "rank")} over time; arrow keys go from rank to rank and from state to state`}
      style=${{ width: `${width}px`, height: `${area.top + height + BOTTOM}px` }}
      onPointerMove=${onMove} onPointerDown=${onDown} onPointerUp=${onUp} onPointerCancel=${() => setDrag(null)} onDblClick=${() => onZoom(0)} onPointerLeave=${() => setPlace(null)} onKeyDown=${onKeyDown} onBlur=${() => setPlace(null)}></canvas>
    ${drag !== null && place && html`<div class="timeline-drag" style=${{ left: `${LEFT + Math.min(drag, place.x)}px`, width: `${Math.abs(place.x - drag)}px`, top: `${area.top}px`, height: `${height}px` }}></div>`}
    ${at && drag === null && html`<${Hint} rank=${shown[at.row].rank} span=${at.span} left=${LEFT + place.x} top=${area.top + place.y + 14} flip=${place.x > area.width / 2} />`}
  </div>`;
}

const spanOfKey = (rows, { row, span }) => (rows[row]?.spans[span] ? { row, span: rows[row].spans[span] } : null);

/** Where a key leads from a span; null where it leads nowhere. */
function moved(rows, { row, span }, key) {
  const inRow = (index) => ({ row: index, span: rows[index].spans.length - 1 });
  const to = { ArrowUp: row - 1, ArrowDown: row + 1, Home: 0, End: rows.length - 1 }[key];
  if (to !== undefined) return rows[to] ? inRow(to) : null;
  const beside = { ArrowLeft: span - 1, ArrowRight: span + 1 }[key];
  return beside !== undefined && rows[row]?.spans[beside] ? { row, span: beside } : null;
}

function Hint({ rank, span, left, top, flip }) {
  const goesOn = span.open && !ENDED.has(span.state);
  const rows = [
    ["host", span.host], ["attempt", span.attempt], ["since", moment(span.from)],
    ...(ENDED.has(span.state) ? [] : [["for", `${duration(span.until - span.from)}${goesOn ? " so far" : ""}`]]),
  ].filter(([, value]) => value !== null && value !== undefined);
  return html`<div class=${`rank-hint ${flip ? "flip" : ""}`} role="tooltip" aria-live="polite" style=${{ left: `${left}px`, top: `${top}px` }}>
    <header><b>rank ${rank}</b> <span class="state" data-state=${span.state}><i class="dot"></i>${span.state}</span></header>
    <dl>${rows.map(([label, value]) => html`<dt key=${label}>${label}</dt><dd key=${`${label}=`}>${String(value)}</dd>`)}</dl>
  </div>`;
}

/** Paints all of it. */
function draw(canvas, rows, area, attempts) {
  const { from, until, width, height, top } = area;
  const colors = stateColors();
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round((LEFT + width) * scale);
  canvas.height = Math.round((top + height + BOTTOM) * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = '10px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif';
  pen.textBaseline = "middle";
  const xOf = (time) => LEFT + ((time - from) / Math.max(until - from, 1e-9)) * width;

  for (const { state, x, y, width: wide, height: high } of rectangles(rows, area)) {
    pen.fillStyle = colors[state];
    // What has not come yet is there, and less so than those who have.
    pen.globalAlpha = state === "expected" ? 0.35 : isBad(state) ? 1 : 0.8;
    pen.fillRect(LEFT + x, top + y, wide, high);
  }
  pen.globalAlpha = 1;

  pen.fillStyle = colors.text;
  pen.textAlign = "right";
  for (const i of namedRows(rows, height)) pen.fillText(String(rows[i].rank), LEFT - 6, top + ((i + 0.5) * height) / rows.length);
  pen.textAlign = "center";
  for (const { time, label } of timeTicks(from, until, width)) {
    pen.fillRect(xOf(time), top + height, 1, 4);
    const half = pen.measureText(label).width / 2;
    pen.fillText(label, Math.min(Math.max(xOf(time), LEFT + half), LEFT + width - half), top + height + 12);
  }
  pen.strokeStyle = colors.strong;
  pen.fillStyle = colors.strong;
  pen.setLineDash([4, 3]);
  for (const { attempt, time } of attempts) {
    if (time < from || time > until) continue;
    const x = Math.round(xOf(time)) + 0.5;
    pen.beginPath();
    pen.moveTo(x, 2);
    pen.lineTo(x, top + height);
    pen.stroke();
    const name = `attempt ${attempt}`;
    const fits = x + 6 + pen.measureText(name).width < LEFT + width;
    pen.textAlign = fits ? "left" : "right";
    pen.fillText(name, fits ? x + 4 : x - 4, 8);
  }
  pen.setLineDash([]);
}
