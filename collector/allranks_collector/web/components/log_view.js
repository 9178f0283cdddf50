// Lines in a window of their own, of which only those in sight are in the document, however many there are.
import { html, memo, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../lib.js";
import { head, marker, places, plain, runs, visible, withMarks } from "../ansi.js";
import { bytes, clock, count } from "../format.js";
import { barAt, extent, lastTop, layout, pageAt, topAfter } from "../log_pages.js";
import { formatRanks } from "../ranks.js";

/** The height of a row in pixels; console.css says the same. */
const ROW = 18;
const BEYOND = 12;
// A row shows so much of a line; the whole of it is for the line that is chosen.
const CUT = 2_000;
const SETTLED_MS = 150;
// So long after a wheel or a finger has moved, what scrolls is its doing.
const WHEEL_MS = 400;

/** @param {object} props
 *  source: a log source; version: another number whenever something of it moved
 *  follow, onFollow: whether the end is kept in sight; chosen, onChoose: the number of the line that is marked
 *  search: what is marked within lines; times, hosts: what stands before them
 *  handle: gets {reveal(page, row), toStart(), top()} in its `current`
 */
export function LogView({ source, version, follow, onFollow, chosen, onChoose, search, times, hosts, handle }) {
  const element = useRef(null);
  // `top`: pixels of all rows above what is seen. `bar`: what the element's scrollTop was last. `place`: the row at the top.
  const at = useRef({ top: 0, bar: 0, place: null, starts: null, widest: 0, who: 0, settle: 0, kept: null, wheel: -Infinity }).current;
  const latest = useRef(null);
  const [seen, setSeen] = useState(600);
  const [, redraw] = useState(0);
  const expression = useMemo(() => marker(search), [search]);

  const starts = useMemo(() => layout(source.pages), [source, version]);
  const size = extent(starts.at(-1) + source.open.length, ROW, seen);
  if (at.starts !== starts) {
    // Pages above may have got more or fewer rows: what is read stays where it is.
    at.top = follow ? lastTop(size) : Math.min(placed(source, starts, at), lastTop(size));
    at.starts = starts;
  }
  if (follow) at.top = lastTop(size);

  const first = Math.max(0, Math.floor(at.top / ROW) - BEYOND);
  const until = Math.min(size.all / ROW, Math.ceil((at.top + seen) / ROW) + BEYOND);
  const { rows, pages } = window_(source, starts, first, until);
  at.place = placeOf(source, starts, at.top);
  for (const row of rows) {
    if (!row) continue;
    at.widest = Math.max(at.widest, Math.min(CUT, row.text.length));
    at.who = Math.max(at.who, whoOf(row).length);
  }

  useLayoutEffect(() => {
    const log = element.current;
    // The reader has moved the bar, and is yet to be heard: what is drawn meanwhile must not take it back. (At its end
    // it may be because there is less to show.)
    if (Math.abs(log.scrollTop - at.bar) >= 0.5 && log.scrollTop < log.scrollHeight - log.clientHeight - 1) {
      latest.current.onScroll();
      return;
    }
    const wanted = barAt(at.top, size);
    const isScaled = size.all !== size.element;
    // While the reader turns the wheel over more rows than the bar can hold, the bar may be a little off.
    if (!(isScaled && at.settle) && Math.abs(log.scrollTop - wanted) > 0.5) log.scrollTop = wanted;
    at.bar = log.scrollTop;
  });
  useEffect(() => source.want(pages));
  useLayoutEffect(() => setSeen(element.current.clientHeight), []);
  useEffect(() => {
    const observer = new ResizeObserver(() => {
      setSeen(element.current.clientHeight);
      // What is looked at stays in sight when the window gets lower.
      if (at.kept !== null) latest.current.show(at.kept);
    });
    observer.observe(element.current);
    return () => {
      observer.disconnect();
      clearTimeout(at.settle);
    };
  }, []);
  useEffect(() => {
    at.widest = 0;
    at.who = 0;
  }, [source]);

  /** Brings a row, by its number among all, into the middle, unless it is in sight; until the reader scrolls it stays there. */
  const show = (row) => {
    at.kept = row;
    const height = element.current.clientHeight;
    if (row * ROW >= at.top && (row + 1) * ROW <= at.top + height) return;
    const now = layout(source.pages);
    at.starts = now;
    at.top = Math.max(0, Math.min(lastTop(extent(now.at(-1) + source.open.length, ROW, height)), row * ROW - height / 2));
    at.place = placeOf(source, now, at.top);
    redraw((old) => old + 1);
  };
  const pick = (row) => {
    at.kept = first + rows.indexOf(row);
    onChoose(row);
  };
  handle.current = {
    /** Brings a row of a page into sight. */
    reveal: (page, row) => show(layout(source.pages)[source.pages.indexOf(page)] + row),
    toStart() {
      at.kept = null;
      at.top = 0;
      at.place = placeOf(source, starts, 0);
      redraw((old) => old + 1);
    },
    /** The line at the top of what is seen. */
    top: () => rows.slice(Math.floor(at.top / ROW) - first).find((row) => row && !row.open) ?? null,
  };

  const onScroll = () => {
    const log = element.current;
    if (Math.abs(log.scrollTop - at.bar) < 0.5) return;
    const up = log.scrollTop < at.bar;
    at.kept = null;
    at.top = topAfter(at.top, at.bar, log.scrollTop, size, performance.now() - at.wheel < WHEEL_MS);
    at.bar = log.scrollTop;
    clearTimeout(at.settle);
    at.settle = setTimeout(() => {
      at.settle = 0;
      redraw((old) => old + 1);
    }, SETTLED_MS);
    if (at.bar <= 0 || at.bar >= size.element - seen - 1) {
      clearTimeout(at.settle);
      at.settle = 0;
    }
    const isAtEnd = at.top >= lastTop(size) - 2;
    if (follow && up && !isAtEnd) onFollow(false);
    else if (!follow && !up && isAtEnd) onFollow(true);
    redraw((old) => old + 1);
  };

  latest.current = { show, pick, onScroll };
  const choose = useRef((row) => latest.current.pick(row)).current;

  const onWheel = () => {
    at.wheel = performance.now();
  };
  // Placed in the element, not by the window: so the browser moves them at once, and they are drawn anew after that.
  const shift = barAt(at.top, size);
  const offset = (at.settle ? at.bar : shift) - at.top + first * ROW;
  return html`<div class="log" ref=${element} tabindex="0" role="region" aria-label="Lines" aria-live="off" data-testid="log"
    onScroll=${onScroll} onWheel=${onWheel} onTouchMove=${onWheel}>
    <div class="log-space" style=${{ height: `${size.element}px` }}>
      <div class="log-rows" style=${{ transform: `translateY(${offset}px)`, "--widest": at.widest, "--who": Math.min(30, at.who) }}>
        ${rows.map((row, i) => (row ? html`<${Row} key=${i} row=${row} chosen=${row.number !== null && row.number === chosen} onChoose=${choose}
          expression=${expression} times=${times} hosts=${hosts} />` : html`<div key=${i} class="log-row waiting" aria-hidden="true"></div>`))}
      </div>
    </div>
  </div>`;
}

/** The rows from `first` to before `until` (undefined where they are not here), and the pages that hold them. */
function window_(source, starts, first, until) {
  const rows = [];
  const pages = [];
  const ended = starts.at(-1);
  for (let i = pageAt(starts, first); i < source.pages.length && starts[i] < until; i += 1) {
    const page = source.pages[i];
    pages.push(page);
    for (let row = Math.max(first, starts[i]); row < Math.min(until, starts[i + 1]); row += 1) rows.push(page.rows?.[row - starts[i]]);
  }
  for (let row = Math.max(first, ended); row < until; row += 1) rows.push(source.open[row - ended]);
  return { rows, pages };
}

/** What stands at the top: the page and the row in it where that is here, else the line that should be; and the pixels above it. */
function placeOf(source, starts, top) {
  const i = pageAt(starts, Math.floor(top / ROW));
  const row = Math.floor(top / ROW) - starts[i];
  const page = source.pages[i];
  const px = top % ROW;
  const line = page?.rows?.[row];
  if (line || !page || page.rows) return { page, row, line, px };
  const share = row / Math.max(1, starts[i + 1] - starts[i]);
  return { page: null, index: page.start + share * (page.end - page.start), px };
}

/** The top at which a place stands now. */
function placed(source, starts, { place, top }) {
  if (!place) return top;
  if (!place.page) {
    const i = source.pages.findIndex((page) => page.end > place.index);
    if (i < 0) return top;
    const { start, end } = source.pages[i];
    const row = Math.floor(((place.index - start) / (end - start)) * (starts[i + 1] - starts[i]));
    return (starts[i] + row) * ROW + place.px;
  }
  const i = source.pages.indexOf(place.page);
  if (i < 0) return top;
  const same = place.line ? place.page.rows?.indexOf(place.line) ?? -1 : -1;
  return (starts[i] + (same >= 0 ? same : place.row)) * ROW + place.px;
}

const isFolded = (row) => (row.count ?? 1) > 1;
const whoOf = (row) => (isFolded(row) ? `×${row.count} [${formatRanks(row.ranks)}]` : `${row.host ?? ""}:${row.rank}`);

function Who({ row }) {
  if (isFolded(row)) return html`<span class="log-who folded" title=${`the same line of ranks ${formatRanks(row.ranks)}`}><b>×${count(row.count)}</b> [${formatRanks(row.ranks)}]</span>`;
  return html`<span class="log-who" title=${`${row.host ?? ""}, rank ${row.rank}, attempt ${row.attempt}`}><span class="host">${row.host}:</span>${row.rank}</span>`;
}

const Row = memo(({ row, chosen, onChoose, expression, times, hosts }) => {
  const choose = (event) => {
    event.preventDefault();
    onChoose(row);
  };
  const classes = ["log-row", row.stream, row.open && "open", chosen && "chosen"].filter(Boolean).join(" ");
  return html`<div class=${classes} data-testid="log-row" data-number=${row.number} data-stream=${row.stream}>
    ${row.number === null ? html`<span class="log-number" title="This line may still change">…</span>`
      : html`<a class="log-number" href=${lineUrl(row.number)} tabindex="-1" draggable="false" onClick=${choose}
        title="A link to this line, and the whole of it">${row.line + 1}</a>`}
    ${times && html`<time>${clock(row.time)}</time>`}
    ${hosts && html`<${Who} row=${row} />`}
    <${Text} text=${row.text} expression=${expression} limit=${CUT} />
  </div>`;
});

function lineUrl(number) {
  const search = new URLSearchParams(location.search);
  search.set("line", number);
  return `${location.pathname}?${search}`;
}

/** A line's text in its colours, with what the expression finds marked. All of it is text nodes. */
export function Text({ text, expression, limit }) {
  const shown = head(runs(text), limit);
  const letters = shown.map((run) => run.text).join("");
  const parts = expression ? withMarks(shown, places(letters, expression)) : shown;
  const more = plain(text).length - letters.length;
  return html`<span class="log-text" data-testid="log-text" dir="ltr">${parts.map((part, i) => html`<${Part} key=${i} part=${part} />`)}
    ${more > 0 && html`<span class="log-more">… ${bytes(more)} more</span>`}</span>`;
}

function Part({ part }) {
  const style = part.background || part.color ? { "--own": part.color, background: part.background } : undefined;
  const classes = `${part.classes}${part.background ? " on-own" : ""}`;
  const text = visible(part.text);
  if (part.marked) return html`<mark class=${classes} style=${style}>${text}</mark>`;
  return classes || style ? html`<span class=${classes} style=${style}>${text}</span>` : text;
}
