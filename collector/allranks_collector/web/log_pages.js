// Where lines stand: pages of lines, rows of pages, and a scroll bar over more rows than a browser can stack.
// A page is `{start, end, rows, height}`: lines start … end-1 in the order of time; the rows that show them (null: not
// here); how many rows that makes (null: not known yet). A row shows one line, or several that were folded.

const FOLD_S = 10;
// Rows that a line is compared with, back from the page's end.
const FOLD_ROWS = 500;
/** Browsers stop at 17 to 33 million pixels. */
const MOST_PX = 8_000_000;

const byTime = (a, b) => a.time - b.time || a.number - b.number;
const ranksOf = (row) => row.ranks ?? [row.rank];
export const linesOf = (row) => row.count ?? 1;

/** Pages of `total` lines from the last one back, each of `size` lines but the first, which has what is left. */
export function pagesOf(total, size) {
  const pages = [];
  for (let end = total; end > 0; end -= size) {
    pages.push({ start: Math.max(0, end - size), end, rows: null, height: null });
  }
  if (pages.length === 0) pages.push({ start: 0, end: 0, rows: [], height: 0 });
  return pages.reverse();
}

/** How many rows a page makes; where that is not known, as many as its lines make elsewhere. */
function heightOf(page, ratio) {
  if (page.rows) return page.rows.length;
  return page.height ?? Math.max(1, Math.round((page.end - page.start) * ratio));
}

/** The first row of each page, and at the end the number of all rows. */
export function layout(pages) {
  let [lines, rows] = [0, 0];
  for (const page of pages) {
    if (page.rows) [lines, rows] = [lines + page.end - page.start, rows + page.rows.length];
  }
  const ratio = lines > 0 ? rows / lines : 1;
  const starts = [0];
  for (const page of pages) starts.push(starts.at(-1) + heightOf(page, ratio));
  return starts;
}

/** The page that holds a row, or a line: the last one that begins at it or before. */
export function pageAt(starts, place) {
  let [low, high] = [0, starts.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (starts[middle] <= place) low = middle;
    else high = middle;
  }
  return low;
}

/** Puts a row that has just come into the page where its time has its place; the pages behind it move on.
 *
 * Where its neighbours are not here, a page that is not here grows. With `fold` it joins the row of the same text that
 * other ranks printed shortly before or after.
 */
export function addRow(pages, row, fold) {
  let i = pages.length - 1;
  while (i > 0) {
    const { rows } = pages[i];
    let before = i - 1;
    if (rows?.length) {
      if (byTime(rows[0], row) <= 0) break;
    } else {
      // It falls into this gap, unless what stands before the gap is later already.
      while (before >= 0 && !pages[before].rows?.length) before -= 1;
      if (before < 0 || byTime(pages[before].rows.at(-1), row) <= 0) break;
    }
    i = before;
  }
  const target = pages[i];
  target.end += linesOf(row);
  for (let k = i + 1; k < pages.length; k += 1) {
    pages[k].start += linesOf(row);
    pages[k].end += linesOf(row);
  }
  if (!target.rows) target.height = null;
  else if (!(fold && joined(target.rows, row))) insert(target.rows, row);
}

const isAlike = (a, b) => a.text === b.text && a.stream === b.stream && a.attempt === b.attempt && Math.abs(a.time - b.time) <= FOLD_S;

/** Adds the row's ranks to the earliest row like it that came after their own last one. Gives whether there is one. */
function joined(rows, row) {
  const mine = ranksOf(row);
  let found = -1;
  for (let i = rows.length - 1; i >= Math.max(0, rows.length - FOLD_ROWS) && row.time - rows[i].time <= FOLD_S; i -= 1) {
    if (!isAlike(rows[i], row)) continue;
    if (ranksOf(rows[i]).some((rank) => mine.includes(rank))) break;
    found = i;
  }
  if (found < 0) return false;
  const ranks = [...ranksOf(rows[found]), ...mine].sort((a, b) => a - b);
  rows[found] = { ...rows[found], ranks, count: ranks.length };
  return true;
}

function insert(rows, row) {
  let i = rows.length;
  while (i > 0 && byTime(rows[i - 1], row) > 0) i -= 1;
  rows.splice(i, 0, row);
}

/** The row of a page that shows a line: its own, or the one that it was folded into; -1 where there is none. */
export function rowOf(rows, line) {
  const own = rows.findIndex((row) => row.number === line.number);
  if (own >= 0) return own;
  return rows.findIndex((row) => isAlike(row, line) && ranksOf(row).includes(line.rank));
}

// -- the scroll bar: `top` is in pixels of all rows, `bar` in those of the element, which may be fewer --------------

/** Sizes in pixels: all rows, the element that stands for them, and what of it is seen. */
export function extent(rows, rowHeight, seen) {
  const all = rows * rowHeight;
  return { all, element: Math.min(all, MOST_PX), seen };
}

const most = ({ all, seen }) => Math.max(0, all - seen);
const mostBar = ({ element, seen }) => Math.max(0, element - seen);

/** Where the bar stands for a top. */
export const barAt = (top, size) => (most(size) > 0 ? (Math.min(top, most(size)) / most(size)) * mostBar(size) : 0);

/** The new top once the bar has moved: by as many pixels after a key or a wheel, to the same share of all after a drag. */
export function topAfter(top, before, bar, size, isWheel = false) {
  if (size.all === size.element) return bar;
  const far = !isWheel && Math.abs(bar - before) > size.seen;
  const next = far ? (bar / mostBar(size)) * most(size) : top + bar - before;
  return Math.max(0, Math.min(most(size), next));
}

export const lastTop = most;
