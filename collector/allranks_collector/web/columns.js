// Which summary figures stand in the list of runs. Pure functions.

const LIKELY = ["loss", "accuracy", "acc", "reward", "score", "perplexity", "error", "f1", "map", "mfu"];
const COLUMN_COUNT = 3;

/** All summary keys with a number, the most telling first.
 *
 * Known figures of merit before others, then by how many runs have them.
 */
export function summaryKeys(runs) {
  const seen = new Map();
  for (const run of runs) {
    for (const [key, value] of Object.entries(run.summary ?? {})) {
      if (typeof value === "number") seen.set(key, (seen.get(key) ?? 0) + 1);
    }
  }
  return [...seen.keys()].sort((a, b) => merit(a) - merit(b) || seen.get(b) - seen.get(a) || (a < b ? -1 : 1));
}

function merit(key) {
  const last = key.slice(key.lastIndexOf("/") + 1).toLowerCase();
  const place = LIKELY.findIndex((word) => last === word || last.split(/[_.-]/).includes(word));
  return place < 0 ? LIKELY.length : place;
}

/** The keys to show: the reader's choice where there is one, else the first few; in the order of `all`. */
export function chosenKeys(all, choice) {
  return choice.length ? choice : all.slice(0, COLUMN_COUNT);
}

/** Runs whose name, id, project, group or tags hold every word of the text. */
export function matching(runs, words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (wanted.length === 0) return runs;
  return runs.filter((run) => {
    const text = [run.name, run.id, run.project, run.group, run.state, ...(run.tags ?? [])].join(" ").toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
}

/** Runs ordered by a column's value; runs without one come last either way. */
export function sortRuns(runs, valueOf, descending) {
  const sign = descending ? -1 : 1;
  return [...runs].sort((a, b) => {
    const [first, second] = [valueOf(a) ?? null, valueOf(b) ?? null];
    if (first === null || second === null) return (first === null) - (second === null);
    return sign * (first < second ? -1 : first > second ? 1 : 0);
  });
}
