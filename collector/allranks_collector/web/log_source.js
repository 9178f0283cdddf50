// The lines of one choice of filters: fetched a page at a time as they come into sight, and followed as they are printed.
import { getLogs, mayPass, RETRY_MS } from "./api.js";
import { addRow, linesOf, pagesOf, rowOf } from "./log_pages.js";

const PAGE = 500;
// What one request may give.
const MOST = 5_000;
const KEPT = 40;
const AT_ONCE = 3;
const CATCHING_UP = 3;
// Characters in an answer from which on the collector may have cut it.
const LONG = 4_000_000;
// Rows that a page of folded lines should make, so that a screen needs few of them.
const FOLDED_ROWS = 40;

const linesIn = (rows) => rows.reduce((sum, row) => sum + linesOf(row), 0);

/** Lines to ask for at once: where the ranks print alike, as many as fold to about as many rows. */
const pageSize = (fold, ranks) => (fold ? Math.min(MOST, Math.max(PAGE, FOLDED_ROWS * ranks)) : PAGE);

/** The lines of a run under these filters.
 *
 * `pages` are their places (see log_pages.js), `open` the lines that may still change, `total` the number of those that do
 * not. `changed(what)` is called with "rows" when something of it moved, and with "all" when the pages are other ones.
 *
 * @param {string} run
 * @param {object} filters as the API has them
 * @param {number} ranks how many ranks may print
 * @param {(what: string) => void} changed
 */
export function logSource(run, filters, ranks, changed) {
  const size = pageSize(filters.fold, ranks);
  const source = { filters, pages: pagesOf(0, size), open: [], total: 0, error: null };
  let newest = 0;
  let closed = false;
  let following = null;
  let again = false;
  let retry = 0;
  let wanted = [];
  let turn = 0;
  const busy = new Set();
  const used = new Map();
  const failed = new Map();

  const ask = (params) => getLogs(run, { ...filters, ...params });

  /** Asks for the newest lines, and how many there are. Throws what the API throws. */
  source.load = async () => {
    const answer = await ask({ limit: size, total: true });
    if (closed) return;
    const rows = answer.lines.filter((line) => !line.open);
    const start = answer.total - linesIn(rows);
    source.total = answer.total;
    source.pages = start > 0 ? pagesOf(start, size) : [];
    source.pages.push({ start, end: answer.total, rows, height: rows.length });
    source.open = answer.lines.filter((line) => line.open);
    newest = answer.newest;
    source.error = null;
    changed("all");
  };

  /** Takes in what has been printed since. At most one request is under way; a call meanwhile makes another after it. */
  source.follow = () => {
    if (closed) return Promise.resolve();
    if (following) again = true;
    else {
      following = followOnce().finally(() => {
        following = null;
        if (again && !closed) {
          again = false;
          source.follow();
        }
      });
    }
    return following;
  };

  const followOnce = async () => {
    clearTimeout(retry);
    try {
      // Whether a line is odd changes with the lines that come.
      if (filters.odd) return await source.load();
      const answer = await ask({ since: newest, limit: MOST });
      if (closed) return undefined;
      const rows = answer.lines.filter((line) => !line.open);
      const lines = linesIn(rows);
      if (lines >= MOST) return await source.load();
      // Of very long lines fewer come at once, and then there may be more.
      if (rows.reduce((sum, row) => sum + row.text.length, 0) > LONG) again = true;
      for (const row of rows) addRow(source.pages, row, filters.fold);
      grown(source.pages, size);
      source.total += lines;
      source.open = answer.lines.filter((line) => line.open);
      newest = answer.newest;
      source.error = null;
      changed("rows");
    } catch (error) {
      if (closed) return undefined;
      source.error = error;
      changed("rows");
      if (mayPass(error)) retry = setTimeout(source.follow, RETRY_MS);
    }
    return undefined;
  };

  /** Says which pages are in sight: those that are not here are fetched, the nearest to being seen last forgotten. */
  source.want = (pages) => {
    turn += 1;
    for (const page of pages) used.set(page, turn);
    wanted = pages.filter((page) => !page.rows);
    pump();
  };

  const pump = () => {
    for (const page of wanted) {
      if (busy.size >= AT_ONCE) return;
      if (!page.rows && !busy.has(page) && !failed.has(page)) fetchPage(page);
    }
  };

  const fetchPage = async (page) => {
    busy.add(page);
    try {
      await fill(page);
      source.error = null;
    } catch (error) {
      if (closed) return;
      source.error = error;
      failed.set(page, setTimeout(() => {
        failed.delete(page);
        pump();
      }, RETRY_MS));
    } finally {
      busy.delete(page);
      if (!closed) {
        changed("rows");
        pump();
      }
    }
  };

  /** Fetches a page's rows. Where it has moved meanwhile they are not taken: they may be its neighbours'. */
  const fill = async (page) => {
    const { start, end } = page;
    const answer = await ask({ offset: start, limit: end - start });
    // The answer may know of lines that we do not: whether they have moved this page is known once we do.
    for (let tries = 0; tries < CATCHING_UP && newest < answer.newest && !filters.odd && !closed; tries += 1) await source.follow();
    if (newest < answer.newest && !filters.odd && source.error) throw source.error;
    if (closed || page.start !== start || page.end !== end) return;
    page.rows = answer.lines.filter((line) => !line.open);
    page.height = page.rows.length;
    const got = start + linesIn(page.rows);
    if (got > start && got < end) {
      // Of very long lines fewer come at once: the rest is a page of its own.
      page.end = got;
      source.pages.splice(source.pages.indexOf(page) + 1, 0, { start: got, end, rows: null, height: null });
    }
    used.set(page, turn);
    forget();
  };

  const forget = () => {
    const here = source.pages.slice(0, -1).filter((page) => page.rows && used.get(page) !== turn);
    here.sort((a, b) => (used.get(a) ?? 0) - (used.get(b) ?? 0));
    for (const page of here.slice(0, Math.max(0, here.length - KEPT))) {
      page.height = page.rows.length;
      page.rows = null;
      used.delete(page);
    }
  };

  /** Brings the page of a line here: `{page, row, line}`. `place` is `{at: NUMBER}` or `{step: STEP}`.
   *
   * Where these filters leave that line out it is one beside it; null where there is none at all.
   */
  source.find = async (place) => {
    // Lines that come meanwhile may move it: a few tries find it where it stands.
    for (let tries = 0; tries < 5 && !closed; tries += 1) {
      const answer = await ask({ ...place, limit: 1, fold: undefined });
      const line = answer.lines.find((one) => !one.open);
      if (!line || closed) return null;
      const page = source.pages.find((one) => one.start <= answer.offset && answer.offset < one.end);
      if (page && !page.rows) await fill(page);
      const row = page?.rows ? rowOf(page.rows, line) : -1;
      if (row >= 0) {
        changed("rows");
        return { page, row, line };
      }
      await source.follow();
    }
    return null;
  };

  source.close = () => {
    closed = true;
    clearTimeout(retry);
    for (const timer of failed.values()) clearTimeout(timer);
  };

  return source;
}

/** A last page that has grown to twice its size ends there, and the next one begins. */
function grown(pages, size) {
  const last = pages.at(-1);
  if (last.end - last.start >= 2 * size) pages.push({ start: last.end, end: last.end, rows: [], height: 0 });
}
