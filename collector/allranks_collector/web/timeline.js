// The timeline of states: rows, what lies where, and its axis. Pure functions; times in seconds.
import { RANK_STATES } from "./ranks.js";

const ROW_MAX = 16;
const HEIGHT_MAX = 512;
// What is bad is at least so many pixels wide and high.
const SEEN = 3;
const SECOND = 1e9;
const STEPS_S = [
  0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000,
];
const RANK_STEPS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384];
const BAD = new Set(["failed", "dead", "stalled", "unreachable"]);

/** Whether a state is one that has to be seen however short it was. */
export const isBad = (state) => BAD.has(state);

/** What the API says as rows, one per rank: [{rank, spans: [{state, from, until, attempt, host, open}]}], `from`, `until`. */
export function timelineOf({ from_ns: from, until_ns: until, states, ranks }) {
  const rows = new Map();
  for (const { rank, attempt, host, spans } of ranks) {
    if (!rows.has(rank)) rows.set(rank, { rank, spans: [] });
    for (const [state, begin, end] of spans) {
      rows.get(rank).spans.push({
        state: states[state], from: begin / SECOND, until: end / SECOND, attempt, host, open: end >= until,
      });
    }
  }
  return { from: from / SECOND, until: until / SECOND, rows: [...rows.values()].sort((a, b) => a.rank - b.rank) };
}

/** How high the rows are together: as much as they need, and not more than is seen at once. */
export const heightOf = (count) => Math.max(1, Math.min(HEIGHT_MAX, count * ROW_MAX));

/** The states that occur, worst first, with how many ranks were in each. */
export function statesOf(rows) {
  return RANK_STATES
    .map((state) => ({ state, count: rows.filter(({ spans }) => spans.some((span) => span.state === state)).length }))
    .filter(({ count }) => count > 0);
}

/** The rows in which something was not fine. */
export const troubled = (rows) => rows.filter(({ spans }) => spans.some(({ state }) => BAD.has(state)));

/** Rectangles in the order to paint them, so that of what falls on one pixel the worst stays: [{state, x, y, width, height}].
 *
 * What is bad is never thinner than can be seen.
 */
export function rectangles(rows, { from, until, width, height }) {
  const perS = width / Math.max(until - from, 1e-9);
  const perRow = height / Math.max(rows.length, 1);
  // Between rows that are high enough lies a line of nothing.
  const gap = perRow >= 4 ? 1 : 0;
  const byState = new Map(RANK_STATES.map((state) => [state, []]));
  rows.forEach(({ spans }, i) => {
    for (const span of spans) {
      if (span.until < from || span.from > until) continue;
      const bad = BAD.has(span.state);
      const x = Math.max(0, (span.from - from) * perS);
      const end = Math.min(width, (span.until - from) * perS);
      const wide = Math.max(end - x, bad ? SEEN : 0);
      const high = Math.max(perRow - gap, bad ? SEEN : 0);
      byState.get(span.state)?.push({ state: span.state, x: Math.min(x, width - wide), y: Math.min(i * perRow, height - high), width: wide, height: high });
    }
  });
  return [...RANK_STATES].reverse().flatMap((state) => byState.get(state));
}

/** What is painted at a place: `{row, span}`, or null; where rows share a pixel, the worst of them. */
export function spanAt(rows, { from, until, width, height }, x, y) {
  const time = from + (x / width) * (until - from);
  // As far as something bad is painted wider than it is.
  const slack = (SEEN * (until - from)) / width;
  const perRow = height / Math.max(rows.length, 1);
  const near = perRow >= SEEN ? 0 : SEEN - 1;
  const first = Math.max(0, Math.floor((y - near) / perRow));
  const last = Math.min(rows.length - 1, Math.floor((y + near) / perRow));
  let best = null;
  for (let i = first; i <= last; i += 1) {
    for (const span of rows[i].spans) {
      const [early, late] = BAD.has(span.state) ? [slack, slack] : [0, 0];
      if (time < span.from - early || time > span.until + late) continue;
      const found = { row: i, span, rank: RANK_STATES.indexOf(span.state), off: Math.abs((i + 0.5) * perRow - y) };
      if (best === null || found.rank < best.rank || (found.rank === best.rank && found.off < best.off)) best = found;
    }
  }
  return best && { row: best.row, span: best.span };
}

/** Moments for an axis, at round times of day in the reader's time zone: [{time, label}], at least `apart` pixels between. */
export function timeTicks(from, until, width, apart = 90) {
  const wanted = ((until - from) * apart) / Math.max(width, 1);
  const step = STEPS_S.find((each) => each >= wanted) ?? STEPS_S.at(-1);
  const offset = new Date(from * 1000).getTimezoneOffset() * 60;
  const ticks = [];
  for (let time = Math.ceil((from - offset) / step) * step + offset; time <= until; time += step) ticks.push({ time, label: labelOf(time, step) });
  return ticks;
}

function labelOf(time, step) {
  const date = new Date(time * 1000);
  const two = (part) => String(part).padStart(2, "0");
  const day = `${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const minute = `${two(date.getHours())}:${two(date.getMinutes())}`;
  if (step >= 86400) return day;
  if (step >= 21600) return `${day} ${minute}`;
  if (step >= 60) return minute;
  const seconds = `${minute}:${two(date.getSeconds())}`;
  return step >= 1 ? seconds : `${seconds}.${Math.round((time % 1) * 10) % 10}`;
}

/** Which rows are named, so that names do not touch: their indices. */
export function namedRows(rows, height, apart = 14) {
  const perRow = height / Math.max(rows.length, 1);
  const step = RANK_STEPS.find((each) => each * perRow >= apart) ?? RANK_STEPS.at(-1);
  return rows.map((_, i) => i).filter((i) => i % step === 0);
}
