// One cell per rank, legible from 1 to thousands: cells shrink, rows end at round ranks, every eighth has a gap.
import { html, memo, useEffect, useMemo, useRef, useState } from "../lib.js";
import { ago, count } from "../format.js";
import { reasonOf } from "../ranks.js";

const GROUP = 8;
const GAP = 2;
const GROUP_GAP = 5;
const LABEL_WIDTH = 44;
// [most ranks, cell size in px, whether the rank's number fits in]
const SIZES = [[16, 34, true], [64, 26, true], [256, 18, false], [1024, 13, false], [Infinity, 10, false], [Infinity, 8, false]];
// A grid that would be higher has smaller cells.
const HEIGHT_MAX = 560;

/** Cells in a row: as many groups of eight as fit; from four on, a power of two. */
export function columnsFor(width, ranks, size) {
  const fit = Math.max(1, Math.floor((width - LABEL_WIDTH) / (GROUP * (size + GAP) + GROUP_GAP)));
  return Math.min(GROUP * (fit < 4 ? fit : 2 ** Math.floor(Math.log2(fit))), Math.max(ranks, 1));
}

/** Size of the cells, and whether numbers fit in: by how many there are, and how wide the window is. */
export function sizeFor(width, ranks) {
  const fitting = SIZES.filter(([most]) => ranks <= most);
  const [, size, numbered] = fitting.find(([, cell]) => width === 0 || Math.ceil(ranks / columnsFor(width, ranks, cell)) * (cell + GAP) <= HEIGHT_MAX) ?? fitting.at(-1);
  return { size, numbered };
}

export function RankGrid({ ranks, places, selected, onSelect }) {
  const host = useRef(null);
  const [width, setWidth] = useState(0);
  const [hint, setHint] = useState(null);
  const [active, setActive] = useState(0);
  const anchor = useRef(null);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.round(entry.contentRect.width)));
    observer.observe(host.current);
    return () => observer.disconnect();
  }, []);

  const { size, numbered } = sizeFor(width, ranks.length);
  const columns = columnsFor(width, ranks.length, size);
  const rows = useMemo(() => {
    const result = [];
    for (let i = 0; i < ranks.length; i += columns) result.push(ranks.slice(i, i + columns));
    return result;
  }, [ranks, columns]);

  const indexOf = (event) => {
    const cell = event.target.closest?.("[data-index]");
    return cell ? Number(cell.dataset.index) : null;
  };
  const place = (event) => {
    const index = indexOf(event);
    if (index === null) return setHint(null);
    const cell = event.target.closest("[data-index]");
    return setHint({
      index, left: cell.offsetLeft + size / 2, top: cell.offsetTop + size + 6, flip: cell.offsetLeft > host.current.clientWidth / 2,
    });
  };
  const onClick = (event) => {
    const index = indexOf(event);
    if (index === null) return;
    const next = new Set(selected);
    if (event.shiftKey && anchor.current !== null) {
      const [first, last] = [Math.min(anchor.current, index), Math.max(anchor.current, index)];
      for (let i = first; i <= last; i += 1) next.add(ranks[i].rank);
    } else if (!next.delete(ranks[index].rank)) {
      next.add(ranks[index].rank);
    }
    anchor.current = index;
    setActive(index);
    onSelect([...next]);
  };
  const onKeyDown = (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -active, End: ranks.length - 1 - active };
    if (event.key === "Escape") setHint(null);
    if (!(event.key in moves)) return;
    event.preventDefault();
    const next = active + moves[event.key];
    if (next < 0 || next >= ranks.length) return;
    setActive(next);
    host.current.querySelector(`[data-index="${next}"]`)?.focus();
  };

  const present = Math.min(active, ranks.length - 1);
  const hinted = hint && ranks[hint.index];
  return html`<div class="rank-grid" ref=${host} data-testid="rank-grid" data-size=${size} data-picked=${selected.size > 0 ? "" : undefined}
    role="group" aria-label=${`${ranks.length} ranks; arrow keys move, Enter selects`}
    onClick=${onClick} onKeyDown=${onKeyDown} onPointerOver=${place} onPointerLeave=${() => setHint(null)}
    onFocusIn=${place} onFocusOut=${() => setHint(null)}>
    ${rows.map((row, r) => html`<div class="rank-row" key=${r}>
      ${rows.length > 1 && html`<span class="rank-label" aria-hidden="true">${size < 10 && r % 2 ? "" : row[0].rank}</span>`}
      ${row.map((rank, c) => html`<${Cell} key=${rank.rank} rank=${rank.rank} index=${r * columns + c} state=${rank.state}
        picked=${selected.has(rank.rank)} tab=${r * columns + c === present} text=${numbered ? String(rank.rank) : ""} />`)}
    </div>`)}
    ${hinted && html`<${Hint} rank=${hinted} place=${places.get(hinted.rank)} ...${hint} />`}
  </div>`;
}

const Cell = memo(({ rank, index, state, picked, tab, text }) => html`<button type="button" class="rank-cell"
  data-testid="rank-cell" data-rank=${rank} data-state=${state} data-index=${index} tabIndex=${tab ? 0 : -1}
  aria-pressed=${String(picked)} aria-label=${`rank ${rank}: ${state}`}>${text}</button>`);

function Hint({ rank, place, left, top, flip }) {
  const now = Date.now() / 1000;
  const rows = [
    ["host", rank.host], ["pid", rank.pid], ["local rank", rank.local_rank], ["last step", rank.last_step === null ? null : count(rank.last_step)],
    ["last seen", rank.last_seen === null ? null : ago(rank.last_seen, now)], ["children", rank.children?.length || null], ["dropped", rank.dropped || null], ["why", reasonOf(rank) || null],
    ["stood in", (rank.state === "stalled" || rank.state === "unreachable") && place ? place.where : null],
  ].filter(([, value]) => value !== null && value !== undefined);
  return html`<div class=${`rank-hint ${flip ? "flip" : ""}`} role="tooltip" style=${{ left: `${left}px`, top: `${top}px` }}>
    <header><b>rank ${rank.rank}</b> <span class="state" data-state=${rank.state}><i class="dot"></i>${rank.state}</span></header>
    <dl>${rows.map(([label, value]) => html`<dt key=${label}>${label}</dt><dd key=${`${label}=`}>${String(value)}</dd>`)}</dl>
  </div>`;
}
