// Values as people read them. Pure functions: no clock, no page.

const NONE = "–";
const UNITS = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];

/** A number in few characters that still tell: 0.0123, 12.3k, 4.56e-7. */
export function number(value) {
  if (value === null || value === undefined) return NONE;
  if (typeof value !== "number") return String(value);
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return count(value);
  if (size >= 1e6) return value.toExponential(3).replace("e+", "e");
  if (size >= 1000) return value.toLocaleString("en-US", { maximumSignificantDigits: 6 });
  // Zeros at the end stay: figures below each other keep their width.
  if (size >= 1e-4) return value.toPrecision(4);
  return trimExponent(value.toExponential(2));
}

const trim = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
const trimExponent = (text) => text.replace(/\.?0+e/, "e");

/** A whole number with its thousands apart: 12,345. */
export function count(value) {
  return value === null || value === undefined ? NONE : Math.round(value).toLocaleString("en-US");
}

/** Bytes in the unit that suits them: 512 B, 4.0 KiB, 12 MiB, 1.5 GiB. */
export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  let amount = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (amount < 1024) return `${unit === "B" || amount >= 10 ? Math.round(amount) : amount.toFixed(1)} ${unit}`;
    amount /= 1024;
  }
  return `${amount.toFixed(1)} TiB`;
}

/** Numbers along an axis, all with the same number of decimals, large ones as 10k, 2M. */
export function axisNumbers(values) {
  const largest = Math.max(...values.map((value) => Math.abs(value ?? 0)));
  if (largest === 0) return values.map((value) => (value === null ? "" : "0"));
  if (largest >= 1e15 || largest < 1e-4) return values.map((v) => (v === null ? "" : trimExponent(v.toExponential(1))));
  const [scale, letter] = largest >= 1e12 ? [1e12, "T"] : largest >= 1e9 ? [1e9, "G"] : largest >= 1e6 ? [1e6, "M"]
    : largest >= 1e4 ? [1e3, "k"] : [1, ""];
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) / scale : largest / scale;
  const decimals = Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  const exact = Math.abs(step * 10 ** decimals - Math.round(step * 10 ** decimals)) < 1e-6 ? decimals : decimals + 1;
  return values.map((value) => (value === null ? "" : value === 0 ? "0" : (value / scale).toFixed(exact) + letter));
}

/** Seconds as the two largest units: 3m 20s, 2h 05m, 4d 3h; below a minute 12s, below a second 0.25s. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds < 1) return seconds === 0 ? "0s" : `${trim(seconds.toFixed(2))}s`;
  const whole = Math.round(seconds);
  const first = UNITS.findIndex(([size]) => whole >= size);
  const [size, unit] = UNITS[first];
  const rest = UNITS[first + 1];
  const head = `${Math.floor(whole / size)}${unit}`;
  const more = rest ? Math.floor((whole % size) / rest[0]) : 0;
  return more ? `${head} ${more}${rest[1]}` : head;
}

/** Moments along an axis: as durations, with decimals of a second where the step between them is below one. */
export function axisDurations(values) {
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : 1;
  if (step >= 1) return values.map((value) => (value === null ? "" : duration(value)));
  const decimals = Math.min(6, Math.max(1, -Math.floor(Math.log10(step) + 1e-9)));
  return values.map((value) => (value === null ? "" : `${value.toFixed(decimals)}s`));
}

/** How long ago, in one unit: now, 12s ago, 3m ago, 2d ago. */
export function ago(then, now) {
  if (then === null || then === undefined) return NONE;
  const seconds = Math.max(0, now - then);
  if (seconds < 2) return "now";
  const [size, unit] = UNITS.find(([limit]) => seconds >= limit) ?? [1, "s"];
  return `${Math.floor(seconds / size)}${unit} ago`;
}

/** A moment in the reader's own time zone: 2025-03-04 17:05:09. */
export function moment(time) {
  if (time === null || time === undefined) return NONE;
  const date = new Date(time * 1000);
  const two = (part) => String(part).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} `
    + `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** Any JSON value as one line of text, numbers with all their digits. */
export function text(value) {
  if (value === null || value === undefined) return NONE;
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** How many of how many have come: "64", or "3 of 64" where some are missing; the whole may be unknown. */
export function countOf(n, whole, between = " of ") {
  return whole === null || whole === undefined || n === whole ? count(n) : `${count(n)}${between}${count(whole)}`;
}

/** "1 rank", "3 ranks"; `words` where it is not the word with an s. */
export const plural = (n, word, words = `${word}s`) => (n === 1 ? `1 ${word}` : `${count(n)} ${words}`);

/** Nested maps as [path, value] rows in order, `model.depth` for {model: {depth}}. */
export function flatten(value, prefix = "") {
  const nested = value !== null && typeof value === "object" && !Array.isArray(value);
  if (!nested || (prefix && Object.keys(value).length === 0)) return prefix ? [[prefix, value]] : [];
  return Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([key, inner]) => flatten(inner, prefix ? `${prefix}.${key}` : key));
}

/** The time of day of a moment, to the millisecond: 17:05:09.123. */
export function clock(time) {
  if (time === null || time === undefined) return NONE;
  return `${moment(time).slice(11)}.${String(Math.floor((time % 1) * 1000)).padStart(3, "0")}`;
}
