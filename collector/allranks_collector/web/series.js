// From the API's buckets to the columns that a chart draws. Pure functions.
import uPlot from "./vendor/uplot-1.6.32.js";

/** Exponential moving average without the start's bias; a null stays null and changes nothing.
 *
 * @param {Array<number | null>} values
 * @param {number} weight 0 (none) to less than 1: how much of the past is kept
 */
export function smooth(values, weight) {
  if (weight <= 0) return values;
  let average = 0;
  let known = 0;
  return values.map((value) => {
    if (value === null || value === undefined) return value;
    average = weight * average + (1 - weight) * value;
    known = weight * known + (1 - weight);
    return average / known;
  });
}

/** Values that a logarithmic axis can show; the others become gaps. */
export const positive = (values) => values.map((value) => (value === null || value === undefined || value > 0 ? value : null));

/** Columns [x, min, max, mean, smoothed mean] of a series that is reduced over ranks. */
export function bandColumns(series, { smoothing = 0, log = false } = {}) {
  const fit = log ? positive : (values) => values;
  const smoothed = smoothing > 0 ? smooth(series.mean, smoothing) : series.mean;
  return [series.x, fit(series.min), fit(series.max), fit(series.mean), fit(smoothed)];
}

/** Columns [x, one per series …] of series that need not share their x; a rank's missing x is no gap, its null is. */
export function lineColumns(list, { smoothing = 0, log = false } = {}) {
  if (list.length === 0) return [[]];
  return uPlot.join(list.map((series) => {
    const values = smooth(series.value, smoothing);
    return [series.x, log ? positive(values) : values];
  }));
}

/** The steps that an x range covers, `[first, last]`; null where it covers none.
 *
 * One bucket more on either side, so that lines run to the edges.
 */
export function stepsBetween(series, min, max) {
  let first = null;
  let last = null;
  for (const { x, step } of Array.isArray(series) ? series : [series]) {
    for (let i = 0; i < x.length; i += 1) {
      if ((x[i + 1] ?? x[i]) >= min && x[i] <= max) first = Math.min(first ?? Infinity, step[i]);
      if ((x[i - 1] ?? x[i]) <= max && x[i] >= min) last = Math.max(last ?? -Infinity, step[i]);
    }
  }
  return first === null || last === null || first > last ? null : [first, last];
}

/** The last value that is a number, or null. */
export function lastOf(values) {
  for (let i = values.length - 1; i >= 0; i -= 1) if (values[i] !== null && values[i] !== undefined) return values[i];
  return null;
}

/** What people look at first; other sections follow in order of their names. */
const FIRST_SECTIONS = ["train", "val", "valid", "validation", "eval", "test", ""];

/** Keys by the part before their first "/"; keys without one are under "". */
export function sections(keys) {
  const groups = new Map();
  for (const key of keys) {
    const cut = key.key.indexOf("/");
    const name = cut > 0 ? key.key.slice(0, cut) : "";
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(key);
  }
  const natural = new Intl.Collator("en", { numeric: true }).compare;
  for (const group of groups.values()) group.sort((a, b) => natural(a.key, b.key));
  const place = (name) => (FIRST_SECTIONS.includes(name) ? FIRST_SECTIONS.indexOf(name) : FIRST_SECTIONS.length);
  return [...groups].sort(([a], [b]) => place(a) - place(b) || natural(a, b)).map(([name, group]) => ({ name, keys: group }));
}
